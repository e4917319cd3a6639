//! An issuer that asks the authority over its Unix socket.

use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use isthmus_model::Label;
use rustls::pki_types::CertificateDer;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

use super::proto::SignRequest;
use super::proto::certificate_authority_client::CertificateAuthorityClient;
use crate::bundle::BUNDLE_BYTES_MAX;
use crate::renew::{IssueError, IssueFuture, Issued, Issuer};

/// Has keys of one workload signed by the authority of this machine.
///
/// Each request makes a connection of its own: there is one in half an hour, and a
/// restarted authority needs no reconnecting.
#[derive(Debug, Clone)]
pub struct UnixIssuer {
    socket: PathBuf,
    namespace: Label,
    service_account: Label,
}

impl UnixIssuer {
    /// An issuer for a workload that this process's user is registered for.
    pub fn new(socket: PathBuf, namespace: Label, service_account: Label) -> Self {
        Self { socket, namespace, service_account }
    }

    async fn connect(&self) -> Result<Channel, IssueError> {
        let socket = self.socket.clone();
        // The address is only there because a channel must have one.
        let endpoint = Endpoint::from_static("http://authority").connect_timeout(CONNECT_TIMEOUT);
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        endpoint.connect_with_connector(connector).await.map_err(|error| {
            let socket = self.socket.display();
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let cause = cause.unwrap_or_default();
            IssueError::Unavailable { reason: format!("{socket}: {error}: {cause}") }
        })
    }

    async fn sign(&self, csr_der: Vec<u8>) -> Result<Issued, IssueError> {
        let mut client = CertificateAuthorityClient::new(self.connect().await?)
            .max_decoding_message_size(RESPONSE_BYTES_MAX);
        let request = SignRequest {
            csr_der,
            namespace: self.namespace.as_str().to_owned(),
            service_account: self.service_account.as_str().to_owned(),
        };
        let response = client.sign(request).await.map_err(|status| refused(&status))?.into_inner();
        let chain = response.chain_der.into_iter().map(CertificateDer::from).collect();
        Ok(Issued { chain, bundle_jwks: response.bundle_jwks })
    }
}

impl Issuer for UnixIssuer {
    fn issue(&self, csr_der: Vec<u8>) -> IssueFuture<'_> {
        Box::pin(self.sign(csr_der))
    }
}

pub(crate) fn refused(status: &Status) -> IssueError {
    let reason = format!("{}: {}", status.code().description(), status.message());
    if matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded) {
        IssueError::Unavailable { reason }
    } else {
        IssueError::Refused { reason }
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A bundle, and a chain of a few KiB.
pub(crate) const RESPONSE_BYTES_MAX: usize = BUNDLE_BYTES_MAX + 256 * 1024;
