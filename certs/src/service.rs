//! The authority behind a Unix socket, and its client.
//!
//! The kernel says who calls (peer credentials); a registry says which workloads that
//! user may be. The request names one of them and brings a key; nothing it says is
//! believed.
//!
//! # Flow
//!
//! 1. [`registry`]: which user may be which workload.
//! 2. [`rate`]: how often; pure.
//! 3. `incoming`: bounded connections.
//! 4. [`server`]: the answers.
//! 5. [`client`]: an issuer that asks over the socket.

pub mod client;

mod incoming;

pub mod rate;

pub mod registry;

pub mod server;

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::all,
    clippy::or_fun_call,
    clippy::use_self,
    clippy::wildcard_enum_match_arm,
    reason = "generated code"
)]
mod proto {
    tonic::include_proto!("isthmus.ca.v1");
}

pub use self::client::UnixIssuer;
pub use self::registry::WorkloadRegistry;
pub use self::server::{CaServer, CaServerError, CaSettings, SocketAccess};

#[cfg(test)]
mod tests;
