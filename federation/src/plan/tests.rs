use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use isthmus_config::{AccessRule, ClusterSetIps, NamePattern, Unmeshed};
use isthmus_model::endpoint::{Export, PortEndpoints};
use isthmus_model::{
    AppProtocol, ClusterId, Endpoint, EndpointId, EndpointTarget, Endpoints, Health, Label,
    LinkState, Locality, MeshPort, Resource, ResourceKind, Service, ServiceKey, ServicePort,
    SpiffeId, Transport, TrustDomain,
};

use super::inputs::PeerView;
use super::*;
use crate::proto::{
    BundleDocument, EndpointSummary, ExportedMetadata, ExportedService, ExportedTraffic, Grants,
    SummaryEndpoint,
};

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn cluster(text: &str) -> ClusterId {
    ClusterId::new(text).unwrap()
}

fn cart() -> ServiceName {
    ServiceName::new(label("shop"), label("cart"))
}

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(label(name)),
        number,
        transport: Transport::Tcp,
        app: AppProtocol::Http,
        app_protocol: None,
    }
}

/// Everything that [`Inputs`] borrows.
struct World {
    own: OwnCluster,
    exports: BTreeMap<ServiceName, OwnExport>,
    namespaces: BTreeSet<Label>,
    links: BTreeMap<ClusterId, LinkRules>,
    entries: BTreeMap<ClusterId, BTreeMap<EntryKey, Arc<Entry>>>,
    lease_valid: bool,
    vips: VipPool,
    clusterset_ips: ClusterSetIps,
    unmeshed: Option<Unmeshed>,
}

fn world() -> World {
    let own = OwnCluster {
        cluster: cluster("own"),
        trust_domain: TrustDomain::new("own.test").unwrap(),
        locality: Locality::new("eu", "a"),
        federation_listen: "127.0.0.1:9000".parse().unwrap(),
        version: "1".into(),
    };
    let mut world = World {
        own,
        exports: BTreeMap::new(),
        namespaces: BTreeSet::from([label("shop")]),
        links: BTreeMap::new(),
        entries: BTreeMap::new(),
        lease_valid: true,
        vips: VipPool::new("127.64.0.0/16".parse().unwrap(), []),
        clusterset_ips: ClusterSetIps::Pool,
        unmeshed: None,
    };
    world.link("b", vec![]);
    world.link("c", vec![80]);
    world
}

impl World {
    fn link(&mut self, name: &str, ports: Vec<u16>) {
        let names = || vec![NamePattern::Any];
        let rule = AccessRule { namespaces: names(), names: names(), ports };
        let rules = LinkRules {
            trust_domain: TrustDomain::new(&format!("{name}.test")).unwrap(),
            addresses: vec![],
            dial: false,
            import: Grants::everything(),
            export: Grants::new(vec![rule]),
            jwks: None,
        };
        self.links.insert(cluster(name), rules);
    }

    fn export_own(&mut self, ports: &[u16]) {
        let key = ServiceKey::cluster(label("shop"), label("cart"));
        let endpoint = |id: &str, mesh: bool| Endpoint {
            id: EndpointId::new(id).unwrap(),
            target: EndpointTarget::Local {
                address: "127.0.0.9:8080".parse().unwrap(),
                mesh: mesh.then(|| MeshPort("127.0.0.9:15008".parse().unwrap())),
            },
            locality: Locality::new("eu", "a"),
            weight: 1,
            health: Health::Ready,
            identity: mesh.then(|| SpiffeId::parse("spiffe://own.test/ns/shop/sa/cart").unwrap()),
            hostname: None,
        };
        let group = |port: &u16| PortEndpoints {
            transport: Transport::Tcp,
            port: *port,
            endpoints: vec![endpoint("127-0-0-9-a", true), endpoint("127-0-0-9-b", false)],
        };
        let service = Service {
            key: key.clone(),
            addresses: vec![],
            headless: false,
            ports: ports.iter().map(|number| port(&format!("p{number}"), *number)).collect(),
            clusters: vec![],
        };
        let endpoints = Endpoints { service: key, ports: ports.iter().map(group).collect() };
        let own = OwnExport::Valid {
            created: 5,
            service: Box::new(service),
            endpoints: Arc::new(endpoints),
            traffic: ExportedTraffic::default(),
            metadata: ExportedMetadata::default(),
        };
        self.exports.insert(cart(), own);
    }

