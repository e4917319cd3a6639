//! Steady traffic in the background, counting what fails.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Call;
use crate::wait::eventually_true;

/// Requests that go on until they are stopped.
pub(crate) struct Traffic {
    tally: Arc<Tally>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Tally {
    succeeded: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Traffic {
    /// Sends each of the requests again and again, each on a new connection.
    pub(crate) fn start(calls: impl IntoIterator<Item = Call>) -> Self {
        let (tally, stop) = (Arc::<Tally>::default(), watch::Sender::new(false));
        let mut tasks = JoinSet::new();
        for call in calls {
            tasks.spawn(repeat(call, Arc::clone(&tally), stop.subscribe()));
        }
        Self { tally, stop, tasks }
    }

    /// Waits until so many more requests have succeeded.
    pub(crate) async fn flows(&self, count: usize) {
        let target = self.tally.succeeded.load(Ordering::Relaxed) + count;
        eventually_true("requests succeed", || {
            self.tally.succeeded.load(Ordering::Relaxed) >= target
        })
        .await;
    }

    /// Ends, after the requests that are under way, and fails if any request failed.
    pub(crate) async fn ends_without_a_failure(self) {
        let (succeeded, failures) = self.end().await;
        assert!(succeeded > 0);
        let count = failures.len();
        assert_eq!(count, 0, "{count} of {} failed: {failures:?}", succeeded + count);
    }

    /// Ends and gives the number of successes and every failure.
    pub(crate) async fn end(mut self) -> (usize, Vec<String>) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        let failures = self.tally.failures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.tally.succeeded.load(Ordering::Relaxed), failures)
    }
}

async fn repeat(call: Call, tally: Arc<Tally>, stop: watch::Receiver<bool>) {
    let mut pace = tokio::time::interval(PACE);
    while !*stop.borrow() {
        pace.tick().await;
        let failure = match call.try_send().await {
            Ok(reply) if reply.status == 200 => {
                tally.succeeded.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Ok(reply) => format!("{} {}", reply.status, reply.text()),
            Err(error) => error,
        };
        tally.failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
    }
}

/// Time between two requests of one sender.
const PACE: Duration = Duration::from_millis(5);
