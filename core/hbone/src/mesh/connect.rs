//! The client's side of the handshake.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::mesh::{MeshProtocol, alpn_text};
use crate::wire::TLS_HANDSHAKE_TIMEOUT;

/// A connection that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The stream below TLS could not be opened. Only callers' own connect functions
    /// return it; see [`crate::TunnelPool::open`].
    #[error("cannot reach {target}")]
    Dial {
        /// Whom it was meant for.
        target: String,
        /// What the system said.
        source: io::Error,
    },
    /// The TLS handshake failed, for example because the peer is not who it must be.
    #[error("the TLS handshake failed")]
    Handshake {
        /// What rustls or the stream said.
        source: io::Error,
    },
    /// The peer chose no protocol that we speak.
    #[error("the peer chose ALPN {alpn:?}, which is no mesh protocol")]
    Protocol {
        /// The negotiated value, or `none`.
        alpn: String,
    },
    /// Dialling or the handshake took too long.
    #[error("connecting took longer than {limit:?}")]
    Timeout {
        /// The time allowed.
        limit: Duration,
    },
}

/// One connection that we made.
#[derive(Debug)]
pub struct Connected<IO> {
    /// The stream inside TLS; the configuration's verifier has accepted the peer.
    pub stream: TlsStream<IO>,
    /// What to speak on the stream.
    pub protocol: MeshProtocol,
}

/// Makes mTLS connections.
#[derive(Debug, Clone)]
pub struct MeshConnector {
    timeout: Duration,
}

impl Default for MeshConnector {
    fn default() -> Self {
        Self::new()
    }
}

impl MeshConnector {
    /// A connector with the default handshake timeout of [`TLS_HANDSHAKE_TIMEOUT`].
    pub fn new() -> Self {
        Self { timeout: TLS_HANDSHAKE_TIMEOUT }
    }

    /// Replaces the time allowed for one handshake.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs the handshake on one stream.
    ///
    /// The configuration carries our certificate, the ALPN values to offer, and a
    /// verifier that knows which identity to expect: peers are named by SPIFFE ID, so
    /// the server name says nothing and SNI is not sent.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; the stream is dropped.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the stream is dropped with the future.
    pub async fn connect<IO>(
        &self,
        io: IO,
        config: Arc<ClientConfig>,
    ) -> Result<Connected<IO>, ConnectError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        // rustls sends no SNI for an address, whatever the configuration says.
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        let handshake = TlsConnector::from(config).connect(name, io);
        let stream = tokio::time::timeout(self.timeout, handshake)
            .await
            .map_err(|_| ConnectError::Timeout { limit: self.timeout })?
            .map_err(|source| ConnectError::Handshake { source })?;
        let alpn = stream.get_ref().1.alpn_protocol();
        let protocol = MeshProtocol::from_alpn(alpn)
            .ok_or_else(|| ConnectError::Protocol { alpn: alpn_text(alpn) })?;
        Ok(Connected { stream, protocol })
    }
}
