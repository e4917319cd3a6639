//! One subscriber's stream as a state machine.
//!
//! [`Flow`] has three states. `Fresh`: the subscriber has said Hello and has heard nothing,
//! so it gets a delta even if that is empty, which tells it that its state is current.
//! `InFlight`: a delta waits for its answer; nothing is sent meanwhile. `Idle`: everything
//! sent was answered; a delta is sent as soon as there is a difference.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use isthmus_model::{Generation, ResourceKey, ResourceKind, ServiceKey};

use super::state::State;
use super::visibility::{Visible, visible};
use crate::message::{ClientMessage, Delta, Hello, LinkReport, Nonce, Rejection, Upsert, Version};
use crate::node::NodeIdentity;

/// What the publisher knows of one subscriber.
#[derive(Debug)]
pub(crate) struct Subscription {
    node: NodeIdentity,
    held: BTreeMap<ResourceKey, Version>,
    /// Versions that the subscriber refused; not sent again until they change.
    refused: BTreeMap<ResourceKey, (Version, Rejection)>,
    names: BTreeMap<ServiceKey, Answer>,
    names_changed: bool,
    flow: Flow,
    nonce: u64,
    /// The generation whose visible part the subscriber has acknowledged.
    synced: Option<Generation>,
}

/// A breach of the protocol, which ends the stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubscriptionError {
    #[error("no answer to the delta within {} s", ACK_TIMEOUT.as_secs())]
    AckTimeout,
    #[error("a second hello on one stream")]
    SecondHello,
    #[error("more than {NAMES_MAX} services wanted")]
    TooManyNames,
    #[error("an answer to delta {nonce}, which is not in flight")]
    UnexpectedAnswer { nonce: u64 },
}

/// What a message meant, for those who keep the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Handled {
    /// Only this subscription is concerned.
    Here,
    /// The node reports on its links.
    Report(Vec<LinkReport>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Absent,
    None,
    Present,
}

#[derive(Debug)]
enum Flow {
    Fresh,
    Idle,
    InFlight(InFlight),
}

#[derive(Debug)]
struct InFlight {
    nonce: Nonce,
    generation: Generation,
    deadline: Instant,
    upserts: BTreeMap<ResourceKey, Version>,
    removals: Vec<ResourceKey>,
    answers: Vec<(ServiceKey, Answer)>,
}

impl Subscription {
    /// Starts from what the subscriber holds.
    pub(crate) fn new(node: NodeIdentity, hello: Hello) -> Result<Self, SubscriptionError> {
        let mut subscription = Self {
            node,
            held: hello.held,
            refused: BTreeMap::new(),
            names: BTreeMap::new(),
            names_changed: false,
            flow: Flow::Fresh,
            nonce: 0,
            synced: None,
        };
        subscription.subscribe(hello.names)?;
        Ok(subscription)
    }

    /// Takes a message of the subscriber.
    pub(crate) fn handle(&mut self, message: ClientMessage) -> Result<Handled, SubscriptionError> {
        match message {
            ClientMessage::Ack(nonce) => self.answered(nonce, Vec::new())?,
            ClientMessage::Hello(_) => return Err(SubscriptionError::SecondHello),
            ClientMessage::Nack(nonce, rejections) => self.answered(nonce, rejections)?,
            ClientMessage::Report(links) => return Ok(Handled::Report(links)),
            ClientMessage::Subscribe(names) => self.subscribe(names)?,
            ClientMessage::Unsubscribe(names) => {
                for name in names {
                    self.names_changed |= self.names.remove(&name).is_some();
                }
            }
        }
        Ok(Handled::Here)
    }

    /// The next delta to send, if one is due.
    pub(crate) fn poll_delta(&mut self, now: Instant, state: &State) -> Option<Delta> {
        let generation = state.position.generation;
        let fresh = match self.flow {
            Flow::InFlight(_) => return None,
            Flow::Idle if !self.names_changed && self.synced == Some(generation) => return None,
            Flow::Idle => false,
            Flow::Fresh => true,
        };
        self.names_changed = false;
        let desired = visible(&self.node, state, self.names.keys());
        // A refusal is forgotten when the resource changes or goes.
        self.refused.retain(|key, (version, _)| {
            desired.get(key).is_some_and(|entry| entry.version == *version)
        });
        let delta = self.difference(state, &desired);
        if !fresh && is_empty(&delta) {
            self.synced = Some(generation);
            return None;
        }
        self.nonce += 1;
        self.flow = Flow::InFlight(InFlight::new(now, &delta));
        Some(delta)
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        match &self.flow {
            Flow::InFlight(sent) => Some(sent.deadline),
            Flow::Fresh | Flow::Idle => None,
        }
    }

