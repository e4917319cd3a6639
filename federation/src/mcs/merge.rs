//! Exports of one service become one import.
//!
//! The oldest export wins wherever one value must be chosen; of two that are equally old,
//! the one whose cluster id is lower. Ports are the union of all exports.

use std::collections::{BTreeMap, BTreeSet};

use isthmus_model::{ClusterId, Label, ServicePort, Transport};

use super::condition::ConflictReason;
use crate::proto::{ExportedMetadata, ExportedService, ExportedTraffic, SessionAffinity};

/// One service of the clusterset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Whether it is headless.
    pub headless: bool,
    /// The union of the ports, in the order of the oldest exports.
    pub ports: Vec<ImportPort>,
    /// How its traffic is spread.
    pub traffic: ExportedTraffic,
    /// Its labels and annotations.
    pub metadata: ExportedMetadata,
    /// The clusters that export it, in order of their ids.
    pub clusters: Vec<ClusterId>,
    /// The cluster whose export is the oldest.
    pub winner: ClusterId,
    /// What the exports disagree about. It goes onto every export of the service.
    pub conflict: Option<Conflict>,
}

/// One port of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportPort {
    /// The port.
    pub port: ServicePort,
    /// The clusters that expose it; its traffic goes to no other.
    pub clusters: BTreeSet<ClusterId>,
}

/// What the exports of a service disagree about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Each reason with the number of clusters that differ from the winner, ordered.
    pub reasons: Vec<(ConflictReason, usize)>,
    /// The winner.
    pub winner: ClusterId,
    /// How many clusters export the service.
    pub total: usize,
}

impl Conflict {
    /// What a person reads.
    pub fn message(&self) -> String {
        let differ = |(reason, count): &(ConflictReason, usize)| {
            format!("{}: {count}/{} clusters disagree", reason.field(), self.total)
        };
        let reasons: Vec<String> = self.reasons.iter().map(differ).collect();
        format!("{}; the oldest export, of cluster {}, wins", reasons.join(", "), self.winner)
    }
}

/// Merges the exports of one service; `None` when there are none.
///
/// Spec: KEP-1645 "Constraints and Conflict Resolution".
pub fn merge(exports: &BTreeMap<ClusterId, &ExportedService>) -> Option<Import> {
    let mut by_age: Vec<(&ClusterId, &ExportedService)> =
        exports.iter().map(|(cluster, service)| (cluster, *service)).collect();
    by_age.sort_by_key(|(cluster, service)| (service.created, *cluster));
    let (winner, oldest) = *by_age.first()?;
    Some(Import {
        headless: oldest.headless,
        ports: union(&by_age),
        traffic: oldest.traffic.clone(),
        metadata: oldest.metadata.clone(),
        clusters: exports.keys().cloned().collect(),
        winner: winner.clone(),
        conflict: conflict(winner, oldest, &by_age),
    })
}

/// Spec: KEP-1645: "Resolved by the union of all port sets … first by name, then by
/// protocol and port": no two ports have one name, no two have one protocol and number.
fn union(by_age: &[(&ClusterId, &ExportedService)]) -> Vec<ImportPort> {
    let mut ports: Vec<ImportPort> = Vec::new();
    // By protocol and number, and by name, the place in `ports`.
    let mut numbers: BTreeMap<(Transport, u16), usize> = BTreeMap::new();
    let mut names: BTreeMap<Option<&Label>, usize> = BTreeMap::new();
    for (cluster, service) in by_age {
        for port in &service.ports {
            let number = (port.transport, port.number);
            if let Some(place) = numbers.get(&number) {
                // Under another name it is still the same port to whoever connects.
                if let Some(known) = ports.get_mut(*place) {
                    known.clusters.insert((*cluster).clone());
                }
            } else if let std::collections::btree_map::Entry::Vacant(name) =
                names.entry(port.name.as_ref())
            {
                name.insert(ports.len());
                numbers.insert(number, ports.len());
                let clusters = BTreeSet::from([(*cluster).clone()]);
                ports.push(ImportPort { port: port.clone(), clusters });
            }
        }
    }
    ports
}

