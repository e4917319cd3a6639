//! What the controller says: deltas, in pieces.

use isthmus_model::{Generation, ResourceKey, ResourceKind};

use super::{RESOURCES_MAX, WireError, limit, services, version};
use crate::message::{Delta, Epoch, Nonce, Position, Upsert};
use crate::publisher::subscription::NAMES_MAX;
use crate::wire::proto::{self, server_message};

/// Puts the pieces of a delta together.
#[derive(Debug, Default)]
pub(crate) struct DeltaAssembler {
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    delta: Delta,
    bytes: usize,
}

impl DeltaAssembler {
    /// Takes one protobuf message; returns the delta once it is whole.
    pub(crate) fn handle(
        &mut self,
        message: proto::ServerMessage,
    ) -> Result<Option<Delta>, WireError> {
        let Some(server_message::Message::Delta(piece)) = message.message else {
            return Err(WireError::Empty);
        };
        let position =
            Position { epoch: Epoch(piece.epoch), generation: Generation(piece.generation) };
        let nonce = Nonce(piece.nonce);
        let mut partial = match self.partial.take() {
            Some(partial) => partial,
            None => Partial { delta: empty(position, nonce), bytes: 0 },
        };
        if partial.delta.position != position || partial.delta.nonce != nonce {
            return Err(WireError::Unfinished { of: "delta" });
        }
        let more = piece.more;
        partial.add(piece)?;
        if more {
            self.partial = Some(partial);
            return Ok(None);
        }
        Ok(Some(partial.delta))
    }
}

impl Partial {
    fn add(&mut self, piece: proto::Delta) -> Result<(), WireError> {
        let delta = &mut self.delta;
        for upsert in piece.upserts {
            self.bytes += upsert.payload.len() + upsert.name.len();
            let Some(kind) = ResourceKind::from_label(&upsert.kind) else {
                delta.unknown.push((upsert.kind, upsert.name));
                continue;
            };
            let version = version("upsert.version", &upsert.version)?;
            let key = ResourceKey { kind, name: upsert.name };
            delta.upserts.push(Upsert::Json { key, version, json: upsert.payload });
        }
        for removal in piece.removals {
            // Of a kind that this version does not know, nothing is held.
            let Some(kind) = ResourceKind::from_label(&removal.kind) else { continue };
            delta.removals.push(ResourceKey { kind, name: removal.name });
        }
        delta.present.extend(services("delta.present", &piece.present)?);
        delta.absent.extend(services("delta.absent", &piece.absent)?);
        let entries = delta.upserts.len() + delta.unknown.len();
        limit("delta.upserts", entries, RESOURCES_MAX)?;
        limit("delta.removals", delta.removals.len(), RESOURCES_MAX)?;
        limit("delta.names", delta.present.len() + delta.absent.len(), NAMES_MAX)?;
        limit("delta", self.bytes, STATE_BYTES_MAX)
    }
}

pub(super) fn empty(position: Position, nonce: Nonce) -> Delta {
    Delta {
        position,
        nonce,
        upserts: Vec::new(),
        removals: Vec::new(),
        unknown: Vec::new(),
        present: Vec::new(),
        absent: Vec::new(),
    }
}

/// Bytes of JSON in one state.
const STATE_BYTES_MAX: usize = 256 * 1024 * 1024;
