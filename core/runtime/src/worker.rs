//! Worker threads: one OS thread each, with a current-thread runtime and a `LocalSet`.
//!
//! Workers share nothing on the request path. What they are given (listeners, snapshot
//! readers, pools) is built for each worker on its own thread, so it need not be `Send`.

use std::fmt;
use std::future::Future;
use std::io;
use std::thread::JoinHandle;

/// Number of a worker, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub usize);

/// The worker threads of one role; the owner joins them.
pub struct Workers {
    threads: Vec<(WorkerId, JoinHandle<io::Result<()>>)>,
}

impl Workers {
    /// Starts one thread for each seed and runs `main(id, seed)` on each to its end.
    ///
    /// `name` becomes the thread name, as `<name>-<id>`.
    ///
    /// # Errors
    ///
    /// The system refused a thread.
    pub fn start<S, M, F>(name: &str, seeds: Vec<S>, main: M) -> io::Result<Self>
    where
        S: Send + 'static,
        M: Fn(WorkerId, S) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        let mut threads = Vec::with_capacity(seeds.len());
        for (index, seed) in seeds.into_iter().enumerate() {
            let (id, main) = (WorkerId(index), main.clone());
            let thread = std::thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(move || run(|| main(id, seed)))?;
            threads.push((id, thread));
        }
        Ok(Self { threads })
    }

    /// How many workers there are.
    pub fn len(&self) -> usize {
        self.threads.len()
    }

    /// Whether there is no worker.
    pub fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// Waits for every worker to end; logs the ones that failed.
    ///
    /// Blocks the calling thread, so async callers use `spawn_blocking`.
    pub fn join(self) {
        for (id, thread) in self.threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(worker = id.0, %error, "worker failed"),
                Err(_) => tracing::error!(worker = id.0, "worker panicked"),
            }
        }
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("len", &self.threads.len()).finish()
    }
}

fn run<F: Future<Output = ()>>(main: impl FnOnce() -> F) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    // `main` is called inside the runtime, so that it may register sockets.
    local.block_on(&runtime, async move { main().await });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn each_seed_gets_its_own_thread() {
        let (sender, receiver) = mpsc::channel();
        let workers = Workers::start("test", vec![1, 2, 3], move |id, seed| {
            let sender = sender.clone();
            async move {
                let name = std::thread::current().name().unwrap_or_default().to_owned();
                sender.send((id.0, seed, name)).unwrap();
            }
        })
        .unwrap();
        assert_eq!(workers.len(), 3);
        workers.join();
        let mut seen: Vec<_> = receiver.iter().collect();
        seen.sort();
        let names: Vec<_> = seen.iter().map(|entry| entry.2.as_str()).collect();
        assert_eq!(names, ["test-0", "test-1", "test-2"]);
    }
}
