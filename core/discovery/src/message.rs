//! What the two state machines say to each other, free of any encoding.
//!
//! Inside one process these values travel as they are and resources are shared; between
//! processes `wire` turns them into protobuf messages of bounded size.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use isthmus_model::{ClusterId, Generation, LinkTransport, ResourceKey, ServiceKey};

use crate::node::{NodeIdentity, NodeRole};
use crate::publisher::Entry;

/// One life of a controller: generations are ordered only inside an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// A new epoch, which no other controller has.
    pub fn random() -> Self {
        Self(crate::random::word())
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The first half of the SHA-256 of a resource's JSON.
///
/// It depends on the content alone, so a proxy that meets a restarted controller is sent
/// only what really differs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Version([u8; Self::BYTES]);

impl Version {
    pub(crate) const BYTES: usize = 16;

    pub(crate) fn of(content: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content);
        let mut bytes = [0; Self::BYTES];
        // SHA-256 has 32 bytes, so the zip fills every one of the 16.
        bytes.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }

    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != 2 * Self::BYTES {
            return None;
        }
        let mut bytes = [0; Self::BYTES];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            *byte = pair.iter().try_fold(0, |value, digit| Some(value << 4 | nibble(*digit)?))?;
        }
        Some(Self(bytes))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Numbers the deltas of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nonce(pub(crate) u64);

/// The state that a subscriber brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: Epoch,
    pub(crate) generation: Generation,
}

/// Opens a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) node: NodeIdentity,
    pub(crate) position: Option<Position>,
    pub(crate) held: BTreeMap<ResourceKey, Version>,
    pub(crate) names: Vec<ServiceKey>,
}

/// From the subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClientMessage {
    Ack(Nonce),
    Hello(Box<Hello>),
    Nack(Nonce, Vec<Rejection>),
    Report(Vec<LinkReport>),
    Subscribe(Vec<ServiceKey>),
    Unsubscribe(Vec<ServiceKey>),
}

/// From the publisher: the way from what was acknowledged to the latest state.
#[derive(Debug, Clone)]
pub(crate) struct Delta {
    pub(crate) position: Position,
    pub(crate) nonce: Nonce,
    pub(crate) upserts: Vec<Upsert>,
    pub(crate) removals: Vec<ResourceKey>,
    /// Resources of a kind that this version does not know.
    pub(crate) unknown: Vec<(String, String)>,
    /// Wanted services that exist.
    pub(crate) present: Vec<ServiceKey>,
    /// Wanted services that do not exist.
    pub(crate) absent: Vec<ServiceKey>,
}

/// A new or changed resource.
#[derive(Debug, Clone)]
pub(crate) enum Upsert {
    Json { key: ResourceKey, version: Version, json: Bytes },
    Shared(Arc<Entry>),
}

impl Upsert {
    pub(crate) fn key(&self) -> &ResourceKey {
        match self {
            Self::Json { key, .. } => key,
            Self::Shared(entry) => &entry.key,
        }
    }
}

/// A resource that is not in use, and why; its last good version stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rejection {
    /// The kind's label; text, since it may be a kind of a later version.
    pub kind: String,
    /// The name.
    pub name: String,
    /// The reason, cut to [`REASON_CHARS_MAX`] characters.
    pub reason: String,
}

impl Rejection {
    pub(crate) fn new(key: &ResourceKey, reason: &impl fmt::Display) -> Self {
        Self::named(key.kind.label(), &key.name, reason)
    }

    pub(crate) fn named(kind: &str, name: &str, reason: &impl fmt::Display) -> Self {
        let reason = reason.to_string().chars().take(REASON_CHARS_MAX).collect();
        Self { kind: kind.into(), name: name.into(), reason }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind, self.name, self.reason)
    }
}

/// What a gateway knows of its link to one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkReport {
    /// The peer.
    pub cluster: ClusterId,
    /// The transport in use; `None` while the link is down.
    pub transport: Option<LinkTransport>,
    /// Smoothed round-trip time in microseconds.
    pub rtt_micros: Option<u64>,
    /// Lost packets in a thousand.
    pub loss_permille: u16,
}

/// Everything that a node last said of itself; each report replaces the former one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// The node's name.
    pub node: String,
    /// Its role, as authorised.
    pub role: NodeRole,
    /// False once, when the node's stream has ended; its links are then unknown.
    pub connected: bool,
    /// Its links, for an east-west gateway.
    pub links: Vec<LinkReport>,
    /// The resources that it refuses now.
    pub nacks: Vec<Rejection>,
}

/// Characters in the reason of a [`Rejection`].
pub const REASON_CHARS_MAX: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_survive_hex_in_one_spelling_only() {
        let version = Version::of(b"content");
        let hex = version.to_string();
        assert_eq!(Version::from_hex(&hex), Some(version));
        assert_eq!(Version::from_hex(&hex.to_ascii_uppercase()), None);
        assert_eq!(Version::from_hex(&hex[1..]), None);
        assert_eq!(Version::from_slice(version.as_slice()), Some(version));
        assert_ne!(Version::of(b"content"), Version::of(b"Content"));
    }
}
