//! Real publishers and clients: over mutual TLS on loopback, and inside the process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use isthmus_model::{Generation, Resource, Snapshot, SpiffeId, TrustDomain};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpListener;

use crate::client::{
    ClientLimits, ClientOptions, DiscoveryClient, GrpcTransport, Touch, Transport, Wanted,
};
use crate::hub::{Publisher, PublisherHandle};
use crate::message::{Epoch, LinkReport};
use crate::node::NodeRole;
use crate::server::{DiscoveryServer, IdentifyPeer, ServerOptions};
use crate::testing::{
    bundle, certificate, gateways, key, listener, node_info, resources, service, world,
};

/// One authority that signs for every trust domain, so that only the checks of this crate
/// tell them apart.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    fn identity(&self, id: &str) -> Identity {
        let mut params = CertificateParams::new(vec!["isthmus.test".to_owned()]).unwrap();
        let uri = format!("spiffe://{id}");
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![leaf.der().clone()];
        Identity { chain, key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
    }

    fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        roots
    }

    fn server(&self, id: &str) -> Arc<rustls::ServerConfig> {
        let Identity { chain, key } = self.identity(id);
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(self.roots()),
            provider(),
        )
        .build()
        .unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        Arc::new(config)
    }

    fn client(&self, id: Option<&str>) -> Arc<rustls::ClientConfig> {
        let builder = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(self.roots());
        Arc::new(match id {
            Some(id) => {
                let Identity { chain, key } = self.identity(id);
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        })
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn identify() -> IdentifyPeer {
    Arc::new(|chain: &[CertificateDer<'_>]| {
        let (_, leaf) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
        let names = leaf.subject_alternative_name().ok()??;
        names.value.general_names.iter().find_map(|name| {
            let x509_parser::extensions::GeneralName::URI(uri) = name else { return None };
            SpiffeId::parse(uri).ok()
        })
    })
}

const CONTROLLER: &str = "c1.test/ns/isthmus-system/sa/isthmus-controller";
const INGRESS: &str = "c1.test/ns/isthmus-system/sa/isthmus-ingress";
const EASTWEST: &str = "c1.test/ns/isthmus-system/sa/isthmus-eastwest";
const EDGE: &str = "c1.test/ns/shop/sa/edge";
const WEB: &str = "c1.test/ns/shop/sa/web";

async fn serve(ca: &Authority, id: &str, publisher: PublisherHandle, at: &str) -> DiscoveryServer {
    let listener = TcpListener::bind(at).await.unwrap();
    let domain = TrustDomain::new("c1.test").unwrap();
    let options = ServerOptions::new(ca.server(id), identify(), domain, publisher);
    DiscoveryServer::start(listener, options).unwrap()
}

fn options(role: NodeRole, transport: Transport, file: Option<&Path>) -> ClientOptions {
    ClientOptions {
        node_name: format!("node-{role}"),
        role,
        workload: None,
        node: node_info(),
        transport,
        state_file: file.map(Path::to_owned),
        limits: ClientLimits {
            reconnect_max: Duration::from_millis(300),
            save_delay: Duration::from_millis(5),
            want_timeout: Duration::from_secs(20),
            ..ClientLimits::default()
        },
    }
}

fn grpc(ca: &Authority, id: Option<&str>, address: &str) -> Transport {
    Transport::Grpc(GrpcTransport {
        address: address.to_owned(),
        tls: ca.client(id),
        server_name: ServerName::try_from("isthmus.test").unwrap(),
        controller: SpiffeId::parse(&format!("spiffe://{CONTROLLER}")).unwrap(),
        identify: identify(),
    })
}

/// An address where nobody listens.
async fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it happens in time")
}

async fn reaches(client: &DiscoveryClient, generation: u64) -> Arc<Snapshot> {
    within(client.wait_for(|status| status.generation == Some(Generation(generation)))).await;
    client.snapshots().load()
}

fn publish(publisher: &Publisher, generation: u64, all: Vec<Resource>) {
    publisher.handle().publish(Generation(generation), resources(all)).unwrap();
}

#[tokio::test]
async fn gateways_get_their_state_over_mutual_tls() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    let server = serve(&ca, CONTROLLER, publisher.handle(), "127.0.0.1:0").await;
    let address = server.local_addr().to_string();
    let transport = |id| grpc(&ca, Some(id), &address);
    let ingress = DiscoveryClient::start(options(NodeRole::Ingress, transport(INGRESS), None));
    let eastwest = DiscoveryClient::start(options(NodeRole::EastWest, transport(EASTWEST), None));
    publish(&publisher, 1, world());
    let snapshot = reaches(&ingress, 1).await;
    assert!(snapshot.certificate("shop/tls").is_some());
    assert_eq!(snapshot.services().len(), 3);
    let snapshot = reaches(&eastwest, 1).await;
    assert!(snapshot.certificate("shop/tls").is_none());
    assert_eq!(snapshot.policies().len(), 3);
    let mut changed = world();
    changed.push(service("new", "10.0.0.8"));
    publish(&publisher, 2, changed);
    assert!(reaches(&ingress, 2).await.service(&key("new")).is_some());
    assert_eq!(ingress.status().age, Some(Duration::ZERO));
    assert!(ingress.status().connected && !ingress.status().from_disk);
    within(async {
        loop {
            let all = publisher.handle().subscribers().await;
            let synced = |status: &crate::SubscriberStatus| {
                status.generation == Some(Generation(2)) && status.nacks.is_empty()
            };
            if all.len() == 2 && all.iter().all(synced) {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_sidecar_gets_what_it_asks_for_over_mutual_tls() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let server = serve(&ca, CONTROLLER, publisher.handle(), "127.0.0.1:0").await;
    let transport = grpc(&ca, Some(WEB), &server.local_addr().to_string());
    let client = DiscoveryClient::start(options(NodeRole::Sidecar, transport, None));
    asks_and_gets(&client).await;
}

#[tokio::test]
async fn a_sidecar_gets_what_it_asks_for_in_the_process() {
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let transport = Transport::InProcess(publisher.handle());
    let client = DiscoveryClient::start(options(NodeRole::Sidecar, transport, None));
    asks_and_gets(&client).await;
}

async fn asks_and_gets(client: &DiscoveryClient) {
    let on_demand = client.on_demand();
    assert_eq!(on_demand.touch(&key("cart")), Touch::Unknown);
    let (cart, no) = (key("cart"), key("no"));
    let both = async { tokio::join!(on_demand.want(&cart), on_demand.want(&no)) };
    let (cart, nowhere) = within(both).await;
    assert_eq!((cart, nowhere), (Wanted::Known, Wanted::Absent));
    let snapshot = client.snapshots().load();
    assert!(snapshot.service(&key("cart")).is_some());
    // What the route of the service leads to came along; what nobody asked for did not.
    assert!(snapshot.service(&key("cart-v2")).is_some());
    assert!(snapshot.service(&key("db")).is_none());
    assert_eq!(on_demand.touch(&key("cart")), Touch::Known);
    assert_eq!(on_demand.touch(&key("cart-v2")), Touch::Unknown);
    assert_eq!(within(on_demand.want(&key("cart"))).await, Wanted::Known);
}

#[tokio::test]
async fn an_idle_service_is_dropped_and_can_be_asked_for_again() {
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let transport = Transport::InProcess(publisher.handle());
    let mut options = options(NodeRole::Sidecar, transport, None);
    options.limits.idle = Duration::from_millis(100);
    let client = DiscoveryClient::start(options);
    let on_demand = client.on_demand();
    assert_eq!(within(on_demand.want(&key("cart"))).await, Wanted::Known);
    let snapshots = client.snapshots();
    let mut swaps = snapshots.watch();
    within(async {
        while snapshots.load().service(&key("cart")).is_some() {
            swaps.changed().await.unwrap();
        }
    })
    .await;
    assert_eq!(on_demand.touch(&key("cart")), Touch::Unknown);
    assert_eq!(within(on_demand.want(&key("cart"))).await, Wanted::Known);
}

#[tokio::test]
async fn a_gateway_gets_its_own_key_and_never_that_of_another() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    let server = serve(&ca, CONTROLLER, publisher.handle(), "127.0.0.1:0").await;
    let transport = |id| grpc(&ca, Some(id), &server.local_addr().to_string());
    publish(&publisher, 1, gateways());
    let own = DiscoveryClient::start(options(NodeRole::Ingress, transport(EDGE), None));
    let cluster = DiscoveryClient::start(options(NodeRole::Ingress, transport(INGRESS), None));
    let web = DiscoveryClient::start(options(NodeRole::Ingress, transport(WEB), None));
    for (client, keys) in [(&own, [true, false]), (&cluster, [false; 2]), (&web, [false; 2])] {
        let snapshot = reaches(client, 1).await;
        let seen = ["shop/edge", "bank/vault"].map(|name| snapshot.certificate(name).is_some());
        assert_eq!(seen, keys);
    }
    let snapshot = reaches(&own, 1).await;
    assert!(snapshot.service(&key("cart")).is_some() && snapshot.service(&key("vault")).is_none());
    // The Gateway goes, and its key with it.
    let rest = gateways().into_iter().filter(|resource| resource.key().name != "shop/edge/main");
    publish(&publisher, 2, rest.collect());
    assert!(reaches(&own, 2).await.certificate("shop/edge").is_none());
}

#[tokio::test]
async fn peers_without_the_right_identity_are_refused() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let server = serve(&ca, CONTROLLER, publisher.handle(), "127.0.0.1:0").await;
    let address = server.local_addr().to_string();
    let cases = [
        (None, NodeRole::Ingress),
        (Some(WEB), NodeRole::EastWest),
        (Some(WEB), NodeRole::Dns),
        (Some(INGRESS), NodeRole::EastWest),
        (Some("c2.test/ns/isthmus-system/sa/isthmus-ingress"), NodeRole::Ingress),
        (Some("c2.test/ns/shop/sa/web"), NodeRole::Sidecar),
    ];
    for (id, role) in cases {
        let client = DiscoveryClient::start(options(role, grpc(&ca, id, &address), None));
        within(client.wait_for(|status| status.last_error.is_some())).await;
        let status = client.status();
        assert!(!status.connected && status.generation.is_none(), "{id:?}: {status:?}");
        assert_eq!(status.age, None);
    }
    assert!(publisher.handle().subscribers().await.is_empty());
}

#[tokio::test]
async fn a_controller_of_another_identity_is_refused() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    for spoof in [WEB, "c2.test/ns/isthmus-system/sa/isthmus-controller"] {
        let server = serve(&ca, spoof, publisher.handle(), "127.0.0.1:0").await;
        let transport = grpc(&ca, Some(INGRESS), &server.local_addr().to_string());
        let client = DiscoveryClient::start(options(NodeRole::Ingress, transport, None));
        within(client.wait_for(|status| status.last_error.is_some())).await;
        let error = client.status().last_error.unwrap();
        assert!(error.contains("and must be"), "{error}");
        assert_eq!(client.status().generation, None);
    }
}

#[tokio::test]
async fn a_restarted_proxy_without_a_controller_serves_the_saved_state() {
    let folder = tempfile::tempdir().unwrap();
    for role in [NodeRole::Ingress, NodeRole::Sidecar] {
        let file = folder.path().join(role.label());
        let publisher = Publisher::start(Epoch(1));
        publish(&publisher, 4, world());
        let transport = Transport::InProcess(publisher.handle());
        let client = DiscoveryClient::start(options(role, transport, Some(&file)));
        reaches(&client, 4).await;
        assert_eq!(within(client.on_demand().want(&key("cart"))).await, Wanted::Known);
        within(client.shutdown()).await;
        drop(publisher);

        let ca = Authority::new();
        let transport = grpc(&ca, Some(WEB), &nowhere().await);
        let client = DiscoveryClient::start(options(role, transport, Some(&file)));
        // At once: nothing was awaited since the start.
        let snapshot = client.snapshots().load();
        assert_eq!(snapshot.generation, Generation(4));
        assert!(snapshot.service(&key("cart")).is_some());
        assert_eq!(client.on_demand().touch(&key("cart")), Touch::Known);
        assert_eq!(within(client.on_demand().want(&key("cart"))).await, Wanted::Known);
        let status = client.status();
        assert!(status.from_disk && !status.connected);
        assert!(status.age.is_some());
    }
}

#[tokio::test]
async fn a_damaged_state_file_means_an_empty_start_and_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state");
    std::fs::write(&file, b"isthmus-state 1 00 3\n{}\n").unwrap();
    let publisher = Publisher::start(Epoch(1));
    let transport = || Transport::InProcess(publisher.handle());
    let client = DiscoveryClient::start(options(NodeRole::Ingress, transport(), Some(&file)));
    assert!(client.status().state_file_error.unwrap().contains("is damaged"));
    assert_eq!(client.snapshots().load().generation, Generation(0));
    publish(&publisher, 1, world());
    within(client.wait_for(|status| status.state_file_error.is_none())).await;
    within(client.shutdown()).await;
    let client = DiscoveryClient::start(options(NodeRole::Ingress, transport(), Some(&file)));
    assert_eq!(client.snapshots().load().generation, Generation(1));
}

