//! The task of a client: events of the stream, of callers and of the clock, one by one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_model::{Generation, NodeInfo, ServiceKey, Snapshot};
use isthmus_runtime::{SnapshotCell, clock};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::on_demand::{Usage, WantRequest, Wanted};
use super::port::PortError;
use super::streams::{StreamEvent, Streams};
use super::{Age, ClientOptions, Condition};
use crate::message::{ClientMessage, Delta, LinkReport};
use crate::state_file::{StateFile, StateFileError};
use crate::subscriber::{Resolved, Saved, Subscriber, Want};

/// The ends of the client's channels.
pub(crate) struct Seed {
    pub(crate) file: Option<StateFile>,
    pub(crate) inbox: mpsc::Receiver<WantRequest>,
    pub(crate) reported: watch::Receiver<Vec<LinkReport>>,
    pub(crate) stopped: watch::Receiver<bool>,
    pub(crate) usage: Usage,
}

pub(crate) struct ClientTask {
    options: ClientOptions,
    seed: Seed,
    subscriber: Subscriber,
    streams: Streams,
    snapshots: SnapshotCell<Snapshot>,
    condition: watch::Sender<Condition>,
    waiters: BTreeMap<ServiceKey, Vec<oneshot::Sender<Wanted>>>,
    waiter_count: usize,
    save_at: Option<Instant>,
    saving: JoinSet<Result<(), StateFileError>>,
}

enum Event {
    Links,
    Saved(Result<(), StateFileError>),
    Stop,
    Stream(StreamEvent),
    Timeout,
    Wants(Vec<WantRequest>),
}

impl ClientTask {
    pub(crate) fn new(
        options: ClientOptions,
        seed: Seed,
    ) -> (Self, watch::Receiver<Condition>, SnapshotCell<Snapshot>) {
        let now = clock::now();
        let mut condition = Condition::default();
        let saved = load(seed.file.as_ref(), now, &mut condition);
        let mut subscriber =
            Subscriber::new(now, options.identity(), options.limits.names(), saved);
        let snapshots = SnapshotCell::new(build(&subscriber, &options.node));
        subscriber.names().poll_usage().into_iter().for_each(|table| seed.usage.replace(table));
        condition.names = subscriber.names().len();
        let (condition, status) = watch::channel(condition);
        let (transport, node) = (options.transport.clone(), options.identity());
        let task = Self {
            streams: Streams::new(now, transport, node, options.limits.reconnect_max),
            options,
            seed,
            subscriber,
            snapshots: snapshots.clone(),
            condition,
            waiters: BTreeMap::new(),
            waiter_count: 0,
            save_at: None,
            saving: JoinSet::new(),
        };
        (task, status, snapshots)
    }

    pub(crate) async fn run(mut self) {
        loop {
            let event = self.next_event().await;
            if matches!(event, Event::Stop) {
                break;
            }
            if let Err(error) = self.handle(event).and_then(|()| self.flush()) {
                self.on_failed(&error);
            }
            let names = self.subscriber.names().len();
            self.condition.send_if_modified(|condition| {
                std::mem::replace(&mut condition.names, names) != names
            });
        }
        self.save_last().await;
    }

