//! The publisher's shell: one task owns the published state and every session.
//!
//! [`PublisherHandle::publish`] hands over the latest resources without waiting; states
//! that come faster than they are prepared collapse into the latest. Each session is a
//! task of its own with its own state machine, so a slow or hostile proxy delays nobody.

mod owner;

pub(crate) mod session;

use std::collections::BTreeMap;
use std::sync::Arc;

use isthmus_model::{Generation, Resource, ResourceKey};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use self::owner::{Command, Owner};
use self::session::{Authority, Incoming, Outgoing, SessionError};
use crate::message::{ClientMessage, Delta, Epoch, NodeReport, Rejection};
use crate::node::{NodeIdentity, NodeRole};

/// The publishing side of a controller; dropping it ends every stream.
#[derive(Debug)]
pub struct Publisher {
    handle: PublisherHandle,
    _task: JoinSet<()>,
}

/// Publishes states and answers who has them. Clones share one publisher.
#[derive(Debug, Clone)]
pub struct PublisherHandle {
    latest: watch::Sender<Option<Publication>>,
    commands: mpsc::Sender<Command>,
    reports: broadcast::Sender<NodeReport>,
}

/// What was published last.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    generation: Generation,
    resources: Arc<BTreeMap<ResourceKey, Arc<Resource>>>,
}

/// A state that was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The generation is not later than the one published.
    #[error("generation {offered} is not later than generation {published}")]
    NotLater {
        /// The generation offered.
        offered: Generation,
        /// The generation published.
        published: Generation,
    },
    /// The publisher has ended.
    #[error("the publisher has ended")]
    Ended,
}

/// One connected proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriberStatus {
    /// The name of its node.
    pub node: String,
    /// Its role, as authorised.
    pub role: NodeRole,
    /// Its workload, for a sidecar.
    pub workload: Option<String>,
    /// The generation that it has in use; `None` before its first answer.
    pub generation: Option<Generation>,
    /// How many services it asked for.
    pub names: usize,
    /// The resources that it refuses.
    pub nacks: Vec<Rejection>,
}

impl Publisher {
    /// Starts a publisher that is not ready: it serves nothing until the first
    /// [`PublisherHandle::publish`].
    ///
    /// Must be called inside a tokio runtime, which should not be one of the data plane.
    pub fn start(epoch: Epoch) -> Self {
        let latest = watch::Sender::new(None);
        let (commands, inbox) = mpsc::channel(COMMANDS_QUEUED);
        let reports = broadcast::Sender::new(REPORTS_QUEUED);
        let owner = Owner::new(epoch, reports.clone());
        let mut task = JoinSet::new();
        task.spawn(owner.run(latest.subscribe(), inbox));
        Self { handle: PublisherHandle { latest, commands, reports }, _task: task }
    }

    /// A handle to it.
    pub fn handle(&self) -> PublisherHandle {
        self.handle.clone()
    }
}

impl PublisherHandle {
    /// Publishes the whole state of a generation and returns at once.
    ///
    /// A controller that has not read all of its sources must not call this yet: proxies
    /// drop what a published state lacks.
    ///
    /// # Errors
    ///
    /// [`PublishError::NotLater`] unless the generation is above the published one;
    /// [`PublishError::Ended`] when the [`Publisher`] was dropped.
    pub fn publish(
        &self,
        generation: Generation,
        resources: BTreeMap<ResourceKey, Arc<Resource>>,
    ) -> Result<(), PublishError> {
        if self.commands.is_closed() {
            return Err(PublishError::Ended);
        }
        let mut outcome = Ok(());
        let next = Publication { generation, resources: Arc::new(resources) };
        self.latest.send_if_modified(|latest| {
            if let Some(former) = latest
                && generation <= former.generation
            {
                let published = former.generation;
                outcome = Err(PublishError::NotLater { offered: generation, published });
                return false;
            }
            *latest = Some(next);
            true
        });
        outcome
    }

    /// The generation published last; `None` while the publisher is not ready.
    pub fn published(&self) -> Option<Generation> {
        self.latest.borrow().as_ref().map(|publication| publication.generation)
    }

    /// What nodes say of themselves from now on. A receiver that falls behind loses the
    /// oldest reports; each report is whole, so the next one of the node repairs that.
    pub fn reports(&self) -> broadcast::Receiver<NodeReport> {
        self.reports.subscribe()
    }

    /// The connected proxies, in the order in which they came.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time.
    pub async fn subscribers(&self) -> Vec<SubscriberStatus> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Subscribers(reply)).await.is_err() {
            return Vec::new();
        }
        answer.await.unwrap_or_default()
    }

    /// Opens a stream inside this process, where the caller is trusted with its role.
    pub(crate) async fn subscribe_in_process(
        self,
        node: NodeIdentity,
    ) -> Result<InProcess, SessionError> {
        let (to_session, incoming) = mpsc::channel(MESSAGES_QUEUED);
        let (outgoing, from_session) = mpsc::channel(session::DELTAS_QUEUED);
        let incoming = Box::pin(ReceiverStream::new(incoming).map(Ok));
        self.attach(Authority::InProcess(node), incoming, outgoing).await?;
        Ok(InProcess { outgoing: to_session, incoming: from_session })
    }

    /// Starts a session.
    pub(crate) async fn attach(
        self,
        authority: Authority,
        incoming: Incoming,
        outgoing: Outgoing,
    ) -> Result<(), SessionError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Attach { authority, incoming, outgoing, reply };
        self.commands.send(command).await.map_err(|_| SessionError::Closed)?;
        answer.await.unwrap_or(Err(SessionError::Closed))
    }
}

/// The proxy's end of a stream inside the process.
#[derive(Debug)]
pub(crate) struct InProcess {
    pub(crate) outgoing: mpsc::Sender<ClientMessage>,
    pub(crate) incoming: mpsc::Receiver<Result<Delta, SessionError>>,
}

/// Commands that wait for the owner; a caller then waits too.
const COMMANDS_QUEUED: usize = 256;

/// Messages of one proxy that wait for its session.
pub(crate) const MESSAGES_QUEUED: usize = 64;

/// Reports that a slow receiver may be behind.
const REPORTS_QUEUED: usize = 1024;

#[cfg(test)]
mod tests;
