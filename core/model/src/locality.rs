//! Which endpoints are near: the endpoints of one port, ordered into tiers.
//!
//! The order is zone, then region, then everything else; inside each of these the own
//! cluster goes first and remote clusters follow by *measured* link round-trip time.
//! Clusters whose controller is silent come after all of these: see [`Distance::unheard`].
//! Traffic uses the first tier that has a usable endpoint, so it leaves a tier only when
//! that tier is gone and returns as soon as it is back.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::endpoint::{Endpoint, EndpointTarget, Health, PortEndpoints};
use crate::name::{ClusterId, Locality, ServiceKey};
use crate::peer::Peer;
use crate::service::{AppProtocol, ServicePort};

/// The endpoints of one port of a service, near ones first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The service.
    pub service: ServiceKey,
    /// The port of the service.
    pub port: u16,
    /// What is spoken there.
    pub app: AppProtocol,
    /// The endpoints, ordered by id.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Indices into `endpoints`: usable endpoints only, near tiers first.
    pub tiers: Vec<Tier>,
}

/// Endpoints that are equally near.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// How far.
    pub distance: Distance,
    /// Indices into the assignment's endpoints; never empty.
    pub members: Vec<u32>,
}

/// How far an endpoint is. The derive order of the fields is the order of preference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Distance {
    /// Endpoints that are ending come after every endpoint that is ready.
    pub draining: bool,
    /// Whether the lease of the endpoint's cluster has expired while its link is up.
    ///
    /// Its controller is gone, or its API server is, and what is known of it grows old; its
    /// gateway answers and refuses endpoints that are gone. Such endpoints come after every
    /// one that is vouched for, and serve where there is none: a service that only this
    /// cluster has must not fail with the control plane. A cluster that is cut off is out
    /// by its link, long before its lease ends.
    pub unheard: bool,
    /// Zone, region, or neither is shared with the caller.
    pub closeness: Closeness,
    /// Own cluster, or the link's distance.
    pub link: LinkDistance,
}

/// What an endpoint shares with the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closeness {
    /// Region and zone.
    SameZone,
    /// The region.
    SameRegion,
    /// Neither, or it is not known.
    Elsewhere,
}

/// How far the endpoint's cluster is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkDistance {
    /// The caller's own cluster.
    Own,
    /// A linked cluster with a measured round-trip time in microseconds; equal times are
    /// ordered by cluster id.
    Measured(u64, ClusterId),
    /// A linked cluster that has not been measured yet.
    Unmeasured(ClusterId),
}

impl Assignment {
    /// Orders the endpoints of one port as seen from `locality`.
    ///
    /// Remote endpoints of a cluster whose link is down are in no tier.
    pub fn build(
        service: &ServiceKey,
        port: &ServicePort,
        group: Option<&PortEndpoints>,
        locality: &Locality,
        peers: &BTreeMap<ClusterId, Arc<Peer>>,
    ) -> Self {
        let endpoints: Vec<Arc<Endpoint>> =
            group.map(|g| g.endpoints.iter().cloned().map(Arc::new).collect()).unwrap_or_default();
        let mut tiers: BTreeMap<Distance, Vec<u32>> = BTreeMap::new();
        for (index, endpoint) in (0u32..).zip(&endpoints) {
            if let Some(distance) = distance(endpoint, locality, peers) {
                tiers.entry(distance).or_default().push(index);
            }
        }
        let tiers =
            tiers.into_iter().map(|(distance, members)| Tier { distance, members }).collect();
        Self { service: service.clone(), port: port.number, app: port.app, endpoints, tiers }
    }
}

/// How far an endpoint is, or `None` when it takes no requests.
fn distance(
    endpoint: &Endpoint,
    from: &Locality,
    peers: &BTreeMap<ClusterId, Arc<Peer>>,
) -> Option<Distance> {
    let draining = match endpoint.health {
        Health::Ready => false,
        Health::Draining => true,
        Health::NotReady => return None,
    };
    let (unheard, link) = match &endpoint.target {
        EndpointTarget::Local { .. } => (false, LinkDistance::Own),
        EndpointTarget::Remote { cluster, .. } => {
            let peer = peers.get(cluster)?;
            peer.link.transport?;
            let link = match peer.link.rtt_micros {
                Some(rtt) => LinkDistance::Measured(rtt, cluster.clone()),
                None => LinkDistance::Unmeasured(cluster.clone()),
            };
            (!peer.lease_valid, link)
        }
    };
    Some(Distance { draining, unheard, closeness: closeness(&endpoint.locality, from), link })
}

