//! The shared data plane of gateways and sidecars: HTTP/1.1 and HTTP/2 in and out,
//! WebSocket, gRPC, opaque TCP; strict framing, one canonical request, routing by a
//! [`router::Router`], balancing, retries, and one record for each request.
//!
//! Everything runs on one worker thread and is shared there by `Rc`; no lock, counter or
//! channel of another thread is touched for a request.
//!
//! # Flow
//!
//! 1. [`settings`]: the limits.
//! 2. [`worker`]: what one thread has; [`watch`] times its connections.
//! 3. [`server`]: accept, TLS, which HTTP; [`client_io`] reads, [`guard`] checks framing.
//! 4. [`service`]: one request in a straight line:
//!    [`canonical`] → [`headers`] → [`router`] → [`cors`] → [`filters`] → [`mirror`] →
//!    [`relay`] → [`log`].
//! 5. [`balancer`] with [`outlier`] picks an endpoint; [`pool`] keeps its connections.
//! 6. [`connect`] is the seam to connections, [`mesh`] the one implementation;
//!    [`upstream_tls`] is the TLS to backends outside the mesh.
//! 7. [`upgrade`] and [`tcp`]: bytes that are not HTTP.

pub mod settings;

pub mod worker;

mod watch;

pub mod server;

mod client_io;

pub mod guard;

mod service;

pub mod canonical;

pub mod headers;

pub mod router;

pub mod filters;

mod cors;

mod relay;

mod failure;

mod send;

mod reply;

mod mirror;

mod log;

mod body;

mod balancer;

pub mod outlier;

mod rng;

mod pool;

pub mod connect;

pub mod mesh;

mod upstream_tls;

#[cfg(test)]
mod end_to_end;

mod executor;

mod upgrade;

pub mod tcp;

pub use crate::client_io::Rewound;
pub use crate::connect::{ConnectError, Connected, Connector, Destination, Io, Purpose};
pub use crate::mesh::{GatewayDialer, MeshDialer, NoRemote, RemoteDialer};
pub use crate::relay::MESH_PORT_HEADER;
pub use crate::router::{Route, RouteInput, Router, Target, explain_assignment};
pub use crate::server::{Client, Service, TlsSource, accept, accept_each, serve_stream, serve_tcp};
pub use crate::settings::ProxySettings;
pub use crate::upstream_tls::UpstreamTls;
pub use crate::worker::{OnDemand, Place, Worker, WorkerParts};
