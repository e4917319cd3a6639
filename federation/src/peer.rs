//! Sessions between controllers: gRPC over mutual TLS, over a link like any service.
//!
//! Each controller opens one stream to each peer and reads that peer's state from it, so
//! two linked controllers have two streams, one for each direction. A session is a pipe:
//! it moves frames and requests between the stream and the one owner of all state, and
//! decides nothing. One frame of a session is with the owner at a time, so a peer that
//! floods waits for itself.
//!
//! # Flow
//!
//! 1. [`event`]: what sessions and the owner say to each other.
//! 2. [`wire`]: messages to frames and back; the raw types end here.
//! 3. [`dialer`]: how a stream to a peer's controller is made.
//! 4. [`client`]: reads a peer's state.
//! 5. [`server`]: gives this cluster's state to peers.
//! 6. [`tasks`]: the futures of one HTTP/2 connection.

pub(crate) mod event;

pub(crate) mod wire;

pub mod dialer;

pub(crate) mod client;

pub(crate) mod server;

mod tasks;

#[cfg(test)]
mod tests;
