//! Validated objects, by kind.
//!
//! Every value here is valid by itself; whether what it refers to exists is decided in
//! `translate`, since that changes with other objects.
//!
//! The map of each kind is shared between one state and the next, and so is each object: a
//! state in which one object has changed copies no other object, and what has not changed
//! can be told by its pointer.

pub mod backend_tls;
pub mod core;
pub mod gateway;
pub mod mesh;
pub mod parameters;
pub mod route;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use isthmus_model::policy::PeerAuthentication;
use isthmus_model::{Label, ObjectName};

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
pub use self::mesh::{
    AccessRule, BundleSource, ClusterLink, ClusterProperty, NamePattern, ServiceExport,
};
pub use self::parameters::{
    GatewayMode, GatewayParameters, GatewayServiceType, ParametersRef, PodParameters,
    ServiceParameters, TrafficPolicy,
};
pub use self::route::{
    BackendRef, BackendTargetRef, HttpRoute, HttpRule, ParentRef, ParentTarget, RouteFilter,
    StreamRoute,
};
use crate::kind::{Kind, ObjectKey, ObjectRef};

/// The objects of one kind, each shared with the states that have it in the same form.
pub type Shared<K, V> = Arc<BTreeMap<K, Arc<V>>>;

/// Every valid object of a cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    /// BackendTLSPolicies.
    pub backend_tls_policies: Shared<ObjectKey, BackendTlsPolicy>,
    /// Links to other clusters, by name.
    pub cluster_links: Shared<ObjectName, ClusterLink>,
    /// ClusterProperties, by name.
    pub cluster_properties: Shared<ObjectName, ClusterProperty>,
    /// ConfigMaps.
    pub config_maps: Shared<ObjectKey, ConfigMap>,
    /// EndpointSlices.
    pub endpoint_slices: Shared<ObjectKey, EndpointSlice>,
    /// GatewayClasses, by name.
    pub gateway_classes: Shared<ObjectName, GatewayClass>,
    /// GatewayParameters.
    pub gateway_parameters: Shared<ObjectKey, GatewayParameters>,
    /// Gateways.
    pub gateways: Shared<ObjectKey, Gateway>,
    /// GRPCRoutes, in the form of HTTPRoutes.
    pub grpc_routes: Shared<ObjectKey, HttpRoute>,
    /// HTTPRoutes.
    pub http_routes: Shared<ObjectKey, HttpRoute>,
    /// ListenerSets.
    pub listener_sets: Shared<ObjectKey, ListenerSet>,
    /// Namespaces, by name.
    pub namespaces: Shared<ObjectName, Namespace>,
    /// PeerAuthentications.
    pub peer_authentications: Shared<ObjectKey, PeerAuthentication>,
    /// ReferenceGrants.
    pub reference_grants: Shared<ObjectKey, ReferenceGrant>,
    /// Secrets; only TLS secrets carry their values.
    pub secrets: Shared<ObjectKey, Secret>,
    /// ServiceExports; an export has the name of its Service.
    pub service_exports: Shared<ObjectKey, ServiceExport>,
    /// Services.
    pub services: Shared<ObjectKey, Service>,
    /// TCPRoutes.
    pub tcp_routes: Shared<ObjectKey, StreamRoute>,
    /// TLSRoutes.
    pub tls_routes: Shared<ObjectKey, StreamRoute>,
    /// UDPRoutes.
    pub udp_routes: Shared<ObjectKey, StreamRoute>,
    /// `metadata.generation` of the objects that have one.
    pub generations: Generations,
}

impl Objects {
    /// Puts in an object; says whether it was not there in this form.
    pub(crate) fn put(&mut self, object: Object) -> bool {
        match object {
            Object::BackendTlsPolicy(v) => put(&mut self.backend_tls_policies, v.key.clone(), v),
            Object::ClusterLink(v) => put(&mut self.cluster_links, v.name.clone(), v),
            Object::ClusterProperty(v) => put(&mut self.cluster_properties, v.name.clone(), v),
            Object::ConfigMap(v) => put(&mut self.config_maps, v.key.clone(), v),
            Object::EndpointSlice(v) => put(&mut self.endpoint_slices, v.key.clone(), v),
            Object::Gateway(v) => put(&mut self.gateways, v.key.clone(), v),
            Object::GatewayClass(v) => put(&mut self.gateway_classes, v.name.clone(), v),
            Object::GatewayParameters(v) => put(&mut self.gateway_parameters, v.key.clone(), v),
            Object::GrpcRoute(v) => put(&mut self.grpc_routes, v.key.clone(), v),
            Object::HttpRoute(v) => put(&mut self.http_routes, v.key.clone(), v),
            Object::ListenerSet(v) => put(&mut self.listener_sets, v.key.clone(), v),
            Object::Namespace(v) => put(&mut self.namespaces, v.name.clone(), v),
            Object::PeerAuthentication(key, v) => put(&mut self.peer_authentications, key, v),
            Object::ReferenceGrant(v) => put(&mut self.reference_grants, v.key.clone(), v),
            Object::Secret(v) => put(&mut self.secrets, v.key.clone(), v),
            Object::Service(v) => put(&mut self.services, v.key.clone(), v),
            Object::ServiceExport(v) => put(&mut self.service_exports, v.key.clone(), v),
            Object::TcpRoute(v) => put(&mut self.tcp_routes, v.key.clone(), v),
            Object::TlsRoute(v) => put(&mut self.tls_routes, v.key.clone(), v),
            Object::UdpRoute(v) => put(&mut self.udp_routes, v.key.clone(), v),
        }
    }

