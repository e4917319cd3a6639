//! Which place in the tree of a zone a name is.

use hickory_proto::rr::Name;

use crate::zone::{Backing, Host, Service, ServicePortRecord, Space};

/// A place in the tree of a zone.
#[derive(Debug)]
pub(super) enum Node<'z> {
    Apex,
    /// Exists only because there are names below it.
    Empty,
    Host(&'z Host),
    Missing,
    NameServer,
    Ports(&'z Service, Vec<&'z ServicePortRecord>),
    Service(&'z Service),
    Version,
}

/// The lower-case labels below the zone's apex, the nearest to the apex first; `None`
/// when one has a byte that no name of ours has.
pub(super) fn labels_below_zone(name: &Name) -> Option<Vec<String>> {
    let count = name.iter().len().saturating_sub(ZONE_LABELS);
    let mut labels = Vec::with_capacity(count);
    for label in name.iter().take(count) {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'_';
        if !label.iter().all(plain) {
            return None;
        }
        labels.push(label.iter().map(|b| char::from(b.to_ascii_lowercase())).collect());
    }
    labels.reverse();
    Some(labels)
}

pub(super) fn find<'z>(space: &'z Space, labels: &[&str]) -> Node<'z> {
    match labels {
        [] => Node::Apex,
        ["dns-version"] => Node::Version,
        ["dns"] if !space.name_server_ips.is_empty() => Node::Empty,
        ["dns", "ns"] if !space.name_server_ips.is_empty() => Node::NameServer,
        ["svc"] => Node::Empty,
        ["svc", namespace] if space.has_namespace(namespace) => Node::Empty,
        ["svc", namespace, service, below @ ..] => match space.service(namespace, service) {
            Some(service) => find_below_service(service, below),
            None => Node::Missing,
        },
        _ => Node::Missing,
    }
}

fn find_below_service<'z>(service: &'z Service, below: &[&str]) -> Node<'z> {
    if let Backing::Hosts(hosts) = &service.backing
        && hosts.list.is_empty()
    {
        //= KEP-1645 specification.md#2.4.1
        //# If there are no ready endpoints for the headless Service, the answer should be
        //# `NXDOMAIN`.
        return Node::Missing;
    }
    let named = |protocol: &str| -> Vec<&'z ServicePortRecord> {
        let matches =
            |port: &&ServicePortRecord| port.name.is_some() && port.protocol.label() == protocol;
        match service.backing {
            Backing::Alias(_) => Vec::new(),
            Backing::Addresses(_) | Backing::Hosts(_) => {
                service.ports.iter().filter(matches).collect()
            }
        }
    };
    match below {
        [] => Node::Service(service),
        [protocol] if protocol.starts_with('_') => {
            if named(protocol).is_empty() {
                Node::Missing
            } else {
                Node::Empty
            }
        }
        [protocol, port] if protocol.starts_with('_') && port.starts_with('_') => {
            let mut ports = named(protocol);
            let wanted = port.strip_prefix('_');
            ports.retain(|port| port.name.as_ref().map(|name| name.as_str()) == wanted);
            if ports.is_empty() { Node::Missing } else { Node::Ports(service, ports) }
        }
        _ => {
            let path: Vec<&str> = below.iter().rev().copied().collect();
            match &service.backing {
                Backing::Addresses(_) | Backing::Alias(_) => Node::Missing,
                Backing::Hosts(hosts) => match hosts.find(&path.join(".")) {
                    Some(host) => Node::Host(host),
                    None => Node::Missing,
                },
            }
        }
    }
}

/// `cluster.local` and `clusterset.local` have two labels.
const ZONE_LABELS: usize = 2;
