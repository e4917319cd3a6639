//! The protobuf form of the messages, in bounded pieces.
//!
//! [`encode`] splits a hello or a delta over as many messages as it takes, lazily, so that
//! a large state is not copied as a whole. [`decode`] puts the pieces together again and
//! bounds what an unfinished message may hold. Both refuse nothing that the state machines
//! would refuse anyway; they only turn text into checked names.

pub(crate) mod decode;

pub(crate) mod encode;

pub(crate) use decode::{ClientAssembler, DeltaAssembler, WireError};

/// The generated code.
#[allow(clippy::all, clippy::wildcard_enum_match_arm, unused_qualifications, unreachable_pub)]
#[allow(missing_docs, clippy::or_fun_call, reason = "generated code")]
pub(crate) mod proto {
    tonic::include_proto!("isthmus.discovery.v1");
}

/// The version of the protocol in hello.
pub(crate) const PROTOCOL: u32 = 1;

/// Bytes in one message, in both directions.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of content after which a piece is closed; one resource more still fits.
pub(crate) const PIECE_BYTES: usize = 512 * 1024;
