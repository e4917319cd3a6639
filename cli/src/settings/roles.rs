//! Settings of the roles: gateways, controller, authority, DNS, and how they end.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use isthmus_federation::{VipRange, VipRangeInvalid};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration;

/// How a process ends on SIGTERM or SIGINT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct DrainSettings {
    /// How long traffic is still accepted after readiness goes off, so that load balancers
    /// notice. 0s to 10m.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub(crate) delay: Duration,
    /// How long requests and connections that are open then may go on. 0s to 1h.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub(crate) deadline: Duration,
}

impl Default for DrainSettings {
    fn default() -> Self {
        Self { delay: Duration::ZERO, deadline: Duration::from_secs(30) }
    }
}

/// The ingress gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct IngressSettings {
    /// Whether this cluster has one.
    pub(crate) enabled: bool,
    /// The address on which the listeners of Gateways are bound. 0.0.0.0 or "::" for all.
    pub(crate) address: IpAddr,
    /// The port to bind, by the port of a listener; a port that is not here is bound as it
    /// is. Ports below 1024 need privileges.
    pub(crate) ports: BTreeMap<u16, u16>,
    /// Whether clients are proxies that are trusted: X-Forwarded-For and its kin are then
    /// appended to, and else replaced.
    pub(crate) trusted_proxies: bool,
    /// What a client may use.
    pub(crate) limits: IngressLimits,
}

impl Default for IngressSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            address: LOOPBACK,
            ports: BTreeMap::new(),
            trusted_proxies: false,
            limits: IngressLimits::default(),
        }
    }
}

/// What a client of the ingress gateway may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct IngressLimits {
    /// Bytes of a request head, names and values; above it 431. 8192 to 1048576.
    pub(crate) header_bytes: usize,
    /// Header lines of a request; above it 431. 1 to 1000.
    pub(crate) header_count: usize,
    /// Concurrent HTTP/2 streams of one connection. 1 to 10000.
    pub(crate) streams: u32,
    /// Connections of one data plane thread; a further one is closed at once. 1 to 1000000.
    pub(crate) connections: usize,
    /// Time for a whole request head, from its first byte. 1ms to 1h.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub(crate) head_timeout: Duration,
    /// Time without a request before a connection is closed. 1ms to 1d.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub(crate) idle_timeout: Duration,
    /// Time without a byte of a request body before it is given up. 1ms to 1d.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub(crate) body_timeout: Duration,
}

impl Default for IngressLimits {
    fn default() -> Self {
        Self {
            header_bytes: 64 * 1024,
            header_count: 100,
            streams: 100,
            connections: 10_000,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(60),
        }
    }
}

/// The east-west gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct EastWestSettings {
    /// Whether this cluster has one; without it no other cluster is reached.
    pub(crate) enabled: bool,
    /// Where links of other clusters are taken, UDP and TCP. The one address that other
    /// clusters must reach, unless this cluster dials them.
    #[schemars(with = "String")]
    pub(crate) link: SocketAddr,
    /// Where this cluster's own sidecars and controller are taken, mTLS over TCP.
    #[schemars(with = "String")]
    pub(crate) mesh: SocketAddr,
}

impl Default for EastWestSettings {
    fn default() -> Self {
        Self { enabled: true, link: loopback(15443), mesh: loopback(15008) }
    }
}

/// The controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct ControllerSettings {
    /// Whether `isthmus up` runs it.
    pub(crate) enabled: bool,
    /// Where gateways, sidecars and DNS that run as other processes subscribe, mTLS.
    #[schemars(with = "String")]
    pub(crate) discovery: SocketAddr,
    /// Where other clusters' controllers arrive through the east-west gateway, mTLS.
    #[schemars(with = "String")]
    pub(crate) federation: SocketAddr,
    /// The IPv4 range from which imported services get their ClusterSetIP, as a.b.c.d/n
    /// with n from 8 to 28. auto is 243.0.0.0/16.
    #[schemars(with = "String")]
    pub(crate) clusterset_range: ClustersetRange,
}

