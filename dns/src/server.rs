//! UDP and TCP sockets, one answer for each query, graceful stop.
//!
//! The messages are hickory-server's; the sockets are ours. hickory-server 0.26 answers
//! malformed responses, makes room for as many questions as a header claims, starts a
//! task for each datagram without a bound and puts no limit on TCP connections. Here
//! every packet is inspected first, what this cluster knows is answered on the spot
//! without a task, and only forwarded questions become tasks, of which there are at most
//! [`FORWARDS_IN_FLIGHT_MAX`] for each socket.

mod reply;

mod responder;

mod tcp;

mod udp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use isthmus_runtime::{Drain, DrainOutcome, SnapshotCell};
use tokio::task::JoinSet;

use crate::forward::Forwarder;
use crate::metrics::Metrics;
use crate::server::responder::Responder;
use crate::zone::ZoneData;

/// The sockets that a server answers on, as `isthmus_runtime::{bind_udp, bind_tcp}` make
/// them.
#[derive(Debug, Default)]
pub struct Sockets {
    /// UDP sockets; several may share one port.
    pub udp: Vec<std::net::UdpSocket>,
    /// TCP listeners; several may share one port.
    pub tcp: Vec<std::net::TcpListener>,
}

/// How a server answers.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Answers a second over UDP to one source address on one socket; 0 is no limit.
    /// Default: 20 000.
    pub rate_per_source: u32,
    /// How long a TCP connection may stay without a whole query. Default: 10 s.
    pub tcp_idle: Duration,
    /// TCP connections of one listener. Default: 1024.
    pub tcp_connections: usize,
    /// TCP connections of one listener with one client. Default: 64.
    pub tcp_connections_per_client: usize,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            rate_per_source: 20_000,
            tcp_idle: Duration::from_secs(10),
            tcp_connections: 1024,
            tcp_connections_per_client: 64,
        }
    }
}

/// A server that could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A socket could not be handed to the runtime.
    #[error("cannot use the {transport} socket {address:?}")]
    Socket {
        /// `TCP` or `UDP`.
        transport: &'static str,
        /// Where it is bound, if that is known.
        address: Option<SocketAddr>,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A running DNS server; dropping it stops it at once.
#[derive(Debug)]
pub struct DnsServer {
    tasks: JoinSet<()>,
    drain: Drain,
    metrics: Arc<Metrics>,
}

impl DnsServer {
    /// Starts answering on the current tokio runtime.
    ///
    /// Without a forwarder, names that are not ours are refused.
    ///
    /// # Errors
    ///
    /// [`ServerError::Socket`] names the socket that cannot be used.
    pub fn start(
        sockets: Sockets,
        zone: SnapshotCell<ZoneData>,
        forwarder: Option<Arc<Forwarder>>,
        settings: &ServerSettings,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ServerError> {
        let drain = Drain::new();
        let mut tasks = JoinSet::new();
        let responder = Arc::new(Responder::new(zone, forwarder, Arc::clone(&metrics)));
        for socket in sockets.udp {
            let address = socket.local_addr().ok();
            let adopt = |socket: std::net::UdpSocket| {
                socket.set_nonblocking(true)?;
                tokio::net::UdpSocket::from_std(socket)
            };
            let socket = adopt(socket).map_err(|source| ServerError::Socket {
                transport: "UDP",
                address,
                source,
            })?;
            let rate = settings.rate_per_source;
            tasks.spawn(udp::serve(socket, Arc::clone(&responder), rate, drain.stop()));
        }
        for listener in sockets.tcp {
            let address = listener.local_addr().ok();
            let adopt = |listener: std::net::TcpListener| {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener)
            };
            let listener = adopt(listener).map_err(|source| ServerError::Socket {
                transport: "TCP",
                address,
                source,
            })?;
            let limits = settings.clone();
            tasks.spawn(tcp::serve(listener, Arc::clone(&responder), limits, drain.stop()));
        }
        Ok(Self { tasks, drain, metrics })
    }

    /// The server's counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Stops taking queries, lets those in flight end up to a deadline, then forces.
    pub async fn stop(mut self, deadline: Duration) -> DrainOutcome {
        let outcome = self.drain.run(deadline).await;
        self.tasks.shutdown().await;
        outcome
    }
}

/// Largest datagram that we send and ask for: fits the smallest IPv6 MTU, so it is never
/// fragmented.
///
/// Spec: DNS Flag Day 2020, RFC 9715.
pub const EDNS_PAYLOAD_BYTES: u16 = 1232;
/// Forwarded questions in flight for one UDP socket; more are answered SERVFAIL.
pub const FORWARDS_IN_FLIGHT_MAX: usize = 1024;

#[cfg(test)]
mod tests;
