//! Posts events. An event that cannot be posted is logged and forgotten: the condition
//! that it speaks of is in the object's status anyway.

use std::fmt;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use isthmus_config::CONTROLLER_NAME;
use isthmus_runtime::{clock, error_chain};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::timeout;

use crate::apply::FIELD_MANAGER;
use crate::events::Draft;
use crate::events::budget::Budget;

/// Posts `events.k8s.io/v1` Events in the name of one process.
#[derive(Clone)]
struct Poster {
    client: Client,
    instance: String,
}

/// Posts events within the [`Budget`].
pub struct Recorder {
    poster: Poster,
    budget: Budget,
    posted: u64,
}

impl Recorder {
    /// Posts by the client's rights; `instance` names the process, as in the name of its
    /// pod.
    pub fn new(client: Client, instance: &str) -> Self {
        let instance = instance.chars().take(INSTANCE_CHARS_MAX).collect();
        Self { poster: Poster { client, instance }, budget: Budget::default(), posted: 0 }
    }

    /// Posts what is within the bounds, a few at a time. Takes at most some seconds even
    /// when the server hangs.
    ///
    /// # Cancel safety
    ///
    /// Cancelling loses events that were not posted yet.
    pub async fn record(&mut self, drafts: Vec<Draft>) {
        let drafts = self.budget.take(clock::now(), drafts);
        if drafts.is_empty() {
            return;
        }
        let poster = &self.poster;
        let count = drafts.len();
        let posts = stream::iter(drafts.into_iter().enumerate())
            .map(|(index, draft)| poster.post(index, draft))
            .buffer_unordered(CONCURRENCY)
            .filter(|is_posted| std::future::ready(*is_posted))
            .count();
        match timeout(RECORD_MAX, posts).await {
            Ok(posted) => {
                self.posted = self.posted.saturating_add(u64::try_from(posted).unwrap_or(u64::MAX));
            }
            Err(_) => tracing::warn!(events = count, "events take too long and are given up"),
        }
    }

    /// How many events were posted.
    pub fn posted(&self) -> u64 {
        self.posted
    }

    /// How many events were not posted because there were too many.
    pub fn dropped(&self) -> u64 {
        self.budget.dropped()
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorder({}, {} posted)", self.poster.instance, self.posted)
    }
}

impl Poster {
    async fn post(&self, index: usize, draft: Draft) -> bool {
        let Ok(now) = Timestamp::try_from(clock::wall()) else { return false };
        let event = event(&draft, &self.instance, now, index);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let parameters =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let posted = timeout(REQUEST_MAX, api.create(&parameters, &event)).await;
        let error = match posted {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) => error_chain(&error),
            Err(_) => format!("no answer within {} s", REQUEST_MAX.as_secs()),
        };
        tracing::warn!(object = draft.id.to_string(), error, "the event is not posted");
        false
    }
}

/// The event's object. `index` keeps two events of one object in one instant apart.
pub(super) fn event(draft: &Draft, instance: &str, now: Timestamp, index: usize) -> Event {
    let id = &draft.id;
    // Spec: an event about an object without a namespace is in `default`.
    let namespace = if id.namespace.is_empty() { "default" } else { &id.namespace };
    let stem: String = id.name.chars().take(NAME_STEM_CHARS_MAX).collect();
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{stem}.{:x}.{index:x}", now.as_nanosecond())),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER_NAME.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        action: Some(draft.action.clone()),
        reason: Some(draft.reason.clone()),
        note: Some(draft.note.clone()),
        type_: Some(draft.severity.label().to_owned()),
        regarding: Some(ObjectReference {
            api_version: text(&id.api_version),
            kind: text(&id.kind),
            namespace: text(&id.namespace),
            name: text(&id.name),
            uid: text(&draft.uid),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

/// Posts at the same time.
const CONCURRENCY: usize = 4;
const REQUEST_MAX: Duration = Duration::from_secs(3);
/// How long the events of one call may take in all.
const RECORD_MAX: Duration = Duration::from_secs(10);
/// Spec: `events.k8s.io/v1` Event, `reportingInstance` has at most 128 characters.
const INSTANCE_CHARS_MAX: usize = 128;
/// Of 253 characters of a name, what the time and the index leave.
const NAME_STEM_CHARS_MAX: usize = 200;
