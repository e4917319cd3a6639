//! The ingress with real sockets on loopback: what is not HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Helpers outside test functions.

mod backend_tls;
mod datagrams;
mod streams;
mod tls;
mod world;
