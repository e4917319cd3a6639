//! What the watchers have seen at one moment.

use std::sync::Arc;

use isthmus_config::{ConfigError, Content, SourceDocument};
use isthmus_kubernetes::{Action, NodeState, Plan, PodState, State, status};
use serde_json::Value;

/// What the watchers have seen at one moment; it shares the objects with their cache.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct World {
    /// The user's objects as the server has them.
    pub(crate) documents: Vec<Arc<Value>>,
    /// Those of them that get statuses of [`status::Statuses`], so that its turns pass by
    /// nothing else.
    pub(crate) routing: Vec<Arc<Value>>,
    /// The pods.
    pub(crate) pods: Vec<PodState>,
    /// The nodes.
    pub(crate) nodes: Vec<NodeState>,
    /// Our own objects as the server has them.
    pub(crate) managed: Vec<Arc<Value>>,
    /// The objects that are not valid.
    pub(crate) rejected: Vec<ConfigError>,
    /// The release of the Gateway API whose definitions are installed, where it is known.
    pub(crate) bundle_version: Option<String>,
}

impl World {
    /// Puts together what was watched and what came of it.
    pub(crate) fn new(state: &State, managed: Vec<Arc<Value>>, rejected: Vec<ConfigError>) -> Self {
        let objects = |documents: &[SourceDocument]| {
            let object = |document: &SourceDocument| match &document.content {
                Content::Object(object) => Some(Arc::clone(object)),
                Content::Text { .. } | Content::Unreadable { .. } => None,
            };
            documents.iter().filter_map(object).collect()
        };
        Self {
            documents: objects(&state.documents),
            routing: objects(state.of_group(status::GROUP)),
            pods: state.pods.clone(),
            nodes: state.nodes.clone(),
            managed,
            rejected,
            bundle_version: state.bundle_version.clone(),
        }
    }

    /// The objects among which those are whose statuses a plan writes.
    pub(crate) fn told(&self, plan: &Plan) -> &[Arc<Value>] {
        let is_routing = |action: &Action| match action {
            Action::ApplyStatus { id, .. } => id.group() == status::GROUP,
            Action::Apply { .. } | Action::Delete { .. } => true,
        };
        let is_routing = plan.actions.iter().all(is_routing);
        if is_routing { &self.routing } else { &self.documents }
    }

    /// Finds an object of the user, or one that was installed.
    pub(crate) fn document(&self, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        let is = |value: &Value, field: &str, wanted: &str| {
            value.get(field).and_then(Value::as_str).unwrap_or_default() == wanted
        };
        let documents = self.documents.iter().map(Arc::as_ref);
        let mut found = documents.filter(|object| is(object, "kind", kind));
        found.find(|object| {
            let metadata = object.get("metadata").unwrap_or(&Value::Null);
            is(metadata, "name", name) && is(metadata, "namespace", namespace)
        })
    }
}
