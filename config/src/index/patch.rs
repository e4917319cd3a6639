//! A state that differs from the last one in a few documents.
//!
//! Both are in order of their origins, so one walk finds the documents that have come,
//! gone, or are not the same value as before. Only those are read. What one document says
//! depends on others in two ways: two may hold one object, and a link may name a
//! ConfigMap. Where either may have changed nothing is patched, and the whole round
//! decides.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::{ApplyOutcome, Entry, Index, Notice, config_error, sort};
use crate::error::ConfigError;
use crate::kind::{Kind, ObjectRef};
use crate::objects::{Object, Objects};
use crate::raw::document::{Identified, Schema, identify};
use crate::source::{Content, SourceDocument};
use crate::validate::{generation, has_creation_time, validate};

/// A document of the last state, and the one thing that it holds.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) document: SourceDocument,
    pub(super) read: Read,
}

impl Place {
    /// Whether a document is the same value, by its pointer alone.
    pub(super) fn is_same(&self, document: &SourceDocument) -> bool {
        match (&self.document.content, &document.content) {
            (Content::Object(before), Content::Object(now)) => Arc::ptr_eq(before, now),
            (_, _) => false,
        }
    }
}

/// What a document holds.
#[derive(Debug, Clone)]
pub(super) enum Read {
    /// An object that is not valid; the last good version stays.
    Rejected(ObjectRef, ConfigError),
    /// A kind that is not read.
    Unread(Notice),
    /// A valid object.
    Valid(ObjectRef),
}

impl Read {
    fn reference(&self) -> Option<&ObjectRef> {
        match self {
            Self::Rejected(reference, _) | Self::Valid(reference) => Some(reference),
            Self::Unread(_) => None,
        }
    }
}

/// What has changed, by the numbers of the places of the last state.
#[derive(Default)]
struct Changes<'d> {
    gone: Vec<usize>,
    replaced: Vec<(usize, &'d SourceDocument)>,
    new: Vec<&'d SourceDocument>,
}

/// The changed documents, read.
struct Freshly {
    replaced: Vec<(usize, Fresh)>,
    new: Vec<Fresh>,
}

/// A document that was read anew.
struct Fresh {
    place: Place,
    valid: Option<Valid>,
}

/// A valid object, with what is kept beside it.
struct Valid {
    object: Object,
    generation: Option<i64>,
    /// When it was first seen, where it does not say its creation time.
    first_seen: Option<i64>,
}

impl Index {
    /// Takes a state, in order of the origins, by what has changed in it; `None` where the
    /// whole round must decide, and nothing has been done then.
    pub(super) fn patch(&mut self, ordered: &[&SourceDocument], now: i64) -> Option<ApplyOutcome> {
        if !self.is_plain {
            return None;
        }
        let changes = self.changes(ordered);
        let Freshly { replaced, new } = self.read_changes(&changes, now)?;
        let mut objects = Objects::clone(&self.objects);
        let mut changed = false;
        for at in &changes.gone {
            if let Some(Read::Rejected(reference, _) | Read::Valid(reference)) =
                self.places.get(*at).map(|place| &place.read)
            {
                self.entries.remove(reference);
                self.created.remove(reference);
                changed |= objects.remove(reference);
            }
        }
        let moved = !changes.gone.is_empty() || !new.is_empty();
        for (at, fresh) in replaced {
            changed |= self.take(&fresh.place, fresh.valid, &mut objects);
            if let Some(place) = self.places.get_mut(at) {
                *place = fresh.place;
            }
        }
        if moved {
            let gone: BTreeSet<usize> = changes.gone.into_iter().collect();
            let mut at = 0;
            self.places.retain(|_| {
                at += 1;
                !gone.contains(&(at - 1))
            });
            for fresh in new {
                changed |= self.take(&fresh.place, fresh.valid, &mut objects);
                self.places.push(fresh.place);
            }
            self.places.sort_by(|a, b| a.document.origin.cmp(&b.document.origin));
        }
        if changed {
            self.objects = Arc::new(objects);
        }
        Some(self.outcome(changed))
    }

