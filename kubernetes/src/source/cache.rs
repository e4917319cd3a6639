//! The objects as the watchers have seen them. Pure.
//!
//! Each scope is listed, then followed. A list gathers beside the objects that are
//! known and replaces them when it is whole, so a watcher that starts again never makes
//! objects disappear for a moment.
//!
//! A state shares the objects with the cache. An object that has not changed is the same
//! pointer in every state, also after it was listed again, so whoever reads states finds
//! what has changed without looking into the objects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use isthmus_config::{Kind, Origin, SourceDocument};
use serde_json::Value;

use crate::source::kinds::{Scope, Watched};
use crate::source::trim::{Trimmed, trim};
use crate::source::{Pending, State};

/// What a watcher tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The server does not serve the kind.
    Absent,
    /// An object has come or changed.
    Applied(Value),
    /// An object has gone.
    Deleted(Value),
    /// The server refuses or does not answer; what is known stays.
    Failed(String),
    /// An object of the list that is under way.
    Listed(Value),
    /// The list is whole.
    ListedAll,
    /// A list begins.
    Listing,
}

/// Whether a change has changed the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The state differs.
    Changed,
    /// The state is the same.
    Nothing,
}

/// The objects of every scope.
pub struct Cache {
    scopes: BTreeMap<Scope, Part>,
    namespace_labels: BTreeMap<String, String>,
}

/// Namespace and name.
type Key = (String, String);

#[derive(Default)]
struct Part {
    phase: Phase,
    live: BTreeMap<Key, Held>,
    incoming: BTreeMap<Key, Held>,
    error: Option<String>,
}

/// An object, and where a state says it comes from.
#[derive(Clone, PartialEq)]
struct Held {
    origin: Origin,
    object: Trimmed,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Absent,
    Ready,
    #[default]
    Unknown,
}

impl Cache {
    /// An empty cache that waits for these scopes.
    pub fn new(scopes: Vec<Scope>, namespace_labels: BTreeMap<String, String>) -> Self {
        let scopes = scopes.into_iter().map(|scope| (scope, Part::default())).collect();
        Self { scopes, namespace_labels }
    }

    /// Takes what a watcher tells.
    pub fn handle(&mut self, scope: &Scope, change: Change) -> Effect {
        let Some(part) = self.scopes.get_mut(scope) else { return Effect::Nothing };
        match change {
            Change::Failed(error) => {
                part.error = Some(error);
                Effect::Nothing
            }
            Change::Absent => {
                let is_news = part.phase != Phase::Absent;
                *part = Part { phase: Phase::Absent, ..Part::default() };
                effect(is_news)
            }
            Change::Listing => {
                part.incoming.clear();
                Effect::Nothing
            }
            Change::Listed(object) => {
                let (key, object) = reduce(scope.watched, object);
                if object != Trimmed::Nothing {
                    let known = part.live.get(&key).filter(|held| held.object == object);
                    let held = known.cloned().unwrap_or_else(|| held(scope.watched, &key, object));
                    part.incoming.insert(key, held);
                }
                Effect::Nothing
            }
            Change::ListedAll => {
                part.error = None;
                let is_news = part.phase != Phase::Ready || part.live != part.incoming;
                part.phase = Phase::Ready;
                part.live = std::mem::take(&mut part.incoming);
                effect(is_news)
            }
            Change::Applied(object) => {
                part.error = None;
                let (key, object) = reduce(scope.watched, object);
                if object == Trimmed::Nothing {
                    return effect(part.live.remove(&key).is_some());
                }
                if part.live.get(&key).is_some_and(|held| held.object == object) {
                    return Effect::Nothing;
                }
                let held = held(scope.watched, &key, object);
                part.live.insert(key, held);
                Effect::Changed
            }
            Change::Deleted(object) => effect(part.live.remove(&key(&object)).is_some()),
        }
    }

    /// Whether every scope is listed or known to be absent. One that nothing depends on
    /// may also have failed.
    pub fn is_complete(&self) -> bool {
        let mut scopes = self.scopes.iter();
        scopes.all(|(scope, part)| match part.phase {
            Phase::Absent | Phase::Ready => true,
            Phase::Unknown => part.error.is_some() && !scope.watched.is_required(),
        })
    }

