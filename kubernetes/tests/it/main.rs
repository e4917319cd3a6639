//! What the crate gives to the rest of the system, without a server.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Helpers outside test functions.

mod directory;
mod server;
