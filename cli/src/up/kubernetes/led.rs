//! What a controller has that leads in a cluster of Kubernetes, and starts with it.

use std::sync::Arc;

use anyhow::Context as _;
use isthmus_certs::{AuthorityHandle, Bundle, SvidCell, TokenCaServer, TokenCaSettings};
use isthmus_federation::Decided;
use isthmus_kubernetes::TokenReviewer;
use isthmus_runtime::Stop;
use isthmus_telemetry::Readiness;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::settings::Settings;
use crate::up::control::Errors;
use crate::up::identity::system_id;
use crate::up::kubernetes::reader::{Reader, Readings};
use crate::up::kubernetes::writer::{Writer, WriterInputs};
use crate::up::kubernetes::{Cluster, Kept};

/// What a controller has that leads in a cluster of Kubernetes.
pub(crate) struct Led<'p> {
    pub(crate) cluster: &'p Cluster,
    pub(crate) authority: AuthorityHandle,
    pub(crate) kept: Kept,
    /// The authority's bundle as far as it is kept.
    pub(crate) bundle: watch::Sender<Arc<Bundle>>,
    pub(crate) readiness: Readiness,
}

impl<'p> Led<'p> {
    /// Keeps the authority's keys before anybody has a certificate of theirs: keys that sign
    /// must not be lost with this pod.
    pub(crate) async fn begin(
        cluster: &'p Cluster,
        authority: AuthorityHandle,
        mut kept: Kept,
        readiness: Readiness,
    ) -> anyhow::Result<Self> {
        kept.save().await?;
        let bundle = watch::Sender::new(authority.bundle().borrow().clone());
        Ok(Self { cluster, authority, kept, bundle, readiness })
    }

    /// Begins to read the cluster's objects.
    pub(crate) fn read(
        &self,
        settings: &Arc<Settings>,
        errors: &Errors,
        tasks: &mut JoinSet<()>,
        stop: Stop,
    ) -> anyhow::Result<Readings> {
        let own = settings.kubernetes.clone().unwrap_or_default();
        let eastwest = system_id(&settings.trust_domain, "isthmus-eastwest")?;
        let (reader, readings) = Reader::new(settings, eastwest, errors);
        tasks.spawn(reader.run(self.cluster.client.clone(), own, stop));
        Ok(readings)
    }

    /// Gives pods their certificates, follows the authority's rotations, and begins to
    /// write. Everything that the Service leads to listens then, so that it may come.
    pub(crate) async fn write(
        self,
        settings: &Arc<Settings>,
        svid: SvidCell,
        inputs: WriterInputs,
        (tasks, stop): (&mut JoinSet<()>, Stop),
    ) -> anyhow::Result<TokenCaServer> {
        let client = self.cluster.client.clone();
        let address = settings.kubernetes.as_ref().map(|own| own.token_authority);
        let address = address.context("the settings have no kubernetes.tokenAuthority")?;
        let listener = TcpListener::bind(address).await;
        let listener = listener
            .with_context(|| format!("kubernetes.tokenAuthority: cannot listen on {address}"))?;
        let reviewer = Arc::new(TokenReviewer::new(client.clone()));
        let limits = TokenCaSettings::default();
        let server =
            TokenCaServer::start(listener, svid, &limits, self.authority.clone(), reviewer)?;
        tasks.spawn(self.kept.follow(self.authority, self.bundle, stop.clone()));
        tasks.spawn(first_decision(&self.readiness, inputs.decided.clone(), stop.clone()));
        tasks.spawn(self.cluster.marking(stop.clone()));
        let leadership = self.cluster.leadership.clone();
        let writer = Writer::new(Arc::clone(settings), client, leadership, inputs);
        tasks.spawn(writer.run(stop));
        Ok(server)
    }
}

/// Keeps readiness off until the first configuration of the cluster's objects is decided.
fn first_decision(
    readiness: &Readiness,
    mut decided: watch::Receiver<Option<Arc<Decided>>>,
    mut stop: Stop,
) -> impl Future<Output = ()> + Send + use<> {
    readiness.set_waiting(CONFIGURATION, "the cluster's objects are not all read yet");
    let readiness = readiness.clone();
    async move {
        tokio::select! {
            () = stop.draining() => {}
            outcome = decided.wait_for(Option::is_some) => if outcome.is_ok() {
                readiness.set_ready(CONFIGURATION);
            }
        }
    }
}

/// The condition of readiness of a controller's first configuration.
const CONFIGURATION: &str = "configuration of the controller";
