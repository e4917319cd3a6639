//! One mTLS handshake of the hop: accepted or made, bounded in time, with the peer's
//! identity and the protocol that both ends chose.
//!
//! The configurations come from `certs`, which owns keys, bundles and verification; they
//! change at each rotation, so both ends take the current one and keep none. Streams may
//! be TCP or anything that already carries bytes, such as a tunnel.
//!
//! On TCP, set `TCP_NODELAY` first: small frames follow each other, and Nagle's algorithm
//! would hold them back.

mod accept;
mod connect;

pub use self::accept::{AcceptError, MeshAcceptor, MeshConnection};
pub use self::connect::{ConnectError, Connected, MeshConnector};

use crate::wire::{ALPN_CONNECT, ALPN_HTTP};

/// What runs inside one TLS connection of the hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MeshProtocol {
    /// HBONE: HTTP/2 CONNECT, ALPN `h2`.
    Connect,
    /// HTTP/2 requests of applications, ALPN `isthmus-http/1`.
    Http,
}

impl MeshProtocol {
    /// The protocol of a negotiated ALPN value.
    ///
    /// A connection without ALPN has no protocol: guessing one would let a peer's bytes
    /// be read as something that it did not mean.
    pub fn from_alpn(alpn: Option<&[u8]>) -> Option<Self> {
        match alpn {
            Some(ALPN_CONNECT) => Some(Self::Connect),
            Some(ALPN_HTTP) => Some(Self::Http),
            Some(_) | None => None,
        }
    }

    /// The ALPN value.
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Connect => ALPN_CONNECT,
            Self::Http => ALPN_HTTP,
        }
    }
}

/// The ALPN text of a peer as an error shows it, cut to 80 characters.
fn alpn_text(alpn: Option<&[u8]>) -> String {
    alpn.map_or_else(
        || "none".to_owned(),
        |bytes| String::from_utf8_lossy(bytes).chars().take(80).collect(),
    )
}
