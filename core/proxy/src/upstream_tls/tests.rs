use isthmus_model::ServiceKey;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

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

    fn leaf(&self, dns: &str, uri: Option<&str>) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec![dns.to_owned()]).unwrap();
        let uri = uri.map(|uri| SanType::URI(uri.try_into().unwrap()));
        params.subject_alt_names.extend(uri);
        let issuer = Issuer::from_params(&self.params, &self.key);
        params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().into()
    }
}

fn accepts(ca: &Ca, names: Vec<SubjectName>, leaf: &CertificateDer<'_>) -> bool {
    let roots = roots(&BackendRoots::Pem(ca.pem.clone())).unwrap();
    let algorithms = provider().signature_verification_algorithms;
    let verifier = BackendVerifier { roots, names, algorithms };
    let ignored = ServerName::try_from("ignored.test").unwrap();
    verifier.verify_server_cert(leaf, &[], &ignored, &[], UnixTime::now()).is_ok()
}

#[test]
fn a_leaf_needs_the_chain_and_one_of_the_names() {
    let (ca, other) = (Ca::new(), Ca::new());
    let dns = |name: &str| vec![SubjectName::Dns(name.to_owned())];
    let uri = |name: &str| vec![SubjectName::Uri(name.to_owned())];
    let leaf = ca.leaf("a.shop.test", Some("spiffe://d/ns/a/sa/b"));
    for (names, want) in [
        (dns("a.shop.test"), true),
        (dns("b.shop.test"), false),
        (dns("*.shop.test"), true),
        (dns("*.test"), false),
        (uri("spiffe://d/ns/a/sa/b"), true),
        (uri("spiffe://d/ns/a/sa/c"), false),
        ([dns("x.test"), uri("spiffe://d/ns/a/sa/b")].concat(), true),
    ] {
        assert_eq!(accepts(&ca, names.clone(), &leaf), want, "{names:?}");
        assert!(!accepts(&other, names, &leaf), "another root");
    }
    assert!(accepts(&ca, dns("a.wild.test"), &ca.leaf("*.wild.test", None)));
}

#[test]
fn a_policy_without_usable_roots_makes_no_configuration() {
    for pem in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(roots(&BackendRoots::Pem(pem.into())).is_err());
    }
    let policy = BackendTls {
        policy: "a/b".into(),
        service: ServiceKey::from_host("cart.shop.svc.cluster.local").unwrap(),
        port: None,
        hostname: "a.test".into(),
        names: vec![],
        roots: BackendRoots::Invalid { reason: "no such ConfigMap".into() },
    };
    let tls = UpstreamTls { policy: Arc::new(policy), certificate: None };
    assert_eq!(tls.unusable(), Some("no such ConfigMap"));
    let purpose = Purpose::Http { app: AppProtocol::Http };
    let error = BackendConfigs::default().get(&tls, purpose).unwrap_err();
    assert!(error.to_string().contains("BackendTLSPolicy a/b: no such ConfigMap"), "{error}");
}
