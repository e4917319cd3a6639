//! What listeners demand of clients' certificates.
//!
//! Without `AllowInsecureFallback` a client must show a chain that ends in the listener's
//! roots; roots that cannot be used let nobody in. With it, every client is let in, and a
//! certificate that is shown proves nothing but the possession of its key.
//!
//! Spec: Gateway API `Gateway.spec.tls.frontend`, GEP-91.

use std::sync::Arc;

use isthmus_certs::{pem, provider};
use isthmus_model::gateway::ClientValidation;
use isthmus_runtime::error_chain;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

/// The verifier of a listener; always one, so that a mistake lets nobody in.
pub(crate) fn verifier(validation: &ClientValidation) -> Arc<dyn ClientCertVerifier> {
    if validation.insecure_fallback {
        return Arc::new(Flat::new(Answer::Everyone));
    }
    match strict(&validation.roots_pem) {
        Ok(verifier) => verifier,
        Err(reason) => {
            tracing::warn!(%reason, "the roots of client certificates cannot be used");
            Arc::new(Flat::new(Answer::Nobody))
        }
    }
}

fn strict(roots_pem: &str) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let roots = pem::roots(roots_pem).map_err(|error| error_chain(&error))?;
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| error.to_string())
}

/// Gives every certificate the same answer.
#[derive(Debug)]
struct Flat {
    answer: Answer,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Everyone,
    Nobody,
}

impl Flat {
    fn new(answer: Answer) -> Self {
        Self { answer, algorithms: provider().signature_verification_algorithms }
    }
}

impl ClientCertVerifier for Flat {
    fn client_auth_mandatory(&self) -> bool {
        match self.answer {
            Answer::Everyone => false,
            Answer::Nobody => true,
        }
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match self.answer {
            Answer::Everyone => Ok(ClientCertVerified::assertion()),
            Answer::Nobody => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