    async fn next_event(&mut self) -> Event {
        // Without any caller left the client still keeps the snapshot current.
        let callers = !self.seed.inbox.is_closed();
        let stream_open = self.streams.is_open();
        let timers = [self.subscriber.names().next_timeout(), self.save_due()];
        let timeout = timers.into_iter().flatten().min();
        let mut wants = Vec::new();
        tokio::select! {
            // The end goes first. Timers and the stream are paced (one delta in flight), so
            // they cannot starve callers, who could starve them. Each arm is cancel-safe.
            biased;
            _ = self.seed.stopped.wait_for(|stopped| *stopped) => Event::Stop,
            () = clock::sleep_until(timeout) => Event::Timeout,
            event = self.streams.next() => Event::Stream(event),
            Some(outcome) = self.saving.join_next() => match outcome {
                Ok(outcome) => Event::Saved(outcome),
                Err(_) => Event::Timeout,
            },
            Ok(()) = self.seed.reported.changed(), if stream_open => Event::Links,
            count = self.seed.inbox.recv_many(&mut wants, WANTS_BATCH), if callers => {
                if count == 0 { Event::Timeout } else { Event::Wants(wants) }
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), PortError> {
        let now = clock::now();
        match event {
            Event::Links => {
                let links = self.seed.reported.borrow_and_update().clone();
                return self.streams.send(ClientMessage::Report(links));
            }
            Event::Saved(outcome) => self.on_saved(now, outcome),
            Event::Stop => {}
            Event::Stream(StreamEvent::Delta(delta)) => return self.on_delta(now, *delta),
            Event::Stream(StreamEvent::Failed(error)) => return Err(error),
            Event::Stream(StreamEvent::Opened) => {
                let hello = self.subscriber.handle_connected(now);
                self.streams.send(hello)?;
                let links = self.seed.reported.borrow_and_update().clone();
                if !links.is_empty() {
                    self.streams.send(ClientMessage::Report(links))?;
                }
            }
            Event::Timeout => {
                self.subscriber.names().handle_timeout(now);
                self.forget_waiters();
                if self.save_due().is_some_and(|due| due <= now) {
                    self.save_at = None;
                    self.save();
                }
            }
            Event::Wants(wants) => wants.into_iter().for_each(|want| self.on_want(now, want)),
        }
        Ok(())
    }

    fn on_delta(&mut self, now: Instant, delta: Delta) -> Result<(), PortError> {
        let former = self.subscriber.position();
        let applied = match self.subscriber.handle_delta(now, delta) {
            Ok(applied) => applied,
            Err(error) => {
                tracing::warn!(%error, "a configuration change is refused; the former stays");
                return Err(PortError::Refused { source: error });
            }
        };
        let position = self.subscriber.position();
        if applied.changed || position != former {
            self.snapshots.publish(Arc::new(build(&self.subscriber, &self.options.node)));
            // The first state is saved at once: a proxy that dies young must find it.
            let delay = former.map_or(Duration::ZERO, |_| self.options.limits.save_delay);
            self.save_at.get_or_insert(now + delay);
        }
        self.publish_usage();
        for (name, resolved) in applied.resolved {
            self.resolve(&name, wanted(resolved));
        }
        self.streams.handle_answered();
        self.condition.send_modify(|condition| {
            condition.connected = true;
            condition.from_disk = false;
            condition.epoch = position.map(|position| position.epoch);
            condition.generation = position.map(|position| position.generation);
            condition.age = Age::Current;
            condition.last_error = None;
            condition.rejections = applied.rejections;
        });
        self.streams.send(applied.answer)
    }

    fn on_want(&mut self, now: Instant, want: WantRequest) {
        let answer = match self.subscriber.handle_want(now, &want.name) {
            Want::Full | Want::Unready => Wanted::Timeout,
            Want::Resolved(resolved) => wanted(resolved),
            Want::Wait if self.waiter_count >= WAITERS_MAX => Wanted::Timeout,
            Want::Wait => {
                self.waiter_count += 1;
                self.waiters.entry(want.name).or_default().push(want.reply);
                return;
            }
        };
        // The caller may have given up.
        let _ = want.reply.send(answer);
    }

    fn on_failed(&mut self, error: &PortError) {
        let now = clock::now();
        self.streams.handle_failed(now);
        self.subscriber.handle_disconnected();
        let text = error.to_string();
        let lost = self.condition.send_if_modified(|condition| {
            let lost = std::mem::take(&mut condition.connected);
            if condition.age == Age::Current {
                condition.age = Age::Since { moment: now, offset: Duration::ZERO };
            }
            let changed = condition.last_error.as_ref() != Some(&text);
            condition.last_error = Some(text.clone());
            lost || changed
        });
        if lost {
            // Once for each new reason: a controller that is away for an hour is one line.
            tracing::warn!(%error, "no discovery stream; the last good state goes on serving");
        }
    }

    /// Sends what the names need and tells the request path which are known.
    fn flush(&mut self) -> Result<(), PortError> {
        self.publish_usage();
        self.subscriber.poll_names().into_iter().try_for_each(|message| self.streams.send(message))
    }

    fn publish_usage(&mut self) {
        if let Some(table) = self.subscriber.names().poll_usage() {
            self.seed.usage.replace(table);
        }
    }

    fn resolve(&mut self, name: &ServiceKey, wanted: Wanted) {
        for waiter in self.waiters.remove(name).into_iter().flatten() {
            self.waiter_count -= 1;
            let _ = waiter.send(wanted);
        }
    }

    /// Drops the waiters whose callers have gone.
    fn forget_waiters(&mut self) {
        self.waiters.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.is_closed());
            !waiters.is_empty()
        });
        self.waiter_count = self.waiters.values().map(Vec::len).sum();
    }

    /// When the state is to be saved: not while it is being saved.
    fn save_due(&self) -> Option<Instant> {
        if self.saving.is_empty() { self.save_at } else { None }
    }

    fn save(&mut self) {
        let (Some(file), Some(saved)) = (self.seed.file.clone(), self.subscriber.to_saved()) else {
            return;
        };
        // Disks may be slow; everything here is shared or copied, so nothing waits.
        self.saving.spawn_blocking(move || file.store(&saved, clock::wall()));
    }

    fn on_saved(&mut self, now: Instant, outcome: Result<(), StateFileError>) {
        let error = outcome.err().map(|error| match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        });
        if let Some(error) = &error {
            tracing::warn!(%error, "the last good state is not saved; it goes on in memory");
            self.save_at.get_or_insert(now + SAVE_RETRY);
        }
        self.condition.send_if_modified(|condition| {
            let changed = condition.state_file_error != error;
            condition.state_file_error = error;
            changed
        });
    }

    async fn save_last(&mut self) {
        while self.saving.join_next().await.is_some() {}
        if self.save_at.take().is_some() {
            self.save();
            while let Some(outcome) = self.saving.join_next().await {
                outcome.into_iter().for_each(|outcome| self.on_saved(clock::now(), outcome));
            }
        }
    }
}

