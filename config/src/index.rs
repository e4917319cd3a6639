//! The index: documents in, valid objects out, one owner.
//!
//! [`Index::apply`] takes a whole state of the source. An object that is no longer valid
//! keeps its last good version; a document that no longer parses keeps everything that
//! its file gave before, since it cannot be told which objects it held; an object that
//! is in no document any more is removed. Of two documents with the same object the
//! first in order of file and number counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::error::{ConfigError, FieldError, Origin, Reason};
use crate::kind::ObjectRef;
use crate::objects::{BundleSource, Object, Objects};
use crate::raw::document::{Identified, Schema, identify};
use crate::raw::yaml;
use crate::source::{Content, SourceDocument};
use crate::validate::mesh::check_jwks;
use crate::validate::{generation, has_creation_time, validate};

/// Holds the valid objects of a source.
#[derive(Debug, Default)]
pub struct Index {
    entries: BTreeMap<ObjectRef, Entry>,
    created: BTreeMap<ObjectRef, i64>,
    objects: Arc<Objects>,
}

/// What [`Index::apply`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApplyOutcome {
    /// Whether the valid objects differ from those before.
    pub changed: bool,
    /// What is wrong, ordered by file and document.
    pub errors: Vec<ConfigError>,
    /// Documents that were passed over, in order.
    pub notices: Vec<Notice>,
}

/// A document that was passed over, which is no error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The document.
    pub origin: Origin,
    /// What it holds: `apps/v1 Deployment`.
    pub kind: String,
}

impl Index {
    /// An index without objects.
    pub fn new() -> Self {
        Self::default()
    }

    /// An index that remembers when objects were first seen, from [`Index::created`] of
    /// an earlier process.
    pub fn with_created(created: BTreeMap<ObjectRef, i64>) -> Self {
        Self { created, ..Self::default() }
    }

    /// Takes a whole state of the source. `now_unix` is the creation time of objects that
    /// do not say one and are seen for the first time, in seconds since 1970.
    pub fn apply(&mut self, documents: &[SourceDocument], now_unix: i64) -> ApplyOutcome {
        let mut round = Round { now: now_unix, ..Round::default() };
        let mut ordered: Vec<&SourceDocument> = documents.iter().collect();
        ordered.sort_by(|a, b| a.origin.cmp(&b.origin));
        for document in ordered {
            self.document(document, &mut round);
        }
        self.keep_unreadable(&mut round);
        resolve_bundles(&mut round, &self.entries);
        self.finish(round)
    }

    /// The valid objects.
    pub fn objects(&self) -> &Arc<Objects> {
        &self.objects
    }

    /// When the objects that do not say their creation time were first seen. To be saved
    /// after every [`Index::apply`], so that "the oldest wins" means the same after a
    /// restart.
    pub fn created(&self) -> &BTreeMap<ObjectRef, i64> {
        &self.created
    }

    /// The document that an object comes from.
    pub fn origin(&self, reference: &ObjectRef) -> Option<&Origin> {
        self.entries.get(reference).map(|entry| &entry.origin)
    }

    fn document(&self, document: &SourceDocument, round: &mut Round) {
        let origin = &document.origin;
        let parsed = match &document.content {
            Content::Object(value) => Ok(value.clone()),
            Content::Text { text, line } => yaml::parse(text, *line),
            Content::Unreadable { message } => {
                Err(FieldError::new("", Reason::File { message: message.clone() }))
            }
        };
        let value = match parsed {
            Ok(value) => value,
            Err(error) => {
                round.unreadable.insert(Arc::clone(&origin.file));
                return round.error(origin, None, error);
            }
        };
        for identified in identify(value) {
            match identified {
                Identified::Object { reference, value } => {
                    let schema = match &document.content {
                        Content::Object(_) => Schema::Open,
                        Content::Text { .. } | Content::Unreadable { .. } => Schema::Closed,
                    };
                    self.object(origin, reference, (&value, schema), round);
                }
                Identified::Invalid { reference, error } => {
                    match &reference {
                        Some(reference) => self.keep(reference, origin, round),
                        None => drop(round.unreadable.insert(Arc::clone(&origin.file))),
                    }
                    round.error(origin, reference, error);
                }
                Identified::Unread { kind } => {
                    round.notices.push(Notice { origin: origin.clone(), kind });
                }
            }
        }
    }

