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

/// What is kept of an object.
#[derive(Clone, PartialEq)]
pub(crate) enum Trimmed {
    Document(Arc<Value>),
    Node(NodeState),
    /// Nothing of the object is used.
    Nothing,
    Pod(PodState),
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
}

/// Reduces an object, as the server gave it, of a kind.
pub(crate) fn trim(watched: Watched, mut object: Value) -> Trimmed {
    match watched {
        // Plans of writes compare whole objects; the resource version would make every
        // status of another controller a change even where nothing else is.
        Watched::Managed(_) => {
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
                metadata.remove("resourceVersion");
            }
            Trimmed::Document(Arc::new(object))
        }
        Watched::Pod => Trimmed::Pod(pod(&object)),
        Watched::Node => Trimmed::Node(node(&object)),
        Watched::Config(kind) => {
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                trim_metadata(metadata);
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

fn trim_metadata(metadata: &mut Map<String, Value>) {
    for unused in METADATA_UNUSED {
        metadata.remove(*unused);
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
    let is_ready = list("/status/conditions").any(|condition| {
        condition.get("type").and_then(Value::as_str) == Some("Ready")
            && condition.get("status").and_then(Value::as_str) == Some("True")
    });
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
        is_ready,
        is_terminating: object.pointer("/metadata/deletionTimestamp").is_some(),
    }
}

fn node(object: &Value) -> NodeState {
    let mut labels = text_map(object, "/metadata/labels");
    NodeState {
        name: text(object, "/metadata/name"),
        region: labels.remove("topology.kubernetes.io/region").unwrap_or_default(),
        zone: labels.remove("topology.kubernetes.io/zone").unwrap_or_default(),
    }
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn text_map(object: &Value, pointer: &str) -> BTreeMap<String, String> {
    let map = object.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// Fields of the metadata that nothing reads; the resource version would make every
/// heartbeat a change.
const METADATA_UNUSED: &[&str] =
    &["finalizers", "generateName", "managedFields", "resourceVersion", "selfLink"];
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
            Trimmed::Node(_) | Trimmed::Pod(_) => panic!("not a document"),
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
        assert_eq!(document(Kind::HttpRoute, object), Some(left));
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
}
