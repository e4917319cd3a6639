//! The authority for pods: a projected token instead of a Unix user, and its client.
//!
//! A pod has no certificate yet, so TLS proves the server only: by the cluster's root and
//! the controller's SPIFFE ID. The pod sends a token that the kubelet gave it; whoever
//! implements [`TokenReviewer`] says which service account and pod the token is of, and the
//! SVID is for that account, whatever the signing request says.
//!
//! # Flow
//!
//! 1. [`review`]: who a token is of, asked of someone else.
//! 2. `incoming`: bounded connections, TLS with a deadline.
//! 3. [`server`]: the answers, each after the rates and the review.
//! 4. [`client`]: an issuer that reads the token file anew for each request.

pub mod client;

mod incoming;

pub mod review;

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
    tonic::include_proto!("isthmus.certs.v1");
}

pub use self::client::{TokenIssuer, TokenIssuerSettings};
pub use self::review::{ReviewError, ReviewFuture, ReviewedWorkload, TokenReviewer};
pub use self::server::{TokenCaServer, TokenCaSettings};

/// The one protocol spoken inside TLS.
const ALPN: &[u8] = b"h2";
/// A projected token has about 1 KiB.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests;
