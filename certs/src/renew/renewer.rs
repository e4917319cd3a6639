//! The loop that keeps one workload's SVID fresh.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use isthmus_model::SpiffeId;
use isthmus_runtime::{Stop, clock};
use tokio::sync::watch;

use super::issuer::{IssueError, Issuer};
use super::schedule::{Moment, Schedule, Standing};
use crate::authority::signing_request;
use crate::bundle::Bundle;
use crate::crypto::{CryptoError, PrivateKey};
use crate::svid::{Svid, SvidCell, SvidInvalid};

/// A renewal that failed; the current SVID stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// Keys or randomness are not to be had.
    #[error("no key could be made for the SVID")]
    Crypto(#[from] CryptoError),
    /// The issuer answered with a certificate that has ended.
    #[error("the authority issued a certificate that has ended; the clocks differ")]
    Ended,
    /// The issuer answered for someone else.
    #[error("the authority issued a certificate for {issued}, {expected} was asked for")]
    Identity {
        /// Who the certificate is for.
        issued: SpiffeId,
        /// Who it should be for.
        expected: SpiffeId,
    },
    /// The issuer gave none.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The issuer answered with something that is not an SVID for our key.
    #[error("the authority issued a certificate that is not usable: {0}")]
    Svid(#[from] SvidInvalid),
}

/// How renewal behaves.
#[derive(Debug, Clone, Copy)]
pub struct RenewSettings {
    /// The seed of the jitter; differs between processes.
    pub seed: u64,
    /// How long one attempt may take. Default 10 s.
    pub attempt_timeout: Duration,
}

impl RenewSettings {
    /// The defaults with a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, attempt_timeout: Duration::from_secs(10) }
    }
}

/// How renewal stands, for metrics and readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalHealth {
    /// How the SVID stands.
    pub standing: Standing,
    /// When it ends.
    pub not_after: Option<SystemTime>,
    /// Attempts that failed since the last success.
    pub failures: u32,
    /// Renewals that succeeded.
    pub renewals: u64,
}

/// Asks a [`Renewer`] to renew now, for example after a rotation of the root.
#[derive(Debug, Clone)]
pub struct RenewTrigger(watch::Sender<u64>);

