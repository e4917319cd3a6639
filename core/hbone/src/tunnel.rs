//! HTTP/2 CONNECT tunnels over one connection of the hop.
//!
//! Built on `h2` itself and not on an upgrade facility above it: such layers report a
//! stream that the peer cancelled as a clean end of data, and a relay must be able to
//! tell a complete stream from a cut one.
//!
//! Spec: RFC 9113 section 8.5; Istio HBONE.

pub mod client;
pub mod error;
pub mod head;
pub mod pool;
pub mod serve;
pub mod settings;
pub mod stream;

mod keepalive;
mod reset_budget;
