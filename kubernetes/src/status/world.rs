//! The inputs, found by the names of objects, and what belongs to us.

use std::collections::HashMap;
use std::sync::Arc;

use isthmus_config::{
    CONTROLLER_NAME, ConditionPart, ConfigError, Kind, ListenerStatus, ObjectCondition, ObjectKey,
    ObjectRef,
};
use isthmus_model::{Label, ObjectName};
use serde_json::{Value, json};

use crate::status::StatusInputs;
use crate::status::condition::Condition;
use crate::status::routes::Route;

/// The name of an observed object: its kind in text, so that kinds which the
/// configuration does not read are no special case. Borrowed, because a large cluster has
/// thousands of them and each turn names them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name<'n> {
    pub(super) kind: &'n str,
    pub(super) namespace: &'n str,
    pub(super) name: &'n str,
}

impl<'n> Name<'n> {
    /// The name of an object of Gateway API; `None` for those of other groups.
    pub(super) fn of(object: &'n Value) -> Option<Self> {
        let (group, _) = object.get("apiVersion")?.as_str()?.split_once('/')?;
        if group != GATEWAY_GROUP {
            return None;
        }
        let metadata = object.get("metadata")?;
        let text = |value: &'n Value, field: &str| value.get(field).and_then(Value::as_str);
        let required = |found: Option<&'n str>| found.filter(|text| !text.is_empty());
        Some(Self {
            kind: required(text(object, "kind"))?,
            namespace: text(metadata, "namespace").unwrap_or_default(),
            name: required(text(metadata, "name"))?,
        })
    }

    /// What the configuration calls so.
    pub(super) fn of_reference(object: &'n ObjectRef) -> Self {
        Self { kind: object.kind.label(), namespace: &object.namespace, name: &object.name }
    }

    /// The name of an object of a kind that has a namespace.
    pub(super) fn of_key(kind: Kind, key: &'n ObjectKey) -> Self {
        Self { kind: kind.label(), namespace: key.namespace.as_str(), name: key.name.as_str() }
    }

    /// The name, where it is one that objects can have.
    pub(super) fn key(&self) -> Option<ObjectKey> {
        let namespace = Label::new(self.namespace).ok()?;
        Some(ObjectKey { namespace, name: ObjectName::new(self.name).ok()? })
    }

    /// As the configuration names it.
    pub(super) fn reference(&self, kind: Kind) -> ObjectRef {
        let (namespace, name) = (self.namespace.to_owned(), self.name.to_owned());
        ObjectRef { kind, namespace, name }
    }
}

/// The inputs by the names of objects.
pub(super) struct World<'i> {
    pub(super) inputs: &'i StatusInputs<'i>,
    /// The objects of Gateway API, in order of their names, each once.
    pub(super) observed: Vec<(Name<'i>, &'i Arc<Value>)>,
    /// The valid routes.
    pub(super) routes: HashMap<Name<'i>, Route>,
    /// The listeners of each Gateway and ListenerSet, in order.
    listeners: HashMap<Name<'i>, Vec<&'i ListenerStatus>>,
    /// The translation says what it has to say of an object in one run, of a policy in
    /// more.
    conditions: HashMap<Name<'i>, Vec<&'i [ObjectCondition]>>,
    rejected: HashMap<Name<'i>, &'i ConfigError>,
}

/// Why the newest version of an object is not used.
pub(super) struct Rejection {
    /// What is wrong, and which version is used instead.
    pub(super) message: String,
    /// The generation that is rejected.
    pub(super) generation: i64,
}

impl<'i> World<'i> {
    pub(super) fn new(inputs: &'i StatusInputs<'i>) -> Self {
        let observed = inputs.observed.iter();
        let mut observed: Vec<_> =
            observed.filter_map(|object| Some((Name::of(object)?, object))).collect();
        // Of two of one name the last counts. Where a watch gives them they are nearly in
        // order, which the sort makes use of.
        observed.reverse();
        observed.sort_by_key(|(name, _)| *name);
        observed.dedup_by_key(|(name, _)| *name);
        let mut conditions: HashMap<_, Vec<_>> = HashMap::new();
        for run in inputs.conditions.chunk_by(|a, b| a.object == b.object) {
            let Some(first) = run.first() else { continue };
            conditions.entry(Name::of_reference(&first.object)).or_default().push(run);
        }
        let mut listeners: HashMap<_, Vec<_>> = HashMap::new();
        for listener in inputs.listeners {
            listeners.entry(Name::of_reference(&listener.parent)).or_default().push(listener);
        }
        let mut rejected = HashMap::new();
        for error in inputs.rejected {
            if let Some(object) = &error.object {
                rejected.entry(Name::of_reference(object)).or_insert(error);
            }
        }
        let routes = Route::all(inputs.objects).collect();
        Self { inputs, observed, routes, listeners, conditions, rejected }
    }

