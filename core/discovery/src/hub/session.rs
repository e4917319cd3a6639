//! One stream: waits for the hello, then moves messages between the stream and the
//! [`Subscription`].

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_model::{SpiffeId, TrustDomain};
use isthmus_runtime::clock;
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, StreamExt};

use super::SubscriberStatus;
use crate::authorise::{Refused, authorise};
use crate::message::{ClientMessage, Delta, Hello, LinkReport};
use crate::node::{NodeIdentity, NodeRole};
use crate::publisher::State;
use crate::publisher::subscription::{Handled, Subscription, SubscriptionError};

/// Messages of the proxy.
pub(crate) type Incoming =
    Pin<Box<dyn Stream<Item = Result<ClientMessage, SessionError>> + Send + 'static>>;

/// Deltas for the proxy, and at last the error that ended the session.
pub(crate) type Outgoing = mpsc::Sender<Result<Delta, SessionError>>;

/// Numbers the sessions of a publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(crate) u64);

/// Who is at the other end.
#[derive(Debug, Clone)]
pub(crate) enum Authority {
    /// A part of this process.
    InProcess(NodeIdentity),
    /// A peer that proved its identity; `until` is when that proof ends.
    Peer { identity: SpiffeId, own: TrustDomain, until: Option<Instant> },
}

impl Authority {
    fn until(&self) -> Option<Instant> {
        match self {
            Self::InProcess(_) => None,
            Self::Peer { until, .. } => *until,
        }
    }
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("the stream is closed")]
    Closed,
    #[error("the certificate that opened this stream has expired; a new one is needed")]
    Expired,
    #[error("the controller has as many streams as it can hold")]
    Full,
    #[error("the first message is not a hello")]
    NoHello,
    #[error("no hello within {} s", HELLO_TIMEOUT.as_secs())]
    HelloTimeout,
    #[error("{reason}")]
    Protocol { reason: String },
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
}

/// What a session tells the owner.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    Ended(SessionId),
    Progress(SessionId, SubscriberStatus),
    Report(SessionId, Vec<LinkReport>),
}

pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) authority: Authority,
    pub(crate) incoming: Incoming,
    pub(crate) outgoing: Outgoing,
    pub(crate) states: watch::Receiver<Option<Arc<State>>>,
    pub(crate) events: mpsc::Sender<SessionEvent>,
}

impl Session {
    /// Serves the stream to its end.
    pub(crate) async fn run(mut self) {
        let until = self.authority.until();
        let outcome = tokio::select! {
            // The end goes first; what was about to be said is not for this peer any more.
            biased;
            () = clock::sleep_until(until) => Err(SessionError::Expired),
            outcome = self.serve() => outcome,
        };
        if let Err(error) = outcome {
            tracing::debug!(session = self.id.0, %error, "a discovery stream ended");
            // A stream that is full or gone cannot be told.
            let _ = self.outgoing.try_send(Err(error));
        }
        let _ = self.events.send(SessionEvent::Ended(self.id)).await;
    }

    async fn serve(&mut self) -> Result<(), SessionError> {
        let hello = self.hello().await?;
        let node = match &self.authority {
            Authority::InProcess(node) => node.clone(),
            Authority::Peer { identity, own, .. } => authorise(identity, own, &hello.node)?,
        };
        let mut status = SubscriberStatus {
            node: node.name.clone(),
            role: node.role,
            workload: node.workload.as_ref().map(ToString::to_string),
            generation: None,
            names: 0,
            nacks: Vec::new(),
        };
        let mut subscription = Subscription::new(node, hello)?;
        tell(&self.events, SessionEvent::Progress(self.id, status.clone())).await?;
        loop {
            // Here and not in its arm below, which a peer that sends without pause starves.
            subscription.handle_timeout(clock::now())?;
            let state = self.states.borrow_and_update().clone();
            let delta = state.and_then(|state| subscription.poll_delta(clock::now(), &state));
            if let Some(delta) = delta {
                // One delta is in flight at most, so the channel has room unless the
                // stream is gone.
                self.outgoing.try_send(Ok(delta)).map_err(|_| SessionError::Closed)?;
            }
            if refresh(&mut status, &subscription) {
                tell(&self.events, SessionEvent::Progress(self.id, status.clone())).await?;
            }
            let timeout = subscription.next_timeout();
            tokio::select! {
                // Answers go first, since a new state can only be sent after one. Each arm
                // is cancel-safe.
                biased;
                message = self.incoming.next() => match message {
                    Some(message) => match subscription.handle(message?)? {
                        Handled::Here => {}
                        // Others have no links, and could drown the reports of those who do.
                        Handled::Report(_) if status.role != NodeRole::EastWest => {}
                        Handled::Report(links) => {
                            tell(&self.events, SessionEvent::Report(self.id, links)).await?;
                        }
                    },
                    None => return Ok(()),
                },
                changed = self.states.changed() => changed.map_err(|_| SessionError::Closed)?,
                () = clock::sleep_until(timeout) => {}
            }
        }
    }

    async fn hello(&mut self) -> Result<Hello, SessionError> {
        let first = tokio::time::timeout(HELLO_TIMEOUT, self.incoming.next());
        match first.await.map_err(|_| SessionError::HelloTimeout)? {
            Some(Ok(ClientMessage::Hello(hello))) => Ok(*hello),
            Some(Ok(_)) => Err(SessionError::NoHello),
            Some(Err(error)) => Err(error),
            None => Err(SessionError::Closed),
        }
    }
}

async fn tell(
    events: &mpsc::Sender<SessionEvent>,
    event: SessionEvent,
) -> Result<(), SessionError> {
    events.send(event).await.map_err(|_| SessionError::Closed)
}

/// Brings the status up to date; says whether it changed.
fn refresh(status: &mut SubscriberStatus, subscription: &Subscription) -> bool {
    let next = SubscriberStatus {
        generation: subscription.synced(),
        names: subscription.name_count(),
        nacks: subscription.rejections(),
        ..status.clone()
    };
    let changed = next != *status;
    *status = next;
    changed
}

/// How long a stream may stay silent before its hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Deltas and errors that wait for the stream: one of each.
pub(crate) const DELTAS_QUEUED: usize = 2;
