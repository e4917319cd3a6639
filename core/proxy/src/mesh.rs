//! Reaches endpoints: plain TCP, mTLS to a sidecar, or end-to-end mTLS to a remote
//! endpoint through the gateways.
//!
//! The inner TLS of a remote endpoint runs between this process and the destination; what
//! carries it is a [`RemoteDialer`]: a tunnel through the local east-west gateway for
//! sidecars, a link stream for a gateway itself. The carrier relays bytes that it cannot
//! read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use isthmus_certs::{Expected, MeshTls};
use isthmus_hbone::wire::{ALPN_CONNECT, ALPN_HTTP, CLUSTER_HEADER, ENDPOINT_HEADER};
use isthmus_hbone::{
    ConnectHead, MeshConnector, MeshProtocol, PoolLimits, TunnelClient, TunnelError, TunnelKey,
    TunnelPool, TunnelSettings, TunnelStream,
};
use isthmus_model::{AppProtocol, ClusterId, EndpointTarget, SpiffeId};
use isthmus_runtime::LocalTasks;
use rustls::ClientConfig;
use tokio::net::TcpStream;

use crate::connect::{
    ConnectError, Connected, Connector, Destination, Io, LocalFuture, Purpose, UpstreamHttp,
    UpstreamIo,
};
use crate::upstream_tls::{self, BackendConfigs};

/// Carries bytes to an endpoint of another cluster.
pub trait RemoteDialer {
    /// Opens a stream to the mesh port of the endpoint's sidecar.
    fn dial(
        &self,
        cluster: &ClusterId,
        to: &Destination,
    ) -> LocalFuture<Result<Box<dyn Io>, ConnectError>>;
}

/// The connector of every role.
pub struct MeshDialer {
    tls: Option<TlsConfigs>,
    backends: BackendConfigs,
    remote: Rc<dyn RemoteDialer>,
    tasks: LocalTasks,
}

impl std::fmt::Debug for MeshDialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MeshDialer").field("mtls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

impl MeshDialer {
    /// Presents the identity of `tls`; without one, only plain endpoints can be reached.
    ///
    /// `tasks` owns what carries opaque tunnels.
    pub fn new(tls: Option<MeshTls>, remote: Rc<dyn RemoteDialer>, tasks: LocalTasks) -> Self {
        let tls = tls.map(|tls| TlsConfigs { tls, made: RefCell::default() });
        Self { tls, backends: BackendConfigs::default(), remote, tasks }
    }
}

impl Connector for MeshDialer {
    fn connect(&self, to: Destination) -> LocalFuture<Result<Connected, ConnectError>> {
        let name = to.endpoint.id.to_string();
        let identity = to.endpoint.identity.clone();
        let tasks = self.tasks.clone();
        match (&to.endpoint.target, identity, &self.tls) {
            (EndpointTarget::Local { address, mesh: Some(mesh) }, Some(identity), Some(tls)) => {
                let (config, mesh, address) = (tls.get(&identity, to.purpose), mesh.0, *address);
                Box::pin(async move {
                    let stream = tcp(mesh, &name).await?;
                    let carrier: Box<dyn Io> = Box::new(stream);
                    let authority = address.to_string();
                    let inner =
                        Inner { tasks, identity, purpose: to.purpose, port: address.port() };
                    inner.connect(carrier, config?, &authority, Some(mesh)).await
                })
            }
            (EndpointTarget::Local { address, .. }, _, _) => {
                let (address, purpose) = (*address, to.purpose);
                let tls = to.tls.map(|tls| (self.backends.get(&tls, purpose), tls));
                Box::pin(async move {
                    let io = match tls {
                        None => UpstreamIo::Tcp(tcp(address, &name).await?),
                        Some((config, tls)) => {
                            let (config, stream) = (config?, tcp(address, &name).await?);
                            let name = format!("{name} at {address}");
                            let stream =
                                upstream_tls::handshake(stream, config, &tls, &name).await?;
                            UpstreamIo::Boxed(Box::new(stream))
                        }
                    };
                    let http = match purpose {
                        Purpose::Http { app: AppProtocol::Http2 } => UpstreamHttp::Http2,
                        Purpose::Http { .. } | Purpose::Bytes => UpstreamHttp::Http1,
                    };
                    Ok(Connected { io, http, peer: None, address: Some(address) })
                })
            }
            (EndpointTarget::Remote { cluster, port }, Some(identity), Some(tls)) => {
                let config = tls.get(&identity, to.purpose);
                let (dialing, port) = (self.remote.dial(cluster, &to), *port);
                let authority = format!("{}:{port}", to.service.host());
                Box::pin(async move {
                    let carrier = dialing.await?;
                    let inner = Inner { tasks, identity, purpose: to.purpose, port };
                    inner.connect(carrier, config?, &authority, None).await
                })
            }
            (EndpointTarget::Remote { .. }, _, _) => {
                let reason = "no identity to expect there, or none to present".to_owned();
                Box::pin(async move { Err(ConnectError::Tls { to: name, reason }) })
            }
        }
    }
}

