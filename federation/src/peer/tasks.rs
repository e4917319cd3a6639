//! Runs the futures of one HTTP/2 connection, and ends them with it.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

/// The tasks of one connection; dropping the last clone aborts them.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectionTasks {
    /// A leaf: held only to add a task, never across an await.
    set: Arc<Mutex<JoinSet<()>>>,
}

impl<F> hyper::rt::Executor<F> for ConnectionTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        // Ended tasks are taken out as new ones come in.
        while set.try_join_next().is_some() {}
        set.spawn(future);
    }
}
