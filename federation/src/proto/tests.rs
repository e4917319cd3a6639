use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_model::{ClusterId, EndpointId, Health, Label, Locality, SpiffeId, TrustDomain};

use super::admit::Quotas;
use super::*;

fn name(text: &str) -> ServiceName {
    let (namespace, name) = text.split_once('/').unwrap();
    ServiceName::new(Label::new(namespace).unwrap(), Label::new(name).unwrap())
}

fn service(text: &str) -> Arc<Entry> {
    Arc::new(Entry::Service(ExportedService {
        name: name(text),
        created: 1,
        headless: false,
        ports: vec![],
        traffic: ExportedTraffic::default(),
        metadata: ExportedMetadata::default(),
    }))
}

fn endpoints(text: &str, ids: &[&str], identity: &str) -> Arc<Entry> {
    let endpoint = |id: &&str| SummaryEndpoint {
        id: EndpointId::new(id).unwrap(),
        locality: Locality::default(),
        weight: 1,
        health: Health::Ready,
        identity: SpiffeId::parse(identity).unwrap(),
        app_port: 80,
        hostname: None,
    };
    let endpoints = ids.iter().map(endpoint).collect();
    Arc::new(Entry::Endpoints(EndpointSummary { service: name(text), port: 80, endpoints }))
}

const OWN: &str = "spiffe://b.test/ns/a/sa/b";

fn rules() -> PeerRules {
    PeerRules {
        cluster: ClusterId::new("b").unwrap(),
        trust_domain: TrustDomain::new("b.test").unwrap(),
        import: Grants::everything(),
    }
}

fn start() -> Instant {
    isthmus_runtime::clock::now()
}

fn importer(now: Instant) -> Importer {
    let mut importer = Importer::new(rules(), ImporterSettings::default());
    importer.handle_connected(now);
    importer
}

fn frame(epoch: u64, body: Body) -> Frame {
    Frame { cluster: ClusterId::new("b").unwrap(), epoch, body }
}

fn full(epoch: u64, version: u64, entries: &[Arc<Entry>]) -> Frame {
    let entries = entries.iter().cloned().map(Change::Set).collect();
    frame(epoch, Body::Full { version, index: 0, last: true, entries })
}

fn heartbeat(epoch: u64, sent: u64, sequence: u64) -> Frame {
    frame(epoch, Body::Heartbeat { sent: Some(sent), sequence, lease: Duration::from_secs(10) })
}

fn keys(importer: &Importer) -> Vec<String> {
    importer.entries().keys().map(ToString::to_string).collect()
}

#[test]
fn what_an_older_writer_says_is_refused() {
    let now = start();
    let mut importer = importer(now);
    importer.handle_frame(now, full(5, 3, &[service("shop/a")])).unwrap();
    importer.handle_frame(now, full(4, 9, &[service("shop/b")])).unwrap();
    let changes = vec![Change::Remove(EntryKey::Service(name("shop/a")))];
    let delta = Body::Delta { base: 3, version: 8, changes };
    importer.handle_frame(now, frame(4, delta)).unwrap();
    assert_eq!(keys(&importer), ["service shop/a"]);
    assert_eq!(importer.position(), Some(Position { epoch: 5, version: 3 }));
}

#[test]
fn a_frame_for_another_cluster_ends_the_session() {
    let now = start();
    let mut importer = importer(now);
    let mut theft = full(1, 1, &[service("shop/a")]);
    theft.cluster = ClusterId::new("third").unwrap();
    assert!(matches!(importer.handle_frame(now, theft), Err(Violation::Cluster { .. })));
    let last = full(u64::MAX, 1, &[]);
    assert!(matches!(importer.handle_frame(now, last), Err(Violation::Epoch { .. })));
}

#[test]
fn stolen_names_and_identities_are_refused_alone() {
    let now = start();
    let mut importer = importer(now);
    let entries = [
        service("kube-system/kube-dns"),
        service("default/kubernetes"),
        service("isthmus-system/federation"),
        service("shop/good"),
        endpoints("shop/good", &["x"], "spiffe://victim.test/ns/a/sa/b"),
        endpoints("shop/other", &["x", "x"], OWN),
    ];
    importer.handle_frame(now, full(1, 1, &entries)).unwrap();
    assert_eq!(keys(&importer), ["service shop/good"]);
    let counts = importer.refused();
    assert_eq!(counts[&Refused::NotGranted], 3);
    assert_eq!(counts[&Refused::ForeignIdentity], 1);
    assert_eq!(counts[&Refused::Invalid], 1);
}

#[test]
fn quotas_hold_and_leave_what_is_there() {
    let now = start();
    let quotas = Quotas { services_max: 2, endpoints_max: 3 };
    let settings = ImporterSettings { quotas, ..ImporterSettings::default() };
    let mut importer = Importer::new(rules(), settings);
    importer.handle_connected(now);
    let entries = [
        endpoints("shop/a", &["1", "2"], OWN),
        endpoints("shop/b", &["1", "2"], OWN),
        service("shop/a"),
        service("shop/b"),
        service("shop/c"),
    ];
    importer.handle_frame(now, full(1, 1, &entries)).unwrap();
    assert_eq!(importer.counts(), (2, 2));
    assert_eq!(importer.refused()[&Refused::Quota], 2);
}

#[test]
fn a_peer_that_is_too_fast_is_read_later() {
    let now = start();
    let mut importer = importer(now);
    let flood: Vec<Change> = (0..30_000).map(|_| Change::Unknown).collect();
    let delta = Body::Delta { base: 0, version: 1, changes: flood };
    importer.handle_frame(now, frame(1, delta)).unwrap();
    let ready = importer.ready_at(now).unwrap();
    assert_eq!(ready - now, Duration::from_secs(10));
}