fn load(file: Option<&StateFile>, now: Instant, condition: &mut Condition) -> Option<Saved> {
    let loaded = match file?.load() {
        Ok(loaded) => loaded?,
        Err(error) => {
            tracing::warn!(%error, "the saved state is not used; starting empty");
            condition.state_file_error = Some(error.to_string());
            return None;
        }
    };
    for rejection in &loaded.rejections {
        tracing::warn!(reason = %rejection.reason, "a saved resource is left out");
    }
    let position = loaded.saved.position;
    let offset = clock::wall().duration_since(loaded.at).unwrap_or_default();
    condition.from_disk = true;
    condition.epoch = Some(position.epoch);
    condition.generation = Some(position.generation);
    condition.age = Age::Since { moment: now, offset };
    tracing::info!(
        generation = position.generation.0,
        age_seconds = offset.as_secs(),
        "starting from the saved state, which may be stale"
    );
    Some(loaded.saved)
}

fn build(subscriber: &Subscriber, node: &NodeInfo) -> Snapshot {
    let generation = subscriber.position().map_or(Generation(0), |position| position.generation);
    Snapshot::build(generation, node.clone(), &subscriber.resources())
}

fn wanted(resolved: Resolved) -> Wanted {
    match resolved {
        Resolved::Absent => Wanted::Absent,
        Resolved::Known => Wanted::Known,
    }
}

/// Wishes taken at once; they become one message.
const WANTS_BATCH: usize = 256;

/// Callers that wait at a time; further ones are told to time out.
const WAITERS_MAX: usize = 16_384;

/// The pause after the state file could not be written.
const SAVE_RETRY: Duration = Duration::from_secs(10);
