use std::sync::atomic::{AtomicU32, Ordering};

use isthmus_certs::{Authority, AuthorityOptions, IssueFuture};
use isthmus_runtime::{Drain, clock};

use super::*;

fn domain() -> TrustDomain {
    TrustDomain::new("east.test").unwrap()
}

/// Is away for some attempts, then signs.
#[derive(Debug)]
struct Late {
    issuer: AuthorityIssuer,
    attempts: AtomicU32,
}

impl Issuer for Late {
    fn issue(&self, csr_der: Vec<u8>) -> IssueFuture<'_> {
        if self.attempts.fetch_add(1, Ordering::Relaxed) < 3 {
            let reason = "connection refused".to_owned();
            return Box::pin(async { Err(IssueError::Unavailable { reason }) });
        }
        self.issuer.issue(csr_der)
    }
}

fn identities(state: &Path, drain: &Drain) -> Identities {
    let issuance = Issuance::Token(TokenIssuerSettings {
        address: "127.0.0.1:1".to_owned(),
        token_file: state.join("token"),
        roots_file: state.join("roots.pem"),
        controller: system_id(&domain(), "isthmus-controller").unwrap(),
    });
    Identities { issuance, trust_domain: domain(), state: state.to_owned(), stop: drain.stop() }
}

#[tokio::test]
async fn an_authority_that_is_away_at_first_is_asked_until_it_answers() {
    let folder = tempfile::tempdir().unwrap();
    let options = AuthorityOptions::new(folder.path().join("ca"), domain());
    let authority = AuthorityHandle::new(Authority::open(options, clock::wall()).unwrap());
    let id = system_id(&domain(), "isthmus-eastwest").unwrap();
    let issuer = AuthorityIssuer::new(authority, id.clone());
    let late = Arc::new(Late { issuer, attempts: AtomicU32::new(0) });
    let svid = SvidCell::new();
    let mut renewer = Renewer::new(Arc::clone(&late) as _, id, svid.clone(), RenewSettings::new(1));
    let drain = Drain::new();
    identities(folder.path(), &drain).first(&mut renewer).await.unwrap();
    assert_eq!(late.attempts.load(Ordering::Relaxed), 4);
    assert_eq!(renewer.health().borrow().renewals, 1);
}

#[test]
fn only_a_pod_with_a_state_may_start_without_an_identity() {
    let folder = tempfile::tempdir().unwrap();
    let drain = Drain::new();
    let mut identities = identities(folder.path(), &drain);
    assert_eq!(identities.first_wait(), FOREVER);
    std::fs::write(folder.path().join("created.json"), "{}").unwrap();
    assert_eq!(identities.first_wait(), FOREVER);
    std::fs::write(folder.path().join("snapshot-ingress.json"), "{}").unwrap();
    assert_eq!(identities.first_wait(), FIRST_WAIT);
    identities.state = folder.path().join("absent");
    identities.issuance = Issuance::Socket(folder.path().join("ca.sock"));
    assert_eq!(identities.first_wait(), FIRST_WAIT, "outside of a cluster as well");
}
