//! The sidecar of one workload: an outbound proxy that the application calls, and an
//! inbound proxy that others reach it by.
//!
//! Explicit ports: the application uses the outbound port as its HTTP proxy (or sends
//! requests with the service's `Host` to it), or a TCP forward for opaque protocols.
//!
//! # Flow
//!
//! 1. [`options`]: what a sidecar is made from.
//! 2. [`sidecar`]: binds the ports and starts one worker for each core.
//! 3. [`outbound`]: host → service → endpoint, near ones first.
//! 4. [`inbound`]: mTLS or plaintext by policy → the application.

pub mod options;

pub mod sidecar;

pub mod outbound;

pub mod inbound;

mod accept;

pub use crate::inbound::InboundRouter;
pub use crate::options::{SidecarOptions, TcpForward, Workload};
pub use crate::outbound::OutboundRouter;
pub use crate::sidecar::{Sidecar, StartError};
