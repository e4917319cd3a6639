//! Listening sockets that several workers share through SO_REUSEPORT.
//!
//! The kernel spreads new connections over the sockets bound to one address, so workers
//! need no shared accept queue. A plain bind probe goes first: SO_REUSEPORT alone would
//! let two unrelated processes of one user share a port silently, and a leftover process
//! must be a clear error instead.

use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

/// A socket that could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The address is in use by another process.
    #[error(
        "{transport} address {address} is already in use; stop the process that has it or choose another port"
    )]
    InUse {
        /// `TCP` or `UDP`.
        transport: &'static str,
        /// The address wanted.
        address: SocketAddr,
    },
    /// The process may not bind the port.
    #[error(
        "no permission to bind {transport} address {address}; ports below 1024 need CAP_NET_BIND_SERVICE"
    )]
    Permission {
        /// `TCP` or `UDP`.
        transport: &'static str,
        /// The address wanted.
        address: SocketAddr,
    },
    /// Any other failure.
    #[error("cannot open {transport} address {address}")]
    System {
        /// `TCP` or `UDP`.
        transport: &'static str,
        /// The address wanted.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Binds `count` TCP listeners to one address, one for each worker.
///
/// Port 0 is resolved once: all sockets get the port of the first.
///
/// # Errors
///
/// [`SocketError`] names the address and the reason.
pub fn bind_tcp(
    address: SocketAddr,
    count: usize,
) -> Result<Vec<std::net::TcpListener>, SocketError> {
    let sockets = bind_shared(address, count, Type::STREAM)?;
    for socket in &sockets {
        socket.listen(LISTEN_BACKLOG).map_err(|source| SocketError::System {
            transport: "TCP",
            address,
            source,
        })?;
    }
    Ok(sockets.into_iter().map(Into::into).collect())
}

/// Binds `count` UDP sockets to one address, one for each worker.
///
/// # Errors
///
/// [`SocketError`] names the address and the reason.
pub fn bind_udp(
    address: SocketAddr,
    count: usize,
) -> Result<Vec<std::net::UdpSocket>, SocketError> {
    Ok(bind_shared(address, count, Type::DGRAM)?.into_iter().map(Into::into).collect())
}

fn bind_shared(address: SocketAddr, count: usize, kind: Type) -> Result<Vec<Socket>, SocketError> {
    let fail = |source: std::io::Error| classify(kind, address, source);
    // The probe holds the address alone for a moment; it fails if anybody else has it.
    let probe = open(address, kind, false).map_err(fail)?;
    let actual = probe.local_addr().map_err(fail)?.as_socket().unwrap_or(address);
    drop(probe);
    (0..count.max(1)).map(|_| open(actual, kind, true).map_err(fail)).collect()
}

fn open(address: SocketAddr, kind: Type, shared: bool) -> std::io::Result<Socket> {
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if kind == Type::STREAM {
        // Connections of a former process in TIME_WAIT must not block a restart.
        socket.set_reuse_address(true)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn classify(kind: Type, address: SocketAddr, source: std::io::Error) -> SocketError {
    let transport = if kind == Type::STREAM { "TCP" } else { "UDP" };
    if source.kind() == std::io::ErrorKind::AddrInUse {
        SocketError::InUse { transport, address }
    } else if source.kind() == std::io::ErrorKind::PermissionDenied {
        SocketError::Permission { transport, address }
    } else {
        SocketError::System { transport, address, source }
    }
}

/// Connections that the kernel queues before a worker accepts them.
pub const LISTEN_BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_one_port_and_strangers_do_not() {
        let first = bind_tcp("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = first[0].local_addr().unwrap();
        assert!(first.iter().all(|socket| socket.local_addr().unwrap() == address));
        let second = bind_tcp(address, 1);
        assert!(matches!(second, Err(SocketError::InUse { transport: "TCP", .. })));
    }

    #[test]
    fn udp_is_probed_too() {
        let first = bind_udp("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let address = first[0].local_addr().unwrap();
        assert!(matches!(bind_udp(address, 1), Err(SocketError::InUse { .. })));
    }
}