async fn tcp(address: SocketAddr, name: &str) -> Result<TcpStream, ConnectError> {
    let failed = |error: std::io::Error| ConnectError::Failed {
        to: format!("{name} at {address}"),
        reason: error.to_string(),
    };
    let connecting = tokio::time::timeout(LOCAL_CONNECT_TIMEOUT, TcpStream::connect(address));
    let timed_out = |_| ConnectError::Timeout {
        to: format!("{name} at {address}"),
        limit_ms: LOCAL_CONNECT_TIMEOUT.as_millis(),
    };
    let stream = connecting.await.map_err(timed_out)?.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

/// The mTLS connection between this process and the destination.
struct Inner {
    tasks: LocalTasks,
    identity: SpiffeId,
    purpose: Purpose,
    port: u16,
}

impl Inner {
    async fn connect(
        self,
        carrier: Box<dyn Io>,
        config: Arc<ClientConfig>,
        authority: &str,
        address: Option<SocketAddr>,
    ) -> Result<Connected, ConnectError> {
        let to = self.identity.to_string();
        let tls_failed = |error: isthmus_hbone::ConnectError| ConnectError::Tls {
            to: to.clone(),
            reason: isthmus_runtime::error_chain(&error),
        };
        let connected = MeshConnector::new().connect(carrier, config).await.map_err(tls_failed)?;
        let peer = Some(self.identity.clone());
        match (self.purpose, connected.protocol) {
            (Purpose::Http { .. }, MeshProtocol::Http) => Ok(Connected {
                io: UpstreamIo::Boxed(Box::new(connected.stream)),
                http: UpstreamHttp::Mesh { port: self.port },
                peer,
                address,
            }),
            (Purpose::Bytes, MeshProtocol::Connect) => {
                let stream = single_tunnel(connected.stream, authority, &to, &self.tasks).await?;
                let io = UpstreamIo::Boxed(Box::new(stream));
                Ok(Connected { io, http: UpstreamHttp::Http1, peer, address })
            }
            (Purpose::Http { .. }, MeshProtocol::Connect) => {
                // A peer that speaks only HBONE gets HTTP/1.1 inside a tunnel.
                let stream = single_tunnel(connected.stream, authority, &to, &self.tasks).await?;
                let io = UpstreamIo::Boxed(Box::new(stream));
                Ok(Connected { io, http: UpstreamHttp::Http1, peer, address })
            }
            (Purpose::Bytes, MeshProtocol::Http) => {
                Err(ConnectError::Tls { to, reason: "the peer offers no tunnel".into() })
            }
        }
    }
}

/// A tunnel on a connection of its own: opaque connections are long and few, and one of
/// them must not hold up another.
async fn single_tunnel<T>(
    stream: T,
    authority: &str,
    to: &str,
    tasks: &LocalTasks,
) -> Result<TunnelStream, ConnectError>
where
    T: Io + 'static,
{
    let failed = |error: &TunnelError| ConnectError::Failed {
        to: to.to_owned(),
        reason: isthmus_runtime::error_chain(error),
    };
    let head = ConnectHead::parse(authority)
        .map_err(|error| ConnectError::Failed { to: to.to_owned(), reason: error.to_string() })?;
    let (client, driver) = TunnelClient::handshake(stream, TunnelSettings::default())
        .await
        .map_err(|error| failed(&error))?;
    // The driver ends by itself when the tunnel has ended.
    tasks.spawn(driver.run());
    client.open(&head).await.map_err(|error| failed(&error))
}

/// Client configurations by expected peer, made once: they read SVID and bundles anew in
/// each handshake.
struct TlsConfigs {
    tls: MeshTls,
    made: RefCell<HashMap<ConfigKey, Arc<ClientConfig>>>,
}

impl TlsConfigs {
    fn get(&self, peer: &SpiffeId, purpose: Purpose) -> Result<Arc<ClientConfig>, ConnectError> {
        let http = matches!(purpose, Purpose::Http { .. });
        let key = (peer.clone(), http);
        if let Some(config) = self.made.borrow().get(&key) {
            return Ok(Arc::clone(config));
        }
        let alpn: &[&[u8]] = if http { &[ALPN_HTTP, ALPN_CONNECT] } else { &[ALPN_CONNECT] };
        let expected = Expected::Exactly(peer.clone());
        let config = self.tls.client_config(alpn, expected).map_err(|error| ConnectError::Tls {
            to: peer.to_string(),
            reason: error.to_string(),
        })?;
        let mut made = self.made.borrow_mut();
        if made.len() >= CONFIGS_MAX {
            made.clear();
        }
        made.insert(key, Arc::clone(&config));
        Ok(config)
    }
}

/// Whom to expect, and whether for HTTP.
type ConfigKey = (SpiffeId, bool);

/// Reaches remote endpoints by a tunnel through the local east-west gateway.
pub struct GatewayDialer {
    gateway: SocketAddr,
    peer: SpiffeId,
    tls: MeshTls,
    pool: TunnelPool,
}

impl std::fmt::Debug for GatewayDialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayDialer").field("gateway", &self.gateway).finish_non_exhaustive()
    }
}

