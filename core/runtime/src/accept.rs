//! Accepting connections without an end.
//!
//! An error of `accept` is one of the moment: no file descriptors, or a client that has
//! gone. A loop that ended with it would turn a port off, and one that went on at once
//! would spin. So each error is logged and waited out, twice as long each time in a row.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::{Instant, sleep_until};

/// A bound socket that connections come from.
pub trait Accept {
    /// A connection and where it came from.
    type Accepted;

    /// Takes the next connection.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Self::Accepted>>;
}

impl Accept for TcpListener {
    type Accepted = (TcpStream, SocketAddr);

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Self::Accepted>> {
        Self::poll_accept(self, cx)
    }
}

impl Accept for UnixListener {
    type Accepted = (UnixStream, tokio::net::unix::SocketAddr);

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Self::Accepted>> {
        Self::poll_accept(self, cx)
    }
}

/// The connections of one listener; their end is up to the owner.
#[derive(Debug)]
pub struct Accepting<L> {
    listener: L,
    port: &'static str,
    /// The next pause after an error.
    pause: Duration,
    /// When the last pause ends.
    resume: Option<Instant>,
}

impl<L: Accept> Accepting<L> {
    /// Accepts from a listener; `port` says in the log what it is for.
    pub fn new(listener: L, port: &'static str) -> Self {
        Self { listener, port, pause: PAUSE_MIN, resume: None }
    }

    /// The next connection.
    ///
    /// # Cancel safety
    ///
    /// No connection is lost, and a pause that has begun is still kept.
    pub async fn next(&mut self) -> L::Accepted {
        loop {
            if let Some(resume) = self.resume {
                sleep_until(resume).await;
                self.resume = None;
            }
            match std::future::poll_fn(|cx| self.listener.poll_accept(cx)).await {
                Ok(accepted) => {
                    self.pause = PAUSE_MIN;
                    return accepted;
                }
                Err(error) => {
                    tracing::warn!(port = self.port, %error, "cannot accept a connection for now");
                    self.resume = Some(Instant::now() + self.pause);
                    self.pause = (self.pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }
}

/// The pause after the first error; each further one in a row doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Answers from the end of a list, and stays silent after it.
    struct Script(RefCell<Vec<io::Result<u32>>>);

    impl Accept for Script {
        type Accepted = u32;

        fn poll_accept(&self, _: &mut Context<'_>) -> Poll<io::Result<u32>> {
            self.0.borrow_mut().pop().map_or(Poll::Pending, Poll::Ready)
        }
    }

    fn no_descriptors() -> io::Result<u32> {
        Err(io::Error::other("too many open files"))
    }

    #[tokio::test(start_paused = true)]
    async fn errors_are_waited_out_and_never_end_the_port() {
        let mut script: Vec<_> = (0..10).map(|_| no_descriptors()).collect();
        script.insert(0, Ok(2));
        script.insert(1, no_descriptors());
        script.insert(2, Ok(1));
        let mut accepting = Accepting::new(Script(RefCell::new(script)), "test");
        let start = Instant::now();
        assert_eq!(accepting.next().await, 1);
        // 5, 10, 20 … 320 ms, and three times the longest.
        assert_eq!(start.elapsed(), Duration::from_millis(635 + 1500));
        let start = Instant::now();
        assert_eq!(accepting.next().await, 2);
        assert_eq!(start.elapsed(), PAUSE_MIN, "a connection begins the pauses anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_wait_is_not_a_way_around_the_pause() {
        let script = Script(RefCell::new(vec![Ok(1), no_descriptors()]));
        let mut accepting = Accepting::new(script, "test");
        let start = Instant::now();
        let cut = tokio::time::timeout(Duration::from_millis(1), accepting.next()).await;
        assert!(cut.is_err());
        assert_eq!(accepting.next().await, 1);
        assert_eq!(start.elapsed(), PAUSE_MIN);
    }
}
