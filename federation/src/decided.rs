//! What the controller decided, for whoever writes it into a cluster.
//!
//! A value of [`Decided`] is one moment: the objects, what follows from them, and what the
//! links look like. Nothing in it changes by time alone, so equal moments are equal values
//! and whoever waits for a change wakes only for one.

use std::collections::BTreeMap;
use std::sync::Arc;

use isthmus_model::{ClusterId, LinkTransport, TrustDomain};

use crate::plan::{Configuration, LinkRefused, Plan};
use crate::status::LeaseStatus;

/// One decision of the controller.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    /// What it was made from.
    pub configuration: Arc<Configuration>,
    /// What follows.
    pub plan: Arc<Plan>,
    /// The linked clusters, by id.
    pub peers: Vec<PeerState>,
    /// ClusterLinks that are not used, by name, and why.
    pub refused_links: BTreeMap<String, LinkRefused>,
}

impl Decided {
    /// What a linked cluster looks like.
    pub fn peer(&self, cluster: &ClusterId) -> Option<&PeerState> {
        self.peers.iter().find(|peer| peer.cluster == *cluster)
    }
}

/// What one linked cluster looks like, without what changes every second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerState {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Whether its word holds.
    pub lease: LeaseStatus,
    /// The transport of the link; `None` while it is down.
    pub transport: Option<LinkTransport>,
    /// Whether this cluster reads from it now.
    pub reading: bool,
    /// Whether it reads from this cluster now.
    pub writing: bool,
    /// Whether its whole state has been taken once, from it or from what was saved. Until
    /// then what it exports is not known, which is not the same as nothing.
    pub is_known: bool,
    /// Services that it brought and that are granted.
    pub services_imported: usize,
    /// Services that it may see.
    pub services_exported: usize,
    /// Whether a state without most of its services waits to be believed.
    pub holding: bool,
    /// The last error of a session or of its bundle.
    pub last_error: Option<String>,
}
