//! The one crypto provider, randomness, and private keys that are wiped when dropped.

use std::fmt;
use std::sync::Arc;

use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize, Zeroizing};

/// The crypto provider of every TLS configuration and signature in Isthmus.
///
/// It is always passed explicitly: a process default could be installed first by any
/// dependency.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The system could not make a key or random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// A key pair could not be made.
    #[error("the crypto library could not make a key pair")]
    KeyGeneration,
    /// The file is not a private key that this product signs with.
    #[error("the private key is not PKCS#8 or SEC1 of a supported kind")]
    KeyInvalid,
    /// There is no randomness.
    #[error("the system gave no random bytes")]
    NoRandomness,
}

/// Fills an array with random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], CryptoError> {
    let mut bytes = [0; N];
    let source = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    source.fill(&mut bytes).map_err(|_| CryptoError::NoRandomness)?;
    Ok(bytes)
}

/// A private key; its serialised form is wiped when it is dropped.
pub(crate) struct PrivateKey(KeyPair);

impl PrivateKey {
    /// Makes an ECDSA P-256 key.
    pub(crate) fn generate() -> Result<Self, CryptoError> {
        KeyPair::generate().map(Self).map_err(|_| CryptoError::KeyGeneration)
    }

    /// Reads a PEM file.
    pub(crate) fn from_pem(pem: &str) -> Result<Self, CryptoError> {
        KeyPair::from_pem(pem).map(Self).map_err(|_| CryptoError::KeyInvalid)
    }

    /// Writes a PEM file.
    pub(crate) fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// The form that rustls reads.
    pub(crate) fn to_rustls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
    }
}

impl PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        PublicKeyData::algorithm(&self.0)
    }
}

impl SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}
