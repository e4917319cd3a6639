//! What pings say about a path: smoothed round trip and loss over a window.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Round trip and loss from pings and pongs.
#[derive(Debug)]
pub struct Estimate {
    outstanding: VecDeque<(u64, Instant)>,
    outcomes: VecDeque<Outcome>,
    smoothed: Option<Duration>,
    lost_after: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Answered,
    Lost,
}

impl Estimate {
    /// Nothing measured; a ping counts as lost when `lost_after` passes without a pong.
    pub fn new(lost_after: Duration) -> Self {
        Self { outstanding: VecDeque::new(), outcomes: VecDeque::new(), smoothed: None, lost_after }
    }

    /// Notes a ping.
    pub fn on_ping(&mut self, now: Instant, seq: u64) {
        self.expire(now);
        if self.outstanding.len() >= OUTSTANDING_MAX {
            self.outstanding.pop_front();
            self.note(Outcome::Lost);
        }
        self.outstanding.push_back((seq, now));
    }

    /// Notes a pong; one that answers no outstanding ping is ignored.
    pub fn on_pong(&mut self, now: Instant, seq: u64) {
        let Some(index) = self.outstanding.iter().position(|(sent, _)| *sent == seq) else {
            return;
        };
        let Some((_, sent_at)) = self.outstanding.remove(index) else { return };
        let sample = now.saturating_duration_since(sent_at);
        // Spec: RFC 6298 section 2.3, alpha = 1/8.
        self.smoothed = Some(match self.smoothed {
            Some(smoothed) => (smoothed * 7 + sample) / 8,
            None => sample,
        });
        self.note(Outcome::Answered);
    }

    /// The smoothed round trip, or `None` before the first pong.
    pub fn rtt(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The share of lost pings in the window, from 0 to 1.
    pub fn loss(&mut self, now: Instant) -> f64 {
        self.expire(now);
        let lost = self.outcomes.iter().filter(|o| **o == Outcome::Lost).count();
        let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
        if self.outcomes.is_empty() { 0.0 } else { count(lost) / count(self.outcomes.len()) }
    }

    fn expire(&mut self, now: Instant) {
        while let Some((_, sent_at)) = self.outstanding.front()
            && now.saturating_duration_since(*sent_at) >= self.lost_after
        {
            self.outstanding.pop_front();
            self.note(Outcome::Lost);
        }
    }

    fn note(&mut self, outcome: Outcome) {
        if self.outcomes.len() >= WINDOW_PINGS {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back(outcome);
    }
}

/// Pings over which loss is measured.
pub const WINDOW_PINGS: usize = 32;

const OUTSTANDING_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a base for simulated time")]
    fn pings_without_a_pong_are_lost_and_late_pongs_do_not_count() {
        let base = Instant::now();
        let at = |millis: u64| base + Duration::from_millis(millis);
        let mut estimate = Estimate::new(Duration::from_secs(3));
        estimate.on_ping(at(0), 0);
        estimate.on_pong(at(80), 0);
        assert_eq!(estimate.rtt(), Some(Duration::from_millis(80)));
        estimate.on_ping(at(1000), 1);
        estimate.on_pong(at(1160), 1);
        assert_eq!(estimate.rtt(), Some(Duration::from_millis(90)));
        estimate.on_ping(at(2000), 2);
        estimate.on_ping(at(3000), 3);
        assert!((estimate.loss(at(6000)) - 0.5).abs() < 1e-9);
        estimate.on_pong(at(6001), 2);
        assert_eq!(estimate.rtt(), Some(Duration::from_millis(90)));
    }
}
