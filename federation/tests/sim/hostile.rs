//! What a hostile cluster says: anything.

use std::sync::Arc;
use std::time::Duration;

use isthmus_federation::proto::{
    Body, BundleDocument, Change, EndpointSummary, Entry, EntryKey, Frame, ServiceName,
    SummaryEndpoint,
};
use isthmus_model::{EndpointId, Health, Label, Locality, SpiffeId};

use crate::node::{GRANTED_TO_HOSTILE, cluster, domain, service_entry, service_name};
use crate::random::Random;

/// A frame that no honest exporter sends.
pub(crate) fn anything(random: &mut Random, index: usize) -> Frame {
    let speaks_for = if random.chance(10) { cluster(0) } else { cluster(index) };
    let epoch = match random.below(8) {
        0 => u64::MAX,
        1 => 0,
        _ => 1 + random.below(4),
    };
    let changes = (0..random.below(6)).map(|_| any_change(random, index)).collect();
    let version = random.below(60);
    let body = match random.below(3) {
        0 => Body::Delta { base: random.below(60), version, changes },
        1 => Body::Full {
            version,
            index: u32::try_from(random.below(4)).unwrap(),
            last: random.chance(50),
            entries: changes,
        },
        _ => Body::Heartbeat {
            sent: random.chance(50).then_some(version),
            sequence: random.next(),
            lease: Duration::from_secs(random.next() >> 1),
        },
    };
    Frame { cluster: speaks_for, epoch, body }
}

fn any_change(random: &mut Random, index: usize) -> Change {
    let namespaces = ["shop", GRANTED_TO_HOSTILE, "kube-system", "isthmus-system", "default"];
    let namespace = namespaces[usize::try_from(random.below(5)).unwrap()];
    let name = if random.chance(10) && namespace == "default" {
        ServiceName::new(Label::new("default").unwrap(), Label::new("kubernetes").unwrap())
    } else {
        service_name(namespace, random.below(20))
    };
    match random.below(6) {
        0 => Change::Unknown,
        1 => Change::Invalid("anything"),
        2 => Change::Remove(EntryKey::Service(name)),
        3 => {
            let created = i64::from_le_bytes(random.next().to_le_bytes());
            Change::Set(Arc::new(service_entry(random, &name, created)))
        }
        4 => Change::Set(Arc::new(Entry::Bundle(BundleDocument {
            jwks: Arc::from("{}"),
            sequence: random.next(),
        }))),
        _ => Change::Set(Arc::new(Entry::Endpoints(any_endpoints(random, index, name)))),
    }
}

fn any_endpoints(random: &mut Random, index: usize, service: ServiceName) -> EndpointSummary {
    let victim = if random.chance(50) { 0 } else { index };
    let endpoint = |random: &mut Random| SummaryEndpoint {
        id: EndpointId::new(&format!("e{}", random.below(3))).unwrap(),
        locality: Locality::default(),
        weight: u16::try_from(random.below(65_536)).unwrap(),
        health: Health::Ready,
        identity: SpiffeId::parse(&format!("spiffe://{}/ns/a/sa/b", domain(victim))).unwrap(),
        app_port: 8080,
        hostname: None,
    };
    let endpoints = (0..random.below(4)).map(|_| endpoint(random)).collect();
    EndpointSummary { service, port: u16::try_from(random.below(3)).unwrap() * 80, endpoints }
}
