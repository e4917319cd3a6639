//! Unix signals as values.

use std::io;

use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};

/// What the operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP: read files again.
    Reload,
    /// SIGTERM or SIGINT: end gracefully.
    Terminate,
}

/// Receives the signals of this process.
#[derive(Debug)]
pub struct Signals {
    hangup: UnixSignal,
    interrupt: UnixSignal,
    terminate: UnixSignal,
}

impl Signals {
    /// Registers the handlers.
    ///
    /// # Errors
    ///
    /// The system refused a handler.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next signal.
    ///
    /// # Cancel safety
    ///
    /// No signal is lost when the future is dropped.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Terminate,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}
