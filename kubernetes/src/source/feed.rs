//! Watchers, the cache that they fill, and when it is read.
//!
//! States are gathered for a moment, and building them takes at most a fifth of the
//! time, however large they are and however often objects change.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use isthmus_runtime::clock;
use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::source::Pending;
use crate::source::cache::{Cache, Change, Effect};
use crate::source::kinds::{Scope, Watched};
use crate::source::watch::Watcher;

/// Scopes that are watched. Dropping it ends the watch.
pub(crate) struct Feed {
    cache: Cache,
    inputs: mpsc::Receiver<(Scope, Change)>,
    batch: Vec<(Scope, Change)>,
    // Aborts the watchers when the feed is dropped.
    _watchers: JoinSet<()>,
    is_changed: bool,
    not_before: Option<Instant>,
    rest_until: Option<Instant>,
}

impl Feed {
    /// Starts a watcher for each scope, with the label selector of its kind.
    pub(crate) fn watch(
        client: &Client,
        scopes: Vec<Scope>,
        namespace_labels: BTreeMap<String, String>,
        labels: impl Fn(Watched) -> Option<String>,
    ) -> Self {
        let (sender, inputs) = mpsc::channel(INPUTS_MAX);
        let mut watchers = JoinSet::new();
        for scope in &scopes {
            let labels = labels(scope.watched);
            let watcher = Watcher::new(client.clone(), scope.clone(), labels, sender.clone());
            watchers.spawn(watcher.run());
        }
        Self {
            cache: Cache::new(scopes, namespace_labels),
            inputs,
            batch: Vec::new(),
            _watchers: watchers,
            is_changed: true,
            not_before: None,
            rest_until: None,
        }
    }

    /// The next state, as `build` reads it from the cache; `None` when every watcher has
    /// ended, which only a panic brings.
    ///
    /// # Cancel safety
    ///
    /// Cancelling loses nothing: what was taken is in the cache.
    pub(crate) async fn next<T>(&mut self, build: impl Fn(&Cache) -> T) -> Option<T> {
        loop {
            let due = self.due(clock::now());
            if due.is_some_and(|due| due <= clock::now()) {
                return Some(self.build(build));
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
    pub(crate) fn pending(&self) -> Vec<Pending> {
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

    fn build<T>(&mut self, build: impl Fn(&Cache) -> T) -> T {
        let start = clock::now();
        let state = build(&self.cache);
        let end = clock::now();
        self.is_changed = false;
        self.not_before = None;
        self.rest_until = Some(end + end.saturating_duration_since(start) * REST_FACTOR);
        state
    }
}

/// Events between the watchers and the cache; a full channel slows the watchers.
const INPUTS_MAX: usize = 1024;
/// How long changes are gathered before a state is built.
const GATHER: Duration = Duration::from_millis(5);
/// After a state, how many times the time that it took nothing is built.
const REST_FACTOR: u32 = 4;
