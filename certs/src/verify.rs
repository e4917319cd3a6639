//! The peer's chain against the bundle of the trust domain that its own name says.
//!
//! The order is: bounds, shape of the leaf, is this peer expected, do we know its trust
//! domain, and only then signatures, against the roots of that one domain. A certificate
//! that another domain's authority made for the name is signed by an unknown issuer, no
//! matter how well we know that other domain.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use isthmus_model::{SpiffeId, TrustDomain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};

use crate::bundle::BundleCell;
use crate::bundle::set::DomainRoots;
use crate::moment;
use crate::x509::{CERTIFICATE_BYTES_MAX, Leaf, LeafInvalid};

/// Who may be at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Anyone whose trust domain is known; who it is, is for a later decision.
    Any,
    /// One of several.
    AnyOf(BTreeSet<SpiffeId>),
    /// Exactly this one.
    Exactly(SpiffeId),
    /// Anyone of one trust domain.
    InTrustDomain(TrustDomain),
}

impl Expected {
    /// Whether the ID is expected.
    pub fn admits(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Any => true,
            Self::AnyOf(ids) => ids.contains(id),
            Self::Exactly(expected) => expected == id,
            Self::InTrustDomain(domain) => id.trust_domain() == domain,
        }
    }
}

/// Why a peer's certificate was refused before its signatures were looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefused {
    /// The chain is too long, or a certificate of it too large.
    #[error(
        "the certificate chain has {length} certificates or one that is too large; at most {limit} of {bytes} bytes are allowed"
    )]
    Chain {
        /// Certificates received.
        length: usize,
        /// Certificates allowed.
        limit: usize,
        /// Bytes allowed in each.
        bytes: usize,
    },
    /// The peer presented nothing.
    #[error("the peer has no certificate")]
    Missing,
    /// The first certificate is not an SVID.
    #[error("{0}")]
    Leaf(LeafInvalid),
    /// The peer is someone else.
    #[error("the peer is {id}, which is not expected here")]
    Unexpected {
        /// Who it says it is; its signatures were not checked.
        id: SpiffeId,
    },
    /// There is no bundle for the trust domain.
    #[error("there is no trust bundle for {domain}")]
    UnknownDomain {
        /// The trust domain of the peer.
        domain: TrustDomain,
    },
}

/// The facts of the certificate that a peer showed in a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSvid {
    /// Who the peer is.
    pub id: SpiffeId,
    /// The last moment at which the certificate is valid.
    pub not_after: SystemTime,
}

/// Returns who the peer of a finished handshake is, and until when it has proved that.
///
/// Pass the chain of the connection (`peer_certificates`): the handshake has verified
/// it, this only reads the leaf.
///
/// # Errors
///
/// [`PeerRefused`] when there is no certificate or it is not an SVID, which cannot happen
/// after a handshake with [`MeshVerifier`].
pub fn peer_svid(chain: &[CertificateDer<'_>]) -> Result<PeerSvid, PeerRefused> {
    let leaf = chain.first().ok_or(PeerRefused::Missing)?;
    let leaf = Leaf::parse(leaf).map_err(PeerRefused::Leaf)?;
    Ok(PeerSvid { id: leaf.id, not_after: moment::time(leaf.not_after) })
}

/// Returns who the peer of a finished handshake is; [`peer_svid`] says more.
///
/// # Errors
///
/// Those of [`peer_svid`].
pub fn peer_id(chain: &[CertificateDer<'_>]) -> Result<SpiffeId, PeerRefused> {
    peer_svid(chain).map(|svid| svid.id)
}

/// Verifies peers for TLS, on either side.
#[derive(Debug)]
pub struct MeshVerifier {
    bundles: BundleCell,
    expected: Expected,
    provider: Arc<CryptoProvider>,
}

impl MeshVerifier {
    /// A verifier that reads the bundles current at each handshake.
    pub fn new(bundles: BundleCell, expected: Expected) -> Self {
        Self { bundles, expected, provider: crate::crypto::provider() }
    }

    /// Verifies a chain for one side of a handshake and returns who it is.
    ///
    /// # Errors
    ///
    /// A rustls error; what is refused here and not by webpki is a [`PeerRefused`] inside
    /// `CertificateError::Other`.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        side: PeerSide,
        now: UnixTime,
    ) -> Result<SpiffeId, rustls::Error> {
        check_bounds(intermediates).map_err(refuse)?;
        let id = Leaf::parse(leaf).map_err(|error| refuse(PeerRefused::Leaf(error)))?.id;
        if !self.expected.admits(&id) {
            return Err(refuse(PeerRefused::Unexpected { id }));
        }
        let bundles = self.bundles.load();
        let domain = id.trust_domain();
        let Some(roots) = bundles.roots(domain) else {
            return Err(refuse(PeerRefused::UnknownDomain { domain: domain.clone() }));
        };
        if roots.is_wholly_valid_at(now.as_secs()) {
            self.check_chain(roots, leaf, intermediates, side, now)?;
        } else {
            // Rare: a root has ended, or a peer published one that has not begun.
            let valid = roots.valid_at(now.as_secs(), &self.provider);
            let valid = valid.ok_or_else(unknown_issuer)?;
            self.check_chain(&valid, leaf, intermediates, side, now)?;
        }
        Ok(id)
    }

    #[expect(clippy::too_many_arguments, reason = "the arguments are those of rustls and webpki")]
    fn check_chain(
        &self,
        roots: &DomainRoots,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        side: PeerSide,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        match side {
            PeerSide::Client => {
                roots.clients.verify_client_cert(leaf, intermediates, now).map(|_| ())
            }
            PeerSide::Server => {
                let leaf = ParsedCertificate::try_from(leaf)?;
                let algorithms = self.provider.signature_verification_algorithms.all;
                let store = &roots.store;
                verify_server_cert_signed_by_trust_anchor(
                    &leaf,
                    store,
                    intermediates,
                    now,
                    algorithms,
                )
            }
        }
    }
}

/// Which side of the handshake the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerSide {
    /// The peer dialled.
    Client,
    /// The peer was dialled.
    Server,
}

impl ServerCertVerifier for MeshVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, PeerSide::Server, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for MeshVerifier {
    /// None: hints would tell a stranger which domains are federated.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, PeerSide::Client, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}

fn check_bounds(intermediates: &[CertificateDer<'_>]) -> Result<(), PeerRefused> {
    let large = intermediates.iter().any(|certificate| certificate.len() > CERTIFICATE_BYTES_MAX);
    if large || intermediates.len() >= CHAIN_LENGTH_MAX {
        return Err(PeerRefused::Chain {
            length: intermediates.len() + 1,
            limit: CHAIN_LENGTH_MAX,
            bytes: CERTIFICATE_BYTES_MAX,
        });
    }
    Ok(())
}

fn refuse(reason: PeerRefused) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(reason))).into()
}

fn unknown_issuer() -> rustls::Error {
    CertificateError::UnknownIssuer.into()
}

/// Leaf, our intermediate, and up to three that a user's hierarchy may add.
const CHAIN_LENGTH_MAX: usize = 5;

#[cfg(test)]
mod tests;
