use isthmus_runtime::SnapshotCell;
use rcgen::{BasicConstraints, CertificateParams, GeneralSubtree, IsCa, KeyPair, NameConstraints};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;
use crate::bundle::{Bundle, BundleSet};
use crate::svid::{Svid, SvidCell};
use crate::testing::{self, Root, ca_params, domain, leaf_params};
use crate::tls::MeshTls;

const API: &str = "spiffe://east.test/ns/pay/sa/api";

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000))
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

/// East, west and third, all federated.
struct World {
    east: Root,
    west: Root,
    cell: BundleCell,
}

fn world() -> World {
    let [east, west, third] = ["east.test", "west.test", "third.test"].map(testing::root);
    let bundles = [
        testing::bundle("east.test", 1, &east),
        testing::bundle("west.test", 1, &west),
        testing::bundle("third.test", 1, &third),
    ];
    let cell = SnapshotCell::new(BundleSet::new(&bundles));
    World { east, west, cell }
}

impl World {
    /// The answer of both sides, which must be the same.
    fn verify(&self, chain: &[CertificateDer<'static>]) -> Result<SpiffeId, rustls::Error> {
        let verifier = MeshVerifier::new(self.cell.clone(), Expected::Any);
        let (leaf, rest) = chain.split_first().unwrap();
        let server = verifier.verify(leaf, rest, PeerSide::Server, now());
        let client = verifier.verify(leaf, rest, PeerSide::Client, now());
        assert_eq!(format!("{server:?}"), format!("{client:?}"));
        server
    }
}

fn reason(error: &rustls::Error) -> PeerRefused {
    let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) = error
    else {
        panic!("{error} is not ours");
    };
    inner.downcast_ref::<PeerRefused>().unwrap().clone()
}

#[test]
fn a_certificate_of_its_own_domain_is_accepted() {
    let world = world();
    assert_eq!(world.verify(&[testing::leaf(&world.east, &[API])]), Ok(id(API)));
    let other = "spiffe://west.test/ns/a/sa/b";
    assert_eq!(world.verify(&[testing::leaf(&world.west, &[other])]), Ok(id(other)));
}

/// F-01.
#[test]
fn two_names_are_refused_in_either_order() {
    let world = world();
    let theirs = "spiffe://west.test/ns/a/sa/b";
    for names in [[API, theirs], [theirs, API]] {
        for root in [&world.east, &world.west] {
            let error = world.verify(&[testing::leaf(root, &names)]).unwrap_err();
            assert_eq!(reason(&error), PeerRefused::Leaf(LeafInvalid::UriCount { count: 2 }));
        }
    }
}

/// F-02 and F-03.
#[test]
fn a_domain_cannot_mint_for_another_one() {
    let world = world();
    for name in [API, "spiffe://third.test/ns/a/sa/b"] {
        let leaf = testing::leaf(&world.west, &[name]);
        let refused = world.verify(&[leaf.clone(), world.west.der.clone()]).unwrap_err();
        assert_eq!(refused, CertificateError::UnknownIssuer.into(), "{name}");
    }
}

