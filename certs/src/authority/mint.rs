//! The certificates themselves: every field of them is decided here.

use std::fmt;
use std::sync::Arc;

use isthmus_model::{SpiffeId, TrustDomain};
use isthmus_runtime::SnapshotCell;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, UnixTime};

use super::AuthorityError;
use super::files::RootRecord;
use crate::bundle::{Bundle, BundleSet};
use crate::crypto::{self, CryptoError, PrivateKey};
use crate::csr::ProvenKey;
use crate::moment;
use crate::verify::{Expected, MeshVerifier, PeerSide};
use crate::x509::CaCertificate;

/// From when until when a certificate is valid, in unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

impl Validity {
    /// Never valid.
    pub(crate) const NONE: Self = Self { not_before: 0, not_after: 0 };

    /// A CA certificate made now. It begins earlier, for clocks that are behind.
    pub(crate) fn of_ca(now: u64, lifetime: u64) -> Self {
        let not_before = now.saturating_sub(CA_BACKDATE_SECONDS);
        Self { not_before, not_after: now.saturating_add(lifetime) }
    }

    /// Not beyond the issuer's end.
    pub(crate) fn within(self, issuer: Self) -> Self {
        Self { not_after: self.not_after.min(issuer.not_after), ..self }
    }

    /// The moment at which a share of the lifetime of one of our CA certificates is over,
    /// counted from when it was made.
    pub(crate) fn begin_plus(self, numerator: u64, denominator: u64) -> u64 {
        let made = self.not_before.saturating_add(CA_BACKDATE_SECONDS);
        let lifetime = self.not_after.saturating_sub(made);
        made.saturating_add(lifetime.saturating_mul(numerator) / denominator.max(1))
    }

    fn contains(self, now: u64) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

impl CaCertificate {
    pub(crate) fn validity(&self) -> Validity {
        let (not_before, not_after) = (self.not_before_seconds(), self.not_after_seconds());
        Validity { not_before, not_after }
    }
}

/// What signs SVIDs: the intermediate's key, and the chain that goes with the leaf.
pub(crate) struct Signer {
    issuer: Issuer<'static, PrivateKey>,
    chain: Vec<CertificateDer<'static>>,
    validity: Validity,
}

impl Signer {
    /// Joins the issuing certificate, first in `chain`, and its key.
    pub(crate) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKey,
        domain: &TrustDomain,
    ) -> Result<Self, AuthorityError> {
        let issuing = chain.first().ok_or(CryptoError::KeyInvalid)?;
        let issuer = Issuer::from_ca_cert_der(issuing, key).map_err(|_| CryptoError::KeyInvalid)?;
        let mut validity = Validity { not_before: 0, not_after: u64::MAX };
        for certificate in &chain {
            let certificate = CaCertificate::parse(certificate, domain)
                .map_err(|reason| crate::bundle::BundleInvalid::Authority { key: 0, reason })?;
            let of = certificate.validity();
            validity.not_before = validity.not_before.max(of.not_before);
            validity.not_after = validity.not_after.min(of.not_after);
        }
        Ok(Self { issuer, chain, validity })
    }

    /// What is sent after the leaf.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Leaves certificates that are trust anchors themselves out of the chain.
    pub(crate) fn without_anchors(mut self, anchors: &[Arc<CaCertificate>]) -> Self {
        self.chain.retain(|der| anchors.iter().all(|anchor| anchor.der() != der));
        self
    }

    pub(crate) fn validity(&self) -> Validity {
        self.validity
    }

    /// The validity of an SVID signed now: never beyond the signer's own.
    pub(crate) fn svid_validity(
        &self,
        now: u64,
        lifetime: u64,
    ) -> Result<Validity, AuthorityError> {
        let Validity { not_before, not_after } = self.validity;
        if !self.validity.contains(now) {
            return Err(AuthorityError::SignerExpired { not_before, not_after, now });
        }
        let not_before = now.saturating_sub(BACKDATE_SECONDS);
        Ok(Validity { not_before, not_after: now.saturating_add(lifetime) }.within(self.validity))
    }

