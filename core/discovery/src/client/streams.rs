//! The streams of one client: one as a rule, two for a moment when its certificate is
//! renewed.
//!
//! A controller ends a stream with the certificate that opened it. So the client does not
//! wait for that: when its certificate was renewed, with about half of the former one's
//! life left, a second stream is opened with the new one, and takes the place of the first
//! as soon as it stands. The first is let go when the controller has answered on the
//! second, so that no moment passes in which the controller takes this node for gone. A
//! second stream that cannot be opened is tried again; until then the first goes on.
//!
//! Renewals of different nodes are spread over time by whoever renews, and the streams
//! with them.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use isthmus_runtime::clock;
use tokio::sync::watch;

use super::Transport;
use super::port::{Port, PortError};
use crate::message::{ClientMessage, Delta};
use crate::node::NodeIdentity;
use crate::subscriber::Backoff;

/// The streams of one client.
pub(crate) struct Streams {
    dial: Dial,
    backoff: Backoff,
    current: Current,
    /// On its way to the place of `current`, which is open.
    successor: Option<Attempt>,
    successor_backoff: Backoff,
    /// Was `current`, until the controller answers on what is that now.
    former: Option<Port>,
}

enum Current {
    Attempt(Attempt),
    Open(Port),
}

/// What happened to the stream that counts.
pub(crate) enum StreamEvent {
    /// The controller sent this.
    Delta(Box<Delta>),
    /// There is none any more, or still none.
    Failed(PortError),
    /// There is a new one, on which nothing was said yet.
    Opened,
}

impl Streams {
    /// The first attempt is due `now`; the pauses between later ones end at `pause_max`.
    pub(crate) fn new(
        now: Instant,
        transport: Transport,
        node: NodeIdentity,
        pause_max: Duration,
    ) -> Self {
        let renewed = match &transport {
            Transport::Grpc(transport) => Some(transport.renewed.clone()),
            Transport::InProcess(_) => None,
        };
        Self {
            dial: Dial { transport, node, renewed },
            backoff: Backoff::new(pause_max),
            current: Current::Attempt(Attempt::Waiting(now)),
            successor: None,
            successor_backoff: Backoff::new(pause_max),
            former: None,
        }
    }

    /// Whether there is a stream.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.current, Current::Open(_))
    }

    /// The next event; after [`StreamEvent::Failed`], call [`Self::handle_failed`] first.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped: what is under way stays here.
    pub(crate) async fn next(&mut self) -> StreamEvent {
        let Self { dial, current, successor, successor_backoff, .. } = self;
        let opened = match current {
            Current::Attempt(attempt) => attempt.port(dial).await,
            Current::Open(port) => tokio::select! {
                // Deltas are paced, one in flight, so they starve no successor.
                biased;
                delta = port.next() => {
                    return match delta {
                        Ok(delta) => StreamEvent::Delta(Box::new(delta)),
                        Err(error) => StreamEvent::Failed(error),
                    };
                }
                port = next_successor(dial, successor, successor_backoff) => Ok(port),
            },
        };
        match opened {
            Ok(port) => {
                self.former = match std::mem::replace(&mut self.current, Current::Open(port)) {
                    Current::Attempt(_) => None,
                    Current::Open(former) => Some(former),
                };
                StreamEvent::Opened
            }
            Err(error) => StreamEvent::Failed(error),
        }
    }

    /// Sends a message on the stream that counts, if there is one.
    pub(crate) fn send(&self, message: ClientMessage) -> Result<(), PortError> {
        match &self.current {
            Current::Attempt(_) => Ok(()),
            Current::Open(port) => port.send(message),
        }
    }

    /// Notes that the controller has answered: the stream works.
    pub(crate) fn handle_answered(&mut self) {
        self.former = None;
        self.backoff.reset();
    }

    /// Leaves every stream; the next attempt comes after a pause.
    pub(crate) fn handle_failed(&mut self, now: Instant) {
        let pause = self.backoff.next(crate::random::word());
        self.current = Current::Attempt(Attempt::Waiting(now + pause));
        (self.successor, self.former) = (None, None);
    }
}

/// Opens streams.
struct Dial {
    transport: Transport,
    node: NodeIdentity,
    /// `None` inside the process, and when nothing renews the certificate any more.
    renewed: Option<watch::Receiver<u64>>,
}

impl Dial {
    fn open(&mut self) -> Opening {
        // The handshake comes later than this, so it shows what is current now or newer.
        if let Some(renewed) = &mut self.renewed {
            renewed.mark_unchanged();
        }
        Box::pin(Port::open(self.transport.clone(), self.node.clone()))
    }

    /// Waits until the certificate is another one than when a stream was last opened.
    async fn renewed(&mut self) {
        if let Some(renewed) = &mut self.renewed
            && renewed.changed().await.is_ok()
        {
            return;
        }
        self.renewed = None;
        std::future::pending().await
    }
}

type Opening = Pin<Box<dyn Future<Output = Result<Port, PortError>> + Send>>;

/// One way to a stream.
enum Attempt {
    Opening(Opening),
    Waiting(Instant),
}

impl Attempt {
    /// The stream; cancel-safe, but over once it has returned.
    async fn port(&mut self, dial: &mut Dial) -> Result<Port, PortError> {
        loop {
            match self {
                Self::Opening(opening) => return opening.await,
                Self::Waiting(until) => {
                    tokio::time::sleep_until((*until).into()).await;
                    *self = Self::Opening(dial.open());
                }
            }
        }
    }
}

/// Waits until the certificate is renewed and a stream is open with the new one.
/// Cancel-safe: what is under way stays in `successor`.
async fn next_successor(
    dial: &mut Dial,
    successor: &mut Option<Attempt>,
    backoff: &mut Backoff,
) -> Port {
    loop {
        let Some(attempt) = successor else {
            dial.renewed().await;
            *successor = Some(Attempt::Waiting(clock::now()));
            continue;
        };
        match attempt.port(dial).await {
            Ok(port) => {
                *successor = None;
                backoff.reset();
                return port;
            }
            Err(error) => {
                let pause = backoff.next(crate::random::word());
                tracing::debug!(%error, "no stream with the renewed certificate yet");
                *successor = Some(Attempt::Waiting(clock::now() + pause));
            }
        }
    }
}
