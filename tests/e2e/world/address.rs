//! Which addresses a world has.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// A `127.a.b.0/24` that no other world has: claimed by a socket that stays open.
pub(crate) struct Subnet {
    a: u8,
    b: u8,
    _claim: TcpListener,
}

impl Subnet {
    /// Finds a free network and claims it.
    pub(crate) fn claim() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for _ in 0..TRIES_MAX {
            let count = NEXT.fetch_add(1, Ordering::Relaxed);
            let index = std::process::id().wrapping_mul(SPREAD).wrapping_add(count) % NETWORKS;
            let [.., high, b] = index.to_be_bytes();
            let a = FIRST + high;
            let claim = TcpListener::bind((Ipv4Addr::new(127, a, b, 254), CLAIM_PORT));
            let Ok(_claim) = claim else { continue };
            let subnet = Self { a, b, _claim };
            if subnet.is_free() {
                return subnet;
            }
        }
        panic!("no free loopback network in {TRIES_MAX} tries");
    }

    /// The addresses of one cluster.
    pub(crate) fn plan(&self, index: usize) -> Plan {
        let base = 1 + u8::try_from(index).expect("a world has few clusters") * 60;
        Plan { a: self.a, b: self.b, base }
    }

    /// Where a relay of a link listens.
    pub(crate) fn relay(&self, index: usize) -> SocketAddr {
        let host = 240 + u8::try_from(index).expect("a world has few relays");
        SocketAddr::from((Ipv4Addr::new(127, self.a, self.b, host), LINK))
    }

    /// Somebody may listen on a port at every address.
    fn is_free(&self) -> bool {
        let address = |port| (Ipv4Addr::new(127, self.a, self.b, 1), port);
        let tcp = PORTS.iter().all(|port| TcpListener::bind(address(*port)).is_ok());
        tcp && [LINK, DNS].iter().all(|port| UdpSocket::bind(address(*port)).is_ok())
    }
}

/// The addresses of one cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    a: u8,
    b: u8,
    base: u8,
}

impl Plan {
    fn host(self, offset: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.a, self.b, self.base + offset)
    }

    fn role(self, port: u16) -> SocketAddr {
        SocketAddr::from((self.host(0), port))
    }

    /// Where the ingress is bound for a port of a Gateway.
    pub(crate) fn ingress(self, port: u16) -> SocketAddr {
        self.role(ingress_port(port))
    }

    /// The east-west gateway's port for other clusters.
    pub(crate) fn link(self) -> SocketAddr {
        self.role(LINK)
    }

    /// The east-west gateway's port for this cluster.
    pub(crate) fn mesh(self) -> SocketAddr {
        self.role(MESH)
    }

    /// The discovery port of the controller.
    pub(crate) fn discovery(self) -> SocketAddr {
        self.role(DISCOVERY)
    }

    /// The port of the controller for its peers.
    pub(crate) fn federation(self) -> SocketAddr {
        self.role(FEDERATION)
    }

    /// DNS, over UDP and TCP.
    pub(crate) fn dns(self) -> SocketAddr {
        self.role(DNS)
    }

    /// Metrics, ready and admin ports of the process with this number.
    pub(crate) fn telemetry(self, process: u8) -> [SocketAddr; 3] {
        [METRICS, READY, ADMIN].map(|port| SocketAddr::from((self.host(1 + process), port)))
    }

    /// The address of the n-th application.
    pub(crate) fn app(self, index: usize) -> Ipv4Addr {
        self.host(20 + u8::try_from(index).expect("a cluster has few applications"))
    }

    /// An address between a sidecar and those who call it.
    pub(crate) fn tap(self, index: usize) -> Ipv4Addr {
        self.host(40 + u8::try_from(index).expect("a cluster has few applications"))
    }
}

/// The bound port for a port of a Gateway: those below 1024 need rights.
pub(crate) fn ingress_port(port: u16) -> u16 {
    if port < 1024 { port + 8000 } else { port }
}

/// The port that sample applications listen on.
pub(crate) const APPLICATION: u16 = 8080;
/// The port of sidecars for the mesh.
pub(crate) const MESH: u16 = 15008;
/// The port of sidecars for their application.
pub(crate) const OUTBOUND: u16 = 15001;
/// The port of sidecars for plaintext.
pub(crate) const INBOUND: u16 = 15006;
const ADMIN: u16 = 15000;
const CLAIM_PORT: u16 = 15999;
const DISCOVERY: u16 = 15012;
const DNS: u16 = 15053;
const FEDERATION: u16 = 15013;
const LINK: u16 = 15443;
const METRICS: u16 = 15020;
const READY: u16 = 15021;
const PORTS: [u16; 12] = [
    APPLICATION,
    MESH,
    OUTBOUND,
    INBOUND,
    ADMIN,
    DISCOVERY,
    DNS,
    FEDERATION,
    LINK,
    METRICS,
    READY,
    8443,
];
/// Networks are `127.64.0.0` to `127.223.255.0`: away from what people use by hand.
const FIRST: u8 = 64;
const NETWORKS: u32 = 160 * 256;
/// Keeps the networks of two test processes apart.
const SPREAD: u32 = 8191;
const TRIES_MAX: usize = 1000;
