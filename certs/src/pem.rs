//! Certificates and keys in PEM, as users and files bring them: bounded, and with errors
//! that say which part is wrong.

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate chain, leaf first, and the leaf's key.
pub type ChainAndKey = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// PEM that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// A certificate that is not well-formed PEM.
    #[error("certificate {number} cannot be read")]
    Certificate {
        /// Which one, from 1.
        number: usize,
        /// What is wrong.
        source: pem::Error,
    },
    /// Text without any certificate.
    #[error("there is no certificate in it")]
    Empty,
    /// A key that is not well-formed PEM, or none at all.
    #[error("the private key cannot be read")]
    Key {
        /// What is wrong.
        source: pem::Error,
    },
    /// More text than is read.
    #[error("it has {length} bytes of PEM, at most {BYTES_MAX} are read")]
    Length {
        /// How much it is.
        length: usize,
    },
    /// A certificate that nothing can be verified against.
    #[error("certificate {number} cannot be a root")]
    Root {
        /// Which one, from 1.
        number: usize,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// Reads every certificate of a text of at most 8 MiB; other PEM sections are passed over.
///
/// # Errors
///
/// [`PemError`]: the text is too long, a certificate is malformed, or there is none.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    if pem.len() > BYTES_MAX {
        return Err(PemError::Length { length: pem.len() });
    }
    let numbered = (1..).zip(CertificateDer::pem_slice_iter(pem));
    let certificates = numbered
        .map(|(number, read)| read.map_err(|source| PemError::Certificate { number, source }))
        .collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() {
        return Err(PemError::Empty);
    }
    Ok(certificates)
}

/// Reads the roots that others' chains must end in; at least one, and every one usable.
///
/// # Errors
///
/// As [`certificates`], and [`PemError::Root`].
pub fn roots(pem: &str) -> Result<RootCertStore, PemError> {
    let mut store = RootCertStore::empty();
    for (number, certificate) in (1..).zip(certificates(pem.as_bytes())?) {
        store.add(certificate).map_err(|source| PemError::Root { number, source })?;
    }
    Ok(store)
}

/// Reads a chain and its key. Whether they belong together is not looked at.
///
/// # Errors
///
/// As [`certificates`], and [`PemError::Key`].
pub fn chain_and_key(chain_pem: &str, key_pem: &str) -> Result<ChainAndKey, PemError> {
    let chain = certificates(chain_pem.as_bytes())?;
    if key_pem.len() > BYTES_MAX {
        return Err(PemError::Length { length: key_pem.len() });
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes());
    Ok((chain, key.map_err(|source| PemError::Key { source })?))
}

/// Eight references to objects of 1 MiB, the largest that Kubernetes keeps.
const BYTES_MAX: usize = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const NO_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    fn signed() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn an_error_says_which_part_is_wrong() {
        let (chain, key) = signed();
        let said = |error: PemError| error.to_string();
        assert_eq!(said(certificates(b"no PEM").unwrap_err()), "there is no certificate in it");
        assert!(said(roots(&" ".repeat(BYTES_MAX + 1)).unwrap_err()).contains("8388609 bytes"));
        let second = format!("{chain}{NO_CERTIFICATE}");
        assert_eq!(said(roots(&second).unwrap_err()), "certificate 2 cannot be a root");
        let cut = format!("{chain}-----BEGIN CERTIFICATE-----\nAAAA\n");
        assert_eq!(said(roots(&cut).unwrap_err()), "certificate 2 cannot be read");
        let error = chain_and_key(&chain, &chain).unwrap_err();
        assert_eq!(said(error), "the private key cannot be read");
        assert_eq!(chain_and_key(&chain, &key).unwrap().0.len(), 1);
        assert_eq!(roots(&format!("{chain}{key}{chain}")).unwrap().len(), 2);
    }
}
