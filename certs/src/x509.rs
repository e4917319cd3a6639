//! What a leaf and a CA certificate must look like.
//!
//! webpki checks signatures, validity, path length and usages of a chain. It knows no
//! SPIFFE: which name counts, how many there may be, and which trust domain may vouch
//! for it are decided here. Every certificate is bounded before it is parsed.

use isthmus_model::{SpiffeId, TrustDomain};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521,
    OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::moment;

/// A leaf certificate that is not an X.509-SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafInvalid {
    /// The certificate may sign others.
    #[error("the leaf certificate is a CA certificate")]
    IsCa,
    /// The URI SAN is not a SPIFFE ID of a workload.
    #[error("the URI name of the leaf certificate is not a SPIFFE ID: {reason}")]
    Id {
        /// What is wrong with it.
        reason: String,
    },
    /// The key usage is missing, or allows signing certificates, or not signatures.
    #[error("the leaf certificate has a key usage that an SVID must not have, or none")]
    KeyUsage,
    /// The bytes are not a certificate.
    #[error("the leaf certificate is not X.509 version 3 in DER")]
    Malformed,
    /// There is none, or there are several URI SANs.
    #[error("the leaf certificate has {count} URI names, exactly one is required")]
    UriCount {
        /// How many there are.
        count: usize,
    },
    /// The extended key usage does not allow client and server.
    #[error("the extended key usage of the leaf certificate lacks client or server authentication")]
    Usage,
    /// The certificate is too large.
    #[error("the leaf certificate has {length} bytes, at most {limit} are allowed")]
    Size {
        /// Bytes received.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

/// A certificate that cannot be a trust anchor or an intermediate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaInvalid {
    /// The key is of a kind that is not verified.
    #[error("the CA certificate has a key that is not ECDSA P-256, P-384, P-521, Ed25519 or RSA")]
    Key,
    /// The key usage does not allow signing certificates.
    #[error("the key usage of the CA certificate does not allow signing certificates")]
    KeyUsage,
    /// The bytes are not a certificate.
    #[error("the CA certificate is not X.509 version 3 in DER")]
    Malformed,
    /// The certificate may not sign others.
    #[error("the certificate is not a CA certificate")]
    NotCa,
    /// The certificate is too large.
    #[error("the CA certificate has {length} bytes, at most {limit} are allowed")]
    Size {
        /// Bytes received.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The certificate names a trust domain, and it is another one.
    #[error("the CA certificate names {named}, it was offered for {expected}")]
    TrustDomain {
        /// The URI SAN.
        named: String,
        /// The trust domain it was offered for.
        expected: TrustDomain,
    },
}

/// The facts of a leaf certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

impl Leaf {
    /// Reads a leaf; nothing is verified but its shape.
    ///
    /// Spec: X509-SVID sections 2, 4 and 5.2.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, LeafInvalid> {
        if der.len() > CERTIFICATE_BYTES_MAX {
            let (length, limit) = (der.len(), CERTIFICATE_BYTES_MAX);
            return Err(LeafInvalid::Size { length, limit });
        }
        let certificate = parse(der).ok_or(LeafInvalid::Malformed)?;
        let constraints = certificate.basic_constraints().map_err(|_| LeafInvalid::Malformed)?;
        if constraints.is_some_and(|constraints| constraints.value.ca) {
            return Err(LeafInvalid::IsCa);
        }
        let usage = certificate.key_usage().map_err(|_| LeafInvalid::Malformed)?;
        let usage = usage.ok_or(LeafInvalid::KeyUsage)?.value;
        if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
            return Err(LeafInvalid::KeyUsage);
        }
        let extended = certificate.extended_key_usage().map_err(|_| LeafInvalid::Malformed)?;
        if extended.is_some_and(|usage| !(usage.value.client_auth && usage.value.server_auth)) {
            return Err(LeafInvalid::Usage);
        }
        let uris = uri_names(&certificate).ok_or(LeafInvalid::Malformed)?;
        let [uri] = uris.as_slice() else {
            return Err(LeafInvalid::UriCount { count: uris.len() });
        };
        let id =
            SpiffeId::parse(uri).map_err(|error| LeafInvalid::Id { reason: error.to_string() })?;
        let (not_before, not_after) = validity(&certificate);
        Ok(Self { id, not_before, not_after })
    }
}

/// A CA certificate with the facts that bundles are compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaCertificate {
    der: CertificateDer<'static>,
    subject: Vec<u8>,
    key_id: Option<Vec<u8>>,
    key_info: Vec<u8>,
    key: CaKey,
    not_before: u64,
    not_after: u64,
}

