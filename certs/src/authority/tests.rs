use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType};
use tempfile::TempDir;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::bundle::{Acceptance, BundleStore};
use crate::csr::CsrRefused;
use crate::svid::{Svid, SvidCell};
use crate::testing::{self, Clock, domain};
use crate::tls::MeshTls;
use crate::verify::Expected;

const T0: u64 = 1_800_000_000;
const MINUTE: u64 = 60;

fn at(seconds: u64) -> SystemTime {
    moment::time(seconds)
}

fn options(dir: &Path, name: &str) -> AuthorityOptions {
    AuthorityOptions::new(dir.join(name), domain(name))
}

fn open(dir: &Path) -> Authority {
    Authority::open(options(dir, "east.test"), at(T0)).unwrap()
}

fn api() -> SpiffeId {
    SpiffeId::parse("spiffe://east.test/ns/pay/sa/api").unwrap()
}

fn csr() -> Vec<u8> {
    signing_request(&PrivateKey::generate().unwrap()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// F-17: the request asks for everything and gets its key signed.
#[test]
fn a_request_contributes_only_its_key() {
    let dir = TempDir::new().unwrap();
    let authority = open(dir.path());
    let key = KeyPair::generate().unwrap();
    let mut greedy = CertificateParams::default();
    greedy.subject_alt_names = (0..100)
        .map(|n| {
            SanType::URI(format!("spiffe://east.test/ns/kube-system/sa/x{n}").try_into().unwrap())
        })
        .chain([SanType::DnsName("*.east.test".try_into().unwrap())])
        .collect();
    greedy.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    greedy.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    greedy.is_ca = IsCa::ExplicitNoCa;
    let csr = greedy.serialize_request(&key).unwrap();
    let issued = authority.sign(csr.der(), &api(), at(T0)).unwrap();
    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    assert_eq!(crate::verify::peer_id(&issued.chain).unwrap(), api());
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 1);
    assert!(leaf.subject().iter().next().is_none());
    assert_eq!(leaf.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
    assert!(!leaf.is_ca());
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign());
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.client_auth && extended.server_auth && !extended.code_signing);
    let validity = leaf.validity();
    assert_eq!(validity.not_before.timestamp(), (T0 - 300) as i64);
    assert_eq!(validity.not_after.timestamp(), (T0 + 3600) as i64);
    assert_eq!(leaf.raw_serial(), issued.serial);
}

#[test]
fn another_domain_and_a_bad_request_are_refused() {
    let dir = TempDir::new().unwrap();
    let authority = open(dir.path());
    let west = SpiffeId::parse("spiffe://west.test/ns/pay/sa/api").unwrap();
    let refused = authority.sign(&csr(), &west, at(T0)).unwrap_err();
    assert!(matches!(refused, AuthorityError::ForeignId { .. }));
    let refused = authority.sign(b"", &api(), at(T0)).unwrap_err();
    assert!(matches!(refused, AuthorityError::Csr(CsrRefused::Malformed)));
}

/// F-18.
#[test]
fn serials_are_random_and_a_clock_set_back_is_harmless() {
    let dir = TempDir::new().unwrap();
    let authority = open(dir.path());
    let csr = csr();
    let mut serials = std::collections::BTreeSet::new();
    for _ in 0..200 {
        assert!(serials.insert(authority.sign(&csr, &api(), at(T0)).unwrap().serial));
    }
    assert!(serials.iter().all(|serial| serial[0] & 0x80 == 0 && serial[0] != 0));
    assert!(authority.sign(&csr, &api(), at(T0 - 3600)).is_ok());
    let refused = authority.sign(&csr, &api(), at(T0 - 86_400)).unwrap_err();
    assert!(matches!(refused, AuthorityError::SignerExpired { .. }));
    let refused = authority.sign(&csr, &api(), SystemTime::UNIX_EPOCH).unwrap_err();
    assert!(matches!(refused, AuthorityError::SignerExpired { .. }));
}

