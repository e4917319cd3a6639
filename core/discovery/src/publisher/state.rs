//! One published state: resources with their JSON and version, and their index.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use isthmus_model::{Generation, Resource, ResourceKey, ResourceKind, ServiceKey};

use super::index::Index;
use crate::message::{Epoch, Position, Rejection, Version};

/// One resource as it is sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: ResourceKey,
    pub(crate) version: Version,
    pub(crate) resource: Arc<Resource>,
    pub(crate) json: Bytes,
}

/// Everything that is published at one generation.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) position: Position,
    entries: BTreeMap<ResourceKey, Arc<Entry>>,
    index: Index,
}

impl State {
    /// Makes the state of a generation; unchanged resources are taken from the former one.
    ///
    /// A resource that cannot be sent is returned as a rejection, and its last good version
    /// stays published.
    pub(crate) fn next(
        former: Option<&Self>,
        epoch: Epoch,
        generation: Generation,
        resources: &BTreeMap<ResourceKey, Arc<Resource>>,
    ) -> (Self, Vec<Rejection>) {
        let mut rejections = Vec::new();
        let mut entries = BTreeMap::new();
        for (key, resource) in resources {
            let last = former.and_then(|state| state.entries.get(key));
            let made = match last {
                Some(last) if unchanged(&last.resource, resource) => Ok(Arc::clone(last)),
                Some(_) | None => entry(key, resource).map(Arc::new),
            };
            match made {
                Ok(entry) => {
                    entries.insert(key.clone(), entry);
                }
                Err(rejection) => {
                    rejections.push(rejection);
                    if let Some(last) = last {
                        entries.insert(key.clone(), Arc::clone(last));
                    }
                }
            }
        }
        let index = Index::of(entries.values());
        let position = Position { epoch, generation };
        (Self { position, entries, index }, rejections)
    }

    pub(crate) fn entry(&self, key: &ResourceKey) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }

    pub(crate) fn of_kind(&self, kind: ResourceKind) -> impl Iterator<Item = &Arc<Entry>> {
        let first = ResourceKey { kind, name: String::new() };
        self.entries
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(move |(key, _)| key.kind == kind)
            .map(|(_, entry)| entry)
    }

    pub(crate) fn service(&self, service: &ServiceKey) -> Option<&Arc<Entry>> {
        self.entry(&ResourceKey { kind: ResourceKind::Service, name: service.host() })
    }

    pub(crate) fn endpoints(&self, service: &ServiceKey) -> Option<&Arc<Entry>> {
        self.entry(&ResourceKey { kind: ResourceKind::Endpoints, name: service.host() })
    }

    /// The policies for TLS to a service: of all of it, and of its ports.
    pub(crate) fn backend_tls(&self, service: &ServiceKey) -> impl Iterator<Item = &Arc<Entry>> {
        let kind = ResourceKind::BackendTls;
        let all = ResourceKey { kind, name: service.host() };
        // The names of ports are the host, a colon and a number; `;` is what follows `:`.
        let first = ResourceKey { kind, name: format!("{}:", all.name) };
        let end = ResourceKey { kind, name: format!("{};", all.name) };
        let ports = self.entries.range(first..end).map(|(_, entry)| entry);
        self.entry(&all).into_iter().chain(ports)
    }

    /// Who serves what, and what is attached where.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }
}

fn unchanged(former: &Arc<Resource>, now: &Arc<Resource>) -> bool {
    Arc::ptr_eq(former, now) || former == now
}

fn entry(key: &ResourceKey, resource: &Arc<Resource>) -> Result<Entry, Rejection> {
    let own = resource.key();
    if own != *key {
        return Err(Rejection::new(key, &format_args!("the content names {own}")));
    }
    let json = serde_json::to_vec(resource).map_err(|error| Rejection::new(key, &error))?;
    if json.len() > RESOURCE_BYTES_MAX {
        let reason = format!("has {} bytes, at most {RESOURCE_BYTES_MAX} are sent", json.len());
        return Err(Rejection::new(key, &reason));
    }
    let version = Version::of(&json);
    Ok(Entry { key: own, version, resource: Arc::clone(resource), json: json.into() })
}

/// Bytes of JSON in one resource: what still fits a message with its names.
pub(crate) const RESOURCE_BYTES_MAX: usize = 3 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bundle, resources, service};

    #[test]
    fn unchanged_resources_keep_their_entry_and_version() {
        let first = resources([service("a", "10.0.0.1"), service("b", "10.0.0.2")]);
        let (former, _) = State::next(None, Epoch(1), Generation(1), &first);
        let second = resources([service("a", "10.0.0.1"), service("b", "10.0.0.9")]);
        let (next, rejections) = State::next(Some(&former), Epoch(1), Generation(2), &second);
        assert!(rejections.is_empty());
        let same = |key: &ResourceKey| Arc::ptr_eq(&former.entries[key], &next.entries[key]);
        let keys: Vec<_> = first.keys().collect();
        assert!(same(keys[0]) && !same(keys[1]));
    }

    #[test]
    fn a_resource_that_cannot_be_sent_keeps_its_last_good_version() {
        let good = resources([bundle("a.test", 1)]);
        let (former, _) = State::next(None, Epoch(1), Generation(1), &good);
        let Resource::TrustBundle(mut huge) = bundle("a.test", 2) else { unreachable!() };
        huge.jwks = "x".repeat(RESOURCE_BYTES_MAX);
        let bad = resources([Resource::TrustBundle(huge), bundle("b.test", 1)]);
        let (next, rejections) = State::next(Some(&former), Epoch(1), Generation(2), &bad);
        assert_eq!(rejections.len(), 1);
        assert_eq!(rejections[0].name, "a.test");
        let names: Vec<_> = next.of_kind(ResourceKind::TrustBundle).collect();
        assert_eq!(names.len(), 2);
        assert_eq!(*names[0].resource, bundle("a.test", 1));
    }
}