#[tokio::test]
async fn a_state_folder_that_cannot_be_written_does_not_stop_serving() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("missing").join("state");
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let transport = Transport::InProcess(publisher.handle());
    let client = DiscoveryClient::start(options(NodeRole::Ingress, transport, Some(&file)));
    within(client.wait_for(|status| status.state_file_error.is_some())).await;
    publish(&publisher, 2, world());
    publish(&publisher, 3, vec![certificate("shop/tls"), listener("shop/gw", None, "shop/tls")]);
    assert!(reaches(&client, 3).await.certificate("shop/tls").is_some());
}

#[tokio::test]
async fn the_stale_state_serves_while_the_controller_is_away_and_only_the_rest_comes() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 9, world());
    let server = serve(&ca, CONTROLLER, publisher.handle(), "127.0.0.1:0").await;
    let address = server.local_addr().to_string();
    let transport = grpc(&ca, Some(INGRESS), &address);
    let client = DiscoveryClient::start(options(NodeRole::Ingress, transport, None));
    reaches(&client, 9).await;
    drop((server, publisher));
    within(client.wait_for(|status| !status.connected)).await;
    assert_eq!(client.snapshots().load().generation, Generation(9));
    assert!(client.status().last_error.is_some());
    // The controller comes back with a new epoch and lower generations.
    let publisher = Publisher::start(Epoch(2));
    let mut next = world();
    next.push(bundle("west.test", 1));
    publish(&publisher, 1, next);
    let _server = serve(&ca, CONTROLLER, publisher.handle(), &address).await;
    let snapshot = reaches(&client, 1).await;
    assert_eq!(snapshot.bundles().len(), 2);
    assert_eq!(client.status().epoch, Some(Epoch(2)));
    assert_eq!(client.status().last_error, None);
}

