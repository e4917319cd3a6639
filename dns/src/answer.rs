//! A question against a zone gives an answer: pure, without sockets or a clock.
//!
//! The difference between "no such name" and "no such record" is exact: a name that has
//! records of another type, or that has names below it, exists and gets NODATA; every
//! other name in our zones gets NXDOMAIN. One name is an exception by specification:
//! `<cluster>.<svc>.<ns>.svc.clusterset.local` gets NXDOMAIN although the endpoints of a
//! headless service have names below it, because it must not exist.
//!
//! Labels are compared as bytes without regard to ASCII case. An asterisk, an escaped
//! dot or any other odd byte in a label means nothing special: no name of ours has one,
//! so such a name does not exist.
//!
//! Spec: RFC 1034 section 4.3.2, RFC 2308, RFC 4343, RFC 8020, RFC 8482.

mod tree;

use std::net::IpAddr;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, HINFO, NS, PTR, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::answer::tree::{Node, find, labels_below_zone};
use crate::zone::{
    APEX_TTL_SECONDS, Backing, SERVICE_TTL_SECONDS, Service, ServicePortRecord, Space,
    VERSION_TTL_SECONDS, ZoneData, port_numbers,
};

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The name, in the client's own case: answers repeat it.
    pub name: &'a Name,
    /// The record type.
    pub kind: RecordType,
    /// The class.
    pub class: DNSClass,
    /// Rotates lists of addresses, so that clients who take the first one spread; the
    /// message id will do.
    pub salt: u16,
}

/// What follows from a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The name exists, but has no record of the type.
    NoData {
        /// The zone's SOA, whose minimum bounds how long this may be cached.
        soa: Box<Record>,
    },
    /// The type or class is one that this server does not do.
    NotImplemented,
    /// The name is in none of our zones: forward it.
    NotOurs,
    /// The name does not exist.
    NxDomain {
        /// The zone's SOA, whose minimum bounds how long this may be cached.
        soa: Box<Record>,
    },
    /// Records.
    Records {
        /// The answer section.
        answers: Vec<Record>,
        /// Addresses of SRV targets, which the client may ignore.
        additionals: Vec<Record>,
    },
    /// Transfers, and classes other than IN, which nobody may ask for.
    Refused,
}

/// Which zone a name is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZoneKind {
    /// `cluster.local` and below.
    Cluster,
    /// `clusterset.local` and below.
    ClusterSet,
    /// Anything else.
    Other,
}

impl ZoneKind {
    /// Which zone the name is in, without regard to case.
    pub fn of(name: &Name) -> Self {
        let count = name.iter().len();
        let mut last = name.iter().skip(count.saturating_sub(2));
        let (Some(first), Some(second)) = (last.next(), last.next()) else { return Self::Other };
        if !second.eq_ignore_ascii_case(b"local") {
            Self::Other
        } else if first.eq_ignore_ascii_case(b"cluster") {
            Self::Cluster
        } else if first.eq_ignore_ascii_case(b"clusterset") {
            Self::ClusterSet
        } else {
            Self::Other
        }
    }

    /// Whether only this server may say anything about the zone.
    pub fn is_ours(self) -> bool {
        self != Self::Other
    }
}

/// Answers a question from the zone, following aliases as long as they stay in it.
pub fn answer(question: &Question<'_>, zone: &ZoneData) -> Answer {
    let mut outcome = answer_once(question, zone);
    if matches!(question.kind, RecordType::CNAME | RecordType::ANY) {
        return outcome;
    }
    for _ in 0..ALIASES_MAX {
        let Answer::Records { answers, additionals } = &mut outcome else { break };
        let target = match answers.last().map(|record| &record.data) {
            Some(RData::CNAME(target)) if ZoneKind::of(&target.0).is_ours() => target.0.clone(),
            Some(_) | None => break,
        };
        // A target without records leaves the alias alone in the answer, which is NODATA.
        match answer_once(&Question { name: &target, ..*question }, zone) {
            Answer::Records { answers: more, additionals: other } => {
                answers.extend(more);
                additionals.extend(other);
            }
            Answer::NoData { .. }
            | Answer::NotImplemented
            | Answer::NotOurs
            | Answer::NxDomain { .. }
            | Answer::Refused => break,
        }
    }
    outcome
}

