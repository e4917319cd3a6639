//! Objects reduced to what is read of them.
//!
//! A large cluster's objects are mostly managed fields, annotations of other tools and
//! pod specs. What stays is what translation, identity, locality and our own status
//! writer read. Two versions of an object that are equal after trimming are one, so the
//! heartbeats of others cause no work.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use isthmus_config::Kind;
use serde_json::{Map, Value};

use crate::source::kinds::Watched;
use crate::status::release;

/// What is kept of an object.
#[derive(Clone, PartialEq)]
pub(crate) enum Trimmed {
    Document(Arc<Value>),
    Node(NodeState),
    /// Nothing of the object is used.
    Nothing,
    Pod(PodState),
    /// The release of the Gateway API that a definition says it is of.
    Release(String),
}

/// A pod that has not ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodState {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations of our group.
    pub annotations: BTreeMap<String, String>,
    /// Its service account.
    pub service_account: String,
    /// Its node; empty until it is scheduled.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it shares its node's network, and so its address with other pods.
    pub host_network: bool,
    /// Whether its Ready condition is true.
    pub is_ready: bool,
    /// Whether it is being deleted.
    pub is_terminating: bool,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeState {
    /// Its name.
    pub name: String,
    /// The label `topology.kubernetes.io/region`; empty without it.
    pub region: String,
    /// The label `topology.kubernetes.io/zone`; empty without it.
    pub zone: String,
    /// Where clients outside of the cluster reach it: its addresses of type ExternalIP, or
    /// those of type InternalIP if it has none, in the order in which the node has them.
    pub addresses: Vec<IpAddr>,
    /// Whether its Ready condition is true.
    pub is_ready: bool,
}

/// Reduces an object, as the server gave it, of a kind.
pub(crate) fn trim(watched: Watched, mut object: Value) -> Trimmed {
    match watched {
        // Plans of writes compare whole objects; the resource version would make every
        // status of another controller a change even where nothing else is.
        Watched::Managed(_) => {
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
                metadata.remove(VERSION);
            }
            Trimmed::Document(Arc::new(object))
        }
        Watched::Pod => Trimmed::Pod(pod(&object)),
        Watched::Node => Trimmed::Node(node(&object)),
        Watched::Definition => {
            let annotations = object.pointer("/metadata/annotations");
            let found = annotations.and_then(|all| all.get(release::ANNOTATION)?.as_str());
            found.map_or(Trimmed::Nothing, |found| Trimmed::Release(found.to_owned()))
        }
        Watched::Config(kind) => {
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                trim_metadata(kind, metadata);
            }
            let Some(fields) = object.as_object_mut() else { return Trimmed::Nothing };
            if trim_fields(kind, fields) {
                Trimmed::Document(Arc::new(object))
            } else {
                Trimmed::Nothing
            }
        }
    }
}

