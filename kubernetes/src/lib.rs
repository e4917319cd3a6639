//! Kubernetes as one more source of objects and one more writer of them.
//!
//! Only the controller's side of the product uses this crate. What it decides is pure
//! and tested without a server: the cache of watched objects, the election, the plan of
//! writes and the judgement of a token. The shells around them only carry requests.
//!
//! # Flow
//!
//! 1. [`client`]: a connection from inside the cluster or by a kubeconfig.
//! 2. [`source`]: watchers fill a cache, which gives whole states of the objects.
//! 3. [`lease`]: one of several replicas leads, and knows until when.
//! 4. [`apply`]: desired and observed objects to a plan, and the plan's execution.
//! 5. [`token_review`]: a service-account token to the pod that holds it.

pub mod client;

mod discovery;

pub mod source;

pub mod lease;

pub mod apply;

pub mod token_review;

pub use crate::apply::{
    Action, Executor, Failure, ObjectId, Plan, PlanError, Report, plan, plan_status,
};
pub use crate::client::{Access, ConnectError, Connection, connect};
pub use crate::lease::{Campaign, Leadership, LeaseSettings};
pub use crate::source::{NodeState, Pending, PodState, Selection, Source, State};
pub use crate::token_review::{PodIdentity, ReviewError, TokenReviewer};
pub use kube::Client;
