//! The proxy's side, sans-IO: the last good state, and the services that it asks for.
//!
//! A delta is applied as a whole or not at all. Inside it each resource stands for itself:
//! one that does not decode, or is not what its key says, is refused by name and its last
//! good version stays. What is refused as a whole is a delta that would go back in time:
//! an older generation of the same epoch. A new epoch is a restarted controller and is
//! taken, since the stream it comes on is authenticated.

pub(crate) mod backoff;

pub(crate) mod names;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use isthmus_model::{Generation, Resource, ResourceKey, ResourceKind, ServiceKey};

use crate::message::{ClientMessage, Delta, Hello, Position, Rejection, Upsert, Version};
use crate::node::NodeIdentity;
use crate::wire::decode::{REJECTIONS_MAX, RESOURCES_MAX};

pub(crate) use backoff::Backoff;
pub(crate) use names::{Names, NamesSettings, Resolved, Want};

/// A resource in use, with the version that the publisher gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) version: Version,
    pub(crate) resource: Arc<Resource>,
}

/// A state that was saved, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) position: Position,
    pub(crate) names: Vec<ServiceKey>,
    pub(crate) held: BTreeMap<ResourceKey, Held>,
}

/// What one proxy knows.
#[derive(Debug)]
pub(crate) struct Subscriber {
    node: NodeIdentity,
    position: Option<Position>,
    held: BTreeMap<ResourceKey, Held>,
    names: Names,
}

/// A delta that is refused as a whole; the stream ends and the last good state stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubscriberError {
    #[error("the controller went back from generation {held} to {offered} in one epoch")]
    Rollback { held: Generation, offered: Generation },
    #[error("{count} resources of one change cannot be used, at most {REJECTIONS_MAX} are named")]
    TooManyRejections { count: usize },
    #[error("the state would have {count} resources, at most {RESOURCES_MAX} are held")]
    TooManyResources { count: usize },
}

/// A delta that is in use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Whether the resources are others than before.
    pub(crate) changed: bool,
    /// What to tell the publisher once the snapshot is in place.
    pub(crate) answer: ClientMessage,
    /// The resources of this delta that are not in use.
    pub(crate) rejections: Vec<Rejection>,
    /// The names whose waiters can be told.
    pub(crate) resolved: Vec<(ServiceKey, Resolved)>,
}

impl Subscriber {
    /// Starts from a saved state, if there is one.
    pub(crate) fn new(
        now: Instant,
        node: NodeIdentity,
        settings: NamesSettings,
        saved: Option<Saved>,
    ) -> Self {
        let mut names = Names::new(now, settings);
        let (mut position, mut held) = (None, BTreeMap::new());
        if let Some(saved) = saved {
            names.restore(now, saved.names);
            (position, held) = (Some(saved.position), saved.held);
        }
        Self { node, position, held, names }
    }

    /// Says what is held, at the start of each stream.
    pub(crate) fn handle_connected(&mut self, now: Instant) -> ClientMessage {
        let held = self.held.iter().map(|(key, held)| (key.clone(), held.version)).collect();
        let names = self.names.handle_connected(now);
        let (node, position) = (self.node.clone(), self.position);
        ClientMessage::Hello(Box::new(Hello { node, position, held, names }))
    }

    /// Notes that the stream has ended.
    pub(crate) fn handle_disconnected(&mut self) {
        self.names.handle_disconnected();
    }