    /// The Gateways and ListenerSets that are ours to speak of, in order. Of all other
    /// objects that are observed the status of a route reads no more than this.
    pub(super) fn ours(&self) -> Vec<ObjectRef> {
        let gateways = self.of_kind(Kind::Gateway).iter().filter(|(_, it)| self.is_our_gateway(it));
        let gateways = gateways.map(|(name, _)| name.reference(Kind::Gateway));
        let sets = self.of_kind(Kind::ListenerSet).iter();
        let sets = sets.filter(|(_, it)| self.our_gateway_of(it).is_some());
        gateways.chain(sets.map(|(name, _)| name.reference(Kind::ListenerSet))).collect()
    }

    /// All that the translation says of an object.
    pub(super) fn conditions<'w>(
        &'w self,
        object: Name<'w>,
    ) -> impl Iterator<Item = &'i ObjectCondition> + 'w {
        self.conditions.get(&object).into_iter().flatten().copied().flatten()
    }

    /// What the translation says of the listeners of a Gateway or ListenerSet.
    pub(super) fn listeners<'w>(
        &'w self,
        owner: Name<'w>,
    ) -> impl Iterator<Item = &'i ListenerStatus> + 'w {
        self.listeners.get(&owner).into_iter().flatten().copied()
    }

    /// What the translation says of a part of an object.
    pub(super) fn said(&self, object: Name<'_>, part: &ConditionPart) -> Vec<Condition> {
        let all = self.conditions(object).filter(|condition| condition.part == *part);
        all.map(Condition::from).collect()
    }

    /// The parts of an object that the translation says something of, in their order.
    pub(super) fn parts(&self, object: Name<'_>) -> Vec<&'i ConditionPart> {
        let all = self.conditions(object);
        let mut parts: Vec<&ConditionPart> = all.map(|condition| &condition.part).collect();
        parts.sort();
        parts.dedup();
        parts
    }

    /// Whether validation rejects an object.
    pub(super) fn is_rejected(&self, object: Name<'_>) -> bool {
        self.rejected.contains_key(&object)
    }

    /// Why the observed version of an object is not used; `None` when it is.
    /// `is_kept` says that an older version of it is in use.
    pub(super) fn rejection(
        &self,
        (name, kind): (Name<'_>, Kind),
        observed: &Value,
        is_kept: bool,
    ) -> Option<Rejection> {
        let error = self.rejected.get(&name)?;
        let mut message = match &error.field {
            Some(field) => format!("{field}: {}", error.reason),
            None => error.reason.to_string(),
        };
        if is_kept {
            let kept = self.inputs.objects.generation(&name.reference(kind));
            let version = if kept > 0 { format!(" (generation {kept})") } else { String::new() };
            message.push_str(&format!("; the last valid version{version} is still in use"));
        }
        Some(Rejection { message, generation: generation(observed) })
    }

    /// Whether a GatewayClass is ours.
    pub(super) fn is_our_class(&self, class: &Value) -> bool {
        text(class, "/spec/controllerName") == Some(CONTROLLER_NAME)
    }

    /// Whether a Gateway is ours, by what is observed of it and its class.
    pub(super) fn is_our_gateway(&self, gateway: &Value) -> bool {
        let class = text(gateway, "/spec/gatewayClassName").unwrap_or_default();
        self.find("GatewayClass", "", class).is_some_and(|(_, class)| self.is_our_class(class))
    }

    /// The Gateway of a ListenerSet, if it is ours.
    pub(super) fn our_gateway_of(&self, set: &Value) -> Option<Name<'i>> {
        let parent = set.pointer("/spec/parentRef")?;
        let own = text(set, "/metadata/namespace").unwrap_or_default();
        self.our_gateway(parent, own)
    }

    /// Whether a parent that a route in `namespace` names is ours to speak of. Services
    /// are, as parents of routes inside the mesh.
    pub(super) fn is_our_parent(&self, parent: &Value, namespace: &str) -> bool {
        match (group_of(parent), kind_of(parent)) {
            ("", "Service") | (MCS_GROUP, "ServiceImport") => true,
            _ => self.gateway_of_parent(parent, namespace).is_some(),
        }
    }

    /// The Gateway behind a parent that a route in `namespace` names, if it is ours.
    pub(super) fn gateway_of_parent(&self, parent: &Value, namespace: &str) -> Option<Name<'i>> {
        if (group_of(parent), kind_of(parent)) != (GATEWAY_GROUP, "ListenerSet") {
            return self.our_gateway(parent, namespace);
        }
        let namespace = text(parent, "/namespace").unwrap_or(namespace);
        let (_, set) = self.find("ListenerSet", namespace, text(parent, "/name")?)?;
        self.our_gateway_of(set)
    }

    /// The Gateway that a reference names, if it is ours.
    fn our_gateway(&self, reference: &Value, namespace: &str) -> Option<Name<'i>> {
        if (group_of(reference), kind_of(reference)) != (GATEWAY_GROUP, "Gateway") {
            return None;
        }
        let namespace = text(reference, "/namespace").unwrap_or(namespace);
        let (name, gateway) = self.find("Gateway", namespace, text(reference, "/name")?)?;
        self.is_our_gateway(gateway).then_some(name)
    }

    fn of_kind(&self, kind: Kind) -> &[(Name<'i>, &'i Arc<Value>)] {
        let first = self.observed.partition_point(|(name, _)| name.kind < kind.label());
        let end = self.observed.partition_point(|(name, _)| name.kind <= kind.label());
        self.observed.get(first..end).unwrap_or_default()
    }

    fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<(Name<'i>, &'i Value)> {
        let wanted = Name { kind, namespace, name };
        let at = self.observed.binary_search_by(|(name, _)| name.cmp(&wanted)).ok()?;
        self.observed.get(at).map(|&(name, object)| (name, object.as_ref()))
    }
}

