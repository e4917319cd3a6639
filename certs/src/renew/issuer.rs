//! Who signs a request.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use rustls::pki_types::CertificateDer;

/// What an issuer answered.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Leaf first, then intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// The bundle of the own trust domain as JWKS; empty when the issuer sends none.
    pub bundle_jwks: Vec<u8>,
}

/// A request that brought no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The issuer said no.
    #[error("the authority refused the signing request: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// The issuer did not answer in time.
    #[error("the authority did not answer in time")]
    Timeout,
    /// The issuer cannot be reached.
    #[error("the authority cannot be reached: {reason}")]
    Unavailable {
        /// What the transport says.
        reason: String,
    },
}

/// The answer of an issuer, awaited.
pub type IssueFuture<'a> = Pin<Box<dyn Future<Output = Result<Issued, IssueError>> + Send + 'a>>;

/// Signs requests for one workload.
pub trait Issuer: Send + Sync + fmt::Debug {
    /// Has a request signed.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped; at worst a certificate is issued that nobody uses.
    fn issue(&self, csr_der: Vec<u8>) -> IssueFuture<'_>;
}
