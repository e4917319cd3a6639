//! The cluster controller: index, plan, publish, MCS and peers.
//!
//! # Flow
//!
//! 1. [`proto`]: how the state of one cluster reaches another, without I/O.
//! 2. [`mcs`]: many exports become one import.
//! 3. [`plan`](mod@plan): from what is known to what is published.
//! 4. [`peer`]: sessions between controllers.
//! 5. `index`: everything that is known, with one owner.
//! 6. `state`: what survives a restart.
//! 7. [`controller`]: the task that owns the index, and everything around it.
//! 8. [`decided`]: what the controller decided, for whoever writes it into a cluster.
//! 9. [`status`]: what `isthmus status` shows.

pub mod proto;

pub mod mcs;

pub mod plan;

pub mod peer;

mod index;

mod state;

pub mod controller;

pub mod decided;

pub mod status;

pub use crate::controller::{Controller, ControllerError, ControllerOptions, ControllerParts};
pub use crate::decided::{Decided, PeerState};
pub use crate::mcs::{VipRange, VipRangeInvalid};
pub use crate::peer::dialer::{DialFuture, HboneDialer, PeerDialer, PeerStream};
pub use crate::plan::{Configuration, Plan};
pub use crate::status::{LeaseStatus, PeerStatus, ServiceStatus, Status};