impl Default for ControllerSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            discovery: loopback(15012),
            federation: loopback(15013),
            clusterset_range: ClustersetRange::Auto,
        }
    }
}

/// Where ClusterSetIPs come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum ClustersetRange {
    /// A block that is reserved on the Internet, and that other multi-cluster projects
    /// use for the same purpose.
    Auto,
    /// A range with the text that it was read from.
    Range(VipRange, String),
}

impl ClustersetRange {
    /// The range.
    ///
    /// # Errors
    ///
    /// [`VipRangeInvalid`] never happens: the constant is valid.
    pub(crate) fn resolve(&self) -> Result<VipRange, VipRangeInvalid> {
        match self {
            Self::Auto => VipRange::new(AUTO_RANGE.0, AUTO_RANGE.1),
            Self::Range(range, _) => Ok(*range),
        }
    }
}

impl TryFrom<String> for ClustersetRange {
    type Error = VipRangeInvalid;

    fn try_from(text: String) -> Result<Self, VipRangeInvalid> {
        if text == "auto" { Ok(Self::Auto) } else { Ok(Self::Range(text.parse()?, text)) }
    }
}

impl From<ClustersetRange> for String {
    fn from(range: ClustersetRange) -> Self {
        match range {
            ClustersetRange::Auto => "auto".to_owned(),
            ClustersetRange::Range(_, text) => text,
        }
    }
}

/// The certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct CaSettings {
    /// Whether `isthmus up` runs it. Its keys are in the state folder.
    pub(crate) enabled: bool,
    /// Lifetime of a workload's certificate, which is renewed at half of it. 5s to 7d.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub(crate) svid_lifetime: Duration,
    /// Lifetime of the intermediate, which is renewed at half of it. At least twice
    /// svidLifetime.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub(crate) intermediate_lifetime: Duration,
    /// Lifetime of the root, which is rotated at two thirds of it. At least three times
    /// intermediateLifetime, at most 36500d.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub(crate) root_lifetime: Duration,
    /// How long a new root is published to other clusters before it signs. At most a sixth
    /// of rootLifetime.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub(crate) rotation_overlap: Duration,
    /// An intermediate that you bring, instead of an own root. Default: none.
    #[schemars(example = serde_json::json!({
        "chain": "./ca/chain.pem", "key": "./ca/key.pem", "root": "./ca/root.pem",
    }))]
    pub(crate) user_intermediate: Option<UserIntermediateSettings>,
}

impl Default for CaSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            svid_lifetime: Duration::from_secs(3600),
            intermediate_lifetime: Duration::from_secs(7 * DAY),
            root_lifetime: Duration::from_secs(3650 * DAY),
            rotation_overlap: Duration::from_secs(15 * 60),
            user_intermediate: None,
        }
    }
}

/// The files of an intermediate that the user brings, PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct UserIntermediateSettings {
    /// The intermediate, then those between it and the root, without the root.
    pub(crate) chain: PathBuf,
    /// The private key of the intermediate.
    pub(crate) key: PathBuf,
    /// The roots to publish in the trust bundle.
    pub(crate) root: PathBuf,
}

/// The DNS server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct DnsSettings {
    /// Whether `isthmus up` runs it.
    pub(crate) enabled: bool,
    /// Where it answers, UDP and TCP.
    #[schemars(with = "String")]
    pub(crate) address: SocketAddr,
    /// Servers, as ip:port, that are asked for names that are not ours; at most 8.
    /// Default: none, which means those of /etc/resolv.conf.
    #[schemars(with = "Vec<String>")]
    pub(crate) upstreams: Vec<SocketAddr>,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self { enabled: true, address: loopback(15053), upstreams: Vec::new() }
    }
}

pub(super) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(LOOPBACK, port)
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const AUTO_RANGE: (Ipv4Addr, u8) = (Ipv4Addr::new(243, 0, 0, 0), 16);
const DAY: u64 = 24 * 3600;
