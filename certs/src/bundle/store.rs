//! The single writer of all bundles: own and peers', persisted, published as one set.
//!
//! What is kept on disk is what the rule of sequences needs: the last accepted bundle of
//! each peer. The own bundle is not kept here; the authority has it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use isthmus_model::TrustDomain;
use isthmus_runtime::SnapshotCell;
use isthmus_runtime::atomic_file::{self, Access};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rules::{self, Verdict};
use super::{Acceptance, Bundle, BundleCell, BundleInvalid, BundleRefused, BundleSet};

/// The file of the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleStoreError {
    /// A stored bundle cannot be read.
    #[error("bundle store {}: the bundle of {domain} is corrupt", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Whose bundle.
        domain: TrustDomain,
        /// What is wrong with it.
        source: BundleInvalid,
    },
    /// The file is not what the store wrote.
    #[error("bundle store {} is corrupt; without it an old bundle could be replayed, so it is not ignored", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// The file cannot be read.
    #[error("bundle store {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Decides which bundle of which trust domain is in use.
#[derive(Debug)]
pub struct BundleStore {
    path: PathBuf,
    own: TrustDomain,
    bundles: BTreeMap<TrustDomain, Bundle>,
    cell: BundleCell,
    unwritten: bool,
}

impl BundleStore {
    /// Opens the store file, which need not exist yet, and publishes what it holds.
    ///
    /// # Errors
    ///
    /// [`BundleStoreError`]: a file that is there must be readable and whole, since it
    /// remembers which bundles are old.
    pub fn open(path: PathBuf, own: TrustDomain) -> Result<Self, BundleStoreError> {
        let bundles = load(&path, &own)?;
        let cell = SnapshotCell::new(BundleSet::new(bundles.values()));
        Ok(Self { path, own, bundles, cell, unwritten: false })
    }

    /// Sets the bundle of the own trust domain, which comes from the own authority.
    ///
    /// A peer that has a root in common with it is forgotten, with an alarm: the own
    /// domain must not stop because of what a peer has published.
    ///
    /// # Errors
    ///
    /// [`BundleRefused`] when it is not of the own domain or has no valid root.
    pub fn set_own(&mut self, now: SystemTime, bundle: Bundle) -> Result<(), BundleRefused> {
        if *bundle.trust_domain() != self.own {
            return Err(BundleRefused::OwnDomain { domain: self.own.clone() });
        }
        if self.bundles.get(&self.own) == Some(&bundle) {
            return Ok(());
        }
        while let Err(error) = rules::check_content(now, &self.own, &self.bundles, &bundle) {
            let BundleRefused::SharedAuthority { other, .. } = &error else { return Err(error) };
            tracing::error!(%error, "a peer's bundle has a root of ours and is dropped");
            self.bundles.remove(other);
            self.persist();
        }
        self.bundles.insert(self.own.clone(), bundle);
        self.publish();
        Ok(())
    }

    /// Takes a bundle that arrived over an authenticated channel.
    ///
    /// `peer` is the trust domain of the channel, never a field of the message.
    ///
    /// # Errors
    ///
    /// [`BundleRefused`]; the bundle in use stays.
    pub fn accept(
        &mut self,
        now: SystemTime,
        peer: &TrustDomain,
        bundle: Bundle,
    ) -> Result<Acceptance, BundleRefused> {
        self.check_channel(peer, &bundle)?;
        if let Some(current) = self.bundles.get(peer)
            && rules::check_sequence(current, &bundle)? == Verdict::Same
        {
            return Ok(self.unchanged());
        }
        self.replace(now, bundle)
    }

    /// Takes a bundle because an operator says so: its sequence may be anything.
    ///
    /// # Errors
    ///
    /// [`BundleRefused`] for what even an operator must not do: share a root between
    /// domains, or set a bundle without a valid root.
    pub fn accept_by_operator(
        &mut self,
        now: SystemTime,
        peer: &TrustDomain,
        bundle: Bundle,
    ) -> Result<Acceptance, BundleRefused> {
        self.check_channel(peer, &bundle)?;
        if self.bundles.get(peer) == Some(&bundle) {
            return Ok(self.unchanged());
        }
        self.replace(now, bundle)
    }

