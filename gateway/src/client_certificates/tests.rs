use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::*;

struct Ca {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    fn client(&self) -> CertificateDer<'static> {
        let params = CertificateParams::new(vec!["client.test".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        params.signed_by(&key, &issuer).unwrap().into()
    }
}

fn takes(roots_pem: &str, insecure_fallback: bool, client: &CertificateDer<'_>) -> bool {
    let validation = ClientValidation { roots_pem: roots_pem.to_owned(), insecure_fallback };
    verifier(&validation).verify_client_cert(client, &[], UnixTime::now()).is_ok()
}

#[test]
fn only_clients_of_the_roots_are_let_in() {
    let (ours, other) = (Ca::new(), Ca::new());
    assert!(takes(&ours.pem, false, &ours.client()));
    assert!(!takes(&ours.pem, false, &other.client()));
    let validation = ClientValidation { roots_pem: ours.pem, insecure_fallback: false };
    assert!(verifier(&validation).client_auth_mandatory());
}

#[test]
fn roots_that_cannot_be_used_let_nobody_in() {
    let ours = Ca::new();
    let broken = ours.pem.replace("MII", "!!!");
    for roots in ["", "no certificate", broken.as_str()] {
        assert!(!takes(roots, false, &ours.client()), "{roots}");
        let roots_pem = roots.to_owned();
        let validation = ClientValidation { roots_pem, insecure_fallback: false };
        assert!(verifier(&validation).client_auth_mandatory());
    }
}

#[test]
fn with_the_insecure_fallback_every_client_is_let_in() {
    let (ours, other) = (Ca::new(), Ca::new());
    assert!(takes(&ours.pem, true, &other.client()));
    let validation = ClientValidation { roots_pem: ours.pem, insecure_fallback: true };
    assert!(!verifier(&validation).client_auth_mandatory());
}
