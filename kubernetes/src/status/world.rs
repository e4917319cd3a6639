//! The inputs, found by the names of objects, and what belongs to us.

use std::collections::BTreeMap;

use isthmus_config::{
    CONTROLLER_NAME, ConditionPart, ConfigError, Kind, ListenerStatus, ObjectCondition, ObjectKey,
    ObjectRef,
};
use isthmus_model::{Label, ObjectName};
use serde_json::{Value, json};

use crate::apply::ObjectId;
use crate::status::StatusInputs;
use crate::status::condition::Condition;

/// The name of an observed object: its kind in text, so that kinds which the
/// configuration does not read are no special case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Name {
    fn of(object: &Value) -> Option<Self> {
        // Before anything is copied: most objects of a cluster are of other groups.
        let (group, _) = object.get("apiVersion")?.as_str()?.split_once('/')?;
        if group != GATEWAY_GROUP {
            return None;
        }
        let id = ObjectId::of(object).ok()?;
        Some(Self { kind: id.kind, namespace: id.namespace, name: id.name })
    }

    /// The name, where it is one that objects can have.
    pub(super) fn key(&self) -> Option<ObjectKey> {
        let namespace = Label::new(&self.namespace).ok()?;
        Some(ObjectKey { namespace, name: ObjectName::new(&self.name).ok()? })
    }

    /// As the configuration names it.
    pub(super) fn reference(&self, kind: Kind) -> ObjectRef {
        ObjectRef { kind, namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

/// The inputs by the names of objects.
pub(super) struct World<'i> {
    pub(super) inputs: &'i StatusInputs<'i>,
    /// The objects of Gateway API.
    pub(super) observed: BTreeMap<Name, &'i Value>,
    /// The listeners of each Gateway and ListenerSet, in order.
    pub(super) listeners: BTreeMap<&'i ObjectRef, Vec<&'i ListenerStatus>>,
    conditions: BTreeMap<&'i ObjectRef, Vec<&'i ObjectCondition>>,
    rejected: BTreeMap<&'i ObjectRef, &'i ConfigError>,
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
        let mut observed = BTreeMap::new();
        for object in inputs.observed.iter().copied() {
            if let Some(name) = Name::of(object) {
                observed.insert(name, object);
            }
        }
        let mut conditions: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for condition in inputs.conditions {
            conditions.entry(&condition.object).or_default().push(condition);
        }
        let mut listeners: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for listener in inputs.listeners {
            listeners.entry(&listener.parent).or_default().push(listener);
        }
        let mut rejected = BTreeMap::new();
        for error in inputs.rejected {
            if let Some(object) = &error.object {
                rejected.entry(object).or_insert(error);
            }
        }
        Self { inputs, observed, listeners, conditions, rejected }
    }

    /// What the translation says of a part of an object.
    pub(super) fn said(&self, object: &ObjectRef, part: &ConditionPart) -> Vec<Condition> {
        let all = self.conditions.get(object).into_iter().flatten();
        all.filter(|condition| condition.part == *part).map(|c| Condition::from(*c)).collect()
    }

    /// The parts of an object that the translation says something of, in their order.
    pub(super) fn parts(&self, object: &ObjectRef) -> Vec<&'i ConditionPart> {
        let all = self.conditions.get(object).into_iter().flatten();
        let mut parts: Vec<&ConditionPart> = all.map(|condition| &condition.part).collect();
        parts.sort();
        parts.dedup();
        parts
    }

    /// Why the observed version of an object is not used; `None` when it is.
    /// `is_kept` says that an older version of it is in use.
    pub(super) fn rejection(
        &self,
        object: &ObjectRef,
        observed: &Value,
        is_kept: bool,
    ) -> Option<Rejection> {
        let error = self.rejected.get(object)?;
        let mut message = match &error.field {
            Some(field) => format!("{field}: {}", error.reason),
            None => error.reason.to_string(),
        };
        if is_kept {
            let kept = self.inputs.objects.generation(object);
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
        self.find("GatewayClass", "", class).is_some_and(|class| self.is_our_class(class))
    }

    /// The Gateway of a ListenerSet, if it is ours.
    pub(super) fn our_gateway_of(&self, set: &Value) -> Option<Name> {
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
    pub(super) fn gateway_of_parent(&self, parent: &Value, namespace: &str) -> Option<Name> {
        if (group_of(parent), kind_of(parent)) != (GATEWAY_GROUP, "ListenerSet") {
            return self.our_gateway(parent, namespace);
        }
        let namespace = text(parent, "/namespace").unwrap_or(namespace);
        let set = self.find("ListenerSet", namespace, text(parent, "/name")?)?;
        self.our_gateway_of(set)
    }

    /// The Gateway that a reference names, if it is ours.
    fn our_gateway(&self, reference: &Value, namespace: &str) -> Option<Name> {
        if (group_of(reference), kind_of(reference)) != (GATEWAY_GROUP, "Gateway") {
            return None;
        }
        let namespace = text(reference, "/namespace").unwrap_or(namespace);
        let name = text(reference, "/name")?;
        let gateway = self.find("Gateway", namespace, name)?;
        self.is_our_gateway(gateway).then(|| Name {
            kind: "Gateway".to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<&'i Value> {
        let (kind, namespace, name) = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        self.observed.get(&Name { kind, namespace, name }).copied()
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
