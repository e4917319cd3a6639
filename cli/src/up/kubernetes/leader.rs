//! The connection to the API server, and the Lease.

use std::time::Duration;

use anyhow::Context as _;
use isthmus_kubernetes::{Campaign, Client, Connection, Leadership, LeaseSettings, connect};
use isthmus_model::name::SYSTEM_NAMESPACE;
use isthmus_runtime::{Stop, error_chain};
use tokio::task::JoinSet;

use crate::settings::KubernetesSettings;

/// The cluster that this process controls.
pub(crate) struct Cluster {
    /// Requests to its API server.
    pub(crate) client: Client,
    /// Whether this process may write.
    pub(crate) leadership: Leadership,
    /// The address of the API server.
    pub(crate) url: String,
    /// Contends for the Lease, on its own: it must outlive the other tasks.
    campaign: JoinSet<()>,
}

impl Cluster {
    /// Connects, and waits until this process leads. An API server that does not answer is
    /// waited for: it may be starting as well.
    pub(crate) async fn lead(settings: &KubernetesSettings, stop: Stop) -> anyhow::Result<Self> {
        let connection = connection(settings).await?;
        let identity = identity();
        let lease = LeaseSettings::new(&identity);
        let client = connection.client.clone();
        let campaign = Campaign::new(client.clone(), SYSTEM_NAMESPACE, LEASE, lease);
        let mut leadership = campaign.leadership();
        let mut ending = stop;
        let mut contending = JoinSet::new();
        contending.spawn(async move { campaign.run(ending.draining()).await });
        tracing::info!(url = connection.url, version = connection.version, "waiting for the lease");
        leadership.elected().await;
        tracing::info!(holder = identity, "leading");
        Ok(Self { client, leadership, url: connection.url, campaign: contending })
    }

    /// Waits until the Lease is released, so that a standby need not wait for its end. Must
    /// be called when the process drains and nothing writes any longer.
    pub(crate) async fn released(mut self, deadline: Duration) {
        if tokio::time::timeout(deadline, self.campaign.join_next()).await.is_err() {
            tracing::warn!("the lease is not released in time; it runs out");
        }
    }
}

async fn connection(settings: &KubernetesSettings) -> anyhow::Result<Connection> {
    let access = settings.access();
    let mut pause = PAUSE_MIN;
    loop {
        match connect(&access).await {
            Ok(connection) => return Ok(connection),
            Err(error @ isthmus_kubernetes::ConnectError::Server { .. }) => {
                tracing::warn!(error = %error_chain(&error), "waiting for the API server");
            }
            Err(error) => return Err(error).context("kubernetes"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// A name that no other process has: the pod's, and a random part for its next life.
fn identity() -> String {
    format!("{}_{:08x}", pod_name(), crate::up::seed() & 0xffff_ffff)
}

/// The name of the host, which is the pod's in a pod.
pub(crate) fn pod_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The Lease of the controller.
const LEASE: &str = "isthmus-controller";
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);