#[tokio::test]
async fn a_controller_that_has_not_read_its_sources_takes_nothing_away() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state");
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let start = |publisher: &Publisher| {
        let transport = Transport::InProcess(publisher.handle());
        DiscoveryClient::start(options(NodeRole::Ingress, transport, Some(&file)))
    };
    let client = start(&publisher);
    reaches(&client, 1).await;
    within(client.shutdown()).await;
    let unready = Publisher::start(Epoch(2));
    let client = start(&unready);
    within(async {
        while unready.handle().subscribers().await.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(client.snapshots().load().services().len(), 3);
    assert!(client.status().from_disk && !client.status().connected);
    assert_eq!(unready.handle().published(), None);
}

#[tokio::test]
async fn reports_reach_the_controller_with_the_authorised_role() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let mut reports = publisher.handle().reports();
    let server = serve(&ca, CONTROLLER, publisher.handle(), "127.0.0.1:0").await;
    let transport = grpc(&ca, Some(EASTWEST), &server.local_addr().to_string());
    let client = DiscoveryClient::start(options(NodeRole::EastWest, transport, None));
    let link = LinkReport {
        cluster: isthmus_model::ClusterId::new("east").unwrap(),
        transport: Some(isthmus_model::LinkTransport::Quic),
        rtt_micros: Some(1500),
        loss_permille: 2,
    };
    client.report(vec![link.clone()]);
    let report = within(reports.recv()).await.unwrap();
    assert_eq!((report.role, report.connected), (NodeRole::EastWest, true));
    assert_eq!(report.links, [link]);
    drop(client);
    let report = within(reports.recv()).await.unwrap();
    assert!(!report.connected && report.links.is_empty());
}

