//! A Kubernetes cluster as the source of objects and as the place to write to.
//!
//! One process of the controller leads; the others wait for the Lease before they start
//! anything. They are ready, so that rollouts and disruption budgets count them; Services
//! find only the leader's pod, by its label. A process that loses the Lease, or finds that
//! another has written the authority's Secret, ends, and its container starts again as a
//! standby.
//!
//! # Flow
//!
//! 1. [`leader`]: the connection, the Lease, the label of the leader's pod.
//! 2. [`led`]: what the leader starts; [`kept`]: the authority's keys, restored from the Secret and kept there.
//! 3. [`reader`]: watched objects to configuration; what it has seen is a [`World`].
//! 4. [`writer`]: what was decided and the world to plans, and their execution.

pub(crate) mod kept;

pub(crate) mod leader;

pub(crate) mod led;

pub(crate) mod reader;

pub(crate) mod world;

pub(crate) mod writer;

#[cfg(test)]
mod stub;

use std::net::{IpAddr, SocketAddr, UdpSocket};

pub(crate) use self::kept::Kept;
pub(crate) use self::leader::{Cluster, host_name};
pub(crate) use self::led::Led;
pub(crate) use self::world::World;

/// Where other processes of the cluster reach a port of this pod: at the address from which
/// it reaches the API server, as in `https://10.96.0.1/`. `None` where that has a name and
/// no address, which it has outside a pod.
pub(crate) fn advertised(api_server: &str, port: u16) -> Option<SocketAddr> {
    let url: http::Uri = api_server.parse().ok()?;
    let host: IpAddr = url.host()?.trim_matches(['[', ']']).parse().ok()?;
    let any = if host.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    // Connecting a UDP socket sends nothing; it chooses the source address.
    socket.connect((host, url.port_u16().unwrap_or(443))).ok()?;
    Some(SocketAddr::new(socket.local_addr().ok()?.ip(), port))
}

/// The mesh port of the cluster's own east-west gateway.
pub(crate) const EASTWEST_MESH: &str = "isthmus-eastwest.isthmus-system.svc:15008";
