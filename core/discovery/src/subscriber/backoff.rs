//! How long to wait before the next attempt to reach the controller.

use std::time::Duration;

/// Doubles from [`FIRST`] to a limit, each time with jitter over its upper half, so that
/// proxies that lost one controller together do not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    limit: Duration,
    next: Duration,
}

impl Backoff {
    /// A backoff that never waits longer than `limit`.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, next: FIRST.min(limit) }
    }

    /// The next pause; `random` is any 64 random bits.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.limit);
        let half = whole / 2;
        // At most a limit of seconds, so the nanoseconds fit easily.
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(random % nanos.max(1))
    }

    /// Starts again from the shortest pause: a stream worked.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST.min(self.limit);
    }
}

/// The first pause.
const FIRST: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_are_spread() {
        let limit = Duration::from_secs(10);
        let mut backoff = Backoff::new(limit);
        let first = backoff.next(0);
        assert_eq!(first, FIRST / 2);
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            let pause = backoff.next(random);
            assert!(pause <= limit && pause >= FIRST / 2, "{pause:?}");
        }
        for _ in 0..10 {
            backoff.next(0);
        }
        assert_eq!(backoff.next(0), limit / 2);
        assert!(backoff.next(u64::MAX) < limit);
        backoff.reset();
        assert_eq!(backoff.next(0), FIRST / 2);
    }
}
