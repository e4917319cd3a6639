//! Pauses between failed requests of one watcher.
//!
//! They grow only to a few seconds: while a kind is not watched the data plane keeps pods
//! that are gone, and there is one controller for each cluster, whose few dozen watchers
//! are no load to a server that comes back. Each watcher has a length of its own, so that
//! they do not ask in step.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::source::kinds::Scope;

/// The pauses of one watcher; the first is short again after [`Pauses::reset`].
#[derive(Debug, Clone)]
pub(crate) struct Pauses {
    failures: u32,
    /// What is added to each pause, in percent.
    percent: u32,
}

impl Pauses {
    /// The pauses of the watcher of a scope.
    pub(crate) fn of(scope: &Scope) -> Self {
        let mut hasher = DefaultHasher::new();
        scope.hash(&mut hasher);
        let percent = u32::try_from(hasher.finish() % SPREAD_PERCENT).unwrap_or_default();
        Self { failures: 0, percent }
    }

    /// How long to wait after one more failure.
    pub(crate) fn after_failure(&mut self) -> Duration {
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(DOUBLINGS_MAX)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        pause + pause * self.percent / 100
    }

    /// A request has succeeded.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause, before the spread.
const PAUSE_MAX: Duration = Duration::from_secs(2);
const DOUBLINGS_MAX: u32 = 8;
const SPREAD_PERCENT: u64 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_begin_anew_after_a_success() {
        let mut pauses = Pauses { failures: 0, percent: 20 };
        let millis: Vec<_> = (0..5).map(|_| pauses.after_failure().as_millis()).collect();
        assert_eq!(millis, [300, 600, 1200, 2400, 2400]);
        pauses.reset();
        assert_eq!(pauses.after_failure(), Duration::from_millis(300));
        pauses.failures = u32::MAX;
        assert_eq!(pauses.after_failure(), Duration::from_millis(2400));
    }
}
