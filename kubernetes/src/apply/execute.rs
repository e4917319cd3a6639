//! Carries out a plan. It decides nothing but whether an answer is worth another try.
//!
//! A write that has failed is not sent again with every plan: an object whose watch brings
//! a hundred events in a second would send the refused writes of all others a hundred
//! times. It waits, longer with each failure, unless something else is to be written
//! ([`held`]). A server that hangs, or an admission webhook of it, must not keep news of
//! other objects waiting either, so one plan has [`PLAN_MAX`] in all.
//!
//! A status may be planned on a version of its object ([`crate::apply::plan_status`]), and
//! the server refuses it when somebody has written meanwhile. That is no failure: it is
//! withheld, the watch brings the newer object, and the plan on that is sent at once.
//!
//! An object that is new to us is looked at before it is written: one that somebody else
//! has made under the name is left alone, and the failure says so.

mod answer;

mod held;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;
use isthmus_runtime::{clock, error_chain};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::{Client, api::PropagationPolicy};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::apply::execute::answer::{Verdict, backoff, hint, is_outdated, verdict};
use crate::apply::execute::held::{Held, Refusal};
use crate::apply::{Action, FIELD_MANAGER, HASH_ANNOTATION, MANAGED_LABEL, ObjectId, Plan};
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
    /// The objects of writes that have not been carried out and have not failed: the
    /// leadership or the plan's time had ended, or somebody else had written the object
    /// after it was observed.
    pub withheld: Vec<ObjectId>,
    /// Writes that have failed, with those that still wait because they failed before; the
    /// next plan has them again.
    pub failures: Vec<Failure>,
}

impl Report {
    fn count(&mut self, id: &ObjectId, outcome: Outcome) {
        match outcome {
            Outcome::Applied => self.applied += 1,
            Outcome::Deleted => self.deleted += 1,
            Outcome::Failed(failure) => self.failures.push(failure),
            Outcome::Gone => self.gone += 1,
            Outcome::Outdated | Outcome::Withheld => self.withheld.push(id.clone()),
        }
    }
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
    held: Held,
}

enum Outcome {
    Applied,
    Deleted,
    Failed(Failure),
    Gone,
    /// The write was planned on an older version of the object.
    Outdated,
    Withheld,
}