    /// Removes an object; says whether it was there.
    pub(crate) fn remove(&mut self, reference: &ObjectRef) -> bool {
        self.generations.set(reference, None);
        match reference.kind {
            Kind::BackendTlsPolicy => remove(&mut self.backend_tls_policies, reference),
            Kind::ClusterLink => remove_named(&mut self.cluster_links, reference),
            Kind::ClusterProperty => remove_named(&mut self.cluster_properties, reference),
            Kind::ConfigMap => remove(&mut self.config_maps, reference),
            Kind::EndpointSlice => remove(&mut self.endpoint_slices, reference),
            Kind::Gateway => remove(&mut self.gateways, reference),
            Kind::GatewayClass => remove_named(&mut self.gateway_classes, reference),
            Kind::GatewayParameters => remove(&mut self.gateway_parameters, reference),
            Kind::GrpcRoute => remove(&mut self.grpc_routes, reference),
            Kind::HttpRoute => remove(&mut self.http_routes, reference),
            Kind::ListenerSet => remove(&mut self.listener_sets, reference),
            Kind::Namespace => remove_named(&mut self.namespaces, reference),
            Kind::PeerAuthentication => remove(&mut self.peer_authentications, reference),
            Kind::ReferenceGrant => remove(&mut self.reference_grants, reference),
            Kind::Secret => remove(&mut self.secrets, reference),
            Kind::Service => remove(&mut self.services, reference),
            Kind::ServiceExport => remove(&mut self.service_exports, reference),
            Kind::TcpRoute => remove(&mut self.tcp_routes, reference),
            Kind::TlsRoute => remove(&mut self.tls_routes, reference),
            Kind::UdpRoute => remove(&mut self.udp_routes, reference),
        }
    }