fn conflict(
    winner: &ClusterId,
    oldest: &ExportedService,
    by_age: &[(&ClusterId, &ExportedService)],
) -> Option<Conflict> {
    let mut counts: BTreeMap<ConflictReason, usize> = BTreeMap::new();
    for (_, service) in by_age {
        for reason in differences(oldest, service) {
            *counts.entry(reason).or_default() += 1;
        }
    }
    let reasons: Vec<_> = counts.into_iter().collect();
    let (winner, total) = (winner.clone(), by_age.len());
    (!reasons.is_empty()).then_some(Conflict { reasons, winner, total })
}

fn differences(a: &ExportedService, b: &ExportedService) -> Vec<ConflictReason> {
    let (one, other) = (&a.traffic, &b.traffic);
    let affinity = match (one.session_affinity, other.session_affinity) {
        (SessionAffinity::None, SessionAffinity::None) => None,
        (
            SessionAffinity::ClientIp { timeout_seconds },
            SessionAffinity::ClientIp { timeout_seconds: other },
        ) => (timeout_seconds != other).then_some(ConflictReason::SessionAffinityConfig),
        (SessionAffinity::ClientIp { .. }, SessionAffinity::None)
        | (SessionAffinity::None, SessionAffinity::ClientIp { .. }) => {
            Some(ConflictReason::SessionAffinity)
        }
    };
    let when = |differs: bool, reason| differs.then_some(reason);
    // A cluster that says nothing means the default.
    let policy = |traffic: &ExportedTraffic| {
        let policy = traffic.internal_traffic_policy.clone();
        policy.filter(|policy| **policy != *DEFAULT_TRAFFIC_POLICY)
    };
    [
        when(a.metadata.annotations != b.metadata.annotations, ConflictReason::Annotations),
        when(policy(one) != policy(other), ConflictReason::InternalTrafficPolicy),
        when(a.metadata.labels != b.metadata.labels, ConflictReason::Labels),
        when(port_set(a) != port_set(b), ConflictReason::Port),
        affinity,
        when(
            one.traffic_distribution != other.traffic_distribution,
            ConflictReason::TrafficDistribution,
        ),
        when(a.headless != b.headless, ConflictReason::Type),
    ]
    .into_iter()
    .flatten()
    .collect()
}

type PortIdentity<'a> = (Option<&'a Label>, Transport, u16, Option<&'a str>);

/// The ports without their order.
fn port_set(service: &ExportedService) -> BTreeSet<PortIdentity<'_>> {
    service
        .ports
        .iter()
        .map(|port| {
            let name = port.name.as_ref();
            (name, port.transport, port.number, port.app_protocol.as_deref())
        })
        .collect()
}

/// Kubernetes' default of `internalTrafficPolicy`.
const DEFAULT_TRAFFIC_POLICY: &str = "Cluster";

#[cfg(test)]
mod tests {
    use isthmus_model::AppProtocol;

    use super::*;
    use crate::proto::ServiceName;

    fn cluster(name: &str) -> ClusterId {
        ClusterId::new(name).unwrap()
    }

    fn port(name: &str, number: u16, transport: Transport) -> ServicePort {
        ServicePort {
            name: Some(Label::new(name).unwrap()),
            number,
            transport,
            app: AppProtocol::Unset,
            app_protocol: None,
        }
    }

    fn export(created: i64, ports: Vec<ServicePort>) -> ExportedService {
        ExportedService {
            name: ServiceName::new(Label::new("shop").unwrap(), Label::new("cart").unwrap()),
            created,
            headless: false,
            ports,
            traffic: ExportedTraffic::default(),
            metadata: ExportedMetadata::default(),
        }
    }

    fn merged(exports: &[(&str, ExportedService)]) -> Import {
        merge(&exports.iter().map(|(name, export)| (cluster(name), export)).collect()).unwrap()
    }

