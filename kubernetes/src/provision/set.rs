//! A set: the processes that serve one Gateway, or all that share parameters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use isthmus_config::objects::{GatewayAddress, GatewayMode, GatewayParameters, Protocol};
use isthmus_config::{Kind, ObjectKey, ObjectRef, Objects, ServedGateway, served_gateways};
use isthmus_model::Label;
use serde_json::{Map, Value, json};

use crate::provision::name::{label_value, object_name};

/// The processes that serve one Gateway, or all that share parameters.
pub(super) struct Set<'o> {
    /// The namespace of everything that is made.
    pub(super) namespace: Label,
    /// The name of everything that is made; the service account's is the identity.
    pub(super) name: Label,
    /// The Gateway or GatewayParameters.
    pub(super) owner: ObjectRef,
    /// What the processes are to be like.
    pub(super) parameters: GatewayParameters,
    /// The Gateways, in order of their names.
    pub(super) gateways: Vec<ServedGateway<'o>>,
}

/// The transport of a port, as a Service says it.
pub(super) type Protocols = &'static str;

/// Labels or annotations.
pub(super) type Texts = BTreeMap<String, String>;

/// The sets of the cluster, in order of namespace and name.
pub(super) fn sets(objects: &Objects) -> Vec<Set<'_>> {
    let mut sets: BTreeMap<(Label, Label), Set<'_>> = BTreeMap::new();
    for served in served_gateways(objects) {
        let key = &served.gateway.key;
        let shared = served.parameters.filter(|found| found.mode == GatewayMode::Shared);
        let (kind, owner, suffix) = match shared {
            Some(parameters) => (Kind::GatewayParameters, &parameters.key, SHARED_SUFFIX),
            None => (Kind::Gateway, key, SUFFIX),
        };
        // The suffixes are ends of labels, so there always is a name.
        let Ok(name) = object_name(owner.name.as_str(), suffix) else { continue };
        let id = (owner.namespace.clone(), name.clone());
        let set = sets.entry(id).or_insert_with(|| Set {
            namespace: owner.namespace.clone(),
            name,
            owner: ObjectRef::namespaced(kind, owner),
            parameters: parameters(served.parameters, key),
            gateways: Vec::new(),
        });
        set.gateways.push(served);
    }
    sets.into_values().collect()
}

impl<'o> Set<'o> {
    /// The set without Gateways that are being deleted, with the uid of its owner; `None`
    /// when nothing is left of it.
    pub(super) fn living(mut self, uids: &BTreeMap<ObjectRef, String>) -> Option<(Self, &String)> {
        let uid = uids.get(&self.owner)?;
        let lives = |key: &ObjectKey| uids.contains_key(&ObjectRef::namespaced(Kind::Gateway, key));
        self.gateways.retain(|served| lives(&served.gateway.key));
        (!self.gateways.is_empty()).then_some((self, uid))
    }

    /// The ports of all listeners, with those of one number and transport as one. Ports
    /// of the pods themselves are left out: [`Set::reserved_port`] says so.
    pub(super) fn ports(&self) -> BTreeSet<(u16, Protocols)> {
        let listeners = self.gateways.iter().flat_map(|served| &served.listeners);
        let ports =
            listeners.filter_map(|listener| Some((listener.port, transport(&listener.protocol)?)));
        ports.filter(|(port, transport)| !is_reserved(*port, transport)).collect()
    }

    /// A port that a listener asks for and the pods need themselves.
    pub(super) fn reserved_port(&self) -> Option<u16> {
        let mut listeners = self.gateways.iter().flat_map(|served| &served.listeners);
        let reserved = listeners.find(|listener| {
            transport(&listener.protocol).is_some_and(|name| is_reserved(listener.port, name))
        });
        reserved.map(|listener| listener.port)
    }

    /// The addresses that the Gateways ask for, in order and each once.
    pub(super) fn requested(&self) -> Vec<IpAddr> {
        let mut found = Vec::new();
        for address in self.gateways.iter().flat_map(|served| &served.gateway.addresses) {
            match address {
                GatewayAddress::Ip(address) if !found.contains(address) => found.push(*address),
                GatewayAddress::Ip(_) | GatewayAddress::Unsupported(_) => {}
            }
        }
        found
    }

    /// The labels that find the pods, and no others.
    pub(super) fn selector(&self) -> Texts {
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        [label(NAME_LABEL, APPLICATION), label(INSTANCE_LABEL, self.name.as_str())].into()
    }

