//! One live connection to a peer, as those who open streams see it.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, mpsc};

use crate::connection::Connection;
use crate::proto::frame::{Role, Stats};
use crate::proto::selector::{ConnectionId, PathSample};
use crate::proto::session::CloseCode;
use crate::status::Counters;

/// A handle that any thread may use.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: ConnectionId,
    pub(crate) connection: Connection,
    pub(crate) counters: Arc<Counters>,
    rank: AtomicU8,
    streams: AtomicUsize,
    streams_max: usize,
    /// Bytes that applications have written to streams of this connection.
    pub(crate) written: AtomicU64,
    /// Wakes the connection's task when the last stream is gone.
    pub(crate) idle: Notify,
    commands: mpsc::Sender<Command>,
    measured: Mutex<Measured>,
}

/// What is known of a connection's path.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    pub(crate) sample: PathSample,
    pub(crate) peer: Stats,
}

/// How good a connection is for new streams, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Rank {
    /// Takes no new streams.
    Closing = 0,
    /// Used only when nothing better is there.
    Standby = 1,
    /// For new streams.
    Active = 2,
}

/// What a connection's task is told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Command {
    Close(CloseCode),
    Retire,
    Role(Role),
}

/// One open stream of a link; dropping it says that the stream is gone.
#[derive(Debug)]
pub(crate) struct StreamGuard {
    pub(crate) link: Arc<Link>,
}

impl Link {
    pub(crate) fn new(
        id: ConnectionId,
        connection: Connection,
        streams_max: usize,
        counters: Arc<Counters>,
    ) -> (Arc<Self>, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let link = Self {
            id,
            connection,
            counters,
            rank: AtomicU8::new(Rank::Standby as u8),
            streams: AtomicUsize::new(0),
            streams_max,
            written: AtomicU64::new(0),
            idle: Notify::new(),
            commands,
            measured: Mutex::default(),
        };
        (Arc::new(link), receiver)
    }

    pub(crate) fn rank(&self) -> Rank {
        match self.rank.load(Ordering::Acquire) {
            0 => Rank::Closing,
            1 => Rank::Standby,
            _ => Rank::Active,
        }
    }

    /// Changes the rank; a closing connection stays so.
    pub(crate) fn set_rank(&self, rank: Rank) {
        let change = |old: u8| (old != Rank::Closing as u8).then_some(rank as u8);
        // An error means that the connection is closing, which is final.
        let _ = self.rank.fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
    }

    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Ordering::Acquire)
    }

    /// Takes a place for one stream, or `None` when the connection is full.
    pub(crate) fn reserve(self: &Arc<Self>) -> Option<StreamGuard> {
        let max = self.streams_max;
        let take = |open: usize| (open < max).then_some(open + 1);
        self.streams.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        Some(StreamGuard { link: Arc::clone(self) })
    }

    /// Tells the connection's task; a full queue means that it is ending anyway.
    pub(crate) fn command(&self, command: Command) {
        if self.commands.try_send(command).is_err() {
            tracing::debug!(connection = self.id.0, ?command, "connection takes no commands");
        }
    }

    pub(crate) fn measured(&self) -> Measured {
        *self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn measure(&self, change: impl FnOnce(&mut Measured)) {
        change(&mut self.measured.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        if self.link.streams.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.link.idle.notify_one();
        }
    }
}

const COMMANDS_MAX: usize = 32;