fn answer_once(question: &Question<'_>, zone: &ZoneData) -> Answer {
    if matches!(question.kind, RecordType::AXFR | RecordType::IXFR) {
        return Answer::Refused;
    }
    if is_meta(question.kind) {
        return Answer::NotImplemented;
    }
    if question.class != DNSClass::IN {
        return Answer::Refused;
    }
    let space = match ZoneKind::of(question.name) {
        ZoneKind::Cluster => &zone.cluster,
        ZoneKind::ClusterSet => &zone.clusterset,
        ZoneKind::Other => return answer_other(question, zone),
    };
    let labels = labels_below_zone(question.name);
    let node = match &labels {
        Some(labels) => {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            find(space, &labels)
        }
        None => Node::Missing,
    };
    answer_node(question, space, &node)
}

/// Types that stand for no record of a zone, except ANY.
fn is_meta(kind: RecordType) -> bool {
    matches!(
        kind,
        RecordType::OPT
            | RecordType::TSIG
            | RecordType::ZERO
            | RecordType::Unknown(QTYPE_TKEY | QTYPE_MAILB | QTYPE_MAILA)
    )
}

fn answer_node(question: &Question<'_>, space: &Space, node: &Node<'_>) -> Answer {
    let soa = || Box::new(space.soa.clone());
    let mut additionals = Vec::new();
    let answers = match (node, question.kind) {
        (Node::Missing, _) => return Answer::NxDomain { soa: soa() },
        (Node::Empty, _) => Vec::new(),
        //= https://www.rfc-editor.org/rfc/rfc8482#section-4.2
        //# the name server generates a synthesized HINFO RRset
        (_, RecordType::ANY) => vec![any_minimal(question)],
        (Node::Apex, RecordType::SOA) => {
            vec![Record::from_rdata(
                question.name.clone(),
                APEX_TTL_SECONDS,
                space.soa.data.clone(),
            )]
        }
        (Node::Apex, RecordType::NS) => {
            additionals = addresses(&space.name_server, &space.name_server_ips, RecordType::ANY);
            let data = RData::NS(NS(space.name_server.clone()));
            vec![Record::from_rdata(question.name.clone(), APEX_TTL_SECONDS, data)]
        }
        (Node::Version, RecordType::TXT) => {
            let data = RData::TXT(TXT::new(vec![space.version.to_owned()]));
            vec![Record::from_rdata(question.name.clone(), VERSION_TTL_SECONDS, data)]
        }
        (Node::NameServer, kind) => addresses(question.name, &space.name_server_ips, kind),
        (Node::Host(host), kind) => {
            rotated(addresses(question.name, &host.addresses, kind), question)
        }
        (Node::Ports(service, ports), RecordType::SRV) => {
            services(question, service, ports.iter().copied(), &mut additionals)
        }
        (Node::Service(service), kind) => answer_service(question, service, kind, &mut additionals),
        (Node::Apex | Node::Version | Node::Ports(..), _) => Vec::new(),
    };
    if answers.is_empty() {
        return Answer::NoData { soa: soa() };
    }
    Answer::Records { answers, additionals }
}

fn answer_service(
    question: &Question<'_>,
    service: &Service,
    kind: RecordType,
    additionals: &mut Vec<Record>,
) -> Vec<Record> {
    match (&service.backing, kind) {
        (Backing::Alias(target), _) => {
            let data = RData::CNAME(CNAME(target.clone()));
            vec![Record::from_rdata(question.name.clone(), SERVICE_TTL_SECONDS, data)]
        }
        (Backing::Addresses(_) | Backing::Hosts(_), RecordType::SRV) => {
            services(question, service, &service.ports, additionals)
        }
        (Backing::Addresses(ips), kind) => addresses(question.name, ips, kind),
        (Backing::Hosts(hosts), kind) => {
            let ips = hosts.list.iter().flat_map(|host| &host.addresses);
            rotated(addresses(question.name, ips, kind), question)
        }
    }
}

