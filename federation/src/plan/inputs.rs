//! What is known when a plan is made.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use isthmus_config::{ClusterSetIps, Unmeshed};
pub use isthmus_model::name::CONTROLLER_ACCOUNT;
use isthmus_model::name::SYSTEM_NAMESPACE;
use isthmus_model::{
    ClusterId, Endpoints, Label, LinkState, Locality, Service, SpiffeId, TrustDomain,
};

use super::endpoint_id::EndpointSecret;
use crate::mcs::VipPool;
use crate::proto::{
    BundleDocument, Entry, EntryKey, ExportedMetadata, ExportedTraffic, Grants, ServiceName,
};

/// What is known.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// This cluster.
    pub own: &'a OwnCluster,
    /// This cluster's ServiceExports.
    pub exports: &'a BTreeMap<ServiceName, OwnExport>,
    /// The namespaces that exist here: a service is imported only into one of them.
    pub namespaces: &'a BTreeSet<Label>,
    /// What the ClusterProperties of this cluster say, by name.
    pub properties: &'a BTreeMap<String, String>,
    /// The linked clusters.
    pub links: &'a BTreeMap<ClusterId, LinkRules>,
    /// What linked clusters brought; one may be missing.
    pub peers: &'a BTreeMap<ClusterId, PeerView<'a>>,
    /// The bundle of this cluster's own trust domain.
    pub own_bundle: Option<&'a BundleDocument>,
    /// Accepted bundles of linked trust domains.
    pub bundles: &'a BTreeMap<TrustDomain, BundleDocument>,
    /// What endpoint ids are made with.
    pub secret: &'a EndpointSecret,
    /// ClusterSetIPs given so far.
    pub vips: &'a VipPool,
    /// Where ClusterSetIPs come from.
    pub clusterset_ips: &'a ClusterSetIps,
    /// Who serves imports to pods without a sidecar.
    pub unmeshed: Option<&'a Unmeshed>,
    /// The ports of the last plan for them.
    pub unmeshed_ports: &'a BTreeMap<(ServiceName, u16), u16>,
}

/// This cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCluster {
    /// Its id.
    pub cluster: ClusterId,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Where most of it runs.
    pub locality: Locality,
    /// Where the controller takes sessions of other controllers.
    pub federation_listen: SocketAddr,
    /// The release, for `isthmus status` of peers.
    pub version: String,
}

/// A ServiceExport of this cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnExport {
    /// It names something that cannot be exported.
    Invalid(ExportInvalid),
    /// It names a Service.
    Valid {
        /// `creationTimestamp` of the ServiceExport, seconds since 1970.
        created: i64,
        /// The Service, in the scope of this cluster.
        service: Box<Service>,
        /// Its endpoints.
        endpoints: Arc<Endpoints>,
        /// How its traffic is spread.
        traffic: ExportedTraffic,
        /// Labels and annotations for the import.
        metadata: ExportedMetadata,
    },
}

/// Why a ServiceExport is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportInvalid {
    /// There is no Service of this name.
    NoService,
    /// The name belongs to each cluster alone.
    Reserved,
    /// The Service is of type ExternalName.
    ServiceType,
}

/// A ClusterLink, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRules {
    /// The peer's trust domain.
    pub trust_domain: TrustDomain,
    /// `host:port` of its gateways.
    pub addresses: Vec<String>,
    /// Whether this side dials.
    pub dial: bool,
    /// What the peer may bring.
    pub import: Grants,
    /// What the peer may see.
    pub export: Grants,
    /// The bundle document that the link itself gives.
    pub jwks: Option<Arc<str>>,
}

/// What a peer brought.
#[derive(Debug, Clone, Copy)]
pub struct PeerView<'a> {
    /// Accepted entries.
    pub entries: &'a BTreeMap<EntryKey, Arc<Entry>>,
    /// Whether the peer's lease is valid.
    pub lease_valid: bool,
    /// What the link looks like.
    pub link: LinkState,
}

/// The identity of one of our own roles in a trust domain.
pub fn system_identity(trust_domain: &TrustDomain, account: &str) -> SpiffeId {
    let namespace = Label::new(SYSTEM_NAMESPACE).expect("the system namespace is a label");
    let account = Label::new(account).expect("accounts of our own roles are labels");
    SpiffeId::workload(trust_domain, &namespace, &account)
}

/// Service account of the gateway between clusters.
pub const EASTWEST_ACCOUNT: &str = "isthmus-eastwest";
