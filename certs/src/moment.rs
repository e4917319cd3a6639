//! Wall time as whole seconds since 1970, the unit of certificates and state files.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

/// Seconds since 1970; a time before that is 0.
pub(crate) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The time of a number of seconds; what X.509 cannot say is cut to what it can.
pub(crate) fn time(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.min(SECONDS_MAX))
}

/// The same for certificates.
pub(crate) fn offset(seconds: u64) -> OffsetDateTime {
    i64::try_from(seconds.min(SECONDS_MAX))
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Seconds of a certificate's field; a time before 1970 is 0.
pub(crate) fn from_x509(time: x509_parser::time::ASN1Time) -> u64 {
    u64::try_from(time.timestamp()).unwrap_or(0)
}

/// The last second of the year 9999.
const SECONDS_MAX: u64 = 253_402_300_799;