fn closeness(a: &Locality, b: &Locality) -> Closeness {
    if a.region.is_empty() || a.region != b.region {
        Closeness::Elsewhere
    } else if a.zone.is_empty() || a.zone != b.zone {
        Closeness::SameRegion
    } else {
        Closeness::SameZone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{SpiffeId, TrustDomain};
    use crate::name::{EndpointId, Label};
    use crate::peer::{LinkState, LinkTransport};
    use crate::service::Transport;

    fn endpoint(id: &str, cluster: Option<&str>, locality: Locality, health: Health) -> Endpoint {
        let target = match cluster {
            Some(name) => {
                EndpointTarget::Remote { cluster: ClusterId::new(name).unwrap(), port: 1 }
            }
            None => EndpointTarget::Local { address: "127.0.0.1:1".parse().unwrap(), mesh: None },
        };
        Endpoint {
            id: EndpointId::new(id).unwrap(),
            target,
            locality,
            weight: 1,
            health,
            identity: None,
            hostname: None,
        }
    }

    fn peer(name: &str, rtt: Option<u64>, up: bool, lease_valid: bool) -> Arc<Peer> {
        let domain = TrustDomain::new(name).unwrap();
        Arc::new(Peer {
            cluster: ClusterId::new(name).unwrap(),
            gateway: SpiffeId::parse(&format!("spiffe://{name}/gw")).unwrap(),
            trust_domain: domain,
            addresses: vec![],
            dial: true,
            locality: Locality::default(),
            link: LinkState { transport: up.then_some(LinkTransport::Quic), rtt_micros: rtt },
            lease_valid,
        })
    }

    fn order(endpoints: Vec<Endpoint>, peers: Vec<Arc<Peer>>) -> Vec<Vec<String>> {
        let key = ServiceKey::clusterset(Label::new("a").unwrap(), Label::new("b").unwrap());
        let port = ServicePort {
            name: None,
            number: 80,
            transport: Transport::Tcp,
            app: AppProtocol::Http,
            app_protocol: None,
        };
        let peers = peers.into_iter().map(|peer| (peer.cluster.clone(), peer)).collect();
        let group = PortEndpoints { port: 80, transport: Transport::Tcp, endpoints };
        let from = Locality::new("us-east", "a");
        let built = Assignment::build(&key, &port, Some(&group), &from, &peers);
        let name = |index: &u32| built.endpoints[*index as usize].id.to_string();
        built.tiers.iter().map(|tier| tier.members.iter().map(name).collect()).collect()
    }

    #[test]
    fn near_goes_before_far_and_measured_before_unmeasured() {
        let elsewhere = || Locality::new("eu", "x");
        let tiers = order(
            vec![
                endpoint("far", Some("far"), elsewhere(), Health::Ready),
                endpoint("new", Some("new"), elsewhere(), Health::Ready),
                endpoint("near", Some("near"), elsewhere(), Health::Ready),
                endpoint("own-region", None, Locality::new("us-east", "b"), Health::Ready),
                endpoint("own-zone", None, Locality::new("us-east", "a"), Health::Ready),
                endpoint("own-ending", None, Locality::new("us-east", "a"), Health::Draining),
                endpoint("own-down", None, Locality::new("us-east", "a"), Health::NotReady),
            ],
            vec![
                peer("far", Some(80_000), true, true),
                peer("near", Some(9_000), true, true),
                peer("new", None, true, true),
            ],
        );
        assert_eq!(tiers.concat(), ["own-zone", "own-region", "near", "far", "new", "own-ending"]);
    }

    #[test]
    fn clusters_without_a_link_are_out() {
        let here = || Locality::new("us-east", "a");
        let tiers = order(
            vec![
                endpoint("cut", Some("cut"), here(), Health::Ready),
                endpoint("unknown", Some("unknown"), here(), Health::Ready),
            ],
            vec![peer("cut", Some(1), false, true)],
        );
        assert!(tiers.is_empty());
    }

    #[test]
    fn a_cluster_without_a_lease_serves_what_no_other_has() {
        let (here, far) = (|| Locality::new("us-east", "a"), || Locality::new("eu", "x"));
        let peers =
            || vec![peer("silent", Some(1), true, false), peer("heard", Some(9), true, true)];
        let silent = || endpoint("silent", Some("silent"), here(), Health::Ready);
        let heard = endpoint("heard", Some("heard"), far(), Health::Ready);
        let ending = endpoint("ending", Some("heard"), far(), Health::Draining);
        let tiers = order(vec![silent(), heard, ending], peers());
        assert_eq!(tiers.concat(), ["heard", "silent", "ending"]);
        assert_eq!(order(vec![silent()], peers()), [["silent"]]);
    }
}
