//! Server-side apply: what is to be written, and the writing.
//!
//! [`plan`], [`plan_status`] and [`StatusPlanner`] compare what is desired with what is
//! observed and give the writes that are needed; nothing changed means nothing written. [`Executor`]
//! carries them out and decides nothing.
//!
//! An object carries a hash of what we applied last, because a field that we no longer
//! desire cannot be told from one that somebody else has set. So an object is written
//! when its hash differs (we have changed our mind) or when a desired field is not as
//! desired (somebody else has changed it). Status has no room for a hash; there a
//! condition of ours that is no longer desired is found by its type.
//!
//! Some lists in a status are single values to the server and shared by controllers
//! (`status.parents`, `status.ancestors`): what is written repeats the entries of others as
//! they were observed. Where the observed object has its `resourceVersion`, the status
//! carries it, and the server refuses the write if somebody has written meanwhile; the
//! watch brings what was written, and the next plan is made on that. [`crate::source`]
//! keeps the version of the kinds with such lists and of no others.

mod covers;

pub mod execute;

mod statuses;

mod transition;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

use crate::apply::covers::{Lists, covers};
pub use crate::apply::execute::{Executor, Failure, Report};
pub(crate) use crate::apply::statuses::name;
pub use crate::apply::statuses::{StatusPair, StatusPlanner, plan_status};

/// Names an object of any kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Group and version, as in `apps/v1`.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// The namespace; empty for kinds without one.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectId {
    /// Reads the name from an object.
    ///
    /// # Errors
    ///
    /// [`PlanError`] names the field that is missing.
    pub fn of(object: &Value) -> Result<Self, PlanError> {
        let required = |found: Option<&str>, pointer: &'static str| {
            let found = found.filter(|value| !value.is_empty()).map(str::to_owned);
            found.ok_or_else(|| PlanError { field: pointer, object: describe(object) })
        };
        let metadata = |field| object.get("metadata")?.get(field)?.as_str();
        Ok(Self {
            api_version: required(text(object, "apiVersion"), "/apiVersion")?,
            kind: required(text(object, "kind"), "/kind")?,
            namespace: metadata("namespace").unwrap_or_default().to_owned(),
            name: required(metadata("name"), "/metadata/name")?,
        })
    }

    /// The API group; empty is the core group.
    pub fn group(&self) -> &str {
        group(&self.api_version)
    }

    /// The version of the group.
    pub fn version(&self) -> &str {
        self.api_version.split_once('/').map_or(&self.api_version, |(_, version)| version)
    }

    /// Group, kind, namespace and name: the same object in whatever version.
    pub(crate) fn object(&self) -> Name<'_> {
        (self.group(), &self.kind, &self.namespace, &self.name)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// An object that cannot be planned with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {field} is missing")]
pub struct PlanError {
    /// The field, as a JSON pointer.
    pub field: &'static str,
    /// What is known of the object.
    pub object: String,
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Apply the object's own fields.
    Apply {
        /// The object.
        id: ObjectId,
        /// What is sent.
        body: Value,
        /// Whether none of ours is known by this name: one that exists all the same may be
        /// somebody else's, and is looked at before it is written.
        is_new: bool,
    },
    /// Apply the status.
    ApplyStatus {
        /// The object.
        id: ObjectId,
        /// What is sent: names, the version of the object that it was planned on where it is
        /// known, and `status`.
        body: Value,
    },
    /// Delete the object, if it is still the same.
    Delete {
        /// The object.
        id: ObjectId,
        /// Its uid; empty deletes whatever has the name.
        uid: String,
    },
}

impl Action {
    /// The object that is written.
    pub fn id(&self) -> &ObjectId {
        match self {
            Self::Apply { id, .. } | Self::ApplyStatus { id, .. } | Self::Delete { id, .. } => id,
        }
    }

    /// The version of the object that the write is good for; `None` is any.
    fn version(&self) -> Option<&str> {
        match self {
            Self::Apply { .. } | Self::Delete { .. } => None,
            Self::ApplyStatus { body, .. } => body.pointer(VERSION)?.as_str(),
        }
    }
}

/// The writes that are needed, in the order of the desired objects, deletions last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The writes.
    pub actions: Vec<Action>,
    /// How many desired objects are already as they should be.
    pub unchanged: usize,
}

