//! The hop over real sockets and real TLS: tunnels, pool, drain, and hostile peers.

#![expect(clippy::unwrap_used, reason = "the harness is test code outside test functions")]

mod hostile;
mod mesh;
mod pool;
mod tunnel;
mod world;