    fn export_of(&mut self, peer: &str, created: i64, number: u16) {
        let service = Entry::Service(ExportedService {
            name: cart(),
            created,
            headless: false,
            ports: vec![port(&format!("p{number}"), number)],
            traffic: ExportedTraffic::default(),
            metadata: ExportedMetadata::default(),
        });
        let endpoints = Entry::Endpoints(EndpointSummary {
            service: cart(),
            port: number,
            endpoints: vec![SummaryEndpoint {
                id: EndpointId::new("abc").unwrap(),
                locality: Locality::new("us", "x"),
                weight: 1,
                health: Health::Ready,
                identity: SpiffeId::parse(&format!("spiffe://{peer}.test/ns/s/sa/c")).unwrap(),
                app_port: 8080,
                hostname: None,
            }],
        });
        let entries = [service, endpoints].map(|entry| (entry.key(), Arc::new(entry)));
        self.entries.entry(cluster(peer)).or_default().extend(entries);
    }

    fn federate(&self) -> Federated {
        let view = |entries| PeerView {
            entries,
            lease_valid: self.lease_valid,
            link: LinkState::default(),
        };
        let peers = self.entries.iter().map(|(peer, all)| (peer.clone(), view(all))).collect();
        let bundle = BundleDocument { jwks: Arc::from("{}"), sequence: 1 };
        let bundles = BTreeMap::from([
            (TrustDomain::new("b.test").unwrap(), bundle.clone()),
            (TrustDomain::new("stranger.test").unwrap(), bundle.clone()),
        ]);
        federate(&Inputs {
            own: &self.own,
            exports: &self.exports,
            namespaces: &self.namespaces,
            properties: &BTreeMap::from([("clusterset.k8s.io".into(), "set".into())]),
            links: &self.links,
            peers: &peers,
            own_bundle: Some(&bundle),
            bundles: &bundles,
            secret: &EndpointSecret::new(&[7; 32]),
            vips: &self.vips,
            clusterset_ips: &self.clusterset_ips,
            unmeshed: self.unmeshed.as_ref(),
            unmeshed_ports: &BTreeMap::new(),
        })
    }
}

fn find(federated: &Federated, kind: ResourceKind, name: &str) -> Option<Resource> {
    let key = ResourceKey { kind, name: name.to_owned() };
    federated.resources.get(&key).map(|resource| resource.as_ref().clone())
}

const IMPORT: &str = "cart.shop.svc.clusterset.local";

fn export(federated: &Federated, name: &str) -> Export {
    match find(federated, ResourceKind::Export, name) {
        Some(Resource::Export(export)) => export,
        other => panic!("{other:?}"),
    }
}

fn groups(federated: &Federated) -> Vec<(u16, Vec<String>)> {
    let Some(Resource::Endpoints(found)) = find(federated, ResourceKind::Endpoints, IMPORT) else {
        panic!("no endpoints")
    };
    let whose = |endpoint: &Endpoint| {
        endpoint.remote_cluster().map_or_else(|| "own".to_owned(), ToString::to_string)
    };
    found
        .ports
        .iter()
        .map(|group| (group.port, group.endpoints.iter().map(whose).collect()))
        .collect()
}

#[test]
fn own_and_remote_endpoints_are_merged_and_each_port_goes_to_who_exposes_it() {
    let mut world = world();
    world.export_own(&[80]);
    world.export_of("b", 9, 80);
    world.export_of("c", 7, 81);
    let federated = world.federate();
    let own = || "own".to_owned();
    assert_eq!(
        groups(&federated),
        [(80, vec![own(), own(), "b".to_owned()]), (81, vec!["c".to_owned()])]
    );
    let status = &federated.import_status[&cart()];
    assert_eq!((&status.winner, status.clusters.len()), (&cluster("own"), 3));
    let conditions = &federated.export_conditions[&cart()];
    let reasons: Vec<_> = conditions.iter().map(|c| (c.kind, c.reason.as_str())).collect();
    assert_eq!(reasons, [("Valid", "Valid"), ("Ready", "Ready"), ("Conflict", "PortConflict")]);
    assert!(conditions[2].message.contains("1/3 clusters disagree"), "{}", conditions[2].message);
}

