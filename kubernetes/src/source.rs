//! The objects of a cluster as whole states, for the same index that a directory feeds.
//!
//! Every kind has a watcher of its own, one for each selected namespace. What they see
//! is trimmed and goes to one [`cache`], owned by the [`Source`]; the source gives a
//! whole state when something has changed. The first state waits until every kind that
//! the server serves has been listed once, because half a state looks like deletions. A
//! kind whose CRD is absent is asked for again and again and holds nothing up.
//!
//! States are gathered for a moment, and building them takes at most a fifth of the
//! time, however large they are and however often objects change.

pub mod cache;

pub mod kinds;

mod trim;

mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use isthmus_config::{Kind, SourceDocument};
use isthmus_runtime::clock;
use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::source::cache::{Cache, Change, Effect};
use crate::source::kinds::{Scope, Watched};
pub use crate::source::trim::{NodeState, PodState};

/// What is watched; the default is everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The namespaces whose objects are read; empty means all. Each has watchers of its
    /// own, so that rights in these namespaces are enough.
    pub namespaces: Vec<String>,
    /// Labels that a namespace must have for its objects to be read; empty means none.
    pub namespace_labels: BTreeMap<String, String>,
    /// Label selectors by kind, in the syntax of `kubectl -l`; the server applies them.
    pub object_labels: BTreeMap<Kind, String>,
}

/// Everything that is watched, at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// The objects, in order of their origin, for [`isthmus_config::Index`].
    pub documents: Vec<SourceDocument>,
    /// The pods that have not ended, in order of namespace and name.
    pub pods: Vec<PodState>,
    /// The nodes, in order of name.
    pub nodes: Vec<NodeState>,
    /// The kinds that the server does not serve.
    pub absent: Vec<Kind>,
}

/// A kind that has not been listed yet, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The kind, with its namespace where namespaces are selected.
    pub kind: String,
    /// The last error, if there was one.
    pub error: Option<String>,
}

/// A cluster that is watched. Dropping it ends the watch.
pub struct Source {
    cache: Cache,
    inputs: mpsc::Receiver<(Scope, Change)>,
    batch: Vec<(Scope, Change)>,
    // Aborts the watchers when the source is dropped.
    _watchers: JoinSet<()>,
    is_changed: bool,
    not_before: Option<Instant>,
    rest_until: Option<Instant>,
}

impl Source {
    /// Starts the watchers. Errors of the server are retried for ever and logged; what
    /// the source waits for is in [`Source::pending`].
    pub fn watch(client: &Client, selection: &Selection) -> Self {
        let scopes = kinds::scopes(selection);
        let (sender, inputs) = mpsc::channel(INPUTS_MAX);
        let mut watchers = JoinSet::new();
        for scope in &scopes {
            let labels = match scope.watched {
                Watched::Config(kind) => selection.object_labels.get(&kind).cloned(),
                Watched::Node | Watched::Pod => None,
            };
            let watcher =
                watch::Watcher::new(client.clone(), scope.clone(), labels, sender.clone());
            watchers.spawn(watcher.run());
        }
        Self {
            cache: Cache::new(scopes, selection.namespace_labels.clone()),
            inputs,
            batch: Vec::new(),
            _watchers: watchers,
            is_changed: true,
            not_before: None,
            rest_until: None,
        }
    }

    /// The next state; `None` when every watcher has ended, which only a panic brings.
    ///
    /// # Cancel safety
    ///
    /// Cancelling loses nothing: what was taken is in the cache.
    pub async fn next(&mut self) -> Option<State> {
        loop {
            let due = self.due(clock::now());
            if due.is_some_and(|due| due <= clock::now()) {
                return Some(self.build());
            }
            let due = due.map(tokio::time::Instant::from_std);
            let pause = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            // Inputs first: a state that is due may as well hold what is already there;
            // the time of the state is fixed, so that inputs cannot put it off.
            tokio::select! {
                biased;
                taken = self.inputs.recv_many(&mut self.batch, INPUTS_MAX) => {
                    if taken == 0 {
                        return None;
                    }
                    self.take();
                }
                () = pause => {}
            }
        }
    }

    /// The kinds that the first state waits for, or that are being listed again.
    pub fn pending(&self) -> Vec<Pending> {
        self.cache.pending()
    }

    fn take(&mut self) {
        for (scope, change) in self.batch.drain(..) {
            match self.cache.handle(&scope, change) {
                Effect::Changed => self.is_changed = true,
                Effect::Nothing => {}
            }
        }
    }

    /// When the next state is to be built; `None` until there is a reason to.
    fn due(&mut self, now: Instant) -> Option<Instant> {
        if !self.is_changed || !self.cache.is_complete() {
            return None;
        }
        let gathered = *self.not_before.get_or_insert(now + GATHER);
        Some(self.rest_until.map_or(gathered, |rest| rest.max(gathered)))
    }

    fn build(&mut self) -> State {
        let start = clock::now();
        let state = self.cache.state();
        let end = clock::now();
        self.is_changed = false;
        self.not_before = None;
        self.rest_until = Some(end + end.saturating_duration_since(start) * REST_FACTOR);
        state
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("pending", &self.pending()).finish_non_exhaustive()
    }
}

/// Events between the watchers and the cache; a full channel slows the watchers.
const INPUTS_MAX: usize = 1024;
/// How long changes are gathered before a state is built.
const GATHER: Duration = Duration::from_millis(5);
/// After a state, how many times the time that it took nothing is built.
const REST_FACTOR: u32 = 4;
