//! Which listeners can be bound together.
//!
//! Spec: Gateway API "listener compatibility": listeners share a port when they speak the
//! same and their hostnames differ. HTTPS and TLS, passed through or not, are told apart
//! by server name alike and share a port too. UDP ports are not TCP ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use isthmus_model::{Hostname, ListenerFamily, ListenerProtocol, ObjectName, SpiffeId, Transport};

use crate::translate::conditions::Problem;

/// What listeners of higher precedence have.
#[derive(Default)]
pub(super) struct Taken {
    places: BTreeMap<Place, Occupants>,
}

/// Where a listener is bound: by which workload, at which address (`None` is all of the
/// workload's) and port.
type Place = (Option<SpiffeId>, Option<IpAddr>, u16, Transport);

struct Occupants {
    family: ListenerFamily,
    hostnames: BTreeSet<Option<Hostname>>,
}

/// A listener that wants to be bound.
pub(super) struct Claim<'o> {
    pub(super) name: &'o ObjectName,
    pub(super) protocol: ListenerProtocol,
    pub(super) hostname: Option<&'o Hostname>,
    pub(super) served_by: Option<SpiffeId>,
    /// Empty means every address.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) bind_port: u16,
}

impl Claim<'_> {
    fn places(&self) -> Vec<Place> {
        let transport = transport(self.protocol);
        let place = |address| (self.served_by.clone(), address, self.bind_port, transport);
        if self.addresses.is_empty() {
            return vec![place(None)];
        }
        self.addresses.iter().map(|address| place(Some(*address))).collect()
    }

    fn family(&self) -> ListenerFamily {
        self.protocol.family()
    }
}

impl Taken {
    /// Which rule a listener breaks beside those of higher precedence.
    pub(super) fn conflict(&self, claim: &Claim<'_>) -> Option<Problem> {
        claim.places().iter().filter_map(|place| self.places.get(place)).find_map(|occupants| {
            if occupants.family != claim.family() {
                let message = "a listener that goes first has another protocol on the port";
                return Some(Problem::new("ProtocolConflict", message));
            }
            occupants.hostnames.contains(&claim.hostname.cloned()).then(|| {
                let message = "a listener that goes first has the same hostname on the port";
                Problem::new("HostnameConflict", message)
            })
        })
    }

    /// Takes the place of a listener.
    pub(super) fn take(&mut self, claim: &Claim<'_>) {
        for place in claim.places() {
            let occupants = self.places.entry(place).or_insert_with(|| Occupants {
                family: claim.family(),
                hostnames: BTreeSet::new(),
            });
            occupants.hostnames.insert(claim.hostname.cloned());
        }
    }
}

/// Which rule a listener breaks beside the others of its own object.
pub(super) fn conflict_inside(claim: &Claim<'_>, all: &[Claim<'_>]) -> Option<Problem> {
    let others = || {
        all.iter().filter(|other| {
            other.name != claim.name
                && other.bind_port == claim.bind_port
                && transport(other.protocol) == transport(claim.protocol)
        })
    };
    if let Some(other) = others().find(|other| other.family() != claim.family()) {
        let message = format!("listener {} has another protocol on the port", other.name);
        return Some(Problem::new("ProtocolConflict", message));
    }
    let other = others().find(|other| other.hostname == claim.hostname)?;
    let message = format!("listener {} has the same hostname on the port", other.name);
    Some(Problem::new("HostnameConflict", message))
}

fn transport(protocol: ListenerProtocol) -> Transport {
    match protocol.family() {
        ListenerFamily::Http | ListenerFamily::Tcp | ListenerFamily::Tls => Transport::Tcp,
        ListenerFamily::Udp => Transport::Udp,
    }
}