#[test]
fn peers_are_told_opaque_ids_only_and_only_of_ports_that_they_may_use() {
    let mut world = world();
    world.export_own(&[80, 443]);
    let federated = world.federate();
    let told = |peer: &str, port: u16| {
        let key = EntryKey::Endpoints(cart(), port);
        federated.publications[&cluster(peer)].get(&key).map(Arc::as_ref)
    };
    let Some(Entry::Endpoints(summary)) = told("b", 443) else { panic!("not told") };
    assert!(told("c", 443).is_none());
    assert!(!format!("{:?}", federated.publications).contains("127.0.0.9"));
    assert!(!format!("{:?}", federated.publications).contains("127-0-0-9"));
    let identities: BTreeSet<_> =
        summary.endpoints.iter().map(|endpoint| endpoint.identity.to_string()).collect();
    let gateway = "spiffe://own.test/ns/isthmus-system/sa/isthmus-eastwest".to_owned();
    assert!(identities.contains(&gateway), "the gateway stands in: {identities:?}");

    let export = export(&federated, IMPORT);
    let id = &summary.endpoints[0].id;
    assert!(export.endpoint(&cluster("b"), 443, id).is_some());
    assert!(export.endpoint(&cluster("c"), 443, id).is_none(), "an id is not enough");
    assert!(export.endpoint(&cluster("b"), 80, id).is_none(), "an id is of one port");
    assert!(export.endpoint(&cluster("d"), 443, id).is_none());
}

#[test]
fn what_cluster_properties_say_goes_to_every_linked_cluster() {
    let federated = world().federate();
    for peer in ["b", "c"] {
        let entry = &federated.publications[&cluster(peer)][&EntryKey::Properties];
        let Entry::Properties(properties) = entry.as_ref() else { panic!("{entry:?}") };
        assert_eq!(properties.properties["clusterset.k8s.io"], "set");
    }
}

#[test]
fn an_import_needs_its_namespace_and_its_link() {
    let mut world = world();
    world.export_of("b", 9, 80);
    world.export_of("stranger", 1, 80);
    let federated = world.federate();
    assert_eq!(federated.import_status[&cart()].clusters, [cluster("b")]);
    world.namespaces.clear();
    let federated = world.federate();
    assert!(federated.imports.is_empty());
    assert_eq!(find(&federated, ResourceKind::Service, IMPORT), None);
}

#[test]
fn a_peer_without_lease_keeps_its_imports_and_its_peer_says_so() {
    let mut world = world();
    world.export_of("b", 9, 80);
    world.lease_valid = false;
    let federated = world.federate();
    assert_eq!(groups(&federated), [(80, vec!["b".to_owned()])]);
    let Some(Resource::Peer(peer)) = find(&federated, ResourceKind::Peer, "b") else {
        panic!("no peer")
    };
    assert!(!peer.lease_valid);
}

#[test]
fn an_import_keeps_its_address_until_it_is_gone() {
    let mut world = world();
    world.export_of("b", 9, 80);
    let first = world.federate();
    world.vips = first.vips.clone();
    world.export_of("c", 1, 80);
    let second = world.federate();
    assert_eq!(first.vips, second.vips);
    world.vips = second.vips;
    world.entries.clear();
    assert!(world.federate().vips.given().is_empty());
}