impl Executor {
    /// Writes by the client's rights.
    pub fn new(client: Client) -> Self {
        Self { client, served: BTreeMap::new(), held: Held::default() }
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
        let started = clock::now();
        self.held.keep(&plan.actions);
        let limits = Limits { may_write: &may_write, end: started + PLAN_MAX };
        let mut unknown = BTreeSet::new();
        for action in &plan.actions {
            match self.held.refusal_of(started, action) {
                Some(Refusal::Failed(failure)) => {
                    report.failures.push(failure.clone());
                    continue;
                }
                Some(Refusal::Outdated) => {
                    report.withheld.push(action.id().clone());
                    continue;
                }
                None => {}
            }
            // A server that hangs is asked once for each kind, and not once for each object.
            let kind = (&action.id().api_version, &action.id().kind);
            if unknown.contains(&kind) {
                report.withheld.push(action.id().clone());
                continue;
            }
            match self.served(action.id()).await {
                Ok(served) => ready.push((action, served)),
                Err(failure) => {
                    unknown.insert(kind);
                    let refusal = Refusal::Failed(failure.clone());
                    self.held.handle(clock::now(), action, Some(refusal));
                    report.failures.push(failure);
                }
            }
        }
        let (deletions, writes): (Vec<_>, Vec<_>) =
            ready.into_iter().partition(|(action, _)| matches!(action, Action::Delete { .. }));
        for part in [writes, deletions] {
            // Collected, because a lazy closure would make this future no task of its own.
            let mut tries = Vec::with_capacity(part.len());
            for (action, served) in &part {
                tries.push(carry_out(&self.client, (action, served), &limits));
            }
            let outcomes = stream::iter(tries).buffered(CONCURRENCY);
            let mut outcomes = outcomes.zip(stream::iter(&part));
            while let Some((outcome, (action, _))) = outcomes.next().await {
                let refusal = match &outcome {
                    Outcome::Applied | Outcome::Deleted | Outcome::Gone => Some(None),
                    Outcome::Failed(failure) => Some(Some(Refusal::Failed(failure.clone()))),
                    Outcome::Outdated => Some(Some(Refusal::Outdated)),
                    // Not tried, so nothing is known.
                    Outcome::Withheld => None,
                };
                if let Some(refusal) = refusal {
                    self.held.handle(clock::now(), action, refusal);
                }
                report.count(action.id(), outcome);
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
                let api = served.api(self.client.clone(), "");
                let page = timeout(REQUEST_MAX, api.list(&parameters)).await;
                let page = page.map_err(|_| silent(&id))?;
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
        let versions = [id.version()];
        let found = discovery::find(&self.client, id.group(), &id.kind, &versions);
        let found = timeout(REQUEST_MAX, found).await.map_err(|_| silent(id))?;
        let found = found.map_err(|error| failure(id, &error))?;
        if let Some(served) = &found {
            self.served.insert(key, served.clone());
        }
        Ok(found)
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("kinds", &self.served.len()).finish_non_exhaustive()
    }
}

/// What one plan may take.
struct Limits<'l, F> {
    may_write: &'l F,
    end: Instant,
}

async fn carry_out<F: Fn() -> bool + Sync>(
    client: &Client,
    (action, served): (&Action, &Served),
    limits: &Limits<'_, F>,
) -> Outcome {
    let mut tries = 0;
    loop {
        let is_late = clock::now() >= limits.end;
        if !(limits.may_write)() || (tries == 0 && is_late) {
            return Outcome::Withheld;
        }
        tries += 1;
        let (code, message, hint) = match timeout(REQUEST_MAX, send(client, action, served)).await {
            Ok(Ok(outcome)) => return outcome,
            // The same write can never succeed.
            Ok(Err(error)) if is_outdated(&error, action) => return Outcome::Outdated,
            Ok(Err(error)) => (discovery::code(&error), error_chain(&error), hint(&error)),
            Err(_) => (None, no_answer(), None),
        };
        match verdict(code, action) {
            Verdict::Gone => return Outcome::Gone,
            Verdict::Retry if tries < TRIES_MAX && !is_late => sleep(backoff(tries, hint)).await,
            verdict @ (Verdict::Fail | Verdict::Retry) => {
                let is_temporary = verdict == Verdict::Retry;
                let id = action.id().clone();
                return Outcome::Failed(Failure { id, message, is_temporary });
            }
        }
    }
}

async fn send(client: &Client, action: &Action, served: &Served) -> Result<Outcome, kube::Error> {
    let id = action.id();
    let api = served.api(client.clone(), &id.namespace);
    // Force: a field that somebody else has set and we desire is ours.
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    match action {
        Action::Apply { body, is_new, .. } => {
            if *is_new
                && let Some(found) = api.get_opt(&id.name).await?
                && !is_ours(id, &found)
            {
                return Ok(Outcome::Failed(foreign(id)));
            }
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

/// Whether an object that exists under a name of ours may be written.
///
/// Ours is what has our label or the hash of what we applied, and, where somebody has
/// taken both away, what we have applied to. A ServiceImport is ours by KEP-1645, whoever
/// made it.
fn is_ours(id: &ObjectId, found: &DynamicObject) -> bool {
    let metadata = &found.metadata;
    let label = metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_LABEL));
    let applied = metadata.managed_fields.iter().flatten().any(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Apply")
    });
    (id.group(), id.kind.as_str()) == ADOPTED
        || label.is_some_and(|value| value == FIELD_MANAGER)
        || metadata.annotations.as_ref().is_some_and(|all| all.contains_key(HASH_ANNOTATION))
        || applied
}

fn foreign(id: &ObjectId) -> Failure {
    let message = "an object of this name exists and is not of isthmus: delete it, or give what \
                   isthmus makes it for another name";
    Failure { id: id.clone(), message: message.to_owned(), is_temporary: false }
}

fn failure(id: &ObjectId, error: &kube::Error) -> Failure {
    let is_temporary = discovery::code(error).is_none_or(|code| code == 429 || code >= 500);
    Failure { id: id.clone(), message: error_chain(error), is_temporary }
}

fn silent(id: &ObjectId) -> Failure {
    Failure { id: id.clone(), message: no_answer(), is_temporary: true }
}

fn no_answer() -> String {
    format!("no answer within {} s", REQUEST_MAX.as_secs())
}

/// The kind that is taken over, by group and kind.
const ADOPTED: (&str, &str) = ("multicluster.x-k8s.io", "ServiceImport");
/// Writes at the same time.
const CONCURRENCY: usize = 8;
/// Tries of one write.
const TRIES_MAX: u32 = 5;
const REQUEST_MAX: Duration = Duration::from_secs(15);
/// How long one plan may take. What has not begun by then is withheld, and what fails
/// later is not tried again, so that the news that came meanwhile are planned with.
const PLAN_MAX: Duration = Duration::from_secs(20);
/// Objects in one page of a list.
const PAGE: u32 = 500;

#[cfg(test)]
mod tests;
