//! What the answers come from: service records compiled into lookup maps.
//!
//! The controller's side fills a [`ZoneSource`]; [`ZoneData::build`] turns it into an
//! immutable value that the server swaps whole. Every name in a source is a checked
//! label, so a peer cannot bring in `*`, `_tcp` or `a.b` and shadow another name, and
//! the scope is part of each key, so a federated service cannot enter `cluster.local`.
//!
//! Names that come into being:
//!
//! | name below the zone | what |
//! |---|---|
//! | *(apex)* | SOA, NS |
//! | `dns-version` | TXT, the version of the schema |
//! | `ns.dns` | A and AAAA of this server, when they are known |
//! | `svc`, `<ns>.svc` | exist without records |
//! | `<svc>.<ns>.svc` | A, AAAA, SRV; CNAME for an external name |
//! | `_<port>._<proto>.<svc>.<ns>.svc` | SRV |
//! | `<host>.<svc>.<ns>.svc.cluster.local` | A, AAAA of one endpoint of a headless service |
//! | `<host>.<cluster>.<svc>.<ns>.svc.clusterset.local` | the same, in the clusterset |
//!
//! `<cluster>.<svc>.<ns>.svc.clusterset.local` must not exist and does not.
//!
//! Spec: Kubernetes DNS specification 1.1.0; KEP-1645 specification.md 1.0.0.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record};
use isthmus_model::{ClusterId, Hostname, Label, ServiceKey, ServiceScope};

/// The services that one zone value is built from.
#[derive(Debug, Clone)]
pub struct ZoneSource {
    /// This cluster. Its endpoints come first where an answer is cut to a subset.
    pub cluster: ClusterId,
    /// Serial number for the SOA records; the generation of the configuration will do.
    pub serial: u32,
    /// Addresses of this DNS server, answered for `ns.dns.<zone>`.
    pub name_servers: Vec<IpAddr>,
    /// Namespaces of this cluster that exist, with or without services.
    pub namespaces: Vec<Label>,
    /// The services. Of two with the same key the first is kept.
    pub services: Vec<ServiceRecord>,
}

impl ZoneSource {
    /// A source without services.
    pub fn new(cluster: ClusterId) -> Self {
        Self {
            cluster,
            serial: 1,
            name_servers: Vec::new(),
            namespaces: Vec::new(),
            services: Vec::new(),
        }
    }
}

/// One service and what its name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRecord {
    /// Which service, in which of the two zones.
    pub key: ServiceKey,
    /// What its name leads to.
    pub kind: ServiceKind,
    /// Its ports; at most [`PORTS_PER_SERVICE_MAX`] are kept.
    pub ports: Vec<ServicePortRecord>,
}

/// What the name of a service leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceKind {
    /// Virtual addresses: a ClusterIP, or the ClusterSetIP of an import.
    ClusterIp {
        /// One address for each family.
        ips: Vec<IpAddr>,
    },
    /// Another name. Only for services of this cluster (`ExternalName`).
    ExternalName {
        /// The other name.
        target: Hostname,
    },
    /// The endpoints themselves.
    Headless {
        /// The endpoints of all clusters; at most [`ENDPOINTS_PER_SERVICE_MAX`] that are
        /// ready are kept.
        endpoints: Vec<HeadlessEndpoint>,
    },
}

/// One address of one endpoint of a headless service.
///
/// An endpoint with two addresses is two of these with the same hostname.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadlessEndpoint {
    /// The endpoint's own name; without one, its address with dashes stands in.
    pub hostname: Option<Label>,
    /// The cluster that has the endpoint. Not used for services of this cluster.
    pub cluster: ClusterId,
    /// The address.
    pub ip: IpAddr,
    /// Whether the endpoint may be answered: ready, or its service publishes endpoints
    /// that are not.
    pub ready: bool,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePortRecord {
    /// The port's name; a port without one has no `_<port>._<proto>` name.
    pub name: Option<Label>,
    /// The transport.
    pub protocol: PortProtocol,
    /// The number.
    pub number: u16,
}

/// The transport of a service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortProtocol {
    /// SCTP.
    Sctp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl PortProtocol {
    /// The label in SRV names, with its underscore.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Sctp => "_sctp",
            Self::Tcp => "_tcp",
            Self::Udp => "_udp",
        }
    }
}

/// The compiled, immutable content of both zones.
#[derive(Debug)]
pub struct ZoneData {
    pub(crate) cluster: Space,
    pub(crate) clusterset: Space,
    pub(crate) reverse: HashMap<IpAddr, Name>,
    left_out: usize,
}

