//! What a [`LinkSet`](crate::LinkSet) is made of: peers, sockets, TLS, bounds.

use std::fmt;
use std::sync::Arc;

use isthmus_model::{ClusterId, SpiffeId};
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;

use crate::limits::{LinkLimits, LinkTimers};
use crate::proto::selector::SelectorSettings;
use crate::stream::IncomingStream;

/// Makes the TLS settings for dialling a peer; asked anew for each dial, so rotated
/// certificates are used at once.
pub type ClientTls = Arc<dyn Fn(&PeerConfig) -> Arc<rustls::ClientConfig> + Send + Sync>;

/// Reads the one SPIFFE ID of a verified certificate chain, or says what is wrong.
pub type Authenticate =
    Arc<dyn Fn(&[CertificateDer<'_>]) -> Result<SpiffeId, String> + Send + Sync>;

/// One peer of this gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// The peer's cluster.
    pub cluster: ClusterId,
    /// The identity that the peer's gateways must prove.
    pub expected_id: SpiffeId,
    /// `host:port` of the peer's gateways, for UDP and TCP alike; tried in turn.
    pub addresses: Vec<String>,
    /// Whether this end dials.
    pub dial: bool,
    /// How many connections this end keeps when it dials; at least 1. One per worker is
    /// a good number.
    pub connections: usize,
}

/// Everything that a [`LinkSet`](crate::LinkSet) needs to start.
pub struct LinkOptions {
    /// This cluster.
    pub cluster: ClusterId,
    /// TLS settings for dialling.
    pub client_tls: ClientTls,
    /// TLS settings for listening; must ask for client certificates.
    pub server_tls: Arc<rustls::ServerConfig>,
    /// Bound UDP sockets, possibly none.
    pub quic: Vec<std::net::UdpSocket>,
    /// Bound and listening TCP sockets, possibly none.
    pub tcp: Vec<std::net::TcpListener>,
    /// Reads the identity of a verified peer.
    pub authenticate: Authenticate,
    /// Where streams that peers open go. When it is full, streams are refused.
    pub incoming: mpsc::Sender<IncomingStream>,
    /// Bounds.
    pub limits: LinkLimits,
    /// Times.
    pub timers: LinkTimers,
    /// How lanes choose their transport.
    pub selector: SelectorSettings,
    /// Seed of the jitter of reconnects.
    pub seed: u64,
}

impl fmt::Debug for LinkOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkOptions")
            .field("cluster", &self.cluster)
            .field("quic", &self.quic)
            .field("tcp", &self.tcp)
            .field("limits", &self.limits)
            .field("timers", &self.timers)
            .field("selector", &self.selector)
            .finish_non_exhaustive()
    }
}

/// The protocol's name in ALPN.
pub const ALPN: &[u8] = b"isthmus-link/1";
/// The default port, UDP and TCP.
pub const DEFAULT_PORT: u16 = 15443;
