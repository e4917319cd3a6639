//! The index: documents in, valid objects out, one owner.
//!
//! [`Index::apply`] takes a whole state of the source. An object that is no longer valid
//! keeps its last good version; a document that no longer parses keeps everything that
//! its file gave before, since it cannot be told which objects it held; an object that
//! is in no document any more is removed. Of two documents with the same object the
//! first in order of file and number counts.
//!
//! A state of a large cluster differs from the one before in a few objects. Where every
//! document holds one object that nobody else claims, as those of an API server do, only
//! the documents that are not the same value as before are read ([`patch`]); everything
//! else takes the whole round, which gives the same.
//!
//! # Flow
//!
//! 1. [`Index::apply`]: the documents in order.
//! 2. [`patch`]: what has changed since the last state, where that can be told.
//! 3. The whole round otherwise, which finds the objects and what is to be put.
//! 4. [`bundles`]: the text of ConfigMaps into the links that name them.

mod bundles;
mod patch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use self::patch::{Place, Read};
use crate::error::{ConfigError, FieldError, Origin, Reason};
use crate::kind::{Kind, ObjectRef};
use crate::objects::{Object, Objects};
use crate::raw::document::{Identified, Schema, identify};
use crate::raw::yaml;
use crate::source::{Content, SourceDocument};
use crate::validate::{generation, has_creation_time, validate};

/// Holds the valid objects of a source.
#[derive(Debug, Default)]
pub struct Index {
    entries: BTreeMap<ObjectRef, Entry>,
    created: BTreeMap<ObjectRef, i64>,
    objects: Arc<Objects>,
    /// The documents of the last state that hold one thing, in order of their origin.
    places: Vec<Place>,
    /// Whether those are all of them, so that the next state can be a patch.
    is_plain: bool,
    /// What was wrong with the bundles of links.
    bundle_errors: Vec<ConfigError>,
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
        let mut ordered: Vec<&SourceDocument> = documents.iter().collect();
        ordered.sort_by(|a, b| a.origin.cmp(&b.origin));
        if let Some(outcome) = self.patch(&ordered, now_unix) {
            return outcome;
        }
        let mut round = Round { now: now_unix, ..Round::default() };
        let mut places: Vec<Place> = Vec::new();
        for document in &ordered {
            if let Some(read) = self.document(document, &mut round) {
                places.push(Place { document: SourceDocument::clone(document), read });
            }
        }
        let is_ordered = places.is_sorted_by(|a, b| a.document.origin < b.document.origin);
        self.is_plain = is_ordered && places.len() == ordered.len() && patch::is_distinct(&places);
        self.places = if is_ordered { places } else { Vec::new() };
        self.keep_unreadable(&mut round);
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

    /// Reads a document; what it holds, where that is one thing that can be told again.
    fn document(&self, document: &SourceDocument, round: &mut Round) -> Option<Read> {
        if let Some(read) = self.unchanged(document, round) {
            return Some(read);
        }
        let origin = &document.origin;
        let parsed = match &document.content {
            Content::Object(value) => Ok(Value::clone(value)),
            Content::Text { text, line } => yaml::parse(text, *line),
            Content::Unreadable { message } => {
                Err(FieldError::new("", Reason::File { message: message.clone() }))
            }
        };
        let value = match parsed {
            Ok(value) => value,
            Err(error) => {
                round.unreadable.insert(Arc::clone(&origin.file));
                round.error(origin, None, error);
                return None;
            }
        };
        let found = identify(value);
        let is_one = found.len() == 1 && matches!(document.content, Content::Object(_));
        let mut read = None;
        for identified in found {
            read = match identified {
                Identified::Object { reference, value } => {
                    let schema = match &document.content {
                        Content::Object(_) => Schema::Open,
                        Content::Text { .. } | Content::Unreadable { .. } => Schema::Closed,
                    };
                    self.object(origin, reference, (&value, schema), round)
                }
                Identified::Invalid { reference, error } => {
                    match &reference {
                        Some(reference) => self.keep(reference, origin, round),
                        None => drop(round.unreadable.insert(Arc::clone(&origin.file))),
                    }
                    let error = round.error(origin, reference.clone(), error);
                    reference.map(|reference| Read::Rejected(reference, error))
                }
                Identified::Unread { kind } => {
                    let notice = Notice { origin: origin.clone(), kind };
                    round.notices.push(notice.clone());
                    Some(Read::Unread(notice))
                }
            };
        }
        read.filter(|_| is_one)
    }

    /// Takes over an object whose document is the same value as in the last state.
    fn unchanged(&self, document: &SourceDocument, round: &mut Round) -> Option<Read> {
        let at = self.places.binary_search_by(|place| place.document.origin.cmp(&document.origin));
        let place = self.places.get(at.ok()?)?;
        let Read::Valid(reference) = &place.read else { return None };
        if !place.is_same(document) || round.claimed.contains_key(reference) {
            return None;
        }
        self.keep(reference, &document.origin, round);
        Some(place.read.clone())
    }

