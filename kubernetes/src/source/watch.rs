//! One watcher: finds its kind on the server, lists it, follows it, and begins again.
//!
//! Lists are streamed where the server does that, which spares both sides the whole
//! list in memory, and paged otherwise. A watch is begun anew from time to time, so that
//! whatever was missed for whatever reason does not stay missed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use isthmus_runtime::{clock, error_chain};
use kube::Client;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use crate::discovery::{self, Served};
use crate::source::cache::Change;
use crate::source::kinds::Scope;
use crate::source::pauses::Pauses;

/// One watcher, before it runs.
pub(crate) struct Watcher {
    client: Client,
    scope: Scope,
    labels: Option<String>,
    inputs: mpsc::Sender<(Scope, Change)>,
    strategy: Strategy,
    /// How often in a row the kind was not served, counted only once it was.
    missed: u32,
    was_served: bool,
}

/// How objects are listed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strategy {
    Paged,
    Streamed,
}

/// Why a watch has ended.
enum End {
    /// The server does not stream lists.
    CannotStream,
    /// The source is dropped.
    Dropped,
    /// The kind may have gone, or it is time to list again.
    LookAgain,
}

impl Watcher {
    pub(crate) fn new(
        client: Client,
        scope: Scope,
        labels: Option<String>,
        inputs: mpsc::Sender<(Scope, Change)>,
    ) -> Self {
        let strategy = Strategy::Streamed;
        Self { client, scope, labels, inputs, strategy, missed: 0, was_served: false }
    }

    /// Watches until the source is dropped.
    pub(crate) async fn run(mut self) {
        let mut pauses = Pauses::of(&self.scope);
        loop {
            let watched = self.scope.watched;
            let found =
                discovery::find(&self.client, watched.group(), watched.label(), watched.versions());
            let end = match found.await {
                Ok(Some(served)) => {
                    pauses.reset();
                    (self.missed, self.was_served) = (0, true);
                    self.follow(&served).await
                }
                Ok(None) => self.absent().await,
                Err(error) => {
                    let end = self.failed(error_chain(&error)).await;
                    sleep(pauses.after_failure()).await;
                    end
                }
            };
            match end {
                End::Dropped => return,
                End::CannotStream => self.strategy = Strategy::Paged,
                End::LookAgain => {}
            }
        }
    }

    /// A kind that was served must be absent several times before its objects go: a
    /// server that starts answers before it knows its CRDs.
    async fn absent(&mut self) -> End {
        self.missed += 1;
        if !self.was_served || self.missed >= ABSENT_CONFIRMATIONS {
            self.was_served = false;
            if let End::Dropped = self.send(Change::Absent).await {
                return End::Dropped;
            }
        }
        sleep(ABSENT_POLL).await;
        End::LookAgain
    }

    async fn failed(&self, error: String) -> End {
        tracing::warn!(scope = %self.scope, error, "cannot be watched: what is known stays");
        self.send(Change::Failed(error)).await
    }

    async fn send(&self, change: Change) -> End {
        match self.inputs.send((self.scope.clone(), change)).await {
            Ok(()) => End::LookAgain,
            Err(_) => End::Dropped,
        }
    }