/// SRV records: one for each number, and for headless services one for each host too.
///
/// The same number over TCP and UDP is one record: a client of the bare name could not
/// tell two of them apart.
fn services<'a>(
    question: &Question<'_>,
    service: &Service,
    ports: impl IntoIterator<Item = &'a ServicePortRecord>,
    additionals: &mut Vec<Record>,
) -> Vec<Record> {
    let numbers = port_numbers(ports);
    let targets: Vec<(&Name, &[IpAddr])> = match &service.backing {
        Backing::Addresses(ips) => vec![(&service.name, ips)],
        Backing::Alias(_) => Vec::new(),
        Backing::Hosts(hosts) => {
            hosts.list.iter().map(|host| (&host.name, host.addresses.as_slice())).collect()
        }
    };
    let total = targets.len().saturating_mul(numbers.len());
    let weight = u16::try_from(SRV_WEIGHT_TOTAL / total.max(1)).unwrap_or(1).max(1);
    let pairs = numbers
        .iter()
        .flat_map(|number| targets.iter().map(move |(target, _)| (*number, (*target).clone())));
    let records = pairs
        .take(ANSWER_RECORDS_MAX)
        .map(|(number, target)| {
            let data = RData::SRV(SRV::new(SRV_PRIORITY, weight, number, target));
            Record::from_rdata(question.name.clone(), SERVICE_TTL_SECONDS, data)
        })
        .collect();
    for (target, ips) in targets.iter().take(ADDITIONAL_TARGETS_MAX) {
        additionals.extend(addresses(target, *ips, RecordType::ANY));
    }
    rotated(records, question)
}

/// Address records of one family, or of both for `ANY`.
fn addresses<'a>(
    name: &Name,
    ips: impl IntoIterator<Item = &'a IpAddr>,
    kind: RecordType,
) -> Vec<Record> {
    let wanted = |wanted: RecordType| kind == wanted || kind == RecordType::ANY;
    let data = ips.into_iter().filter_map(|ip| match ip {
        IpAddr::V4(ip) if wanted(RecordType::A) => Some(RData::A(A(*ip))),
        IpAddr::V6(ip) if wanted(RecordType::AAAA) => Some(RData::AAAA(AAAA(*ip))),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    });
    data.take(ANSWER_RECORDS_MAX)
        .map(|data| Record::from_rdata(name.clone(), SERVICE_TTL_SECONDS, data))
        .collect()
}

fn rotated(mut records: Vec<Record>, question: &Question<'_>) -> Vec<Record> {
    if !records.is_empty() {
        let by = usize::from(question.salt) % records.len();
        records.rotate_left(by);
    }
    records
}

fn any_minimal(question: &Question<'_>) -> Record {
    let data = RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
    Record::from_rdata(question.name.clone(), APEX_TTL_SECONDS, data)
}

/// Reverse names of this cluster's services are ours; all else is somebody else's.
fn answer_other(question: &Question<'_>, zone: &ZoneData) -> Answer {
    if question.kind == RecordType::ANY {
        // What an upstream says to ANY is large and useful to nobody but an attacker.
        return Answer::NotImplemented;
    }
    if question.kind != RecordType::PTR {
        return Answer::NotOurs;
    }
    let Some(target) = reverse_address(question.name).and_then(|ip| zone.reverse.get(&ip)) else {
        return Answer::NotOurs;
    };
    let data = RData::PTR(PTR(target.clone()));
    let record = Record::from_rdata(question.name.clone(), SERVICE_TTL_SECONDS, data);
    Answer::Records { answers: vec![record], additionals: Vec::new() }
}

/// The address of a full `in-addr.arpa` or `ip6.arpa` name.
fn reverse_address(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

/// Records in one answer section. About 4000 of the smallest fit in 64 KiB; clients of
/// headless services do not use more than a few.
pub const ANSWER_RECORDS_MAX: usize = 1000;

const ALIASES_MAX: usize = 8;
const ADDITIONAL_TARGETS_MAX: usize = 64;
const SRV_PRIORITY: u16 = 0;
const SRV_WEIGHT_TOTAL: usize = 100;
const QTYPE_TKEY: u16 = 249;
const QTYPE_MAILB: u16 = 253;
const QTYPE_MAILA: u16 = 254;

#[cfg(test)]
mod tests;
