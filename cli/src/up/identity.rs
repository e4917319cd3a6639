//! The identity of each role in this process, and whom it trusts.
//!
//! Keys are made here and never leave. With the authority in the same process the request
//! goes straight to it; otherwise it goes through the authority's socket, which knows the
//! asking user, or in a cluster to the controller, with the token of the pod.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use isthmus_certs::{
    AuthorityHandle, AuthorityIssuer, Bundle, BundleCell, BundleSet, Expected, IssueError, Issuer,
    MeshTls, PeerSvid, RenewError, RenewSettings, RenewalHealth, Renewer, SvidCell, TokenIssuer,
    TokenIssuerSettings, UnixIssuer, mesh_server_name, peer_svid,
};
use isthmus_discovery::{GrpcTransport, PeerIdentity};
use isthmus_model::name::SYSTEM_NAMESPACE;
use isthmus_model::{Label, Snapshot, SpiffeId, TrustDomain};
use isthmus_runtime::{SnapshotCell, Stop, error_chain};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::settings::Settings;

/// Where certificates come from.
#[derive(Debug, Clone)]
pub(crate) enum Issuance {
    /// The authority of this process.
    Local(AuthorityHandle),
    /// The authority's Unix socket.
    Socket(PathBuf),
    /// The authority of a cluster, by the token of this pod.
    Token(TokenIssuerSettings),
}

impl Issuance {
    /// How a process without the authority gets certificates.
    pub(crate) fn remote(settings: &Settings) -> anyhow::Result<Self> {
        let Some(own) = &settings.kubernetes else { return Ok(Self::Socket(settings.ca_socket())) };
        Ok(Self::Token(TokenIssuerSettings {
            address: own.authority.clone(),
            token_file: own.token_file.clone(),
            roots_file: own.roots_file.clone(),
            controller: system_id(&settings.trust_domain, "isthmus-controller")?,
        }))
    }
}

/// The identity of one of our own roles.
pub(crate) fn system_id(trust_domain: &TrustDomain, account: &str) -> anyhow::Result<SpiffeId> {
    let (namespace, account) = (Label::new(SYSTEM_NAMESPACE)?, Label::new(account)?);
    Ok(SpiffeId::workload(trust_domain, &namespace, &account))
}

/// One identity of this process.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) id: SpiffeId,
    pub(crate) tls: MeshTls,
    pub(crate) svid: SvidCell,
    pub(crate) health: watch::Receiver<RenewalHealth>,
    /// The bundle of the own trust domain, as the authority last said it.
    pub(crate) own_bundle: watch::Receiver<Option<Arc<Bundle>>>,
}

impl Identity {
    /// How this identity subscribes to a controller in another process.
    pub(crate) fn discovery(&self, settings: &Settings) -> anyhow::Result<GrpcTransport> {
        let controller = system_id(&settings.trust_domain, "isthmus-controller")?;
        let address = match &settings.kubernetes {
            Some(own) => own.discovery.clone(),
            None => settings.controller.discovery.to_string(),
        };
        let expected = Expected::Exactly(controller.clone());
        Ok(GrpcTransport {
            address,
            tls: self.tls.client_config(&[b"h2"], expected)?,
            server_name: mesh_server_name(),
            controller,
            identify: Arc::new(identify),
            renewed: self.svid.watch(),
        })
    }
}

