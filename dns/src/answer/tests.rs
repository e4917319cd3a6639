use super::*;
use crate::zone::{
    HeadlessEndpoint, PortProtocol, ServiceKind, ServicePortRecord, ServiceRecord, ZoneSource,
};
use isthmus_model::{ClusterId, Hostname, Label, ServiceKey};

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn id(text: &str) -> ClusterId {
    ClusterId::new(text).unwrap()
}

fn port(name: &str, protocol: PortProtocol, number: u16) -> ServicePortRecord {
    let name = (!name.is_empty()).then(|| label(name));
    ServicePortRecord { name, protocol, number }
}

fn endpoint(host: &str, cluster: &str, ip: &str, ready: bool) -> HeadlessEndpoint {
    let hostname = (!host.is_empty()).then(|| label(host));
    HeadlessEndpoint { hostname, cluster: id(cluster), ip: ip.parse().unwrap(), ready }
}

fn record(key: ServiceKey, kind: ServiceKind) -> ServiceRecord {
    let ports = vec![
        port("http", PortProtocol::Tcp, 80),
        port("dns", PortProtocol::Tcp, 42),
        port("dns", PortProtocol::Udp, 42),
        port("", PortProtocol::Udp, 99),
    ];
    ServiceRecord { key, kind, ports }
}

fn set(name: &str) -> ServiceKey {
    ServiceKey::clusterset(label("shop"), label(name))
}

fn local(name: &str) -> ServiceKey {
    ServiceKey::cluster(label("shop"), label(name))
}

fn ips(texts: &[&str]) -> ServiceKind {
    ServiceKind::ClusterIp { ips: texts.iter().map(|ip| ip.parse().unwrap()).collect() }
}

fn hosts(endpoints: Vec<HeadlessEndpoint>) -> ServiceKind {
    ServiceKind::Headless { endpoints }
}

fn alias(target: &str) -> ServiceKind {
    ServiceKind::ExternalName { target: Hostname::new(target).unwrap() }
}

fn zone() -> ZoneData {
    let mut source = ZoneSource::new(id("cluster-a"));
    source.serial = 7;
    source.namespaces = vec![label("empty")];
    source.name_servers = vec!["10.96.0.10".parse().unwrap()];
    let pets = || {
        vec![
            endpoint("pet-0", "b.dotted", "10.2.0.1", true),
            endpoint("pet-0", "b.dotted", "fd00::21", true),
            endpoint("pet-0", "cluster-a", "10.1.0.1", true),
            endpoint("", "cluster-a", "10.1.0.2", true),
            endpoint("pet-9", "cluster-a", "10.1.0.9", false),
        ]
    };
    source.services = vec![
        record(set("cart"), ips(&["10.0.0.1", "fd00::1"])),
        record(set("v4"), ips(&["10.0.0.2"])),
        record(set("pending"), ips(&[])),
        record(set("pets"), hosts(pets())),
        record(set("down"), hosts(vec![endpoint("x", "cluster-a", "10.1.0.3", false)])),
        record(local("cart"), ips(&["10.96.0.1"])),
        record(local("pets"), hosts(vec![endpoint("pet-0", "cluster-a", "10.1.0.1", true)])),
        record(local("plain"), hosts(vec![endpoint("", "cluster-a", "fd00::9", true)])),
        record(local("web"), alias("web.example")),
        record(local("near"), alias("cart.shop.svc.clusterset.local")),
        record(local("loop"), alias("loop.shop.svc.cluster.local")),
    ];
    ZoneData::build(source)
}

fn ask_as(name: &str, kind: RecordType, class: DNSClass, salt: u16) -> Answer {
    let name = Name::from_ascii(name).unwrap();
    answer(&Question { name: &name, kind, class, salt }, &zone())
}

fn ask(name: &str, kind: RecordType) -> Answer {
    ask_as(name, kind, DNSClass::IN, 0)
}

