//! The authority shared by the tasks of a process.
//!
//! Signing takes tens of microseconds, so a plain mutex that is never held across an
//! await is the simplest owner. The bundle is watched, not polled: whoever publishes it
//! to peers and proxies is woken when it changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isthmus_model::SpiffeId;
use isthmus_runtime::{Stop, clock};
use tokio::sync::watch;

use super::{Authority, AuthorityError, IssuedSvid, RotationStep};
use crate::bundle::Bundle;
use crate::renew::{IssueError, IssueFuture, Issued, Issuer};

/// A shared authority; clones are the same one.
#[derive(Debug, Clone)]
pub struct AuthorityHandle {
    authority: Arc<Mutex<Authority>>,
    bundle: watch::Sender<Arc<Bundle>>,
}

impl AuthorityHandle {
    /// Shares an authority.
    pub fn new(authority: Authority) -> Self {
        let bundle = watch::Sender::new(Arc::clone(authority.bundle()));
        Self { authority: Arc::new(Mutex::new(authority)), bundle }
    }

    /// Signs a request; see [`Authority::sign`].
    ///
    /// # Errors
    ///
    /// Those of [`Authority::sign`].
    pub fn sign(&self, csr_der: &[u8], id: &SpiffeId) -> Result<IssuedSvid, AuthorityError> {
        self.lock().sign(csr_der, id, clock::wall())
    }

    /// Begins a rotation of the root; see [`Authority::rotate_root`].
    ///
    /// # Errors
    ///
    /// Those of [`Authority::rotate_root`].
    pub fn rotate_now(&self) -> Result<(), AuthorityError> {
        self.change(|authority| authority.rotate_root(clock::wall()))
    }

    /// Makes a new intermediate; see [`Authority::rotate_intermediate`].
    ///
    /// # Errors
    ///
    /// Those of [`Authority::rotate_intermediate`].
    pub fn rotate_intermediate(&self) -> Result<(), AuthorityError> {
        self.change(|authority| authority.rotate_intermediate(clock::wall()))
    }

    /// Reads the user's files again; see [`Authority::reload_user_intermediate`].
    ///
    /// # Errors
    ///
    /// Those of [`Authority::reload_user_intermediate`].
    pub fn reload_user_intermediate(&self) -> Result<(), AuthorityError> {
        self.change(|authority| authority.reload_user_intermediate(clock::wall()))
    }

    /// Does what is due; see [`Authority::tick`].
    ///
    /// # Errors
    ///
    /// Those of [`Authority::tick`].
    pub fn tick(&self) -> Result<Vec<RotationStep>, AuthorityError> {
        self.change(|authority| authority.tick(clock::wall()))
    }

    /// The own bundle, and a wake-up when it changes.
    pub fn bundle(&self) -> watch::Receiver<Arc<Bundle>> {
        self.bundle.subscribe()
    }

    /// Reads something of the authority.
    pub fn read<T>(&self, read: impl FnOnce(&Authority) -> T) -> T {
        read(&self.lock())
    }

    /// Rotates what is due until the process drains; its owner spawns it once.
    pub async fn run(self, mut stop: Stop) {
        // An operator's rotation changes what is due next.
        let mut changed = self.bundle.subscribe();
        loop {
            changed.mark_unchanged();
            if let Err(error) = self.tick() {
                tracing::error!(%error, source = ?std::error::Error::source(&error), "the authority could not rotate");
            }
            let due = self.read(Authority::next_due);
            // The wall clock may be set meanwhile, so no sleep is long; a step that
            // failed is tried again at the same pace.
            let wait = due.duration_since(clock::wall()).unwrap_or(TICK_MIN);
            let wait = wait.clamp(TICK_MIN, TICK_MAX);
            tokio::select! {
                // Draining goes first: there is no point in beginning a rotation then.
                biased;
                () = stop.draining() => return,
                () = tokio::time::sleep(wait) => {}
                // The sender is in `self`, so that this never fails.
                _ = changed.changed() => {}
            }
        }
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&mut Authority) -> Result<T, AuthorityError>,
    ) -> Result<T, AuthorityError> {
        let mut authority = self.lock();
        let outcome = change(&mut authority);
        // Sent under the lock, so that bundles go out in the order of their sequences.
        self.bundle.send_if_modified(|bundle| {
            let changed = **bundle != **authority.bundle();
            if changed {
                *bundle = Arc::clone(authority.bundle());
            }
            changed
        });
        outcome
    }

    /// A panic inside leaves the authority as it was: a step is believed only after it
    /// was written.
    fn lock(&self) -> MutexGuard<'_, Authority> {
        self.authority.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Issues SVIDs of one ID within the process of the authority.
#[derive(Debug, Clone)]
pub struct AuthorityIssuer {
    authority: AuthorityHandle,
    id: SpiffeId,
}

impl AuthorityIssuer {
    /// An issuer for one workload of this process.
    pub fn new(authority: AuthorityHandle, id: SpiffeId) -> Self {
        Self { authority, id }
    }
}

impl Issuer for AuthorityIssuer {
    fn issue(&self, csr_der: Vec<u8>) -> IssueFuture<'_> {
        let issued = self.authority.sign(&csr_der, &self.id);
        let bundle = self.authority.read(|authority| authority.bundle().to_jwks());
        let issued = issued
            .map(|issued| Issued { chain: issued.chain, bundle_jwks: bundle })
            .map_err(|error| IssueError::Refused { reason: error.to_string() });
        Box::pin(std::future::ready(issued))
    }
}

const TICK_MIN: Duration = Duration::from_millis(200);
const TICK_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use isthmus_model::TrustDomain;
    use isthmus_runtime::Drain;
    use tempfile::TempDir;
    use tokio::task::JoinSet;

    use super::*;
    use crate::authority::{AuthorityOptions, signing_request};
    use crate::crypto::PrivateKey;

    #[tokio::test]
    async fn a_forced_rotation_wakes_the_publisher_and_goes_on_by_itself() {
        let dir = TempDir::new().unwrap();
        let domain = TrustDomain::new("east.test").unwrap();
        let mut options = AuthorityOptions::new(dir.path().join("ca"), domain);
        options.root_overlap = Duration::from_secs(1);
        let handle = AuthorityHandle::new(Authority::open(options, clock::wall()).unwrap());
        let id = SpiffeId::parse("spiffe://east.test/ns/a/sa/b").unwrap();
        let csr = signing_request(&PrivateKey::generate().unwrap()).unwrap();
        let before = handle.sign(&csr, &id).unwrap().chain;
        let mut bundle = handle.bundle();
        handle.rotate_now().unwrap();
        bundle.wait_for(|bundle| bundle.authorities().len() == 2).await.unwrap();
        assert_eq!(before[1], handle.sign(&csr, &id).unwrap().chain[1], "it does not sign yet");
        let drain = Drain::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(handle.clone().run(drain.stop()));
        let mut pause = tokio::time::interval(Duration::from_millis(50));
        while handle.sign(&csr, &id).unwrap().chain[1] == before[1] {
            pause.tick().await;
        }
        assert_eq!(bundle.borrow().authorities().len(), 2, "the former root is still trusted");
        drain.run(Duration::ZERO).await;
        tasks.join_next().await.unwrap().unwrap();
    }
}
