//! A limit for streams that a peer opens and resets before they were answered.
//!
//! `h2` bounds the resets that pile up before a stream is accepted. A patient attacker
//! stays below that and makes us start work for each stream, so what was started in vain
//! is counted here, in a token bucket.
//!
//! Spec: security.md H2-08 (CVE-2023-44487).

use std::time::{Duration, Instant};

/// Whether the peer may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spend {
    /// The reset is within what clients that give up need.
    Allowed,
    /// The connection has to be closed.
    Exhausted,
}

/// The bucket of one connection.
#[derive(Debug)]
pub(crate) struct ResetBudget {
    tokens: u32,
    refilled: Instant,
}

impl ResetBudget {
    /// A full bucket.
    pub(crate) fn new(now: Instant) -> Self {
        Self { tokens: BURST, refilled: now }
    }

    /// Accounts for one stream that was started in vain.
    pub(crate) fn spend(&mut self, now: Instant) -> Spend {
        let passed = now.saturating_duration_since(self.refilled);
        let periods = passed.as_millis() / REFILL_PERIOD.as_millis();
        if let Ok(periods @ 1..) = u32::try_from(periods) {
            self.tokens = self.tokens.saturating_add(periods).min(BURST);
            self.refilled = now;
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                Spend::Allowed
            }
            None => Spend::Exhausted,
        }
    }
}

/// Resets at once: more than any of our clients has streams.
const BURST: u32 = 256;
/// Time that earns one more reset.
const REFILL_PERIOD: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_before_a_thousand() {
        let begin = isthmus_runtime::clock::now();
        let mut budget = ResetBudget::new(begin);
        let allowed = (0..100_000_u64)
            .take_while(|i| budget.spend(begin + Duration::from_micros(*i * 10)) == Spend::Allowed)
            .count();
        assert!((256..400).contains(&allowed), "{allowed}");
    }

    #[test]
    fn a_client_that_gives_up_now_and_then_is_never_cut() {
        let begin = isthmus_runtime::clock::now();
        let mut budget = ResetBudget::new(begin);
        for second in 0..1000 {
            for _ in 0..19 {
                assert_eq!(budget.spend(begin + Duration::from_secs(second)), Spend::Allowed);
            }
        }
    }
}
