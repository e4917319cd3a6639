//! What goes over a session between two controllers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use isthmus_model::ClusterId;
use serde::{Deserialize, Serialize};

use super::entry::{Entry, EntryKey};

/// A point in the history of a writer's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Rises each time the writer starts.
    pub epoch: u64,
    /// Rises with each changed entry.
    pub version: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.version)
    }
}

/// From the importer to the exporter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// The importer has applied everything up to here and heard this heartbeat.
    Ack {
        /// The position applied.
        position: Position,
        /// The last heartbeat's sequence.
        sequence: u64,
    },
    /// Send what comes after this position, or everything.
    Subscribe {
        /// The highest epoch that the importer has seen; it refuses what a lower one says,
        /// so the exporter must know.
        fence: u64,
        /// The position the importer has.
        resume: Option<Position>,
    },
}

/// From the exporter to the importer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Who says so; must be the cluster that the channel authenticated.
    pub cluster: ClusterId,
    /// The writer's epoch: it fences every message, not only the state.
    pub epoch: u64,
    /// What it says.
    pub body: Body,
}

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// What changed after `base`, up to and with `version`.
    Delta {
        /// The importer must have at least this version.
        base: u64,
        /// The version it has afterwards.
        version: u64,
        /// The changes, at most one for each key.
        changes: Vec<Change>,
    },
    /// One chunk of the full state.
    Full {
        /// The version it has after the last chunk.
        version: u64,
        /// Which chunk, from 0.
        index: u32,
        /// Whether this is the last chunk.
        last: bool,
        /// Entries of the chunk.
        entries: Vec<Change>,
    },
    /// The writer lives.
    Heartbeat {
        /// The version sent so far in this session; `None` while a full state is under way.
        sent: Option<u64>,
        /// Never goes back within an epoch.
        sequence: u64,
        /// How long the lease lasts from now.
        lease: Duration,
    },
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An entry that could not be read, with the reason. It changes nothing.
    Invalid(&'static str),
    /// The entry is gone.
    Remove(EntryKey),
    /// An entry of a kind that this release does not know. It changes nothing.
    Unknown,
    /// The entry is new or has changed.
    Set(Arc<Entry>),
}

/// The epoch of a writer that starts now.
///
/// It is above the last one if that is known. A writer that lost it goes by the clock; the
/// lower bits are random, so that even a clock that was set back does not give an epoch
/// again that stood for another history. If it is too low, the peers will say so
/// ([`super::SubscribeOutcome::Superseded`]).
pub fn start_epoch(last: Option<u64>, wall_seconds: u64, random: u64) -> u64 {
    let by_clock = (wall_seconds << EPOCH_RANDOM_BITS) | (random & ((1 << EPOCH_RANDOM_BITS) - 1));
    let above_last = last.map_or(0, |last| last.saturating_add(1));
    by_clock.max(above_last).min(EPOCH_MAX)
}

const EPOCH_RANDOM_BITS: u32 = 20;

/// An epoch above this is refused, so that a writer cannot lock itself out for ever.
pub const EPOCH_MAX: u64 = 1 << 62;
