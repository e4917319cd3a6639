//! Carries out a plan. It decides nothing but whether an answer is worth another try.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use isthmus_runtime::error_chain;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Client, api::PropagationPolicy};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::apply::{Action, FIELD_MANAGER, MANAGED_LABEL, ObjectId, Plan};
use crate::discovery::{self, Served};

/// What has become of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Objects and statuses that were written.
    pub applied: usize,
    /// Objects that were deleted.
    pub deleted: usize,
    /// Writes to objects that had gone meanwhile.
    pub gone: usize,
    /// Writes that were not tried, because the leadership had ended.
    pub withheld: usize,
    /// Writes that have failed; the next plan has them again.
    pub failures: Vec<Failure>,
}

/// A write that has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The object.
    pub id: ObjectId,
    /// What the server says.
    pub message: String,
    /// Whether the same write may succeed later.
    pub is_temporary: bool,
}

/// Writes to one cluster.
#[derive(Clone)]
pub struct Executor {
    client: Client,
    served: BTreeMap<(String, String), Served>,
}

enum Outcome {
    Applied,
    Deleted,
    Failed(Failure),
    Gone,
    Withheld,
}

/// What an answer means for a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fail,
    Gone,
    Retry,
}

impl Executor {
    /// Writes by the client's rights.
    pub fn new(client: Client) -> Self {
        Self { client, served: BTreeMap::new() }
    }

    /// Carries out a plan, a few writes at a time, deletions after the others.
    ///
    /// `may_write` is asked before every try, so that nothing is sent once the leadership
    /// has ended ([`crate::Leadership::is_leader`]).
    ///
    /// # Cancel safety
    ///
    /// Cancelling leaves some writes undone; the next plan has them again.
    pub async fn execute(&mut self, plan: &Plan, may_write: impl Fn() -> bool + Sync) -> Report {
        let mut report = Report::default();
        let mut ready = Vec::new();
        for action in &plan.actions {
            match self.served(action.id()).await {
                Ok(served) => ready.push((action, served)),
                Err(failure) => report.failures.push(failure),
            }
        }
        let (deletions, writes): (Vec<_>, Vec<_>) =
            ready.into_iter().partition(|(action, _)| matches!(action, Action::Delete { .. }));
        for part in [writes, deletions] {
            // Collected, because a lazy closure would make this future no task of its own.
            let mut tries = Vec::with_capacity(part.len());
            for (action, served) in &part {
                tries.push(self.carry_out(action, served, &may_write));
            }
            let mut outcomes = stream::iter(tries).buffered(CONCURRENCY);
            while let Some(outcome) = outcomes.next().await {
                match outcome {
                    Outcome::Applied => report.applied += 1,
                    Outcome::Deleted => report.deleted += 1,
                    Outcome::Failed(failure) => report.failures.push(failure),
                    Outcome::Gone => report.gone += 1,
                    Outcome::Withheld => report.withheld += 1,
                }
            }
        }
        report
    }

    /// The objects of some kinds that are ours, for [`crate::plan`]. `kinds` are pairs of
    /// `apiVersion` and `kind`; one that is not served has no objects.
    ///
    /// # Errors
    ///
    /// A [`Failure`] that names the kind. A plan without its objects would delete nothing
    /// and write everything.
    pub async fn observe(&mut self, kinds: &[(&str, &str)]) -> Result<Vec<Value>, Failure> {
        let mut objects = Vec::new();
        for (api_version, kind) in kinds {
            let id = ObjectId {
                api_version: (*api_version).to_owned(),
                kind: (*kind).to_owned(),
                namespace: String::new(),
                name: String::new(),
            };
            let Some(served) = self.find(&id).await? else { continue };
            let label = format!("{MANAGED_LABEL}={FIELD_MANAGER}");
            let mut parameters = ListParams::default().labels(&label).limit(PAGE);
            loop {
                let page = served.api(self.client.clone(), "").list(&parameters).await;
                let page = page.map_err(|error| failure(&id, &error))?;
                for mut object in page.items {
                    object.metadata.managed_fields = None;
                    let mut value = serde_json::to_value(object).unwrap_or_default();
                    value["apiVersion"] = Value::from(id.api_version.as_str());
                    value["kind"] = Value::from(id.kind.as_str());
                    objects.push(value);
                }
                parameters.continue_token = page.metadata.continue_.filter(|next| !next.is_empty());
                if parameters.continue_token.is_none() {
                    break;
                }
            }
        }
        Ok(objects)
    }

    async fn served(&mut self, id: &ObjectId) -> Result<Served, Failure> {
        self.find(id).await?.ok_or_else(|| Failure {
            id: id.clone(),
            message: format!("the server does not serve {} {}", id.api_version, id.kind),
            is_temporary: true,
        })
    }

    async fn find(&mut self, id: &ObjectId) -> Result<Option<Served>, Failure> {
        let key = (id.api_version.clone(), id.kind.clone());
        if let Some(served) = self.served.get(&key) {
            return Ok(Some(served.clone()));
        }
        let found = discovery::find(&self.client, id.group(), &id.kind, &[id.version()]).await;
        let found = found.map_err(|error| failure(id, &error))?;
        if let Some(served) = &found {
            self.served.insert(key, served.clone());
        }
        Ok(found)
    }

