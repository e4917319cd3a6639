//! Leadership among the replicas of the controller, by a `coordination.k8s.io/v1` Lease.
//!
//! [`election`] decides; this file carries its requests. Writers do not trust a flag
//! that a late task would set: they ask [`Leadership::is_leader`], which compares the
//! time with the end of the leadership, so a process that hangs loses it by itself.

pub mod election;

use std::fmt;
use std::time::{Duration, Instant};

use isthmus_runtime::{clock, error_chain};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

use crate::discovery::code;
use crate::lease::election::{Election, Record, Step};

/// How a contender behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseSettings {
    /// The holder's name; every process needs one of its own, so a pod's name with its
    /// uid or a random suffix.
    pub identity: String,
    /// How long others wait after the last renewal that they saw; 15 s by default.
    pub duration: Duration,
    /// How long a renewal counts for the leader itself; 10 s by default. Must be shorter
    /// than `duration`.
    pub renew_deadline: Duration,
    /// Between two renewals, and between two looks at another's lease; 2 s by default.
    pub retry: Duration,
}

impl LeaseSettings {
    /// The durations that Kubernetes' own controllers use.
    pub fn new(identity: &str) -> Self {
        Self {
            identity: identity.to_owned(),
            duration: DURATION,
            renew_deadline: RENEW_DEADLINE,
            retry: RETRY,
        }
    }
}

/// Whether this process leads; clones see the same.
#[derive(Debug, Clone)]
pub struct Leadership {
    standing: watch::Receiver<Standing>,
}

/// How a contender stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Standing {
    /// Until when it leads, unless it renews.
    until: Option<Instant>,
    /// Whether another holds it, or has held it since this one did.
    is_taken: bool,
}

impl Standing {
    fn leads(&self) -> bool {
        self.until.is_some_and(|until| clock::now() < until)
    }
}

impl Leadership {
    /// Whether this process leads at this moment.
    pub fn is_leader(&self) -> bool {
        self.standing.borrow().leads()
    }

    /// Returns when this process leads; never, once the campaign has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancelling loses nothing.
    pub async fn elected(&mut self) {
        if self.standing.wait_for(Standing::leads).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns when this process does not lead. It may again: its renewals may have failed
    /// for a while.
    ///
    /// # Cancel safety
    ///
    /// Cancelling loses nothing.
    pub async fn lost(&mut self) {
        loop {
            let until = self.standing.borrow_and_update().until;
            let Some(until) = until.filter(|until| clock::now() < *until) else { return };
            tokio::select! {
                () = sleep_until(until.into()) => {}
                changed = self.standing.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Returns when another holds the lease, or the campaign has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancelling loses nothing.
    pub async fn taken(&mut self) {
        // An error is the end of the campaign.
        let _ = self.standing.wait_for(|standing| standing.is_taken).await;
    }
}

/// A contender for one lease.
pub struct Campaign {
    api: Api<Lease>,
    name: String,
    settings: LeaseSettings,
    election: Election,
    standing: watch::Sender<Standing>,
}

impl Campaign {
    /// Prepares to contend for a lease; nothing is sent before [`Campaign::run`].
    pub fn new(client: Client, namespace: &str, name: &str, settings: LeaseSettings) -> Self {
        let election = Election::new(settings.clone());
        let api = Api::namespaced(client, namespace);
        let standing = watch::Sender::new(Standing::default());
        Self { api, name: name.to_owned(), settings, election, standing }
    }

    /// What writers ask.
    pub fn leadership(&self) -> Leadership {
        Leadership { standing: self.standing.subscribe() }
    }

    /// Contends until `stop` completes, then releases the lease. Whoever writes under
    /// the leadership must have ended before `stop` does, or ask [`Leadership`] again.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        {
            let mut stop = std::pin::pin!(stop);
            loop {
                // Stop first: a process that ends must not renew.
                tokio::select! {
                    biased;
                    () = &mut stop => break,
                    () = self.turn() => {}
                }
            }
        }
        let release = self.election.on_release();
        self.standing.send_replace(Standing::default());
        if let Some(record) = release
            && let Err(error) = self.write(record).await
        {
            tracing::info!(error = error.to_string(), "the lease is not released: it runs out");
        }
    }

    async fn turn(&mut self) {
        match self.election.poll_step(clock::now()) {
            Step::Wait(until) => sleep_until(until.into()).await,
            Step::Read => match self.read().await {
                Ok(record) => self.election.on_read(clock::now(), record),
                Err(error) => self.failed(&error),
            },
            Step::Write(record) => {
                let sent = clock::now();
                match self.write(record).await {
                    Ok(record) => self.election.on_written(sent, record),
                    Err(error) => self.failed(&error),
                }
            }
        }
        let next =
            Standing { until: self.election.leads_until(), is_taken: self.election.is_taken() };
        self.standing.send_if_modified(|current| {
            let is_news = *current != next;
            if current.until.is_some() != next.until.is_some() {
                tracing::info!(lease = self.name, leader = next.until.is_some(), "leadership");
            }
            *current = next;
            is_news
        });
    }

    fn failed(&mut self, error: &LeaseError) {
        tracing::debug!(lease = self.name, error = error_chain(error), "lease request");
        self.election.on_failed(clock::now());
    }

    async fn read(&self) -> Result<Option<Record>, LeaseError> {
        let found = timeout(REQUEST_MAX, self.api.get_opt(&self.name)).await;
        Ok(found.map_err(|_| LeaseError::Timeout)??.map(record_of))
    }

    async fn write(&self, record: Record) -> Result<Record, LeaseError> {
        let is_new = record.version.is_empty();
        let lease = self.lease_of(record);
        let parameters = PostParams {
            field_manager: Some(crate::apply::FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let written = async {
            if is_new {
                self.api.create(&parameters, &lease).await
            } else {
                self.api.replace(&self.name, &parameters, &lease).await
            }
        };
        match timeout(REQUEST_MAX, written).await {
            Err(_) => Err(LeaseError::Timeout),
            Ok(Err(error)) if code(&error) == Some(409) => Err(LeaseError::Conflict),
            Ok(written) => Ok(record_of(written?)),
        }
    }

    fn lease_of(&self, record: Record) -> Lease {
        // Times in the lease are for people and for other implementations; the election
        // here does not compare them.
        let now = Timestamp::try_from(clock::wall()).ok().map(MicroTime);
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: Some(record.version).filter(|version| !version.is_empty()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(record.holder),
                lease_duration_seconds: Some(
                    i32::try_from(record.duration.as_secs().max(1)).unwrap_or(i32::MAX),
                ),
                lease_transitions: Some(record.transitions),
                acquire_time: now.clone(),
                renew_time: now,
                ..LeaseSpec::default()
            }),
        }
    }
}

impl fmt::Debug for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Campaign({} as {})", self.name, self.settings.identity)
    }
}

/// Why a request for the lease has failed.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("another contender was faster")]
    Conflict,
    #[error("the API server refuses or does not answer")]
    Request(#[from] kube::Error),
    #[error("no answer within {} s", REQUEST_MAX.as_secs())]
    Timeout,
}

fn record_of(lease: Lease) -> Record {
    let spec = lease.spec.unwrap_or_default();
    let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(seconds),
        transitions: spec.lease_transitions.unwrap_or(0),
        version: lease.metadata.resource_version.unwrap_or_default(),
    }
}

const DURATION: Duration = Duration::from_secs(15);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);
/// How long a request for the lease may take: a server that answers after 5 s must not end
/// a leadership, and after one that is not answered another fits before the deadline.
const REQUEST_MAX: Duration = Duration::from_secs(6);
