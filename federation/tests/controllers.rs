//! Whole controllers on loopback: real authorities, real TLS, real gRPC, plain TCP where
//! the gateways and the link would be.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use isthmus_certs::{
    Authority, AuthorityHandle, AuthorityIssuer, AuthorityOptions, BundleStore, MeshTls,
    RenewSettings, Renewer, SvidCell, peer_id,
};
use isthmus_config::{Context, Index, SourceDocument};
use isthmus_discovery::{Epoch, Publisher};
use isthmus_federation::{
    Configuration, Controller, ControllerOptions, ControllerParts, DialFuture, HboneDialer,
    LeaseStatus, PeerDialer, PeerStream, Status,
};
use isthmus_hbone::{
    ConnectRequest, MeshAcceptor, ServeLimits, SpliceLimits, TunnelStream, Verdict, serve_connect,
    splice,
};
use isthmus_model::{ClusterId, Locality, Resource, SpiffeId, TrustDomain};
use isthmus_runtime::{Drain, clock};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Knows where every controller listens.
#[derive(Debug, Default)]
struct TcpDialer {
    addresses: Mutex<BTreeMap<ClusterId, SocketAddr>>,
}

impl PeerDialer for TcpDialer {
    fn dial<'a>(&'a self, cluster: &'a ClusterId) -> DialFuture<'a> {
        let address = self.addresses.lock().unwrap().get(cluster).copied();
        Box::pin(async move {
            let address = address.ok_or_else(|| std::io::Error::other("unknown cluster"))?;
            Ok(Box::new(TcpStream::connect(address).await?) as Box<dyn PeerStream>)
        })
    }
}

/// A cluster without proxies.
struct Cluster {
    id: ClusterId,
    folder: tempfile::TempDir,
    authority: AuthorityHandle,
    publisher: Publisher,
    dialer: Arc<TcpDialer>,
    configuration: watch::Sender<Option<Arc<Configuration>>>,
    controller: Option<Controller>,
    /// How long its next controller waits for linked clusters.
    settle: Duration,
    /// What stands for the gateways and the link, if anything does.
    gateway: JoinSet<()>,
}

fn domain(id: &ClusterId) -> TrustDomain {
    TrustDomain::new(&format!("{id}.test")).unwrap()
}

impl Cluster {
    async fn start(name: &str, dialer: &Arc<TcpDialer>, account: &str) -> Self {
        let id = ClusterId::new(name).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let options = AuthorityOptions::new(folder.path().join("ca"), domain(&id));
        let authority = AuthorityHandle::new(Authority::open(options, clock::wall()).unwrap());
        let mut cluster = Self {
            id,
            folder,
            authority,
            publisher: Publisher::start(Epoch::random()),
            dialer: Arc::clone(dialer),
            configuration: watch::Sender::new(None),
            controller: None,
            settle: Duration::ZERO,
            gateway: JoinSet::new(),
        };
        cluster.start_controller(account, Path::Direct).await;
        cluster
    }

