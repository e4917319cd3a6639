//! Validated objects, by kind.
//!
//! Every value here is valid by itself; whether what it refers to exists is decided in
//! `translate`, since that changes with other objects.

pub mod backend_tls;
pub mod core;
pub mod gateway;
pub mod mesh;
pub mod parameters;
pub mod route;

use std::collections::BTreeMap;

use isthmus_model::ObjectName;
use isthmus_model::policy::PeerAuthentication;

pub use self::backend_tls::{BackendTlsPolicy, BackendTlsRoots, PolicyTarget, PolicyTargetRef};
pub use self::core::{
    AddressType, ConfigMap, EndpointConditions, EndpointSlice, IpFamily, IpFamilyPolicy, Namespace,
    Secret, Service, ServiceType, SessionAffinity, SliceEndpoint, SlicePort, TlsSecret,
};
pub use self::gateway::{
    AllowedNamespaces, CaRef, FrontendTls, FrontendValidation, Gateway, GatewayAddress,
    GatewayClass, GatewayListener, GrantFrom, GrantTo, Infrastructure, ListenerSet, Protocol,
    ReferenceGrant, RouteKind, SecretRef, Selector,
};
pub use self::mesh::{AccessRule, BundleSource, ClusterLink, NamePattern, ServiceExport};
pub use self::parameters::{
    GatewayMode, GatewayParameters, GatewayServiceType, ParametersRef, PodParameters,
    ServiceParameters, TrafficPolicy,
};
pub use self::route::{
    BackendRef, BackendTargetRef, HttpRoute, HttpRule, ParentRef, ParentTarget, RouteFilter,
    StreamRoute,
};
use crate::kind::{Kind, ObjectKey, ObjectRef};

/// Every valid object of a cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    /// BackendTLSPolicies.
    pub backend_tls_policies: BTreeMap<ObjectKey, BackendTlsPolicy>,
    /// Links to other clusters, by name.
    pub cluster_links: BTreeMap<ObjectName, ClusterLink>,
    /// ConfigMaps.
    pub config_maps: BTreeMap<ObjectKey, ConfigMap>,
    /// EndpointSlices.
    pub endpoint_slices: BTreeMap<ObjectKey, EndpointSlice>,
    /// GatewayClasses, by name.
    pub gateway_classes: BTreeMap<ObjectName, GatewayClass>,
    /// GatewayParameters.
    pub gateway_parameters: BTreeMap<ObjectKey, GatewayParameters>,
    /// Gateways.
    pub gateways: BTreeMap<ObjectKey, Gateway>,
    /// GRPCRoutes, in the form of HTTPRoutes.
    pub grpc_routes: BTreeMap<ObjectKey, HttpRoute>,
    /// HTTPRoutes.
    pub http_routes: BTreeMap<ObjectKey, HttpRoute>,
    /// ListenerSets.
    pub listener_sets: BTreeMap<ObjectKey, ListenerSet>,
    /// Namespaces, by name.
    pub namespaces: BTreeMap<ObjectName, Namespace>,
    /// PeerAuthentications.
    pub peer_authentications: BTreeMap<ObjectKey, PeerAuthentication>,
    /// ReferenceGrants.
    pub reference_grants: BTreeMap<ObjectKey, ReferenceGrant>,
    /// Secrets; only TLS secrets carry their values.
    pub secrets: BTreeMap<ObjectKey, Secret>,
    /// ServiceExports; an export has the name of its Service.
    pub service_exports: BTreeMap<ObjectKey, ServiceExport>,
    /// Services.
    pub services: BTreeMap<ObjectKey, Service>,
    /// TCPRoutes.
    pub tcp_routes: BTreeMap<ObjectKey, StreamRoute>,
    /// TLSRoutes.
    pub tls_routes: BTreeMap<ObjectKey, StreamRoute>,
    /// UDPRoutes.
    pub udp_routes: BTreeMap<ObjectKey, StreamRoute>,
    /// `metadata.generation` of the objects that have one.
    pub generations: BTreeMap<ObjectRef, i64>,
}