impl GatewayDialer {
    /// Goes through the gateway at this address, which must be this peer.
    pub fn new(gateway: SocketAddr, peer: SpiffeId, tls: MeshTls) -> Self {
        Self { gateway, peer, tls, pool: TunnelPool::new(PoolLimits::default()) }
    }
}

impl RemoteDialer for GatewayDialer {
    fn dial(
        &self,
        cluster: &ClusterId,
        to: &Destination,
    ) -> LocalFuture<Result<Box<dyn Io>, ConnectError>> {
        let (gateway, pool, cluster) = (self.gateway, self.pool.clone(), cluster.to_string());
        let head = tunnel_head(&cluster, to);
        let key = self.tls.svid().load().map(|svid| TunnelKey {
            address: gateway,
            peer: self.peer.clone(),
            local: svid.id().clone(),
        });
        let config = self.tls.client_config(&[ALPN_CONNECT], Expected::Exactly(self.peer.clone()));
        Box::pin(async move {
            let no_link =
                |reason: String| ConnectError::NoLink { cluster: cluster.clone(), reason };
            let config = config.map_err(|error| no_link(error.to_string()))?;
            let key = key.ok_or_else(|| no_link("no identity has been issued yet".into()))?;
            let connect = || {
                let config = Arc::clone(&config);
                async move {
                    let dial = |source| isthmus_hbone::ConnectError::Dial {
                        target: gateway.to_string(),
                        source,
                    };
                    let stream = TcpStream::connect(gateway).await.map_err(dial)?;
                    stream.set_nodelay(true).map_err(dial)?;
                    Ok(MeshConnector::new().connect(stream, config).await?.stream)
                }
            };
            let head = head.map_err(no_link)?;
            match pool.open(&key, connect, &head).await {
                Ok(stream) => Ok(Box::new(stream) as Box<dyn Io>),
                Err(error) => Err(no_link(isthmus_runtime::error_chain(&error))),
            }
        })
    }
}

/// Asks the gateway for an endpoint of a cluster.
fn tunnel_head(cluster: &str, to: &Destination) -> Result<ConnectHead, String> {
    let authority = format!("{}:{}", to.service.host(), to.port);
    let mut headers = HeaderMap::new();
    let pairs = [(CLUSTER_HEADER, cluster), (ENDPOINT_HEADER, to.endpoint.id.as_str())];
    if let Some(span) = to.span
        && let Ok(value) = HeaderValue::from_bytes(&span.to_traceparent())
    {
        headers.insert(HeaderName::from_static("traceparent"), value);
    }
    for (name, value) in pairs {
        let value = HeaderValue::from_str(value).map_err(|error| error.to_string())?;
        headers.insert(HeaderName::from_static(name), value);
    }
    let head = ConnectHead::parse(&authority).map_err(|error| error.to_string())?;
    Ok(head.with_headers(headers))
}

/// A carrier for processes that have no gateway: nothing remote can be reached.
#[derive(Debug)]
pub struct NoRemote;

impl RemoteDialer for NoRemote {
    fn dial(
        &self,
        cluster: &ClusterId,
        _to: &Destination,
    ) -> LocalFuture<Result<Box<dyn Io>, ConnectError>> {
        let cluster = cluster.to_string();
        Box::pin(async move {
            Err(ConnectError::NoLink { cluster, reason: "no east-west gateway is set".into() })
        })
    }
}

/// Configurations kept by one worker.
const CONFIGS_MAX: usize = 4096;
/// Time to connect to an address of this cluster, before TLS: a SYN and one repetition. A pod
/// that has just gone does not answer, and the request waits for this before it is sent
/// elsewhere.
const LOCAL_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