/// Reads who is at the other end of a discovery connection.
pub(crate) fn identify(chain: &[CertificateDer<'_>]) -> Option<PeerIdentity> {
    let PeerSvid { id, not_after } = peer_svid(chain).ok()?;
    Some(PeerIdentity { id, not_after })
}

/// Makes identities and keeps them fresh.
pub(crate) struct Identities {
    pub(crate) issuance: Issuance,
    pub(crate) trust_domain: TrustDomain,
    /// The state folder of this process, where its last configurations are.
    pub(crate) state: PathBuf,
    pub(crate) stop: Stop,
}

impl Identities {
    /// Issues an identity of one of our own roles.
    pub(crate) async fn system(
        &self,
        account: &str,
        bundles: BundleCell,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<Identity> {
        let namespace = Label::new(SYSTEM_NAMESPACE)?;
        self.issue(&namespace, &Label::new(account)?, bundles, tasks).await
    }

    /// Issues an identity and renews it until the process drains.
    ///
    /// An authority that cannot be reached yet is waited for, since processes of a cluster
    /// may start in any order. One that is restarted while the authority is away waits a few
    /// seconds and then serves what needs no identity from its state on disk. A pod without
    /// such a state waits for as long as it takes: nothing can be served without an identity
    /// to ask for a configuration with, and going on would only make the next attempts
    /// fail and slow.
    pub(crate) async fn issue(
        &self,
        namespace: &Label,
        account: &Label,
        bundles: BundleCell,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<Identity> {
        let id = SpiffeId::workload(&self.trust_domain, namespace, account);
        let issuer: Arc<dyn Issuer> = match &self.issuance {
            Issuance::Local(authority) => {
                Arc::new(AuthorityIssuer::new(authority.clone(), id.clone()))
            }
            Issuance::Socket(path) => {
                Arc::new(UnixIssuer::new(path.clone(), namespace.clone(), account.clone()))
            }
            Issuance::Token(settings) => Arc::new(TokenIssuer::new(settings.clone())),
        };
        let svid = SvidCell::new();
        let settings = RenewSettings::new(super::seed());
        let mut renewer = Renewer::new(issuer, id.clone(), svid.clone(), settings);
        match tokio::time::timeout(self.first_wait(), self.first(&mut renewer)).await {
            Ok(first) => first.with_context(|| format!("no identity for {id}"))?,
            // mTLS fails closed until one is issued.
            Err(_) => tracing::warn!(%id, "starting without an identity; still asking for it"),
        }
        let (health, own_bundle) = (renewer.health(), renewer.bundle());
        tasks.spawn(renewer.run(self.stop.clone()));
        let tls = MeshTls::new(svid.clone(), bundles);
        Ok(Identity { id, tls, svid, health, own_bundle })
    }

    fn first_wait(&self) -> Duration {
        let is_new = matches!(self.issuance, Issuance::Token(_)) && !has_state(&self.state);
        if is_new { FOREVER } else { FIRST_WAIT }
    }

    /// Asks until there is an answer. What keeps it is said once, not with each attempt.
    async fn first(&self, renewer: &mut Renewer) -> Result<(), RenewError> {
        let mut pause = PAUSE_MIN;
        let mut stop = self.stop.clone();
        let mut said = String::new();
        loop {
            let attempt = tokio::time::timeout(ATTEMPT_MAX, renewer.renew_once()).await;
            let error = match attempt {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => IssueError::Timeout.into(),
            };
            if matches!(self.issuance, Issuance::Local(_)) {
                return Err(error);
            }
            let why = error_chain(&error).to_string();
            if why != said {
                tracing::warn!(error = why, "waiting for the authority");
                said = why;
            }
            tokio::select! {
                () = stop.draining() => return Err(error),
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
            }
        }
    }
}

/// Whether a role has saved a configuration here.
fn has_state(folder: &Path) -> bool {
    let is_state = |name: &str| name.starts_with("snapshot-") && name.ends_with(".json");
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_state))
}

/// Keeps a cell of bundles equal to the own bundle and those of the snapshot, for
/// processes without the controller.
pub(crate) async fn follow_bundles(
    cell: BundleCell,
    mut own: watch::Receiver<Option<Arc<Bundle>>>,
    snapshots: SnapshotCell<Snapshot>,
    mut stop: Stop,
) {
    let mut changed = snapshots.watch();
    loop {
        let set = bundle_set(own.borrow_and_update().as_deref(), &snapshots.load());
        cell.publish(Arc::new(set));
        tokio::select! {
            () = stop.draining() => return,
            outcome = own.changed() => if outcome.is_err() { return },
            outcome = changed.changed() => if outcome.is_err() { return },
        }
    }
}

/// The bundles that a process without the controller trusts; its own goes first.
pub(crate) fn bundle_set(own: Option<&Bundle>, snapshot: &Snapshot) -> BundleSet {
    let mut bundles: Vec<Bundle> = own.into_iter().cloned().collect();
    for (domain, bundle) in snapshot.bundles() {
        if own.is_some_and(|own| own.trust_domain() == domain) {
            continue;
        }
        match Bundle::from_jwks(domain, bundle.jwks.as_bytes()) {
            Ok(bundle) => bundles.push(bundle),
            Err(error) => tracing::warn!(%domain, %error, "a trust bundle cannot be used"),
        }
    }
    BundleSet::new(&bundles)
}

/// Time that a process that can serve from its state waits for its identity.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// For a process that cannot; it is not ready meanwhile, and a signal ends it.
const FOREVER: Duration = Duration::MAX;
/// How long one attempt at the start may take: a controller whose node has just gone does
/// not refuse a connection, it does not answer.
const ATTEMPT_MAX: Duration = Duration::from_secs(3);
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Short, because a pod takes no traffic until it has an answer.
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
