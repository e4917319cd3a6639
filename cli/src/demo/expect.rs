//! What a step waits for, as values that are checked against what is observed. Pure.

use std::time::{Duration, Instant};

use super::admin::Statuses;
use super::tally::Board;

/// One thing that must be so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Every cluster answers and refuses none of its objects.
    Ready,
    /// One end of a link says that it is up, on this transport.
    Link {
        /// The end that is asked.
        from: String,
        /// The other end.
        to: String,
        /// `quic` or `tcp`.
        transport: &'static str,
    },
    /// A cluster's authority has published new bundles.
    Bundle {
        /// The cluster.
        of: String,
        /// How many at least since the step began.
        grown_by: u64,
    },
    /// Every answer of a route in the last second came from this cluster.
    Served {
        /// The route.
        route: String,
        /// The cluster.
        by: String,
    },
    /// A route was answered in the last second, by whomever.
    Answered {
        /// The route.
        route: String,
    },
}

/// What is observed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'s> {
    /// The time of the observation.
    pub(crate) now: Instant,
    /// What the clusters say.
    pub(crate) statuses: &'s Statuses,
    /// What they said when the step began.
    pub(crate) before: &'s Statuses,
    /// What came of the requests.
    pub(crate) board: &'s Board,
}

impl Expect {
    /// Why it is not so; `None` when it is.
    pub(crate) fn unmet(&self, seen: Seen<'_>) -> Option<String> {
        match self {
            Self::Answered { route } => {
                let recent = seen.board.recent(route, seen.now, WINDOW);
                (recent.served_total() < ANSWERS_MIN).then(|| format!("{route}: no answers"))
            }
            Self::Bundle { of, grown_by } => bundle(seen, of, *grown_by),
            Self::Link { from, to, transport } => link(seen.statuses, from, to, transport),
            Self::Ready => ready(seen.statuses),
            Self::Served { route, by } => served(seen, route, by),
        }
    }
}

fn ready(statuses: &Statuses) -> Option<String> {
    for (cluster, status) in statuses {
        let Some(status) = status else {
            return Some(format!("{cluster} does not answer"));
        };
        let Some(errors) = &status.config_errors else {
            return Some(format!("{cluster} has not read its manifests"));
        };
        if let Some(error) = errors.first() {
            return Some(format!("{cluster} refuses an object: {error}"));
        }
    }
    None
}

fn link(statuses: &Statuses, from: &str, to: &str, transport: &str) -> Option<String> {
    let Some(Some(status)) = statuses.get(from) else {
        return Some(format!("{from} does not answer"));
    };
    let Some(peer) = status.peer(to) else {
        return Some(format!("{from} has no peer {to}"));
    };
    if !peer.is_up() {
        let state = peer.state.as_deref().unwrap_or("unknown");
        return Some(format!("link {from} - {to} is {state}"));
    }
    let now = peer.transport.as_deref().unwrap_or("nothing");
    (now != transport).then(|| format!("link {from} - {to} is on {now}, not {transport}"))
}

fn bundle(seen: Seen<'_>, of: &str, grown_by: u64) -> Option<String> {
    let sequence = |statuses: &Statuses| statuses.get(of)?.as_ref()?.bundle_sequence;
    let (Some(now), Some(before)) = (sequence(seen.statuses), sequence(seen.before)) else {
        return Some(format!("{of} does not say its bundle"));
    };
    let grown = now.saturating_sub(before);
    let so_far = || format!("{of} has published {grown} of {grown_by} new bundles");
    (grown < grown_by).then(so_far)
}

fn served(seen: Seen<'_>, route: &str, by: &str) -> Option<String> {
    let recent = seen.board.recent(route, seen.now, WINDOW);
    if let Some((reason, count)) = recent.failed.first_key_value() {
        return Some(format!("{route}: {count} failed ({reason})"));
    }
    if recent.served_total() < ANSWERS_MIN {
        return Some(format!("{route}: no answers"));
    }
    let other = recent.served.keys().find(|cluster| *cluster != by)?;
    Some(format!("{route} is served by {other}, not {by}"))
}

/// How far back `Served` and `Answered` look.
const WINDOW: Duration = Duration::from_secs(1);
/// Fewer answers than this in the window are none.
const ANSWERS_MIN: u64 = 3;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::admin::{Peer, Status};
    use super::super::tally::Outcome;
    use super::*;

    fn statuses(state: &str, transport: Option<&str>, sequence: u64) -> Statuses {
        let peer = Peer {
            cluster: "b".to_owned(),
            state: Some(state.to_owned()),
            transport: transport.map(str::to_owned),
            ..Peer::default()
        };
        let bundle_sequence = Some(sequence);
        let status = Status { peers: vec![peer], bundle_sequence, ..Status::default() };
        Statuses::from([("a".to_owned(), Some(Arc::new(status)))])
    }

    fn unmet(expect: &Expect, statuses: &Statuses, before: &Statuses) -> Option<String> {
        let now = isthmus_runtime::clock::now();
        expect.unmet(Seen { now, statuses, before, board: &Board::default() })
    }

    fn link() -> Expect {
        Expect::Link { from: "a".to_owned(), to: "b".to_owned(), transport: "tcp" }
    }

    #[test]
    fn a_link_must_be_up_and_on_its_transport() {
        let check = |statuses: &Statuses| unmet(&link(), statuses, statuses);
        assert_eq!(check(&statuses("up", Some("tcp"), 1)), None);
        let quic = check(&statuses("up", Some("quic"), 1)).unwrap();
        assert_eq!(quic, "link a - b is on quic, not tcp");
        assert_eq!(check(&statuses("down", None, 1)).unwrap(), "link a - b is down");
        let silent = Statuses::from([("a".to_owned(), None)]);
        assert_eq!(check(&silent).unwrap(), "a does not answer");
    }

    #[test]
    fn a_bundle_must_have_grown_since_the_step_began() {
        let expect = Expect::Bundle { of: "a".to_owned(), grown_by: 2 };
        let at = |sequence| statuses("up", None, sequence);
        assert_eq!(unmet(&expect, &at(7), &at(5)), None);
        let unmet = unmet(&expect, &at(6), &at(5)).unwrap();
        assert_eq!(unmet, "a has published 1 of 2 new bundles");
    }

    #[test]
    fn a_route_must_be_served_by_one_cluster_without_failures() {
        let now = isthmus_runtime::clock::now();
        let mut board = Board::default();
        let none = Statuses::new();
        let expect = Expect::Served { route: "r".to_owned(), by: "a".to_owned() };
        let check = |board: &Board, later| {
            let now = now + Duration::from_secs(later);
            expect.unmet(Seen { now, statuses: &none, before: &none, board })
        };
        assert_eq!(check(&board, 0).unwrap(), "r: no answers");
        let add = |board: &mut Board, after, outcome| {
            let at = now + Duration::from_secs(after);
            let ticket = board.start("r", at);
            board.finish(ticket, at, outcome);
        };
        add(&mut board, 0, Outcome::Served("b".to_owned()));
        add(&mut board, 0, Outcome::Failed("503".to_owned()));
        for _ in 0..3 {
            add(&mut board, 1, Outcome::Served("a".to_owned()));
        }
        assert_eq!(check(&board, 1).unwrap(), "r: 1 failed (503)");
        for _ in 0..3 {
            add(&mut board, 2, Outcome::Served("a".to_owned()));
        }
        assert_eq!(check(&board, 3), None);
        assert_eq!(check(&board, 9).unwrap(), "r: no answers");
    }
}
