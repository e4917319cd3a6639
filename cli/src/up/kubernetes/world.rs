//! What the watchers have seen at one moment.

use std::collections::BTreeMap;

use isthmus_config::{ConfigError, Content, ObjectRef};
use isthmus_kubernetes::{NodeState, PodState, State, provision};
use serde_json::Value;

/// What the watchers have seen at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct World {
    /// The user's objects as the server has them.
    pub(crate) documents: Vec<Value>,
    /// The uids of the objects for which something is made.
    pub(crate) uids: BTreeMap<ObjectRef, String>,
    /// The pods.
    pub(crate) pods: Vec<PodState>,
    /// The nodes.
    pub(crate) nodes: Vec<NodeState>,
    /// Our own objects as the server has them.
    pub(crate) managed: Vec<Value>,
    /// The objects that are not valid.
    pub(crate) rejected: Vec<ConfigError>,
}

impl World {
    /// Puts together what was watched and what came of it.
    pub(crate) fn new(state: State, managed: Vec<Value>, rejected: Vec<ConfigError>) -> Self {
        let object = |content| match content {
            Content::Object(object) => Some(object),
            Content::Text { .. } | Content::Unreadable { .. } => None,
        };
        let uids = provision::uids(&state.documents);
        let documents = state.documents.into_iter();
        Self {
            uids,
            documents: documents.filter_map(|document| object(document.content)).collect(),
            pods: state.pods,
            nodes: state.nodes,
            managed,
            rejected,
        }
    }

    /// Finds an object of the user, or one that was installed.
    pub(crate) fn document(&self, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        let text = |object: &Value, pointer: &str| {
            object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        self.documents.iter().find(|object| {
            text(object, "/kind") == kind
                && text(object, "/metadata/name") == name
                && text(object, "/metadata/namespace") == namespace
        })
    }
}
