//! hyper's futures on the worker's own thread.

use std::future::Future;

use isthmus_runtime::{LocalExecutor, LocalTasks};

/// Runs the stream futures of HTTP/2 connections as tasks of the worker.
#[derive(Debug, Clone)]
pub(crate) struct HyperExecutor {
    local: LocalExecutor,
}

impl HyperExecutor {
    /// An executor whose futures belong to `tasks`.
    pub(crate) fn new(tasks: LocalTasks) -> Self {
        Self { local: LocalExecutor::new(tasks) }
    }
}

impl<F> hyper::rt::Executor<F> for HyperExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        self.local.execute(async move {
            future.await;
        });
    }
}
