//! Picks an endpoint for each request: the nearest tier that is usable, and in it the
//! less busy of two endpoints chosen at random.
//!
//! A [`Balancer`] belongs to one worker and one [`Assignment`]; what must outlive a new
//! assignment (requests in flight, connections, history of failures) is in the
//! [`EndpointState`], which balancers share by the endpoint's key.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_model::{AppProtocol, Assignment, Endpoint, EndpointTarget, ServiceKey, Snapshot};

use crate::outlier::{Outcome, Outlier, OutlierSettings};
use crate::pool::Connections;
use crate::rng::Rng;

/// Everything one worker remembers of one endpoint.
pub(crate) struct EndpointState {
    /// The connections to it.
    pub(crate) connections: Connections,
    in_flight: Cell<u32>,
    outlier: RefCell<Outlier>,
}

impl EndpointState {
    fn new() -> Self {
        Self {
            connections: Connections::default(),
            in_flight: Cell::new(0),
            outlier: RefCell::new(Outlier::default()),
        }
    }

    /// Notes what a request came to; returns whether the endpoint is ejected by it.
    pub(crate) fn record(
        &self,
        now: Instant,
        outcome: Outcome,
        settings: &OutlierSettings,
    ) -> bool {
        self.outlier.borrow_mut().record(now, outcome, settings)
    }
}

impl fmt::Debug for EndpointState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointState").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

/// A picked endpoint; counts as in flight until it is dropped.
///
/// Holds the worker's own balancer and an index, not the endpoint's `Arc`: no counter
/// that two workers share is touched for a request.
#[derive(Debug)]
pub(crate) struct Picked {
    balancer: Rc<Balancer>,
    index: u32,
}

impl Picked {
    /// The endpoint.
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.balancer.assignment.endpoints[self.index as usize]
    }

    /// The assignment that it was picked from.
    pub(crate) fn assignment(&self) -> &Assignment {
        &self.balancer.assignment
    }

    /// What this worker remembers of the endpoint.
    pub(crate) fn state(&self) -> &Rc<EndpointState> {
        &self.balancer.states[self.index as usize]
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        let in_flight = &self.state().in_flight;
        in_flight.set(in_flight.get().saturating_sub(1));
    }
}

/// Endpoints that a request has tried in vain, by index; bounded by the retry limit.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tried {
    indices: Vec<u32>,
}

impl Tried {
    /// Leaves an endpoint out of further picks of this request.
    pub(crate) fn add(&mut self, picked: &Picked) {
        self.indices.push(picked.index);
    }
}

/// The endpoints of one assignment on one worker.
#[derive(Debug)]
pub(crate) struct Balancer {
    assignment: Arc<Assignment>,
    states: Vec<Rc<EndpointState>>,
}

impl Balancer {
    /// Picks an endpoint that the request has not tried.
    ///
    /// Tiers are looked at from near to far. When every endpoint of every tier is
    /// ejected, ejection is ignored: a guess is better than a certain failure.
    pub(crate) fn pick(
        self: &Rc<Self>,
        now: Instant,
        rng: &mut Rng,
        tried: &Tried,
        settings: &OutlierSettings,
    ) -> Option<Picked> {
        if let ([tier], true) = (self.assignment.tiers.as_slice(), tried.indices.is_empty())
            && let [only] = tier.members.as_slice()
        {
            return Some(self.picked(*only));
        }
        let untried = |index: &u32| !tried.indices.contains(index);
        let healthy = |index: &u32| {
            untried(index) && !self.states[*index as usize].outlier.borrow().is_ejected(now)
        };
        for tier in &self.assignment.tiers {
            if let Some(found) = self.two_choices(&tier.members, rng, healthy) {
                let ejected = tier.members.iter().filter(|index| !healthy(index)).count();
                let share =
                    ejected * 100 > tier.members.len() * usize::from(settings.max_ejection_percent);
                let found =
                    if share { self.two_choices(&tier.members, rng, untried) } else { Some(found) };
                return found.map(|index| self.picked(index));
            }
        }
        let any = self.assignment.tiers.iter();
        any.filter_map(|tier| self.two_choices(&tier.members, rng, untried))
            .next()
            .map(|index| self.picked(index))
    }

    /// The less busy of two random members, in proportion to their weights.
    fn two_choices(
        &self,
        members: &[u32],
        rng: &mut Rng,
        usable: impl Fn(&u32) -> bool,
    ) -> Option<u32> {
        let one = self.random(members, rng, &usable)?;
        let other = self.random(members, rng, &usable)?;
        let load = |index: u32| {
            let weight = u64::from(self.assignment.endpoints[index as usize].weight.max(1));
            (u64::from(self.states[index as usize].in_flight.get()) + 1) * LOAD_SCALE / weight
        };
        Some(if load(other) < load(one) { other } else { one })
    }