    fn object(
        &self,
        origin: &Origin,
        reference: ObjectRef,
        (value, schema): (&Value, Schema),
        round: &mut Round,
    ) {
        if let Some(first) = round.claimed.get(&reference) {
            let error = FieldError::new("", Reason::DuplicateObject { first: first.clone() });
            return round.error(origin, Some(reference), error);
        }
        round.claimed.insert(reference.clone(), origin.clone());
        let first_seen = self.created.get(&reference).copied().unwrap_or(round.now);
        match validate(&reference, value, first_seen, schema) {
            Ok(object) => {
                if !has_creation_time(value) {
                    round.created.insert(reference.clone(), first_seen);
                }
                let generation = generation(value);
                let entry = Entry { object, origin: origin.clone(), generation };
                round.entries.insert(reference, entry);
            }
            Err(error) => {
                self.keep(&reference, origin, round);
                round.error(origin, Some(reference), error);
            }
        }
    }

    /// Keeps the last good version of an object whose document is still there.
    fn keep(&self, reference: &ObjectRef, origin: &Origin, round: &mut Round) {
        round.claimed.entry(reference.clone()).or_insert_with(|| origin.clone());
        if let Some(entry) = self.entries.get(reference)
            && !round.entries.contains_key(reference)
        {
            let entry = Entry { origin: origin.clone(), ..entry.clone() };
            round.entries.insert(reference.clone(), entry);
            if let Some(created) = self.created.get(reference) {
                round.created.insert(reference.clone(), *created);
            }
        }
    }

    fn keep_unreadable(&self, round: &mut Round) {
        for (reference, entry) in &self.entries {
            let file = &entry.origin.file;
            // An unreadable folder stands for every file below it.
            let gone = round.unreadable.iter().any(|unreadable| {
                unreadable.is_empty()
                    || file == unreadable
                    || file.strip_prefix(&**unreadable).is_some_and(|rest| rest.starts_with('/'))
            });
            if gone {
                self.keep(reference, &entry.origin, round);
            }
        }
    }

    fn finish(&mut self, round: Round) -> ApplyOutcome {
        let mut objects = Objects::default();
        for (reference, entry) in &round.entries {
            objects.insert(entry.object.clone());
            if let Some(generation) = entry.generation {
                objects.generations.insert(reference.clone(), generation);
            }
        }
        let changed = *self.objects != objects;
        if changed {
            self.objects = Arc::new(objects);
        }
        self.entries = round.entries;
        self.created = round.created;
        let mut errors = round.errors;
        errors.sort_by(|a, b| (&a.origin, &a.object).cmp(&(&b.origin, &b.object)));
        ApplyOutcome { changed, errors, notices: round.notices }
    }
}

#[derive(Debug, Clone)]
struct Entry {
    object: Object,
    origin: Origin,
    generation: Option<i64>,
}

/// One [`Index::apply`] while it runs.
#[derive(Default)]
struct Round {
    now: i64,
    entries: BTreeMap<ObjectRef, Entry>,
    created: BTreeMap<ObjectRef, i64>,
    /// Where each object was first found in this round, valid or not.
    claimed: BTreeMap<ObjectRef, Origin>,
    unreadable: BTreeSet<Arc<str>>,
    errors: Vec<ConfigError>,
    notices: Vec<Notice>,
}

impl Round {
    fn error(&mut self, origin: &Origin, object: Option<ObjectRef>, error: FieldError) {
        let field = (!error.field.is_empty()).then_some(error.field);
        self.errors.push(ConfigError {
            origin: origin.clone(),
            object,
            field,
            reason: error.reason,
        });
    }
}

/// Puts the text of ConfigMaps into the links that name them. A link keeps the bundle
/// that it had when the ConfigMap is gone or has become invalid.
fn resolve_bundles(round: &mut Round, before: &BTreeMap<ObjectRef, Entry>) {
    let mut errors = Vec::new();
    let mut config_maps = BTreeMap::new();
    for entry in round.entries.values() {
        if let Object::ConfigMap(config_map) = &entry.object {
            config_maps.insert(config_map.key.clone(), config_map.data.clone());
        }
    }
    for (reference, entry) in &mut round.entries {
        let Object::ClusterLink(link) = &mut entry.object else { continue };
        let BundleSource::ConfigMap { config_map, key, jwks } = &mut link.bundle else { continue };
        let text = config_maps.get(config_map).and_then(|data| data.get(key));
        let found = match text {
            None => {
                Err(Reason::Reference { target: format!("ConfigMap {config_map} key {key:?}") })
            }
            Some(text) => check_jwks(text).map(|()| text.clone()),
        };
        match found {
            Ok(text) => *jwks = Some(text),
            Err(reason) => {
                if let Some(Entry { object: Object::ClusterLink(old), .. }) = before.get(reference)
                {
                    *jwks = old.jwks().map(str::to_owned);
                }
                let error = FieldError::new("spec.bundle.configMapRef", reason);
                errors.push((entry.origin.clone(), reference.clone(), error));
            }
        }
    }
    for (origin, reference, error) in errors {
        round.error(&origin, Some(reference), error);
    }
}

#[cfg(test)]
#[path = "index/tests.rs"]
mod tests;
