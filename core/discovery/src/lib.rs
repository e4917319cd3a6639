//! Controller to data plane protocol: sans-IO publisher and subscriber, gRPC and
//! in-process shells.
//!
//! One stream for each proxy carries deltas of the model: small, acknowledged one by one,
//! with every resource standing for itself. A sidecar is sent the services that it calls,
//! a gateway everything its role may see. A proxy keeps its last good state on disk and
//! serves from it when there is no controller.
//!
//! # Flow
//!
//! 1. [`node`]: the roles, and what each may ever hold.
//! 2. [`message`]: what publisher and subscriber say to each other.
//! 3. `publisher`: sans-IO; a published state, visibility, one subscription.
//! 4. [`hub`]: the publisher's task and its sessions.
//! 5. `authorise`: which role a certificate allows.
//! 6. `wire`: messages as protobuf, in bounded pieces.
//! 7. [`server`]: the gRPC service over mutual TLS.
//! 8. `subscriber`: sans-IO; applies deltas, keeps the names asked for, paces reconnects.
//! 9. `state_file`: the last good state on disk.
//! 10. [`client`]: the proxy's task: stream, snapshots, on-demand names, state file.

pub mod node;

pub mod message;

mod random;

pub(crate) mod publisher;

pub mod hub;

pub(crate) mod authorise;

pub(crate) mod wire;

mod executor;

pub mod server;

pub(crate) mod subscriber;

pub(crate) mod state_file;

pub mod client;

#[cfg(test)]
mod testing;

#[cfg(test)]
mod end_to_end;

pub use crate::client::{
    ClientLimits, ClientOptions, ClientStatus, DiscoveryClient, GrpcTransport, OnDemand, Touch,
    Transport, Wanted,
};
pub use crate::hub::{PublishError, Publisher, PublisherHandle, SubscriberStatus};
pub use crate::message::{Epoch, LinkReport, NodeReport, Rejection};
pub use crate::node::{NODE_NAME_BYTES_MAX, NodeRole, WorkloadName};
pub use crate::server::{DiscoveryServer, IdentifyPeer, PeerIdentity, ServerOptions};
