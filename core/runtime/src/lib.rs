//! What every process of Isthmus runs on: clocks, sockets, worker threads, owned tasks,
//! drain, signals and the snapshot cell.
//!
//! The data plane runs on share-nothing workers, one OS thread each with a
//! current-thread tokio runtime; the controller side of a process runs on another
//! runtime, so that neither can starve the other.
//!
//! # Flow
//!
//! 1. [`clock`]: the only place that reads the time.
//! 2. [`socket`]: SO_REUSEPORT listeners and tuned streams (the one file with `unsafe`).
//! 3. [`accept`]: connections of a listener, whatever errors come between.
//! 4. [`places`]: how many connections there may be, in all and of one address.
//! 5. [`worker`]: starts N worker threads and runs the same future on each.
//! 6. [`tasks`]: every task has an owner; local tasks for hyper on a worker.
//! 7. [`drain`]: stop accepting, wait to a deadline, force.
//! 8. [`signals`]: SIGTERM, SIGINT and SIGHUP as values.
//! 9. [`cell`]: one writer swaps a value, workers pin it without sharing a counter.
//! 10. [`atomic_file`]: state files that are either old or new, never half.
//! 11. [`error_chain`](error_chain()): an error with its sources, for logs.

pub mod clock;

pub mod socket;

pub mod accept;

pub mod places;

pub mod worker;

pub mod tasks;

pub mod drain;

pub mod signals;

pub mod cell;

pub mod atomic_file;

mod error_chain;

pub use crate::accept::{Accept, Accepting};
pub use crate::cell::{Pin, PinnedReader, SnapshotCell};
pub use crate::drain::{Drain, DrainOutcome, Guard, Stop};
pub use crate::error_chain::error_chain;
pub use crate::places::{NoPlace, Place, Places};
pub use crate::signals::{Signal, Signals};
pub use crate::socket::{SocketError, bind_tcp, bind_udp};
pub use crate::tasks::{LocalExecutor, LocalTasks};
pub use crate::worker::{WorkerId, Workers};