/// One line for each record, sorted, or the kind of negative answer.
fn told(name: &str, kind: RecordType) -> Vec<String> {
    match ask(name, kind) {
        Answer::Records { answers, .. } => {
            let line = |record: &Record| format!("{} {}", record.ttl, record.data);
            let mut lines: Vec<_> = answers.iter().map(line).collect();
            lines.sort();
            lines
        }
        Answer::NoData { .. } => vec!["NODATA".to_owned()],
        Answer::NotImplemented => vec!["NOTIMP".to_owned()],
        Answer::NotOurs => vec!["FORWARD".to_owned()],
        Answer::NxDomain { .. } => vec!["NXDOMAIN".to_owned()],
        Answer::Refused => vec!["REFUSED".to_owned()],
    }
}

fn check(kind: RecordType, cases: &[(&str, &[&str])]) {
    for (name, wanted) in cases {
        assert_eq!(told(name, kind), *wanted, "{kind} {name}");
    }
}

#[test]
fn clusterset_ip_services_answer_addresses() {
    check(
        RecordType::A,
        &[
            ("cart.shop.svc.clusterset.local.", &["5 10.0.0.1"]),
            ("CaRt.sHoP.SvC.ClusterSet.LOCAL.", &["5 10.0.0.1"]),
            ("v4.shop.svc.clusterset.local.", &["5 10.0.0.2"]),
            ("pending.shop.svc.clusterset.local.", &["NODATA"]),
        ],
    );
    check(
        RecordType::AAAA,
        &[
            ("cart.shop.svc.clusterset.local.", &["5 fd00::1"]),
            ("v4.shop.svc.clusterset.local.", &["NODATA"]),
        ],
    );
}

#[test]
fn names_that_exist_get_nodata_and_all_others_nxdomain() {
    check(
        RecordType::A,
        &[
            ("clusterset.local.", &["NODATA"]),
            ("svc.clusterset.local.", &["NODATA"]),
            ("shop.svc.clusterset.local.", &["NODATA"]),
            ("_tcp.cart.shop.svc.clusterset.local.", &["NODATA"]),
            ("_http._tcp.cart.shop.svc.clusterset.local.", &["NODATA"]),
            ("dns-version.clusterset.local.", &["NODATA"]),
            ("dns.clusterset.local.", &["NODATA"]),
            ("empty.svc.cluster.local.", &["NODATA"]),
            ("empty.svc.clusterset.local.", &["NXDOMAIN"]),
            ("nothing.svc.cluster.local.", &["NXDOMAIN"]),
            ("none.shop.svc.clusterset.local.", &["NXDOMAIN"]),
            ("cart.none.svc.clusterset.local.", &["NXDOMAIN"]),
            ("_sctp.cart.shop.svc.clusterset.local.", &["NXDOMAIN"]),
            ("_none._tcp.cart.shop.svc.clusterset.local.", &["NXDOMAIN"]),
            ("_http._udp.cart.shop.svc.clusterset.local.", &["NXDOMAIN"]),
            ("_x._http._tcp.cart.shop.svc.clusterset.local.", &["NXDOMAIN"]),
            ("http._tcp.cart.shop.svc.clusterset.local.", &["NXDOMAIN"]),
            ("a.dns-version.clusterset.local.", &["NXDOMAIN"]),
            ("pod.cluster.local.", &["NXDOMAIN"]),
            ("10-1-0-1.shop.pod.cluster.local.", &["NXDOMAIN"]),
            ("anything.clusterset.local.", &["NXDOMAIN"]),
        ],
    );
    check(RecordType::DS, &[("clusterset.local.", &["NODATA"])]);
}

#[test]
fn names_that_must_not_exist_do_not() {
    check(
        RecordType::A,
        &[
            ("cluster-a.cart.shop.svc.clusterset.local.", &["NXDOMAIN"]),
            ("cluster-a.pets.shop.svc.clusterset.local.", &["NXDOMAIN"]),
            ("b.dotted.pets.shop.svc.clusterset.local.", &["NXDOMAIN"]),
            ("dotted.pets.shop.svc.clusterset.local.", &["NXDOMAIN"]),
            ("pet-0.pets.shop.svc.clusterset.local.", &["NXDOMAIN"]),
            ("pet-0.cluster-a.pets.shop.svc.cluster.local.", &["NXDOMAIN"]),
        ],
    );
    check(RecordType::SRV, &[("cluster-a.pets.shop.svc.clusterset.local.", &["NXDOMAIN"])]);
}