/// A public key as JWK knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CaKey {
    Ec { curve: &'static str, x: Vec<u8>, y: Vec<u8> },
    Ed25519 { x: Vec<u8> },
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

impl CaCertificate {
    /// Reads a CA certificate that is to speak for a trust domain.
    ///
    /// # Errors
    ///
    /// [`CaInvalid`] says what keeps it from being a trust anchor.
    pub fn parse(der: &[u8], domain: &TrustDomain) -> Result<Self, CaInvalid> {
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(CaInvalid::Size { length: der.len(), limit: CERTIFICATE_BYTES_MAX });
        }
        let certificate = parse(der).ok_or(CaInvalid::Malformed)?;
        if !certificate.is_ca() {
            return Err(CaInvalid::NotCa);
        }
        let usage = certificate.key_usage().map_err(|_| CaInvalid::Malformed)?;
        if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err(CaInvalid::KeyUsage);
        }
        check_domain(&certificate, domain)?;
        let key = CaKey::of(certificate.public_key()).ok_or(CaInvalid::Key)?;
        let key_id = certificate.iter_extensions().find_map(key_identifier);
        let (not_before, not_after) = validity(&certificate);
        let owned = CertificateDer::from(der.to_vec());
        // What webpki cannot read as an anchor must not get into a bundle either.
        RootCertStore::empty().add(owned.clone()).map_err(|_| CaInvalid::Malformed)?;
        Ok(Self {
            subject: certificate.subject().as_raw().to_vec(),
            key_info: certificate.public_key().raw.to_vec(),
            der: owned,
            key_id,
            key,
            not_before,
            not_after,
        })
    }

    /// The certificate.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The last moment of its validity.
    pub fn not_after(&self) -> std::time::SystemTime {
        moment::time(self.not_after)
    }

    pub(crate) fn key(&self) -> &CaKey {
        &self.key
    }

    /// The public key with its algorithm, DER.
    pub(crate) fn key_info(&self) -> &[u8] {
        &self.key_info
    }

    pub(crate) fn not_before_seconds(&self) -> u64 {
        self.not_before
    }

    pub(crate) fn not_after_seconds(&self) -> u64 {
        self.not_after
    }

    pub(crate) fn is_valid_at(&self, now: u64) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// Whether the other certificate passes for this one: by key, by key identifier, or
    /// by subject.
    pub(crate) fn resembles(&self, other: &Self) -> bool {
        let same_id = self.key_id.is_some() && self.key_id == other.key_id;
        let named = self.subject.len() > EMPTY_NAME_BYTES;
        self.key_info == other.key_info || same_id || (named && self.subject == other.subject)
    }
}

impl CaKey {
    fn of(info: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let kind = &info.algorithm.algorithm;
        let data: &[u8] = &info.subject_public_key.data;
        if *kind == OID_SIG_ED25519 {
            return (data.len() == 32).then(|| Self::Ed25519 { x: data.to_vec() });
        }
        if *kind == OID_PKCS1_RSAENCRYPTION {
            let Ok(PublicKey::RSA(rsa)) = info.parsed() else { return None };
            return Some(Self::Rsa { n: unsigned(rsa.modulus), e: unsigned(rsa.exponent) });
        }
        if *kind != OID_KEY_TYPE_EC_PUBLIC_KEY {
            return None;
        }
        let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
        let known = [
            (OID_EC_P256, "P-256", 32),
            (OID_NIST_EC_P384, "P-384", 48),
            (OID_NIST_EC_P521, "P-521", 66),
        ];
        let (_, curve, length) = known.into_iter().find(|(oid, _, _)| *oid == curve)?;
        let (form, point) = data.split_first()?;
        if *form != UNCOMPRESSED_POINT || point.len() != 2 * length {
            return None;
        }
        let (x, y) = point.split_at(length);
        Some(Self::Ec { curve, x: x.to_vec(), y: y.to_vec() })
    }
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    let good = rest.is_empty() && certificate.version().0 == VERSION_3;
    good.then_some(certificate)
}

/// The URI names; `None` when the extension is there twice or cannot be read.
fn uri_names<'a>(certificate: &'a X509Certificate<'_>) -> Option<Vec<&'a str>> {
    let Some(names) = certificate.subject_alternative_name().ok()? else { return Some(Vec::new()) };
    let names = &names.value.general_names;
    if names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
        return None;
    }
    let uri = |name: &'a GeneralName<'_>| {
        if let GeneralName::URI(uri) = name { Some(*uri) } else { None }
    };
    Some(names.iter().filter_map(uri).collect())
}

/// A CA certificate need not name a trust domain, but if it does, it must be the one it
/// is offered for.
///
/// Spec: X509-SVID section 3.1 (signing certificates).
fn check_domain(certificate: &X509Certificate<'_>, domain: &TrustDomain) -> Result<(), CaInvalid> {
    let expected = format!("spiffe://{domain}");
    let foreign = |uri: &&&str| {
        let scheme = uri.get(..SCHEME.len());
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME))
            && **uri != expected
            && !uri.strip_prefix(&expected).is_some_and(|path| path.starts_with('/'))
    };
    let uris = uri_names(certificate).ok_or(CaInvalid::Malformed)?;
    match uris.iter().find(foreign) {
        None => Ok(()),
        Some(named) => Err(CaInvalid::TrustDomain {
            named: named.chars().take(80).collect(),
            expected: domain.clone(),
        }),
    }
}

fn key_identifier(extension: &x509_parser::extensions::X509Extension<'_>) -> Option<Vec<u8>> {
    if let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() {
        return Some(id.0.to_vec());
    }
    None
}