    /// Signs a leaf: one URI name, both usages, no subject.
    ///
    /// Spec: X509-SVID sections 2 to 4.
    pub(crate) fn sign_leaf(
        &self,
        key: &ProvenKey,
        id: &SpiffeId,
        serial: [u8; 16],
        validity: Validity,
    ) -> Result<CertificateDer<'static>, CryptoError> {
        let mut params = params(serial, validity, DistinguishedName::new());
        params.subject_alt_names = vec![uri(id.as_str())?];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key.0, &self.issuer);
        leaf.map(CertificateDer::from).map_err(|_| CryptoError::KeyInvalid)
    }

    /// Signs a throw-away leaf and verifies it as a peer would.
    ///
    /// Finds a key, a chain or a root that do not belong together before any workload
    /// gets a certificate that nobody accepts.
    pub(crate) fn check(
        &self,
        domain: &TrustDomain,
        roots: Vec<Arc<CaCertificate>>,
    ) -> Result<(), String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let not_before = roots.iter().map(|root| root.not_before_seconds()).max().unwrap_or(0);
        let now = self.validity.not_before.max(not_before);
        let key = PrivateKey::generate().map_err(|error| text(&error))?;
        let csr = signing_request(&key).map_err(|error| text(&error))?;
        let key = crate::csr::proven_key(&csr).map_err(|error| text(&error))?;
        let id = format!("spiffe://{domain}/isthmus/self-check");
        let id = SpiffeId::parse(&id).map_err(|error| text(&error))?;
        let validity = Validity { not_before: now, not_after: now.saturating_add(1) };
        let serial = serial().map_err(|error| text(&error))?;
        let leaf = self.sign_leaf(&key, &id, serial, validity).map_err(|error| text(&error))?;
        let bundle = Bundle::from_authorities(domain.clone(), None, None, roots)
            .map_err(|error| text(&error))?;
        let set = SnapshotCell::new(BundleSet::new([&bundle]));
        let verifier = MeshVerifier::new(set, Expected::Exactly(id));
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
        match verifier.verify(&leaf, &self.chain, PeerSide::Server, now) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!(
                "a certificate signed with it does not verify against the root: {error}"
            )),
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("validity", &self.validity).finish_non_exhaustive()
    }
}

/// Makes a self-signed root.
pub(crate) fn root(
    domain: &TrustDomain,
    key: &PrivateKey,
    validity: Validity,
) -> Result<CertificateDer<'static>, CryptoError> {
    let params = ca_params("root", domain, validity, 1)?;
    params.self_signed(key).map(CertificateDer::from).map_err(|_| CryptoError::KeyInvalid)
}

/// Makes an intermediate that may sign leaves only.
pub(crate) fn intermediate(
    domain: &TrustDomain,
    key: &PrivateKey,
    root: &RootRecord,
    validity: Validity,
) -> Result<CertificateDer<'static>, CryptoError> {
    let params = ca_params("intermediate", domain, validity, 0)?;
    let issuer = Issuer::from_ca_cert_der(root.certificate.der(), &root.key)
        .map_err(|_| CryptoError::KeyInvalid)?;
    params.signed_by(key, &issuer).map(CertificateDer::from).map_err(|_| CryptoError::KeyInvalid)
}

/// Makes a request that says nothing but the key.
pub(crate) fn signing_request(key: &PrivateKey) -> Result<Vec<u8>, CryptoError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(key).map_err(|_| CryptoError::KeyInvalid)?;
    Ok(request.der().to_vec())
}

/// A positive serial number of 126 random bits.
pub(crate) fn serial() -> Result<[u8; 16], CryptoError> {
    let mut serial: [u8; 16] = crypto::random()?;
    // Positive, and of one length: DER wants neither a sign nor leading zeroes.
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

/// The usual text of a serial number.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A CA certificate. There are no URI name constraints: webpki refuses every chain with
/// one, and the trust domain is checked in code.
fn ca_params(
    role: &str,
    domain: &TrustDomain,
    validity: Validity,
    path_length: u8,
) -> Result<CertificateParams, CryptoError> {
    let mut name = DistinguishedName::new();
    // Random, because the name must differ between clusters and generations, and a trust
    // domain may be longer than a name may be.
    let unique: [u8; 8] = crypto::random()?;
    name.push(DnType::CommonName, format!("Isthmus {role} {}", hex(&unique)));
    let mut params = params(serial()?, validity, name);
    params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))?];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn params(serial: [u8; 16], validity: Validity, name: DistinguishedName) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = moment::offset(validity.not_before);
    params.not_after = moment::offset(validity.not_after);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = name;
    params.use_authority_key_identifier_extension = true;
    params
}

fn uri(text: &str) -> Result<SanType, CryptoError> {
    Ia5String::try_from(text).map(SanType::URI).map_err(|_| CryptoError::KeyInvalid)
}

/// How far an SVID begins in the past: clocks of one cluster differ by less.
pub(crate) const BACKDATE_SECONDS: u64 = 5 * 60;
/// The same for CA certificates, which must also outlast a clock set back by an hour.
pub(crate) const CA_BACKDATE_SECONDS: u64 = 65 * 60;
