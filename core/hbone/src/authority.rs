//! What a CONNECT asks for: `host:port` as a checked value.
//!
//! The authority comes from a peer and decides where bytes go, so there is exactly one
//! way to read it. What other software might read differently is refused: user
//! information, a missing port, leading zeros, IPv6 zones, names that end in a number.
//!
//! Spec: RFC 9110 section 9.3.6; RFC 3986 section 3.2; RFC 9113 section 8.5.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use isthmus_model::{Hostname, ServiceKey};

/// An authority that breaks the form `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAuthority {
    /// The host is neither an address nor a DNS name.
    #[error("authority host {host:?} is neither an IP address nor a DNS name")]
    Host {
        /// The host, cut to 80 characters.
        host: String,
    },
    /// The authority is longer than any valid one.
    #[error("authority has {length} bytes, at most {limit} are allowed")]
    Length {
        /// Bytes in the authority.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// There is no port.
    #[error("authority {authority:?} has no port")]
    PortMissing {
        /// The authority, cut to 80 characters.
        authority: String,
    },
    /// The port is not a decimal number of 1 to 65535.
    #[error("authority port {port:?} is not a number from 1 to 65535")]
    Port {
        /// The port, cut to 80 characters.
        port: String,
    },
}

/// The target of a CONNECT.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Authority {
    host: Host,
    port: u16,
}

/// The host part of an [`Authority`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An IP address; IPv6 in brackets on the wire.
    Address(IpAddr),
    /// A DNS name in lower case that is not a Kubernetes service name.
    Name(Hostname),
    /// `<service>.<namespace>.svc.cluster.local` or `….svc.clusterset.local`.
    Service(ServiceKey),
}

impl Authority {
    /// The authority of an address.
    ///
    /// # Errors
    ///
    /// [`InvalidAuthority::Port`] for port 0.
    pub fn address(address: SocketAddr) -> Result<Self, InvalidAuthority> {
        Ok(Self { host: Host::Address(address.ip()), port: check_port(address.port())? })
    }

    /// The authority of a service.
    ///
    /// # Errors
    ///
    /// [`InvalidAuthority::Port`] for port 0.
    pub fn service(key: ServiceKey, port: u16) -> Result<Self, InvalidAuthority> {
        Ok(Self { host: Host::Service(key), port: check_port(port)? })
    }

    /// Reads `host:port`. Upper-case letters in a name count as lower case.
    ///
    /// # Errors
    ///
    /// [`InvalidAuthority`] says which part is wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidAuthority> {
        if text.len() > AUTHORITY_BYTES_MAX {
            let (length, limit) = (text.len(), AUTHORITY_BYTES_MAX);
            return Err(InvalidAuthority::Length { length, limit });
        }
        let missing = || InvalidAuthority::PortMissing { authority: excerpt(text) };
        if let Some(rest) = text.strip_prefix('[') {
            let (inside, after) = rest
                .split_once(']')
                .ok_or_else(|| InvalidAuthority::Host { host: excerpt(text) })?;
            let address: Ipv6Addr =
                inside.parse().map_err(|_| InvalidAuthority::Host { host: excerpt(inside) })?;
            let port = after.strip_prefix(':').ok_or_else(missing)?;
            return Ok(Self { host: Host::Address(address.into()), port: parse_port(port)? });
        }
        let (host, port) = text.split_once(':').ok_or_else(missing)?;
        Ok(Self { host: parse_host(host)?, port: parse_port(port)? })
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address and port, when the host is an address.
    pub fn as_socket_addr(&self) -> Option<SocketAddr> {
        match &self.host {
            Host::Address(address) => Some(SocketAddr::new(*address, self.port)),
            Host::Name(_) | Host::Service(_) => None,
        }
    }

    /// The service and port, when the host is a Kubernetes service name.
    pub fn as_service(&self) -> Option<(&ServiceKey, u16)> {
        match &self.host {
            Host::Service(key) => Some((key, self.port)),
            Host::Address(_) | Host::Name(_) => None,
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match &self.host {
            Host::Address(address) => SocketAddr::new(*address, port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{port}"),
            Host::Service(key) => write!(f, "{}:{port}", key.host()),
        }
    }
}

impl std::str::FromStr for Authority {
    type Err = InvalidAuthority;

    fn from_str(text: &str) -> Result<Self, InvalidAuthority> {
        Self::parse(text)
    }
}

fn parse_host(text: &str) -> Result<Host, InvalidAuthority> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Host::Address(address));
    }
    let refused = || InvalidAuthority::Host { host: excerpt(text) };
    let name = Hostname::new(&text.to_ascii_lowercase()).map_err(|_| refused())?;
    let last = name.as_str().rsplit('.').next().unwrap_or_default();
    // `127.1` or `1.2.3.0x10` is an address to some resolvers and a name to others.
    let number = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    if name.is_wildcard() || number {
        return Err(refused());
    }
    Ok(ServiceKey::from_host(name.as_str()).map_or(Host::Name(name), Host::Service))
}

fn parse_port(text: &str) -> Result<u16, InvalidAuthority> {
    let refused = || InvalidAuthority::Port { port: excerpt(text) };
    // `u16::from_str` takes a leading plus sign and leading zeros.
    if text.starts_with('0') || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refused());
    }
    text.parse().map_err(|_| refused())
}

fn check_port(port: u16) -> Result<u16, InvalidAuthority> {
    if port == 0 {
        return Err(InvalidAuthority::Port { port: "0".to_owned() });
    }
    Ok(port)
}

fn excerpt(value: &str) -> String {
    value.chars().take(80).collect()
}

/// A host name of 253 bytes, a colon and five digits.
const AUTHORITY_BYTES_MAX: usize = 259;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_names_and_services_are_read_and_written_back() {
        for (text, service) in [
            ("10.1.2.3:8080", false),
            ("[2001:db8::1]:443", false),
            ("example.test:1", false),
            ("cart.shop.svc.clusterset.local:65535", true),
            ("cart.shop.svc.cluster.local:80", true),
        ] {
            let authority = Authority::parse(text).unwrap();
            assert_eq!(authority.to_string(), text);
            assert_eq!(authority.as_service().is_some(), service, "{text}");
        }
    }

    #[test]
    fn a_clusterset_name_gives_its_service_key() {
        let authority = Authority::parse("Cart.Shop.svc.clusterset.local:80").unwrap();
        let (key, port) = authority.as_service().unwrap();
        assert_eq!((key.host().as_str(), port), ("cart.shop.svc.clusterset.local", 80));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for bad in [
            "",
            ":",
            ":80",
            "a.test",
            "a.test:",
            "a.test:0",
            "a.test:080",
            "a.test:+80",
            "a.test:65536",
            "a.test:80:80",
            "a.test.:80",
            "u@a.test:80",
            "*.test:80",
            "127.1:80",
            "1.2.3.4.5:80",
            "1.2.3.0x10:80",
            "2001:db8::1:80",
            "[2001:db8::1]",
            "[2001:db8::1]80",
            "[fe80::1%eth0]:80",
            "[10.0.0.1]:80",
            "[::1:80",
            "a/b:80",
            "a b:80",
            "\u{e9}.test:80",
            "a\r\nb:80",
        ] {
            assert!(Authority::parse(bad).is_err(), "{bad:?}");
        }
        let long = format!("{}:80", "a.".repeat(200));
        assert!(matches!(Authority::parse(&long), Err(InvalidAuthority::Length { .. })));
    }
}
