//! An issuer that asks the controller with a projected token.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use isthmus_model::SpiffeId;
use isthmus_runtime::{SnapshotCell, error_chain};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Endpoint, Uri};
use zeroize::Zeroizing;

use super::proto::SignRequest;
use super::proto::certificate_service_client::CertificateServiceClient;
use super::{ALPN, TOKEN_BYTES_MAX};
use crate::bundle::{Bundle, BundleSet};
use crate::pem;
use crate::renew::{IssueError, IssueFuture, Issued, Issuer};
use crate::service::client::{RESPONSE_BYTES_MAX, refused};
use crate::tls::mesh_server_name;
use crate::verify::{Expected, MeshVerifier};

/// Where the controller is and how both sides prove themselves.
#[derive(Debug, Clone)]
pub struct TokenIssuerSettings {
    /// Host or address, and port, of the controller's certificate service.
    pub address: String,
    /// The projected token, which the kubelet replaces before it ends.
    pub token_file: PathBuf,
    /// The roots of the cluster, PEM; at most 256 KiB.
    pub roots_file: PathBuf,
    /// Who the server must be: the controller's SPIFFE ID.
    pub controller: SpiffeId,
}

/// Has keys of this pod's workload signed by the controller.
///
/// Token and roots are read for each request, since both are replaced under the running
/// pod. Each request makes a connection of its own: there is one in half an hour, and the
/// controller may be another process by then.
#[derive(Debug, Clone)]
pub struct TokenIssuer {
    pub(super) settings: TokenIssuerSettings,
}

impl TokenIssuer {
    /// An issuer; nothing is read or connected yet.
    pub fn new(settings: TokenIssuerSettings) -> Self {
        Self { settings }
    }

    async fn sign(&self, csr_der: Vec<u8>) -> Result<Issued, IssueError> {
        let TokenIssuerSettings { address, token_file, roots_file, .. } = &self.settings;
        let token = Zeroizing::new(read(token_file, TOKEN_BYTES_MAX).await?);
        let token = std::str::from_utf8(&token).map_err(|_| unusable(token_file, &"no text"))?;
        let tls = self.tls(&read(roots_file, ROOTS_BYTES_MAX).await?)?;
        let connector = TlsConnector::from(tls);
        let target = address.clone();
        // The URI is only there because a channel must have one.
        let endpoint = Endpoint::from_static("http://authority").connect_timeout(CONNECT_TIMEOUT);
        let connect = tower::service_fn(move |_: Uri| {
            let (connector, target) = (connector.clone(), target.clone());
            async move {
                let stream = TcpStream::connect(target).await?;
                connector.connect(mesh_server_name(), stream).await.map(TokioIo::new)
            }
        });
        let channel = endpoint.connect_with_connector(connect).await.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let reason = format!("{address}: {error}: {}", cause.unwrap_or_default());
            IssueError::Unavailable { reason }
        })?;
        let mut client =
            CertificateServiceClient::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX);
        let request = SignRequest { csr_der, token: token.trim().to_owned() };
        let response = client.sign(request).await.map_err(|status| refused(&status))?.into_inner();
        let chain = response.chain_der.into_iter().map(CertificateDer::from).collect();
        Ok(Issued { chain, bundle_jwks: response.bundle_jwks })
    }

    /// TLS without a client certificate, to a server of the roots and of the one identity.
    fn tls(&self, roots_pem: &[u8]) -> Result<Arc<ClientConfig>, IssueError> {
        let TokenIssuerSettings { roots_file, controller, .. } = &self.settings;
        let roots = pem::certificates(roots_pem)
            .map_err(|error| unusable(roots_file, &error_chain(&error)))?;
        let bundle = Bundle::new(controller.trust_domain().clone(), None, None, &roots)
            .map_err(|error| unusable(roots_file, &error))?;
        let bundles = SnapshotCell::new(BundleSet::new([&bundle]));
        let verifier = MeshVerifier::new(bundles, Expected::Exactly(controller.clone()));
        let mut config = ClientConfig::builder_with_provider(crate::crypto::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| IssueError::Unavailable { reason: error.to_string() })?
            // Called dangerous because it replaces web PKI names; SPIFFE verification is
            // the replacement.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        Ok(Arc::new(config))
    }
}

impl Issuer for TokenIssuer {
    fn issue(&self, csr_der: Vec<u8>) -> IssueFuture<'_> {
        Box::pin(self.sign(csr_der))
    }
}

async fn read(path: &Path, limit: usize) -> Result<Vec<u8>, IssueError> {
    let bytes = async {
        let file = tokio::fs::File::open(path).await?;
        let mut bytes = Vec::new();
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        file.take(most).read_to_end(&mut bytes).await?;
        Ok::<_, io::Error>(bytes)
    };
    let bytes = bytes.await.map_err(|error| unusable(path, &error))?;
    if bytes.is_empty() || bytes.len() > limit {
        return Err(unusable(path, &format_args!("it is empty or has more than {limit} bytes")));
    }
    Ok(bytes)
}

/// A file of our own pod: it may be replaced, so that a later try may succeed.
fn unusable(path: &Path, reason: &dyn std::fmt::Display) -> IssueError {
    IssueError::Unavailable { reason: format!("{} cannot be used: {reason}", path.display()) }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Two roots during a rotation have a few KiB.
const ROOTS_BYTES_MAX: usize = 256 * 1024;
