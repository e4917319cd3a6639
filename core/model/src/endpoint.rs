//! Endpoints: what is behind a port of a service.
//!
//! A local endpoint has an address. A remote endpoint is an opaque id that its cluster
//! published: never an address, so that a peer can name only what it has, and two
//! clusters may use the same pod addresses.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::identity::SpiffeId;
use crate::name::{ClusterId, EndpointId, Locality, ServiceKey};
use crate::service::Transport;

/// Every endpoint of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Which service.
    pub service: ServiceKey,
    /// By port number of the service, ascending.
    pub ports: Vec<PortEndpoints>,
}

/// The endpoints behind one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortEndpoints {
    /// The port of the service (not of the pod).
    pub port: u16,
    /// Its transport: TCP and UDP may share a number. Of one number TCP goes first.
    #[serde(default = "tcp")]
    pub transport: Transport,
    /// The endpoints, ordered by id.
    pub endpoints: Vec<Endpoint>,
}

fn tcp() -> Transport {
    Transport::Tcp
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Unique in its service and cluster, stable while the endpoint lives.
    pub id: EndpointId,
    /// How it is reached.
    pub target: EndpointTarget,
    /// Where it runs.
    #[serde(default)]
    pub locality: Locality,
    /// Relative share of requests among endpoints of the same tier, 1 to 65535.
    pub weight: u16,
    /// Whether it takes requests.
    pub health: Health,
    /// Who must answer there; `None` for an endpoint without a sidecar in this cluster.
    #[serde(default)]
    pub identity: Option<SpiffeId>,
    /// The pod's hostname, for headless names.
    #[serde(default)]
    pub hostname: Option<crate::name::Label>,
}

impl Endpoint {
    /// The cluster of a remote endpoint.
    pub fn remote_cluster(&self) -> Option<&ClusterId> {
        match &self.target {
            EndpointTarget::Local { .. } => None,
            EndpointTarget::Remote { cluster, .. } => Some(cluster),
        }
    }
}

/// How an endpoint is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EndpointTarget {
    /// In this cluster.
    Local {
        /// Address and port of the application.
        address: SocketAddr,
        /// The mesh port of its sidecar, if it has one.
        #[serde(default)]
        mesh: Option<MeshPort>,
    },
    /// In another cluster, through the east-west gateways, by its id.
    Remote {
        /// The cluster that published the id.
        cluster: ClusterId,
        /// The application's port behind that endpoint, for its sidecar; not an address.
        /// The peer publishes it with the endpoint.
        port: u16,
    },
}

/// Where a sidecar takes mTLS, port 15008 of the pod by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MeshPort(pub SocketAddr);

/// Whether an endpoint takes requests.
///
/// Spec: EndpointSlice conditions `ready`, `serving`, `terminating`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Health {
    /// Takes requests.
    Ready,
    /// Is ending and still serves: used only when nothing is ready.
    Draining,
    /// Takes no requests.
    NotReady,
}

/// What this cluster's east-west gateway lets peers reach: the allow-list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// The service, in the clusterset scope.
    pub service: ServiceKey,
    /// The peers that may call it.
    pub peers: BTreeSet<ClusterId>,
    /// The endpoints that peers were told of, with their local targets.
    pub ports: Vec<PortEndpoints>,
    /// Peers that may call the service but not this port of it.
    #[serde(default)]
    pub denied: BTreeSet<(ClusterId, u16)>,
}

impl Export {
    /// The local endpoint that a peer may reach by this port and id.
    pub fn endpoint(&self, peer: &ClusterId, port: u16, id: &EndpointId) -> Option<&Endpoint> {
        if !self.peers.contains(peer) || self.denied.contains(&(peer.clone(), port)) {
            return None;
        }
        let group = self.ports.iter().find(|group| group.port == port)?;
        group.endpoints.iter().find(|endpoint| endpoint.id == *id)
    }
}