    /// Applies a delta, all or nothing.
    pub(crate) fn handle_delta(
        &mut self,
        now: Instant,
        delta: Delta,
    ) -> Result<Applied, SubscriberError> {
        let offered = delta.position;
        if let Some(held) = self.position
            && held.epoch == offered.epoch
            && offered.generation < held.generation
        {
            let (held, offered) = (held.generation, offered.generation);
            return Err(SubscriberError::Rollback { held, offered });
        }
        let mut rejections: Vec<_> = delta
            .unknown
            .iter()
            .map(|(kind, name)| Rejection::named(kind, name, &"this version has no such kind"))
            .collect();
        let mut upserts = Vec::with_capacity(delta.upserts.len());
        for upsert in delta.upserts {
            match read(&self.node, upsert) {
                Ok(pair) => upserts.push(pair),
                Err(rejection) => rejections.push(rejection),
            }
        }
        let count = rejections.len();
        if count > REJECTIONS_MAX {
            return Err(SubscriberError::TooManyRejections { count });
        }
        let count = self.held.len() + upserts.len();
        if count > RESOURCES_MAX {
            return Err(SubscriberError::TooManyResources { count });
        }
        let changed = !upserts.is_empty() || !delta.removals.is_empty();
        delta.removals.iter().for_each(|key| drop(self.held.remove(key)));
        self.held.extend(upserts);
        self.position = Some(offered);
        let answer = match rejections.as_slice() {
            [] => ClientMessage::Ack(delta.nonce),
            some => ClientMessage::Nack(delta.nonce, some.to_vec()),
        };
        let mut resolved = Vec::new();
        for name in delta.present {
            let known = self.holds(&name);
            resolved.extend(self.names.handle_answer(now, name, known));
        }
        for name in delta.absent {
            resolved.extend(self.names.handle_answer(now, name, false));
        }
        Ok(Applied { changed, answer, rejections, resolved })
    }

    /// Asks for a service.
    pub(crate) fn handle_want(&mut self, now: Instant, name: &ServiceKey) -> Want {
        let held = self.holds(name);
        if self.position.is_none() && !self.node.role.is_on_demand() {
            return Want::Unready;
        }
        if !self.node.role.is_on_demand() {
            return Want::Resolved(if held { Resolved::Known } else { Resolved::Absent });
        }
        self.names.handle_want(now, name, held)
    }

    /// What to send for the names that came and went.
    pub(crate) fn poll_names(&mut self) -> Vec<ClientMessage> {
        self.names.poll()
    }

    /// The names that are asked for.
    pub(crate) fn names(&mut self) -> &mut Names {
        &mut self.names
    }

    /// The position of the state in use.
    pub(crate) fn position(&self) -> Option<Position> {
        self.position
    }

    /// The resources in use.
    pub(crate) fn resources(&self) -> BTreeMap<ResourceKey, Arc<Resource>> {
        let shared = |held: &Held| Arc::clone(&held.resource);
        self.held.iter().map(|(key, held)| (key.clone(), shared(held))).collect()
    }

    /// What to save; `None` before the first state.
    pub(crate) fn to_saved(&self) -> Option<Saved> {
        let names = self.names.to_saved();
        self.position.map(|position| Saved { position, names, held: self.held.clone() })
    }

    fn holds(&self, name: &ServiceKey) -> bool {
        let key = ResourceKey { kind: ResourceKind::Service, name: name.host() };
        self.held.contains_key(&key)
    }
}

/// Checks one resource against its key and against what the role may hold.
fn read(node: &NodeIdentity, upsert: Upsert) -> Result<(ResourceKey, Held), Rejection> {
    let key = upsert.key();
    if !node.role.kinds().contains(&key.kind) {
        return Err(Rejection::new(key, &format_args!("is not for the role {}", node.role)));
    }
    match upsert {
        Upsert::Shared(entry) => {
            let resource = Arc::clone(&entry.resource);
            Ok((entry.key.clone(), Held { version: entry.version, resource }))
        }
        Upsert::Json { key, version, json } => {
            let resource: Resource =
                serde_json::from_slice(&json).map_err(|error| Rejection::new(&key, &error))?;
            let own = resource.key();
            if own != key {
                return Err(Rejection::new(&key, &format_args!("the content names {own}")));
            }
            Ok((key, Held { version, resource: Arc::new(resource) }))
        }
    }
}

#[cfg(test)]
mod tests;