#[test]
fn keys_are_for_the_owner_alone() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()));
    let state = dir.path().join("east.test");
    assert_eq!(mode(&state), 0o700);
    for file in ["root-1.key", "intermediate-2.key", "authority.json"] {
        assert_eq!(mode(&state.join(file)), 0o600, "{file}");
    }
    let key = state.join("intermediate-2.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = Authority::open(options(dir.path(), "east.test"), at(T0)).unwrap_err();
    let AuthorityError::Permissions { path, mode } = refused else { panic!("{refused}") };
    assert_eq!((path, mode), (key.clone(), 0o640));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    let refused = Authority::open(options(dir.path(), "east.test"), at(T0)).unwrap_err();
    assert!(matches!(refused, AuthorityError::Permissions { mode: 0o755, .. }));
}

#[test]
fn two_processes_are_not_one_authority() {
    let dir = TempDir::new().unwrap();
    let first = open(dir.path());
    let refused = Authority::open(options(dir.path(), "east.test"), at(T0)).unwrap_err();
    assert!(matches!(refused, AuthorityError::Locked { .. }));
    drop(first);
    open(dir.path());
}

#[test]
fn files_that_do_not_fit_are_named() {
    let dir = TempDir::new().unwrap();
    let state = dir.path().join("east.test");
    drop(open(dir.path()));
    let other = TempDir::new().unwrap();
    drop(open(other.path()));
    let foreign = other.path().join("east.test");
    let good: Vec<_> = ["root-1.crt", "intermediate-2.crt", "intermediate-2.key", "authority.json"]
        .map(|file| (file, fs::read(state.join(file)).unwrap()))
        .into();
    for (file, content) in &good {
        let mut bad = vec![b"garbage".to_vec(), content[..content.len() / 2].to_vec()];
        if !file.ends_with("json") {
            bad.push(fs::read(foreign.join(file)).unwrap());
        }
        for bad in bad {
            fs::write(state.join(file), bad).unwrap();
            let refused = Authority::open(options(dir.path(), "east.test"), at(T0)).unwrap_err();
            assert!(matches!(refused, AuthorityError::Corrupt { .. }), "{file}: {refused}");
        }
        fs::write(state.join(file), content).unwrap();
    }
    let mut renamed = options(dir.path(), "east.test");
    renamed.trust_domain = domain("west.test");
    assert!(matches!(Authority::open(renamed, at(T0)), Err(AuthorityError::Corrupt { .. })));
    open(dir.path());
    fs::remove_file(state.join("authority.json")).unwrap();
    let refused = Authority::open(options(dir.path(), "east.test"), at(T0)).unwrap_err();
    assert!(matches!(refused, AuthorityError::Corrupt { .. }), "a lost state is not replaced");
}

#[test]
fn a_crash_in_the_first_start_is_not_fatal() {
    let dir = TempDir::new().unwrap();
    let state = dir.path().join("east.test");
    drop(open(dir.path()));
    // What a crash before the state file was written leaves.
    fs::remove_file(state.join("authority.json")).unwrap();
    fs::write(state.join("creating"), b"").unwrap();
    let authority = open(dir.path());
    assert!(authority.sign(&csr(), &api(), at(T0)).is_ok());
    assert!(!state.join("creating").exists());
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let dir = TempDir::new().unwrap();
    let refused = |change: fn(&mut AuthorityOptions)| {
        let mut options = options(dir.path(), "east.test");
        change(&mut options);
        let error = Authority::open(options, at(T0)).unwrap_err();
        let AuthorityError::Option { setting, .. } = error else { panic!("{error}") };
        setting
    };
    assert_eq!(refused(|o| o.svid_lifetime = Duration::from_secs(1)), "svid_lifetime");
    let short = refused(|o| o.intermediate_lifetime = Duration::from_secs(3600));
    assert_eq!(short, "intermediate_lifetime");
    assert_eq!(refused(|o| o.root_lifetime = Duration::from_secs(86_400)), "root_lifetime");
    assert_eq!(refused(|o| o.root_overlap = o.root_lifetime), "root_overlap");
}

