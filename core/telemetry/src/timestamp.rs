//! Wall times as RFC 3339 text with a fixed width.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

/// Appends `2026-01-02T03:04:05.678901Z`.
pub(crate) fn push_timestamp(out: &mut String, at: SystemTime) {
    let at = OffsetDateTime::from(at);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    // Writing to a String does not fail.
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z",
        at.microsecond()
    );
}

/// Nanoseconds since 1970 as OTLP wants them; 0 for an earlier time.
pub(crate) fn unix_nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timestamps_have_a_fixed_width() {
        let mut out = String::new();
        push_timestamp(&mut out, UNIX_EPOCH + Duration::from_micros(951_782_400_000_007));
        assert_eq!(out, "2000-02-29T00:00:00.000007Z");
    }
}