    /// Forgets a peer; its certificates are refused from the next handshake on.
    pub fn remove(&mut self, peer: &TrustDomain) {
        if *peer != self.own && self.bundles.remove(peer).is_some() {
            self.persist();
            self.publish();
        }
    }

    /// The bundle in use for a domain.
    pub fn bundle(&self, domain: &TrustDomain) -> Option<&Bundle> {
        self.bundles.get(domain)
    }

    /// The bundles in use, in order of their domains.
    pub fn bundles(&self) -> impl Iterator<Item = &Bundle> {
        self.bundles.values()
    }

    /// Where the set is published; clones see the same value.
    pub fn cell(&self) -> BundleCell {
        self.cell.clone()
    }

    fn check_channel(&self, peer: &TrustDomain, bundle: &Bundle) -> Result<(), BundleRefused> {
        if *peer == self.own || *bundle.trust_domain() == self.own {
            return Err(BundleRefused::OwnDomain { domain: self.own.clone() });
        }
        if bundle.trust_domain() != peer {
            let (channel, domain) = (peer.clone(), bundle.trust_domain().clone());
            return Err(BundleRefused::WrongChannel { domain, channel });
        }
        Ok(())
    }

    fn replace(&mut self, now: SystemTime, bundle: Bundle) -> Result<Acceptance, BundleRefused> {
        let domain = bundle.trust_domain().clone();
        if !self.bundles.contains_key(&domain) && self.bundles.len() >= DOMAINS_MAX {
            return Err(BundleRefused::TooMany { domain, limit: DOMAINS_MAX });
        }
        rules::check_content(now, &self.own, &self.bundles, &bundle)?;
        self.bundles.insert(domain, bundle);
        self.persist();
        self.publish();
        Ok(if self.unwritten { Acceptance::AcceptedInMemory } else { Acceptance::Accepted })
    }

    /// An update that changes nothing is the occasion to write what failed to be written.
    fn unchanged(&mut self) -> Acceptance {
        if self.unwritten {
            self.persist();
        }
        Acceptance::Unchanged
    }

    /// A full disk must not stop a rotation: the bundle is used, and written later.
    fn persist(&mut self) {
        self.unwritten = match save(&self.path, &self.own, &self.bundles) {
            Ok(()) => false,
            Err(error) => {
                let path = self.path.display();
                tracing::error!(%path, %error, "the bundle store could not be written");
                true
            }
        };
    }

    fn publish(&self) {
        self.cell.publish(Arc::new(BundleSet::new(self.in_order())));
    }

    /// The own domain first: nobody takes a key from it.
    fn in_order(&self) -> impl Iterator<Item = &Bundle> {
        let peers = self.bundles.iter().filter(|(domain, _)| **domain != self.own);
        self.bundles.get(&self.own).into_iter().chain(peers.map(|(_, bundle)| bundle))
    }
}

#[derive(Deserialize)]
struct Stored {
    version: u32,
    bundles: BTreeMap<TrustDomain, Value>,
}

#[derive(Serialize)]
struct ToStore<'a> {
    version: u32,
    bundles: BTreeMap<&'a TrustDomain, Value>,
}

fn load(path: &Path, own: &TrustDomain) -> Result<BTreeMap<TrustDomain, Bundle>, BundleStoreError> {
    let content = match std::fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(BundleStoreError::Read { path: path.to_owned(), source }),
    };
    let corrupt = |source| BundleStoreError::Corrupt { path: path.to_owned(), source };
    let stored: Stored = serde_json::from_slice(&content).map_err(corrupt)?;
    if stored.version != FILE_VERSION {
        let reason = format!("version {} is not known", stored.version);
        return Err(corrupt(serde::de::Error::custom(reason)));
    }
    let mut bundles = BTreeMap::new();
    for (domain, document) in stored.bundles.into_iter().filter(|(domain, _)| domain != own) {
        let bundle =
            Bundle::from_jwks(&domain, document.to_string().as_bytes()).map_err(|source| {
                BundleStoreError::Bundle { path: path.to_owned(), domain: domain.clone(), source }
            })?;
        bundles.insert(domain, bundle);
    }
    Ok(bundles)
}

