//! How fast a peer may change its state: a token bucket that may go into debt.
//!
//! A frame is taken whole, then the reader waits until the debt is paid. The wait is felt
//! by the peer as back-pressure of its stream, and by nobody else.

use std::time::{Duration, Instant};

/// Counts changes of one peer.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    per_second: u32,
    burst: u32,
    /// Nanoseconds of credit used are paid back by time; the bucket is full at this time.
    full_at: Option<Instant>,
}

impl Bucket {
    /// A full bucket.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second: per_second.max(1), burst, full_at: None }
    }

    /// Takes `count` tokens, present or not.
    pub fn take(&mut self, now: Instant, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let cost = Duration::from_secs(1).saturating_mul(count) / self.per_second;
        let from = self.full_at.map_or(now, |at| at.max(now));
        // A cost that cannot be added would be decades; one day is as good a refusal.
        self.full_at = from.checked_add(cost).or_else(|| from.checked_add(DEBT_MAX));
    }

    /// When the debt is paid; `None` when there is none.
    pub fn ready_at(&self, now: Instant) -> Option<Instant> {
        let credit = Duration::from_secs(1).saturating_mul(self.burst) / self.per_second;
        let ready = self.full_at?.checked_sub(credit)?;
        (ready > now).then_some(ready)
    }
}

const DEBT_MAX: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_what_follows_waits() {
        let start = isthmus_runtime::clock::now();
        let mut bucket = Bucket::new(1_000, 5_000);
        bucket.take(start, 5_000);
        assert_eq!(bucket.ready_at(start), None);
        bucket.take(start, 1_000);
        assert_eq!(bucket.ready_at(start), Some(start + Duration::from_secs(1)));
        assert_eq!(bucket.ready_at(start + Duration::from_secs(1)), None);
    }
}
