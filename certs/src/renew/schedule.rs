//! When to renew; pure.
//!
//! Half the lifetime is left for an authority that is down. Workloads that started
//! together spread by jitter. The wall clock decides, because certificates do, and the
//! monotonic clock decides as well, so that a wall clock that was set back does not make
//! an SVID live longer than it can.

use std::time::{Duration, Instant, SystemTime};

/// One moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The monotonic clock.
    pub monotonic: Instant,
    /// The wall clock.
    pub wall: SystemTime,
}

/// How an SVID stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Less than a third of its life is left: someone should look.
    Alarm,
    /// Renewal is due or being retried, with enough time left.
    Due,
    /// It has ended; handshakes fail.
    Expired,
    /// Renewal is not due.
    Fresh,
    /// There was none yet.
    Missing,
}

impl Standing {
    /// The label for logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Due => "due",
            Self::Expired => "expired",
            Self::Fresh => "fresh",
            Self::Missing => "missing",
        }
    }
}

/// Decides when the next attempt is due.
#[derive(Debug, Clone)]
pub struct Schedule {
    current: Option<Current>,
    next: Option<Moment>,
    failures: u32,
    random: u64,
}

#[derive(Debug, Clone, Copy)]
struct Current {
    got: Moment,
    lifetime: Duration,
}

impl Schedule {
    /// A schedule without an SVID: the first attempt is due at once.
    pub fn new(seed: u64) -> Self {
        Self { current: None, next: None, failures: 0, random: seed }
    }

    /// An SVID arrived that ends at `not_after`.
    pub fn on_success(&mut self, now: Moment, not_after: SystemTime) {
        let lifetime = not_after.duration_since(now.wall).unwrap_or_default();
        self.current = Some(Current { got: now, lifetime });
        self.failures = 0;
        // Between 50 % and 55 % of the lifetime.
        let jitter = lifetime.mul_f64(0.05 * self.random_share());
        self.next = after(now, lifetime / 2 + jitter);
    }

    /// An attempt failed.
    pub fn on_failure(&mut self, now: Moment) {
        let doubled = RETRY_MIN.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        // A short lifetime must leave room for several attempts.
        let lifetime = self.current.map_or(RETRY_MAX, |current| current.lifetime);
        let limit = (lifetime / 20).clamp(RETRY_MIN, RETRY_MAX);
        let pause = doubled.min(limit).mul_f64(0.5 + 0.5 * self.random_share());
        self.next = after(now, pause);
    }

    /// Asks for a renewal now.
    pub fn on_trigger(&mut self) {
        self.next = None;
    }

    /// How long until the next attempt; zero when it is due.
    pub fn due_in(&self, now: Moment) -> Duration {
        let Some(next) = self.next else { return Duration::ZERO };
        let wall = next.wall.duration_since(now.wall).unwrap_or_default();
        wall.min(next.monotonic.saturating_duration_since(now.monotonic))
    }

    /// How the current SVID stands.
    pub fn standing(&self, now: Moment) -> Standing {
        let Some(current) = self.current else { return Standing::Missing };
        let left = self.time_left(now);
        if left.is_zero() {
            Standing::Expired
        } else if left < current.lifetime / 3 {
            Standing::Alarm
        } else if self.due_in(now).is_zero() || self.failures > 0 {
            Standing::Due
        } else {
            Standing::Fresh
        }
    }

    /// How long the current SVID lives, by the more pessimistic clock.
    pub fn time_left(&self, now: Moment) -> Duration {
        let Some(current) = self.current else { return Duration::ZERO };
        let by_wall = now.wall.duration_since(current.got.wall).unwrap_or_default();
        let by_monotonic = now.monotonic.saturating_duration_since(current.got.monotonic);
        current.lifetime.saturating_sub(by_wall.max(by_monotonic))
    }

    /// Attempts that failed since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The next number in 0 to 1 of splitmix64, which is enough for jitter.
    fn random_share(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(0);
        f64::from(high) / f64::from(u32::MAX)
    }
}

/// `None`, which is at once, only when the clock cannot say the time.
fn after(now: Moment, pause: Duration) -> Option<Moment> {
    let monotonic = now.monotonic.checked_add(pause)?;
    Some(Moment { monotonic, wall: now.wall.checked_add(pause)? })
}

const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn start() -> Moment {
        let wall = UNIX_EPOCH + Duration::from_secs(1_000_000);
        Moment { monotonic: isthmus_runtime::clock::now(), wall }
    }

    fn later(now: Moment, by: Duration) -> Moment {
        after(now, by).unwrap()
    }

    #[test]
    fn the_first_attempt_is_due_at_once() {
        let schedule = Schedule::new(1);
        assert_eq!(schedule.due_in(start()), Duration::ZERO);
        assert_eq!(schedule.standing(start()), Standing::Missing);
    }

    #[test]
    fn renewal_is_due_at_half_life_and_spread_by_the_seed() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut schedule = Schedule::new(seed);
            schedule.on_success(start(), start().wall + HOUR);
            let due = schedule.due_in(start());
            assert!(due >= HOUR / 2 && due <= HOUR.mul_f64(0.55), "{due:?}");
            seen.insert(due);
        }
        assert!(seen.len() > 40);
    }

    #[test]
    fn failures_back_off_and_leave_room_for_several_attempts() {
        let mut schedule = Schedule::new(7);
        schedule.on_success(start(), start().wall + HOUR);
        let mut now = later(start(), HOUR / 2);
        let mut attempts = 0;
        while now.wall < start().wall + HOUR {
            schedule.on_failure(now);
            let pause = schedule.due_in(now);
            assert!(pause >= RETRY_MIN / 2 && pause <= RETRY_MAX);
            now = later(now, pause);
            attempts += 1;
        }
        assert!((30..=100).contains(&attempts), "{attempts}");
    }

    #[test]
    fn a_third_left_is_an_alarm_and_the_end_is_the_end() {
        let mut schedule = Schedule::new(7);
        schedule.on_success(start(), start().wall + HOUR);
        let at = |share: f64| later(start(), HOUR.mul_f64(share));
        assert_eq!(schedule.standing(at(0.4)), Standing::Fresh);
        assert_eq!(schedule.standing(at(0.6)), Standing::Due);
        assert_eq!(schedule.standing(at(0.7)), Standing::Alarm);
        assert_eq!(schedule.standing(at(1.0)), Standing::Expired);
    }

    #[test]
    fn a_wall_clock_set_back_does_not_lengthen_a_life() {
        let mut schedule = Schedule::new(7);
        schedule.on_success(start(), start().wall + HOUR);
        let mut now = later(start(), HOUR);
        now.wall = start().wall - HOUR;
        assert_eq!(schedule.due_in(now), Duration::ZERO);
        assert_eq!(schedule.standing(now), Standing::Expired);
    }
}