    fn shape(import: &Import) -> Vec<String> {
        let shape = |p: &ImportPort| {
            let clusters: Vec<_> = p.clusters.iter().map(ToString::to_string).collect();
            let name = p.port.name.as_ref().map_or("", Label::as_str);
            format!("{name}:{} {}", p.port.number, clusters.join("+"))
        };
        import.ports.iter().map(shape).collect()
    }

    fn reasons(import: &Import) -> String {
        let condition = super::super::Condition::conflict(import.conflict.as_ref());
        condition.reason
    }

    #[test]
    fn equal_exports_do_not_conflict() {
        let ports = || vec![port("http", 80, Transport::Tcp)];
        let import = merged(&[("b", export(5, ports())), ("a", export(9, ports()))]);
        assert_eq!(import.winner, cluster("b"));
        assert_eq!(shape(&import), ["http:80 a+b"]);
        assert_eq!(reasons(&import), "NoConflicts");
    }

    #[test]
    fn different_ports_are_united_and_each_goes_only_to_its_cluster() {
        let import = merged(&[
            (
                "a",
                export(5, vec![port("tcp", 42, Transport::Tcp), port("udp", 42, Transport::Udp)]),
            ),
            (
                "b",
                export(
                    6,
                    vec![port("tcp", 42, Transport::Tcp), port("more", 142, Transport::Sctp)],
                ),
            ),
        ]);
        assert_eq!(shape(&import), ["tcp:42 a+b", "udp:42 a", "more:142 b"]);
        assert_eq!(reasons(&import), "PortConflict");
    }

    #[test]
    fn one_name_with_two_numbers_belongs_to_the_oldest() {
        let import = merged(&[
            ("a", export(7, vec![port("http", 81, Transport::Tcp)])),
            ("b", export(6, vec![port("http", 80, Transport::Tcp)])),
        ]);
        assert_eq!(shape(&import), ["http:80 b"]);
        assert_eq!(reasons(&import), "PortConflict");
    }

    #[test]
    fn equal_age_is_decided_by_cluster_id_and_all_differences_are_named() {
        let mut a = export(5, vec![]);
        a.traffic.session_affinity = SessionAffinity::ClientIp { timeout_seconds: 10 };
        let mut b = export(5, vec![]);
        b.headless = true;
        let import = merged(&[("b", b), ("a", a)]);
        assert_eq!(import.winner, cluster("a"));
        assert!(!import.headless);
        assert_eq!(reasons(&import), "SessionAffinityConflict,TypeConflict");
        let message = import.conflict.unwrap().message();
        assert!(message.contains("1/2 clusters disagree"), "{message}");
        assert!(message.contains("cluster a"), "{message}");
    }

    #[test]
    fn labels_and_annotations_are_the_oldest_exports_and_conflict() {
        let with = |created, key: &str| {
            let mut export = export(created, vec![]);
            let map: BTreeMap<String, String> = [(key.to_owned(), "true".to_owned())].into();
            export.metadata = ExportedMetadata { labels: map.clone(), annotations: map };
            export
        };
        let import = merged(&[("a", with(6, "late")), ("b", with(5, "early"))]);
        assert_eq!(reasons(&import), "AnnotationsConflict,LabelsConflict");
        assert_eq!(import.metadata, with(5, "early").metadata);
    }

    #[test]
    fn a_cluster_that_does_not_say_its_traffic_policy_has_the_default_one() {
        let mut said = export(5, vec![]);
        said.traffic.internal_traffic_policy = Some("Cluster".into());
        assert_eq!(reasons(&merged(&[("a", said), ("b", export(6, vec![]))])), "NoConflicts");
    }

    #[test]
    fn affinity_with_another_timeout_is_a_conflict_of_its_configuration() {
        let with = |seconds| {
            let mut export = export(5, vec![]);
            export.traffic.session_affinity =
                SessionAffinity::ClientIp { timeout_seconds: seconds };
            export
        };
        let import = merged(&[("a", with(10)), ("b", with(20)), ("c", with(10))]);
        assert_eq!(reasons(&import), "SessionAffinityConfigConflict");
        assert!(import.conflict.unwrap().message().contains("1/3"));
    }
}
