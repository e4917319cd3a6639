//! Services and their ports, local or imported.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::name::{Label, ServiceKey};

/// A Service of this cluster, or a ServiceImport.
///
/// Spec: Kubernetes Service; KEP-1645 ServiceImport.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Which service.
    pub key: ServiceKey,
    /// Virtual addresses: ClusterIPs, or ClusterSetIPs of an import; empty when headless.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Whether names resolve to endpoints instead of a virtual address.
    #[serde(default)]
    pub headless: bool,
    /// The ports, in the order of the object.
    pub ports: Vec<ServicePort>,
    /// Clusters that contribute endpoints, for imports; empty for local Services.
    #[serde(default)]
    pub clusters: Vec<crate::name::ClusterId>,
}

impl Service {
    /// The port with this number and transport TCP, which every HTTP route uses.
    pub fn tcp_port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|p| p.number == number && p.transport == Transport::Tcp)
    }
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// The name; may be absent when the service has one port.
    #[serde(default)]
    pub name: Option<Label>,
    /// The number, 1 to 65535.
    pub number: u16,
    /// TCP, UDP or SCTP.
    pub transport: Transport,
    /// What is spoken on it.
    pub app: AppProtocol,
    /// `appProtocol` as the user wrote it, so that an import can carry it on.
    #[serde(default)]
    pub app_protocol: Option<String>,
}

/// The transport of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Transport {
    /// SCTP; carried in the API only.
    Sctp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AppProtocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 in clear text with prior knowledge, gRPC included.
    Http2,
    /// TLS from the application itself.
    Tls,
    /// Opaque bytes.
    Tcp,
    /// Nothing was said.
    Unset,
}

impl AppProtocol {
    /// Reads `appProtocol`, and where it says nothing the prefix of the port's name.
    ///
    /// Spec: KEP-3726 standard application protocols (`kubernetes.io/h2c`,
    /// `kubernetes.io/ws`, `kubernetes.io/wss`); Istio's port naming
    /// (`<protocol>[-<suffix>]`).
    pub fn detect(app_protocol: Option<&str>, port_name: Option<&str>) -> Self {
        let from_name = || port_name.and_then(|name| name.split('-').next());
        match app_protocol.or_else(from_name).map(str::to_ascii_lowercase).as_deref() {
            Some("http" | "http1" | "kubernetes.io/ws") => Self::Http,
            Some("http2" | "grpc" | "h2c" | "kubernetes.io/h2c") => Self::Http2,
            Some("https" | "tls" | "kubernetes.io/wss") => Self::Tls,
            Some("tcp" | "mongo" | "mysql" | "redis" | "postgres" | "postgresql") => Self::Tcp,
            Some(_) | None => Self::Unset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_protocol_goes_before_the_port_name() {
        let check = |app, name, want| assert_eq!(AppProtocol::detect(app, name), want);
        check(Some("kubernetes.io/h2c"), Some("http"), AppProtocol::Http2);
        check(None, Some("grpc-api"), AppProtocol::Http2);
        check(None, Some("http"), AppProtocol::Http);
        check(None, Some("web"), AppProtocol::Unset);
        check(Some("example.com/custom"), Some("http"), AppProtocol::Unset);
        check(None, None, AppProtocol::Unset);
    }
}