    /// Reads an object; `None` when another document has it.
    fn object(
        &self,
        origin: &Origin,
        reference: ObjectRef,
        (value, schema): (&Value, Schema),
        round: &mut Round,
    ) -> Option<Read> {
        if let Some(first) = round.claimed.get(&reference) {
            let error = FieldError::new("", Reason::DuplicateObject { first: first.clone() });
            round.error(origin, Some(reference), error);
            return None;
        }
        round.claimed.insert(reference.clone(), origin.clone());
        let first_seen = self.created.get(&reference).copied().unwrap_or(round.now);
        match validate(&reference, value, first_seen, schema) {
            Ok(object) => {
                if !has_creation_time(value) {
                    round.created.insert(reference.clone(), first_seen);
                }
                let generation = generation(value);
                let entry = Entry { origin: origin.clone(), generation };
                round.entries.insert(reference.clone(), entry);
                round.put.push(object);
                Some(Read::Valid(reference))
            }
            Err(error) => {
                self.keep(&reference, origin, round);
                let error = round.error(origin, Some(reference.clone()), error);
                Some(Read::Rejected(reference, error))
            }
        }
    }

    /// Keeps the last good version of an object whose document is still there.
    fn keep(&self, reference: &ObjectRef, origin: &Origin, round: &mut Round) {
        round.claimed.entry(reference.clone()).or_insert_with(|| origin.clone());
        if let Some(entry) = self.entries.get(reference)
            && !round.entries.contains_key(reference)
        {
            let entry = Entry { origin: origin.clone(), generation: entry.generation };
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

    fn finish(&mut self, mut round: Round) -> ApplyOutcome {
        let mut objects = Objects::clone(&self.objects);
        let mut changed = false;
        for reference in self.entries.keys().filter(|one| !round.entries.contains_key(*one)) {
            changed |= objects.remove(reference);
        }
        let mut links = objects.cluster_links.as_ref().clone();
        for object in std::mem::take(&mut round.put) {
            if let Object::ClusterLink(link) = object {
                links.insert(link.name.clone(), Arc::new(link));
            } else {
                changed |= objects.put(object);
            }
        }
        // Links last: they take text from ConfigMaps.
        for link in links.into_values() {
            let mut link = Arc::unwrap_or_clone(link);
            let reference = ObjectRef::cluster(Kind::ClusterLink, link.name.as_str());
            if let Err(error) = bundles::resolve(&mut link, &objects)
                && let Some(entry) = round.entries.get(&reference)
            {
                let error = config_error(&entry.origin, Some(reference), error);
                round.bundle_errors.push(error);
            }
            changed |= objects.put(Object::ClusterLink(link));
        }
        for (reference, entry) in &round.entries {
            changed |= objects.generations.set(reference, entry.generation);
        }
        if changed {
            self.objects = Arc::new(objects);
        }
        self.entries = round.entries;
        self.created = round.created;
        self.bundle_errors.clone_from(&round.bundle_errors);
        let mut errors = round.errors;
        errors.append(&mut round.bundle_errors);
        sort(&mut errors);
        ApplyOutcome { changed, errors, notices: round.notices }
    }
}

/// Where a valid object comes from.
#[derive(Debug, Clone)]
struct Entry {
    origin: Origin,
    generation: Option<i64>,
}

/// One [`Index::apply`] while it runs.
#[derive(Default)]
struct Round {
    now: i64,
    entries: BTreeMap<ObjectRef, Entry>,
    /// The objects that were read; the others of `entries` are those of the last state.
    put: Vec<Object>,
    created: BTreeMap<ObjectRef, i64>,
    /// Where each object was first found in this round, valid or not.
    claimed: BTreeMap<ObjectRef, Origin>,
    unreadable: BTreeSet<Arc<str>>,
    errors: Vec<ConfigError>,
    bundle_errors: Vec<ConfigError>,
    notices: Vec<Notice>,
}

impl Round {
    fn error(
        &mut self,
        origin: &Origin,
        object: Option<ObjectRef>,
        error: FieldError,
    ) -> ConfigError {
        let error = config_error(origin, object, error);
        self.errors.push(error.clone());
        error
    }
}

fn config_error(origin: &Origin, object: Option<ObjectRef>, error: FieldError) -> ConfigError {
    let field = (!error.field.is_empty()).then_some(error.field);
    ConfigError { origin: origin.clone(), object, field, reason: error.reason }
}

/// By file and document.
fn sort(errors: &mut [ConfigError]) {
    errors.sort_by(|a, b| (&a.origin, &a.object).cmp(&(&b.origin, &b.object)));
}

#[cfg(test)]
#[path = "index/tests.rs"]
mod tests;