impl ZoneData {
    /// Compiles a source.
    ///
    /// What goes beyond the limits, repeats a key or makes a name longer than 255 bytes
    /// is left out and counted, and the rest is served.
    pub fn build(source: ZoneSource) -> Self {
        let mut built = Self {
            cluster: Space::new("cluster", CLUSTER_SCHEMA_VERSION, &source),
            clusterset: Space::new("clusterset", CLUSTERSET_SCHEMA_VERSION, &source),
            reverse: HashMap::new(),
            left_out: source.services.len().saturating_sub(SERVICES_MAX),
        };
        for namespace in &source.namespaces {
            built.cluster.namespaces.entry(namespace.to_string()).or_default();
        }
        for record in source.services.into_iter().take(SERVICES_MAX) {
            built.add(record, &source.cluster);
        }
        built
    }

    /// How many services, endpoints and ports were left out.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    fn add(&mut self, record: ServiceRecord, local: &ClusterId) {
        let ServiceRecord { key, kind, mut ports } = record;
        self.left_out += ports.len().saturating_sub(PORTS_PER_SERVICE_MAX);
        ports.truncate(PORTS_PER_SERVICE_MAX);
        let space = match key.scope {
            ServiceScope::Cluster => &mut self.cluster,
            ServiceScope::ClusterSet => &mut self.clusterset,
        };
        let services = space.namespaces.entry(key.namespace.to_string()).or_default();
        let Some(name) = dotted(&key.host()) else {
            self.left_out += 1;
            return;
        };
        if services.contains_key(key.name.as_str()) {
            self.left_out += 1;
            return;
        }
        let backing = match kind {
            ServiceKind::ClusterIp { ips } => Backing::Addresses(ips),
            ServiceKind::ExternalName { target } => match dotted(target.as_str()) {
                Some(target) if key.scope == ServiceScope::Cluster && !target.is_wildcard() => {
                    Backing::Alias(target)
                }
                Some(_) | None => {
                    self.left_out += 1;
                    return;
                }
            },
            ServiceKind::Headless { endpoints } => {
                let (hosts, left_out) = Hosts::build(endpoints, &key, local);
                self.left_out += left_out;
                Backing::Hosts(hosts)
            }
        };
        if key.scope == ServiceScope::Cluster {
            remember_reverse(&mut self.reverse, &name, &backing);
        }
        services.insert(key.name.to_string(), Service { name, ports, backing });
    }
}

/// One of the two zones.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) name_server: Name,
    pub(crate) soa: Record,
    pub(crate) version: &'static str,
    pub(crate) name_server_ips: Vec<IpAddr>,
    namespaces: HashMap<String, HashMap<String, Service>>,
}

impl Space {
    fn new(first_label: &str, version: &'static str, source: &ZoneSource) -> Self {
        let below = |prefix: &str| {
            dotted(&format!("{prefix}{first_label}.local"))
                .expect("the zone's own names are short and have no empty label")
        };
        let (origin, name_server) = (below(""), below("ns.dns."));
        let soa = SOA::new(
            name_server.clone(),
            below("hostmaster."),
            source.serial,
            SOA_REFRESH_SECONDS,
            SOA_RETRY_SECONDS,
            SOA_EXPIRE_SECONDS,
            NEGATIVE_TTL_SECONDS,
        );
        Self {
            soa: Record::from_rdata(origin, NEGATIVE_TTL_SECONDS, RData::SOA(soa)),
            name_server,
            version,
            name_server_ips: source.name_servers.clone(),
            namespaces: HashMap::new(),
        }
    }

    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(namespace)
    }

    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.namespaces.get(namespace)?.get(name)
    }
}

/// One compiled service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: Name,
    pub(crate) ports: Vec<ServicePortRecord>,
    pub(crate) backing: Backing,
}

/// What a compiled service leads to.
#[derive(Debug)]
pub(crate) enum Backing {
    Addresses(Vec<IpAddr>),
    Alias(Name),
    Hosts(Hosts),
}

/// The endpoints of a headless service, by host name.
#[derive(Debug)]
pub(crate) struct Hosts {
    pub(crate) list: Vec<Host>,
    index: HashMap<String, usize>,
}