impl Objects {
    pub(crate) fn insert(&mut self, object: Object) {
        match object {
            Object::BackendTlsPolicy(v) => {
                drop(self.backend_tls_policies.insert(v.key.clone(), v));
            }
            Object::ClusterLink(v) => drop(self.cluster_links.insert(v.name.clone(), v)),
            Object::ConfigMap(v) => drop(self.config_maps.insert(v.key.clone(), v)),
            Object::EndpointSlice(v) => drop(self.endpoint_slices.insert(v.key.clone(), v)),
            Object::Gateway(v) => drop(self.gateways.insert(v.key.clone(), v)),
            Object::GatewayClass(v) => drop(self.gateway_classes.insert(v.name.clone(), v)),
            Object::GatewayParameters(v) => {
                drop(self.gateway_parameters.insert(v.key.clone(), v));
            }
            Object::GrpcRoute(v) => drop(self.grpc_routes.insert(v.key.clone(), v)),
            Object::HttpRoute(v) => drop(self.http_routes.insert(v.key.clone(), v)),
            Object::ListenerSet(v) => drop(self.listener_sets.insert(v.key.clone(), v)),
            Object::Namespace(v) => drop(self.namespaces.insert(v.name.clone(), v)),
            Object::PeerAuthentication(key, v) => drop(self.peer_authentications.insert(key, v)),
            Object::ReferenceGrant(v) => drop(self.reference_grants.insert(v.key.clone(), v)),
            Object::Secret(v) => drop(self.secrets.insert(v.key.clone(), v)),
            Object::Service(v) => drop(self.services.insert(v.key.clone(), v)),
            Object::ServiceExport(v) => drop(self.service_exports.insert(v.key.clone(), v)),
            Object::TcpRoute(v) => drop(self.tcp_routes.insert(v.key.clone(), v)),
            Object::TlsRoute(v) => drop(self.tls_routes.insert(v.key.clone(), v)),
            Object::UdpRoute(v) => drop(self.udp_routes.insert(v.key.clone(), v)),
        }
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.references().len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of every object, ordered by kind, namespace and name.
    pub fn references(&self) -> Vec<ObjectRef> {
        let mut all = Vec::new();
        let mut cluster = |kind, name: &ObjectName| {
            all.push(ObjectRef::cluster(kind, name.as_str()));
        };
        self.cluster_links.keys().for_each(|name| cluster(Kind::ClusterLink, name));
        self.gateway_classes.keys().for_each(|name| cluster(Kind::GatewayClass, name));
        self.namespaces.keys().for_each(|name| cluster(Kind::Namespace, name));
        let mut namespaced = |kind, key: &ObjectKey| all.push(ObjectRef::namespaced(kind, key));
        self.backend_tls_policies.keys().for_each(|key| namespaced(Kind::BackendTlsPolicy, key));
        self.config_maps.keys().for_each(|key| namespaced(Kind::ConfigMap, key));
        self.endpoint_slices.keys().for_each(|key| namespaced(Kind::EndpointSlice, key));
        self.gateways.keys().for_each(|key| namespaced(Kind::Gateway, key));
        let parameters = self.gateway_parameters.keys();
        parameters.for_each(|key| namespaced(Kind::GatewayParameters, key));
        self.grpc_routes.keys().for_each(|key| namespaced(Kind::GrpcRoute, key));
        self.http_routes.keys().for_each(|key| namespaced(Kind::HttpRoute, key));
        self.listener_sets.keys().for_each(|key| namespaced(Kind::ListenerSet, key));
        self.peer_authentications.keys().for_each(|key| namespaced(Kind::PeerAuthentication, key));
        self.reference_grants.keys().for_each(|key| namespaced(Kind::ReferenceGrant, key));
        self.secrets.keys().for_each(|key| namespaced(Kind::Secret, key));
        self.service_exports.keys().for_each(|key| namespaced(Kind::ServiceExport, key));
        self.services.keys().for_each(|key| namespaced(Kind::Service, key));
        self.tcp_routes.keys().for_each(|key| namespaced(Kind::TcpRoute, key));
        self.tls_routes.keys().for_each(|key| namespaced(Kind::TlsRoute, key));
        self.udp_routes.keys().for_each(|key| namespaced(Kind::UdpRoute, key));
        all.sort();
        all
    }

    /// `metadata.generation` of an object; 0 when it has none.
    pub fn generation(&self, object: &ObjectRef) -> i64 {
        self.generations.get(object).copied().unwrap_or_default()
    }

    /// The labels of a namespace, with the name that Kubernetes adds as a label.
    pub fn namespace_labels(&self, namespace: &str) -> BTreeMap<String, String> {
        let object = ObjectName::new(namespace).ok().and_then(|name| self.namespaces.get(&name));
        let mut labels = object.map(|object| object.labels.clone()).unwrap_or_default();
        labels.insert(NAMESPACE_NAME_LABEL.to_owned(), namespace.to_owned());
        labels
    }
}

/// One valid object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Object {
    BackendTlsPolicy(BackendTlsPolicy),
    ClusterLink(ClusterLink),
    ConfigMap(ConfigMap),
    EndpointSlice(EndpointSlice),
    Gateway(Gateway),
    GatewayClass(GatewayClass),
    GatewayParameters(GatewayParameters),
    GrpcRoute(HttpRoute),
    HttpRoute(HttpRoute),
    ListenerSet(ListenerSet),
    Namespace(Namespace),
    PeerAuthentication(ObjectKey, PeerAuthentication),
    ReferenceGrant(ReferenceGrant),
    Secret(Secret),
    Service(Service),
    ServiceExport(ServiceExport),
    TcpRoute(StreamRoute),
    TlsRoute(StreamRoute),
    UdpRoute(StreamRoute),
}

const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";
