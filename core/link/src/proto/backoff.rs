//! Waiting times that double, with jitter from a seeded generator.

use std::time::Duration;

/// A doubling delay between `first` and `max`.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    /// A backoff that has not waited yet.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, attempts: 0 }
    }

    /// The next delay: between half of the nominal value and all of it.
    ///
    /// Half is kept so that a peer never sees a burst; the rest is random so that many
    /// gateways that lost the same peer do not come back together.
    pub fn next_delay(&mut self, random: &mut Random) -> Duration {
        let factor = 1_u32.checked_shl(self.attempts.min(DOUBLINGS_MAX)).unwrap_or(u32::MAX);
        self.attempts = self.attempts.saturating_add(1);
        let nominal = self.first.saturating_mul(factor).min(self.max);
        let half = nominal / 2;
        half + half.mul_f64(random.unit())
    }

    /// Whether no delay was taken since the start or the last reset.
    pub fn is_fresh(&self) -> bool {
        self.attempts == 0
    }

    /// Starts again at the first delay.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// A small deterministic generator (SplitMix64), for jitter only.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator with a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to 1.
    pub fn unit(&mut self) -> f64 {
        let bits = u32::try_from(self.next_u64() >> 32).unwrap_or(u32::MAX);
        f64::from(bits) / f64::from(u32::MAX)
    }
}

const DOUBLINGS_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_within_their_bounds() {
        let mut random = Random::new(7);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for nominal in [1, 2, 4, 8, 16, 30, 30] {
            let delay = backoff.next_delay(&mut random);
            let nominal = Duration::from_secs(nominal);
            assert!(delay >= nominal / 2 && delay <= nominal, "{delay:?} of {nominal:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay(&mut random) <= Duration::from_secs(1));
    }
}
