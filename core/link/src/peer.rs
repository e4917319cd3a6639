//! One peer: its live connections and how one is picked for a new stream.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::link::{Link, Rank, StreamGuard};
use crate::options::PeerConfig;
use crate::proto::selector::ChangeReason;
use crate::shared::Phase;
use crate::status::{LinkState, LinkStatus};

/// A configured peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) config: PeerConfig,
    links: ArcSwap<Vec<Arc<Link>>>,
    /// Where the search for the next stream's connection starts.
    turn: AtomicUsize,
    pub(crate) phase: watch::Sender<Phase>,
    /// Grows when a connection comes, goes or changes its rank.
    pub(crate) links_changed: watch::Sender<u64>,
    history: Mutex<History>,
}

#[derive(Debug)]
struct History {
    changes: BTreeMap<ChangeReason, u64>,
    state: LinkState,
    since: Instant,
    last_error: Option<String>,
}

/// What came of the search for a connection.
#[derive(Debug)]
pub(crate) enum Picked {
    /// All connections are full.
    Busy { connections: usize },
    /// A place on a connection.
    Link(StreamGuard),
    /// No connection takes streams.
    None,
}

impl Peer {
    pub(crate) fn new(now: Instant, config: PeerConfig) -> Self {
        Self {
            config,
            links: ArcSwap::default(),
            turn: AtomicUsize::new(0),
            phase: watch::Sender::new(Phase::Running),
            links_changed: watch::Sender::new(0),
            history: Mutex::new(History {
                changes: BTreeMap::new(),
                state: LinkState::Down,
                since: now,
                last_error: None,
            }),
        }
    }

    /// Adds a connection unless there are `max`.
    pub(crate) fn add(&self, now: Instant, link: &Arc<Link>, max: usize) -> bool {
        let before = self.links.rcu(|links| {
            let mut links = Vec::clone(links);
            if links.len() < max {
                links.push(Arc::clone(link));
            }
            links
        });
        self.on_links_changed(now);
        before.len() < max
    }

    pub(crate) fn remove(&self, now: Instant, link: &Arc<Link>) {
        self.links.rcu(|links| {
            let mut links = Vec::clone(links);
            links.retain(|own| own.id != link.id);
            links
        });
        self.on_links_changed(now);
    }

    /// Notes a change of a connection or its rank.
    pub(crate) fn on_links_changed(&self, now: Instant) {
        let state = self.state();
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.state != state {
            let (peer, old) = (self.config.cluster.as_str(), history.state.label());
            tracing::info!(peer, old, new = state.label(), "link state changed");
            (history.state, history.since) = (state, now);
        }
        drop(history);
        self.links_changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn note_change(&self, reason: ChangeReason) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        *history.changes.entry(reason).or_default() += 1;
    }

    pub(crate) fn note_error(&self, error: String) {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).last_error = Some(error);
    }

    /// A place on the best connection: active before standby, fewest streams first.
    ///
    /// Equal ones take turns, so that streams spread over workers and paths.
    pub(crate) fn pick(&self) -> Picked {
        let links = self.links.load();
        let count = links.len();
        if count == 0 {
            return Picked::None;
        }
        let start = self.turn.fetch_add(1, Ordering::Relaxed) % count;
        let (front, back) = links.split_at(start);
        let mut usable: Vec<&Arc<Link>> =
            back.iter().chain(front).filter(|link| link.rank() != Rank::Closing).collect();
        if usable.is_empty() {
            return Picked::None;
        }
        usable.sort_by_key(|link| (std::cmp::Reverse(link.rank()), link.streams()));
        match usable.into_iter().find_map(Link::reserve) {
            Some(guard) => Picked::Link(guard),
            None => Picked::Busy { connections: count },
        }
    }

    pub(crate) fn status(&self) -> LinkStatus {
        let links = self.links.load_full();
        let best = links.iter().map(|link| link.rank()).max();
        let active: Vec<&Arc<Link>> =
            links.iter().filter(|link| Some(link.rank()) == best).collect();
        let measured: Vec<_> = active.iter().map(|link| link.measured()).collect();
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        LinkStatus {
            peer: self.config.cluster.clone(),
            state: self.state(),
            transport: active.iter().map(|link| link.connection.transport()).min(),
            rtt: measured.iter().map(|m| m.sample.rtt).filter(|rtt| !rtt.is_zero()).min(),
            loss: measured.iter().map(|m| m.sample.loss).fold(0.0, f64::max),
            goodput: links.iter().map(|link| link.measured().sample.goodput).sum(),
            connections: links.len(),
            streams: links.iter().map(|link| link.streams()).sum(),
            changes: history.changes.clone(),
            since: history.since,
            address: active.first().map(|link| link.connection.remote_address()),
            peer_stats: measured.first().map(|m| m.peer).unwrap_or_default(),
            last_error: history.last_error.clone(),
        }
    }

    fn state(&self) -> LinkState {
        let links = self.links.load();
        match links.iter().map(|link| link.rank()).max() {
            None => LinkState::Down,
            Some(Rank::Closing) => LinkState::Draining,
            Some(Rank::Active | Rank::Standby) => LinkState::Up,
        }
    }
}
