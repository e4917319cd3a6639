//! What sessions and the owner of all state say to each other.

use std::time::Instant;

use isthmus_model::{ClusterId, SpiffeId};
use tokio::sync::{mpsc, oneshot};

use crate::proto::{Frame, Request};

/// Names one session in the life of a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(crate) u64);

/// From a session to the owner.
#[derive(Debug)]
pub(crate) enum Event {
    /// The stream of a peer that reads has ended.
    ExportClosed { session: SessionId },
    /// There is room for another frame.
    ExportDrained,
    /// A peer wants to read.
    ExportOpened {
        peer: SpiffeId,
        frames: mpsc::Sender<Frame>,
        reply: oneshot::Sender<Option<SessionId>>,
    },
    /// A peer that reads says something.
    ExportRequest { session: SessionId, request: Request },
    /// The stream to a peer has ended.
    ImportClosed { session: SessionId },
    /// A peer cannot be reached, or broke the protocol.
    ImportFailed { cluster: ClusterId, error: String },
    /// A peer's state brought something.
    ImportFrame { session: SessionId, frame: Frame, reply: oneshot::Sender<Intake> },
    /// The stream to a peer is open.
    ImportOpened {
        cluster: ClusterId,
        requests: mpsc::Sender<Request>,
        reply: oneshot::Sender<Option<SessionId>>,
    },
}

/// What a session does after a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intake {
    /// Reads the next one.
    Continue,
    /// Ends.
    End,
    /// Reads the next one at this time: the peer is too fast.
    NotBefore(Instant),
}

/// Events that wait for the owner; a session then waits too.
pub(crate) const EVENTS_QUEUED: usize = 1024;
/// Frames that wait for a peer to read. Differences are computed when there is room.
pub(crate) const FRAMES_QUEUED: usize = 4;
/// Requests that wait for a peer to take them.
pub(crate) const REQUESTS_QUEUED: usize = 8;
