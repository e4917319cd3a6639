//! One workload's certificate and key, and the cell that rotates them.
//!
//! TLS configurations are built once. They hold an [`SvidCell`], and each new handshake
//! takes the SVID that is current then; running connections keep the one they began with.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use isthmus_model::SpiffeId;
use isthmus_runtime::SnapshotCell;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use crate::moment;
use crate::x509::{Leaf, LeafInvalid};

/// A certificate and a key that do not make an SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SvidInvalid {
    /// There is no certificate.
    #[error("the certificate chain is empty")]
    Empty,
    /// The key does not belong to the certificate, or cannot be used.
    #[error(
        "the private key does not belong to the leaf certificate, or is of an unsupported kind"
    )]
    Key,
    /// The first certificate is not an SVID.
    #[error("the first certificate of the chain is not an SVID")]
    Leaf(#[source] LeafInvalid),
}

/// A workload's identity document with its private key.
///
/// The key can be used for signing but not taken out.
#[derive(Clone)]
pub struct Svid {
    leaf: Leaf,
    certified: Arc<CertifiedKey>,
}

impl Svid {
    /// Joins a chain (leaf first) and its key.
    ///
    /// # Errors
    ///
    /// [`SvidInvalid`] when the leaf is not an SVID or the key is another one's.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, SvidInvalid> {
        let leaf = Leaf::parse(chain.first().ok_or(SvidInvalid::Empty)?);
        let leaf = leaf.map_err(SvidInvalid::Leaf)?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certified =
            CertifiedKey::from_der(chain, key, &provider).map_err(|_| SvidInvalid::Key)?;
        Ok(Self { leaf, certified: Arc::new(certified) })
    }

    /// Who it is for.
    pub fn id(&self) -> &SpiffeId {
        &self.leaf.id
    }

    /// The chain, leaf first, without the root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// What rustls signs handshakes with.
    pub fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// The first moment of its validity, which the authority dates back a little.
    pub fn not_before(&self) -> SystemTime {
        moment::time(self.leaf.not_before)
    }

    /// The last moment of its validity.
    pub fn not_after(&self) -> SystemTime {
        moment::time(self.leaf.not_after)
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid").field("leaf", &self.leaf).finish_non_exhaustive()
    }
}

/// Holds the current SVID of one workload; clones see the same value.
///
/// An empty cell answers no handshake: a server without an SVID fails closed.
#[derive(Debug, Clone)]
pub struct SvidCell {
    cell: SnapshotCell<Option<Svid>>,
}

impl Default for SvidCell {
    fn default() -> Self {
        Self::new()
    }
}

impl SvidCell {
    /// An empty cell.
    pub fn new() -> Self {
        Self { cell: SnapshotCell::new(None) }
    }

    /// Replaces the SVID; handshakes from now on use it.
    pub fn publish(&self, svid: Svid) {
        self.cell.publish(Arc::new(Some(svid)));
    }

    /// The current SVID.
    pub fn load(&self) -> Option<Svid> {
        self.cell.load().as_ref().clone()
    }

    /// Wakes on each replacement.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.cell.watch()
    }

    fn certified_key(&self) -> Option<Arc<CertifiedKey>> {
        let current = self.cell.load();
        current.as_ref().as_ref().map(|svid| Arc::clone(&svid.certified))
    }
}

impl ResolvesServerCert for SvidCell {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified_key()
    }
}

impl ResolvesClientCert for SvidCell {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified_key()
    }

    fn has_certs(&self) -> bool {
        self.cell.load().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::PrivateKey;
    use crate::testing;

    #[test]
    fn an_svid_needs_a_leaf_and_its_own_key() {
        let root = testing::root("east.test");
        let (chain, key) = testing::chain_and_key(&root, "spiffe://east.test/ns/a/sa/b");
        let other = PrivateKey::generate().unwrap();
        assert_eq!(Svid::new(Vec::new(), other.to_rustls()).unwrap_err(), SvidInvalid::Empty);
        assert_eq!(Svid::new(chain.clone(), other.to_rustls()).unwrap_err(), SvidInvalid::Key);
        let of_a_ca = Svid::new(vec![root.der.clone()], key.clone_key()).unwrap_err();
        assert!(matches!(of_a_ca, SvidInvalid::Leaf(LeafInvalid::IsCa)));
        let svid = Svid::new(chain, key).unwrap();
        assert_eq!(svid.id().as_str(), "spiffe://east.test/ns/a/sa/b");
    }

    #[test]
    fn debug_prints_no_key() {
        let key = PrivateKey::generate().unwrap();
        assert_eq!(format!("{key:?}"), "PrivateKey(..)");
    }
}
