//! What a controller has that leads in a cluster of Kubernetes, and starts with it.

use std::sync::Arc;

use anyhow::Context as _;
use isthmus_certs::{AuthorityHandle, SvidCell, TokenCaServer, TokenCaSettings};
use isthmus_kubernetes::TokenReviewer;
use isthmus_runtime::Stop;
use tokio::net::TcpListener;
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
}

impl Led<'_> {
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

    /// Keeps the authority's keys, gives pods their certificates, and begins to write.
    pub(crate) async fn write(
        mut self,
        settings: &Arc<Settings>,
        svid: SvidCell,
        inputs: WriterInputs,
        (tasks, stop): (&mut JoinSet<()>, Stop),
    ) -> anyhow::Result<TokenCaServer> {
        // Before the first certificate: keys that sign must not be lost with this pod.
        self.kept.save().await?;
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
        tasks.spawn(self.kept.follow(self.authority.bundle(), stop.clone()));
        let leadership = self.cluster.leadership.clone();
        let writer = Writer::new(Arc::clone(settings), client, leadership, inputs);
        tasks.spawn(writer.run(stop));
        Ok(server)
    }
}
