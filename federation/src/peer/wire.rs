//! The protobuf messages, and their way to and from the types of [`crate::proto`].
//!
//! An entry that cannot be read makes one [`crate::proto::Change::Invalid`]; a frame of
//! which nothing can be said at all is an error and ends the session.

mod decode;
mod encode;

pub(crate) use self::decode::{FrameInvalid, frame, request};
pub(crate) use self::encode::{frame as encode_frame, request as encode_request};

/// The generated messages and services.
#[allow(
    missing_docs,
    unnameable_types,
    unreachable_pub,
    unused_qualifications,
    clippy::large_enum_variant,
    clippy::pedantic,
    clippy::restriction,
    clippy::nursery,
    reason = "generated code is documented in the .proto file"
)]
pub(crate) mod pb {
    tonic::include_proto!("isthmus.federation.v1");
}

/// Bytes of one message.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests;