/// The list of entries that controllers share, with ours as they are desired: those of
/// others stay where they are, ours are replaced where they are, and new ones come last.
/// `None` when nothing in it is or becomes ours. Entries of others are never cut; ours
/// are, at the limit of the list.
pub(super) fn shared(
    observed: &Value,
    pointer: &str,
    reference: &str,
    desired: Vec<Value>,
    limit: usize,
) -> Option<Vec<Value>> {
    let is_ours = |entry: &&Value| text(entry, "/controllerName") == Some(CONTROLLER_NAME);
    let before = observed.pointer(pointer).and_then(Value::as_array);
    let before = before.map(Vec::as_slice).unwrap_or_default();
    if desired.is_empty() && !before.iter().any(|entry| is_ours(&entry)) {
        return None;
    }
    let others = before.iter().filter(|entry| !is_ours(entry)).count();
    let mut desired = desired;
    desired.truncate(limit.saturating_sub(others));
    let mut entries = Vec::with_capacity(others + desired.len());
    for entry in before {
        if !is_ours(&entry) {
            entries.push(entry.clone());
        } else if let Some(at) =
            desired.iter().position(|new| is_same_reference(new, entry, reference))
        {
            entries.push(desired.remove(at));
        }
    }
    entries.append(&mut desired);
    Some(entries)
}

fn is_same_reference(a: &Value, b: &Value, reference: &str) -> bool {
    let (Some(a), Some(b)) = (a.get(reference), b.get(reference)) else { return false };
    let fields = ["/namespace", "/name", "/sectionName", "/port"];
    (group_of(a), kind_of(a)) == (group_of(b), kind_of(b))
        && fields.iter().all(|field| a.pointer(field) == b.pointer(field))
}

/// What is applied: the names of the object, in the version in which it is observed.
pub(super) fn with_status(observed: &Value, status: Value) -> Value {
    let mut metadata = json!({ "name": text(observed, "/metadata/name") });
    if let Some(namespace) = text(observed, "/metadata/namespace") {
        metadata["namespace"] = json!(namespace);
    }
    json!({
        "apiVersion": observed.get("apiVersion"),
        "kind": observed.get("kind"),
        "metadata": metadata,
        "status": status,
    })
}

/// `metadata.generation`; 0 when the object has none.
pub(super) fn generation(object: &Value) -> i64 {
    object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default()
}

/// A Gateway as policies name it among their ancestors.
pub(super) fn gateway_reference(gateway: &ObjectKey) -> Value {
    json!({
        "group": GATEWAY_GROUP,
        "kind": "Gateway",
        "namespace": gateway.namespace.as_str(),
        "name": gateway.name.as_str(),
    })
}

/// The text at a pointer of fields, none of which has an escape.
pub(super) fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    let mut fields = pointer.split('/').skip(1);
    fields.try_fold(value, |value, field| value.get(field))?.as_str()
}

fn group_of(reference: &Value) -> &str {
    text(reference, "/group").unwrap_or(GATEWAY_GROUP)
}

fn kind_of(reference: &Value) -> &str {
    text(reference, "/kind").unwrap_or("Gateway")
}

/// The group of Gateway API.
pub(super) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
const MCS_GROUP: &str = "multicluster.x-k8s.io";
