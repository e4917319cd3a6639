//! A real server and client on loopback, with a reviewer of fixed answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use isthmus_model::{Label, SpiffeId};
use isthmus_runtime::clock;
use rcgen::{CertificateParams, KeyPair, SanType};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::authority::{Authority, AuthorityHandle, AuthorityOptions, signing_request};
use crate::crypto::PrivateKey;
use crate::csr::CSR_BYTES_MAX;
use crate::renew::{IssueError, Issuer, RenewError, RenewSettings, Renewer};
use crate::svid::{Svid, SvidCell};
use crate::testing::{chain_and_key, domain, root};
use crate::verify::peer_id;

/// Answers by token, and counts how often it was asked.
#[derive(Debug, Default)]
struct Fixed {
    answers: BTreeMap<&'static str, Result<ReviewedWorkload, ReviewError>>,
    asked: AtomicUsize,
}

impl TokenReviewer for Fixed {
    fn review(&self, token: String) -> ReviewFuture<'_> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let unknown = || Err(ReviewError::Denied { reason: "it is of nobody".into() });
        let answer = self.answers.get(token.as_str()).cloned().unwrap_or_else(unknown);
        Box::pin(std::future::ready(answer))
    }
}

fn pod(account: &str, uid: &str) -> ReviewedWorkload {
    ReviewedWorkload {
        namespace: Label::new("shop").unwrap(),
        service_account: Label::new(account).unwrap(),
        pod: format!("{account}-0"),
        pod_uid: uid.into(),
    }
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://east.test/{text}")).unwrap()
}

const CONTROLLER: &str = "ns/isthmus-system/sa/isthmus-controller";

struct Rig {
    dir: TempDir,
    server: TokenCaServer,
    authority: AuthorityHandle,
    reviewer: Arc<Fixed>,
}

impl Rig {
    async fn start() -> Self {
        Self::with(CONTROLLER, &TokenCaSettings::default()).await
    }

