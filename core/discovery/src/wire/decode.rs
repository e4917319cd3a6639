//! From protobuf to messages, checking every name and bounding every list.

mod client;

mod delta;

use isthmus_model::{InvalidName, ServiceKey};

pub(crate) use self::client::{ClientAssembler, REJECTIONS_MAX};
pub(crate) use self::delta::DeltaAssembler;
use super::PROTOCOL;
use crate::message::Version;
use crate::publisher::subscription::NAMES_MAX;

/// A message that is not of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the message is empty or of a later version")]
    Empty,
    #[error("{field} has {count} entries or bytes, at most {limit} are allowed")]
    Limit { field: &'static str, count: usize, limit: usize },
    #[error("field {field} is not valid")]
    Name { field: &'static str, source: InvalidName },
    #[error("protocol version {theirs} is not spoken here, only {PROTOCOL}")]
    Protocol { theirs: u32 },
    #[error("field {field} has a value that does not exist")]
    Unknown { field: &'static str },
    #[error("a message of another kind in the middle of a {of}")]
    Unfinished { of: &'static str },
}

fn services(field: &'static str, hosts: &[String]) -> Result<Vec<ServiceKey>, WireError> {
    limit(field, hosts.len(), NAMES_MAX)?;
    let read = |host: &String| ServiceKey::from_host(host).ok_or(WireError::Unknown { field });
    hosts.iter().map(read).collect()
}

fn version(field: &'static str, bytes: &[u8]) -> Result<Version, WireError> {
    Version::from_slice(bytes).ok_or(WireError::Unknown { field })
}

fn named(field: &'static str) -> impl Fn(InvalidName) -> WireError {
    move |source| WireError::Name { field, source }
}

fn limit(field: &'static str, count: usize, limit: usize) -> Result<(), WireError> {
    if count > limit { Err(WireError::Limit { field, count, limit }) } else { Ok(()) }
}

/// Resources in one state.
pub(crate) const RESOURCES_MAX: usize = 200_000;

#[cfg(test)]
mod tests;
