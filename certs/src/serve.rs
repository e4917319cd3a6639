//! A gRPC service on connections that an accept loop brings, under limits that every
//! form of the authority shares.

use std::future::Future;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use isthmus_runtime::clock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::service::rate::{RateVerdict, SignRate};

/// What is served, and to whom.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    /// Whom the log says the authority is served to.
    pub(crate) clients: &'static str,
    /// Requests of one connection at a time.
    pub(crate) streams_max: u16,
    /// The service.
    pub(crate) routes: Routes,
}

/// A served authority; dropping it ends the service at once.
#[derive(Debug)]
pub(crate) struct Served {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Served {
    /// Serves what `accept` sends; it must end once nobody receives any more. Must be
    /// called inside a tokio runtime.
    pub(crate) fn start<I, F>(
        serving: Serving,
        accept: impl FnOnce(mpsc::Sender<io::Result<I>>) -> F,
    ) -> Self
    where
        I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(1);
        let (stop, mut stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(sender));
        tasks.spawn(async move {
            let Serving { clients, streams_max, routes } = serving;
            let server = Server::builder()
                .timeout(REQUEST_TIMEOUT)
                .max_concurrent_streams(u32::from(streams_max))
                .concurrency_limit_per_connection(usize::from(streams_max))
                .http2_max_header_list_size(HEADER_BYTES_MAX)
                .http2_keepalive_interval(Some(KEEPALIVE))
                .max_connection_age(CONNECTION_AGE_MAX)
                .add_routes(routes);
            let stopped = async move {
                // An error means that the owner is gone, which is the end as well.
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            let incoming = ReceiverStream::new(receiver);
            if let Err(error) = server.serve_with_incoming_shutdown(incoming, stopped).await {
                tracing::error!(%error, clients, "the authority is no longer served");
            }
        });
        Self { stop, tasks }
    }

    /// Stops accepting and lets requests end up to a deadline.
    pub(crate) async fn stop(mut self, deadline: Duration) {
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(deadline, ended).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}

/// Counts a request against its caller's rate; above it, the caller is told when to come
/// again.
pub(crate) fn check_rate<K: Ord + Clone>(
    rate: &Mutex<SignRate<K>>,
    caller: &K,
) -> Result<(), Status> {
    let mut rate = rate.lock().unwrap_or_else(PoisonError::into_inner);
    match rate.handle(clock::now(), caller) {
        RateVerdict::Allowed => Ok(()),
        RateVerdict::Limited(pause) => {
            let message = format!("too many requests, the next after {} s", pause.as_secs() + 1);
            Err(Status::resource_exhausted(message))
        }
    }
}

/// A caller needs seconds; one that stays would keep another one's place.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(60);
const HEADER_BYTES_MAX: u32 = 16 * 1024;
const KEEPALIVE: Duration = Duration::from_secs(30);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
