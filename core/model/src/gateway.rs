//! Listeners of Gateway objects, and the certificates that they present.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::identity::SpiffeId;
use crate::name::Hostname;

/// One listener of a Gateway.
///
/// Spec: Gateway API `Gateway.spec.listeners[]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// `<namespace>/<gateway>/<section>`, unique.
    pub name: String,
    /// Addresses to bind; empty means the address of the ingress role.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// The port that clients see.
    pub port: u16,
    /// The port that is bound, where the settings map it to another.
    pub bind_port: u16,
    /// The hostname pattern; `None` takes every host.
    #[serde(default)]
    pub hostname: Option<Hostname>,
    /// What the listener speaks.
    pub protocol: ListenerProtocol,
    /// Names of the [`Certificate`] resources, for HTTPS.
    #[serde(default)]
    pub certificates: Vec<String>,
    /// Creation time of the Gateway, seconds since 1970, for precedence.
    #[serde(default)]
    pub created: i64,
    /// The workload whose processes serve the listener. `None` is every ingress of the
    /// cluster, as from a directory of manifests.
    #[serde(default)]
    pub served_by: Option<SpiffeId>,
    /// What is demanded of clients' certificates.
    #[serde(default)]
    pub client_validation: Option<ClientValidation>,
    /// Name of the [`Certificate`] that backends behind a [`crate::BackendTls`] are shown.
    #[serde(default)]
    pub backend_certificate: Option<String>,
}

/// What a listener demands of clients' certificates.
///
/// Spec: Gateway API `Gateway.spec.tls.frontend`, GEP-91.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientValidation {
    /// The certificates that clients' chains must end in, PEM; empty accepts no client,
    /// which is what an unusable reference means.
    pub roots_pem: String,
    /// Whether clients with a wrong certificate, or none, are let in all the same
    /// (`AllowInsecureFallback`).
    #[serde(default)]
    pub insecure_fallback: bool,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ListenerProtocol {
    /// HTTP/1.1 and HTTP/2 in clear text.
    Http,
    /// The same over TLS that ends here.
    Https,
    /// Opaque bytes over TCP.
    Tcp,
    /// TLS that goes on to the backend as it is; only the server name is read.
    TlsPassthrough,
    /// Opaque bytes over TLS that ends here.
    TlsTerminate,
    /// Datagrams.
    Udp,
}

impl ListenerProtocol {
    /// What a bound address that has such a listener speaks.
    pub fn family(self) -> ListenerFamily {
        match self {
            Self::Http => ListenerFamily::Http,
            Self::Https | Self::TlsPassthrough | Self::TlsTerminate => ListenerFamily::Tls,
            Self::Tcp => ListenerFamily::Tcp,
            Self::Udp => ListenerFamily::Udp,
        }
    }
}

/// What is spoken at a bound address. Listeners of one family share an address and port
/// when their hostnames differ; UDP never clashes with the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ListenerFamily {
    /// HTTP in clear text, told apart by host.
    Http,
    /// Opaque TCP, which has one listener.
    Tcp,
    /// TLS, told apart by server name.
    Tls,
    /// UDP, which has one listener.
    Udp,
}

/// A certificate chain with its key, both PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// `<namespace>/<secret>`, unique.
    pub name: String,
    /// The chain, leaf first.
    pub chain_pem: String,
    /// The private key. Never logged; on disk only in files of mode 0600.
    pub key_pem: String,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("name", &self.name).finish_non_exhaustive()
    }
}
