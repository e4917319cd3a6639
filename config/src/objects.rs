//! Validated objects, by kind.
//!
//! Every value here is valid by itself; whether what it refers to exists is decided in
//! `translate`, since that changes with other objects.

pub mod core;
pub mod gateway;
pub mod mesh;
pub mod route;

use std::collections::BTreeMap;

use isthmus_model::ObjectName;
use isthmus_model::policy::PeerAuthentication;

pub use self::core::{
    AddressType, ConfigMap, EndpointConditions, EndpointSlice, Namespace, Secret, Service,
    ServiceType, SessionAffinity, SliceEndpoint, SlicePort, TlsSecret,
};
pub use self::gateway::{
    AllowedNamespaces, Gateway, GatewayAddress, GatewayClass, GatewayListener, GrantFrom, GrantTo,
    Protocol, ReferenceGrant, RouteKind, SecretRef, Selector,
};
pub use self::mesh::{AccessRule, BundleSource, ClusterLink, NamePattern, ServiceExport};
pub use self::route::{
    BackendRef, BackendTargetRef, HttpRoute, HttpRule, ParentRef, ParentTarget, RouteFilter,
};
use crate::kind::{Kind, ObjectKey, ObjectRef};

/// Every valid object of a cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    /// Links to other clusters, by name.
    pub cluster_links: BTreeMap<ObjectName, ClusterLink>,
    /// ConfigMaps.
    pub config_maps: BTreeMap<ObjectKey, ConfigMap>,
    /// EndpointSlices.
    pub endpoint_slices: BTreeMap<ObjectKey, EndpointSlice>,
    /// GatewayClasses, by name.
    pub gateway_classes: BTreeMap<ObjectName, GatewayClass>,
    /// Gateways.
    pub gateways: BTreeMap<ObjectKey, Gateway>,
    /// HTTPRoutes.
    pub http_routes: BTreeMap<ObjectKey, HttpRoute>,
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
}

impl Objects {
    pub(crate) fn insert(&mut self, object: Object) {
        match object {
            Object::ClusterLink(v) => drop(self.cluster_links.insert(v.name.clone(), v)),
            Object::ConfigMap(v) => drop(self.config_maps.insert(v.key.clone(), v)),
            Object::EndpointSlice(v) => drop(self.endpoint_slices.insert(v.key.clone(), v)),
            Object::Gateway(v) => drop(self.gateways.insert(v.key.clone(), v)),
            Object::GatewayClass(v) => drop(self.gateway_classes.insert(v.name.clone(), v)),
            Object::HttpRoute(v) => drop(self.http_routes.insert(v.key.clone(), v)),
            Object::Namespace(v) => drop(self.namespaces.insert(v.name.clone(), v)),
            Object::PeerAuthentication(key, v) => drop(self.peer_authentications.insert(key, v)),
            Object::ReferenceGrant(v) => drop(self.reference_grants.insert(v.key.clone(), v)),
            Object::Secret(v) => drop(self.secrets.insert(v.key.clone(), v)),
            Object::Service(v) => drop(self.services.insert(v.key.clone(), v)),
            Object::ServiceExport(v) => drop(self.service_exports.insert(v.key.clone(), v)),
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
        self.config_maps.keys().for_each(|key| namespaced(Kind::ConfigMap, key));
        self.endpoint_slices.keys().for_each(|key| namespaced(Kind::EndpointSlice, key));
        self.gateways.keys().for_each(|key| namespaced(Kind::Gateway, key));
        self.http_routes.keys().for_each(|key| namespaced(Kind::HttpRoute, key));
        self.peer_authentications.keys().for_each(|key| namespaced(Kind::PeerAuthentication, key));
        self.reference_grants.keys().for_each(|key| namespaced(Kind::ReferenceGrant, key));
        self.secrets.keys().for_each(|key| namespaced(Kind::Secret, key));
        self.service_exports.keys().for_each(|key| namespaced(Kind::ServiceExport, key));
        self.services.keys().for_each(|key| namespaced(Kind::Service, key));
        all.sort();
        all
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
    ClusterLink(ClusterLink),
    ConfigMap(ConfigMap),
    EndpointSlice(EndpointSlice),
    Gateway(Gateway),
    GatewayClass(GatewayClass),
    HttpRoute(HttpRoute),
    Namespace(Namespace),
    PeerAuthentication(ObjectKey, PeerAuthentication),
    ReferenceGrant(ReferenceGrant),
    Secret(Secret),
    Service(Service),
    ServiceExport(ServiceExport),
}

const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";