impl Hosts {
    /// Keeps the ready endpoints, this cluster's first, and groups them by host.
    ///
    /// The cut is made here and not when answering, so that A and AAAA always come from
    /// the same subset, as the specification demands.
    fn build(
        endpoints: Vec<HeadlessEndpoint>,
        key: &ServiceKey,
        local: &ClusterId,
    ) -> (Self, usize) {
        let mut ready: Vec<_> = endpoints.into_iter().filter(|endpoint| endpoint.ready).collect();
        ready.sort_by(|a, b| {
            let order = |e: &HeadlessEndpoint| (e.cluster != *local, e.cluster.clone());
            order(a).cmp(&order(b))
        });
        let mut left_out = ready.len().saturating_sub(ENDPOINTS_PER_SERVICE_MAX);
        let mut hosts = Self { list: Vec::new(), index: HashMap::new() };
        for endpoint in ready.into_iter().take(ENDPOINTS_PER_SERVICE_MAX) {
            if !hosts.add(&endpoint, key) {
                left_out += 1;
            }
        }
        (hosts, left_out)
    }

    fn add(&mut self, endpoint: &HeadlessEndpoint, key: &ServiceKey) -> bool {
        let host = match &endpoint.hostname {
            Some(hostname) => hostname.to_string(),
            None => endpoint.ip.to_string().replace(['.', ':'], "-"),
        };
        let path = match key.scope {
            ServiceScope::Cluster => host,
            ServiceScope::ClusterSet => format!("{host}.{}", endpoint.cluster),
        };
        if let Some(host) = self.index.get(&path).and_then(|at| self.list.get_mut(*at)) {
            if !host.addresses.contains(&endpoint.ip) {
                host.addresses.push(endpoint.ip);
            }
            return true;
        }
        let Some(name) = dotted(&format!("{path}.{}", key.host())) else { return false };
        self.index.insert(path, self.list.len());
        self.list.push(Host { name, addresses: vec![endpoint.ip] });
        true
    }

    /// Finds a host by what stands before the service's own name.
    pub(crate) fn find(&self, path: &str) -> Option<&Host> {
        self.list.get(*self.index.get(path)?)
    }
}

/// One endpoint of a headless service.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: Name,
    pub(crate) addresses: Vec<IpAddr>,
}

/// Addresses of this cluster's services lead back to names; the first name wins.
fn remember_reverse(reverse: &mut HashMap<IpAddr, Name>, name: &Name, backing: &Backing) {
    match backing {
        Backing::Addresses(ips) => {
            for ip in ips {
                reverse.entry(*ip).or_insert_with(|| name.clone());
            }
        }
        Backing::Alias(_) => {}
        Backing::Hosts(hosts) => {
            for host in &hosts.list {
                for ip in &host.addresses {
                    reverse.entry(*ip).or_insert_with(|| host.name.clone());
                }
            }
        }
    }
}

/// Makes a fully qualified name from dotted text whose labels are taken as they are.
fn dotted(text: &str) -> Option<Name> {
    let mut name = Name::from_labels(text.split('.').map(str::as_bytes)).ok()?;
    name.set_fqdn(true);
    // `len` does not count the terminating root label, which is part of the 255 bytes.
    (name.len() <= NAME_BYTES_MAX).then_some(name)
}

/// The distinct port numbers of a service, in order.
pub(crate) fn port_numbers<'a>(
    ports: impl IntoIterator<Item = &'a ServicePortRecord>,
) -> BTreeSet<u16> {
    ports.into_iter().map(|port| port.number).collect()
}

/// Seconds that an answer about a service may be cached: as CoreDNS, short enough for
/// failover.
pub const SERVICE_TTL_SECONDS: u32 = 5;
/// Seconds that "no such name" and "no such record" may be cached.
pub const NEGATIVE_TTL_SECONDS: u32 = 5;
/// Seconds that the schema version may be cached, as the specification shows it.
pub const VERSION_TTL_SECONDS: u32 = 28_800;
/// Seconds that the SOA, NS and HINFO records may be cached.
pub const APEX_TTL_SECONDS: u32 = 30;
/// Services in one zone value.
pub const SERVICES_MAX: usize = 100_000;
/// Ready endpoints of one headless service that are answered.
pub const ENDPOINTS_PER_SERVICE_MAX: usize = 1000;
/// Ports of one service that are answered.
pub const PORTS_PER_SERVICE_MAX: usize = 100;

const CLUSTER_SCHEMA_VERSION: &str = "1.1.0";
const CLUSTERSET_SCHEMA_VERSION: &str = "1.0.0";
const SOA_REFRESH_SECONDS: i32 = 7200;
const SOA_RETRY_SECONDS: i32 = 1800;
const SOA_EXPIRE_SECONDS: i32 = 86_400;
const NAME_BYTES_MAX: usize = 254;
