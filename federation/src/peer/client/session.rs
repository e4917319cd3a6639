//! One session: a stream to the peer's controller, and what moves on it.

use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use isthmus_certs::{Expected, PeerSvid, peer_svid};
use isthmus_hbone::MeshConnector;
use isthmus_model::ClusterId;
use isthmus_runtime::{clock, error_chain};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint, Uri};

use super::{PeerClient, SessionEnd};
use crate::peer::event::{Event, Intake, REQUESTS_QUEUED, SessionId};
use crate::peer::wire::pb::federation_client::FederationClient;
use crate::peer::wire::{self, MESSAGE_BYTES_MAX, encode_request, pb};
use crate::proto::Request;

/// A stream to the peer that the owner does not know of yet.
pub(super) struct Opened {
    frames: Streaming<pb::Frame>,
    to_peer: mpsc::Sender<pb::Request>,
    /// When the certificate that the peer has shown ends.
    until: Option<Instant>,
    /// When it is time for another stream.
    renew_at: Option<Instant>,
}

impl Opened {
    /// Dials the peer's controller and opens a stream.
    pub(super) async fn new(client: &PeerClient) -> Result<Self, SessionEnd> {
        let (channel, peer) = connect(client).await?;
        let now = clock::now();
        let until = clock::deadline(now, clock::wall(), peer.not_after);
        let mut grpc = FederationClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let (to_peer, outgoing) = mpsc::channel(REQUESTS_QUEUED);
        let call = grpc.replicate(ReceiverStream::new(outgoing));
        let response = tokio::time::timeout(CONNECT_TIMEOUT, call).await;
        let response = response.map_err(|_| SessionEnd::Stream)?.map_err(SessionEnd::Peer)?;
        let renew_at = until.map(|until| renewal(now, until));
        Ok(Self { frames: response.into_inner(), to_peer, until, renew_at })
    }
}

/// A stream that the owner reads from.
pub(super) struct Session {
    pub(super) id: SessionId,
    /// When it is time for another one; `None` is never.
    pub(super) renew_at: Option<Instant>,
    until: Option<Instant>,
    frames: Streaming<pb::Frame>,
    from_owner: mpsc::Receiver<Request>,
    to_peer: mpsc::Sender<pb::Request>,
}

impl Session {
    /// Makes a stream the one that the owner reads a cluster from; it leaves a former one.
    pub(super) async fn enter(
        cluster: &ClusterId,
        events: &mpsc::Sender<Event>,
        opened: Opened,
    ) -> Result<Self, SessionEnd> {
        let (requests, from_owner) = mpsc::channel(REQUESTS_QUEUED);
        let (reply, answer) = oneshot::channel();
        let event = Event::ImportOpened { cluster: cluster.clone(), requests, reply };
        events.send(event).await.map_err(|_| SessionEnd::Here)?;
        let id = answer.await.ok().flatten().ok_or(SessionEnd::Here)?;
        let Opened { frames, to_peer, until, renew_at } = opened;
        Ok(Self { id, renew_at, until, frames, from_owner, to_peer })
    }

    /// Moves frames and requests to the end, which is that of the peer's certificate at the
    /// latest.
    pub(super) async fn run(&mut self, events: &mpsc::Sender<Event>) -> SessionEnd {
        let until = self.until;
        tokio::select! {
            // The end goes first; what the peer says after it is not proved any more.
            biased;
            () = clock::sleep_until(until) => SessionEnd::Expired,
            end = self.relay(events) => match end {
                Ok(()) => SessionEnd::Stream,
                Err(end) => end,
            },
        }
    }

    async fn relay(&mut self, events: &mpsc::Sender<Event>) -> Result<(), SessionEnd> {
        loop {
            // Requests first: they are few, and heartbeats are answered by them. Both arms
            // are cancel-safe.
            let message = tokio::select! {
                biased;
                request = self.from_owner.recv() => {
                    let request = request.ok_or(SessionEnd::Here)?;
                    let sent = self.to_peer.send(encode_request(request)).await;
                    sent.map_err(|_| SessionEnd::Stream)?;
                    continue;
                }
                message = self.frames.message() => message.map_err(SessionEnd::Peer)?,
            };
            let Some(message) = message else { return Ok(()) };
            let Some(frame) = wire::frame(message)? else { continue };
            let (reply, answer) = oneshot::channel();
            let event = Event::ImportFrame { session: self.id, frame, reply };
            events.send(event).await.map_err(|_| SessionEnd::Here)?;
            match answer.await.unwrap_or(Intake::End) {
                Intake::Continue => {}
                Intake::End => return Err(SessionEnd::Here),
                Intake::NotBefore(time) => wait(time).await,
            }
        }
    }
}

/// A connection to the peer's controller, and what that has shown of itself.
async fn connect(client: &PeerClient) -> Result<(Channel, PeerSvid), SessionEnd> {
    let expected = Expected::Exactly(client.controller.clone());
    let config = client.tls.client_config(&[ALPN], expected)?;
    let dial = |reason: String| SessionEnd::Dial { reason };
    let below = client.dialer.dial(&client.cluster).await.map_err(|e| dial(e.to_string()))?;
    let connected = MeshConnector::new().connect(below, config).await;
    let stream = connected.map_err(|error| dial(error_chain(&error)))?.stream;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = peer_svid(chain).map_err(|error| dial(error_chain(&error)))?;
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
    let channel = endpoint.connect_with_connector(connector).await;
    Ok((channel.map_err(|error| dial(error_chain(&error)))?, peer))
}

/// When a stream is replaced that ends at `until`. Whoever renews at half the life of a
/// certificate has another one to show by then, or at the next time.
fn renewal(now: Instant, until: Instant) -> Instant {
    let left = until.saturating_duration_since(now);
    now + (left / 2).max(RENEWAL_MIN)
}

/// A peer that is too fast is read slowly, but the session stays responsive.
async fn wait(until: Instant) {
    let wait = until.saturating_duration_since(clock::now()).min(PAUSE_MAX);
    tokio::time::sleep(wait).await;
}

/// The one protocol spoken inside TLS.
pub(crate) const ALPN: &[u8] = b"h2";

/// How long the peer's first answer may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a silent connection is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The shortest life of a session that is replaced because of the peer's certificate.
const RENEWAL_MIN: Duration = Duration::from_secs(1);
/// How long one pause of a peer that is too fast may be.
const PAUSE_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_replaced_at_half_of_what_its_peer_has_left() {
        let now = clock::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(renewal(now, at(3600)), at(1800));
        assert_eq!(renewal(now, at(1)), at(1));
        assert_eq!(renewal(now, now), at(1));
    }
}
