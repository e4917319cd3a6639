//! Trust bundles: which certificates speak for which trust domain.
//!
//! A [`Bundle`] is one domain's set of root certificates with a sequence number. The
//! [`BundleStore`] decides which update of a peer replaces which bundle and remembers it
//! across restarts; the [`BundleSet`] is the immutable result that verifiers read.
//!
//! # Flow
//!
//! 1. [`jwks`]: bytes to [`Bundle`] and back.
//! 2. [`rules`]: whether a new bundle may replace the current one; pure.
//! 3. [`store`]: the single writer, persisted.
//! 4. [`set`]: the compiled map that handshakes look into.

pub mod jwks;

pub mod rules;

pub mod store;

pub mod set;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use isthmus_model::TrustDomain;
use rustls::pki_types::CertificateDer;

pub use self::jwks::BundleInvalid;
pub use self::rules::{Acceptance, BundleRefused};
pub use self::set::{BundleCell, BundleSet};
pub use self::store::{BundleStore, BundleStoreError};
use crate::authority::files::to_pem;
use crate::moment;
use crate::x509::CaCertificate;

/// The root certificates of one trust domain.
///
/// A bundle holds 1 to 64 distinct CA certificates in a fixed order, so that two bundles
/// with the same content are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    trust_domain: TrustDomain,
    sequence: Option<u64>,
    refresh_hint: Option<Duration>,
    authorities: Vec<Arc<CaCertificate>>,
}

impl Bundle {
    /// Makes a bundle of certificates.
    ///
    /// # Errors
    ///
    /// [`BundleInvalid`] when there are none or too many, or when one is not a CA
    /// certificate of the domain.
    pub fn new(
        trust_domain: TrustDomain,
        sequence: Option<u64>,
        refresh_hint: Option<Duration>,
        roots: &[CertificateDer<'_>],
    ) -> Result<Self, BundleInvalid> {
        if roots.len() > BUNDLE_KEYS_MAX {
            return Err(BundleInvalid::KeyCount { count: roots.len(), limit: BUNDLE_KEYS_MAX });
        }
        let mut authorities = Vec::with_capacity(roots.len());
        for (key, root) in roots.iter().enumerate() {
            let authority = CaCertificate::parse(root, &trust_domain)
                .map_err(|reason| BundleInvalid::Authority { key, reason })?;
            authorities.push(Arc::new(authority));
        }
        Self::from_authorities(trust_domain, sequence, refresh_hint, authorities)
    }

    pub(crate) fn from_authorities(
        trust_domain: TrustDomain,
        sequence: Option<u64>,
        refresh_hint: Option<Duration>,
        mut authorities: Vec<Arc<CaCertificate>>,
    ) -> Result<Self, BundleInvalid> {
        authorities.sort_by(|a, b| a.der().as_ref().cmp(b.der().as_ref()));
        authorities.dedup();
        if authorities.is_empty() {
            return Err(BundleInvalid::Empty);
        }
        Ok(Self { trust_domain, sequence, refresh_hint, authorities })
    }

    /// The domain it speaks for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// `spiffe_sequence`; our own bundles always have one.
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// `spiffe_refresh_hint`: how often a reader should look for a newer bundle.
    pub fn refresh_hint(&self) -> Option<Duration> {
        self.refresh_hint
    }

    /// The root certificates.
    pub fn authorities(&self) -> &[Arc<CaCertificate>] {
        &self.authorities
    }

    /// The root certificates as PEM.
    pub fn to_pem(&self) -> String {
        self.authorities.iter().map(|authority| to_pem(authority.der())).collect()
    }

    /// Whether at least one root certificate is valid.
    pub fn is_usable_at(&self, now: SystemTime) -> bool {
        let now = moment::seconds(now);
        self.authorities.iter().any(|authority| authority.is_valid_at(now))
    }
}

/// Root certificates in one bundle. A rotation needs 2; SPIRE rarely has more than 4.
pub const BUNDLE_KEYS_MAX: usize = 64;
/// Bytes of one bundle document.
pub const BUNDLE_BYTES_MAX: usize = 1024 * 1024;