#[test]
fn cluster_local_is_answered_from_this_cluster_alone() {
    check(
        RecordType::A,
        &[
            ("cart.shop.svc.cluster.local.", &["5 10.96.0.1"]),
            ("v4.shop.svc.cluster.local.", &["NXDOMAIN"]),
            ("pets.shop.svc.cluster.local.", &["5 10.1.0.1"]),
            ("pet-0.pets.shop.svc.cluster.local.", &["5 10.1.0.1"]),
            ("cart.shop.svc.clusterset.local.", &["5 10.0.0.1"]),
        ],
    );
    check(RecordType::AAAA, &[("fd00--9.plain.shop.svc.cluster.local.", &["5 fd00::9"])]);
}

#[test]
fn headless_services_answer_ready_endpoints_of_all_clusters() {
    check(
        RecordType::A,
        &[
            ("pets.shop.svc.clusterset.local.", &["5 10.1.0.1", "5 10.1.0.2", "5 10.2.0.1"]),
            ("pet-0.cluster-a.pets.shop.svc.clusterset.local.", &["5 10.1.0.1"]),
            ("pet-0.b.dotted.pets.shop.svc.clusterset.local.", &["5 10.2.0.1"]),
            ("10-1-0-2.cluster-a.pets.shop.svc.clusterset.local.", &["5 10.1.0.2"]),
            ("pet-9.cluster-a.pets.shop.svc.clusterset.local.", &["NXDOMAIN"]),
            ("pet-0.cluster-x.pets.shop.svc.clusterset.local.", &["NXDOMAIN"]),
            ("down.shop.svc.clusterset.local.", &["NXDOMAIN"]),
            ("_http._tcp.down.shop.svc.clusterset.local.", &["NXDOMAIN"]),
        ],
    );
    check(
        RecordType::AAAA,
        &[
            ("pets.shop.svc.clusterset.local.", &["5 fd00::21"]),
            ("pet-0.b.dotted.pets.shop.svc.clusterset.local.", &["5 fd00::21"]),
            ("pet-0.cluster-a.pets.shop.svc.clusterset.local.", &["NODATA"]),
        ],
    );
}

#[test]
fn srv_names_ports_and_the_bare_name_has_each_number_once() {
    check(
        RecordType::SRV,
        &[
            (
                "_http._tcp.cart.shop.svc.clusterset.local.",
                &["5 0 100 80 cart.shop.svc.clusterset.local."],
            ),
            (
                "_DNS._udp.cart.shop.svc.clusterset.local.",
                &["5 0 100 42 cart.shop.svc.clusterset.local."],
            ),
            (
                "cart.shop.svc.clusterset.local.",
                &[
                    "5 0 33 42 cart.shop.svc.clusterset.local.",
                    "5 0 33 80 cart.shop.svc.clusterset.local.",
                    "5 0 33 99 cart.shop.svc.clusterset.local.",
                ],
            ),
            (
                "_http._tcp.pets.shop.svc.clusterset.local.",
                &[
                    "5 0 33 80 10-1-0-2.cluster-a.pets.shop.svc.clusterset.local.",
                    "5 0 33 80 pet-0.b.dotted.pets.shop.svc.clusterset.local.",
                    "5 0 33 80 pet-0.cluster-a.pets.shop.svc.clusterset.local.",
                ],
            ),
            ("_._udp.cart.shop.svc.clusterset.local.", &["NXDOMAIN"]),
            ("pet-0.cluster-a.pets.shop.svc.clusterset.local.", &["NODATA"]),
        ],
    );
    let Answer::Records { additionals, .. } =
        ask("_http._tcp.cart.shop.svc.clusterset.local.", RecordType::SRV)
    else {
        panic!("no records");
    };
    assert_eq!(additionals.len(), 2, "the target's A and AAAA come along");
}