#[test]
fn an_import_waits_for_the_addresses_that_it_is_given() {
    let mut world = world();
    world.export_of("b", 9, 80);
    world.clusterset_ips = ClusterSetIps::Given(BTreeMap::new());
    let federated = world.federate();
    let condition = &federated.import_status[&cart()].conditions[0];
    assert_eq!((condition.kind, condition.reason.as_str()), ("Ready", "Pending"));
    assert!(condition.message.contains("derived Service"), "{}", condition.message);
    assert!(federated.vips.given().is_empty(), "our own range is not used");
    let key = ServiceKey::clusterset(label("shop"), label("cart"));
    let addresses = vec!["10.96.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
    world.clusterset_ips = ClusterSetIps::Given([(key.clone(), addresses.clone())].into());
    let federated = world.federate();
    assert_eq!(federated.imports[&key].addresses, addresses);
    assert_eq!(federated.import_status[&cart()].conditions[0].reason, "Ready");
}

#[test]
fn an_import_has_a_port_of_the_gateway_for_pods_without_a_sidecar() {
    let mut world = world();
    world.export_of("b", 9, 80);
    assert!(world.federate().unmeshed.is_empty());
    let server = SpiffeId::parse("spiffe://own.test/ns/isthmus-system/sa/isthmus-eastwest");
    let server = server.unwrap();
    let given = BTreeMap::new();
    world.unmeshed = Some(Unmeshed { server: server.clone(), ports: 20_000..=29_999, given });
    let federated = world.federate();
    let port = federated.unmeshed[&(cart(), 80)];
    let name = "clusterset/shop/cart/80";
    let Some(Resource::Listener(listener)) = find(&federated, ResourceKind::Listener, name) else {
        panic!("no listener")
    };
    assert_eq!((listener.bind_port, listener.served_by), (port, Some(server)));
    let found = find(&federated, ResourceKind::TcpRoute, name);
    let Some(Resource::StreamRoute(route)) = found else { panic!("no route") };
    let Some(isthmus_model::BackendTarget::Service { service, port: 80 }) =
        route.backends.first().map(|backend| backend.target.clone())
    else {
        panic!("{route:?}")
    };
    assert_eq!(service, ServiceKey::clusterset(label("shop"), label("cart")));
    assert!(matches!(&route.parents[..], [isthmus_model::route::RouteParent::Listener {
        listener, .. }] if listener == name));
}

#[test]
fn invalid_exports_say_why_and_export_nothing() {
    let mut world = world();
    world.exports.insert(cart(), OwnExport::Invalid(ExportInvalid::ServiceType));
    let system = ServiceName::new(label("kube-system"), label("dns"));
    world.export_own(&[80]);
    let valid = world.exports.remove(&cart()).unwrap();
    world.exports.insert(system, valid);
    world.exports.insert(cart(), OwnExport::Invalid(ExportInvalid::NoService));
    let federated = world.federate();
    assert!(federated.imports.is_empty());
    let conditions = &federated.export_conditions[&cart()];
    assert_eq!(conditions[0].reason, "NoService");
    let kinds = federated.resources.keys().filter(|key| key.kind == ResourceKind::Export);
    assert_eq!(kinds.count(), 1, "only the reserved service is exported");
}

#[test]
fn controllers_reach_each_other_through_the_reserved_service() {
    let federated = world().federate();
    let name = "federation.isthmus-system.svc.clusterset.local";
    let export = export(&federated, name);
    let id = EndpointId::new("federation").unwrap();
    let own = export.endpoint(&cluster("b"), 15012, &id).unwrap();
    let listen = "127.0.0.1:9000".parse().unwrap();
    let mesh = Some(MeshPort(listen));
    assert_eq!(own.target, EndpointTarget::Local { address: listen, mesh });
    let Some(Resource::Endpoints(remote)) = find(&federated, ResourceKind::Endpoints, name) else {
        panic!("no endpoints")
    };
    let peers: Vec<_> =
        remote.ports[0].endpoints.iter().filter_map(|e| e.remote_cluster()).collect();
    assert_eq!(peers, [&cluster("b"), &cluster("c")]);
    let bundles = federated.resources.keys().filter(|key| key.kind == ResourceKind::TrustBundle);
    let bundles: Vec<_> = bundles.map(|key| key.name.as_str()).collect();
    assert_eq!(bundles, ["b.test", "own.test"], "only linked domains are trusted");
}
