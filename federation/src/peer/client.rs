//! Reads one peer's state: dials, subscribes, hands frames to the owner, and dials again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use isthmus_certs::{Expected, MeshTls, TlsError};
use isthmus_hbone::MeshConnector;
use isthmus_model::{ClusterId, SpiffeId};
use isthmus_runtime::clock;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Status, Streaming};

use super::dialer::PeerDialer;
use super::event::{Event, Intake, REQUESTS_QUEUED, SessionId};
use super::wire::pb::federation_client::FederationClient;
use super::wire::{self, FrameInvalid, MESSAGE_BYTES_MAX, encode_request, pb};

/// What the client of one peer needs.
#[derive(Debug, Clone)]
pub(crate) struct PeerClient {
    pub(crate) cluster: ClusterId,
    /// Who the peer's controller must be.
    pub(crate) controller: SpiffeId,
    pub(crate) tls: MeshTls,
    pub(crate) dialer: Arc<dyn PeerDialer>,
    pub(crate) events: mpsc::Sender<Event>,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionEnd {
    #[error("cannot reach the peer's controller: {reason}")]
    Dial { reason: String },
    #[error("the peer sent a frame that cannot be read: {0}")]
    Frame(#[from] FrameInvalid),
    #[error("the session was closed here")]
    Here,
    #[error("the peer ended the session: {}: {}", .0.code().description(), .0.message())]
    Peer(Status),
    #[error("the peer closed the stream")]
    Stream,
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl PeerClient {
    /// Runs until it is aborted or the owner is gone.
    pub(crate) async fn run(self) {
        let mut backoff = BACKOFF_MIN;
        while !self.events.is_closed() {
            let began = clock::now();
            let error = match self.session().await {
                Ok(()) => SessionEnd::Stream,
                Err(error) => error,
            };
            tracing::debug!(peer = %self.cluster, %error, "a federation session ended");
            let failed =
                Event::ImportFailed { cluster: self.cluster.clone(), error: error.to_string() };
            if self.events.send(failed).await.is_err() {
                return;
            }
            if clock::now().saturating_duration_since(began) >= LONG_SESSION {
                backoff = BACKOFF_MIN;
            }
            tokio::time::sleep(jitter(backoff)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn session(&self) -> Result<(), SessionEnd> {
        let channel = self.connect().await?;
        let mut client = FederationClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let (to_peer, outgoing) = mpsc::channel(REQUESTS_QUEUED);
        let call = client.replicate(ReceiverStream::new(outgoing));
        let response = tokio::time::timeout(CONNECT_TIMEOUT, call).await;
        let response = response.map_err(|_| SessionEnd::Stream)?.map_err(SessionEnd::Peer)?;
        let (requests, from_owner) = mpsc::channel(REQUESTS_QUEUED);
        let (reply, answer) = oneshot::channel();
        let opened = Event::ImportOpened { cluster: self.cluster.clone(), requests, reply };
        self.events.send(opened).await.map_err(|_| SessionEnd::Here)?;
        let session = answer.await.ok().flatten().ok_or(SessionEnd::Here)?;
        let outcome =
            self.relay(session, response.into_inner(), Requests { from_owner, to_peer }).await;
        // The owner may be gone, which ends everything just the same.
        let _ = self.events.send(Event::ImportClosed { session }).await;
        outcome
    }

    async fn connect(&self) -> Result<Channel, SessionEnd> {
        let config = self.tls.client_config(&[ALPN], Expected::Exactly(self.controller.clone()))?;
        let dial = |reason: String| SessionEnd::Dial { reason };
        let below = self.dialer.dial(&self.cluster).await.map_err(|e| dial(e.to_string()))?;
        let connected = MeshConnector::new().connect(below, config).await;
        let stream = connected.map_err(|error| dial(chain(&error)))?.stream;
        let mut stream = Some(TokioIo::new(stream));
        // A channel dials again by itself; here each session makes its own stream, so the
        // second time is an error.
        let connector = tower::service_fn(move |_: Uri| {
            let stream = stream.take().ok_or_else(|| std::io::Error::other("the stream is used"));
            std::future::ready(stream)
        });
        let endpoint = Endpoint::from_static("http://federation")
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        endpoint.connect_with_connector(connector).await.map_err(|error| dial(chain(&error)))
    }

    async fn relay(
        &self,
        session: SessionId,
        mut frames: Streaming<pb::Frame>,
        mut requests: Requests,
    ) -> Result<(), SessionEnd> {
        loop {
            // Requests first: they are few, and heartbeats are answered by them. Both arms
            // are cancel-safe.
            let message = tokio::select! {
                biased;
                request = requests.from_owner.recv() => {
                    let request = request.ok_or(SessionEnd::Here)?;
                    let sent = requests.to_peer.send(encode_request(request)).await;
                    sent.map_err(|_| SessionEnd::Stream)?;
                    continue;
                }
                message = frames.message() => message.map_err(SessionEnd::Peer)?,
            };
            let Some(message) = message else { return Ok(()) };
            let Some(frame) = wire::frame(message)? else { continue };
            let (reply, answer) = oneshot::channel();
            let event = Event::ImportFrame { session, frame, reply };
            self.events.send(event).await.map_err(|_| SessionEnd::Here)?;
            match answer.await.unwrap_or(Intake::End) {
                Intake::Continue => {}
                Intake::End => return Err(SessionEnd::Here),
                Intake::NotBefore(time) => wait(time).await,
            }
        }
    }
}

/// Both ends of the way of requests.
struct Requests {
    from_owner: mpsc::Receiver<crate::proto::Request>,
    to_peer: mpsc::Sender<pb::Request>,
}

/// A peer that is too fast is read slowly, but the session stays responsive.
async fn wait(until: Instant) {
    let wait = until.saturating_duration_since(clock::now()).min(PAUSE_MAX);
    tokio::time::sleep(wait).await;
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Between half and the whole of the time, so that clusters do not dial in step.
fn jitter(backoff: Duration) -> Duration {
    let half = backoff / 2;
    let mut bytes = [0; 4];
    // Without randomness everybody waits the whole time, which is only less polite.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return backoff;
    }
    half + half.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}

/// The one protocol spoken inside TLS.
pub(crate) const ALPN: &[u8] = b"h2";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A session that lasted this long was a good one; the next dial is quick again.
const LONG_SESSION: Duration = Duration::from_secs(10);
/// How long one pause of a peer that is too fast may be.
const PAUSE_MAX: Duration = Duration::from_secs(30);