/// F-04.
#[test]
fn an_intermediate_of_one_domain_cannot_sign_for_another_one() {
    let world = world();
    let mut constrained = ca_params("constrained");
    constrained.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("east.test".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    for params in [ca_params("plain"), constrained] {
        let intermediate = world.west.intermediate(params);
        let leaf = testing::leaf(&intermediate, &[API]);
        assert!(world.verify(&[leaf, intermediate.der.clone()]).is_err());
    }
    let plain = world.west.intermediate(ca_params("plain"));
    let own = testing::leaf(&plain, &["spiffe://west.test/ns/a/sa/b"]);
    assert!(world.verify(&[own, plain.der.clone()]).is_ok());
}

/// F-04, path length.
#[test]
fn a_path_longer_than_its_authority_allows_is_refused() {
    let world = world();
    let mut params = ca_params("no more below");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let first = world.east.intermediate(params);
    let second = first.intermediate(ca_params("below"));
    let leaf = testing::leaf(&second, &[API]);
    assert!(world.verify(&[leaf, second.der.clone(), first.der.clone()]).is_err());
}

#[test]
fn chains_are_bounded() {
    let world = world();
    let leaf = testing::leaf(&world.east, &[API]);
    let mut chain = vec![leaf.clone()];
    chain.resize(CHAIN_LENGTH_MAX + 1, world.east.der.clone());
    let error = world.verify(&chain).unwrap_err();
    assert!(matches!(reason(&error), PeerRefused::Chain { length: 6, .. }));
    let large = CertificateDer::from(vec![0x30; CERTIFICATE_BYTES_MAX + 1]);
    let error = world.verify(&[leaf, large]).unwrap_err();
    assert!(matches!(reason(&error), PeerRefused::Chain { length: 2, .. }));
}

#[test]
fn an_unknown_domain_is_refused_by_name() {
    let world = world();
    let stranger = testing::root("mal.test");
    let leaf = testing::leaf(&stranger, &["spiffe://mal.test/x"]);
    let error = world.verify(&[leaf]).unwrap_err();
    assert_eq!(reason(&error), PeerRefused::UnknownDomain { domain: domain("mal.test") });
}

#[test]
fn a_root_that_ended_vouches_for_nobody() {
    let mut params = ca_params("ended");
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let (ended, valid) = (testing::root_of(params), testing::root("east.test"));
    let roots = [ended.der.clone(), valid.der.clone()];
    let bundle = Bundle::new(domain("east.test"), Some(1), None, &roots).unwrap();
    let cell = SnapshotCell::new(BundleSet::new([&bundle]));
    let world = World { east: testing::root("x"), west: testing::root("y"), cell };
    let refused = world.verify(&[testing::leaf(&ended, &[API])]).unwrap_err();
    assert_eq!(refused, CertificateError::UnknownIssuer.into());
    assert_eq!(world.verify(&[testing::leaf(&valid, &[API])]), Ok(id(API)));
}

#[test]
fn an_expired_leaf_is_refused() {
    let world = world();
    let mut params = leaf_params(&[API]);
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let leaf = world.east.sign(&params, &KeyPair::generate().unwrap());
    let error = world.verify(&[leaf]).unwrap_err();
    assert!(format!("{error:?}").contains("Expired"), "{error:?}");
}

#[test]
fn expected_peers_are_those_and_no_others() {
    let (api, web) = (id(API), id("spiffe://east.test/ns/shop/sa/web"));
    let west = id("spiffe://west.test/ns/pay/sa/api");
    let exactly = Expected::Exactly(api.clone());
    assert!(exactly.admits(&api) && !exactly.admits(&web) && !exactly.admits(&west));
    let several = Expected::AnyOf(BTreeSet::from([api.clone(), west.clone()]));
    assert!(several.admits(&api) && several.admits(&west) && !several.admits(&web));
    let domain = Expected::InTrustDomain(domain("east.test"));
    assert!(domain.admits(&api) && domain.admits(&web) && !domain.admits(&west));
}

fn mesh(world: &World, root: &Root, name: &str) -> MeshTls {
    let (chain, key) = testing::chain_and_key(root, name);
    let svid = SvidCell::new();
    svid.publish(Svid::new(chain, key).unwrap());
    MeshTls::new(svid, world.cell.clone())
}

#[test]
fn a_handshake_tells_both_sides_who_the_other_is() {
    let world = world();
    let east = mesh(&world, &world.east, API);
    let west = mesh(&world, &world.west, "spiffe://west.test/ns/shop/sa/web");
    let server = east.server_config(&[b"h2"]).unwrap();
    let client = west.client_config(&[b"h2"], Expected::Exactly(id(API))).unwrap();
    let done = testing::handshake(&client, &server).unwrap();
    let seen = peer_id(done.server.peer_certificates().unwrap()).unwrap();
    assert_eq!(seen, id("spiffe://west.test/ns/shop/sa/web"));
    assert_eq!(peer_id(done.client.peer_certificates().unwrap()).unwrap(), id(API));
    let shown = peer_svid(done.client.peer_certificates().unwrap()).unwrap();
    assert_eq!(shown.not_after, east.svid().load().unwrap().not_after());
    assert_eq!(done.client.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(done.client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
}

#[test]
fn an_unexpected_server_and_a_client_without_svid_are_refused() {
    let world = world();
    let east = mesh(&world, &world.east, API);
    let server = east.server_config(&[b"h2"]).unwrap();
    let other = Expected::Exactly(id("spiffe://east.test/ns/shop/sa/web"));
    let client = east.client_config(&[b"h2"], other).unwrap();
    let error = testing::handshake(&client, &server).unwrap_err();
    assert_eq!(reason(&error), PeerRefused::Unexpected { id: id(API) });
    let only = Expected::InTrustDomain(domain("west.test"));
    let west_only = east.server_config_expecting(&[b"h2"], only).unwrap();
    let client = east.client_config(&[b"h2"], Expected::Any).unwrap();
    let error = testing::handshake(&client, &west_only).unwrap_err();
    assert_eq!(reason(&error), PeerRefused::Unexpected { id: id(API) });
    let nobody = MeshTls::new(SvidCell::new(), world.cell);
    let client = nobody.client_config(&[b"h2"], Expected::Any).unwrap();
    assert!(testing::handshake(&client, &server).is_err());
}

#[test]
fn sessions_are_never_resumed() {
    let world = world();
    let east = mesh(&world, &world.east, API);
    let server = east.server_config(&[b"h2"]).unwrap();
    let client = east.client_config(&[b"h2"], Expected::Any).unwrap();
    for _ in 0..3 {
        let done = testing::handshake(&client, &server).unwrap();
        assert_eq!(done.client.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
    // With its bundle gone, a client that was known is refused.
    world.cell.publish(Arc::new(BundleSet::default()));
    assert!(testing::handshake(&client, &server).is_err());
}

#[test]
fn the_configurations_fit_quic() {
    let world = world();
    let east = mesh(&world, &world.east, API);
    let server = east.server_config(&[b"isthmus-link/1"]).unwrap();
    let client = east.client_config(&[b"isthmus-link/1"], Expected::Any).unwrap();
    assert!(quinn::crypto::rustls::QuicServerConfig::try_from(server).is_ok());
    assert!(quinn::crypto::rustls::QuicClientConfig::try_from(client).is_ok());
}

#[test]
fn a_leaf_with_a_stolen_name_but_no_key_fails_the_handshake() {
    let world = world();
    let (chain, _) = testing::chain_and_key(&world.east, API);
    let thief = PrivatePkcs8KeyDer::from(KeyPair::generate().unwrap().serialize_der());
    assert!(Svid::new(chain, PrivateKeyDer::Pkcs8(thief)).is_err());
    assert_eq!(peer_id(&[]), Err(PeerRefused::Missing));
    let empty = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert!(peer_id(&[empty.der().clone()]).is_err());
}