    async fn with(server: &str, settings: &TokenCaSettings) -> Self {
        let dir = TempDir::new().unwrap();
        let options = AuthorityOptions::new(dir.path().join("ca"), domain("east.test"));
        let authority = AuthorityHandle::new(Authority::open(options, clock::wall()).unwrap());
        let key = PrivateKey::generate().unwrap();
        let csr = signing_request(&key).unwrap();
        let issued = authority.sign(&csr, &id(server)).unwrap();
        let svid = SvidCell::new();
        svid.publish(Svid::new(issued.chain, key.to_rustls()).unwrap());
        let unavailable = ReviewError::Unavailable { reason: "10.0.0.1 is secret".into() };
        let answers = [
            ("cart", Ok(pod("cart", "1"))),
            ("cart-again", Ok(pod("cart", "1"))),
            ("cart-2", Ok(pod("cart", "2"))),
            ("expired", Err(ReviewError::Expired)),
            ("gone", Err(ReviewError::PodGone)),
            ("later", Err(unavailable)),
        ];
        let reviewer = Arc::new(Fixed { answers: answers.into(), asked: AtomicUsize::new(0) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server =
            TokenCaServer::start(listener, svid, settings, authority.clone(), reviewer.clone())
                .unwrap();
        let rig = Self { dir, server, authority, reviewer };
        let roots = rig.authority.read(|authority| {
            let roots = authority.bundle().authorities().iter();
            roots.map(|root| pem(root.der())).collect::<String>()
        });
        rig.write("roots.pem", &roots);
        rig
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.dir.path().join(name), content).unwrap();
    }

    fn issuer(&self, token: &str) -> TokenIssuer {
        self.write("token", &format!("{token}\n"));
        TokenIssuer::new(TokenIssuerSettings {
            address: self.server.local_addr().to_string(),
            token_file: self.dir.path().join("token"),
            roots_file: self.dir.path().join("roots.pem"),
            controller: id(CONTROLLER),
        })
    }

    fn asked(&self) -> usize {
        self.reviewer.asked.load(Ordering::Relaxed)
    }
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
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

fn unavailable(outcome: Result<crate::renew::Issued, IssueError>) -> String {
    match outcome.unwrap_err() {
        IssueError::Unavailable { reason } => reason,
        other @ (IssueError::Timeout | IssueError::Refused { .. }) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_pod_gets_the_svid_of_its_account_and_the_bundle() {
    let rig = Rig::start().await;
    let cell = SvidCell::new();
    let cart = id("ns/shop/sa/cart");
    let issuer = Arc::new(rig.issuer("cart"));
    let mut renewer = Renewer::new(issuer, cart.clone(), cell.clone(), RenewSettings::new(1));
    renewer.renew_once().await.unwrap();
    assert_eq!(*cell.load().unwrap().id(), cart);
    assert!(renewer.bundle().borrow().is_some());
    // The kubelet has replaced the token: the next renewal sends the new one.
    rig.write("token", "expired");
    assert!(matches!(renewer.renew_once().await, Err(RenewError::Issue(_))));
    rig.write("token", "cart-again");
    renewer.renew_once().await.unwrap();
    rig.server.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn tokens_that_are_wrong_expired_or_of_a_gone_pod_get_nothing() {
    let rig = Rig::start().await;
    for (token, reason) in [
        ("stolen", "it is of nobody"),
        ("expired", "has expired"),
        ("gone", "the pod of the token is gone"),
    ] {
        let said = refused(rig.issuer(token).issue(csr()).await);
        assert!(said.contains(reason), "{token}: {said}");
    }
}

#[tokio::test]
async fn a_reviewer_that_cannot_be_asked_is_no_refusal_and_its_reason_stays_here() {
    let rig = Rig::start().await;
    let said = unavailable(rig.issuer("later").issue(csr()).await);
    assert!(said.contains("for now") && !said.contains("secret"), "{said}");
}

#[tokio::test]
async fn the_name_in_a_signing_request_is_not_believed() {
    let rig = Rig::start().await;
    let mut params = CertificateParams::new(vec!["isthmus-controller".into()]).unwrap();
    let wanted = id(CONTROLLER).to_string();
    params.subject_alt_names.push(SanType::URI(wanted.try_into().unwrap()));
    let asked = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let issued = rig.issuer("cart").issue(asked.der().to_vec()).await.unwrap();
    assert_eq!(peer_id(&issued.chain).unwrap(), id("ns/shop/sa/cart"));
    // And a pod that takes itself for another one does not use what it is given.
    let issuer = Arc::new(rig.issuer("cart"));
    let other = id("ns/shop/sa/web");
    let mut renewer = Renewer::new(issuer, other, SvidCell::new(), RenewSettings::new(1));
    assert!(matches!(renewer.renew_once().await, Err(RenewError::Identity { .. })));
}

#[tokio::test]
async fn requests_of_a_wrong_size_are_refused_before_any_review() {
    let rig = Rig::start().await;
    let said = refused(rig.issuer("cart").issue(vec![0x30; CSR_BYTES_MAX + 1]).await);
    assert!(said.contains("16385 bytes, at most 16384"), "{said}");
    // Above what a message may have, it is not even read.
    refused(rig.issuer("cart").issue(vec![0x30; 1024 * 1024]).await);
    refused(rig.issuer("").issue(csr()).await);
    // The client itself does not send what is no token.
    unavailable(rig.issuer(&"x".repeat(TOKEN_BYTES_MAX + 1)).issue(csr()).await);
    assert_eq!(rig.asked(), 0);
    refused(rig.issuer("cart").issue(vec![0x30; 100]).await);
    assert_eq!(rig.asked(), 1);
}

#[tokio::test]
async fn a_pod_that_asks_too_often_waits_and_another_of_the_account_does_not() {
    let settings = TokenCaSettings { sign_burst: 2, ..TokenCaSettings::default() };
    let rig = Rig::with(CONTROLLER, &settings).await;
    assert!(rig.issuer("cart").issue(csr()).await.is_ok());
    assert!(rig.issuer("cart-again").issue(csr()).await.is_ok());
    let said = refused(rig.issuer("cart").issue(csr()).await);
    assert!(said.contains("too many requests"), "{said}");
    assert!(rig.issuer("cart-2").issue(csr()).await.is_ok());
}

#[tokio::test]
async fn an_address_that_guesses_tokens_is_stopped_before_the_review() {
    let address_refill = Duration::from_secs(3600);
    let settings =
        TokenCaSettings { address_burst: 3, address_refill, ..TokenCaSettings::default() };
    let rig = Rig::with(CONTROLLER, &settings).await;
    for _ in 0..6 {
        refused(rig.issuer("guess").issue(csr()).await);
    }
    assert_eq!(rig.asked(), 3);
}

#[tokio::test]
async fn no_token_is_sent_to_a_server_that_is_not_the_controller() {
    let rig = Rig::with("ns/shop/sa/web", &TokenCaSettings::default()).await;
    unavailable(rig.issuer("cart").issue(csr()).await);
    // The right name under another root is no better.
    let foreign = root("east.test");
    let (chain, key) = chain_and_key(&foreign, id(CONTROLLER).as_str());
    let svid = SvidCell::new();
    svid.publish(Svid::new(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = TokenCaSettings::default();
    let (authority, reviewer) = (rig.authority.clone(), rig.reviewer.clone());
    let server = TokenCaServer::start(listener, svid, &settings, authority, reviewer).unwrap();
    let mut issuer = rig.issuer("cart").settings.clone();
    issuer.address = server.local_addr().to_string();
    unavailable(TokenIssuer::new(issuer).issue(csr()).await);
    assert_eq!(rig.asked(), 0);
}

#[tokio::test]
async fn files_that_are_missing_or_no_certificates_are_named() {
    let rig = Rig::start().await;
    let issuer = rig.issuer("cart");
    rig.write("roots.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let said = unavailable(issuer.issue(csr()).await);
    assert!(said.contains("roots.pem"), "{said}");
    std::fs::remove_file(rig.dir.path().join("token")).unwrap();
    let said = unavailable(issuer.issue(csr()).await);
    assert!(said.contains("token cannot be used"), "{said}");
}
