//! The server's side of the handshake.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use isthmus_model::SpiffeId;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::mesh::{MeshProtocol, alpn_text};
use crate::wire::TLS_HANDSHAKE_TIMEOUT;

/// A connection that was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The TLS handshake failed; the source says how.
    #[error("the peer's TLS handshake failed")]
    Handshake {
        /// What rustls or the stream said.
        source: io::Error,
    },
    /// The certificate is trusted but does not name one SPIFFE identity.
    #[error("the peer's certificate gives no identity: {reason}")]
    Identity {
        /// What the identity function said.
        reason: String,
    },
    /// The peer presented no certificate.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// Both ends agreed on no protocol that we speak.
    #[error("the peer chose ALPN {alpn:?}, which is no mesh protocol")]
    Protocol {
        /// The negotiated value, or `none`.
        alpn: String,
    },
    /// The handshake took too long.
    #[error("the peer's TLS handshake took longer than {limit:?}")]
    Timeout {
        /// The time allowed.
        limit: Duration,
    },
}

/// One accepted connection of the hop.
#[derive(Debug)]
pub struct MeshConnection<IO> {
    /// The stream inside TLS.
    pub stream: TlsStream<IO>,
    /// Who the peer proved to be.
    pub peer: SpiffeId,
    /// What to speak on the stream.
    pub protocol: MeshProtocol,
}

/// Accepts mTLS connections; `identify` reads the identity from a verified chain.
#[derive(Clone)]
pub struct MeshAcceptor<F> {
    config: Arc<ServerConfig>,
    identify: F,
    timeout: Duration,
}

impl<F> MeshAcceptor<F> {
    /// An acceptor with the default handshake timeout of
    /// [`TLS_HANDSHAKE_TIMEOUT`].
    ///
    /// The configuration must demand client certificates and offer the ALPN values of
    /// [`MeshProtocol`] that the caller serves.
    pub fn new(config: Arc<ServerConfig>, identify: F) -> Self {
        Self { config, identify, timeout: TLS_HANDSHAKE_TIMEOUT }
    }

    /// Replaces the time allowed for one handshake.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Uses another configuration for handshakes that begin from now on.
    pub fn set_config(&mut self, config: Arc<ServerConfig>) {
        self.config = config;
    }
}

impl<F, E> MeshAcceptor<F>
where
    F: Fn(&[CertificateDer<'static>]) -> Result<SpiffeId, E>,
    E: fmt::Display,
{
    /// Runs the handshake on one stream.
    ///
    /// # Errors
    ///
    /// [`AcceptError`]; the stream is dropped.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the stream is dropped with the future.
    pub async fn accept<IO>(&self, io: IO) -> Result<MeshConnection<IO>, AcceptError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = TlsAcceptor::from(Arc::clone(&self.config)).accept(io);
        let stream = tokio::time::timeout(self.timeout, handshake)
            .await
            .map_err(|_| AcceptError::Timeout { limit: self.timeout })?
            .map_err(|source| AcceptError::Handshake { source })?;
        let session = stream.get_ref().1;
        let alpn = session.alpn_protocol();
        let protocol = MeshProtocol::from_alpn(alpn)
            .ok_or_else(|| AcceptError::Protocol { alpn: alpn_text(alpn) })?;
        let chain = session.peer_certificates().ok_or(AcceptError::NoCertificate)?;
        let peer = (self.identify)(chain)
            .map_err(|error| AcceptError::Identity { reason: error.to_string() })?;
        Ok(MeshConnection { stream, peer, protocol })
    }
}

impl<F> fmt::Debug for MeshAcceptor<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshAcceptor").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
