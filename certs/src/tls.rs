//! Client and server configurations for the inside of the mesh.
//!
//! TLS 1.3 only, certificates on both sides, and no resumption of any kind: a resumed
//! session would carry an identity that is not verified again, past the end of its
//! certificate and past the removal of its root.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, ServerConfig};

use crate::bundle::BundleCell;
use crate::svid::SvidCell;
use crate::verify::{Expected, MeshVerifier};

/// The crypto provider cannot do what the mesh needs; never so with the built-in one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the crypto provider does not support TLS 1.3")]
pub struct TlsError(#[source] pub(crate) rustls::Error);

/// Makes TLS configurations for one identity.
///
/// Configurations are made once and stay right: SVID and bundles are read anew in each
/// handshake. They fit QUIC as they are.
#[derive(Debug, Clone)]
pub struct MeshTls {
    svid: SvidCell,
    bundles: BundleCell,
}

impl MeshTls {
    /// Joins the own identity and those who may be trusted.
    pub fn new(svid: SvidCell, bundles: BundleCell) -> Self {
        Self { svid, bundles }
    }

    /// The cell of the own identity.
    pub fn svid(&self) -> &SvidCell {
        &self.svid
    }

    /// The cell of the bundles.
    pub fn bundles(&self) -> &BundleCell {
        &self.bundles
    }

    /// A server that requires a certificate of any known trust domain.
    ///
    /// # Errors
    ///
    /// [`TlsError`], never with the built-in provider.
    pub fn server_config(&self, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
        self.server_config_expecting(alpn, Expected::Any)
    }

    /// A server that requires a certificate of an expected peer.
    ///
    /// # Errors
    ///
    /// [`TlsError`], never with the built-in provider.
    pub fn server_config_expecting(
        &self,
        alpn: &[&[u8]],
        expected: Expected,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let verifier = Arc::new(MeshVerifier::new(self.bundles.clone(), expected));
        let mut config = ServerConfig::builder_with_provider(crate::crypto::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(self.svid.clone()));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }

    /// A client that presents the own SVID and accepts only an expected server.
    ///
    /// The server name is not sent and not compared; pass [`mesh_server_name`].
    ///
    /// # Errors
    ///
    /// [`TlsError`], never with the built-in provider.
    pub fn client_config(
        &self,
        alpn: &[&[u8]],
        expected: Expected,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let verifier = Arc::new(MeshVerifier::new(self.bundles.clone(), expected));
        let mut config = ClientConfig::builder_with_provider(crate::crypto::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError)?
            // Called dangerous because it replaces web PKI names; SPIFFE verification is
            // the replacement.
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(self.svid.clone()));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        Ok(Arc::new(config))
    }
}

/// The server name that rustls asks for and the mesh ignores.
pub fn mesh_server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
}