    async fn start_controller(&mut self, account: &str, path: Path) {
        let domain = domain(&self.id);
        let svid = self.svid(account).await;
        let bundles =
            BundleStore::open(self.folder.path().join("bundles.json"), domain.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.dialer.addresses.lock().unwrap().insert(self.id.clone(), address);
        let tls = MeshTls::new(svid, bundles.cell());
        let dialer: Arc<dyn PeerDialer> = match path {
            Path::Direct => self.dialer.clone(),
            Path::Gateway => self.start_gateway(&tls).await,
        };
        let parts = ControllerParts {
            configuration: self.configuration.subscribe(),
            own_bundle: self.authority.bundle(),
            tls,
            bundles,
            dialer,
            listener,
            publisher: self.publisher.handle(),
        };
        let options = ControllerOptions {
            cluster: self.id.clone(),
            trust_domain: domain,
            locality: Locality::new("eu", &format!("{}-a", self.id)),
            version: "test".into(),
            state_dir: self.folder.path().to_owned(),
            vip_range: "127.64.0.0/16".parse().unwrap(),
            endpoint_secret: None,
            settle: self.settle,
            advertised: None,
        };
        self.controller = Some(Controller::start(options, parts).unwrap());
    }

    async fn svid(&self, account: &str) -> SvidCell {
        let identity = system(&self.id, account);
        let issuer = Arc::new(AuthorityIssuer::new(self.authority.clone(), identity.clone()));
        let svid = SvidCell::new();
        let settings = RenewSettings::new(1);
        Renewer::new(issuer, identity, svid.clone(), settings).renew_once().await.unwrap();
        svid
    }

    /// A stand-in for this cluster's gateway, the link and the peer's gateway: it takes
    /// CONNECT as the gateway does and splices to the controller that is named.
    async fn start_gateway(&mut self, controller: &MeshTls) -> Arc<dyn PeerDialer> {
        let svid = self.svid("isthmus-eastwest").await;
        let tls = MeshTls::new(svid, controller.bundles().clone());
        let acceptor = MeshAcceptor::new(tls.server_config(&[b"h2"]).unwrap(), peer_id);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (caller, dialer) = (system(&self.id, "isthmus-controller"), self.dialer.clone());
        self.gateway.spawn(async move {
            let (drain, mut connections) = (Drain::new(), JoinSet::new());
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, stop) = (acceptor.clone(), drain.stop());
                let (caller, dialer) = (caller.clone(), dialer.clone());
                connections.spawn(async move {
                    let Ok(connection) = acceptor.accept(stream).await else { return };
                    assert_eq!(connection.peer, caller);
                    let decide = |request| decide(request, dialer.clone());
                    serve_connect(connection, &ServeLimits::default(), decide, stop).await;
                });
            }
        });
        let identity = system(&self.id, "isthmus-eastwest");
        Arc::new(HboneDialer::new(&address.to_string(), identity, controller).unwrap())
    }

    fn bundle(&self) -> String {
        String::from_utf8(self.authority.bundle().borrow().to_jwks()).unwrap()
    }

    /// A link that lets everything of the namespace `shop` pass.
    fn link(&self) -> String {
        let bundle = serde_json::to_string(&self.bundle()).unwrap();
        let rule = "{namespaces: [shop], names: ['*']}";
        format!(
            "apiVersion: isthmus.io/v1alpha1\nkind: ClusterLink\nmetadata: {{name: {id}}}\nspec:\n  \
             trustDomain: {domain}\n  bundle: {{inline: {bundle}}}\n  import: [{rule}]\n  \
             export: [{rule}]\n---\n",
            id = self.id,
            domain = domain(&self.id),
        )
    }

    fn apply(&self, manifests: &str) {
        let mut index = Index::new();
        let outcome = index.apply(&SourceDocument::split("test.yaml", manifests), 1_000);
        assert_eq!(outcome.errors, vec![], "{manifests}");
        let configuration = Configuration {
            objects: Arc::clone(index.objects()),
            context: Context::new(self.id.clone(), domain(&self.id)),
        };
        self.configuration.send_replace(Some(Arc::new(configuration)));
    }

    async fn wait_for(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Arc<Status> {
        let mut status = self.controller.as_ref().unwrap().status();
        let last = status.clone();
        let found = tokio::time::timeout(PATIENCE, status.wait_for(|status| wanted(status))).await;
        match found {
            Ok(status) => Arc::clone(&status.unwrap()),
            Err(_) => panic!("{} never saw {what}: {:#?}", self.id, last.borrow().clone()),
        }
    }
}

async fn decide(
    request: ConnectRequest,
    dialer: Arc<TcpDialer>,
) -> Verdict<impl FnOnce(TunnelStream) -> Pin<Box<dyn Future<Output = ()> + Send>>> {
    let authority = request.authority.to_string();
    assert_eq!(authority, "federation.isthmus-system.svc.clusterset.local:15012");
    assert_eq!(request.headers["x-isthmus-endpoint"], "federation");
    let cluster = request.headers["x-isthmus-cluster"].to_str().unwrap();
    let mut below = dialer.dial(&ClusterId::new(cluster).unwrap()).await.unwrap();
    Verdict::accept(move |mut tunnel: TunnelStream| {
        let splicing = async move {
            splice(&mut tunnel, &mut below, &SpliceLimits::default()).await;
        };
        Box::pin(splicing) as Pin<Box<dyn Future<Output = ()> + Send>>
    })
}

/// How a controller reaches others.
#[derive(Debug, Clone, Copy)]
enum Path {
    Direct,
    Gateway,
}

