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
//! 3. [`lease`]: one of several replicas leads, and knows until when; [`mark`]: its pod's label.
//! 4. [`apply`]: desired and observed objects to a plan, and the plan's execution.
//! 5. [`keep`]: the leader's own state in a Secret; [`token_review`]: a service-account token to the pod that holds it.
//! 6. [`events`]: conditions that turn bad or good, said on the objects themselves.
//! 7. [`link`]: what another cluster must know for a link to this one.
//! 8. [`inspect`]: the state of a cluster, for the operator's commands.
//! 9. [`status`]: what came of the objects, as their desired statuses.
//! 10. [`install`]: single reads and writes for the commands that install and remove.
//! 11. [`provision`]: what every Gateway needs, as desired objects.
//! 12. [`observed`]: the objects that we have made, as the server has them.
//! 13. [`mcs`]: ServiceImports, derived Services and EndpointSlices of what is decided.

pub mod client;

mod discovery;

pub mod source;

pub mod lease;

pub mod mark;

pub mod observed;

pub mod apply;

pub mod keep;

pub mod token_review;

mod time;

pub mod provision;

pub mod status;

pub mod mcs;

pub mod events;

pub mod link;

pub mod inspect;

pub mod install;

pub use crate::apply::{
    Action, Executor, Failure, ObjectId, Plan, PlanError, Report, StatusPair, StatusPlanner, plan,
    plan_status,
};
pub use crate::client::{Access, ConnectError, Connection, connect};
pub use crate::keep::{KeepError, Keeper};
pub use crate::lease::{Campaign, Leadership, LeaseSettings};
pub use crate::mark::{Mark, MarkError, Marked};
pub use crate::observed::{ManagedKind, Observed};
pub use crate::source::{NodeState, Pending, PodState, Selection, Source, State};
pub use crate::time::rfc3339;
pub use crate::token_review::TokenReviewer;
pub use kube::Client;