fn save(path: &Path, own: &TrustDomain, bundles: &BTreeMap<TrustDomain, Bundle>) -> io::Result<()> {
    let mut documents = BTreeMap::new();
    for (domain, bundle) in bundles.iter().filter(|(domain, _)| *domain != own) {
        documents.insert(domain, serde_json::from_slice(&bundle.to_jwks())?);
    }
    let content = serde_json::to_vec(&ToStore { version: FILE_VERSION, bundles: documents })?;
    atomic_file::write(path, &content, Access::Public)
}

/// Trust domains in one store; a clusterset has tens of clusters.
const DOMAINS_MAX: usize = 1024;
const FILE_VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use tempfile::TempDir;

    use super::*;
    use crate::testing::{self, Root, domain};

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn store(dir: &TempDir) -> BundleStore {
        BundleStore::open(dir.path().join("bundles.json"), domain("east.test")).unwrap()
    }

    fn of_west(sequence: Option<u64>, root: &Root) -> Bundle {
        let roots = std::slice::from_ref(&root.der);
        Bundle::new(domain("west.test"), sequence, None, roots).unwrap()
    }

    /// F-06, F-07: what may follow what.
    #[test]
    fn the_sequence_never_goes_back() {
        let (a, b) = (testing::root("west.test"), testing::root("west.test"));
        let jump = 1 << 32;
        let table = [
            (Some(7), Some(8), &b, "accepted"),
            (Some(7), Some(7), &a, "unchanged"),
            (Some(7), Some(7), &b, "content_changed"),
            (Some(7), Some(6), &b, "older"),
            (Some(7), Some(6), &a, "older"),
            (Some(7), Some(0), &a, "older"),
            (Some(7), None, &a, "sequence_missing"),
            (Some(7), None, &b, "sequence_missing"),
            (Some(7), Some(7 + jump), &b, "accepted"),
            (Some(7), Some(8 + jump), &b, "jump"),
            (Some(7), Some(u64::MAX), &b, "jump"),
            (None, Some(1), &b, "accepted"),
            (None, None, &b, "accepted"),
            (None, None, &a, "unchanged"),
        ];
        for (first, second, root, expected) in table {
            let dir = TempDir::new().unwrap();
            let mut before = store(&dir);
            let west = domain("west.test");
            before.accept(now(), &west, of_west(first, &a)).unwrap();
            drop(before);
            // What was accepted is remembered across a restart.
            let mut store = store(&dir);
            let outcome = match store.accept(now(), &west, of_west(second, root)) {
                Ok(Acceptance::Unchanged) => "unchanged",
                Ok(_) => "accepted",
                Err(error) => error.label(),
            };
            assert_eq!(outcome, expected, "{first:?} then {second:?}");
            let kept = store.bundle(&west).unwrap();
            let replaced = outcome == "accepted";
            assert_eq!(kept.sequence(), if replaced { second } else { first });
        }
    }

    #[test]
    fn an_operator_may_set_what_a_peer_may_not() {
        let dir = TempDir::new().unwrap();
        let mut store = store(&dir);
        let west = domain("west.test");
        let root = testing::root("west.test");
        store.accept(now(), &west, of_west(Some(7), &root)).unwrap();
        let back = of_west(Some(1), &testing::root("west.test"));
        assert!(store.accept(now(), &west, back.clone()).is_err());
        assert_eq!(store.accept_by_operator(now(), &west, back), Ok(Acceptance::Accepted));
    }

    /// F-02, F-08.
    #[test]
    fn a_peer_speaks_for_its_own_domain_only() {
        let dir = TempDir::new().unwrap();
        let mut store = store(&dir);
        let west = domain("west.test");
        let east = testing::bundle("east.test", 9, &testing::root("mal"));
        let refused = store.accept(now(), &west, east.clone()).unwrap_err();
        assert_eq!(refused.label(), "own_domain");
        let refused = store.accept(now(), &domain("east.test"), east).unwrap_err();
        assert_eq!(refused.label(), "own_domain");
        let third = testing::bundle("third.test", 9, &testing::root("mal"));
        assert_eq!(store.accept(now(), &west, third).unwrap_err().label(), "wrong_channel");
    }

    /// F-05.
    #[test]
    fn a_root_speaks_for_one_domain_only() {
        let dir = TempDir::new().unwrap();
        let mut store = store(&dir);
        let own = testing::root("east.test");
        store.set_own(now(), testing::bundle("east.test", 1, &own)).unwrap();
        let (west, third) = (domain("west.test"), domain("third.test"));
        // Our certificate; another certificate with our key; our name with another key.
        let same_key = own.params.self_signed(&own.key).unwrap();
        let same_name = testing::root_of(own.params.clone());
        for der in [own.der.clone(), same_key.der().clone(), same_name.der.clone()] {
            let bundle = Bundle::new(west.clone(), Some(1), None, &[der]).unwrap();
            let refused = store.accept(now(), &west, bundle).unwrap_err();
            assert_eq!(refused.label(), "shared_authority");
        }
        let theirs = testing::root("west.test");
        store.accept(now(), &west, of_west(Some(1), &theirs)).unwrap();
        let copy = testing::bundle("third.test", 1, &theirs);
        assert_eq!(store.accept(now(), &third, copy).unwrap_err().label(), "shared_authority");
        let trust_domains: Vec<_> = store.cell().load().trust_domains().cloned().collect();
        assert_eq!(trust_domains, [domain("east.test"), west]);
    }

    #[test]
    fn a_peer_cannot_keep_the_own_bundle_out() {
        let dir = TempDir::new().unwrap();
        let mut store = store(&dir);
        let (own, west) = (testing::root("east.test"), domain("west.test"));
        store.accept(now(), &west, of_west(Some(1), &own)).unwrap();
        store.set_own(now(), testing::bundle("east.test", 1, &own)).unwrap();
        assert!(store.bundle(&west).is_none());
        assert!(store.cell().load().contains(&domain("east.test")));
        assert!(!store.cell().load().contains(&west));
    }

    #[test]
    fn a_bundle_without_a_valid_root_replaces_nothing() {
        let dir = TempDir::new().unwrap();
        let mut store = store(&dir);
        let west = domain("west.test");
        let good = testing::root("west.test");
        store.accept(now(), &west, of_west(Some(1), &good)).unwrap();
        let mut params = testing::ca_params("ended");
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let ended = of_west(Some(2), &testing::root_of(params));
        assert_eq!(store.accept(now(), &west, ended).unwrap_err().label(), "unusable");
        assert_eq!(store.bundle(&west), Some(&of_west(Some(1), &good)));
    }

    #[test]
    fn a_removed_peer_is_gone_after_a_restart_too() {
        let dir = TempDir::new().unwrap();
        let mut first = store(&dir);
        let west = domain("west.test");
        first.accept(now(), &west, of_west(Some(1), &testing::root("west.test"))).unwrap();
        assert!(first.cell().load().contains(&west));
        first.remove(&west);
        assert!(!first.cell().load().contains(&west));
        assert!(store(&dir).bundle(&west).is_none());
    }

    #[test]
    fn a_corrupt_store_is_not_taken_for_an_empty_one() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("bundles.json");
        for bad in ["", "{", r#"{"version":9,"bundles":{}}"#, r#"{"version":1,"bundles":{"a":{}}}"#]
        {
            std::fs::write(&path, bad).unwrap();
            assert!(BundleStore::open(path.clone(), domain("east.test")).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_full_disk_does_not_stop_a_rotation() {
        let dir = TempDir::new().unwrap();
        let folder = dir.path().join("state");
        let path = folder.join("bundles.json");
        let mut store = BundleStore::open(path, domain("east.test")).unwrap();
        let (west, root) = (domain("west.test"), testing::root("west.test"));
        let outcome = store.accept(now(), &west, of_west(Some(1), &root));
        assert_eq!(outcome, Ok(Acceptance::AcceptedInMemory));
        std::fs::create_dir(&folder).unwrap();
        let outcome = store.accept(now(), &west, of_west(Some(1), &root));
        assert_eq!(outcome, Ok(Acceptance::Unchanged));
        assert!(folder.join("bundles.json").exists());
    }
}
