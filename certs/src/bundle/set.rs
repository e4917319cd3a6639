//! All bundles, compiled for handshakes: an immutable map from trust domain to roots.

use std::collections::BTreeMap;
use std::sync::Arc;

use isthmus_model::TrustDomain;
use isthmus_runtime::SnapshotCell;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::{Bundle, BundleInvalid};
use crate::x509::CaCertificate;

/// Where verifiers read the current [`BundleSet`].
pub type BundleCell = SnapshotCell<BundleSet>;

/// The roots of every trust domain that this process accepts.
#[derive(Debug, Clone, Default)]
pub struct BundleSet {
    domains: BTreeMap<TrustDomain, Arc<DomainRoots>>,
}

impl BundleSet {
    /// Compiles bundles.
    ///
    /// A key that two domains claim is left to the domain that comes first in `bundles`;
    /// the store refuses such a bundle earlier and with a reason.
    pub fn new<'a>(bundles: impl IntoIterator<Item = &'a Bundle>) -> Self {
        let provider = crate::crypto::provider();
        let mut keys: BTreeMap<&[u8], &TrustDomain> = BTreeMap::new();
        let mut domains = BTreeMap::new();
        for bundle in bundles {
            let domain = bundle.trust_domain();
            let own = |authority: &&Arc<CaCertificate>| {
                keys.get(authority.key_info()).is_none_or(|other| *other == domain)
            };
            let authorities: Vec<_> = bundle.authorities().iter().filter(own).cloned().collect();
            keys.extend(bundle.authorities().iter().map(|a| (a.key_info(), domain)).filter(
                |(key, _)| authorities.iter().any(|authority| authority.key_info() == *key),
            ));
            if let Some(roots) = DomainRoots::new(authorities, &provider) {
                domains.insert(domain.clone(), Arc::new(roots));
            }
        }
        Self { domains }
    }

    /// Compiles bundle documents; one that cannot be read is left out and reported.
    pub fn from_jwks<'a>(
        documents: impl IntoIterator<Item = (&'a TrustDomain, &'a [u8])>,
    ) -> (Self, Vec<(TrustDomain, BundleInvalid)>) {
        let (mut bundles, mut refused) = (Vec::new(), Vec::new());
        for (domain, document) in documents {
            match Bundle::from_jwks(domain, document) {
                Ok(bundle) => bundles.push(bundle),
                Err(error) => refused.push((domain.clone(), error)),
            }
        }
        (Self::new(&bundles), refused)
    }

    /// The trust domains in it, in order.
    pub fn trust_domains(&self) -> impl Iterator<Item = &TrustDomain> {
        self.domains.keys()
    }

    /// Whether the domain is known.
    pub fn contains(&self, domain: &TrustDomain) -> bool {
        self.domains.contains_key(domain)
    }

    pub(crate) fn roots(&self, domain: &TrustDomain) -> Option<&Arc<DomainRoots>> {
        self.domains.get(domain)
    }
}

/// The roots of one domain, as webpki wants them.
#[derive(Debug)]
pub(crate) struct DomainRoots {
    authorities: Vec<Arc<CaCertificate>>,
    valid_from: u64,
    valid_until: u64,
    pub(crate) store: Arc<RootCertStore>,
    pub(crate) clients: Arc<dyn ClientCertVerifier>,
}

impl DomainRoots {
    fn new(authorities: Vec<Arc<CaCertificate>>, provider: &Arc<CryptoProvider>) -> Option<Self> {
        let mut store = RootCertStore::empty();
        for authority in &authorities {
            // Checked when the certificate was parsed; one that failed here would only
            // be missing.
            let _ = store.add(authority.der().clone());
        }
        let store = Arc::new(store);
        let provider = Arc::clone(provider);
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&store), provider).build();
        Some(Self {
            valid_from: authorities.iter().map(|authority| authority.not_before_seconds()).max()?,
            valid_until: authorities.iter().map(|authority| authority.not_after_seconds()).min()?,
            authorities,
            store,
            clients: clients.ok()?,
        })
    }

    /// Whether every root is valid, so that no root has to be left out.
    pub(crate) fn is_wholly_valid_at(&self, now: u64) -> bool {
        self.valid_from <= now && now <= self.valid_until
    }

    /// The roots that are valid now. webpki does not look at the validity of an anchor.
    pub(crate) fn valid_at(&self, now: u64, provider: &Arc<CryptoProvider>) -> Option<Self> {
        let valid = self.authorities.iter().filter(|authority| authority.is_valid_at(now));
        Self::new(valid.cloned().collect(), provider)
    }
}
