//! Listeners of Gateway objects, and the certificates that they present.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

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
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ListenerProtocol {
    /// HTTP/1.1 and HTTP/2 in clear text.
    Http,
    /// The same over TLS that ends here.
    Https,
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
