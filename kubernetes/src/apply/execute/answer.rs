//! What the server's answers mean for a write. Pure.

use std::time::Duration;

use crate::apply::Action;

/// What an answer means for a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Fail,
    Gone,
    Retry,
}

/// Whether a write was planned on another version of the object than the server has.
///
/// Spec: Kubernetes "Server-Side Apply": an applied object may have a `resourceVersion`,
/// and is refused when the server has another. A conflict with another field manager has
/// the same code and reason, and names its causes, which this one has none of; it cannot
/// come while conflicts are forced.
pub(super) fn is_outdated(error: &kube::Error, action: &Action) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 409
        && status.reason == CONFLICT
        && action.version().is_some()
        && !causes.any(|cause| cause.reason == MANAGER_CONFLICT)
}

/// What an answer means: `None` is no answer.
pub(super) fn verdict(code: Option<u16>, action: &Action) -> Verdict {
    match (code, action) {
        (Some(404), Action::ApplyStatus { .. } | Action::Delete { .. }) => Verdict::Gone,
        // A deletion's conflict says that another object has taken the name.
        (Some(409), Action::Delete { .. }) => Verdict::Gone,
        // 410: the server has lost what it needs to answer; 408 and 429: later.
        (None | Some(408 | 409 | 410 | 429 | 500..), _) => Verdict::Retry,
        (Some(_), _) => Verdict::Fail,
    }
}

pub(super) fn backoff(tries: u32, hint: Option<Duration>) -> Duration {
    let doubled = BACKOFF.saturating_mul(1 << tries.min(8)).min(BACKOFF_MAX);
    hint.map_or(doubled, |hint| hint.max(doubled).min(HINT_MAX))
}

/// How long the server wants to be left alone.
pub(super) fn hint(error: &kube::Error) -> Option<Duration> {
    let kube::Error::Api(status) = error else { return None };
    let seconds = status.details.as_ref()?.retry_after_seconds;
    (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)))
}

/// The reason of a conflict.
const CONFLICT: &str = "Conflict";
/// The reason of its causes where another field manager has a field.
const MANAGER_CONFLICT: &str = "FieldManagerConflict";
const BACKOFF: Duration = Duration::from_millis(50);
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The longest wait that a server may ask for.
pub(super) const HINT_MAX: Duration = Duration::from_secs(30);