    /// Walks both states.
    fn changes<'d>(&self, ordered: &[&'d SourceDocument]) -> Changes<'d> {
        let mut changes = Changes::default();
        let mut documents = ordered.iter().copied().peekable();
        for (at, place) in self.places.iter().enumerate() {
            let before = &place.document.origin;
            while let Some(new) = documents.next_if(|now| now.origin < *before) {
                changes.new.push(new);
            }
            match documents.next_if(|now| now.origin.cmp(before) == Ordering::Equal) {
                None => changes.gone.push(at),
                Some(now) if place.is_same(now) => {}
                Some(now) => changes.replaced.push((at, now)),
            }
        }
        changes.new.extend(documents);
        changes
    }

    /// Reads what has changed; `None` where it touches other documents.
    fn read_changes(&self, changes: &Changes<'_>, now: i64) -> Option<Freshly> {
        for at in &changes.gone {
            let reference = self.places.get(*at).and_then(|place| place.read.reference());
            if reference.is_some_and(is_shared) {
                return None;
            }
        }
        let mut replaced = Vec::with_capacity(changes.replaced.len());
        for (at, document) in &changes.replaced {
            let fresh = self.fresh(document, now)?;
            let before = self.places.get(*at)?.read.reference();
            if fresh.place.read.reference() != before {
                return None;
            }
            replaced.push((*at, fresh));
        }
        let mut new = Vec::with_capacity(changes.new.len());
        let mut names: BTreeSet<&ObjectRef> = if changes.new.is_empty() {
            BTreeSet::new()
        } else {
            // Also those that are not valid and have no entry.
            self.places.iter().filter_map(|place| place.read.reference()).collect()
        };
        for document in &changes.new {
            new.push(self.fresh(document, now)?);
        }
        let is_distinct = new
            .iter()
            .filter_map(|fresh: &Fresh| fresh.place.read.reference())
            .all(|reference| names.insert(reference));
        is_distinct.then_some(Freshly { replaced, new })
    }

    /// Reads one document; `None` where it does not hold one thing that stands alone.
    fn fresh(&self, document: &SourceDocument, now: i64) -> Option<Fresh> {
        let Content::Object(value) = &document.content else { return None };
        let mut found = identify(serde_json::Value::clone(value));
        let (only, true) = (found.pop()?, found.is_empty()) else { return None };
        let origin = &document.origin;
        let (read, valid) = match only {
            Identified::Object { reference, .. } if is_shared(&reference) => return None,
            Identified::Object { reference, value } => {
                let first_seen = self.created.get(&reference).copied().unwrap_or(now);
                match validate(&reference, &value, first_seen, Schema::Open) {
                    Ok(object) => {
                        let first_seen = (!has_creation_time(&value)).then_some(first_seen);
                        let generation = generation(&value);
                        (Read::Valid(reference), Some(Valid { object, generation, first_seen }))
                    }
                    Err(error) => {
                        let error = config_error(origin, Some(reference.clone()), error);
                        (Read::Rejected(reference, error), None)
                    }
                }
            }
            Identified::Invalid { reference, error } => {
                let reference = reference.filter(|reference| !is_shared(reference))?;
                let error = config_error(origin, Some(reference.clone()), error);
                (Read::Rejected(reference, error), None)
            }
            Identified::Unread { kind } => {
                (Read::Unread(Notice { origin: origin.clone(), kind }), None)
            }
        };
        Some(Fresh { place: Place { document: document.clone(), read }, valid })
    }

    /// Takes what was read; an object that is not valid stays as it was. Says whether the
    /// objects have changed.
    fn take(&mut self, place: &Place, valid: Option<Valid>, objects: &mut Objects) -> bool {
        let (Read::Valid(reference), Some(valid)) = (&place.read, valid) else { return false };
        match valid.first_seen {
            Some(first_seen) => drop(self.created.insert(reference.clone(), first_seen)),
            None => drop(self.created.remove(reference)),
        }
        let origin = place.document.origin.clone();
        self.entries.insert(reference.clone(), Entry { origin, generation: valid.generation });
        let is_newer = objects.generations.set(reference, valid.generation);
        objects.put(valid.object) || is_newer
    }

    fn outcome(&self, changed: bool) -> ApplyOutcome {
        let mut outcome =
            ApplyOutcome { changed, errors: self.bundle_errors.clone(), ..ApplyOutcome::default() };
        for place in &self.places {
            match &place.read {
                Read::Rejected(_, error) => outcome.errors.push(error.clone()),
                Read::Unread(notice) => outcome.notices.push(notice.clone()),
                Read::Valid(_) => {}
            }
        }
        sort(&mut outcome.errors);
        outcome
    }
}

/// Whether no two documents name one object, valid or not.
pub(super) fn is_distinct(places: &[Place]) -> bool {
    let mut names = BTreeSet::new();
    places.iter().filter_map(|place| place.read.reference()).all(|name| names.insert(name))
}

/// Whether an object of the kind says something of another document, or has text for one.
fn is_shared(reference: &ObjectRef) -> bool {
    matches!(reference.kind, Kind::ClusterLink | Kind::ConfigMap)
}

#[cfg(test)]
mod tests;
