//! The seam to connections: what the data plane asks for and what it gets.
//!
//! The proxy knows endpoints; how one is reached (plain TCP, mTLS to a sidecar, a tunnel
//! through the gateways, a link in this process) is a [`Connector`]'s business.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use isthmus_model::{AppProtocol, Endpoint, ServiceKey, SpiffeId};
use isthmus_telemetry::{ResponseFlag, SpanRef};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::upstream_tls::UpstreamTls;

/// A future on one worker.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// Opens connections to endpoints.
pub trait Connector {
    /// Opens a connection.
    fn connect(&self, to: Destination) -> LocalFuture<Result<Connected, ConnectError>>;
}

/// Where a connection goes and what for.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The service that the endpoint belongs to.
    pub service: ServiceKey,
    /// The port of the service.
    pub port: u16,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// What will be spoken.
    pub purpose: Purpose,
    /// The TLS that a plain endpoint is spoken to with.
    pub tls: Option<UpstreamTls>,
    /// The span of the request that needs the connection; hops that only see connections
    /// join its trace.
    pub span: Option<SpanRef>,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Opaque bytes to the application: TCP, and protocols after an upgrade.
    Bytes,
    /// HTTP requests.
    Http {
        /// What the application speaks, where no sidecar is in between.
        app: AppProtocol,
    },
}

/// An open connection.
pub struct Connected {
    /// The bytes.
    pub io: UpstreamIo,
    /// What is spoken on it, for [`Purpose::Http`].
    pub http: UpstreamHttp,
    /// Who proved to be there.
    pub peer: Option<SpiffeId>,
    /// Where it went, as far as this process knows.
    pub address: Option<SocketAddr>,
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected")
            .field("http", &self.http)
            .field("peer", &self.peer)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// The HTTP of an upstream connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamHttp {
    /// HTTP/1.1, one request at a time.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// HTTP/2 to a sidecar or gateway, which is told the application's port.
    Mesh {
        /// The application's port behind the sidecar.
        port: u16,
    },
}

/// Bytes of an upstream connection: plain TCP stays concrete, since it is the hot path.
pub enum UpstreamIo {
    /// TLS, or a tunnel.
    Boxed(Box<dyn Io>),
    /// Plain TCP.
    Tcp(TcpStream),
}

impl fmt::Debug for UpstreamIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boxed(_) => "UpstreamIo::Boxed",
            Self::Tcp(_) => "UpstreamIo::Tcp",
        })
    }
}

impl UpstreamIo {
    /// The same bytes behind one type.
    pub fn boxed(self) -> Box<dyn Io> {
        match self {
            Self::Boxed(io) => io,
            Self::Tcp(io) => Box::new(io),
        }
    }
}

/// A byte stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Why no connection could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The endpoint, or a gateway on the way, refused or could not be reached.
    #[error("cannot connect to {to}: {reason}")]
    Failed {
        /// The endpoint.
        to: String,
        /// What was said.
        reason: String,
    },
    /// No link to the endpoint's cluster.
    #[error("no link to cluster {cluster}: {reason}")]
    NoLink {
        /// The cluster.
        cluster: String,
        /// What was said.
        reason: String,
    },
    /// The other side could not prove to be the endpoint.
    #[error("{to} did not prove its identity: {reason}")]
    Tls {
        /// The endpoint.
        to: String,
        /// What was said.
        reason: String,
    },
    /// It took too long.
    #[error("connecting to {to} took longer than {limit_ms} ms")]
    Timeout {
        /// The endpoint.
        to: String,
        /// The limit in milliseconds.
        limit_ms: u128,
    },
}

impl ConnectError {
    /// The flag of the access record.
    pub fn flag(&self) -> ResponseFlag {
        match self {
            Self::Failed { .. } | Self::Timeout { .. } => ResponseFlag::UpstreamConnectFailure,
            Self::NoLink { .. } => ResponseFlag::LinkDown,
            Self::Tls { .. } => ResponseFlag::UpstreamTls,
        }
    }
}
