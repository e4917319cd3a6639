//! Imports for pods without a sidecar: a port of the gateway for each port of an import.
//!
//! Such a pod connects to the ClusterSetIP, and the cluster's own proxy carries it to a
//! gateway, without a word about which service was meant. So the port says it: each TCP
//! port of each import has a port of its own at the gateway, with a listener and one
//! route to the import, which then chooses the nearest endpoint as for everybody else.
//!
//! A port stays for as long as the import, because whoever holds the old one would reach
//! another service: ports of the last plan and those that are already written into the
//! cluster are kept, a new one is derived from the name, and a collision moves on to the
//! next free one. When the range is used up an import is not served to pods without a
//! sidecar; everything else of it works.

use std::collections::{BTreeMap, BTreeSet};

use isthmus_config::Unmeshed;
use isthmus_model::route::{Backend, BackendTarget, RouteParent};
use isthmus_model::{
    Listener, ListenerProtocol, Resource, Service, ServiceKey, StreamRoute, StreamRouteKind,
    Transport,
};

use super::inputs::Inputs;
use crate::proto::ServiceName;

/// What follows from the imports.
pub(crate) struct Served {
    pub(crate) resources: Vec<Resource>,
    pub(crate) ports: BTreeMap<(ServiceName, u16), u16>,
}

/// Plans listeners, routes and ports.
pub(crate) fn plan_unmeshed(
    inputs: &Inputs<'_>,
    imports: &BTreeMap<ServiceKey, Service>,
) -> Served {
    let mut served = Served { resources: Vec::new(), ports: BTreeMap::new() };
    let Some(unmeshed) = inputs.unmeshed else { return served };
    served.ports = allot(unmeshed, inputs.unmeshed_ports, &wanted(imports));
    for ((service, port), bound) in &served.ports {
        served.resources.extend(resources(unmeshed, service, *port, *bound));
    }
    served
}

/// The TCP ports of imports that have an address.
fn wanted(imports: &BTreeMap<ServiceKey, Service>) -> BTreeSet<(ServiceName, u16)> {
    let mut wanted = BTreeSet::new();
    for service in imports.values().filter(|service| !service.headless) {
        let name = ServiceName::new(service.key.namespace.clone(), service.key.name.clone());
        let tcp = service.ports.iter().filter(|port| port.transport == Transport::Tcp);
        wanted.extend(tcp.map(|port| (name.clone(), port.number)));
    }
    wanted
}

fn allot(
    unmeshed: &Unmeshed,
    last: &BTreeMap<(ServiceName, u16), u16>,
    wanted: &BTreeSet<(ServiceName, u16)>,
) -> BTreeMap<(ServiceName, u16), u16> {
    let mut ports = BTreeMap::new();
    let mut taken = BTreeSet::new();
    let mut give = |key: &(ServiceName, u16), bound: u16| {
        if unmeshed.ports.contains(&bound) && !ports.contains_key(key) && taken.insert(bound) {
            ports.insert(key.clone(), bound);
        }
    };
    let written: BTreeMap<(ServiceName, u16), u16> = unmeshed
        .given
        .iter()
        .map(|((key, port), bound)| {
            let name = ServiceName::new(key.namespace.clone(), key.name.clone());
            ((name, *port), *bound)
        })
        .collect();
    for known in [last, &written] {
        for key in wanted {
            if let Some(bound) = known.get(key) {
                give(key, *bound);
            }
        }
    }
    let (first, end) = (*unmeshed.ports.start(), *unmeshed.ports.end());
    let count = u32::from(end.saturating_sub(first)) + 1;
    for key in wanted {
        if ports.contains_key(key) {
            continue;
        }
        let start = place(key) % count;
        let nth = |n: u32| u16::try_from((start + n) % count).map_or(end, |n| first + n);
        let Some(free) = (0..count).map(nth).find(|port| !taken.contains(port)) else { break };
        taken.insert(free);
        ports.insert(key.clone(), free);
    }
    ports
}

fn resources(unmeshed: &Unmeshed, service: &ServiceName, port: u16, bound: u16) -> [Resource; 2] {
    // Four parts: no object of a user has a name like it.
    let name = format!("clusterset/{}/{}/{port}", service.namespace, service.name);
    let listener = Listener {
        name: name.clone(),
        addresses: Vec::new(),
        port: bound,
        bind_port: bound,
        hostname: None,
        protocol: ListenerProtocol::Tcp,
        certificates: Vec::new(),
        created: 0,
        served_by: Some(unmeshed.server.clone()),
        client_validation: None,
        backend_certificate: None,
    };
    let target = BackendTarget::Service {
        service: ServiceKey::clusterset(service.namespace.clone(), service.name.clone()),
        port,
    };
    let route = StreamRoute {
        kind: StreamRouteKind::Tcp,
        name: name.clone(),
        created: 0,
        parents: vec![RouteParent::Listener { listener: name, hostnames: Vec::new() }],
        backends: vec![Backend { target, weight: 1, filters: Vec::new() }],
    };
    [Resource::Listener(listener), Resource::StreamRoute(route)]
}

/// FNV-1a: the same in every release, which the standard hasher does not promise.
fn place((name, port): &(ServiceName, u16)) -> u32 {
    let text = format!("{name}:{port}");
    let hash = text
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // The upper half of FNV is mixed better than the lower.
    (hash >> 16) ^ hash
}

#[cfg(test)]
mod tests {
    use isthmus_model::{Label, SpiffeId};

    use super::*;

    fn key(n: u16) -> (ServiceName, u16) {
        let name =
            ServiceName::new(Label::new("shop").unwrap(), Label::new(&format!("s{n}")).unwrap());
        (name, 80)
    }

    fn unmeshed(ports: std::ops::RangeInclusive<u16>) -> Unmeshed {
        let server = SpiffeId::parse("spiffe://a.test/ns/isthmus-system/sa/isthmus-eastwest");
        Unmeshed { server: server.unwrap(), ports, given: BTreeMap::new() }
    }

    fn keys(count: u16) -> BTreeSet<(ServiceName, u16)> {
        (0..count).map(key).collect()
    }

    #[test]
    fn no_port_is_given_twice_and_the_range_ends() {
        let ports = allot(&unmeshed(20_000..=20_009), &BTreeMap::new(), &keys(12));
        let distinct: BTreeSet<_> = ports.values().copied().collect();
        assert_eq!((ports.len(), distinct), (10, (20_000..=20_009).collect()));
    }

    #[test]
    fn ports_of_the_last_plan_stay_when_others_come_and_go() {
        let unmeshed = unmeshed(20_000..=20_019);
        let first = allot(&unmeshed, &BTreeMap::new(), &keys(10));
        let mut later = keys(20);
        later.remove(&key(3));
        let second = allot(&unmeshed, &first, &later);
        assert!(first.iter().all(|(name, port)| *name == key(3) || second.get(name) == Some(port)));
    }

    #[test]
    fn ports_that_are_written_into_the_cluster_are_kept_after_a_restart() {
        let mut unmeshed = unmeshed(20_000..=29_999);
        let of = |n| ServiceKey::clusterset(key(n).0.namespace, key(n).0.name);
        unmeshed.given.insert((of(1), 80), 23_456);
        unmeshed.given.insert((of(2), 80), 80);
        unmeshed.given.insert((of(3), 80), 23_456);
        let ports = allot(&unmeshed, &BTreeMap::new(), &keys(4));
        assert_eq!(ports[&key(1)], 23_456);
        assert!(unmeshed.ports.contains(&ports[&key(2)]), "one out of the range is given anew");
        assert_ne!(ports[&key(3)], 23_456, "and so is one that two have");
    }
}
