//! When a rule sends a request again.

use std::time::Duration;

use isthmus_model::route::{RETRIES_MAX, Retry};

use crate::error::{At, FieldError, Reason};
use crate::raw::route as raw;
use crate::validate::values::{at_most, duration};

/// Reads a retry. More attempts than the data plane makes are cut, and said to be without
/// effect.
///
/// Spec: HTTPRouteRetry; what an omitted `attempts` and `backoff` mean is left to the
/// implementation.
pub(super) fn retry(
    raw: &raw::Retry,
    without_effect: &mut Vec<&'static str>,
) -> Result<Retry, FieldError> {
    at_most("codes", &raw.codes, CODES_MAX)?;
    let mut codes = Vec::with_capacity(raw.codes.len());
    for (index, code) in raw.codes.iter().enumerate() {
        let status = u16::try_from(*code).ok().filter(|code| (400..=599).contains(code));
        let status = status.ok_or_else(|| Reason::value(code, "a status, 400 to 599"));
        codes.push(status.at_index("codes", index)?);
    }
    codes.sort_unstable();
    codes.dedup();
    let attempts = raw.attempts.unwrap_or(ATTEMPTS);
    if attempts < 1 {
        return Err(FieldError::new("attempts", Reason::value(attempts, "a number from 1")));
    }
    let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
    if attempts > RETRIES_MAX {
        without_effect.push("retry.attempts above 10");
    }
    let backoff = match raw.backoff.as_deref() {
        Some(text) => duration(text).at("backoff")?.unwrap_or_default(),
        None => BACKOFF,
    };
    Ok(Retry { codes, attempts: attempts.min(RETRIES_MAX), backoff })
}

/// Attempts after the first when the rule does not say a number.
const ATTEMPTS: i64 = 1;
/// Pause before the second attempt when the rule does not say one.
const BACKOFF: Duration = Duration::from_millis(25);
/// Every status from 400 to 599 once.
const CODES_MAX: usize = 200;
