//! Waiting for a condition.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Asks again and again until the answer is `Ok`, and panics when that takes too long.
///
/// `what` says what is waited for; the panic tells the last `Err` beside it.
pub(crate) async fn eventually<T, E, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    E: Debug,
    F: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + PATIENCE;
    let mut last = None;
    loop {
        match timeout_at(deadline, ask()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(error)) => last = Some(error),
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            panic!("{what}: not within {PATIENCE:?}; last: {last:?}");
        }
        sleep(PAUSE).await;
    }
}

/// Waits for something that is only true or false.
pub(crate) async fn eventually_true(what: &str, mut ask: impl FnMut() -> bool) {
    eventually(what, || std::future::ready(if ask() { Ok(()) } else { Err("still false") })).await;
}

/// Gives a future a deadline, so that a test fails instead of hanging.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Longer than anything takes on a busy machine; nothing waits that long when it works.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);