    /// Whether another state has the same objects of a kind, by the pointer of their map
    /// alone; so it may say no of equal ones.
    pub(crate) fn is_same(&self, other: &Self, kind: Kind) -> bool {
        let (a, b) = (self, other);
        match kind {
            Kind::BackendTlsPolicy => Arc::ptr_eq(&a.backend_tls_policies, &b.backend_tls_policies),
            Kind::ClusterLink => Arc::ptr_eq(&a.cluster_links, &b.cluster_links),
            Kind::ClusterProperty => Arc::ptr_eq(&a.cluster_properties, &b.cluster_properties),
            Kind::ConfigMap => Arc::ptr_eq(&a.config_maps, &b.config_maps),
            Kind::EndpointSlice => Arc::ptr_eq(&a.endpoint_slices, &b.endpoint_slices),
            Kind::Gateway => Arc::ptr_eq(&a.gateways, &b.gateways),
            Kind::GatewayClass => Arc::ptr_eq(&a.gateway_classes, &b.gateway_classes),
            Kind::GatewayParameters => Arc::ptr_eq(&a.gateway_parameters, &b.gateway_parameters),
            Kind::GrpcRoute => Arc::ptr_eq(&a.grpc_routes, &b.grpc_routes),
            Kind::HttpRoute => Arc::ptr_eq(&a.http_routes, &b.http_routes),
            Kind::ListenerSet => Arc::ptr_eq(&a.listener_sets, &b.listener_sets),
            Kind::Namespace => Arc::ptr_eq(&a.namespaces, &b.namespaces),
            Kind::PeerAuthentication => {
                Arc::ptr_eq(&a.peer_authentications, &b.peer_authentications)
            }
            Kind::ReferenceGrant => Arc::ptr_eq(&a.reference_grants, &b.reference_grants),
            Kind::Secret => Arc::ptr_eq(&a.secrets, &b.secrets),
            Kind::Service => Arc::ptr_eq(&a.services, &b.services),
            Kind::ServiceExport => Arc::ptr_eq(&a.service_exports, &b.service_exports),
            Kind::TcpRoute => Arc::ptr_eq(&a.tcp_routes, &b.tcp_routes),
            Kind::TlsRoute => Arc::ptr_eq(&a.tls_routes, &b.tls_routes),
            Kind::UdpRoute => Arc::ptr_eq(&a.udp_routes, &b.udp_routes),
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
        self.cluster_properties.keys().for_each(|name| cluster(Kind::ClusterProperty, name));
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

    /// The namespaces that have an object of a kind that is read.
    pub fn namespaces_in_use(&self) -> BTreeSet<Label> {
        let mut found = BTreeSet::new();
        let mut insert = |key: &ObjectKey| {
            // Looked up first: a cluster has few namespaces and many objects.
            if !found.contains(&key.namespace) {
                found.insert(key.namespace.clone());
            }
        };
        self.backend_tls_policies.keys().for_each(&mut insert);
        self.config_maps.keys().for_each(&mut insert);
        self.endpoint_slices.keys().for_each(&mut insert);
        self.gateway_parameters.keys().for_each(&mut insert);
        self.gateways.keys().for_each(&mut insert);
        self.grpc_routes.keys().for_each(&mut insert);
        self.http_routes.keys().for_each(&mut insert);
        self.listener_sets.keys().for_each(&mut insert);
        self.peer_authentications.keys().for_each(&mut insert);
        self.reference_grants.keys().for_each(&mut insert);
        self.secrets.keys().for_each(&mut insert);
        self.service_exports.keys().for_each(&mut insert);
        self.services.keys().for_each(&mut insert);
        self.tcp_routes.keys().for_each(&mut insert);
        self.tls_routes.keys().for_each(&mut insert);
        self.udp_routes.keys().for_each(&mut insert);
        found
    }

    /// `metadata.generation` of an object; 0 when it has none.
    pub fn generation(&self, object: &ObjectRef) -> i64 {
        self.generations.get(object).unwrap_or_default()
    }

    /// The labels of a namespace, with the name that Kubernetes adds as a label.
    pub fn namespace_labels(&self, namespace: &str) -> BTreeMap<String, String> {
        let object = ObjectName::new(namespace).ok().and_then(|name| self.namespaces.get(&name));
        let mut labels = object.map(|object| object.labels.clone()).unwrap_or_default();
        labels.insert(NAMESPACE_NAME_LABEL.to_owned(), namespace.to_owned());
        labels
    }
}

/// `metadata.generation` of objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generations {
    /// By kind: an edit of a route need not copy what is known of Services.
    kinds: BTreeMap<Kind, Arc<BTreeMap<ObjectRef, i64>>>,
}

impl Generations {
    /// Whether another state has the same generations of a kind, by the pointer alone.
    pub(crate) fn is_same(&self, other: &Self, kind: Kind) -> bool {
        match (self.kinds.get(&kind), other.kinds.get(&kind)) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (own, other) => own.is_none() && other.is_none(),
        }
    }

    /// The generation of an object; `None` when it has none.
    pub fn get(&self, object: &ObjectRef) -> Option<i64> {
        self.kinds.get(&object.kind)?.get(object).copied()
    }

    /// Says whether that is news.
    pub(crate) fn set(&mut self, object: &ObjectRef, generation: Option<i64>) -> bool {
        if self.get(object) == generation {
            return false;
        }
        let kind = Arc::make_mut(self.kinds.entry(object.kind).or_default());
        match generation {
            Some(generation) => drop(kind.insert(object.clone(), generation)),
            None => drop(kind.remove(object)),
        }
        if kind.is_empty() {
            self.kinds.remove(&object.kind);
        }
        true
    }
}

/// One valid object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Object {
    BackendTlsPolicy(BackendTlsPolicy),
    ClusterLink(ClusterLink),
    ClusterProperty(ClusterProperty),
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

/// Says whether the object was not there in this form. A map that is shared with another
/// state is copied, once in a round, without its objects.
fn put<K: Clone + Ord, V: PartialEq>(objects: &mut Shared<K, V>, key: K, object: V) -> bool {
    if objects.get(&key).is_some_and(|known| **known == object) {
        return false;
    }
    Arc::make_mut(objects).insert(key, Arc::new(object));
    true
}

fn remove<V>(objects: &mut Shared<ObjectKey, V>, reference: &ObjectRef) -> bool {
    // The namespace of an object that names none is in its reference, too.
    let key = ObjectKey::new(&reference.namespace, &reference.name);
    key.is_ok_and(|key| objects.contains_key(&key) && Arc::make_mut(objects).remove(&key).is_some())
}

fn remove_named<V>(objects: &mut Shared<ObjectName, V>, reference: &ObjectRef) -> bool {
    let name = ObjectName::new(&reference.name);
    name.is_ok_and(|name| {
        objects.contains_key(&name) && Arc::make_mut(objects).remove(&name).is_some()
    })
}

const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";
