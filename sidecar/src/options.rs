//! What a sidecar is made from.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use isthmus_certs::MeshTls;
use isthmus_discovery::OnDemand;
use isthmus_model::{Label, ServiceKey, Snapshot, SpiffeId};
use isthmus_proxy::ProxySettings;
use isthmus_runtime::SnapshotCell;
use isthmus_telemetry::RecorderSeed;

/// The workload behind a sidecar.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The sidecar's name in the settings.
    pub name: String,
    /// The namespace.
    pub namespace: Label,
    /// Labels, which policies select by.
    pub labels: BTreeMap<String, String>,
    /// Where the application listens.
    pub application: IpAddr,
    /// The application's ports; empty allows every port but the sidecar's own.
    pub ports: Vec<u16>,
}

/// One opaque outbound forward.
#[derive(Debug, Clone)]
pub struct TcpForward {
    /// Where the application connects to.
    pub listen: SocketAddr,
    /// The service that it reaches there.
    pub service: ServiceKey,
    /// The port of the service.
    pub port: u16,
}

/// What a sidecar is made from.
pub struct SidecarOptions {
    /// The workload.
    pub workload: Workload,
    /// Where mTLS is taken.
    pub mesh: SocketAddr,
    /// Where the application's HTTP requests are taken; `None` for no outbound proxy.
    pub outbound: Option<SocketAddr>,
    /// Where plaintext (if policy lets it) and mTLS are taken; `None` for neither.
    pub inbound: Option<SocketAddr>,
    /// Opaque outbound forwards.
    pub tcp: Vec<TcpForward>,
    /// The workload's identity and whom it trusts.
    pub tls: MeshTls,
    /// Where routing comes from.
    pub snapshots: SnapshotCell<Snapshot>,
    /// How services that are not known yet are fetched.
    pub on_demand: OnDemand,
    /// The cluster's east-west gateway, and who it must be.
    pub gateway: Option<(SocketAddr, SpiffeId)>,
    /// One recorder for each worker; their number decides the number of workers.
    pub recorders: Vec<RecorderSeed>,
    /// The limits.
    pub proxy: ProxySettings,
    /// Seed of random choices.
    pub seed: u64,
}

impl fmt::Debug for SidecarOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SidecarOptions").field("workload", &self.workload).finish_non_exhaustive()
    }
}