impl RenewTrigger {
    /// Asks once; several requests may become one renewal.
    pub fn renew_now(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// Keeps one SVID fresh.
#[derive(Debug)]
pub struct Renewer {
    issuer: Arc<dyn Issuer>,
    id: SpiffeId,
    svid: SvidCell,
    settings: RenewSettings,
    schedule: Schedule,
    trigger: watch::Sender<u64>,
    health: watch::Sender<RenewalHealth>,
    bundle: watch::Sender<Option<Arc<Bundle>>>,
}

impl Renewer {
    /// A renewer that publishes into a cell.
    pub fn new(
        issuer: Arc<dyn Issuer>,
        id: SpiffeId,
        svid: SvidCell,
        settings: RenewSettings,
    ) -> Self {
        let standing = Standing::Missing;
        let health = RenewalHealth { standing, not_after: None, failures: 0, renewals: 0 };
        Self {
            issuer,
            id,
            svid,
            settings,
            schedule: Schedule::new(settings.seed),
            trigger: watch::Sender::new(0),
            health: watch::Sender::new(health),
            bundle: watch::Sender::new(None),
        }
    }

    /// Makes a key, has it signed and publishes the SVID.
    ///
    /// Call it once before serving to fail early; [`Self::run`] does it by itself.
    ///
    /// # Errors
    ///
    /// [`RenewError`]; the SVID in the cell stays as it was.
    ///
    /// # Cancel safety
    ///
    /// May be dropped; nothing is published then.
    pub async fn renew_once(&mut self) -> Result<(), RenewError> {
        let outcome = self.attempt().await;
        let now = moment();
        match &outcome {
            Ok(not_after) => self.schedule.on_success(now, *not_after),
            Err(_) => self.schedule.on_failure(now),
        }
        self.report(now, outcome.as_ref().ok().copied());
        outcome.map(|_| ())
    }

    /// Renews until the process drains; its owner spawns it once.
    pub async fn run(mut self, mut stop: Stop) {
        let mut triggered = self.trigger.subscribe();
        loop {
            let now = moment();
            let wait = self.schedule.due_in(now);
            if wait.is_zero() {
                // Draining goes first: an SVID for a process that ends is of no use.
                let outcome = tokio::select! {
                    biased;
                    () = stop.draining() => return,
                    outcome = self.renew_once() => outcome,
                };
                self.log(outcome);
                continue;
            }
            self.report(now, None);
            tokio::select! {
                // Draining goes first; then an explicit wish; the clock last.
                biased;
                () = stop.draining() => return,
                // The sender is in `self`, so this cannot end.
                _ = triggered.changed() => self.schedule.on_trigger(),
                // Short sleeps, because the wall clock may be set meanwhile.
                () = tokio::time::sleep(wait.min(RECHECK)) => {}
            }
        }
    }

    /// Asks for a renewal from elsewhere.
    pub fn trigger(&self) -> RenewTrigger {
        RenewTrigger(self.trigger.clone())
    }

    /// How renewal stands.
    pub fn health(&self) -> watch::Receiver<RenewalHealth> {
        self.health.subscribe()
    }

    /// The bundle of the own trust domain, as it came with the last SVID.
    pub fn bundle(&self) -> watch::Receiver<Option<Arc<Bundle>>> {
        self.bundle.subscribe()
    }

    async fn attempt(&self) -> Result<SystemTime, RenewError> {
        let key = PrivateKey::generate()?;
        let csr = signing_request(&key)?;
        let answer = tokio::time::timeout(self.settings.attempt_timeout, self.issuer.issue(csr));
        let issued = answer.await.map_err(|_| IssueError::Timeout)??;
        let svid = Svid::new(issued.chain, key.to_rustls())?;
        if *svid.id() != self.id {
            let (issued, expected) = (svid.id().clone(), self.id.clone());
            return Err(RenewError::Identity { issued, expected });
        }
        let not_after = svid.not_after();
        if not_after <= clock::wall() {
            return Err(RenewError::Ended);
        }
        // The bundle goes first: peers of this process may hold the new root's
        // certificates already.
        self.take_bundle(&issued.bundle_jwks);
        self.svid.publish(svid);
        Ok(not_after)
    }

    fn take_bundle(&self, jwks: &[u8]) {
        if jwks.is_empty() {
            return;
        }
        let bundle = match Bundle::from_jwks(self.id.trust_domain(), jwks) {
            Ok(bundle) => Arc::new(bundle),
            Err(error) => {
                tracing::warn!(%error, "the bundle that came with the SVID was ignored");
                return;
            }
        };
        self.bundle.send_if_modified(|current| {
            let newer =
                current.as_ref().is_none_or(|current| current.sequence() < bundle.sequence());
            if newer {
                *current = Some(bundle);
            }
            newer
        });
    }

    fn report(&self, now: Moment, renewed: Option<SystemTime>) {
        let standing = self.schedule.standing(now);
        let failures = self.schedule.failures();
        self.health.send_if_modified(|health| {
            let former = *health;
            (health.standing, health.failures) = (standing, failures);
            if let Some(not_after) = renewed {
                health.not_after = Some(not_after);
                health.renewals += 1;
            }
            *health != former
        });
    }

    fn log(&self, outcome: Result<(), RenewError>) {
        let Err(error) = outcome else { return };
        let now = moment();
        let (failures, left) = (self.schedule.failures(), self.schedule.time_left(now).as_secs());
        match self.schedule.standing(now) {
            Standing::Alarm | Standing::Expired => {
                tracing::error!(%error, failures, left, "the SVID could not be renewed");
            }
            Standing::Due | Standing::Fresh | Standing::Missing => {
                tracing::warn!(%error, failures, left, "the SVID could not be renewed yet");
            }
        }
    }
}

fn moment() -> Moment {
    Moment { monotonic: clock::now(), wall: clock::wall() }
}

/// The longest sleep before the clocks are looked at again.
const RECHECK: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
