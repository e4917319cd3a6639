//! The only place in Isthmus that reads the time.
//!
//! Pure code takes `now` as a parameter; shells call these two functions and pass the
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