    async fn carry_out(
        &self,
        action: &Action,
        served: &Served,
        may_write: &(impl Fn() -> bool + Sync),
    ) -> Outcome {
        let mut tries = 0;
        loop {
            if !may_write() {
                return Outcome::Withheld;
            }
            tries += 1;
            let (code, message, hint) = match timeout(REQUEST_MAX, self.send(action, served)).await
            {
                Ok(Ok(outcome)) => return outcome,
                Ok(Err(error)) => (discovery::code(&error), error_chain(&error), hint(&error)),
                Err(_) => (None, format!("no answer within {} s", REQUEST_MAX.as_secs()), None),
            };
            match verdict(code, action) {
                Verdict::Gone => return Outcome::Gone,
                Verdict::Retry if tries < TRIES_MAX => sleep(backoff(tries, hint)).await,
                verdict @ (Verdict::Fail | Verdict::Retry) => {
                    let is_temporary = verdict == Verdict::Retry;
                    let id = action.id().clone();
                    return Outcome::Failed(Failure { id, message, is_temporary });
                }
            }
        }
    }

    async fn send(&self, action: &Action, served: &Served) -> Result<Outcome, kube::Error> {
        let id = action.id();
        let api = served.api(self.client.clone(), &id.namespace);
        // Force: a field that somebody else has set and we desire is ours.
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        match action {
            Action::Apply { body, .. } => {
                api.patch(&id.name, &parameters, &Patch::Apply(body)).await?;
                Ok(Outcome::Applied)
            }
            Action::ApplyStatus { body, .. } => {
                api.patch_status(&id.name, &parameters, &Patch::Apply(body)).await?;
                Ok(Outcome::Applied)
            }
            Action::Delete { uid, .. } => {
                let uid = Some(uid.clone()).filter(|uid| !uid.is_empty());
                let parameters = DeleteParams {
                    propagation_policy: Some(PropagationPolicy::Background),
                    preconditions: uid
                        .map(|uid| Preconditions { uid: Some(uid), resource_version: None }),
                    ..DeleteParams::default()
                };
                api.delete(&id.name, &parameters).await?;
                Ok(Outcome::Deleted)
            }
        }
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("kinds", &self.served.len()).finish_non_exhaustive()
    }
}

/// What an answer means: `None` is no answer.
fn verdict(code: Option<u16>, action: &Action) -> Verdict {
    match (code, action) {
        (Some(404), Action::ApplyStatus { .. } | Action::Delete { .. }) => Verdict::Gone,
        // A deletion's conflict says that another object has taken the name.
        (Some(409), Action::Delete { .. }) => Verdict::Gone,
        // 410: the server has lost what it needs to answer; 408 and 429: later.
        (None | Some(408 | 409 | 410 | 429 | 500..), _) => Verdict::Retry,
        (Some(_), _) => Verdict::Fail,
    }
}

fn backoff(tries: u32, hint: Option<Duration>) -> Duration {
    let doubled = BACKOFF.saturating_mul(1 << tries.min(8)).min(BACKOFF_MAX);
    hint.map_or(doubled, |hint| hint.max(doubled).min(HINT_MAX))
}

/// How long the server wants to be left alone.
fn hint(error: &kube::Error) -> Option<Duration> {
    let kube::Error::Api(status) = error else { return None };
    let seconds = status.details.as_ref()?.retry_after_seconds;
    (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)))
}

fn failure(id: &ObjectId, error: &kube::Error) -> Failure {
    let is_temporary = discovery::code(error).is_none_or(|code| code == 429 || code >= 500);
    Failure { id: id.clone(), message: error_chain(error), is_temporary }
}

/// Writes at the same time.
const CONCURRENCY: usize = 8;
/// Tries of one write.
const TRIES_MAX: u32 = 5;
const REQUEST_MAX: Duration = Duration::from_secs(15);
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The longest wait that a server may ask for.
const HINT_MAX: Duration = Duration::from_secs(30);
/// Objects in one page of a list.
const PAGE: u32 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_retried_skipped_or_final() {
        let id = ObjectId {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            namespace: "a".to_owned(),
            name: "b".to_owned(),
        };
        let apply = Action::Apply { id: id.clone(), body: Value::Null };
        let status = Action::ApplyStatus { id: id.clone(), body: Value::Null };
        let delete = Action::Delete { id, uid: "u".to_owned() };
        for code in [None, Some(409), Some(410), Some(429), Some(503)] {
            assert_eq!(verdict(code, &apply), Verdict::Retry, "{code:?}");
        }
        for code in [400, 403, 404, 422] {
            assert_eq!(verdict(Some(code), &apply), Verdict::Fail, "{code}");
        }
        assert_eq!(verdict(Some(404), &status), Verdict::Gone);
        assert_eq!(verdict(Some(404), &delete), Verdict::Gone);
        assert_eq!(verdict(Some(409), &delete), Verdict::Gone);
    }

    #[test]
    fn waits_grow_to_a_bound_and_follow_the_server_within_another() {
        assert_eq!(backoff(1, None), Duration::from_millis(100));
        assert_eq!(backoff(2, None), Duration::from_millis(200));
        assert_eq!(backoff(60, None), BACKOFF_MAX);
        assert_eq!(backoff(1, Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(backoff(1, Some(Duration::from_secs(3600))), HINT_MAX);
    }
}