    /// A random usable member: a few throws, then the next usable one in order.
    fn random(
        &self,
        members: &[u32],
        rng: &mut Rng,
        usable: &impl Fn(&u32) -> bool,
    ) -> Option<u32> {
        for _ in 0..THROWS {
            let index = *members.get(rng.below(members.len()))?;
            if usable(&index) && self.survives_weight(index, members, rng) {
                return Some(index);
            }
        }
        let start = rng.below(members.len());
        let in_turn = members[start..].iter().chain(&members[..start]);
        in_turn.copied().find(|index| usable(index))
    }

    /// Rejection sampling by weight against the heaviest member of the throw.
    fn survives_weight(&self, index: u32, members: &[u32], rng: &mut Rng) -> bool {
        let weight = |index: u32| usize::from(self.assignment.endpoints[index as usize].weight);
        let rival = weight(members[rng.below(members.len())]);
        rival <= weight(index) || rng.below(rival) < weight(index)
    }

    fn picked(self: &Rc<Self>, index: u32) -> Picked {
        let in_flight = &self.states[index as usize].in_flight;
        in_flight.set(in_flight.get() + 1);
        Picked { balancer: Rc::clone(self), index }
    }
}

/// The balancers of one worker.
#[derive(Debug, Default)]
pub(crate) struct Balancers {
    /// By the address of the assignment, which the entry keeps alive.
    /// Ordered, because hashing a number safely costs more than a few comparisons.
    current: BTreeMap<usize, (Arc<Assignment>, Rc<Balancer>)>,
    endpoints: HashMap<EndpointKey, Weak<EndpointState>>,
}

impl Balancers {
    /// The balancer of an assignment, made when it is first asked for.
    pub(crate) fn get(&mut self, assignment: &Arc<Assignment>) -> Rc<Balancer> {
        let address = Arc::as_ptr(assignment) as usize;
        if let Some((_, balancer)) = self.current.get(&address) {
            return Rc::clone(balancer);
        }
        let states = assignment
            .endpoints
            .iter()
            .map(|endpoint| self.state(EndpointKey::new(endpoint, assignment)))
            .collect();
        let balancer = Rc::new(Balancer { assignment: Arc::clone(assignment), states });
        // The former balancer of the port goes, so that what it alone held is let go.
        self.current
            .retain(|_, (old, _)| old.service != assignment.service || old.port != assignment.port);
        self.current.insert(address, (Arc::clone(assignment), Rc::clone(&balancer)));
        balancer
    }

    /// Closes upstream connections that have been idle for longer than `limit`.
    pub(crate) fn close_idle(&mut self, now: Instant, limit: Duration) {
        self.endpoints.retain(|_, state| match state.upgrade() {
            Some(state) => {
                state.connections.close_idle(now, limit);
                true
            }
            None => false,
        });
    }

    /// Lets go of assignments that no snapshot has any more, and of their endpoints.
    pub(crate) fn sweep(&mut self, snapshot: &Snapshot) {
        self.current.retain(|_, (held, balancer)| {
            let current = snapshot.assignment(&held.service, held.port);
            current.is_some_and(|now| Arc::ptr_eq(now, held)) || Rc::strong_count(balancer) > 1
        });
        self.endpoints.retain(|_, state| state.strong_count() > 0);
    }

    fn state(&mut self, key: EndpointKey) -> Rc<EndpointState> {
        if let Some(state) = self.endpoints.get(&key).and_then(Weak::upgrade) {
            return state;
        }
        let state = Rc::new(EndpointState::new());
        self.endpoints.insert(key, Rc::downgrade(&state));
        state
    }
}

/// What makes two endpoints the same destination.
#[derive(Debug, PartialEq, Eq, Hash)]
struct EndpointKey {
    service: ServiceKey,
    port: u16,
    app: AppProtocol,
    id: String,
    target: String,
    identity: Option<String>,
}

impl EndpointKey {
    fn new(endpoint: &Endpoint, assignment: &Assignment) -> Self {
        let target = match &endpoint.target {
            EndpointTarget::Local { address, mesh } => format!("{address} {mesh:?}"),
            EndpointTarget::Remote { cluster, port } => format!("{cluster} {port}"),
        };
        Self {
            service: assignment.service.clone(),
            port: assignment.port,
            app: assignment.app,
            id: endpoint.id.to_string(),
            target,
            identity: endpoint.identity.as_ref().map(ToString::to_string),
        }
    }
}

/// Keeps fractions of loads apart in whole numbers.
const LOAD_SCALE: u64 = 1 << 16;
/// Random throws before members are tried in turn.
const THROWS: usize = 8;

