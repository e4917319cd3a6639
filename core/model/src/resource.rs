//! The unit that discovery carries: one changed object of the user is one changed
//! resource.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::backend_tls::BackendTls;
use crate::endpoint::{Endpoints, Export};
use crate::gateway::{Certificate, Listener};
use crate::peer::{Peer, TrustBundle};
use crate::policy::PeerAuthentication;
use crate::route::{HttpRoute, HttpRouteKind, StreamRoute, StreamRouteKind};
use crate::service::Service;

/// One resource of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value")]
pub enum Resource {
    /// How gateways speak TLS to a service.
    BackendTls(BackendTls),
    /// A certificate with its key; goes to ingress gateways only.
    Certificate(Certificate),
    /// The endpoints of a service.
    Endpoints(Endpoints),
    /// What peers may reach here; goes to east-west gateways only.
    Export(Export),
    /// An HTTPRoute or GRPCRoute.
    HttpRoute(HttpRoute),
    /// A listener of a Gateway; goes to ingress gateways only.
    Listener(Listener),
    /// A linked cluster.
    Peer(Peer),
    /// How much mTLS inbound sides demand.
    PeerAuthentication(PeerAuthentication),
    /// A Service or ServiceImport.
    Service(Service),
    /// A TCPRoute, TLSRoute or UDPRoute.
    StreamRoute(StreamRoute),
    /// The trust bundle of a trust domain.
    TrustBundle(TrustBundle),
}

impl Resource {
    /// Its kind and name, unique in a cluster.
    pub fn key(&self) -> ResourceKey {
        let (kind, name) = match self {
            Self::BackendTls(v) => (ResourceKind::BackendTls, backend_tls_name(v)),
            Self::Certificate(v) => (ResourceKind::Certificate, v.name.clone()),
            Self::Endpoints(v) => (ResourceKind::Endpoints, v.service.host()),
            Self::Export(v) => (ResourceKind::Export, v.service.host()),
            Self::HttpRoute(v) => match v.kind {
                HttpRouteKind::Grpc => (ResourceKind::GrpcRoute, v.name.clone()),
                HttpRouteKind::Http => (ResourceKind::HttpRoute, v.name.clone()),
            },
            Self::Listener(v) => (ResourceKind::Listener, v.name.clone()),
            Self::Peer(v) => (ResourceKind::Peer, v.cluster.to_string()),
            Self::PeerAuthentication(v) => (ResourceKind::PeerAuthentication, v.name.clone()),
            Self::Service(v) => (ResourceKind::Service, v.key.host()),
            Self::StreamRoute(v) => match v.kind {
                StreamRouteKind::Tcp => (ResourceKind::TcpRoute, v.name.clone()),
                StreamRouteKind::Tls => (ResourceKind::TlsRoute, v.name.clone()),
                StreamRouteKind::Udp => (ResourceKind::UdpRoute, v.name.clone()),
            },
            Self::TrustBundle(v) => (ResourceKind::TrustBundle, v.trust_domain.to_string()),
        };
        ResourceKey { kind, name }
    }
}

/// One resource for each target: `shop.svc.cluster.local:443`, or without a port.
fn backend_tls_name(tls: &BackendTls) -> String {
    match tls.port {
        Some(port) => format!("{}:{port}", tls.service.host()),
        None => tls.service.host(),
    }
}

/// Kind and name of a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResourceKey {
    /// The kind.
    pub kind: ResourceKind,
    /// The name; for services and endpoints the full host name.
    pub name: String,
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.label(), self.name)
    }
}

/// The kinds of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ResourceKind {
    /// [`Resource::BackendTls`].
    BackendTls,
    /// [`Resource::Certificate`].
    Certificate,
    /// [`Resource::Endpoints`].
    Endpoints,
    /// [`Resource::Export`].
    Export,
    /// [`Resource::HttpRoute`] of kind GRPCRoute.
    GrpcRoute,
    /// [`Resource::HttpRoute`] of kind HTTPRoute.
    HttpRoute,
    /// [`Resource::Listener`].
    Listener,
    /// [`Resource::Peer`].
    Peer,
    /// [`Resource::PeerAuthentication`].
    PeerAuthentication,
    /// [`Resource::Service`].
    Service,
    /// [`Resource::StreamRoute`] of kind TCPRoute.
    TcpRoute,
    /// [`Resource::StreamRoute`] of kind TLSRoute.
    TlsRoute,
    /// [`Resource::TrustBundle`].
    TrustBundle,
    /// [`Resource::StreamRoute`] of kind UDPRoute.
    UdpRoute,
}

impl ResourceKind {
    /// Every kind, in order.
    pub const ALL: [Self; 14] = [
        Self::BackendTls,
        Self::Certificate,
        Self::Endpoints,
        Self::Export,
        Self::GrpcRoute,
        Self::HttpRoute,
        Self::Listener,
        Self::Peer,
        Self::PeerAuthentication,
        Self::Service,
        Self::TcpRoute,
        Self::TlsRoute,
        Self::TrustBundle,
        Self::UdpRoute,
    ];

    /// The name on the wire and in messages.
    pub fn label(self) -> &'static str {
        match self {
            Self::BackendTls => "BackendTLS",
            Self::Certificate => "Certificate",
            Self::Endpoints => "Endpoints",
            Self::Export => "Export",
            Self::GrpcRoute => "GRPCRoute",
            Self::HttpRoute => "HTTPRoute",
            Self::Listener => "Listener",
            Self::Peer => "Peer",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::Service => "Service",
            Self::TcpRoute => "TCPRoute",
            Self::TlsRoute => "TLSRoute",
            Self::TrustBundle => "TrustBundle",
            Self::UdpRoute => "UDPRoute",
        }
    }

    /// The kind with this label.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.label() == label)
    }
}
