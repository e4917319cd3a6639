//! Takes the public key, and nothing else, from a certificate signing request.
//!
//! The requester chooses neither its name nor its rights: subject, extensions and
//! attributes of the request are never looked at. What is checked is that the requester
//! holds the private key (the request's own signature) and that the key is one that the
//! mesh is willing to verify many times a second.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A signing request that is not answered with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsrRefused {
    /// The key is of a kind that is not signed.
    #[error("the key of the signing request is not ECDSA P-256, Ed25519 or RSA")]
    KeyKind,
    /// The key has a size or an exponent that is not signed.
    #[error(
        "the RSA key of the signing request has {bits} bits and exponent {exponent}; 2048 to 4096 bits and an odd exponent of at least 65537 are allowed"
    )]
    KeyWeak {
        /// Bits of the modulus.
        bits: usize,
        /// The exponent; 0 when it does not fit 64 bits.
        exponent: u64,
    },
    /// The bytes are not one PKCS#10 request.
    #[error("the signing request is not PKCS#10 in DER")]
    Malformed,
    /// The request is not signed by the key in it.
    #[error("the signing request is not signed by the key in it")]
    Signature,
    /// The request is too large to be parsed.
    #[error("the signing request has {length} bytes, at most {limit} are allowed")]
    Size {
        /// Bytes received.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

/// The public key of a request that proved possession of the private key.
#[derive(Debug)]
pub(crate) struct ProvenKey(pub(crate) rcgen::SubjectPublicKeyInfo);

/// Checks a request and returns its key.
///
/// The size goes first and the kind of key before the signature, so that neither a huge
/// request nor a huge RSA key costs work.
pub(crate) fn proven_key(csr_der: &[u8]) -> Result<ProvenKey, CsrRefused> {
    if csr_der.len() > CSR_BYTES_MAX {
        return Err(CsrRefused::Size { length: csr_der.len(), limit: CSR_BYTES_MAX });
    }
    let (rest, request) =
        X509CertificationRequest::from_der(csr_der).map_err(|_| CsrRefused::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrRefused::Malformed);
    }
    let key = &request.certification_request_info.subject_pki;
    check_key(key)?;
    request.verify_signature().map_err(|_| CsrRefused::Signature)?;
    rcgen::SubjectPublicKeyInfo::from_der(key.raw).map(ProvenKey).map_err(|_| CsrRefused::KeyKind)
}

fn check_key(key: &SubjectPublicKeyInfo<'_>) -> Result<(), CsrRefused> {
    let kind = &key.algorithm.algorithm;
    let length = key.subject_public_key.data.len();
    if *kind == OID_SIG_ED25519 && length == ED25519_BYTES {
        return Ok(());
    }
    if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY && length == P256_POINT_BYTES {
        let curve = key.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
        return if curve == Some(OID_EC_P256) { Ok(()) } else { Err(CsrRefused::KeyKind) };
    }
    if *kind != OID_PKCS1_RSAENCRYPTION {
        return Err(CsrRefused::KeyKind);
    }
    let Ok(PublicKey::RSA(rsa)) = key.parsed() else { return Err(CsrRefused::KeyKind) };
    let bits = modulus_bits(rsa.modulus);
    let exponent = rsa.try_exponent().unwrap_or(0);
    let good = (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits)
        && (RSA_EXPONENT_MIN..=RSA_EXPONENT_MAX).contains(&exponent)
        && exponent % 2 == 1;
    if good { Ok(()) } else { Err(CsrRefused::KeyWeak { bits, exponent }) }
}

fn modulus_bits(modulus: &[u8]) -> usize {
    let zeroes = modulus.iter().take_while(|byte| **byte == 0).count();
    let significant = modulus.get(zeroes..).unwrap_or_default();
    let leading = significant.first().map_or(0, |byte| byte.leading_zeros() as usize);
    significant.len() * 8 - leading
}