fn trim_metadata(kind: Kind, metadata: &mut Map<String, Value>) {
    for unused in METADATA_UNUSED {
        metadata.remove(*unused);
    }
    if !VERSIONED.contains(&kind) {
        metadata.remove(VERSION);
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
}

/// Trims what is particular to a kind; says whether anything of use is left.
fn trim_fields(kind: Kind, fields: &mut Map<String, Value>) -> bool {
    // Comparisons and not a match: a new kind is kept as it is without a line here. The
    // status of what we write is kept, too: the plan of writes compares with it.
    if kind == Kind::ConfigMap {
        fields.remove("binaryData");
        let Some(data) = fields.get_mut("data").and_then(Value::as_object_mut) else {
            return false;
        };
        data.retain(|key, value| is_bundle(key, value.as_str().unwrap_or_default()));
        return !data.is_empty();
    }
    if kind == Kind::Secret {
        if fields.get("type").and_then(Value::as_str) != Some(TLS_SECRET) {
            return false;
        }
        if let Some(data) = fields.get_mut("data").and_then(Value::as_object_mut) {
            data.retain(|key, _| SECRET_KEYS.contains(&key.as_str()));
        }
    } else if kind == Kind::Namespace {
        fields.remove("spec");
        fields.remove("status");
    } else if kind == Kind::Service
        && let Some(status) = fields.get_mut("status").and_then(Value::as_object_mut)
    {
        // Addresses of load balancers are read; conditions of their controllers not.
        status.retain(|key, _| key == "loadBalancer");
    }
    true
}

/// Whether an entry of a ConfigMap can be a trust bundle: by its key, or by its content
/// where a reference names another key.
fn is_bundle(key: &str, value: &str) -> bool {
    CONFIG_MAP_KEYS.contains(&key)
        || value.contains("-----BEGIN CERTIFICATE-----")
        || (value.trim_start().starts_with('{') && value.contains("\"keys\""))
}

fn pod(object: &Value) -> PodState {
    let text = |pointer: &str| text(object, pointer);
    let mut annotations = text_map(object, "/metadata/annotations");
    annotations.retain(|key, _| key.contains(OWN_GROUP));
    let list =
        |pointer: &str| object.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let addresses = list("/status/podIPs")
        .filter_map(|entry| entry.get("ip").and_then(Value::as_str)?.parse().ok())
        .collect();
    PodState {
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name"),
        uid: text("/metadata/uid"),
        labels: text_map(object, "/metadata/labels"),
        annotations,
        service_account: text("/spec/serviceAccountName"),
        node: text("/spec/nodeName"),
        addresses,
        host_network: object.pointer("/spec/hostNetwork").and_then(Value::as_bool) == Some(true),
        is_ready: is_ready(object),
        is_terminating: object.pointer("/metadata/deletionTimestamp").is_some(),
    }
}

fn node(object: &Value) -> NodeState {
    let mut labels = text_map(object, "/metadata/labels");
    let listed = object.pointer("/status/addresses").and_then(Value::as_array);
    let listed = listed.map(Vec::as_slice).unwrap_or_default();
    let of_type = |kind: &str| -> Vec<IpAddr> {
        let entries = listed.iter().filter(|entry| text(entry, "/type") == kind);
        entries.filter_map(|entry| text(entry, "/address").parse().ok()).collect()
    };
    let external = of_type("ExternalIP");
    NodeState {
        name: text(object, "/metadata/name"),
        region: labels.remove("topology.kubernetes.io/region").unwrap_or_default(),
        zone: labels.remove("topology.kubernetes.io/zone").unwrap_or_default(),
        addresses: if external.is_empty() { of_type("InternalIP") } else { external },
        is_ready: is_ready(object),
    }
}

/// Whether a pod or node says that it is ready.
fn is_ready(object: &Value) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        text(condition, "/type") == "Ready" && text(condition, "/status") == "True"
    })
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn text_map(object: &Value, pointer: &str) -> BTreeMap<String, String> {
    let map = object.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// Fields of the metadata that nothing reads.
const METADATA_UNUSED: &[&str] = &["finalizers", "generateName", "managedFields", "selfLink"];
/// The field that would make every heartbeat of somebody else a change.
const VERSION: &str = "resourceVersion";
/// The kinds that keep their version, because a status of theirs is planned on it: they
/// have a list that controllers share and that the server does not merge.
///
/// Spec: Gateway API `RouteStatus.parents` and `PolicyStatus.ancestors`, which are
/// `x-kubernetes-list-type: atomic`.
const VERSIONED: &[Kind] = &[
    Kind::BackendTlsPolicy,
    Kind::GrpcRoute,
    Kind::HttpRoute,
    Kind::TcpRoute,
    Kind::TlsRoute,
    Kind::UdpRoute,
];
/// What `kubectl apply` leaves: the whole object a second time.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const TLS_SECRET: &str = "kubernetes.io/tls";
/// Spec: Kubernetes "TLS Secrets", and the CA that some tools put next to it.
const SECRET_KEYS: &[&str] = &["ca.crt", "tls.crt", "tls.key"];
/// Spec: Gateway API `BackendTLSPolicy` and client validation (`ca.crt`); the default
/// key of a ClusterLink's bundle.
const CONFIG_MAP_KEYS: &[&str] = &["bundle.json", "ca.crt"];
/// In the keys of our annotations.
const OWN_GROUP: &str = "isthmus.io/";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(kind: Kind, object: Value) -> Option<Value> {
        match trim(Watched::Config(kind), object) {
            Trimmed::Document(value) => Some((*value).clone()),
            Trimmed::Nothing => None,
            Trimmed::Node(_) | Trimmed::Pod(_) | Trimmed::Release(_) => panic!("not a document"),
        }
    }

    #[test]
    fn what_others_write_into_the_metadata_is_left_out() {
        let object = json!({"metadata": {
            "name": "a", "uid": "u", "generation": 3, "resourceVersion": "7",
            "managedFields": [{}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
        }});
        let left = json!({"metadata": {"name": "a", "uid": "u", "generation": 3}});
        assert_eq!(document(Kind::Gateway, object), Some(left));
    }

    #[test]
    fn kinds_with_a_status_list_that_others_share_keep_their_version() {
        let object = json!({"metadata": {"name": "a", "resourceVersion": "7"}});
        for kind in Kind::ALL {
            let Some(left) = document(kind, object.clone()) else { continue };
            let is_shared = kind.label().ends_with("Route") || kind.label().ends_with("Policy");
            assert_eq!(left["metadata"].get("resourceVersion").is_some(), is_shared, "{kind:?}");
        }
    }

    #[test]
    fn only_tls_secrets_and_their_keys_are_kept() {
        let secret =
            |kind| json!({"type": kind, "data": {"tls.crt": "a", "tls.key": "b", "x": "c"}});
        let kept = document(Kind::Secret, secret("kubernetes.io/tls")).unwrap();
        assert_eq!(kept["data"], json!({"tls.crt": "a", "tls.key": "b"}));
        assert_eq!(document(Kind::Secret, secret("Opaque")), None);
    }

    #[test]
    fn a_config_map_without_a_bundle_is_not_kept() {
        let map = |data| json!({"data": data});
        assert_eq!(document(Kind::ConfigMap, map(json!({"settings": "a: 1"}))), None);
        let data = json!({"ca.crt": "x", "other": "-----BEGIN CERTIFICATE-----", "big": "y"});
        let kept = document(Kind::ConfigMap, map(data)).unwrap();
        assert_eq!(kept["data"].as_object().unwrap().len(), 2);
    }

    #[test]
    fn a_pod_is_its_identity_its_addresses_and_its_node() {
        let object = json!({
            "metadata": {"namespace": "shop", "name": "web-1", "uid": "u", "labels": {"app": "web"},
                "annotations": {"isthmus.io/inject": "true", "other": "x"}},
            "spec": {"serviceAccountName": "web", "nodeName": "n1", "containers": [{}]},
            "status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                "conditions": [{"type": "Ready", "status": "True"}]},
        });
        let Trimmed::Pod(pod) = trim(Watched::Pod, object) else { panic!() };
        assert_eq!((pod.service_account.as_str(), pod.node.as_str()), ("web", "n1"));
        assert_eq!(pod.addresses.len(), 2);
        assert_eq!(pod.annotations.len(), 1);
        assert!(pod.is_ready && !pod.is_terminating);
    }

    #[test]
    fn a_node_is_where_clients_outside_reach_it() {
        let node = |addresses: Value| {
            let object = json!({"metadata": {"name": "n1"}, "status": {
                "addresses": addresses,
                "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "t"}]}});
            let Trimmed::Node(node) = trim(Watched::Node, object) else { panic!() };
            assert!(node.is_ready);
            node.addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let inside = json!({"type": "InternalIP", "address": "10.0.0.1"});
        let second = json!({"type": "InternalIP", "address": "fd00::1"});
        let outside = json!({"type": "ExternalIP", "address": "192.0.2.1"});
        let name = json!({"type": "Hostname", "address": "n1"});
        assert_eq!(node(json!([name, inside, second])), ["10.0.0.1", "fd00::1"]);
        assert_eq!(node(json!([inside, outside])), ["192.0.2.1"]);
        assert!(node(json!([])).is_empty());
    }

    #[test]
    fn a_definition_is_the_release_that_it_says() {
        let definition = |annotations: Value| {
            let object = json!({"metadata": {"name": "gatewayclasses.gateway.networking.k8s.io",
                "annotations": annotations}, "spec": {"versions": [{}]}});
            trim(Watched::Definition, object)
        };
        let found = definition(json!({ (release::ANNOTATION): "v1.6.3" }));
        assert!(found == Trimmed::Release("v1.6.3".to_owned()));
        assert!(definition(json!({"other": "x"})) == Trimmed::Nothing);
    }
}
