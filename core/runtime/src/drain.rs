//! Shutdown in three phases: stop accepting, wait for what is in flight up to a
//! deadline, force.
//!
//! [`Drain`] is held by the owner of a role. Each accept loop and each connection holds a
//! [`Stop`], which tells it when to begin to end; each piece of work in flight holds a
//! [`Guard`], which keeps the drain waiting.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Ends a role gracefully.
#[derive(Debug)]
pub struct Drain {
    phase: watch::Sender<Phase>,
    tracker: TaskTracker,
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// A drain that has not begun.
    pub fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Running), tracker: TaskTracker::new() }
    }

    /// A handle for accept loops and connections.
    pub fn stop(&self) -> Stop {
        Stop { phase: self.phase.subscribe(), tracker: self.tracker.clone() }
    }

    /// Stops accepting, waits for every [`Guard`] up to `deadline`, then forces.
    pub async fn run(&self, deadline: Duration) -> DrainOutcome {
        self.phase.send_replace(Phase::Draining);
        self.tracker.close();
        let outcome = tokio::time::timeout(deadline, self.tracker.wait()).await;
        let left = self.tracker.len();
        self.phase.send_replace(Phase::Forced);
        match outcome {
            Ok(()) => DrainOutcome::Complete,
            Err(_) => DrainOutcome::Forced { left },
        }
    }
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainOutcome {
    /// Everything in flight ended by itself.
    Complete,
    /// The deadline came first.
    Forced {
        /// Pieces of work cut.
        left: usize,
    },
}

/// Tells accept loops and connections when to end.
#[derive(Debug, Clone)]
pub struct Stop {
    phase: watch::Receiver<Phase>,
    tracker: TaskTracker,
}

impl Stop {
    /// Resolves when the drain begins; at once if it has begun, or if its owner is gone.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn draining(&mut self) {
        // An error means that the owner is gone, which ends the role just the same.
        let _ = self.phase.wait_for(|phase| *phase != Phase::Running).await;
    }

    /// Resolves when the deadline of the drain has passed.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn forced(&mut self) {
        let _ = self.phase.wait_for(|phase| *phase == Phase::Forced).await;
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        *self.phase.borrow() != Phase::Running
    }

    /// Marks one piece of work in flight until the guard is dropped.
    pub fn guard(&self) -> Guard {
        Guard { _token: self.tracker.token() }
    }
}

/// One piece of work in flight.
#[derive(Debug)]
pub struct Guard {
    _token: TaskTrackerToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Draining,
    Forced,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_work_in_flight() {
        let drain = Drain::new();
        let mut stop = drain.stop();
        let guard = stop.guard();
        let work = async move {
            stop.draining().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            drop(guard);
        };
        let (outcome, ()) = tokio::join!(drain.run(Duration::from_secs(5)), work);
        assert_eq!(outcome, DrainOutcome::Complete);
    }

    #[tokio::test(start_paused = true)]
    async fn drain_forces_at_its_deadline() {
        let drain = Drain::new();
        let mut stop = drain.stop();
        let guard = stop.guard();
        assert_eq!(drain.run(Duration::from_secs(1)).await, DrainOutcome::Forced { left: 1 });
        stop.forced().await;
        drop(guard);
    }
}
