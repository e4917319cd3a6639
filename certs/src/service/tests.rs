use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use isthmus_model::{Label, SpiffeId};
use isthmus_runtime::{SnapshotCell, clock};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::authority::{Authority, AuthorityHandle, AuthorityOptions, signing_request};
use crate::crypto::PrivateKey;
use crate::renew::{IssueError, Issuer, RenewSettings, Renewer};
use crate::svid::SvidCell;
use crate::testing::domain;

struct Rig {
    dir: TempDir,
    server: CaServer,
    registry: SnapshotCell<WorkloadRegistry>,
}

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

impl Rig {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let options = AuthorityOptions::new(dir.path().join("ca"), domain("east.test"));
        let authority = AuthorityHandle::new(Authority::open(options, clock::wall()).unwrap());
        let uid = std::fs::metadata(dir.path()).unwrap().uid();
        let allowed = WorkloadRegistry::new().with(uid, label("shop"), label("cart"));
        let registry = SnapshotCell::new(allowed);
        let mut settings = CaSettings::new(dir.path().join("run/ca.sock"));
        settings.sign_burst = 3;
        let server = CaServer::start(&settings, authority, registry.clone()).unwrap();
        Self { dir, server, registry }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/ca.sock")
    }

    fn issuer(&self, account: &str) -> UnixIssuer {
        UnixIssuer::new(self.socket(), label("shop"), label(account))
    }
}

fn csr() -> Vec<u8> {
    signing_request(&PrivateKey::generate().unwrap()).unwrap()
}

fn refused(outcome: Result<crate::renew::Issued, IssueError>) -> String {
    match outcome.unwrap_err() {
        IssueError::Refused { reason } => reason,
        other @ (IssueError::Timeout | IssueError::Unavailable { .. }) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_registered_workload_gets_its_svid_over_the_socket() {
    let rig = Rig::start();
    let id = SpiffeId::parse("spiffe://east.test/ns/shop/sa/cart").unwrap();
    let cell = SvidCell::new();
    let issuer = Arc::new(rig.issuer("cart"));
    let mut renewer = Renewer::new(issuer, id.clone(), cell.clone(), RenewSettings::new(1));
    renewer.renew_once().await.unwrap();
    assert_eq!(cell.load().unwrap().id(), &id);
    assert!(renewer.bundle().borrow().is_some());
    rig.server.stop(Duration::from_secs(5)).await;
    assert!(!rig.dir.path().join("run/ca.sock").exists());
}

/// F-17, F-18: who is not registered gets nothing, from one moment to the next.
#[tokio::test]
async fn only_registered_workloads_are_signed_for() {
    let rig = Rig::start();
    let denied = refused(rig.issuer("web").issue(csr()).await);
    assert!(denied.contains("may not be this workload"), "{denied}");
    assert!(rig.issuer("cart").issue(csr()).await.is_ok());
    rig.registry.publish(Arc::new(WorkloadRegistry::new()));
    refused(rig.issuer("cart").issue(csr()).await);
}

#[tokio::test]
async fn a_workload_that_asks_too_often_is_told_to_wait() {
    let rig = Rig::start();
    for _ in 0..3 {
        rig.issuer("cart").issue(csr()).await.unwrap();
    }
    let reason = refused(rig.issuer("cart").issue(csr()).await);
    assert!(reason.contains("too many requests"), "{reason}");
}

#[tokio::test]
async fn hostile_requests_and_bytes_hurt_nobody() {
    let rig = Rig::start();
    refused(rig.issuer("cart").issue(vec![0x30; 10_000_000]).await);
    refused(rig.issuer("cart").issue(b"not a request".to_vec()).await);
    let mut raw = tokio::net::UnixStream::connect(rig.socket()).await.unwrap();
    raw.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    // The server ends the connection; what it says before is of no interest.
    let _ = raw.read_to_end(&mut Vec::new()).await;
    assert!(rig.issuer("cart").issue(csr()).await.is_ok());
}

#[tokio::test]
async fn the_socket_is_private_and_not_taken_over() {
    let rig = Rig::start();
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(rig.socket()), 0o600);
    assert_eq!(mode(rig.dir.path().join("run")), 0o700);
    let other = TempDir::new().unwrap();
    let options = AuthorityOptions::new(other.path().join("ca"), domain("east.test"));
    let authority = AuthorityHandle::new(Authority::open(options, clock::wall()).unwrap());
    let settings = CaSettings::new(rig.socket());
    let registry = rig.registry.clone();
    let second = CaServer::start(&settings, authority.clone(), registry.clone());
    assert!(matches!(second, Err(CaServerError::InUse { .. })));
    drop(rig.server);
    // The tasks end when they are next polled; until then the socket may still answer.
    let again = loop {
        match CaServer::start(&settings, authority.clone(), registry.clone()) {
            Err(CaServerError::InUse { .. }) => tokio::task::yield_now().await,
            outcome => break outcome,
        }
    };
    assert!(again.is_ok(), "a stale socket is replaced");
}

#[tokio::test]
async fn no_server_is_unavailable_and_not_a_refusal() {
    let dir = TempDir::new().unwrap();
    let issuer = UnixIssuer::new(dir.path().join("none.sock"), label("a"), label("b"));
    let outcome = issuer.issue(csr()).await;
    assert!(matches!(outcome, Err(IssueError::Unavailable { .. })));
}