    /// The scopes that are not complete, and those with an error.
    pub fn pending(&self) -> Vec<Pending> {
        let waiting = |part: &Part| part.phase == Phase::Unknown || part.error.is_some();
        let waiting = self.scopes.iter().filter(|(_, part)| waiting(part));
        waiting
            .map(|(scope, part)| Pending { kind: scope.to_string(), error: part.error.clone() })
            .collect()
    }

    /// The whole state.
    pub fn state(&self) -> State {
        let mut state = State::default();
        let mut absent = BTreeSet::new();
        let selected = self.selected_namespaces();
        for (scope, part) in &self.scopes {
            if let (Watched::Config(kind), Phase::Absent) = (scope.watched, part.phase) {
                absent.insert(kind);
            }
            for ((namespace, _), held) in &part.live {
                let is_selected = namespace.is_empty()
                    || selected.as_ref().is_none_or(|all| all.contains(namespace.as_str()));
                if is_selected {
                    push(&mut state, held);
                }
            }
        }
        state.absent = absent.into_iter().collect();
        state.documents.sort_by(|a, b| a.origin.cmp(&b.origin));
        state.pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        state
    }

    /// The objects of every scope that are kept whole, in order of scope, namespace and
    /// name.
    pub fn documents(&self) -> Vec<Arc<Value>> {
        let live = self.scopes.values().flat_map(|part| part.live.values());
        live.filter_map(|held| match &held.object {
            Trimmed::Document(value) => Some(Arc::clone(value)),
            Trimmed::Node(_) | Trimmed::Nothing | Trimmed::Pod(_) | Trimmed::Release(_) => None,
        })
        .collect()
    }

    /// The namespaces with the selected labels; `None` when labels select nothing out.
    fn selected_namespaces(&self) -> Option<BTreeSet<&str>> {
        if self.namespace_labels.is_empty() {
            return None;
        }
        let mut selected = BTreeSet::new();
        let namespaces = Watched::Config(Kind::Namespace);
        for part in self.scopes.iter().filter(|(scope, _)| scope.watched == namespaces) {
            for ((_, name), held) in &part.1.live {
                let Trimmed::Document(object) = &held.object else { continue };
                let has = |(key, value): (&String, &String)| {
                    let labels = object.pointer("/metadata/labels");
                    labels.and_then(|labels| labels.get(key)?.as_str()) == Some(value)
                };
                if self.namespace_labels.iter().all(has) {
                    selected.insert(name.as_str());
                }
            }
        }
        Some(selected)
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let objects: usize = self.scopes.values().map(|part| part.live.len()).sum();
        f.debug_struct("Cache")
            .field("scopes", &self.scopes.len())
            .field("objects", &objects)
            .finish_non_exhaustive()
    }
}

fn effect(is_news: bool) -> Effect {
    if is_news { Effect::Changed } else { Effect::Nothing }
}

fn push(state: &mut State, held: &Held) {
    match &held.object {
        Trimmed::Document(value) => {
            let document = SourceDocument::object(held.origin.clone(), Arc::clone(value));
            state.documents.push(document);
        }
        Trimmed::Node(node) => state.nodes.push(node.clone()),
        Trimmed::Pod(pod) => state.pods.push(pod.clone()),
        Trimmed::Release(release) => state.bundle_version = Some(release.clone()),
        Trimmed::Nothing => tracing::debug!(origin = %held.origin, "an unused object was kept"),
    }
}

fn held(watched: Watched, (namespace, name): &Key, object: Trimmed) -> Held {
    Held { origin: Origin::new(&origin(watched, namespace, name), 0), object }
}

fn reduce(watched: Watched, object: Value) -> (Key, Trimmed) {
    (key(&object), trim(watched, object))
}

fn key(object: &Value) -> Key {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    (text("/metadata/namespace").to_owned(), text("/metadata/name").to_owned())
}

/// `gateway.networking.k8s.io/HTTPRoute/shop/front`, `Service/shop/web`.
fn origin(watched: Watched, namespace: &str, name: &str) -> String {
    let mut parts = vec![watched.group(), watched.label(), namespace, name];
    parts.retain(|part| !part.is_empty());
    parts.join("/")
}

#[cfg(test)]
mod tests;
