//! The statuses of one state after the other, each with what has not changed from before.
//!
//! Nearly all objects of a large cluster that have a status of ours are routes, and an edit
//! changes one of them. The status of a valid route is made from the object as it is
//! observed, the valid route, what the translation says of it, and from which Gateways and
//! ListenerSets are ours. The first two are told by their pointers, which the watch and the
//! index keep for what has not changed; the others are compared. Gateways, classes,
//! policies and everything that is rejected are few and are always made anew.
//!
//! What is made anew and is equal to what was there before is given as the same pointer:
//! [`crate::apply::StatusPlanner`] passes over what it has compared.
//!
//! There is an entry for each observed object of the last state and no other, so their
//! number is bounded by that of the live objects. An entry holds the values whose pointers
//! it goes by, so that none of them is given to another value meanwhile.

use std::sync::Arc;

use isthmus_config::{ConditionPart, Kind, ObjectRef};
use serde_json::Value;

use crate::apply::StatusPair;
use crate::status::condition::Condition;
use crate::status::routes::Route;
use crate::status::world::{Name, World, with_status};
use crate::status::{StatusInputs, gateways, policies, routes};

/// Makes the statuses of one state after the other.
///
/// They depend on the inputs alone and never on those before, which decide only what has
/// to be made.
#[derive(Debug, Default)]
pub struct Statuses {
    /// In order of kind, namespace and name.
    entries: Vec<Entry>,
    /// [`World::ours`] of the last state.
    ours: Vec<ObjectRef>,
}

impl Statuses {
    /// The statuses that are to be applied: every object of ours that is observed, with its
    /// names and the `status` that it should have, ordered by kind, namespace and name.
    pub fn turn(&mut self, inputs: &StatusInputs<'_>) -> Vec<StatusPair> {
        let world = World::new(inputs);
        let ours = world.ours();
        let has_same_parents = ours == self.ours;
        self.ours = ours;
        let mut before = std::mem::take(&mut self.entries).into_iter().peekable();
        self.entries.reserve_exact(world.observed.len());
        for (name, observed) in &world.observed {
            let is_same = |entry: &Entry| Arc::ptr_eq(&entry.observed, observed);
            // Both are in order. Most objects are where they were, and a pointer is compared
            // sooner than a name.
            if !before.peek().is_some_and(is_same) {
                while before.next_if(|entry| entry.name() < Some(*name)).is_some() {}
            }
            let known = before.next_if(|entry| is_same(entry) || entry.name() == Some(*name));
            let is_current = |entry: &Entry| {
                has_same_parents && is_same(entry) && entry.made_from.is_same(&world, *name)
            };
            self.entries.push(match known {
                Some(known) if is_current(&known) => known,
                known => Entry::new(&world, *name, observed, known),
            });
        }
        self.entries.iter().filter_map(Entry::pair).collect()
    }
}

/// An observed object and its status.
#[derive(Debug)]
struct Entry {
    observed: Arc<Value>,
    made_from: MadeFrom,
    /// `None` where the object gets no word from us.
    desired: Option<Arc<Value>>,
}

impl Entry {
    fn new(world: &World<'_>, name: Name<'_>, observed: &Arc<Value>, before: Option<Self>) -> Self {
        let desired = status(world, name, observed).map(|status| with_status(observed, status));
        let before = before.and_then(|before| before.desired);
        let desired = desired.map(|new| match before {
            Some(before) if *before == new => before,
            Some(_) | None => Arc::new(new),
        });
        Self { observed: Arc::clone(observed), made_from: MadeFrom::of(world, name), desired }
    }

    fn name(&self) -> Option<Name<'_>> {
        Name::of(&self.observed)
    }

    fn pair(&self) -> Option<StatusPair> {
        let desired = Arc::clone(self.desired.as_ref()?);
        Some(StatusPair { desired, observed: Arc::clone(&self.observed) })
    }
}

/// What a status was made from besides the observed object and [`World::ours`].
#[derive(Debug)]
enum MadeFrom {
    /// More than is told here, so it is made anew each time.
    More,
    /// A valid route, and what the translation says of it.
    Route { route: Route, said: Vec<(ConditionPart, Condition)> },
}

impl MadeFrom {
    fn of(world: &World<'_>, name: Name<'_>) -> Self {
        match world.routes.get(&name) {
            Some(route) if !world.is_rejected(name) => {
                let said = world.conditions(name).map(|it| (it.part.clone(), Condition::from(it)));
                Self::Route { route: route.clone(), said: said.collect() }
            }
            Some(_) | None => Self::More,
        }
    }

    fn is_same(&self, world: &World<'_>, name: Name<'_>) -> bool {
        let Self::Route { route, said } = self else { return false };
        let mut said = said.iter();
        !world.is_rejected(name)
            && world.routes.get(&name).is_some_and(|now| now.is_same(route))
            && world.conditions(name).all(|now| {
                let before = said.next();
                before.is_some_and(|(part, condition)| *part == now.part && condition.says(now))
            })
            && said.next().is_none()
    }
}

fn status(world: &World<'_>, name: Name<'_>, observed: &Value) -> Option<Value> {
    match name.kind {
        "BackendTLSPolicy" => policies::status(world, name, observed),
        "GRPCRoute" => routes::status(world, (name, Kind::GrpcRoute), observed),
        "Gateway" => gateways::gateway(world, name, observed),
        "GatewayClass" => gateways::class(world, name, observed),
        "HTTPRoute" => routes::status(world, (name, Kind::HttpRoute), observed),
        "ListenerSet" => gateways::listener_set(world, name, observed),
        "TCPRoute" => routes::status(world, (name, Kind::TcpRoute), observed),
        "TLSRoute" => routes::status(world, (name, Kind::TlsRoute), observed),
        "UDPRoute" => routes::status(world, (name, Kind::UdpRoute), observed),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
