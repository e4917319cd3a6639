//! The end of a process, in order.

use std::time::Duration;

use tokio::task::JoinSet;

use super::Process;

impl Process {
    /// Ends everything, the data plane first.
    pub(super) async fn end(mut self, delay: Duration, deadline: Duration) {
        // A pod that ends gets nothing new, whatever its probe says; and one that fails makes
        // kube-proxy forget its UDP flows, those of links that still drain among them.
        if self.settings.kubernetes.is_none() || self.control.is_some() {
            self.readiness.set_waiting("drain", "the process is ending");
        }
        tokio::time::sleep(delay).await;
        // The ingress first: its last requests may still need a sidecar.
        if let Some(ingress) = self.ingress.take() {
            ingress.drain(deadline).await;
        }
        let mut draining = JoinSet::new();
        for sidecar in self.sidecars.drain(..) {
            draining.spawn(async move {
                sidecar.drain(deadline).await;
            });
        }
        while draining.join_next().await.is_some() {}
        // After those that use the links.
        if let Some(eastwest) = self.eastwest.take() {
            eastwest.drain(deadline).await;
        }
        if let Some(dns) = self.dns.take() {
            dns.stop(deadline.min(CONTROL_DEADLINE)).await;
        }
        self.background.run(Duration::ZERO).await;
        if let Some(control) = self.control.take() {
            control.stop(CONTROL_DEADLINE).await;
        }
        if let Some(authorities) = self.authorities.take() {
            authorities.stop(CONTROL_DEADLINE).await;
        }
        if let Some(cluster) = self.cluster.take() {
            cluster.released(CONTROL_DEADLINE).await;
        }
        self.tasks.shutdown().await;
        for server in self.servers.drain(..) {
            server.shutdown().await;
        }
        if let Some(telemetry) = self.telemetry.take() {
            telemetry.shutdown(CONTROL_DEADLINE).await;
        }
    }
}

/// Time that each part of the controller side gets to end.
const CONTROL_DEADLINE: Duration = Duration::from_secs(3);