/// The phases of a whole rotation, with a restart after each step.
#[test]
fn a_rotation_survives_a_restart_in_every_phase() {
    let dir = TempDir::new().unwrap();
    let reopen = |authority: Authority, now: u64| {
        let before = Arc::clone(authority.bundle());
        drop(authority);
        let after = Authority::open(options(dir.path(), "east.test"), at(now)).unwrap();
        assert_eq!(*before, **after.bundle());
        after
    };
    let mut authority = reopen(open(dir.path()), T0);
    let first = authority.bundle().sequence().unwrap();
    let old_root = authority.bundle().authorities()[0].clone();
    authority.rotate_root(at(T0)).unwrap();
    let refused = authority.rotate_root(at(T0)).unwrap_err();
    assert!(matches!(refused, AuthorityError::Rotation { .. }));
    let mut authority = reopen(authority, T0);
    assert_eq!(authority.bundle().authorities().len(), 2);
    assert_eq!(authority.bundle().sequence(), Some(first + 1));
    let activate = T0 + 15 * MINUTE;
    assert_eq!(authority.tick(at(activate - 1)).unwrap(), []);
    assert_eq!(authority.tick(at(activate)).unwrap(), [RotationStep::ActivateRoot]);
    let mut authority = reopen(authority, activate);
    let retire = activate + 65 * MINUTE;
    assert_eq!(authority.next_due(), at(retire));
    assert_eq!(authority.tick(at(retire - 1)).unwrap(), []);
    assert_eq!(authority.tick(at(retire)).unwrap(), [RotationStep::RetireRoot]);
    let authority = reopen(authority, retire);
    assert_eq!(authority.bundle().sequence(), Some(first + 2));
    assert_eq!(authority.bundle().authorities().len(), 1);
    assert!(!authority.bundle().authorities().contains(&old_root));
    assert!(!authority.is_rotating_root());
    assert!(!dir.path().join("east.test/root-1.key").exists(), "the old key is gone");
}

#[test]
fn a_longer_lifetime_of_the_past_delays_the_retirement() {
    let dir = TempDir::new().unwrap();
    let mut long = options(dir.path(), "east.test");
    long.svid_lifetime = Duration::from_secs(10 * 3600);
    drop(Authority::open(long, at(T0)).unwrap());
    let mut authority = open(dir.path());
    authority.rotate_root(at(T0)).unwrap();
    authority.tick(at(T0 + 15 * MINUTE)).unwrap();
    assert_eq!(authority.next_due(), at(T0 + 15 * MINUTE + 10 * 3600 + 300));
}

#[test]
fn intermediates_rotate_by_themselves_and_orphans_go() {
    let dir = TempDir::new().unwrap();
    let mut authority = open(dir.path());
    let week = 7 * 86_400;
    assert_eq!(authority.next_due(), at(T0 + week / 2));
    let before = authority.sign(&csr(), &api(), at(T0)).unwrap();
    let steps = authority.tick(at(T0 + week / 2)).unwrap();
    assert_eq!(steps, [RotationStep::RotateIntermediate]);
    let after = authority.sign(&csr(), &api(), at(T0 + week / 2)).unwrap();
    assert_ne!(before.chain[1], after.chain[1]);
    let state = dir.path().join("east.test");
    assert!(!state.join("intermediate-2.key").exists());
    assert!(state.join("intermediate-3.key").exists());
    fs::write(state.join("root-99.key"), "left by a crash").unwrap();
    drop(authority);
    open(dir.path());
    assert!(!state.join("root-99.key").exists());
}

#[test]
fn a_machine_that_slept_for_years_comes_back() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()));
    let late = T0 + 20 * 365 * 86_400;
    let mut authority = Authority::open(options(dir.path(), "east.test"), at(late)).unwrap();
    assert!(authority.sign(&csr(), &api(), at(late)).is_err());
    authority.tick(at(late)).unwrap();
    assert!(authority.sign(&csr(), &api(), at(late)).is_ok());
}