#[test]
fn a_state_that_is_suddenly_empty_waits_for_its_hold_down() {
    let mut now = start();
    let mut importer = importer(now);
    importer.handle_frame(now, full(1, 5, &[service("shop/a"), service("shop/b")])).unwrap();
    importer.handle_frame(now, full(2, 0, &[])).unwrap();
    assert!(importer.is_holding());
    for sequence in 1..70 {
        importer.handle_frame(now, heartbeat(2, 0, sequence)).unwrap();
        assert_eq!(importer.counts().0, if sequence <= 60 { 2 } else { 0 }, "{sequence}");
        now += Duration::from_secs(2);
        importer.handle_timeout(now);
    }
}

#[test]
fn a_removal_by_name_is_believed_at_once() {
    let now = start();
    let mut importer = importer(now);
    importer.handle_frame(now, full(1, 5, &[service("shop/a")])).unwrap();
    let changes = vec![Change::Remove(EntryKey::Service(name("shop/a")))];
    importer.handle_frame(now, frame(1, Body::Delta { base: 5, version: 6, changes })).unwrap();
    assert_eq!(importer.counts().0, 0);
    assert!(!importer.is_holding());
}

#[test]
fn a_replayed_heartbeat_renews_nothing() {
    let start = start();
    let mut importer = importer(start);
    importer.handle_frame(start, full(1, 0, &[])).unwrap();
    importer.handle_frame(start, heartbeat(1, 0, 7)).unwrap();
    assert!(importer.lease().is_valid(start));
    let later = start + Duration::from_secs(9);
    importer.handle_frame(later, heartbeat(1, 0, 7)).unwrap();
    importer.handle_frame(later, heartbeat(1, 0, 3)).unwrap();
    let end = start + Duration::from_secs(10);
    importer.handle_timeout(end);
    assert!(!importer.lease().is_valid(end));
}

#[test]
fn narrower_rules_take_effect_without_the_peer() {
    let now = start();
    let mut importer = importer(now);
    importer.handle_frame(now, full(1, 5, &[service("shop/a")])).unwrap();
    importer.set_rules(now, PeerRules { import: Grants::default(), ..rules() });
    assert!(importer.entries().is_empty());
    let resubscribed = importer.poll_request(now);
    assert_eq!(resubscribed, Some(Request::Subscribe { fence: 1, resume: None }));
}

#[test]
fn a_chunk_that_is_missing_is_asked_for_again() {
    let now = start();
    let mut importer = importer(now);
    assert!(matches!(importer.poll_request(now), Some(Request::Subscribe { .. })));
    let chunk = |index, last| {
        let entries = vec![Change::Set(service(&format!("shop/s{index}")))];
        frame(1, Body::Full { version: 9, index, last, entries })
    };
    importer.handle_frame(now, chunk(0, false)).unwrap();
    importer.handle_frame(now, chunk(2, true)).unwrap();
    assert!(importer.entries().is_empty(), "half a state was applied");
    let later = now + Duration::from_secs(2);
    let request = importer.poll_request(later);
    assert_eq!(request, Some(Request::Subscribe { fence: 1, resume: None }));
}

#[test]
fn a_subscriber_gets_the_difference_or_all_of_it() {
    let now = start();
    let own = ClusterId::new("b").unwrap();
    let settings = ExporterSettings { tombstones_max: 1, ..ExporterSettings::default() };
    let mut exporter = Exporter::new(own, 3, settings);
    let view = |names: &[&str]| -> BTreeMap<EntryKey, Arc<Entry>> {
        names.iter().map(|text| service(text)).map(|entry| (entry.key(), entry)).collect()
    };
    exporter.set_entries(view(&["shop/a", "shop/b", "shop/c"]));
    assert_eq!(exporter.set_entries(view(&["shop/a", "shop/b", "shop/c"])), 0);
    exporter.handle_connected(now);
    let subscribe = |exporter: &mut Exporter, fence, resume| {
        exporter.handle_request(now, Request::Subscribe { fence, resume }).unwrap()
    };
    let at = |version| Some(Position { epoch: 3, version });
    assert_eq!(subscribe(&mut exporter, 3, at(3)), SubscribeOutcome::Resumed);
    exporter.set_entries(view(&["shop/a", "shop/b"]));
    let Some(Frame { body: Body::Delta { base, changes, .. }, .. }) = exporter.poll_frame(now)
    else {
        panic!("no difference")
    };
    assert_eq!((base, changes), (3, vec![Change::Remove(EntryKey::Service(name("shop/c")))]));
    exporter.set_entries(view(&["shop/a"]));
    // Only one removal is remembered, so the difference from here is not known any more.
    assert_eq!(subscribe(&mut exporter, 3, at(3)), SubscribeOutcome::Full);
    assert_eq!(subscribe(&mut exporter, 3, None), SubscribeOutcome::Full);
    let later = SubscribeOutcome::Superseded { epoch: 9 };
    assert_eq!(subscribe(&mut exporter, 9, None), later);
    exporter.adopt_epoch(10);
    let frame = exporter.poll_frame(now).unwrap();
    assert_eq!(frame.epoch, 10);
    assert!(matches!(frame.body, Body::Full { last: true, .. }));
}

#[test]
fn a_lost_epoch_goes_by_the_clock_and_a_known_one_never_goes_back() {
    assert!(start_epoch(None, 2_000, 5) > start_epoch(None, 1_999, u64::MAX));
    let last = start_epoch(None, 2_000, 5);
    assert_eq!(start_epoch(Some(last), 1_000, 5), last + 1);
}