#[cfg(test)]
mod tests {
    use isthmus_model::endpoint::PortEndpoints;
    use isthmus_model::service::{ServicePort, Transport};
    use isthmus_model::{EndpointId, Health, Label, Locality};

    use super::*;

    fn assignment(endpoints: &[(&str, &str, u16)]) -> Arc<Assignment> {
        let endpoints = endpoints
            .iter()
            .map(|(id, zone, weight)| Endpoint {
                id: EndpointId::new(id).unwrap(),
                target: EndpointTarget::Local {
                    address: "127.0.0.1:1".parse().unwrap(),
                    mesh: None,
                },
                locality: Locality::new("r", zone),
                weight: *weight,
                health: Health::Ready,
                identity: None,
                hostname: None,
            })
            .collect();
        let key = ServiceKey::cluster(Label::new("n").unwrap(), Label::new("s").unwrap());
        let port = ServicePort {
            name: None,
            number: 80,
            transport: Transport::Tcp,
            app: AppProtocol::Http,
            app_protocol: None,
        };
        let group = PortEndpoints { port: 80, transport: Transport::Tcp, endpoints };
        let from = Locality::new("r", "near");
        Arc::new(Assignment::build(&key, &port, Some(&group), &from, &Default::default()))
    }

    fn shares(balancer: &Rc<Balancer>, now: Instant, count: usize) -> HashMap<String, usize> {
        let (mut rng, settings) = (Rng::new(7), OutlierSettings::default());
        let mut shares = HashMap::new();
        for _ in 0..count {
            let picked = balancer.pick(now, &mut rng, &Tried::default(), &settings).unwrap();
            *shares.entry(picked.endpoint().id.to_string()).or_default() += 1;
        }
        shares
    }

    #[test]
    fn requests_stay_in_the_near_tier_and_spread_by_weight() {
        let assignment = assignment(&[("a", "near", 100), ("b", "near", 100), ("far", "x", 100)]);
        let balancer = Balancers::default().get(&assignment);
        let shares = shares(&balancer, isthmus_runtime::clock::now(), 2000);
        assert!(!shares.contains_key("far"));
        assert!((800..1200).contains(&shares["a"]), "{shares:?}");
    }

    #[test]
    fn the_next_tier_serves_while_the_near_one_is_ejected() {
        let assignment = assignment(&[("a", "near", 1), ("far", "x", 1)]);
        let balancer = Balancers::default().get(&assignment);
        let (now, settings) = (isthmus_runtime::clock::now(), OutlierSettings::default());
        for _ in 0..2 {
            balancer.states[0].record(now, Outcome::ConnectFailure, &settings);
        }
        assert_eq!(shares(&balancer, now, 10)["far"], 10);
        assert_eq!(shares(&balancer, now + Duration::from_secs(11), 10)["a"], 10);
    }

    #[test]
    fn when_all_are_ejected_one_is_picked_all_the_same() {
        let assignment = assignment(&[("a", "near", 1), ("b", "near", 1)]);
        let balancer = Balancers::default().get(&assignment);
        let (now, settings) = (isthmus_runtime::clock::now(), OutlierSettings::default());
        for state in &balancer.states {
            state.record(now, Outcome::ConnectFailure, &settings);
            state.record(now, Outcome::ConnectFailure, &settings);
        }
        assert_eq!(shares(&balancer, now, 10).into_values().sum::<usize>(), 10);
    }

    #[test]
    fn a_tried_endpoint_is_not_picked_again_and_the_busy_one_less() {
        let assignment = assignment(&[("a", "near", 1), ("b", "near", 1)]);
        let balancer = Balancers::default().get(&assignment);
        let (now, settings) = (isthmus_runtime::clock::now(), OutlierSettings::default());
        let (mut rng, mut tried) = (Rng::new(1), Tried::default());
        let first = balancer.pick(now, &mut rng, &tried, &settings).unwrap();
        tried.add(&first);
        let second = balancer.pick(now, &mut rng, &tried, &settings).unwrap();
        assert_ne!(first.endpoint().id, second.endpoint().id);
        tried.add(&second);
        assert!(balancer.pick(now, &mut rng, &tried, &settings).is_none());
        drop(second);
        // `first` is still in flight: of two choices the other wins whenever both come up.
        let busy = first.endpoint().id.to_string();
        let shares = shares(&balancer, now, 1000);
        assert!(shares[&busy] < 350, "{shares:?}");
    }

    #[test]
    fn state_survives_a_new_assignment() {
        let mut balancers = Balancers::default();
        let before = balancers.get(&assignment(&[("a", "near", 1), ("b", "near", 1)]));
        let after = balancers.get(&assignment(&[("b", "near", 1)]));
        assert!(Rc::ptr_eq(&before.states[1], &after.states[0]));
    }
}