/// Plans objects that are ours as a whole: every desired object gets the label
/// [`MANAGED_LABEL`] and the annotation [`HASH_ANNOTATION`], and an observed one with both
/// that is not desired is deleted.
///
/// A desired object of nothing but its names is kept as it is: it is neither written nor
/// deleted. Whoever plans does not know yet what it should be.
///
/// `observed` are the objects as the server has them; those of others may be among them
/// and are left alone. An object that is already being deleted is not deleted again.
///
/// # Errors
///
/// [`PlanError`] when an object has no `apiVersion`, `kind` or name. Nothing is planned
/// then, because what cannot be named would be missing and deleted.
pub fn plan<'v>(
    desired: &[Value],
    observed: impl IntoIterator<Item = &'v Value>,
) -> Result<Plan, PlanError> {
    let observed = observed.into_iter().map(|object| Ok((ObjectId::of(object)?, object)));
    let observed = observed.collect::<Result<Vec<_>, _>>()?;
    let mut plan = Plan::default();
    let mut wanted = BTreeSet::new();
    let ids = desired.iter().map(ObjectId::of).collect::<Result<Vec<_>, _>>()?;
    let known: BTreeMap<_, _> = observed.iter().map(|(id, value)| (id.object(), *value)).collect();
    for (id, object) in ids.iter().zip(desired) {
        wanted.insert(id.object());
        if is_only_named(object) {
            plan.unchanged += 1;
            continue;
        }
        let body = marked(object);
        let current = known.get(&id.object());
        let is_current = current.is_some_and(|current| {
            annotation(current) == annotation(&body) && covers(&body, current, Lists::Merged)
        });
        if is_current {
            plan.unchanged += 1;
        } else {
            let is_new = !current.is_some_and(|current| is_labelled(current));
            plan.actions.push(Action::Apply { id: id.clone(), body, is_new });
        }
    }
    for (id, object) in &observed {
        if is_managed(object) && !is_ending(object) && !wanted.contains(&id.object()) {
            let uid = object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
            plan.actions.push(Action::Delete { id: id.clone(), uid: uid.to_owned() });
        }
    }
    Ok(plan)
}

/// Group, kind, namespace and name.
pub(crate) type Name<'v> = (&'v str, &'v str, &'v str, &'v str);

/// Direct, because a pointer is text that is taken apart each time.
fn text<'v>(value: &'v Value, field: &str) -> Option<&'v str> {
    value.get(field)?.as_str()
}

fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// The object with our label and the hash of what it says.
fn marked(object: &Value) -> Value {
    let mut body = object.clone();
    let mut hasher = DefaultHasher::new();
    // Planners build an object in one way, so equal objects have equal text; another order
    // of a later release costs one write.
    object.to_string().hash(&mut hasher);
    let hash = format!("{:016x}", hasher.finish());
    body["metadata"]["labels"][MANAGED_LABEL] = json!(FIELD_MANAGER);
    body["metadata"]["annotations"][HASH_ANNOTATION] = json!(hash);
    body
}

fn annotation(object: &Value) -> Option<&str> {
    object.pointer("/metadata/annotations")?.get(HASH_ANNOTATION)?.as_str()
}

/// Label and hash: controllers of Kubernetes copy the labels of an object to what they make
/// of it, as those of a Service to its EndpointSlices.
fn is_managed(object: &Value) -> bool {
    annotation(object).is_some() && is_labelled(object)
}

fn is_labelled(object: &Value) -> bool {
    let labels = object.pointer("/metadata/labels");
    labels.and_then(|labels| labels.get(MANAGED_LABEL)?.as_str()) == Some(FIELD_MANAGER)
}

/// Whether an object says nothing but which one it is.
fn is_only_named(object: &Value) -> bool {
    let keys_are = |value: Option<&Value>, known: &[&str]| {
        let fields = value.and_then(Value::as_object);
        fields.is_some_and(|fields| fields.keys().all(|key| known.contains(&key.as_str())))
    };
    keys_are(Some(object), &["apiVersion", "kind", "metadata"])
        && keys_are(object.get("metadata"), &["namespace", "name"])
}

fn is_ending(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null())
}

fn describe(object: &Value) -> String {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or("?");
    format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
}

/// Who we are in `managedFields`.
pub const FIELD_MANAGER: &str = "isthmus";
/// The label of the objects that we own as a whole; its value is [`FIELD_MANAGER`].
pub const MANAGED_LABEL: &str = "app.kubernetes.io/managed-by";
/// The annotation with the hash of what we applied last.
pub const HASH_ANNOTATION: &str = "isthmus.io/applied-hash";
/// The version of an object.
const VERSION: &str = "/metadata/resourceVersion";

#[cfg(test)]
mod tests;
