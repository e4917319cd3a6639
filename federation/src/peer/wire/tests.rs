use std::sync::Arc;
use std::time::Duration;

use isthmus_model::{
    AppProtocol, ClusterId, EndpointId, Health, Label, Locality, ServicePort, SpiffeId, Transport,
};
use prost::Message;

use super::{encode_frame, frame, pb};
use crate::proto::{
    Body, BundleDocument, Change, ClusterProperties, EndpointSummary, Entry, EntryKey,
    ExportedMetadata, ExportedService, ExportedTraffic, Frame, GatewayInfo, IpFamily, ServiceName,
    SessionAffinity, SummaryEndpoint,
};

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn cart() -> ServiceName {
    ServiceName::new(label("shop"), label("cart"))
}

fn entries() -> Vec<Entry> {
    let identity = SpiffeId::parse("spiffe://b.test/ns/shop/sa/cart").unwrap();
    vec![
        Entry::Bundle(BundleDocument { jwks: Arc::from("{}"), sequence: 7 }),
        Entry::Endpoints(EndpointSummary {
            service: cart(),
            port: 80,
            endpoints: vec![SummaryEndpoint {
                id: EndpointId::new("0af").unwrap(),
                locality: Locality::new("eu", "a"),
                weight: 3,
                health: Health::Draining,
                identity: identity.clone(),
                app_port: 8080,
                hostname: Some(label("cart-0")),
            }],
        }),
        Entry::Gateway(GatewayInfo { identity, version: "1".into() }),
        Entry::Properties(ClusterProperties {
            locality: Locality::new("eu", "a"),
            properties: [("a".to_owned(), "b".to_owned())].into(),
        }),
        Entry::Service(ExportedService {
            name: cart(),
            created: 5,
            headless: true,
            ports: vec![ServicePort {
                name: Some(label("http")),
                number: 80,
                transport: Transport::Tcp,
                app: AppProtocol::Http,
                app_protocol: None,
            }],
            traffic: ExportedTraffic {
                session_affinity: SessionAffinity::ClientIp { timeout_seconds: 10 },
                internal_traffic_policy: Some(Arc::from("Local")),
                traffic_distribution: None,
                ip_families: vec![IpFamily::Ipv6, IpFamily::Ipv4],
            },
            metadata: ExportedMetadata {
                labels: [("a".to_owned(), "b".to_owned())].into(),
                annotations: [("c".to_owned(), "d".to_owned())].into(),
            },
        }),
    ]
}

fn over_the_wire(sent: Frame) -> Option<Frame> {
    let bytes = encode_frame(sent).encode_to_vec();
    frame(pb::Frame::decode(bytes.as_slice()).unwrap()).unwrap()
}

#[test]
fn every_kind_of_frame_and_entry_survives_the_wire() {
    let cluster = ClusterId::new("b").unwrap();
    let sets = entries().into_iter().map(|entry| Change::Set(Arc::new(entry)));
    let removals = entries().into_iter().map(|entry| Change::Remove(entry.key()));
    let changes: Vec<Change> = sets.chain(removals).collect();
    for body in [
        Body::Delta { base: 1, version: 9, changes: changes.clone() },
        Body::Full { version: 9, index: 2, last: true, entries: changes },
        Body::Heartbeat { sent: Some(9), sequence: 4, lease: Duration::from_secs(10) },
    ] {
        let sent = Frame { cluster: cluster.clone(), epoch: 3, body };
        assert_eq!(over_the_wire(sent.clone()), Some(sent));
    }
}

#[test]
fn a_bad_entry_is_invalid_alone_and_an_unknown_one_is_inert() {
    let name = |namespace: &str, name: &str| pb::ServiceName {
        namespace: namespace.into(),
        name: name.into(),
    };
    let service = |name| pb::Change {
        kind: Some(pb::change::Kind::Set(pb::Entry {
            kind: Some(pb::entry::Kind::Service(pb::Service {
                name: Some(name),
                ..pb::Service::default()
            })),
        })),
    };
    let changes = vec![
        service(name("shop", "a.b")),
        service(name("*", "cart")),
        service(name("shop", &"x".repeat(64))),
        service(name("..", "cart")),
        service(name("shop", "Cart")),
        pb::Change { kind: Some(pb::change::Kind::Set(pb::Entry { kind: None })) },
        pb::Change { kind: None },
        service(name("shop", "cart")),
    ];
    let delta = pb::Delta { base: 0, version: 1, changes };
    let message =
        pb::Frame { cluster: "b".into(), epoch: 1, body: Some(pb::frame::Body::Delta(delta)) };
    let Some(Frame { body: Body::Delta { changes, .. }, .. }) = frame(message).unwrap() else {
        panic!("not a delta")
    };
    assert!(changes[..5].iter().all(|change| matches!(change, Change::Invalid(_))));
    assert_eq!(changes[5..7], [Change::Unknown, Change::Unknown]);
    let Change::Set(entry) = &changes[7] else { panic!("refused") };
    assert_eq!(entry.key(), EntryKey::Service(cart()));
}

#[test]
fn a_frame_without_cluster_is_an_error_and_one_without_body_is_not() {
    assert!(frame(pb::Frame::default()).is_err());
    let message = pb::Frame { cluster: "b".into(), epoch: 1, body: None };
    assert_eq!(frame(message), Ok(None));
}