#[test]
fn a_state_that_cannot_be_written_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let mut authority = open(dir.path());
    let before = Arc::clone(authority.bundle());
    let state = dir.path().join("east.test");
    let moved = dir.path().join("moved");
    fs::rename(&state, &moved).unwrap();
    assert!(authority.rotate_root(at(T0)).is_err());
    assert!(authority.rotate_intermediate(at(T0)).is_err());
    assert_eq!(before, *authority.bundle());
    assert!(authority.sign(&csr(), &api(), at(T0)).is_ok(), "it serves on from memory");
    fs::rename(&moved, &state).unwrap();
    assert!(authority.rotate_root(at(T0)).is_ok());
}

/// One cluster of the rotation test: an authority, what it knows of others, a workload.
struct Cluster {
    authority: Authority,
    store: BundleStore,
    tls: MeshTls,
    renew_at: u64,
}

impl Cluster {
    fn new(dir: &Path, name: &str) -> Self {
        let authority = Authority::open(options(dir, name), at(T0)).unwrap();
        let store = BundleStore::open(dir.join(format!("{name}.json")), domain(name)).unwrap();
        let tls = MeshTls::new(SvidCell::new(), store.cell());
        Self { authority, store, tls, renew_at: 0 }
    }

    fn step(&mut self, now: u64) {
        self.authority.tick(at(now)).unwrap();
        self.store.set_own(at(now), Bundle::clone(self.authority.bundle())).unwrap();
        if now >= self.renew_at {
            let domain = self.authority.trust_domain();
            let id = SpiffeId::parse(&format!("spiffe://{domain}/ns/a/sa/b")).unwrap();
            let key = PrivateKey::generate().unwrap();
            let csr = signing_request(&key).unwrap();
            let issued = self.authority.sign(&csr, &id, at(now)).unwrap();
            self.tls.svid().publish(Svid::new(issued.chain, key.to_rustls()).unwrap());
            self.renew_at = now + 1800;
        }
    }
}

/// C-10: three rotations in both clusters, handshakes each minute, bundles that arrive
/// at the peer ten minutes late, and none fails. Afterwards the old root is worth nothing.
#[test]
fn roots_rotate_without_a_failed_handshake() {
    let dir = TempDir::new().unwrap();
    let clock = Clock::default();
    let mut east = Cluster::new(dir.path(), "east.test");
    let mut west = Cluster::new(dir.path(), "west.test");
    let mut on_the_way = std::collections::VecDeque::new();
    let first_root = east.authority.bundle().authorities()[0].clone();
    let mut former = None;
    let [server_east, server_west] =
        [&east, &west].map(|side| clock.server(&side.tls.server_config(&[b"h2"]).unwrap()));
    let client = |side: &Cluster, to: &str| {
        let expected = Expected::InTrustDomain(domain(to));
        clock.client(&side.tls.client_config(&[b"h2"], expected).unwrap())
    };
    let (to_west, to_east) = (client(&east, "west.test"), client(&west, "east.test"));
    let (mut handshakes, mut rotations) = (0, 0);
    for minute in 0..300 {
        let now = T0 + minute * MINUTE;
        clock.set(now);
        if minute % 90 == 20 {
            east.authority.rotate_root(at(now)).unwrap();
            rotations += 1;
        }
        if minute % 90 == 25 {
            west.authority.rotate_root(at(now)).unwrap();
        }
        east.step(now);
        west.step(now);
        let bundles = [&east, &west].map(|side| side.authority.bundle().to_jwks());
        on_the_way.push_back(bundles);
        let late = if minute == 0 { 0 } else { 10 };
        if on_the_way.len() > late {
            let [of_east, of_west] = on_the_way.pop_front().unwrap();
            let (e, w) = (domain("east.test"), domain("west.test"));
            west.store.accept(at(now), &e, Bundle::from_jwks(&e, &of_east).unwrap()).unwrap();
            east.store.accept(at(now), &w, Bundle::from_jwks(&w, &of_west).unwrap()).unwrap();
        }
        for (client, server) in [(&to_west, &server_west), (&to_east, &server_east)] {
            testing::handshake(client, server)
                .unwrap_or_else(|error| panic!("minute {minute}: {error}"));
            handshakes += 1;
        }
        if minute == 30 {
            former = east.tls.svid().load();
        }
    }
    assert_eq!((handshakes, rotations), (600, 4));
    assert!(!east.authority.bundle().authorities().contains(&first_root));
    // Even with a clock at which it was alive, an SVID under the removed root is refused.
    east.tls.svid().publish(former.unwrap());
    clock.set(T0 + 31 * MINUTE);
    assert!(testing::handshake(&to_west, &server_west).is_err());
}

