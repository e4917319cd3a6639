//! TLS to the backends of a service that a BackendTLSPolicy names.
//!
//! The chain must end in the policy's certificates and the leaf must have one of its
//! names; there is no way to switch either off. A policy that cannot be used is answered
//! for by [`UpstreamTls::unusable`] before anything is connected, and nothing ever falls
//! back to clear text.
//!
//! Spec: Gateway API v1 BackendTLSPolicy.

use std::cell::RefCell;
use std::sync::Arc;

use isthmus_certs::{pem, provider};
use isthmus_model::backend_tls::{BackendRoots, BackendTls, SubjectName};
use isthmus_model::{AppProtocol, Certificate};
use isthmus_runtime::error_chain;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::extensions::GeneralName;

use crate::connect::{ConnectError, Purpose};

/// The TLS that a connection to a plain endpoint speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The policy.
    pub policy: Arc<BackendTls>,
    /// What the endpoint is shown when it asks for a certificate.
    pub certificate: Option<Arc<Certificate>>,
}

impl UpstreamTls {
    /// Why requests must be refused; `None` when the policy can be used.
    pub fn unusable(&self) -> Option<&str> {
        match &self.policy.roots {
            BackendRoots::Invalid { reason } => Some(reason),
            BackendRoots::Pem(_) | BackendRoots::System => None,
        }
    }

    /// Whether two connections with these may be used for the same request; equal parts
    /// of two snapshots are mostly the same objects.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let certificate = match (&self.certificate, &other.certificate) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        certificate && (Arc::ptr_eq(&self.policy, &other.policy) || self.policy == other.policy)
    }
}

/// The client configurations of one worker, made when they are first needed.
#[derive(Default)]
pub(crate) struct BackendConfigs {
    made: RefCell<Vec<Made>>,
}

struct Made {
    tls: UpstreamTls,
    alpn: Option<&'static [u8]>,
    config: Arc<ClientConfig>,
}

impl BackendConfigs {
    /// The configuration for a purpose.
    pub(crate) fn get(
        &self,
        tls: &UpstreamTls,
        purpose: Purpose,
    ) -> Result<Arc<ClientConfig>, ConnectError> {
        let alpn = alpn(purpose);
        let mut made = self.made.borrow_mut();
        if let Some(found) = made.iter().find(|made| made.alpn == alpn && made.tls.same(tls)) {
            return Ok(Arc::clone(&found.config));
        }
        let config = client_config(tls, alpn).map_err(|reason| ConnectError::Tls {
            to: tls.policy.hostname.clone(),
            reason: format!("BackendTLSPolicy {}: {reason}", tls.policy.policy),
        })?;
        let config = Arc::new(config);
        if made.len() >= CONFIGS_MAX {
            made.remove(0);
        }
        made.push(Made { tls: tls.clone(), alpn, config: Arc::clone(&config) });
        Ok(config)
    }
}

/// Speaks TLS on an open connection.
pub(crate) async fn handshake(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    tls: &UpstreamTls,
    endpoint: &str,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let failed = |reason: String| ConnectError::Tls { to: endpoint.to_owned(), reason };
    let name = ServerName::try_from(tls.policy.hostname.clone())
        .map_err(|error| failed(format!("hostname {}: {error}", tls.policy.hostname)))?;
    let connecting = TlsConnector::from(config).connect(name, stream).await;
    connecting.map_err(|error| failed(error_chain(&error)))
}

/// What is offered; opaque bytes offer nothing, and a server's default is HTTP/1.1.
fn alpn(purpose: Purpose) -> Option<&'static [u8]> {
    match purpose {
        Purpose::Http { app: AppProtocol::Http2 } => Some(b"h2"),
        Purpose::Http { .. } => Some(b"http/1.1"),
        Purpose::Bytes => None,
    }
}

fn client_config(tls: &UpstreamTls, alpn: Option<&[u8]>) -> Result<ClientConfig, String> {
    let provider = provider();
    let names = match tls.policy.names.as_slice() {
        [] => vec![SubjectName::Dns(tls.policy.hostname.clone())],
        names => names.to_vec(),
    };
    let algorithms = provider.signature_verification_algorithms;
    let verifier = BackendVerifier { roots: roots(&tls.policy.roots)?, names, algorithms };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &tls.certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let failed =
                |error: String| format!("client certificate {}: {error}", certificate.name);
            let (chain, key) = pem::chain_and_key(&certificate.chain_pem, &certificate.key_pem)
                .map_err(|error| failed(error_chain(&error)))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| failed(error_chain(&error)))?
        }
    };
    config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
    Ok(config)
}

fn roots(roots: &BackendRoots) -> Result<RootCertStore, String> {
    match roots {
        BackendRoots::Invalid { reason } => Err(reason.clone()),
        BackendRoots::Pem(text) => pem::roots(text)
            .map_err(|error| format!("the certificates to trust: {}", error_chain(&error))),
        BackendRoots::System => {
            let mut store = RootCertStore::empty();
            let files = SYSTEM_ROOTS.iter().filter_map(|path| std::fs::read(path).ok());
            let pem = files.into_iter().next().unwrap_or_default();
            // Some of the many may have a form that is not supported; the others count.
            store.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
            if store.is_empty() {
                return Err("the system has no certificate to trust".to_owned());
            }
            Ok(store)
        }
    }
}

/// Checks the chain, and that the leaf has one of the names.
#[derive(Debug)]
struct BackendVerifier {
    roots: RootCertStore,
    names: Vec<SubjectName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for BackendVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let leaf = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &leaf,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        if self.names.iter().any(|name| has_name(&leaf, end_entity, name)) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::NotValidForName.into())
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

/// An exact DNS name may be covered by a wildcard of the certificate; a wanted wildcard
/// takes names with one label in its place.
fn has_name(leaf: &ParsedCertificate<'_>, der: &[u8], wanted: &SubjectName) -> bool {
    let (suffix, uri) = match wanted {
        SubjectName::Dns(name) => match name.strip_prefix('*') {
            Some(suffix) => (Some(suffix), None),
            None => {
                let name = ServerName::try_from(name.as_str());
                return name.is_ok_and(|name| verify_server_name(leaf, &name).is_ok());
            }
        },
        SubjectName::Uri(uri) => (None, Some(uri.as_str())),
    };
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) else { return false };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return false };
    names.value.general_names.iter().any(|name| match name {
        GeneralName::DNSName(name) => suffix.is_some_and(|suffix| {
            let rest = name.find('.').and_then(|at| name.get(at..));
            rest.is_some_and(|rest| rest.eq_ignore_ascii_case(suffix))
        }),
        GeneralName::URI(name) => uri == Some(*name),
        GeneralName::OtherName(..)
        | GeneralName::RFC822Name(_)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::IPAddress(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => false,
    })
}

/// Where distributions keep the certificates that the system trusts; the first counts.
const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Configurations kept by one worker; above it the oldest is made again when needed.
const CONFIGS_MAX: usize = 256;

#[cfg(test)]
mod tests;
