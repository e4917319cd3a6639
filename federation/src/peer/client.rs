//! Reads one peer's state: dials, subscribes, hands frames to the owner, and dials again.
//!
//! A session lives no longer than what its ends have shown each other: the peer ends it
//! with the certificate of this controller, and it ends here with that of the peer. So it
//! is replaced before: when the own certificate was renewed, or when half of what was left
//! of the peer's is over, a second session is opened beside the first ([`session`]). As
//! soon as that stands the owner takes it for the first, and goes on from the position
//! that it has applied: no frame is missed, the lease runs on, and nobody sees a link
//! without a session. A second session that cannot be opened is tried again; until then
//! the first goes on.
//!
//! Where a certificate ends all the same, the next dial comes at once.

mod session;

use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_certs::{MeshTls, TlsError};
use isthmus_model::{ClusterId, SpiffeId};
use isthmus_runtime::clock;
use tokio::sync::{mpsc, watch};
use tonic::{Code, Status};

pub(crate) use self::session::ALPN;
use self::session::{Opened, Session};
use super::dialer::PeerDialer;
use super::event::Event;
use super::wire::FrameInvalid;

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
    #[error("the peer's certificate has expired, and there is no session with another one")]
    Expired,
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

impl SessionEnd {
    /// Whether a certificate ended it.
    fn is_expiry(&self) -> bool {
        match self {
            Self::Expired => true,
            Self::Peer(status) => status.code() == Code::Unauthenticated,
            Self::Dial { .. } | Self::Frame(_) | Self::Here | Self::Stream | Self::Tls(_) => false,
        }
    }

    /// Whether a session that is under way may be better than this one was. A peer ends the
    /// first one when the second comes to it, which may be seen here in the other order.
    fn is_mended_by_another(&self) -> bool {
        match self {
            Self::Expired | Self::Peer(_) | Self::Stream => true,
            Self::Dial { .. } | Self::Frame(_) | Self::Here | Self::Tls(_) => false,
        }
    }
}

impl PeerClient {
    /// Runs until it is aborted or the owner is gone.
    pub(crate) async fn run(self) {
        let mut renewals = Renewals { svid: Some(self.tls.svid().watch()) };
        let mut backoff = BACKOFF_MIN;
        while !self.events.is_closed() {
            let began = clock::now();
            let end = self.sessions(&mut renewals).await;
            tracing::debug!(peer = %self.cluster, error = %end, "a federation session ended");
            let failed =
                Event::ImportFailed { cluster: self.cluster.clone(), error: end.to_string() };
            if self.events.send(failed).await.is_err() {
                return;
            }
            let lasted = clock::now().saturating_duration_since(began);
            if lasted >= LONG_SESSION {
                backoff = BACKOFF_MIN;
            }
            if end.is_expiry() && lasted >= PROMPT_AFTER {
                continue;
            }
            tokio::time::sleep(jitter(backoff)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Follows the peer from session to session; why there is none any more.
    async fn sessions(&self, renewals: &mut Renewals) -> SessionEnd {
        let opened = match self.open(renewals).await {
            Ok(opened) => opened,
            Err(end) => return end,
        };
        let mut current = match Session::enter(&self.cluster, &self.events, opened).await {
            Ok(session) => session,
            Err(end) => return end,
        };
        loop {
            let next = match self.follow(&mut current, renewals).await {
                Ok(opened) => Session::enter(&self.cluster, &self.events, opened).await,
                Err(end) => Err(end),
            };
            match next {
                // The former one is let go only here, when the owner has left it.
                Ok(next) => current = next,
                Err(end) => {
                    // The owner may be gone, which ends everything just the same.
                    let _ = self.events.send(Event::ImportClosed { session: current.id }).await;
                    return end;
                }
            }
        }
    }

    /// Serves a session until another one stands that takes its place.
    async fn follow(
        &self,
        session: &mut Session,
        renewals: &mut Renewals,
    ) -> Result<Opened, SessionEnd> {
        let mut due = session.renew_at;
        let mut backoff = BACKOFF_MIN;
        let mut serving = std::pin::pin!(session.run(&self.events));
        loop {
            tokio::select! {
                // The end goes first: nothing takes the place of what broke the protocol.
                biased;
                end = &mut serving => return Err(end),
                () = renewals.due(due) => {}
            }
            let mut opening = std::pin::pin!(self.open(renewals));
            let (opened, end) = tokio::select! {
                biased;
                end = &mut serving => {
                    if !end.is_mended_by_another() {
                        return Err(end);
                    }
                    (opening.await, Some(end))
                }
                opened = &mut opening => (opened, None),
            };
            match (opened, end) {
                (Ok(opened), _) => return Ok(opened),
                (Err(_), Some(end)) => return Err(end),
                (Err(error), None) => {
                    tracing::debug!(peer = %self.cluster, %error, "no session in place of one yet");
                    due = Some(clock::now() + jitter(backoff));
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    async fn open(&self, renewals: &mut Renewals) -> Result<Opened, SessionEnd> {
        renewals.handle_opening();
        Opened::new(self).await
    }
}

/// The renewals of the own certificate.
struct Renewals {
    /// `None` when nothing renews it any more.
    svid: Option<watch::Receiver<u64>>,
}

impl Renewals {
    /// A handshake begins, and shows what is current now or newer.
    fn handle_opening(&mut self) {
        if let Some(svid) = &mut self.svid {
            svid.mark_unchanged();
        }
    }

    /// Waits for `at`, or until the certificate is another one than at the last opening.
    async fn due(&mut self, at: Option<Instant>) {
        tokio::select! {
            // Which goes first does not matter; both are cancel-safe.
            () = clock::sleep_until(at) => {}
            () = self.renewed() => {}
        }
    }

    async fn renewed(&mut self) {
        if let Some(svid) = &mut self.svid
            && svid.changed().await.is_ok()
        {
            return;
        }
        self.svid = None;
        std::future::pending().await
    }
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

const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A session that lasted this long was a good one; the next dial is quick again.
const LONG_SESSION: Duration = Duration::from_secs(10);
/// After sessions of this length the end of a certificate is no reason to wait. A peer that
/// takes no certificate at all is not dialled more often than this.
const PROMPT_AFTER: Duration = Duration::from_secs(1);
