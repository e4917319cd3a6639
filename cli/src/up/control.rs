//! The controller side: authority, configuration source, controller, discovery.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use isthmus_certs::{
    Authority, AuthorityHandle, Bundle, BundleCell, BundleStore, CaServer, CaSettings, MeshTls,
    TokenCaServer, WorkloadRegistry,
};
use isthmus_config::{ApplyOutcome, ConfigError, Context, Directory, Index, SourceDocument};
use isthmus_discovery::{DiscoveryServer, Epoch, Publisher, PublisherHandle, ServerOptions};
use isthmus_federation::{
    Configuration, Controller, ControllerOptions, ControllerParts, HboneDialer,
};
use isthmus_runtime::{SnapshotCell, Stop, clock};
use isthmus_telemetry::MetricsRegistry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::settings::Settings;
use crate::up::board::Board;
use crate::up::created::Created;
use crate::up::identity::{Identities, identify};
use crate::up::kubernetes::writer::WriterInputs;
use crate::up::kubernetes::{self, Led};
use crate::up::last_good::LastGood;

mod report;

/// The authority and its socket.
pub(crate) struct Authorities {
    handle: AuthorityHandle,
    server: CaServer,
}

impl Authorities {
    /// Opens the authority's state and serves its socket; rotating it is the caller's.
    pub(crate) fn start(settings: &Settings) -> anyhow::Result<Self> {
        let authority = Authority::open(settings.authority_options(), clock::wall())?;
        let handle = AuthorityHandle::new(authority);
        let registry = SnapshotCell::new(registry(settings)?);
        let server =
            CaServer::start(&CaSettings::new(settings.ca_socket()), handle.clone(), registry)?;
        Ok(Self { handle, server })
    }

    /// The authority.
    pub(crate) fn handle(&self) -> AuthorityHandle {
        self.handle.clone()
    }

    /// Ends the socket.
    pub(crate) async fn stop(self, deadline: Duration) {
        self.server.stop(deadline).await;
    }
}

/// Which user may ask for which identity.
fn registry(settings: &Settings) -> anyhow::Result<WorkloadRegistry> {
    use std::os::unix::fs::MetadataExt;
    let own = std::fs::metadata(&settings.state)
        .with_context(|| format!("cannot read {}", settings.state.display()))?
        .uid();
    let system = isthmus_model::Label::new(isthmus_model::name::SYSTEM_NAMESPACE)?;
    let mut registry = WorkloadRegistry::new();
    for account in SYSTEM_ACCOUNTS {
        registry = registry.with(own, system.clone(), isthmus_model::Label::new(account)?);
    }
    for sidecar in &settings.sidecars {
        let uid = sidecar.uid.unwrap_or(own);
        let account = sidecar.service_account.clone();
        registry = registry.with(uid, sidecar.namespace.clone(), account);
    }
    Ok(registry)
}

/// The controller with what it reads and what it feeds.
pub(crate) struct Control {
    controller: Controller,
    publisher: Publisher,
    server: DiscoveryServer,
    bundles: BundleCell,
    tokens: Option<TokenCaServer>,
}