#[test]
fn the_users_intermediate_signs_and_its_roots_are_published() {
    let dir = TempDir::new().unwrap();
    let corporate = testing::root("corporate");
    let user = write_user(dir.path(), &corporate, 0o600);
    let mut options = options(dir.path(), "east.test");
    options.user_intermediate = Some(user.clone());
    let mut authority = Authority::open(options.clone(), at(T0)).unwrap();
    let issued = authority.sign(&csr(), &api(), at(T0)).unwrap();
    assert_eq!(issued.chain.len(), 2);
    assert_eq!(authority.bundle().authorities()[0].der(), &corporate.der);
    assert!(matches!(authority.rotate_root(at(T0)), Err(AuthorityError::Rotation { .. })));
    let sequence = authority.bundle().sequence().unwrap();
    // The user changes to another root: the former stays until its SVIDs are dead.
    write_user(dir.path(), &testing::root("corporate"), 0o600);
    authority.reload_user_intermediate(at(T0)).unwrap();
    assert_eq!(authority.bundle().authorities().len(), 2);
    assert_eq!(authority.bundle().sequence(), Some(sequence + 1));
    drop(authority);
    let mut authority = Authority::open(options.clone(), at(T0)).unwrap();
    assert_eq!(authority.bundle().sequence(), Some(sequence + 1));
    assert_eq!(authority.tick(at(T0 + 65 * MINUTE)).unwrap(), [RotationStep::RetireUserRoot]);
    assert_eq!(authority.bundle().authorities().len(), 1);
    drop(authority);
    fs::write(&user.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let refused = Authority::open(options.clone(), at(T0)).unwrap_err();
    assert!(matches!(refused, AuthorityError::Corrupt { path, .. } if path == user.key));
    write_user(dir.path(), &corporate, 0o644);
    let refused = Authority::open(options, at(T0)).unwrap_err();
    assert!(matches!(refused, AuthorityError::Permissions { .. }));
}

#[test]
fn an_intermediate_may_itself_be_the_anchor() {
    let dir = TempDir::new().unwrap();
    let mut user = write_user(dir.path(), &testing::root("corporate"), 0o600);
    user.roots.clone_from(&user.chain);
    let mut options = options(dir.path(), "east.test");
    options.user_intermediate = Some(user);
    let authority = Authority::open(options, at(T0)).unwrap();
    assert_eq!(authority.sign(&csr(), &api(), at(T0)).unwrap().chain.len(), 1);
}

fn write_user(dir: &Path, root: &testing::Root, mode: u32) -> UserIntermediate {
    let intermediate = root.intermediate(testing::ca_params("user's"));
    let [chain, key, roots] = ["chain.pem", "key.pem", "roots.pem"].map(|file| dir.join(file));
    fs::write(&chain, files::to_pem(&intermediate.der)).unwrap();
    fs::write(&key, intermediate.key.serialize_pem()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
    fs::write(&roots, files::to_pem(&root.der)).unwrap();
    UserIntermediate { chain, key, roots }
}

#[test]
fn an_authority_made_anew_counts_on_above_the_lost_one() {
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let lost = open(first.path());
    let later = at(T0 + 1000);
    let anew = Authority::open(options(second.path(), "east.test"), later).unwrap();
    let mut store = BundleStore::open(first.path().join("b.json"), domain("west.test")).unwrap();
    let east = domain("east.test");
    for bundle in [lost.bundle(), anew.bundle()] {
        let accepted = store.accept(later, &east, Bundle::clone(bundle)).unwrap();
        assert_eq!(accepted, Acceptance::Accepted);
    }
}
