//! Linked clusters: who they are, how they are reached, how far they are.

use serde::{Deserialize, Serialize};

use crate::identity::{SpiffeId, TrustDomain};
use crate::name::{ClusterId, Locality};

/// A cluster that this one is linked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The peer's id.
    pub cluster: ClusterId,
    /// The peer's trust domain.
    pub trust_domain: TrustDomain,
    /// Who its east-west gateway must be.
    pub gateway: SpiffeId,
    /// `host:port` of its gateways; empty when only the peer can dial.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Whether this side dials.
    pub dial: bool,
    /// Where the peer says it is.
    #[serde(default)]
    pub locality: Locality,
    /// What the link looks like now, as the local gateway reported it.
    pub link: LinkState,
    /// Whether the peer's lease is valid; its endpoints are a last resort otherwise.
    pub lease_valid: bool,
}

/// What a link looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// The transport in use; `None` while the link is down.
    #[serde(default)]
    pub transport: Option<LinkTransport>,
    /// Smoothed round-trip time in microseconds; `None` before the first measurement.
    ///
    /// Published with hysteresis (a change below 20 % is not published), so that noise
    /// does not reorder clusters.
    #[serde(default)]
    pub rtt_micros: Option<u64>,
}

/// A transport of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkTransport {
    /// QUIC over UDP.
    Quic,
    /// TLS over TCP with streams multiplexed.
    Tcp,
}

impl LinkTransport {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

/// The trust bundle of one trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustBundle {
    /// Whose bundle this is.
    pub trust_domain: TrustDomain,
    /// The SPIFFE bundle document (JWKS).
    pub jwks: String,
    /// `spiffe_sequence` of the document.
    pub sequence: u64,
}
