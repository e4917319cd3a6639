//! The first plan of a controller that has nothing on disk, as a new leader has not.
//!
//! It waits for linked clusters, so that nothing of theirs vanishes for everybody; they
//! are told at once what this one exports, so that nothing of its own does for them.

use isthmus_model::{ClusterId, LinkState, LinkTransport};

use super::{Index, Peer};
use crate::plan::Plan;

impl Index {
    /// Gives every exporter what its peer may know. What is exported does not depend on what
    /// is imported, so this need not wait until the peers are heard; and an exporter that
    /// spoke before it would tell a peer that there is nothing.
    pub(super) fn offer(&mut self, plan: &Plan) {
        for (cluster, peer) in &mut self.peers {
            let entries = plan.federated.publications.get(cluster).cloned().unwrap_or_default();
            peer.exporter.set_entries(entries);
        }
        self.is_offered = true;
    }

    /// Whether the first plan still waits: without what linked clusters export it would
    /// take their services away from everybody who has them from a predecessor. A cluster
    /// whose link is known to be down is not waited for.
    pub(super) fn is_settling(&self) -> bool {
        let is_awaited = |(cluster, peer): (&ClusterId, &Peer)| {
            let is_down = self.links.states().get(cluster).is_some_and(|l| l.transport.is_none());
            let importer = &peer.importer;
            !is_down && importer.position().is_none() && importer.entries().is_empty()
        };
        self.settle_until.is_some() && self.peers.iter().any(is_awaited)
    }

    /// What the link to a peer looks like. Before a gateway has said anything, as after a
    /// change of leaders, a session with the peer shows that it is up: sessions go over it.
    pub(super) fn link_state(&self, cluster: &ClusterId, peer: &Peer) -> LinkState {
        let reported = self.links.states().get(cluster).copied();
        reported.unwrap_or_else(|| LinkState {
            transport: peer.reading.is_some().then_some(LinkTransport::Quic),
            rtt_micros: None,
        })
    }
}
