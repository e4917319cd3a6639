//! Renewal of SVIDs: when, by whom, and what happens when it fails.
//!
//! The key is made in the process that uses it and never leaves it; only a signing
//! request goes out. A renewal that fails is retried with growing, jittered pauses while
//! the current SVID goes on serving; when a third of its life is left, it is an alarm.
//!
//! # Flow
//!
//! 1. [`schedule`]: when to act; pure.
//! 2. [`issuer`]: who signs: the authority in this process, or one behind a socket.
//! 3. [`renewer`]: the loop.

pub mod issuer;

pub mod renewer;

pub mod schedule;

pub use self::issuer::{IssueError, IssueFuture, Issued, Issuer};
pub use self::renewer::{RenewError, RenewSettings, RenewTrigger, RenewalHealth, Renewer};
pub use self::schedule::{Moment, Schedule, Standing};
