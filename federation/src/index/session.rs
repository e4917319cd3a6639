//! Sessions of the index: they open, bring frames and requests, take them, and end.

use std::time::{Instant, SystemTime};

use isthmus_model::{ClusterId, SpiffeId};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::Index;
use crate::peer::event::{Event, Intake, SessionId};
use crate::proto::{Frame, Request, SubscribeOutcome};

impl Index {
    /// A session says something.
    pub(crate) fn handle_event(&mut self, now: Instant, wall: SystemTime, event: Event) {
        match event {
            Event::ExportClosed { session } | Event::ImportClosed { session } => {
                self.close(session);
            }
            Event::ExportDrained => {}
            Event::ExportOpened { peer, frames, reply } => {
                let session = self.open_export(now, &peer, frames);
                // A session that does not wait any more closes its channel, which is seen
                // when frames are sent.
                let _ = reply.send(session);
            }
            Event::ExportRequest { session, request } => {
                self.handle_request(now, session, request);
            }
            Event::ImportFailed { cluster, error } => {
                if let Some(peer) = self.peers.get_mut(&cluster) {
                    peer.last_error = Some(error);
                }
            }
            Event::ImportFrame { session, frame, reply } => {
                let _ = reply.send(self.handle_frame(now, wall, session, frame));
            }
            Event::ImportOpened { cluster, requests, reply } => {
                let _ = reply.send(self.open_import(now, &cluster, requests));
            }
        }
    }

    /// Gives every session what it can take now.
    pub(crate) fn flush(&mut self, now: Instant) {
        let mut ended = Vec::new();
        // Before that an exporter would say that there is nothing.
        let is_offered = self.is_offered;
        for peer in self.peers.values_mut() {
            if let Some((session, requests)) = &peer.reading {
                let outcome = fill(requests, || peer.importer.poll_request(now));
                ended.extend((outcome == Filled::Closed).then_some(*session));
            }
            if let Some((session, frames)) = &peer.writing
                && is_offered
            {
                let outcome = fill(frames, || peer.exporter.poll_frame(now));
                ended.extend((outcome == Filled::Closed).then_some(*session));
            }
        }
        for session in ended {
            self.close(session);
        }
    }

    pub(super) fn close(&mut self, session: SessionId) {
        let Some(cluster) = self.sessions.remove(&session) else { return };
        let Some(peer) = self.peers.get_mut(&cluster) else { return };
        if peer.reading.take_if(|(of, _)| *of == session).is_some() {
            peer.importer.handle_closed();
        }
        if peer.writing.take_if(|(of, _)| *of == session).is_some() {
            peer.exporter.handle_closed();
        }
    }

    fn open_export(
        &mut self,
        now: Instant,
        identity: &SpiffeId,
        frames: mpsc::Sender<Frame>,
    ) -> Option<SessionId> {
        let found = self.peers.iter().find(|(_, peer)| peer.controller == *identity);
        let cluster = found?.0.clone();
        let session = self.new_session(&cluster);
        let peer = self.peers.get_mut(&cluster)?;
        let former = peer.writing.replace((session, frames));
        peer.exporter.handle_connected(now);
        self.forget(former.map(|(session, _)| session));
        Some(session)
    }

    fn open_import(
        &mut self,
        now: Instant,
        cluster: &ClusterId,
        requests: mpsc::Sender<Request>,
    ) -> Option<SessionId> {
        self.peers.get(cluster)?;
        let session = self.new_session(cluster);
        let peer = self.peers.get_mut(cluster)?;
        let former = peer.reading.replace((session, requests));
        peer.importer.handle_connected(now);
        peer.last_error = None;
        self.forget(former.map(|(session, _)| session));
        Some(session)
    }

    fn new_session(&mut self, cluster: &ClusterId) -> SessionId {
        self.session_count += 1;
        let session = SessionId(self.session_count);
        self.sessions.insert(session, cluster.clone());
        session
    }

    /// A session that was replaced; its channel has been dropped.
    fn forget(&mut self, session: Option<SessionId>) {
        if let Some(session) = session {
            self.sessions.remove(&session);
        }
    }

    fn handle_request(&mut self, now: Instant, session: SessionId, request: Request) {
        let Some(cluster) = self.sessions.get(&session) else { return };
        let Some(peer) = self.peers.get_mut(cluster) else { return };
        let outcome = peer.exporter.handle_request(now, request);
        if let Some(SubscribeOutcome::Superseded { epoch }) = outcome {
            // The state directory belongs to one controller alone, so there is no other
            // writer: this one has lost its state, or its clock went back.
            tracing::info!(peer = %cluster, epoch, "the peer knows a later epoch of this cluster");
            peer.exporter.adopt_epoch(epoch.saturating_add(1));
        }
    }

    fn handle_frame(
        &mut self,
        now: Instant,
        wall: SystemTime,
        session: SessionId,
        frame: Frame,
    ) -> Intake {
        let Some(cluster) = self.sessions.get(&session).cloned() else { return Intake::End };
        let Some(peer) = self.peers.get_mut(&cluster) else { return Intake::End };
        if let Err(violation) = peer.importer.handle_frame(now, frame) {
            tracing::warn!(peer = %cluster, error = %violation, "a peer broke the protocol");
            peer.last_error = Some(violation.to_string());
            self.close(session);
            return Intake::End;
        }
        let ready = peer.importer.ready_at(now);
        if peer.importer.take_changed() {
            (self.changed, self.unsaved) = (true, true);
            self.take_peer_bundle(wall, &cluster);
        }
        ready.map_or(Intake::Continue, Intake::NotBefore)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filled {
    Closed,
    Open,
}

/// Sends as long as there is room and something to send.
fn fill<T>(channel: &mpsc::Sender<T>, mut next: impl FnMut() -> Option<T>) -> Filled {
    loop {
        match channel.try_reserve() {
            Ok(permit) => match next() {
                Some(item) => permit.send(item),
                None => return Filled::Open,
            },
            Err(TrySendError::Full(())) => return Filled::Open,
            Err(TrySendError::Closed(())) => return Filled::Closed,
        }
    }
}
