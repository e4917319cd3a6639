//! The only place in Isthmus that reads the time.
//!
//! Pure code takes `now` as a parameter; shells call [`now`] and [`wall`] and pass the
//! result down, which keeps every other use of the clock a clippy error.

use std::time::{Instant, SystemTime};

/// The monotonic time, for timeouts and intervals.
#[expect(clippy::disallowed_methods, reason = "this is the place that may")]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall time, for certificates and log lines.
#[expect(clippy::disallowed_methods, reason = "this is the place that may")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The monotonic time at which the wall clock comes to `at`, by what both show now: a wall
/// clock that is set back later does not put it off. `now` for a time that is past, and
/// `None`, which is never, for one that no clock can say.
///
/// What a certificate proves ends then: the clock that verified it is the one that measures
/// what is left of it, so no skew has to be allowed for.
pub fn deadline(now: Instant, wall: SystemTime, at: SystemTime) -> Option<Instant> {
    now.checked_add(at.duration_since(wall).unwrap_or_default())
}

/// Waits until a time; `None` is for ever.
///
/// # Cancel safety
///
/// May be dropped; the time stays what it is.
pub async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_deadline_is_as_far_as_the_wall_clock_says_and_never_past() {
        let (now, wall) = (now(), wall());
        let minute = Duration::from_secs(60);
        assert_eq!(deadline(now, wall, wall + minute), Some(now + minute));
        assert_eq!(deadline(now, wall, wall), Some(now));
        assert_eq!(deadline(now, wall, wall - minute), Some(now));
    }
}