fn validity(certificate: &X509Certificate<'_>) -> (u64, u64) {
    let validity = certificate.validity();
    (moment::from_x509(validity.not_before), moment::from_x509(validity.not_after))
}

/// A DER integer without its sign byte.
fn unsigned(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().skip_while(|byte| *byte == 0).collect()
}

/// A certificate with an RSA-4096 key and signature has about 2 KiB.
pub(crate) const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
const EMPTY_NAME_BYTES: usize = 2;
const SCHEME: &str = "spiffe://";
const UNCOMPRESSED_POINT: u8 = 4;
const VERSION_3: u32 = 2;

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair,
        KeyUsagePurpose, SanType,
    };

    use super::*;

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn good() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri("spiffe://east.test/ns/a/sa/b")];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params
    }

    #[expect(clippy::unwrap_in_result, reason = "what fails here is the fixture")]
    fn leaf(change: impl FnOnce(&mut CertificateParams)) -> Result<Leaf, LeafInvalid> {
        let mut params = good();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Leaf::parse(params.self_signed(&key).unwrap().der())
    }

    #[test]
    fn a_workload_certificate_gives_its_id() {
        let leaf = leaf(|params| {
            params.subject_alt_names.push(SanType::DnsName("x.y".try_into().unwrap()))
        });
        assert_eq!(leaf.unwrap().id.as_str(), "spiffe://east.test/ns/a/sa/b");
    }

    #[test]
    fn a_leaf_needs_exactly_one_uri_name() {
        let ours = || uri("spiffe://east.test/ns/a/sa/b");
        let theirs = || uri("spiffe://west.test/ns/a/sa/b");
        for names in [vec![ours(), theirs()], vec![theirs(), ours()], vec![ours(), ours()]] {
            let refused = leaf(|params| params.subject_alt_names = names);
            assert_eq!(refused.unwrap_err(), LeafInvalid::UriCount { count: 2 });
        }
        let in_common_name = leaf(|params| {
            params.subject_alt_names.clear();
            let name = "spiffe://east.test/ns/a/sa/b";
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
        });
        assert_eq!(in_common_name.unwrap_err(), LeafInvalid::UriCount { count: 0 });
    }

    #[test]
    fn names_that_are_almost_spiffe_ids_are_refused() {
        let long = format!("spiffe://east.test/{}", "a".repeat(2049));
        for bad in [
            "spiffe://east.test",
            "SPIFFE://EAST.TEST/ns/a/sa/b",
            "spiffe://east.test:443/x",
            "spiffe://u@east.test/x",
            "spiffe://east.test/%2e%2e",
            "spiffe://east.test/ns/a/../b",
            "spiffe://east.test//x",
            "spiffe://east.test/x/",
            "spiffe://east.test/x?q",
            "spiffe://east.test/x#f",
            "spiffe://east.test/x\0",
            "https://east.test/x",
            long.as_str(),
        ] {
            let refused = leaf(|params| params.subject_alt_names = vec![uri(bad)]);
            assert!(matches!(refused, Err(LeafInvalid::Id { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_leaf_that_may_sign_certificates_is_refused() {
        let ca = leaf(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert_eq!(ca.unwrap_err(), LeafInvalid::IsCa);
        let signer = leaf(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign));
        assert_eq!(signer.unwrap_err(), LeafInvalid::KeyUsage);
        let none = leaf(|params| params.key_usages.clear());
        assert_eq!(none.unwrap_err(), LeafInvalid::KeyUsage);
    }

    #[test]
    fn a_leaf_for_clients_only_is_refused() {
        let refused =
            leaf(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
        assert_eq!(refused.unwrap_err(), LeafInvalid::Usage);
    }

    #[test]
    fn no_cut_or_changed_certificate_panics() {
        let der = good().self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let domain = TrustDomain::new("east.test").unwrap();
        for at in 0..der.len() {
            assert!(Leaf::parse(&der[..at]).is_err());
            let mut changed = der.clone();
            changed[at] ^= 0xff;
            // Most changes are only found by the signature; none may panic.
            let _ = Leaf::parse(&changed);
            let _ = CaCertificate::parse(&changed, &domain);
        }
        let limit = CERTIFICATE_BYTES_MAX;
        let refused = Leaf::parse(&vec![0x30; limit + 1]).unwrap_err();
        assert_eq!(refused, LeafInvalid::Size { length: limit + 1, limit });
    }

    #[test]
    fn a_ca_certificate_of_another_domain_is_refused() {
        let ca = |name: &str| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.subject_alt_names = vec![uri(name)];
            params.self_signed(&KeyPair::generate().unwrap()).unwrap()
        };
        let domain = TrustDomain::new("east.test").unwrap();
        assert!(CaCertificate::parse(ca("spiffe://east.test").der(), &domain).is_ok());
        for other in ["spiffe://west.test", "spiffe://east.test.evil", "SPIFFE://west.test/x"] {
            let refused = CaCertificate::parse(ca(other).der(), &domain);
            assert!(matches!(refused, Err(CaInvalid::TrustDomain { .. })), "{other}");
        }
    }
}
