//! Where each of the two transports stands.

use std::time::Instant;

use super::Selector;
use super::quality::Quality;
use super::vocabulary::{ConnectionId, Transport};

/// Where one transport stands. At most one of the two is `Active`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// Not wanted now.
    Idle,
    /// To be dialled at a time.
    Waiting { until: Instant },
    /// A handshake is under way.
    Dialing,
    /// Up, and to be promoted at a time if it lives so long.
    Probation { id: ConnectionId, until: Instant },
    /// Up and kept ready.
    Warm { id: ConnectionId },
    /// Up and used for new streams.
    Active { id: ConnectionId, since: Instant, quality: Quality },
}

impl Selector {
    pub(super) fn transport_of(&self, id: ConnectionId) -> Option<Transport> {
        [Transport::Quic, Transport::Tcp].into_iter().find(|transport| {
            match self.path(*transport) {
                Path::Probation { id: own, .. }
                | Path::Warm { id: own }
                | Path::Active { id: own, .. } => own == id,
                Path::Idle | Path::Waiting { .. } | Path::Dialing => false,
            }
        })
    }

    pub(super) fn path(&self, transport: Transport) -> Path {
        match transport {
            Transport::Quic => self.quic,
            Transport::Tcp => self.tcp,
        }
    }

    pub(super) fn path_mut(&mut self, transport: Transport) -> &mut Path {
        match transport {
            Transport::Quic => &mut self.quic,
            Transport::Tcp => &mut self.tcp,
        }
    }
}
