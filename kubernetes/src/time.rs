//! Times as Kubernetes writes them.

use std::time::SystemTime;

use k8s_openapi::jiff::Timestamp;

/// A time as `metav1.Time` has it, RFC 3339 with whole seconds: `2026-11-21T16:00:00Z`.
/// A time before the year -9999 or after 9999 is the beginning of 1970.
pub fn rfc3339(time: SystemTime) -> String {
    let stamp = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    let whole = Timestamp::from_second(stamp.as_second()).unwrap_or(Timestamp::UNIX_EPOCH);
    whole.to_string()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_time_has_whole_seconds() {
        let time = UNIX_EPOCH + Duration::from_millis(1_795_276_800_750);
        assert_eq!(rfc3339(time), "2026-11-21T16:00:00Z");
    }
}
