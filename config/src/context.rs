//! What translation knows besides the objects.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use isthmus_model::{ClusterId, Label, Locality, Service, ServiceKey, SpiffeId, TrustDomain};

use crate::kind::ObjectKey;

/// What translation knows besides the objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// This cluster.
    pub cluster: ClusterId,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Where endpoints run whose slice does not say it.
    pub locality: Locality,
    /// The workloads with a sidecar.
    pub workloads: Vec<Workload>,
    /// The ServiceImports that exist now, as federation gives them.
    pub imports: BTreeMap<ServiceKey, Service>,
    /// How this cluster's ingress binds ports.
    pub ingress: IngressContext,
    /// Where the addresses of ServiceImports come from.
    pub clusterset_ips: ClusterSetIps,
    /// Who serves ServiceImports to pods without a sidecar; `None` is nobody.
    pub unmeshed: Option<Unmeshed>,
}

impl Context {
    /// A context without workloads and imports.
    pub fn new(cluster: ClusterId, trust_domain: TrustDomain) -> Self {
        Self {
            cluster,
            trust_domain,
            locality: Locality::default(),
            workloads: Vec::new(),
            imports: BTreeMap::new(),
            ingress: IngressContext::default(),
            clusterset_ips: ClusterSetIps::Pool,
            unmeshed: None,
        }
    }

    /// The workload that serves at an address and port.
    pub fn workload_at(&self, address: SocketAddr) -> Option<&Workload> {
        let at = |workload: &&Workload| workload.address == address.ip();
        let named = |workload: &&Workload| workload.ports.contains(&address.port());
        let every = |workload: &&Workload| workload.ports.is_empty();
        let mut here = self.workloads.iter().filter(at);
        // One that names the port is more specific than one that takes every port.
        here.clone().find(named).or_else(|| here.find(every))
    }
}

/// Where the addresses of ServiceImports come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ClusterSetIps {
    /// From a range of our own, which only our own sidecars and DNS know.
    #[default]
    Pool,
    /// From outside, by service: in Kubernetes, the ClusterIPs of the derived Services. A
    /// service that is absent has no address yet.
    Given(BTreeMap<ServiceKey, Vec<IpAddr>>),
}

/// Who serves ServiceImports to pods without a sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmeshed {
    /// The gateway whose processes listen.
    pub server: SpiffeId,
    /// The ports it may listen at, one for each port of each import.
    pub ports: RangeInclusive<u16>,
    /// Ports that were given before, by service and its port; they are kept.
    pub given: BTreeMap<(ServiceKey, u16), u16>,
}

/// How this cluster's ingress binds ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IngressContext {
    /// The port to bind, by the port of a listener; a port that is absent is bound as it
    /// is.
    pub port_map: BTreeMap<u16, u16>,
    /// The workload whose processes serve a Gateway; a Gateway that is absent is served by
    /// every ingress of the cluster. Gateways of different workloads never clash, and
    /// their processes bind every address of their own.
    pub served_by: BTreeMap<ObjectKey, SpiffeId>,
}

/// One workload with a sidecar: a Pod in Kubernetes, an entry of the settings elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its namespace.
    pub namespace: Label,
    /// Its name.
    pub name: Label,
    /// Its service account, which is its identity.
    pub service_account: Label,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its address.
    pub address: IpAddr,
    /// Its ports; empty means every port of the address.
    pub ports: Vec<u16>,
    /// Where its sidecar takes mTLS.
    pub mesh: SocketAddr,
    /// Where it runs.
    pub locality: Locality,
}

impl Workload {
    /// Its identity.
    pub fn identity(&self, trust_domain: &TrustDomain) -> SpiffeId {
        SpiffeId::workload(trust_domain, &self.namespace, &self.service_account)
    }
}