fn system(cluster: &ClusterId, account: &str) -> SpiffeId {
    let domain = domain(cluster);
    SpiffeId::parse(&format!("spiffe://{domain}/ns/isthmus-system/sa/{account}")).unwrap()
}

fn service(namespace: &str, name: &str, exported: bool) -> String {
    let export = format!(
        "apiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceExport\n\
         metadata: {{name: {name}, namespace: {namespace}}}\n---\n"
    );
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  clusterIP: 10.0.0.7\n  ports: [{{name: http, port: 80, targetPort: 8080}}]\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata:\n  name: {name}-1\n  namespace: {namespace}\n  \
         labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\n\
         ports: [{{name: http, port: 8080}}]\nendpoints: [{{addresses: [127.0.0.9]}}]\n---\n{}",
        if exported { export } else { String::new() }
    )
}

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n";
const PATIENCE: Duration = Duration::from_secs(20);

fn imports(status: &Status, name: &str) -> bool {
    status.imports.iter().any(|import| import.name == name)
}

#[tokio::test]
async fn an_export_becomes_an_import_of_the_linked_cluster_and_goes_again() {
    let dialer = Arc::new(TcpDialer::default());
    let a = Cluster::start("a", &dialer, "isthmus-controller").await;
    let b = Cluster::start("b", &dialer, "isthmus-controller").await;
    let secret = service("pay", "api", true);
    a.apply(&format!("{}{}{secret}", b.link(), service("shop", "cart", true)));
    b.apply(&format!("{}{NAMESPACE}", a.link()));
    let status = b.wait_for("the import", |status| imports(status, "shop/cart")).await;
    assert!(!imports(&status, "pay/api"), "what is not granted was imported");
    let valid = |status: &Status| {
        status
            .peers
            .iter()
            .all(|peer| peer.lease == LeaseStatus::Valid && peer.reading && peer.writing)
    };
    let status = b.wait_for("a valid lease", valid).await;
    assert_eq!(status.peers[0].services_imported, 1);
    assert_eq!(status.peers[0].endpoints_imported, 1);
    a.wait_for("a valid lease", valid).await;

    b.apply(&format!("{}{}", a.link(), service("shop", "cart", true)));
    let both = |status: &Status| status.imports.iter().any(|import| import.clusters.len() == 2);
    a.wait_for("both clusters", both).await;
    b.wait_for("both clusters", both).await;

    a.apply(&format!("{}{}", b.link(), service("shop", "cart", false)));
    let only_b = |status: &Status| {
        status.imports.iter().any(|import| import.clusters == [ClusterId::new("b").unwrap()])
    };
    b.wait_for("only its own export", only_b).await;
    a.wait_for("only the export of b", only_b).await;
}

#[tokio::test]
async fn a_successor_without_state_decides_nothing_before_linked_clusters_are_heard() {
    let dialer = Arc::new(TcpDialer::default());
    let a = Cluster::start("a", &dialer, "isthmus-controller").await;
    let mut b = Cluster::start("b", &dialer, "isthmus-controller").await;
    b.controller.take().unwrap().shutdown().await;
    std::fs::remove_file(b.folder.path().join("federation.json")).unwrap();
    b.settle = Duration::from_secs(3600);
    b.start_controller("isthmus-controller", Path::Direct).await;
    a.apply(&format!("{}{}", b.link(), service("shop", "cart", true)));
    a.wait_for("its export", |status| !status.exports.is_empty()).await;
    let mut decided = b.controller.as_ref().unwrap().decided();
    b.apply(&format!("{}{NAMESPACE}", a.link()));
    let first = tokio::time::timeout(PATIENCE, decided.wait_for(Option::is_some)).await;
    let first = first.expect("a decision").unwrap().clone().unwrap();
    assert_eq!(first.plan.federated.imports.len(), 1, "decided without the linked cluster");
    let is_up = |resource: &Resource| matches!(resource, Resource::Peer(peer) if peer.link.transport.is_some());
    let resources = &first.plan.resources;
    assert!(
        resources.values().any(|resource| is_up(resource)),
        "a link over which the peer is heard counts as down"
    );
}