    /// Ends a subscriber that does not answer.
    pub(crate) fn handle_timeout(&self, now: Instant) -> Result<(), SubscriptionError> {
        match self.next_timeout() {
            Some(deadline) if deadline <= now => Err(SubscriptionError::AckTimeout),
            Some(_) | None => Ok(()),
        }
    }

    /// The generation that the subscriber has in use.
    pub(crate) fn synced(&self) -> Option<Generation> {
        self.synced
    }

    /// How many services it asked for.
    pub(crate) fn name_count(&self) -> usize {
        self.names.len()
    }

    /// The resources that it refuses now.
    pub(crate) fn rejections(&self) -> Vec<Rejection> {
        self.refused.values().map(|(_, rejection)| rejection.clone()).collect()
    }

    fn subscribe(&mut self, names: Vec<ServiceKey>) -> Result<(), SubscriptionError> {
        for name in names {
            // Asked again means that the subscriber has no answer any more.
            self.names.insert(name, Answer::None);
            self.names_changed = true;
        }
        if self.names.len() > NAMES_MAX {
            return Err(SubscriptionError::TooManyNames);
        }
        Ok(())
    }

    fn difference(&self, state: &State, desired: &Visible<'_>) -> Delta {
        let lacks = |key: &ResourceKey, version: Version| {
            self.held.get(key) != Some(&version) && !self.refused.contains_key(key)
        };
        let upserts = desired
            .iter()
            .filter(|(key, entry)| lacks(key, entry.version))
            .map(|(_, entry)| Upsert::Shared((*entry).clone()))
            .collect();
        let removals = self.held.keys().filter(|key| !desired.contains_key(key)).cloned().collect();
        let (mut present, mut absent) = (Vec::new(), Vec::new());
        for (name, answer) in &self.names {
            match (state.service(name).is_some(), answer) {
                (true, Answer::Absent | Answer::None) => present.push(name.clone()),
                (false, Answer::None | Answer::Present) => absent.push(name.clone()),
                (true, Answer::Present) | (false, Answer::Absent) => {}
            }
        }
        let (position, nonce) = (state.position, Nonce(self.nonce + 1));
        Delta { position, nonce, upserts, removals, unknown: Vec::new(), present, absent }
    }

    fn answered(
        &mut self,
        nonce: Nonce,
        rejections: Vec<Rejection>,
    ) -> Result<(), SubscriptionError> {
        let sent = match std::mem::replace(&mut self.flow, Flow::Idle) {
            Flow::InFlight(sent) if sent.nonce == nonce => sent,
            Flow::Fresh | Flow::Idle | Flow::InFlight(_) => {
                return Err(SubscriptionError::UnexpectedAnswer { nonce: nonce.0 });
            }
        };
        let InFlight { generation, mut upserts, removals, answers, .. } = sent;
        for rejection in rejections {
            // A rejection of what was not sent says nothing and is passed over.
            let Some(kind) = ResourceKind::from_label(&rejection.kind) else { continue };
            let key = ResourceKey { kind, name: rejection.name.clone() };
            if let Some(version) = upserts.remove(&key) {
                self.refused.insert(key, (version, rejection));
            }
        }
        self.held.extend(upserts);
        for key in &removals {
            self.held.remove(key);
        }
        for (name, answer) in answers {
            if let Some(current) = self.names.get_mut(&name) {
                *current = answer;
            }
        }
        self.synced = Some(generation);
        Ok(())
    }
}

impl InFlight {
    fn new(now: Instant, delta: &Delta) -> Self {
        let upserts = delta.upserts.iter().filter_map(|upsert| match upsert {
            Upsert::Shared(entry) => Some((entry.key.clone(), entry.version)),
            Upsert::Json { .. } => None,
        });
        let present = delta.present.iter().map(|name| (name.clone(), Answer::Present));
        let absent = delta.absent.iter().map(|name| (name.clone(), Answer::Absent));
        Self {
            nonce: delta.nonce,
            generation: delta.position.generation,
            deadline: now + ACK_TIMEOUT,
            upserts: upserts.collect(),
            removals: delta.removals.clone(),
            answers: present.chain(absent).collect(),
        }
    }
}

fn is_empty(delta: &Delta) -> bool {
    let Delta { upserts, removals, present, absent, .. } = delta;
    upserts.is_empty() && removals.is_empty() && present.is_empty() && absent.is_empty()
}

/// How long a subscriber may take to answer a delta before its stream is ended.
pub(crate) const ACK_TIMEOUT: Duration = Duration::from_secs(60);

/// Services that one sidecar may ask for; above what the client itself asks for.
pub(crate) const NAMES_MAX: usize = 16_384;

#[cfg(test)]
mod tests;
