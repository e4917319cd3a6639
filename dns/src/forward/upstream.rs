//! Which servers to forward to.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// A resolver file that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ResolvConfError {
    /// The file could not be read.
    #[error("cannot read the upstreams of {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Reads the `nameserver` lines of a file such as `/etc/resolv.conf`.
///
/// # Errors
///
/// [`ResolvConfError::Read`] when the file cannot be read.
pub fn upstreams_of_file(path: &Path) -> Result<Vec<SocketAddr>, ResolvConfError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ResolvConfError::Read { path: path.to_path_buf(), source })?;
    Ok(upstreams_from_resolv_conf(&text))
}

/// The `nameserver` lines of a text such as `/etc/resolv.conf`, with port 53.
///
/// Lines that are not an address, among them link-local ones with an interface, are
/// passed over, as the C library does.
pub fn upstreams_from_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            return None;
        }
        let ip: IpAddr = words.next()?.parse().ok()?;
        Some(SocketAddr::new(ip, DNS_PORT))
    };
    text.lines().filter_map(address).collect()
}

/// Whether a packet to `to` would come back to a socket bound to `own`.
pub(super) fn is_self(own: SocketAddr, to: SocketAddr) -> bool {
    let same_host = if own.ip().is_unspecified() {
        // Other addresses of this host are not known here; a loop through them ends
        // because the question then waits for itself.
        to.ip().is_loopback() || to.ip().is_unspecified()
    } else {
        own.ip().to_canonical() == to.ip().to_canonical()
    };
    same_host && own.port() == to.port()
}

const DNS_PORT: u16 = 53;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameserver_lines_are_read_and_the_rest_passed_over() {
        let text = "# comment\nsearch a.test b.test\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 x\n\
                    nameserver fe80::1%eth0\nnameserver\nnameservers 192.0.2.9\noptions ndots:5\n";
        let wanted: Vec<SocketAddr> =
            vec!["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()];
        assert_eq!(upstreams_from_resolv_conf(text), wanted);
        assert!(upstreams_of_file(Path::new("/nonexistent/resolv.conf")).is_err());
    }

    #[test]
    fn ourselves_are_recognised() {
        let check = |own: &str, to: &str| is_self(own.parse().unwrap(), to.parse().unwrap());
        assert!(check("127.0.0.1:53", "127.0.0.1:53"));
        assert!(check("0.0.0.0:53", "127.0.0.53:53"));
        assert!(check("[::]:53", "127.0.0.1:53"));
        assert!(!check("127.0.0.1:53", "127.0.0.1:5353"));
        assert!(!check("127.0.0.1:53", "192.0.2.1:53"));
    }
}