#[tokio::test]
async fn a_removed_link_ends_sessions_at_once_and_a_returned_one_brings_them_back() {
    let dialer = Arc::new(TcpDialer::default());
    let a = Cluster::start("a", &dialer, "isthmus-controller").await;
    let b = Cluster::start("b", &dialer, "isthmus-controller").await;
    let cart = service("shop", "cart", true);
    a.apply(&format!("{}{cart}", b.link()));
    b.apply(&format!("{}{NAMESPACE}", a.link()));
    b.wait_for("the import", |status| imports(status, "shop/cart")).await;
    let began = clock::now();
    a.apply(&cart);
    let cut = |status: &Status| status.peers.iter().all(|peer| !peer.reading && !peer.writing);
    b.wait_for("the end of both sessions", cut).await;
    assert!(clock::now() - began < Duration::from_secs(5));
    b.wait_for("the end of the lease", |status| status.peers[0].lease == LeaseStatus::Expired)
        .await;
    let status = b.wait_for("the kept import", |status| imports(status, "shop/cart")).await;
    assert_eq!(status.peers[0].services_imported, 1, "the last known good state is gone");
    a.apply(&format!("{}{cart}", b.link()));
    b.wait_for("the lease again", |status| status.peers[0].lease == LeaseStatus::Valid).await;
}

#[tokio::test]
async fn only_the_controller_identity_of_a_linked_cluster_may_replicate() {
    let dialer = Arc::new(TcpDialer::default());
    let a = Cluster::start("a", &dialer, "isthmus-controller").await;
    // Of the right trust domain, and still not the controller.
    let thief = Cluster::start("b", &dialer, "default").await;
    a.apply(&format!("{}{}", thief.link(), service("shop", "cart", true)));
    thief.apply(&format!("{}{NAMESPACE}", a.link()));
    let refused = |status: &Status| {
        status
            .peers
            .iter()
            .any(|peer| peer.last_error.as_ref().is_some_and(|error| error.contains("permission")))
    };
    let status = thief.wait_for("the refusal", refused).await;
    assert_eq!(status.peers[0].services_imported, 0);
    let status = a
        .wait_for("that the thief is no controller", |status| {
            status.peers.iter().any(|peer| peer.last_error.is_some())
        })
        .await;
    assert!(!status.peers[0].reading && !status.peers[0].writing);
}

#[tokio::test]
async fn a_restarted_controller_goes_on_with_its_last_known_good_state() {
    let dialer = Arc::new(TcpDialer::default());
    let a = Cluster::start("a", &dialer, "isthmus-controller").await;
    let mut b = Cluster::start("b", &dialer, "isthmus-controller").await;
    a.apply(&format!("{}{}", b.link(), service("shop", "cart", true)));
    b.apply(&format!("{}{NAMESPACE}", a.link()));
    b.wait_for("the import", |status| {
        imports(status, "shop/cart") && status.peers[0].lease == LeaseStatus::Valid
    })
    .await;
    b.controller.take().unwrap().shutdown().await;
    assert_saved(b.folder.path());
    // Nobody can be reached now, so what is there comes from the state file.
    dialer.addresses.lock().unwrap().clear();
    b.publisher = Publisher::start(Epoch::random());
    b.start_controller("isthmus-controller", Path::Direct).await;
    dialer.addresses.lock().unwrap().remove(&a.id);
    let status = b.wait_for("the import", |status| imports(status, "shop/cart")).await;
    assert_eq!(status.peers[0].lease, LeaseStatus::Valid);
    assert!(!status.peers[0].reading);
}

#[tokio::test]
async fn controllers_meet_through_their_gateways() {
    let dialer = Arc::new(TcpDialer::default());
    let mut a = Cluster::start("a", &dialer, "isthmus-controller").await;
    let mut b = Cluster::start("b", &dialer, "isthmus-controller").await;
    for cluster in [&mut a, &mut b] {
        cluster.controller.take().unwrap().shutdown().await;
        cluster.start_controller("isthmus-controller", Path::Gateway).await;
    }
    a.apply(&format!("{}{}", b.link(), service("shop", "cart", true)));
    b.apply(&format!("{}{NAMESPACE}", a.link()));
    b.wait_for("the import", |status| imports(status, "shop/cart")).await;
    a.wait_for("the other direction", |status| status.peers[0].lease == LeaseStatus::Valid).await;
}

fn assert_saved(folder: &std::path::Path) {
    let content = std::fs::read_to_string(folder.join("federation.json")).unwrap();
    assert!(content.contains("cart"), "{content}");
    assert!(!content.contains("127.0.0.9"), "an address of a peer was saved");
}