#[test]
fn one_port_number_over_two_transports_is_one_record() {
    let mut source = ZoneSource::new(id("cluster-a"));
    let ports = vec![port("tcp", PortProtocol::Tcp, 42), port("udp", PortProtocol::Udp, 42)];
    source.services = vec![ServiceRecord { key: set("cart"), kind: ips(&["10.0.0.1"]), ports }];
    let zone = ZoneData::build(source);
    let name = Name::from_ascii("cart.shop.svc.clusterset.local.").unwrap();
    let question = Question { name: &name, kind: RecordType::SRV, class: DNSClass::IN, salt: 0 };
    let Answer::Records { answers, .. } = answer(&question, &zone) else { panic!("no records") };
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].data.to_string(), "0 100 42 cart.shop.svc.clusterset.local.");
}

#[test]
fn the_apex_the_version_and_the_name_server_answer() {
    check(
        RecordType::TXT,
        &[
            ("dns-version.clusterset.local.", &["28800 1.0.0"]),
            ("dns-version.cluster.local.", &["28800 1.1.0"]),
        ],
    );
    check(RecordType::NS, &[("clusterset.local.", &["30 ns.dns.clusterset.local."])]);
    check(RecordType::A, &[("ns.dns.cluster.local.", &["5 10.96.0.10"])]);
    let soa = "ns.dns.cluster.local. hostmaster.cluster.local. 7 7200 1800 86400 5";
    check(RecordType::SOA, &[("cluster.local.", &[&format!("30 {soa}")])]);
    let Answer::NxDomain { soa } = ask("x.cluster.local.", RecordType::A) else {
        panic!("exists");
    };
    assert_eq!((soa.name.to_string(), soa.ttl), ("cluster.local.".to_owned(), 5));
}

#[test]
fn aliases_are_followed_inside_our_zones_and_loops_end() {
    check(
        RecordType::A,
        &[
            ("web.shop.svc.cluster.local.", &["5 web.example."]),
            ("near.shop.svc.cluster.local.", &["5 10.0.0.1", "5 cart.shop.svc.clusterset.local."]),
        ],
    );
    check(RecordType::CNAME, &[("web.shop.svc.cluster.local.", &["5 web.example."])]);
    check(RecordType::SRV, &[("_http._tcp.web.shop.svc.cluster.local.", &["NXDOMAIN"])]);
    assert_eq!(told("loop.shop.svc.cluster.local.", RecordType::A).len(), 1 + ALIASES_MAX);
}

#[test]
fn any_is_minimal_and_transfers_and_other_classes_are_refused() {
    let cart = "cart.shop.svc.clusterset.local.";
    check(
        RecordType::ANY,
        &[
            (cart, &["30 RFC8482 "]),
            ("svc.clusterset.local.", &["NODATA"]),
            ("x.clusterset.local.", &["NXDOMAIN"]),
            ("example.com.", &["NOTIMP"]),
        ],
    );
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        check(
            kind,
            &[(cart, &["REFUSED"]), ("clusterset.local.", &["REFUSED"]), (".", &["REFUSED"])],
        );
    }
    for kind in [RecordType::OPT, RecordType::Unknown(253), RecordType::Unknown(249)] {
        check(kind, &[(cart, &["NOTIMP"])]);
    }
    for class in [DNSClass::CH, DNSClass::HS, DNSClass::ANY, DNSClass::NONE] {
        assert_eq!(ask_as(cart, RecordType::A, class, 0), Answer::Refused);
        assert_eq!(ask_as("version.bind.", RecordType::TXT, class, 0), Answer::Refused);
    }
}