    async fn follow(&self, served: &Served) -> End {
        let api = served.api(self.client.clone(), &self.scope.namespace);
        let mut stream = pin!(watcher::watcher(api, self.settings()));
        let mut pauses = Pauses::of(&self.scope);
        let start = Instant::from_std(clock::now());
        let resync = start + RESYNC + spread(&self.scope);
        let mut is_listed = false;
        // A list begins here also where the stream does not say so.
        if let End::Dropped = self.send(Change::Listing).await {
            return End::Dropped;
        }
        let mut patience = start + STREAM_PATIENCE;
        loop {
            let is_streaming = self.strategy == Strategy::Streamed && !is_listed;
            let until = if is_streaming { patience } else { resync };
            let Ok(event) = timeout_at(until, stream.next()).await else {
                // A server that does not know streamed lists takes the request for a
                // plain watch, and the end of the list never comes.
                return if is_streaming { End::CannotStream } else { End::LookAgain };
            };
            let change = match event {
                None => return End::LookAgain,
                Some(Err(error)) => {
                    if let Some(end) = self.verdict(&error) {
                        return end;
                    }
                    if let End::Dropped = self.failed(error_chain(&error)).await {
                        return End::Dropped;
                    }
                    sleep(pauses.after_failure()).await;
                    // An error before the end of a list begins the list again.
                    if is_listed {
                        continue;
                    }
                    Change::Listing
                }
                Some(Ok(event)) => {
                    patience = Instant::from_std(clock::now()) + STREAM_PATIENCE;
                    // A list says that it begins before the server is asked.
                    if !matches!(event, Event::Init) {
                        pauses.reset();
                    }
                    is_listed = match &event {
                        Event::Init | Event::InitApply(_) => false,
                        Event::InitDone | Event::Apply(_) | Event::Delete(_) => true,
                    };
                    change(event, served)
                }
            };
            if let End::Dropped = self.send(change).await {
                return End::Dropped;
            }
        }
    }

    /// What an error says about the kind and the way to list it; `None` to retry.
    fn verdict(&self, error: &watcher::Error) -> Option<End> {
        let code = match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => discovery::code(error),
            watcher::Error::WatchError(status) => Some(status.code),
            watcher::Error::NoResourceVersion => None,
        }?;
        match code {
            404 => Some(End::LookAgain),
            // Spec: "Streaming lists": a server without them answers Invalid.
            400 | 422 if self.strategy == Strategy::Streamed => Some(End::CannotStream),
            _ => None,
        }
    }

    fn settings(&self) -> watcher::Config {
        let mut settings = match self.strategy {
            Strategy::Paged => watcher::Config::default().page_size(PAGE),
            Strategy::Streamed => watcher::Config::default().streaming_lists(),
        };
        settings = settings.timeout(WATCH_SECONDS);
        settings.label_selector.clone_from(&self.labels);
        settings.field_selector = self.scope.watched.field_selector(&self.scope.namespace);
        settings
    }
}

fn change(event: Event<DynamicObject>, served: &Served) -> Change {
    match event {
        Event::Apply(object) => Change::Applied(value(object, served)),
        Event::Delete(object) => Change::Deleted(value(object, served)),
        Event::Init => Change::Listing,
        Event::InitApply(object) => Change::Listed(value(object, served)),
        Event::InitDone => Change::ListedAll,
    }
}

/// The object as JSON; lists leave out `apiVersion` and `kind` of their items.
fn value(mut object: DynamicObject, served: &Served) -> Value {
    object.metadata.managed_fields = None;
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.insert("apiVersion".to_owned(), served.resource.api_version.clone().into());
        fields.insert("kind".to_owned(), served.resource.kind.clone().into());
    }
    value
}

/// Spreads the lists of the kinds over time.
fn spread(scope: &Scope) -> Duration {
    let mut hasher = DefaultHasher::new();
    scope.hash(&mut hasher);
    Duration::from_secs(hasher.finish() % RESYNC_SPREAD_SECONDS)
}

/// How often a kind that is not served is asked for.
const ABSENT_POLL: Duration = Duration::from_secs(5);
/// How often in a row a kind that was served must be absent.
const ABSENT_CONFIRMATIONS: u32 = 3;
/// How long the next part of a streamed list may take.
const STREAM_PATIENCE: Duration = Duration::from_secs(20);
/// How long a watch lasts before everything is listed again, and what is added by scope.
const RESYNC: Duration = Duration::from_secs(30 * 60);
const RESYNC_SPREAD_SECONDS: u64 = 10 * 60;
/// Objects in one page of a list.
const PAGE: u32 = 500;
/// How long the server keeps one watch open; the next goes on where it ended.
const WATCH_SECONDS: u32 = 60;
