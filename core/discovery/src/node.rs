//! Who asks: the node behind a stream, with the one role that its identity allows.

use std::fmt;

use isthmus_model::{Label, ResourceKind, SpiffeId};

/// What a proxy does, and so which resources it may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeRole {
    /// The DNS server.
    Dns,
    /// The gateway between clusters.
    EastWest,
    /// A gateway that serves listeners: that of the cluster for the world outside, one of a
    /// single Gateway, or the one for pods outside the mesh.
    Ingress,
    /// The proxy beside one workload.
    Sidecar,
}

impl NodeRole {
    /// Every role, in order.
    pub const ALL: [Self; 4] = [Self::Dns, Self::EastWest, Self::Ingress, Self::Sidecar];

    /// The name on the wire, in files and in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Dns => "Dns",
            Self::EastWest => "EastWest",
            Self::Ingress => "Ingress",
            Self::Sidecar => "Sidecar",
        }
    }

    /// The role with this label.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.label() == label)
    }

    /// Whether services are fetched when they are first called.
    pub fn is_on_demand(self) -> bool {
        self == Self::Sidecar
    }

    /// The kinds that a node of this role may ever hold.
    pub fn kinds(self) -> &'static [ResourceKind] {
        use ResourceKind as K;
        match self {
            Self::Dns => &[K::Endpoints, K::Peer, K::Service],
            Self::EastWest => &[
                K::Endpoints,
                K::Export,
                K::Peer,
                K::PeerAuthentication,
                K::Service,
                K::TrustBundle,
            ],
            Self::Ingress => &[
                K::BackendTls,
                K::Certificate,
                K::Endpoints,
                K::GrpcRoute,
                K::HttpRoute,
                K::Listener,
                K::Peer,
                K::Service,
                K::TcpRoute,
                K::TlsRoute,
                K::TrustBundle,
                K::UdpRoute,
            ],
            Self::Sidecar => &[
                K::Endpoints,
                K::GrpcRoute,
                K::HttpRoute,
                K::Peer,
                K::PeerAuthentication,
                K::Service,
                K::TrustBundle,
            ],
        }
    }
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Namespace and service account of a workload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadName {
    /// The namespace.
    pub namespace: Label,
    /// The service account.
    pub account: Label,
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.account)
    }
}

/// One node, as it is authorised.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeIdentity {
    /// The name, for status and logs; at most [`NODE_NAME_BYTES_MAX`] bytes.
    pub(crate) name: String,
    /// The role.
    pub(crate) role: NodeRole,
    /// The workload of a sidecar. A sidecar without one, which only exists inside the
    /// controller's own process, sees the policies of every namespace.
    pub(crate) workload: Option<WorkloadName>,
    /// The identity that the node's certificate proved; it decides which listeners an
    /// ingress sees. `None` inside the controller's own process, and before the proof.
    pub(crate) identity: Option<SpiffeId>,
}

/// Bytes in the name of a node.
pub const NODE_NAME_BYTES_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_by_their_own_labels() {
        for role in NodeRole::ALL {
            assert_eq!(NodeRole::from_label(role.label()), Some(role));
        }
        assert_eq!(NodeRole::from_label("sidecar"), None);
    }

    #[test]
    fn only_ingress_may_hold_keys_and_only_eastwest_exports() {
        for role in NodeRole::ALL {
            let takes = |kind| role.kinds().contains(&kind);
            assert_eq!(takes(ResourceKind::Certificate), role == NodeRole::Ingress);
            assert_eq!(takes(ResourceKind::Listener), role == NodeRole::Ingress);
            assert_eq!(takes(ResourceKind::Export), role == NodeRole::EastWest);
        }
    }
}