impl Control {
    /// Starts reading the manifests, the controller, and discovery.
    pub(crate) async fn start(
        settings: &Arc<Settings>,
        identities: &Identities,
        (board, registry, stop): (&Arc<Board>, &MetricsRegistry, Stop),
        led: Option<Led<'_>>,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<Self> {
        let store =
            BundleStore::open(settings.state.join("bundles.json"), settings.trust_domain.clone())?;
        let bundles = store.cell();
        let identity = identities.system("isthmus-controller", bundles.clone(), tasks).await?;
        board.identity(identity.id.clone(), identity.health.clone());
        let own_bundle = match &led {
            // Nobody is told of a root that would be lost with this pod.
            Some(led) => led.bundle.subscribe(),
            None => own_bundle(identity.own_bundle, identities, tasks, stop.clone()).await?,
        };
        let mut store = store;
        let first = own_bundle.borrow().as_ref().clone();
        store.set_own(clock::wall(), first)?;
        let publisher = Publisher::start(Epoch::random());
        let server = discovery(settings, &identity.tls, publisher.handle()).await?;
        let errors = Errors::default();
        let (configuration, world) = match &led {
            None => (configure(settings, &errors, tasks, stop.clone())?, None),
            Some(led) => {
                let readings = led.read(settings, &errors, tasks, stop.clone())?;
                (readings.configuration, Some(readings.world))
            }
        };
        let inputs = Inputs {
            configuration,
            own_bundle: own_bundle.clone(),
            endpoint_secret: led.as_ref().map(|led| led.kept.endpoint_secret()),
            api_server: led.as_ref().map(|led| led.cluster.url.clone()),
        };
        let controller = controller(settings, &identity.tls, store, inputs, &publisher).await?;
        let tokens = match (led, world) {
            (Some(led), Some(world)) => {
                let inputs =
                    WriterInputs { decided: controller.decided(), world, bundle: own_bundle };
                let svid = identity.svid.clone();
                let outlook = (&mut *tasks, stop.clone());
                Some(led.write(settings, svid, inputs, outlook).await?)
            }
            (Some(_) | None, _) => None,
        };
        let (sender, subscribers) = watch::channel(Vec::new());
        tasks.spawn(follow_subscribers(publisher.handle(), sender, stop));
        board.subscribers(subscribers);
        let status = controller.status();
        board.control(Arc::new(move || report::status_json(&status.borrow(), &errors)));
        report::export(registry, controller.status());
        Ok(Self { controller, publisher, server, bundles, tokens })
    }

    /// Where the data plane of this process subscribes.
    pub(crate) fn publisher(&self) -> PublisherHandle {
        self.publisher.handle()
    }

    /// The bundles of all trust domains.
    pub(crate) fn bundles(&self) -> BundleCell {
        self.bundles.clone()
    }

    /// Saves state and ends.
    pub(crate) async fn stop(self, deadline: Duration) {
        // Proxies keep what they have.
        drop(self.server);
        drop(self.tokens);
        let _ = tokio::time::timeout(deadline, self.controller.shutdown()).await;
        drop(self.publisher);
    }
}

/// The bundle of the own authority: at once from an authority in this process, else as
/// renewals bring it.
async fn own_bundle(
    mut renewed: watch::Receiver<Option<Arc<Bundle>>>,
    identities: &Identities,
    tasks: &mut JoinSet<()>,
    mut stop: Stop,
) -> anyhow::Result<watch::Receiver<Arc<Bundle>>> {
    if let super::identity::Issuance::Local(authority) = &identities.issuance {
        return Ok(authority.bundle());
    }
    let first = renewed.wait_for(Option::is_some).await?.clone();
    let first = first.context("the authority gave no bundle")?;
    let (sender, receiver) = watch::channel(first);
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = stop.draining() => return,
                outcome = renewed.changed() => if outcome.is_err() { return },
            }
            if let Some(bundle) = renewed.borrow_and_update().clone() {
                sender.send_replace(bundle);
            }
        }
    });
    Ok(receiver)
}

async fn discovery(
    settings: &Settings,
    tls: &MeshTls,
    publisher: PublisherHandle,
) -> anyhow::Result<DiscoveryServer> {
    let listener = bind(settings.controller.discovery, "controller.discovery").await?;
    let options = ServerOptions::new(
        tls.server_config(&[b"h2"])?,
        Arc::new(identify),
        settings.trust_domain.clone(),
        publisher,
    );
    Ok(DiscoveryServer::start(listener, options)?)
}

async fn bind(address: std::net::SocketAddr, field: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{field}: cannot listen on {address}"))
}

/// What a controller is made from besides the settings.
struct Inputs {
    configuration: watch::Receiver<Option<Arc<Configuration>>>,
    own_bundle: watch::Receiver<Arc<Bundle>>,
    /// In a cluster of Kubernetes: what endpoint ids are made with.
    endpoint_secret: Option<[u8; 32]>,
    /// In a cluster of Kubernetes: its address.
    api_server: Option<String>,
}

