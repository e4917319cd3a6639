//! Counts of requests by step, route and outcome, and what came last. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// What came of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It failed, for this reason.
    Failed(String),
    /// This cluster served it.
    Served(String),
}

/// The counts of one route in one step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Requests that were answered, by serving cluster.
    pub(crate) served: BTreeMap<String, u64>,
    /// Requests that failed, by reason.
    pub(crate) failed: BTreeMap<String, u64>,
    /// The longest time to an answer.
    pub(crate) slowest: Duration,
}

impl Tally {
    /// Requests that were answered.
    pub(crate) fn served_total(&self) -> u64 {
        self.served.values().sum()
    }

    /// Requests that failed.
    pub(crate) fn failed_total(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Adds another tally.
    pub(crate) fn add(&mut self, other: &Self) {
        for (cluster, count) in &other.served {
            *self.served.entry(cluster.clone()).or_default() += count;
        }
        for (reason, count) in &other.failed {
            *self.failed.entry(reason.clone()).or_default() += count;
        }
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// A request in flight, as the board knows it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Ticket {
    step: usize,
    route: String,
    started: Instant,
}

/// All counts of a run.
#[derive(Debug, Default)]
pub(crate) struct Board {
    steps: Vec<Step>,
    recent: BTreeMap<String, VecDeque<(Instant, Outcome)>>,
}

#[derive(Debug, Default)]
struct Step {
    in_flight: u64,
    routes: BTreeMap<String, Tally>,
}

impl Board {
    /// Begins a step and returns its number; requests belong to the step in which they
    /// are started.
    pub(crate) fn begin_step(&mut self) -> usize {
        self.steps.push(Step::default());
        self.steps.len() - 1
    }

    /// Counts a request as started.
    pub(crate) fn start(&mut self, route: &str, now: Instant) -> Ticket {
        if self.steps.is_empty() {
            self.begin_step();
        }
        let step = self.steps.len() - 1;
        self.steps[step].in_flight += 1;
        Ticket { step, route: route.to_owned(), started: now }
    }

    /// Counts what came of it.
    pub(crate) fn finish(&mut self, ticket: Ticket, now: Instant, outcome: Outcome) {
        let Some(step) = self.steps.get_mut(ticket.step) else {
            return;
        };
        step.in_flight = step.in_flight.saturating_sub(1);
        let tally = step.routes.entry(ticket.route.clone()).or_default();
        match &outcome {
            Outcome::Failed(reason) => *tally.failed.entry(reason.clone()).or_default() += 1,
            Outcome::Served(cluster) => *tally.served.entry(cluster.clone()).or_default() += 1,
        }
        tally.slowest = tally.slowest.max(now.saturating_duration_since(ticket.started));
        let recent = self.recent.entry(ticket.route).or_default();
        if recent.len() >= RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back((now, outcome));
    }

    /// Requests of a step that have no outcome yet.
    pub(crate) fn in_flight(&self, step: usize) -> u64 {
        self.steps.get(step).map_or(0, |step| step.in_flight)
    }

    /// The counts of one step over all routes.
    pub(crate) fn step_total(&self, step: usize) -> Tally {
        let mut total = Tally::default();
        self.steps.get(step).into_iter().flat_map(|s| s.routes.values()).for_each(|t| total.add(t));
        total
    }

    /// The counts of the run by route.
    pub(crate) fn total(&self) -> BTreeMap<String, Tally> {
        let mut total: BTreeMap<String, Tally> = BTreeMap::new();
        for (route, tally) in self.steps.iter().flat_map(|step| &step.routes) {
            total.entry(route.clone()).or_default().add(tally);
        }
        total
    }

    /// The outcomes of a route within `window` before `now`.
    pub(crate) fn recent(&self, route: &str, now: Instant, window: Duration) -> Tally {
        let mut tally = Tally::default();
        let all = self.recent.get(route).into_iter().flatten().rev();
        let fresh = all.take_while(|(at, _)| now.saturating_duration_since(*at) <= window);
        for (_, outcome) in fresh {
            match outcome {
                Outcome::Failed(reason) => *tally.failed.entry(reason.clone()).or_default() += 1,
                Outcome::Served(cluster) => *tally.served.entry(cluster.clone()).or_default() += 1,
            }
        }
        tally
    }
}

/// Outcomes of one route that are remembered one by one: some seconds of it.
const RECENT_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn served(cluster: &str) -> Outcome {
        Outcome::Served(cluster.to_owned())
    }

    #[test]
    fn a_request_counts_for_the_step_in_which_it_was_started() {
        let now = isthmus_runtime::clock::now();
        let mut board = Board::default();
        board.begin_step();
        let slow = board.start("r", now);
        board.begin_step();
        let quick = board.start("r", now);
        board.finish(quick, now, served("a"));
        assert_eq!((board.in_flight(0), board.in_flight(1)), (1, 0));
        board.finish(slow, now + Duration::from_secs(2), Outcome::Failed("timeout".to_owned()));
        assert_eq!(board.step_total(0).failed_total(), 1);
        assert_eq!(board.step_total(0).slowest, Duration::from_secs(2));
        assert_eq!(board.step_total(1).served_total(), 1);
        assert_eq!(board.total()["r"].served_total(), 1);
    }

    #[test]
    fn only_fresh_outcomes_are_recent() {
        let now = isthmus_runtime::clock::now();
        let mut board = Board::default();
        for (second, cluster) in ["a", "a", "b"].into_iter().enumerate() {
            let at = now + Duration::from_secs(second as u64);
            let ticket = board.start("r", at);
            board.finish(ticket, at, served(cluster));
        }
        let recent = board.recent("r", now + Duration::from_secs(2), Duration::from_millis(500));
        assert_eq!(recent.served, BTreeMap::from([("b".to_owned(), 1)]));
        assert_eq!(board.recent("other", now, Duration::MAX), Tally::default());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let now = isthmus_runtime::clock::now();
        let mut board = Board::default();
        for _ in 0..RECENT_MAX + 10 {
            let ticket = board.start("r", now);
            board.finish(ticket, now, served("a"));
        }
        assert_eq!(board.recent("r", now, Duration::ZERO).served_total(), RECENT_MAX as u64);
        assert_eq!(board.step_total(0).served_total(), RECENT_MAX as u64 + 10);
    }
}