#[tokio::test]
async fn connections_are_bounded_and_a_silent_one_holds_only_its_own_place() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let domain = TrustDomain::new("c1.test").unwrap();
    let mut limited =
        ServerOptions::new(ca.server(CONTROLLER), identify(), domain, publisher.handle());
    limited.connections_max = 1;
    let server = DiscoveryServer::start(listener, limited).unwrap();
    let address = server.local_addr().to_string();
    let silent = tokio::net::TcpStream::connect(&address).await.unwrap();
    let transport = grpc(&ca, Some(INGRESS), &address);
    let client = DiscoveryClient::start(options(NodeRole::Ingress, transport, None));
    within(client.wait_for(|status| status.last_error.is_some())).await;
    assert_eq!(client.status().generation, None);
    drop(silent);
    reaches(&client, 1).await;
}

#[tokio::test]
async fn published_generations_only_go_up() {
    let publisher = Publisher::start(Epoch(1));
    let handle = publisher.handle();
    publish(&publisher, 2, world());
    let published = Generation(2);
    for offered in [Generation(1), Generation(2)] {
        let want = Err(crate::PublishError::NotLater { offered, published });
        assert_eq!(handle.publish(offered, resources([])), want);
    }
    drop(publisher);
    within(async {
        while handle.publish(Generation(3), resources([])) != Err(crate::PublishError::Ended) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_caller_without_a_controller_is_told_in_time() {
    let ca = Authority::new();
    let transport = grpc(&ca, Some(WEB), &nowhere().await);
    let mut options = options(NodeRole::Sidecar, transport, None);
    options.limits.want_timeout = Duration::from_millis(20);
    let client = DiscoveryClient::start(options);
    assert_eq!(within(client.on_demand().want(&key("cart"))).await, Wanted::Timeout);
}
