//! How long a connection lives: as long as its one stream, and a stream as long as the
//! certificate of its peer.
//!
//! A connection without a stream keeps a place. One whose stream is over may keep the rest
//! of a large delta, of a state that is not published any more, for as long as the peer
//! answers probes and reads nothing. So both are closed, and what they hold goes with them.

use std::time::Duration;

use tokio::sync::watch;

/// Follows the stream of one connection. Clones follow the same one.
#[derive(Debug, Clone)]
pub(super) struct Life {
    stage: watch::Sender<Stage>,
}

/// Only goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Unused,
    Streaming,
    Over,
}

/// The session's hold on its connection; dropping it says that the stream is over.
#[derive(Debug)]
pub(super) struct StreamGuard(Life);

impl Life {
    /// The life of a connection that has no stream yet.
    pub(super) fn new() -> Self {
        Self { stage: watch::Sender::new(Stage::Unused) }
    }

    /// Notes that the stream begins.
    pub(super) fn stream(&self) -> StreamGuard {
        self.advance(Stage::Streaming);
        StreamGuard(self.clone())
    }

    /// Resolves when the connection is to be closed.
    ///
    /// # Cancel safety
    ///
    /// May be dropped; a new call begins with the time for opening a stream.
    pub(super) async fn end(&self) {
        let mut stage = self.stage.subscribe();
        let begun = stage.wait_for(|stage| *stage > Stage::Unused);
        if tokio::time::timeout(STREAM_TIMEOUT, begun).await.is_err() {
            return;
        }
        // The sender is `self`, so this ends with the stream and not before.
        let _ = stage.wait_for(|stage| *stage == Stage::Over).await;
        tokio::time::sleep(FAREWELL).await;
    }

    fn advance(&self, to: Stage) {
        self.stage.send_if_modified(|stage| {
            let later = to > *stage;
            *stage = to.max(*stage);
            later
        });
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.advance(Stage::Over);
    }
}

/// How long a connection may be without its stream.
const STREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the end of a stream, with its reason, may take to reach the peer.
const FAREWELL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_soon_after_its_stream_or_when_it_opens_none() {
        let began = tokio::time::Instant::now();
        Life::new().end().await;
        assert_eq!(began.elapsed(), STREAM_TIMEOUT);
        let life = Life::new();
        let guard = life.stream();
        let day = Duration::from_secs(86_400);
        assert!(tokio::time::timeout(day, life.end()).await.is_err());
        drop(guard);
        let began = tokio::time::Instant::now();
        // A stream that is opened now saves nothing.
        let _late = life.stream();
        life.end().await;
        assert_eq!(began.elapsed(), FAREWELL);
    }
}
