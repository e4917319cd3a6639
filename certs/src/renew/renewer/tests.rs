use std::sync::atomic::{AtomicBool, Ordering};

use isthmus_runtime::Drain;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::authority::{Authority, AuthorityHandle, AuthorityIssuer, AuthorityOptions};
use crate::renew::{IssueFuture, Issued};
use crate::testing::domain;

fn id() -> SpiffeId {
    SpiffeId::parse("spiffe://east.test/ns/a/sa/b").unwrap()
}

fn authority(dir: &TempDir, lifetime: Duration) -> AuthorityHandle {
    let mut options = AuthorityOptions::new(dir.path().join("ca"), domain("east.test"));
    options.svid_lifetime = lifetime;
    AuthorityHandle::new(Authority::open(options, clock::wall()).unwrap())
}

/// An authority that can be cut off.
#[derive(Debug)]
struct Switched {
    inner: AuthorityIssuer,
    down: AtomicBool,
}

impl Issuer for Switched {
    fn issue(&self, csr_der: Vec<u8>) -> IssueFuture<'_> {
        if self.down.load(Ordering::Relaxed) {
            let reason = "down".to_owned();
            return Box::pin(std::future::ready(Err(IssueError::Unavailable { reason })));
        }
        self.inner.issue(csr_der)
    }
}

#[tokio::test]
async fn an_svid_comes_with_the_bundle_and_keys_differ() {
    let dir = TempDir::new().unwrap();
    let handle = authority(&dir, Duration::from_secs(3600));
    let issuer = Arc::new(AuthorityIssuer::new(handle.clone(), id()));
    let cell = SvidCell::new();
    let mut renewer = Renewer::new(issuer, id(), cell.clone(), RenewSettings::new(1));
    renewer.renew_once().await.unwrap();
    let first = cell.load().unwrap();
    let bundle = renewer.bundle().borrow().clone().unwrap();
    assert_eq!(*bundle, **handle.bundle().borrow());
    renewer.renew_once().await.unwrap();
    assert_ne!(first.chain()[0], cell.load().unwrap().chain()[0]);
    let health = *renewer.health().borrow();
    assert_eq!((health.standing, health.renewals), (Standing::Fresh, 2));
}

#[tokio::test]
async fn the_loop_renews_at_half_life_and_ends_with_the_process() {
    let dir = TempDir::new().unwrap();
    let issuer = AuthorityIssuer::new(authority(&dir, Duration::from_secs(5)), id());
    let cell = SvidCell::new();
    let renewer = Renewer::new(Arc::new(issuer), id(), cell, RenewSettings::new(1));
    let mut health = renewer.health();
    let drain = Drain::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(renewer.run(drain.stop()));
    let begin = clock::now();
    health.wait_for(|health| health.renewals == 2).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(4), "it is renewed before it ends");
    assert!(begin.elapsed() > Duration::from_secs(1), "it is not renewed at once");
    drain.run(Duration::ZERO).await;
    tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn an_authority_that_is_down_costs_no_svid_and_a_trigger_renews() {
    let dir = TempDir::new().unwrap();
    let inner = AuthorityIssuer::new(authority(&dir, Duration::from_secs(3600)), id());
    let issuer = Arc::new(Switched { inner, down: AtomicBool::new(false) });
    let cell = SvidCell::new();
    let renewer = Renewer::new(issuer.clone(), id(), cell.clone(), RenewSettings::new(1));
    let (mut health, trigger) = (renewer.health(), renewer.trigger());
    let drain = Drain::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(renewer.run(drain.stop()));
    health.wait_for(|health| health.renewals == 1).await.unwrap();
    let first = cell.load().unwrap();
    issuer.down.store(true, Ordering::Relaxed);
    trigger.renew_now();
    health.wait_for(|health| health.failures > 0).await.unwrap();
    assert_eq!(first.chain(), cell.load().unwrap().chain());
    issuer.down.store(false, Ordering::Relaxed);
    health.wait_for(|health| health.renewals == 2 && health.failures == 0).await.unwrap();
    assert_ne!(first.chain(), cell.load().unwrap().chain());
    drain.run(Duration::ZERO).await;
    tasks.join_next().await.unwrap().unwrap();
}

/// An issuer that answers with what was issued to someone else.
#[derive(Debug)]
struct Wrong(Vec<rustls::pki_types::CertificateDer<'static>>);

impl Issuer for Wrong {
    fn issue(&self, _: Vec<u8>) -> IssueFuture<'_> {
        let issued = Issued { chain: self.0.clone(), bundle_jwks: Vec::new() };
        Box::pin(std::future::ready(Ok(issued)))
    }
}

#[tokio::test]
async fn an_answer_for_another_key_or_another_name_is_not_used() {
    let dir = TempDir::new().unwrap();
    let handle = authority(&dir, Duration::from_secs(3600));
    let csr = signing_request(&PrivateKey::generate().unwrap()).unwrap();
    let chain = handle.sign(&csr, &id()).unwrap().chain;
    let cell = SvidCell::new();
    let settings = RenewSettings::new(1);
    let mut renewer = Renewer::new(Arc::new(Wrong(chain)), id(), cell.clone(), settings);
    assert_eq!(renewer.renew_once().await, Err(RenewError::Svid(SvidInvalid::Key)));
    let other = SpiffeId::parse("spiffe://east.test/ns/a/sa/other").unwrap();
    let issuer = Arc::new(AuthorityIssuer::new(handle, other.clone()));
    let mut renewer = Renewer::new(issuer, id(), cell.clone(), settings);
    let wrong = RenewError::Identity { issued: other, expected: id() };
    assert_eq!(renewer.renew_once().await, Err(wrong));
    assert!(cell.load().is_none());
}
