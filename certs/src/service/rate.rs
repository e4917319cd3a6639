//! How often one caller may have a key signed; pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A token bucket for each caller: a workload of a user, a pod, an address.
///
/// Callers are real ones (registered, reviewed, connected), which bounds the map; a bucket
/// that is full again is forgotten.
#[derive(Debug)]
pub(crate) struct SignRate<K> {
    burst: u32,
    refill: Duration,
    buckets: BTreeMap<K, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// When the bucket will be full again.
    full_at: Instant,
}

/// Whether a request may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RateVerdict {
    Allowed,
    /// The next one is allowed after this pause.
    Limited(Duration),
}

impl<K: Ord + Clone> SignRate<K> {
    /// `burst` requests at once, and one more for each `refill`.
    pub(crate) fn new(burst: u32, refill: Duration) -> Self {
        let refill = refill.min(REFILL_MAX);
        Self { burst: burst.max(1), refill, buckets: BTreeMap::new() }
    }

    /// A request came.
    pub(crate) fn handle(&mut self, now: Instant, caller: &K) -> RateVerdict {
        if self.buckets.len() >= BUCKETS_SWEEP {
            self.buckets.retain(|_, bucket| bucket.full_at > now);
        }
        let bucket = self.buckets.entry(caller.clone()).or_insert(Bucket { full_at: now });
        let debt = bucket.full_at.saturating_duration_since(now);
        let most = self.refill.saturating_mul(self.burst - 1);
        if debt > most {
            return RateVerdict::Limited(debt - most);
        }
        bucket.full_at = now.checked_add(debt.saturating_add(self.refill)).unwrap_or(now);
        RateVerdict::Allowed
    }
}

/// Longer pauses would only overflow clocks.
const REFILL_MAX: Duration = Duration::from_secs(24 * 3600);
/// Buckets at which those that are full again are forgotten.
const BUCKETS_SWEEP: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_may_burst_and_then_waits_and_others_do_not() {
        let mut rate = SignRate::new(3, Duration::from_secs(6));
        let now = isthmus_runtime::clock::now();
        for _ in 0..3 {
            assert_eq!(rate.handle(now, &(1, "cart")), RateVerdict::Allowed);
        }
        let wait = RateVerdict::Limited(Duration::from_secs(6));
        assert_eq!(rate.handle(now, &(1, "cart")), wait);
        assert_eq!(rate.handle(now, &(1, "web")), RateVerdict::Allowed);
        assert_eq!(rate.handle(now, &(2, "cart")), RateVerdict::Allowed);
        let later = now + Duration::from_secs(6);
        assert_eq!(rate.handle(later, &(1, "cart")), RateVerdict::Allowed);
        assert_eq!(rate.handle(later, &(1, "cart")), wait);
    }
}
