//! The in-cluster hop: mutually authenticated TLS to port 15008, and HTTP/2 CONNECT
//! tunnels (HBONE, as Istio ambient speaks it) over it, client and server.
//!
//! Under ALPN `isthmus-http/1` the caller runs plain HTTP/2 on the stream that this crate
//! returns. Under ALPN `h2` this crate runs the connection itself: every tunnel is one
//! CONNECT stream with half-close, reset and flow control of its own.
//!
//! Nothing here spawns a detached task. A server connection is one future; a client
//! connection gives a driver future to its owner, and [`TunnelPool`] owns its drivers.
//!
//! # Flow
//!
//! 1. [`wire`]: port, ALPN, header names, windows and the other shared numbers.
//! 2. [`authority`]: what a CONNECT asks for, as a checked value.
//! 3. [`mesh`]: one mTLS handshake, accepted or made, with its identity and protocol.
//! 4. [`tunnel`]: the tunnel stream, the client connection, the pool and the server.
//! 5. [`mod@splice`]: copies between two streams until both ends are done.

pub mod wire;

pub mod authority;

pub mod mesh;

pub mod tunnel;

pub mod splice;

pub use crate::authority::{Authority, Host, InvalidAuthority};
pub use crate::mesh::{
    AcceptError, ConnectError, Connected, MeshAcceptor, MeshConnection, MeshConnector, MeshProtocol,
};
pub use crate::splice::{Side, SpliceEnd, SpliceLimits, SpliceOutcome, splice};
pub use crate::tunnel::client::{Availability, TunnelClient, TunnelDriver};
pub use crate::tunnel::error::TunnelError;
pub use crate::tunnel::head::ConnectHead;
pub use crate::tunnel::pool::{PoolLimits, TunnelKey, TunnelPool};
pub use crate::tunnel::serve::{
    ConnectRequest, ServeEnd, ServeLimits, ServeOutcome, Verdict, serve_connect,
};
pub use crate::tunnel::settings::{Keepalive, TunnelSettings};
pub use crate::tunnel::stream::TunnelStream;