    /// The labels of everything that is made.
    ///
    /// Spec: Gateway API `gateway.networking.k8s.io/gateway-name` and `gateway-class-name`
    /// (GEP-1762). A shared set is of no single Gateway.
    pub(super) fn labels(&self) -> Texts {
        let mut labels = self.selector();
        let mut put = |key: &str, name: &str| labels.insert(key.to_owned(), label_value(name));
        match (self.parameters.mode, self.gateways.first()) {
            (GatewayMode::Dedicated, Some(served)) => {
                put(GATEWAY_LABEL, served.gateway.key.name.as_str());
                put(CLASS_LABEL, served.gateway.class.as_str());
            }
            (GatewayMode::Dedicated, None) | (GatewayMode::Shared, _) => {
                put(PARAMETERS_LABEL, &self.owner.name);
            }
        }
        labels
    }

    /// Metadata of an object of the set with the texts of the parameters, those of the
    /// Gateway over them, and ours over both.
    ///
    /// Spec: `Gateway.spec.infrastructure`: labels and annotations of what is made for the
    /// Gateway. Those of one Gateway do not go to what several share.
    pub(super) fn metadata(&self, uid: &str, labels: &Texts, annotations: &Texts) -> Value {
        let (labels, annotations) = self.texts(labels, annotations);
        let mut metadata = self.plain_metadata(uid);
        metadata["labels"] = json!(labels);
        if !annotations.is_empty() {
            metadata["annotations"] = json!(annotations);
        }
        metadata
    }

    /// Labels and annotations as [`Set::metadata`] merges them.
    pub(super) fn texts(&self, labels: &Texts, annotations: &Texts) -> (Texts, Texts) {
        let (mut labels, mut annotations) = (labels.clone(), annotations.clone());
        if let (GatewayMode::Dedicated, Some(served)) =
            (self.parameters.mode, self.gateways.first())
        {
            let asked = &served.gateway.infrastructure;
            labels.extend(asked.labels.clone());
            annotations.extend(asked.annotations.clone());
        }
        labels.extend(self.labels());
        (labels, annotations)
    }

    /// Metadata with nothing but our own labels.
    pub(super) fn plain_metadata(&self, uid: &str) -> Value {
        let mut owner = Map::new();
        owner.insert("apiVersion".to_owned(), json!(api_version(self.owner.kind)));
        owner.insert("kind".to_owned(), json!(self.owner.kind.label()));
        owner.insert("name".to_owned(), json!(self.owner.name));
        owner.insert("uid".to_owned(), json!(uid));
        owner.insert("controller".to_owned(), json!(true));
        json!({
            "name": self.name.as_str(),
            "namespace": self.namespace.as_str(),
            "labels": self.labels(),
            "ownerReferences": [owner],
        })
    }
}

fn parameters(given: Option<&GatewayParameters>, key: &ObjectKey) -> GatewayParameters {
    given.cloned().unwrap_or_else(|| GatewayParameters::with_defaults(key.clone()))
}

fn api_version(kind: Kind) -> String {
    let version = kind.versions().first().copied().unwrap_or_default();
    format!("{}/{version}", kind.group())
}

fn transport(protocol: &Protocol) -> Option<Protocols> {
    match protocol {
        Protocol::Http
        | Protocol::Https
        | Protocol::Tcp
        | Protocol::TlsPassthrough
        | Protocol::TlsTerminate => Some("TCP"),
        Protocol::Udp => Some("UDP"),
        Protocol::Unsupported(_) => None,
    }
}

fn is_reserved(port: u16, transport: &str) -> bool {
    transport == "TCP" && RESERVED_PORTS.contains(&port)
}

/// Ends of the names of what is made; that of a shared set is another, so that a Gateway
/// and parameters of one name do not meet.
const SUFFIX: &str = "-isthmus";
const SHARED_SUFFIX: &str = "-isthmus-shared";
const APPLICATION: &str = "isthmus-gateway";
/// Spec: Kubernetes "Recommended Labels".
const NAME_LABEL: &str = "app.kubernetes.io/name";
const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
const GATEWAY_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
const CLASS_LABEL: &str = "gateway.networking.k8s.io/gateway-class-name";
const PARAMETERS_LABEL: &str = "isthmus.io/gateway-parameters";
/// What the pods bind themselves.
const RESERVED_PORTS: [u16; 3] = [ADMIN_PORT, METRICS_PORT, READY_PORT];
/// Where `isthmus status` asks, on the loopback of the pod.
pub(super) const ADMIN_PORT: u16 = 15000;
/// Where Prometheus scrapes.
pub(super) const METRICS_PORT: u16 = 15020;
/// Where the kubelet probes.
pub(super) const READY_PORT: u16 = 15021;
