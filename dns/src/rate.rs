//! Which sources of datagrams are answered, told to use TCP, or ignored.
//!
//! The source address of a datagram can be forged, so a flood may be aimed at whom the
//! answers go to. Each source has a bucket of tokens; when it is empty, every second
//! packet gets a truncated answer, which is no larger than the query and lets a genuine
//! client come back over TCP, and the others get none.
//!
//! The table has a fixed number of buckets, found by a keyed hash, so a flood from many
//! addresses costs no memory. Two sources in one bucket share its tokens.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What becomes of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// Answered.
    Pass,
    /// Not answered.
    Silent,
    /// Answered with "ask again over TCP".
    Slip,
}

/// Limits the answers to each source.
#[derive(Debug)]
pub struct RateLimiter<S> {
    hasher: S,
    start: Instant,
    per_second: u32,
    buckets: Vec<Bucket>,
}

impl<S: BuildHasher> RateLimiter<S> {
    /// A limiter that lets each source have `per_second` answers a second, and as many at
    /// once; 0 means no limit.
    pub fn new(now: Instant, per_second: u32, hasher: S) -> Self {
        let full =
            Bucket { millitokens: millitokens(per_second), updated: Duration::ZERO, slip: true };
        let count = if per_second == 0 { 0 } else { BUCKETS };
        Self { hasher, start: now, per_second, buckets: vec![full; count] }
    }

    /// Decides about one datagram.
    pub fn check(&mut self, now: Instant, source: IpAddr) -> Rate {
        let hash = self.hasher.hash_one(prefix(source));
        let count = self.buckets.len().max(1);
        // The remainder is below `count`, so it fits.
        let at = usize::try_from(hash % count as u64).unwrap_or(0);
        let since_start = now.saturating_duration_since(self.start);
        let Some(bucket) = self.buckets.get_mut(at) else { return Rate::Pass };
        let passed = since_start.saturating_sub(bucket.updated);
        bucket.updated = since_start;
        let earned = passed.as_secs_f64() * f64::from(self.per_second) * MILLI;
        bucket.millitokens = (bucket.millitokens + earned).min(millitokens(self.per_second));
        if bucket.millitokens >= MILLI {
            bucket.millitokens -= MILLI;
            return Rate::Pass;
        }
        bucket.slip = !bucket.slip;
        if bucket.slip { Rate::Silent } else { Rate::Slip }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    millitokens: f64,
    updated: Duration,
    slip: bool,
}

fn millitokens(tokens: u32) -> f64 {
    f64::from(tokens) * MILLI
}

/// One host has one IPv4 address, but as a rule a whole /64 of IPv6.
fn prefix(source: IpAddr) -> u64 {
    match source.to_canonical() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
    }
}

const BUCKETS: usize = 8192;
const MILLI: f64 = 1000.0;

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::RandomState;

    #[test]
    fn a_flood_is_cut_half_slips_and_it_recovers() {
        let start = isthmus_runtime::clock::now();
        let mut limiter = RateLimiter::new(start, 100, RandomState::new());
        let source = "192.0.2.1".parse().unwrap();
        let mut seen = [0; 3];
        for _ in 0..1000 {
            match limiter.check(start, source) {
                Rate::Pass => seen[0] += 1,
                Rate::Silent => seen[1] += 1,
                Rate::Slip => seen[2] += 1,
            }
        }
        assert_eq!(seen, [100, 450, 450]);
        let later = start + Duration::from_millis(10);
        assert_eq!(limiter.check(later, source), Rate::Pass);
        assert_ne!(limiter.check(later, source), Rate::Pass);
    }

    #[test]
    fn zero_means_no_limit_and_other_sources_are_untouched() {
        let start = isthmus_runtime::clock::now();
        let mut open = RateLimiter::new(start, 0, RandomState::new());
        let source = "192.0.2.1".parse().unwrap();
        assert!((0..10_000).all(|_| open.check(start, source) == Rate::Pass));

        let mut limiter = RateLimiter::new(start, 10, RandomState::new());
        for _ in 0..100 {
            limiter.check(start, source);
        }
        let others = (0..100u8).map(|n| IpAddr::from([198, 51, 100, n]));
        let passed = others.filter(|ip| limiter.check(start, *ip) == Rate::Pass).count();
        assert!(passed > 90, "{passed}");
    }

    #[test]
    fn one_host_cannot_use_its_whole_ipv6_network() {
        let start = isthmus_runtime::clock::now();
        let mut limiter = RateLimiter::new(start, 1, RandomState::new());
        assert_eq!(limiter.check(start, "2001:db8::1".parse().unwrap()), Rate::Pass);
        assert_ne!(limiter.check(start, "2001:db8::2".parse().unwrap()), Rate::Pass);
    }
}
