//! Tasks on a worker, each with an owner.
//!
//! A detached task outlives what it was for; clippy forbids `tokio::spawn`. On a worker
//! [`LocalTasks`] owns the connections, and [`LocalExecutor`] is what hyper uses for the
//! streams of one HTTP/2 connection: those end with their connection.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::rc::Rc;

use tokio::task::{AbortHandle, JoinSet};

/// The tasks of one worker; dropping the last clone aborts them all.
#[derive(Clone, Default)]
pub struct LocalTasks {
    set: Rc<RefCell<JoinSet<()>>>,
}

impl LocalTasks {
    /// Starts a task on this worker's thread.
    ///
    /// # Panics
    ///
    /// Outside a `LocalSet`, which is a programming error: workers always run in one.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) -> AbortHandle {
        let mut set = self.set.borrow_mut();
        // Ended tasks are taken out as new ones come in, so the set stays as large as
        // the number of live tasks.
        while let Some(ended) = set.try_join_next() {
            report(ended);
        }
        set.spawn_local(task)
    }

    /// How many tasks have not been taken out.
    pub fn len(&self) -> usize {
        self.set.borrow().len()
    }

    /// Whether no task is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Aborts every task.
    pub fn abort_all(&self) {
        self.set.borrow_mut().abort_all();
    }
}

impl fmt::Debug for LocalTasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalTasks").field("len", &self.len()).finish()
    }
}

/// Runs hyper's HTTP/2 stream futures on the worker's own thread.
#[derive(Debug, Clone, Default)]
pub struct LocalExecutor {
    tasks: LocalTasks,
}

impl LocalExecutor {
    /// An executor whose tasks belong to `tasks`.
    pub fn new(tasks: LocalTasks) -> Self {
        Self { tasks }
    }

    /// Starts a future.
    pub fn execute(&self, future: impl Future<Output = ()> + 'static) {
        self.tasks.spawn(future);
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a task panicked; only its connection is lost");
    }
}