#[test]
fn odd_labels_mean_nothing_special() {
    let below = ["shop", "svc", "clusterset", "local"];
    for odd in [b"*".as_slice(), b"cart.shop", b"ca\0rt", b"cart ", "caf\u{e9}".as_bytes()] {
        let labels = std::iter::once(odd).chain(below.iter().map(|label| label.as_bytes()));
        let mut name = Name::from_labels(labels).unwrap();
        name.set_fqdn(true);
        let question = Question { name: &name, kind: RecordType::A, class: DNSClass::IN, salt: 0 };
        assert!(matches!(answer(&question, &zone()), Answer::NxDomain { .. }), "{name}");
    }
    // One label `cart.shop` is not the two labels, and `pet-0.b` is not a host of `dotted`.
    for odd in ["pet-0.b", "pet-0.b.dotted"] {
        let labels = [odd, "dotted", "pets", "shop", "svc", "clusterset", "local"];
        let name = Name::from_labels(labels.iter().map(|label| label.as_bytes())).unwrap();
        let question = Question { name: &name, kind: RecordType::A, class: DNSClass::IN, salt: 0 };
        assert!(matches!(answer(&question, &zone()), Answer::NxDomain { .. }), "{odd}");
    }
}

#[test]
fn names_outside_are_forwarded_and_known_addresses_reversed() {
    check(
        RecordType::A,
        &[
            ("example.com.", &["FORWARD"]),
            ("local.", &["FORWARD"]),
            (".", &["FORWARD"]),
            ("xclusterset.local.", &["FORWARD"]),
            ("cart.shop.svc.clusterset.local.example.", &["FORWARD"]),
        ],
    );
    check(
        RecordType::PTR,
        &[
            ("1.0.96.10.in-addr.arpa.", &["5 cart.shop.svc.cluster.local."]),
            ("1.0.1.10.in-addr.arpa.", &["5 pet-0.pets.shop.svc.cluster.local."]),
            // The address of an import: no PTR is required, and none is given away.
            ("1.0.0.10.in-addr.arpa.", &["FORWARD"]),
            ("96.10.in-addr.arpa.", &["FORWARD"]),
        ],
    );
}

#[test]
fn the_salt_rotates_addresses() {
    let first = |salt| {
        let name = "pets.shop.svc.clusterset.local.";
        let Answer::Records { answers, .. } = ask_as(name, RecordType::A, DNSClass::IN, salt)
        else {
            panic!("no records");
        };
        answers[0].data.to_string()
    };
    assert_eq!([first(0), first(1), first(2)], ["10.1.0.1", "10.1.0.2", "10.2.0.1"]);
    assert_eq!(first(3), first(0));
}

#[test]
fn zones_are_bounded_and_what_does_not_fit_is_counted() {
    let mut source = ZoneSource::new(id("cluster-a"));
    let far = "x".repeat(63);
    let remote = format!("{}.{}", far, "y".repeat(63));
    let many = (0..1500u16).map(|n| {
        let ip = format!("10.1.{}.{}", n / 256, n % 256);
        endpoint("", if n < 1400 { "cluster-b" } else { "cluster-a" }, &ip, true)
    });
    let ports = (0..150).map(|n| port("", PortProtocol::Tcp, n)).collect();
    source.services = vec![
        ServiceRecord { key: set("big"), kind: hosts(many.collect()), ports },
        record(set("big"), ips(&["10.0.0.9"])),
        record(set("alias"), alias("web.example")),
        record(
            ServiceKey::clusterset(label(&far), label(&far)),
            hosts(vec![endpoint(&far, &remote, "10.1.0.1", true)]),
        ),
    ];
    let zone = ZoneData::build(source);
    assert_eq!(zone.left_out(), 500 + 50 + 1 + 1 + 1);
    let name = Name::from_ascii("big.shop.svc.clusterset.local.").unwrap();
    let ask = |kind| answer(&Question { name: &name, kind, class: DNSClass::IN, salt: 0 }, &zone);
    let Answer::Records { answers, .. } = ask(RecordType::A) else { panic!("no records") };
    assert_eq!(answers.len(), 1000);
    assert_eq!(answers[0].data.to_string(), "10.1.5.120", "this cluster's endpoints come first");
    let Answer::Records { answers, .. } = ask(RecordType::SRV) else { panic!("no records") };
    assert_eq!(answers.len(), ANSWER_RECORDS_MAX);
}
