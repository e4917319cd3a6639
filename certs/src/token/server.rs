//! The authority's answers to pods.
//!
//! The order of a request: its sizes, how often its address asks, a place among the
//! reviews, the review, how often its pod asks, the signature. So what costs the API server
//! something comes after what costs nothing, and a caller without a good token never gets
//! as far as the authority.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use isthmus_model::SpiffeId;
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::incoming::{self, Peer};
use super::proto::certificate_service_server::{CertificateService, CertificateServiceServer};
use super::proto::{SignRequest, SignResponse};
use super::review::{ReviewError, ReviewedWorkload, TokenReviewer};
use super::{ALPN, TOKEN_BYTES_MAX};
use crate::authority::{AUDIT_TARGET, AuthorityHandle};
use crate::csr::{CSR_BYTES_MAX, CsrRefused};
use crate::moment;
use crate::serve::{Served, Serving, check_rate};
use crate::service::rate::SignRate;
use crate::service::server::status;
use crate::svid::SvidCell;
use crate::tls::TlsError;

/// How pods are served.
#[derive(Debug, Clone, Copy)]
pub struct TokenCaSettings {
    /// Signatures that one pod may have at once. Default 10.
    pub sign_burst: u32,
    /// The pause for one more signature after the burst. Default 6 s.
    pub sign_refill: Duration,
    /// Requests that one address may send at once, good or bad. Default 30.
    pub address_burst: u32,
    /// The pause for one more request after the burst. Default 1 s.
    pub address_refill: Duration,
    /// Tokens under review at a time; further requests wait for their turn, up to the
    /// time-out of 10 s. Default 16.
    pub reviews_max: usize,
    /// Connections at a time; further ones are closed at once. Default 1024.
    pub connections_max: usize,
}

impl Default for TokenCaSettings {
    fn default() -> Self {
        Self {
            sign_burst: 10,
            sign_refill: Duration::from_secs(6),
            address_burst: 30,
            address_refill: Duration::from_secs(1),
            reviews_max: 16,
            connections_max: 1024,
        }
    }
}

/// The served authority; dropping it ends the service at once.
#[derive(Debug)]
pub struct TokenCaServer {
    local: SocketAddr,
    served: Served,
}

impl TokenCaServer {
    /// Serves on a bound listener, under the SVID of the cell, which is the controller's.
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// The system's, when the listener has no address.
    pub fn start(
        listener: TcpListener,
        svid: SvidCell,
        settings: &TokenCaSettings,
        authority: AuthorityHandle,
        reviewer: Arc<dyn TokenReviewer>,
    ) -> io::Result<Self> {
        let local = listener.local_addr()?;
        let acceptor = TlsAcceptor::from(server_config(svid).map_err(io::Error::other)?);
        let service = Service {
            authority,
            reviewer,
            reviews: Semaphore::new(settings.reviews_max.clamp(1, Semaphore::MAX_PERMITS)),
            by_address: Mutex::new(SignRate::new(settings.address_burst, settings.address_refill)),
            by_pod: Mutex::new(SignRate::new(settings.sign_burst, settings.sign_refill)),
        };
        let service =
            CertificateServiceServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let serving =
            Serving { clients: "pods", streams_max: STREAMS_MAX, routes: Routes::new(service) };
        let connections_max = settings.connections_max;
        let served = Served::start(serving, |sender| {
            incoming::accept(listener, acceptor, connections_max, sender)
        });
        Ok(Self { local, served })
    }

    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Stops accepting and lets requests end up to a deadline.
    pub async fn stop(self, deadline: Duration) {
        self.served.stop(deadline).await;
    }
}

/// TLS that proves the server and asks nothing of the client, without resumption.
fn server_config(svid: SvidCell) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(crate::crypto::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(svid));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Service {
    authority: AuthorityHandle,
    reviewer: Arc<dyn TokenReviewer>,
    reviews: Semaphore,
    by_address: Mutex<SignRate<IpAddr>>,
    by_pod: Mutex<SignRate<String>>,
}

#[tonic::async_trait]
impl CertificateService for Service {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let peer = request.extensions().get::<Peer>().copied();
        let Peer(address) =
            peer.ok_or_else(|| Status::unauthenticated("the connection has no address"))?;
        let SignRequest { csr_der, token } = request.into_inner();
        check_sizes(&csr_der, &token)?;
        check_rate(&self.by_address, &address)?;
        let reviewed = self.review(token, address).await?;
        check_rate(&self.by_pod, &reviewed.pod_uid)?;
        let domain = self.authority.read(|authority| authority.trust_domain().clone());
        let id = SpiffeId::workload(&domain, &reviewed.namespace, &reviewed.service_account);
        let issued = self.authority.sign(&csr_der, &id).map_err(|error| status(&error))?;
        let ReviewedWorkload { pod, pod_uid, .. } = &reviewed;
        tracing::info!(target: AUDIT_TARGET, %id, pod, pod_uid, "a pod was given an SVID");
        Ok(Response::new(SignResponse {
            chain_der: issued.chain.iter().map(|der| der.to_vec()).collect(),
            not_after: moment::seconds(issued.not_after),
            bundle_jwks: self.authority.read(|authority| authority.bundle().to_jwks()),
        }))
    }
}

impl Service {
    async fn review(&self, token: String, address: IpAddr) -> Result<ReviewedWorkload, Status> {
        let gone = |_| Status::unavailable("the authority is ending");
        let _place = self.reviews.acquire().await.map_err(gone)?;
        let error = match self.reviewer.review(token).await {
            Ok(reviewed) => return Ok(reviewed),
            Err(error) => error,
        };
        tracing::warn!(target: AUDIT_TARGET, %address, %error, "an SVID was denied to a pod");
        Err(match &error {
            ReviewError::Denied { .. } | ReviewError::Expired | ReviewError::PodGone => {
                Status::unauthenticated(error.to_string())
            }
            // What the API server says is for our log, not for the caller.
            ReviewError::Unavailable { .. } => {
                Status::unavailable("tokens cannot be reviewed for now")
            }
        })
    }
}

fn check_sizes(csr_der: &[u8], token: &str) -> Result<(), Status> {
    if csr_der.len() > CSR_BYTES_MAX {
        let refused = CsrRefused::Size { length: csr_der.len(), limit: CSR_BYTES_MAX };
        return Err(Status::invalid_argument(refused.to_string()));
    }
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        let length = token.len();
        let message = format!("the token has {length} bytes, 1 to {TOKEN_BYTES_MAX} are allowed");
        return Err(Status::invalid_argument(message));
    }
    Ok(())
}

/// The signing request, the token, and their tags.
const MESSAGE_BYTES_MAX: usize = CSR_BYTES_MAX + TOKEN_BYTES_MAX + 1024;
const STREAMS_MAX: u16 = 4;
