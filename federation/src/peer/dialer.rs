//! How a stream to a peer's controller is made.
//!
//! The way there is one of the cluster's own services: CONNECT through the local east-west
//! gateway, over the link, to the peer's controller. What comes out is not trusted: TLS to
//! the peer's controller runs inside it, end to end.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use isthmus_certs::{Expected, MeshTls, TlsError};
use isthmus_hbone::wire::{ALPN_CONNECT, CLUSTER_HEADER, ENDPOINT_HEADER};
use isthmus_hbone::{
    Authority, ConnectHead, MeshConnector, TunnelClient, TunnelSettings, TunnelStream,
};
use isthmus_model::{ClusterId, SpiffeId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::plan::peer::{FEDERATION_PORT, federation_endpoint, federation_service};

/// A stream of bytes in both directions.
pub trait PeerStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> PeerStream for T {}

/// The result of dialling.
pub type DialFuture<'a> =
    Pin<Box<dyn Future<Output = io::Result<Box<dyn PeerStream>>> + Send + 'a>>;

/// Makes streams to the controllers of peers.
pub trait PeerDialer: fmt::Debug + Send + Sync {
    /// Opens a stream to the controller of a cluster. It carries TLS inside.
    fn dial<'a>(&'a self, cluster: &'a ClusterId) -> DialFuture<'a>;
}

/// Dials through the local east-west gateway.
#[derive(Debug, Clone)]
pub struct HboneDialer {
    gateway: Arc<str>,
    tls: Arc<rustls::ClientConfig>,
}

impl HboneDialer {
    /// A dialer that goes through the gateway at `gateway` (host or address, and its port
    /// 15008), which must be `identity`. A name is resolved for each stream.
    ///
    /// # Errors
    ///
    /// [`TlsError`], never with the built-in provider.
    pub fn new(gateway: &str, identity: SpiffeId, tls: &MeshTls) -> Result<Self, TlsError> {
        let tls = tls.client_config(&[ALPN_CONNECT], Expected::Exactly(identity))?;
        Ok(Self { gateway: gateway.into(), tls })
    }

    async fn open(&self, cluster: &ClusterId) -> io::Result<Tunnel> {
        let stream = TcpStream::connect(&*self.gateway).await?;
        stream.set_nodelay(true)?;
        let connector = MeshConnector::new();
        let connected = connector.connect(stream, Arc::clone(&self.tls)).await;
        let stream = connected.map_err(io::Error::other)?.stream;
        let settings = TunnelSettings { streams_max: 1, ..TunnelSettings::default() };
        let handshake = TunnelClient::handshake(stream, settings).await;
        let (client, driver) = handshake.map_err(io::Error::other)?;
        let mut connection = JoinSet::new();
        connection.spawn(driver.run());
        let head = head(cluster)?;
        let stream = client.open(&head).await.map_err(io::Error::other)?;
        Ok(Tunnel { stream, _client: client, _connection: connection })
    }
}

impl PeerDialer for HboneDialer {
    fn dial<'a>(&'a self, cluster: &'a ClusterId) -> DialFuture<'a> {
        Box::pin(async move {
            let opened = tokio::time::timeout(DIAL_TIMEOUT, self.open(cluster)).await;
            let tunnel = opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            Ok(Box::new(tunnel) as Box<dyn PeerStream>)
        })
    }
}

fn head(cluster: &ClusterId) -> io::Result<ConnectHead> {
    let authority = Authority::service(federation_service(), FEDERATION_PORT);
    let value = |text: &str| HeaderValue::from_str(text).map_err(io::Error::other);
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(CLUSTER_HEADER), value(cluster.as_str())?);
    let endpoint = federation_endpoint();
    headers.insert(HeaderName::from_static(ENDPOINT_HEADER), value(endpoint.as_str())?);
    Ok(ConnectHead::new(authority.map_err(io::Error::other)?).with_headers(headers))
}

/// A tunnel with the connection that it alone uses; both end together.
struct Tunnel {
    stream: TunnelStream,
    _client: TunnelClient,
    _connection: JoinSet<()>,
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
