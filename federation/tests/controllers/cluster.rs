//! A cluster with a real controller, and what stands for its gateways.

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
    PeerDialer, PeerStream, Status,
};
use isthmus_hbone::{
    ConnectRequest, MeshAcceptor, ServeLimits, SpliceLimits, TunnelStream, Verdict, serve_connect,
    splice,
};
use isthmus_model::{ClusterId, Locality, SpiffeId, TrustDomain};
use isthmus_runtime::{Drain, clock};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Knows where every controller listens.
#[derive(Debug, Default)]
pub(crate) struct TcpDialer {
    pub(crate) addresses: Mutex<BTreeMap<ClusterId, SocketAddr>>,
    /// How often anybody was dialled.
    pub(crate) dials: watch::Sender<usize>,
}

impl PeerDialer for TcpDialer {
    fn dial<'a>(&'a self, cluster: &'a ClusterId) -> DialFuture<'a> {
        let address = self.addresses.lock().unwrap().get(cluster).copied();
        self.dials.send_modify(|count| *count += 1);
        Box::pin(async move {
            let address = address.ok_or_else(|| std::io::Error::other("unknown cluster"))?;
            Ok(Box::new(TcpStream::connect(address).await?) as Box<dyn PeerStream>)
        })
    }
}

/// A cluster without proxies.
pub(crate) struct Cluster {
    pub(crate) id: ClusterId,
    pub(crate) folder: tempfile::TempDir,
    authority: AuthorityHandle,
    /// Who its controller is; replaced when that renews.
    svid: SvidCell,
    pub(crate) publisher: Publisher,
    dialer: Arc<TcpDialer>,
    configuration: watch::Sender<Option<Arc<Configuration>>>,
    pub(crate) controller: Option<Controller>,
    /// How long its next controller waits for linked clusters.
    pub(crate) settle: Duration,
    /// What stands for the gateways and the link, if anything does.
    gateway: JoinSet<()>,
}

fn domain(id: &ClusterId) -> TrustDomain {
    TrustDomain::new(&format!("{id}.test")).unwrap()
}

impl Cluster {
    pub(crate) async fn start(name: &str, dialer: &Arc<TcpDialer>, account: &str) -> Self {
        let id = ClusterId::new(name).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let options = AuthorityOptions::new(folder.path().join("ca"), domain(&id));
        let authority = AuthorityHandle::new(Authority::open(options, clock::wall()).unwrap());
        let mut cluster = Self {
            id,
            folder,
            authority,
            svid: SvidCell::new(),
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

    pub(crate) async fn start_controller(&mut self, account: &str, path: Path) {
        let domain = domain(&self.id);
        self.renew(account, &self.svid).await;
        let bundles =
            BundleStore::open(self.folder.path().join("bundles.json"), domain.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.dialer.addresses.lock().unwrap().insert(self.id.clone(), address);
        let tls = MeshTls::new(self.svid.clone(), bundles.cell());
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

    /// Renews the certificate of the controller.
    pub(crate) async fn renew_controller(&self) {
        self.renew("isthmus-controller", &self.svid).await;
    }

    async fn renew(&self, account: &str, svid: &SvidCell) {
        let identity = system(&self.id, account);
        let issuer = Arc::new(AuthorityIssuer::new(self.authority.clone(), identity.clone()));
        let settings = RenewSettings::new(1);
        Renewer::new(issuer, identity, svid.clone(), settings).renew_once().await.unwrap();
    }

    /// A stand-in for this cluster's gateway, the link and the peer's gateway: it takes
    /// CONNECT as the gateway does and splices to the controller that is named.
    async fn start_gateway(&mut self, controller: &MeshTls) -> Arc<dyn PeerDialer> {
        let svid = SvidCell::new();
        self.renew("isthmus-eastwest", &svid).await;
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
    pub(crate) fn link(&self) -> String {
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

    pub(crate) fn apply(&self, manifests: &str) {
        let mut index = Index::new();
        let outcome = index.apply(&SourceDocument::split("test.yaml", manifests), 1_000);
        assert_eq!(outcome.errors, vec![], "{manifests}");
        let configuration = Configuration {
            objects: Arc::clone(index.objects()),
            context: Context::new(self.id.clone(), domain(&self.id)),
        };
        self.configuration.send_replace(Some(Arc::new(configuration)));
    }

    pub(crate) async fn wait_for(
        &self,
        what: &str,
        wanted: impl Fn(&Status) -> bool,
    ) -> Arc<Status> {
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
pub(crate) enum Path {
    Direct,
    Gateway,
}

fn system(cluster: &ClusterId, account: &str) -> SpiffeId {
    let domain = domain(cluster);
    SpiffeId::parse(&format!("spiffe://{domain}/ns/isthmus-system/sa/{account}")).unwrap()
}

pub(crate) fn service(namespace: &str, name: &str, exported: bool) -> String {
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

pub(crate) const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n";
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