/// A request with an RSA-4096 key and a few names has about 2 KiB.
pub(crate) const CSR_BYTES_MAX: usize = 16 * 1024;
const ED25519_BYTES: usize = 32;
const P256_POINT_BYTES: usize = 65;
const RSA_BITS_MIN: usize = 2048;
const RSA_BITS_MAX: usize = 4096;
const RSA_EXPONENT_MIN: u64 = 65_537;
const RSA_EXPONENT_MAX: u64 = u32::MAX as u64;

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PublicKeyData};

    use super::*;

    fn csr(key: &KeyPair) -> Vec<u8> {
        let params = CertificateParams::default();
        params.serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn p256_ed25519_and_rsa_requests_prove_their_key() {
        for kind in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519] {
            let key = KeyPair::generate_for(kind).unwrap();
            assert!(proven_key(&csr(&key)).is_ok(), "{kind:?}");
        }
        let size = rcgen::RsaKeySize::_2048;
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap();
        let proven = proven_key(&csr(&key)).unwrap();
        // The certificate must carry the key as it is, not re-coded as another kind.
        let (ours, theirs) = (proven.0.subject_public_key_info(), key.subject_public_key_info());
        assert_eq!(ours, theirs);
    }

    #[test]
    fn other_curves_are_refused() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        assert_eq!(proven_key(&csr(&key)).unwrap_err(), CsrRefused::KeyKind);
    }

    #[test]
    fn a_request_with_a_bad_signature_is_refused() {
        let mut der = csr(&KeyPair::generate().unwrap());
        let last = der.len() - 1;
        der[last] ^= 1;
        assert_eq!(proven_key(&der).unwrap_err(), CsrRefused::Signature);
    }

    #[test]
    fn a_request_for_another_ones_key_is_refused() {
        let (mine, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut der = csr(&mine);
        let at = der.windows(65).position(|part| part == mine.public_key_raw()).unwrap();
        der[at..at + 65].copy_from_slice(other.public_key_raw());
        assert_eq!(proven_key(&der).unwrap_err(), CsrRefused::Signature);
    }

    #[test]
    fn hostile_sizes_and_shapes_are_refused_without_work() {
        let refused = CsrRefused::Size { length: 10_000_000, limit: CSR_BYTES_MAX };
        assert_eq!(proven_key(&vec![0x30; 10_000_000]).unwrap_err(), refused);
        let good = csr(&KeyPair::generate().unwrap());
        for end in 0..good.len() {
            assert!(proven_key(&good[..end]).is_err(), "cut at {end}");
        }
        let mut longer = good.clone();
        longer.push(0);
        assert_eq!(proven_key(&longer).unwrap_err(), CsrRefused::Malformed);
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 0xff;
            assert!(proven_key(&changed).is_err(), "byte {at} changed");
        }
    }

    #[test]
    fn weak_and_huge_rsa_keys_are_refused_by_their_numbers() {
        let modulus = |bits: usize| {
            let mut bytes = vec![0];
            bytes.resize(bits / 8 + 1, 0xff);
            bytes
        };
        for (bits, exponent, good) in [
            (1024, 65_537, false),
            (2048, 65_537, true),
            (2048, 3, false),
            (2048, 65_538, false),
            (16_384, 65_537, false),
        ] {
            let spki = rsa_spki(&modulus(bits), exponent);
            let (_, key) = SubjectPublicKeyInfo::from_der(&spki).unwrap();
            assert_eq!(check_key(&key).is_ok(), good, "{bits} bits, exponent {exponent}");
        }
    }

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
        let header = match (high, low) {
            (0, 0..0x80) => vec![tag, low],
            (0, _) => vec![tag, 0x81, low],
            _ => vec![tag, 0x82, high, low],
        };
        [&header, content].concat()
    }

    fn rsa_spki(modulus: &[u8], exponent: u32) -> Vec<u8> {
        let exponent = exponent.to_be_bytes();
        let zeroes = exponent.iter().take_while(|byte| **byte == 0).count();
        let exponent = &exponent[zeroes..];
        let key = tlv(0x30, &[tlv(2, modulus), tlv(2, exponent)].concat());
        let oid = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
        let bits = [&[0][..], &key].concat();
        tlv(0x30, &[tlv(0x30, &oid), tlv(3, &bits)].concat())
    }
}