async fn controller(
    settings: &Settings,
    tls: &MeshTls,
    bundles: BundleStore,
    inputs: Inputs,
    publisher: &Publisher,
) -> anyhow::Result<Controller> {
    let gateway = isthmus_gateway::eastwest::gateway_id(&settings.trust_domain)
        .context("the trust domain gives no gateway identity")?;
    let mesh = match &settings.kubernetes {
        Some(_) => kubernetes::EASTWEST_MESH.to_owned(),
        None => settings.eastwest.mesh.to_string(),
    };
    let dialer = HboneDialer::new(&mesh, gateway, tls)?;
    let listener = bind(settings.controller.federation, "controller.federation").await?;
    let options = ControllerOptions {
        cluster: settings.cluster.clone(),
        trust_domain: settings.trust_domain.clone(),
        locality: settings.locality(),
        version: env!("CARGO_PKG_VERSION").into(),
        state_dir: settings.state.clone(),
        vip_range: settings.vip_range()?,
        endpoint_secret: inputs.endpoint_secret,
        settle: if settings.kubernetes.is_some() { SETTLE } else { Duration::ZERO },
        advertised: inputs
            .api_server
            .and_then(|url| kubernetes::advertised(&url, settings.controller.federation.port())),
    };
    let parts = ControllerParts {
        configuration: inputs.configuration,
        own_bundle: inputs.own_bundle,
        bundles,
        tls: tls.clone(),
        dialer: Arc::new(dialer),
        listener,
        publisher: publisher.handle(),
    };
    Ok(Controller::start(options, parts)?)
}

/// What was wrong with the manifests when they were last read.
pub(crate) type Errors = Arc<Mutex<Vec<ConfigError>>>;

/// Reads the manifests now and whenever they change.
fn configure(
    settings: &Arc<Settings>,
    errors: &Errors,
    tasks: &mut JoinSet<()>,
    stop: Stop,
) -> anyhow::Result<watch::Receiver<Option<Arc<Configuration>>>> {
    let directory = Directory::watch(&settings.manifests)?;
    let created = Created::load(settings.state.join("created.json"));
    let (sender, receiver) = watch::channel(None);
    let reader = Reader {
        context: settings.context(),
        index: Index::with_created(created.times().clone()),
        created,
        last_good: LastGood::load(settings.state.join("manifests.json")),
        errors: Arc::clone(errors),
        sender,
    };
    tasks.spawn(reader.run(directory, stop));
    Ok(receiver)
}

/// Owns the index of the user's objects.
struct Reader {
    context: Context,
    index: Index,
    created: Created,
    last_good: LastGood,
    errors: Errors,
    sender: watch::Sender<Option<Arc<Configuration>>>,
}

impl Reader {
    async fn run(mut self, mut directory: Directory, mut stop: Stop) {
        self.apply(&self.last_good.documents());
        loop {
            let documents = tokio::select! {
                () = stop.draining() => return,
                documents = directory.next() => documents,
            };
            let outcome = self.apply(&documents);
            self.note(&outcome.errors);
            self.created.save(self.index.created());
            self.last_good.save(&documents, &outcome.errors);
            let first = self.sender.borrow().is_none();
            if outcome.changed || first {
                let objects = Arc::clone(self.index.objects());
                tracing::info!(objects = objects.len(), "manifests read");
                let context = self.context.clone();
                self.sender.send_replace(Some(Arc::new(Configuration { objects, context })));
            }
        }
    }

    fn apply(&mut self, documents: &[SourceDocument]) -> ApplyOutcome {
        let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.index.apply(documents, i64::try_from(now).unwrap_or(i64::MAX))
    }

    /// Logs errors that were not there before.
    fn note(&self, errors: &[ConfigError]) {
        let mut known = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        for error in errors.iter().filter(|error| !known.contains(error)) {
            tracing::warn!("{error}");
        }
        *known = errors.to_vec();
    }
}

async fn follow_subscribers(
    publisher: PublisherHandle,
    sender: watch::Sender<Vec<isthmus_discovery::SubscriberStatus>>,
    mut stop: Stop,
) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = stop.draining() => return,
            _ = interval.tick() => {}
        }
        sender.send_replace(publisher.subscribers().await);
    }
}

/// Service accounts of our own roles.
const SYSTEM_ACCOUNTS: [&str; 4] =
    ["isthmus-controller", "isthmus-dns", "isthmus-eastwest", "isthmus-ingress"];

/// How long a new leader waits for linked clusters, which its own disk knows nothing of,
/// before it publishes without them.
const SETTLE: Duration = Duration::from_secs(5);
