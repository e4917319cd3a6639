//! The authority's answers on a Unix socket.

use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use isthmus_model::{Label, SpiffeId};
use isthmus_runtime::SnapshotCell;
use tokio::net::UnixListener;
use tonic::service::Routes;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

use super::incoming;
use super::proto::certificate_authority_server::{
    CertificateAuthority, CertificateAuthorityServer,
};
use super::proto::{SignRequest, SignResponse};
use super::rate::SignRate;
use super::registry::{Workload, WorkloadRegistry};
use crate::authority::{AuthorityError, AuthorityHandle};
use crate::csr::CSR_BYTES_MAX;
use crate::moment;
use crate::serve::{Served, Serving, check_rate};

/// The socket could not be served.
#[derive(Debug, thiserror::Error)]
pub enum CaServerError {
    /// The socket or its directory could not be made.
    #[error("the authority's socket {} cannot be made", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another process serves the socket.
    #[error("the authority's socket {} is served by another process", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
}

/// Who may connect to the socket. Whoever connects is still held to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketAccess {
    /// Every user of the machine: mode 0666, for workloads under users of their own.
    Everyone,
    /// The user of the authority: mode 0600.
    Owner,
}

/// How the authority is served.
#[derive(Debug, Clone)]
pub struct CaSettings {
    /// Where the socket is; its directory is made when it is missing.
    pub socket: PathBuf,
    /// Who may connect.
    pub access: SocketAccess,
    /// Signatures a workload may have at once. Default 10.
    pub sign_burst: u32,
    /// The pause for one more signature after the burst. Default 6 s.
    pub sign_refill: Duration,
    /// Connections at a time; more wait in the kernel. Default 1024.
    pub connections_max: usize,
}

impl CaSettings {
    /// The defaults, for the authority's own user.
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            access: SocketAccess::Owner,
            sign_burst: 10,
            sign_refill: Duration::from_secs(6),
            connections_max: 1024,
        }
    }
}

/// The served authority; dropping it ends the service at once.
#[derive(Debug)]
pub struct CaServer {
    socket: PathBuf,
    served: Served,
}

impl CaServer {
    /// Binds the socket and serves.
    ///
    /// # Errors
    ///
    /// [`CaServerError`]: a socket file that nobody serves is replaced, one that is
    /// served is not.
    pub fn start(
        settings: &CaSettings,
        authority: AuthorityHandle,
        registry: SnapshotCell<WorkloadRegistry>,
    ) -> Result<Self, CaServerError> {
        let listener = bind(settings)?;
        let rate = Mutex::new(SignRate::new(settings.sign_burst, settings.sign_refill));
        let service = Service { authority, registry, rate };
        let service =
            CertificateAuthorityServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let routes = Routes::new(service);
        let serving = Serving { clients: "users", streams_max: STREAMS_MAX, routes };
        let connections_max = settings.connections_max;
        let served =
            Served::start(serving, |sender| incoming::accept(listener, connections_max, sender));
        Ok(Self { socket: settings.socket.clone(), served })
    }

    /// Stops accepting, lets requests end up to a deadline, and removes the socket.
    pub async fn stop(self, deadline: Duration) {
        self.served.stop(deadline).await;
        // It may have been removed by hand.
        let _ = std::fs::remove_file(&self.socket);
    }
}

#[derive(Debug)]
struct Service {
    authority: AuthorityHandle,
    registry: SnapshotCell<WorkloadRegistry>,
    rate: Mutex<SignRate<(u32, Workload)>>,
}

#[tonic::async_trait]
impl CertificateAuthority for Service {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let uid = caller(&request)?;
        let SignRequest { csr_der, namespace, service_account } = request.into_inner();
        let workload = workload(&namespace, &service_account)?;
        if !self.registry.load().allows(uid, &workload) {
            tracing::warn!(target: crate::authority::AUDIT_TARGET, uid, "an SVID was denied");
            return Err(Status::permission_denied("this user may not be this workload"));
        }
        check_rate(&self.rate, &(uid, workload.clone()))?;
        let domain = self.authority.read(|authority| authority.trust_domain().clone());
        let id = SpiffeId::workload(&domain, &workload.namespace, &workload.service_account);
        let issued = self.authority.sign(&csr_der, &id).map_err(|error| status(&error))?;
        Ok(Response::new(SignResponse {
            chain_der: issued.chain.iter().map(|der| der.to_vec()).collect(),
            not_after: moment::seconds(issued.not_after),
            bundle_jwks: self.authority.read(|authority| authority.bundle().to_jwks()),
        }))
    }
}

fn caller(request: &Request<SignRequest>) -> Result<u32, Status> {
    let info = request.extensions().get::<UdsConnectInfo>();
    let credentials = info.and_then(|info| info.peer_cred);
    credentials
        .map(|credentials| credentials.uid())
        .ok_or_else(|| Status::unauthenticated("the kernel does not say who calls"))
}

fn workload(namespace: &str, service_account: &str) -> Result<Workload, Status> {
    let label =
        |text| Label::new(text).map_err(|error| Status::invalid_argument(error.to_string()));
    Ok(Workload { namespace: label(namespace)?, service_account: label(service_account)? })
}

/// The one place where an error of the authority becomes a gRPC status.
pub(crate) fn status(error: &AuthorityError) -> Status {
    let message = error.to_string();
    match error {
        AuthorityError::Csr(_) => Status::invalid_argument(message),
        AuthorityError::ForeignId { .. } => Status::permission_denied(message),
        AuthorityError::SignerExpired { .. } => Status::unavailable(message),
        AuthorityError::Bundle(_)
        | AuthorityError::Corrupt { .. }
        | AuthorityError::Crypto(_)
        | AuthorityError::File { .. }
        | AuthorityError::Locked { .. }
        | AuthorityError::Option { .. }
        | AuthorityError::Permissions { .. }
        | AuthorityError::Rotation { .. } => {
            tracing::error!(%error, "the authority could not sign");
            // Paths and reasons are for our log, not for the caller.
            Status::internal("the authority could not sign")
        }
    }
}

fn bind(settings: &CaSettings) -> Result<UnixListener, CaServerError> {
    let path = &settings.socket;
    let fail = |source| CaServerError::Socket { path: path.clone(), source };
    let (folder_mode, mode) = match settings.access {
        SocketAccess::Everyone => (0o755, 0o666),
        SocketAccess::Owner => (0o700, 0o600),
    };
    if let Some(folder) = path.parent() {
        let made = std::fs::DirBuilder::new().recursive(true).mode(folder_mode).create(folder);
        made.map_err(fail)?;
    }
    remove_stale(path)?;
    let listener = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(fail)?;
    Ok(listener)
}

/// Removes a socket that a crash left; a file of another kind stays and fails the bind.
fn remove_stale(path: &Path) -> Result<(), CaServerError> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Ok(());
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(CaServerError::InUse { path: path.to_owned() });
    }
    let removed = std::fs::remove_file(path);
    removed.map_err(|source| CaServerError::Socket { path: path.to_owned(), source })
}

/// The signing request and two names.
const MESSAGE_BYTES_MAX: usize = CSR_BYTES_MAX + 1024;
const STREAMS_MAX: u16 = 16;
