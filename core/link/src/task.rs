//! The task of one established connection: control stream, timers, the peer's streams.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use isthmus_runtime::clock;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::connection::{Inbound, Totals};
use crate::control::{Control, Established, Progress};
use crate::link::{Command, Link, Rank, StreamGuard};
use crate::peer::Peer;
use crate::proto::frame::{Role, Stats};
use crate::proto::header::{Decoded, HEADER_HEAD_BYTES, RefuseCode, StreamHeader};
use crate::proto::selector::{Event, PathSample};
use crate::proto::session::{CloseCode, CloseReason, OUTPUT_BYTES_MAX, Session, SessionEvent};
use crate::raw::RawStream;
use crate::shared::{Phase, Shared};
use crate::status::count;
use crate::stream::{IncomingStream, refuse};
use crate::window::WindowGrant;

/// Runs one connection to its end.
pub(crate) struct LinkTask {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    link: Arc<Link>,
    inbound: Inbound,
    control: Control,
    session: Session,
    commands: mpsc::Receiver<Command>,
    phase: watch::Receiver<Phase>,
    /// The lane that dialled, if this end did.
    lane: Option<mpsc::Sender<Event>>,
    /// Streams whose header is being read.
    headers: JoinSet<()>,
    meter: Meter,
    _window: WindowGrant,
}

/// Totals at the last sample, to make rates of.
struct Meter {
    at: Instant,
    totals: Totals,
    written: u64,
    backlog: u64,
    heard: u64,
}

/// What woke the task.
enum Step {
    Command(Option<Command>),
    Control(std::io::Result<Progress>),
    Header,
    Phase,
    Stream(Result<RawStream, String>),
    Streams,
    Timer,
}

impl LinkTask {
    /// Makes the task and the handle of an established connection.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        peer: &Arc<Peer>,
        established: Established,
        lane: Option<mpsc::Sender<Event>>,
    ) -> (Self, Arc<Link>) {
        let Established { connection, inbound, control, session, streams_max, window } =
            established;
        let totals = connection.totals();
        let counters = Arc::clone(&shared.counters);
        let (link, commands) =
            Link::new(shared.next_connection(), connection, streams_max, counters);
        let meter =
            Meter { at: clock::now(), totals, written: 0, backlog: 0, heard: totals.received };
        let task = Self {
            shared: Arc::clone(shared),
            peer: Arc::clone(peer),
            link: Arc::clone(&link),
            inbound,
            control,
            session,
            commands,
            phase: peer.phase.subscribe(),
            lane,
            headers: JoinSet::new(),
            meter,
            _window: window,
        };
        (task, link)
    }

    /// Runs until the connection has ended; the peer's list is kept in step.
    pub(crate) async fn run(mut self) {
        let connection = self.link.id.0;
        let transport = self.link.connection.transport().label();
        let peer = self.peer.config.cluster.clone();
        tracing::debug!(connection, transport, %peer, "link connection is up");
        count(&self.shared.counters.connections_opened);
        self.on_phase();
        let reason = loop {
            if let Some(reason) = self.drain_outputs() {
                break reason;
            }
            let step = self.wait().await;
            self.handle(step);
        };
        tracing::debug!(connection, transport, %peer, %reason, "link connection ended");
        self.finish(&reason).await;
    }

    async fn wait(&mut self) -> Step {
        let timer = self.session.next_timeout().map(tokio::time::Instant::from_std);
        let timer = timer.unwrap_or_else(tokio::time::Instant::now);
        let room = self.headers.len() < self.shared.limits.pending_headers.max(1);
        tokio::select! {
            // Control and timers first: liveness must not wait behind new streams.
            biased;
            result = self.control.step() => Step::Control(result),
            () = tokio::time::sleep_until(timer) => Step::Timer,
            _ = self.phase.changed() => Step::Phase,
            command = self.commands.recv() => Step::Command(command),
            () = self.link.idle.notified() => Step::Streams,
            Some(_) = self.headers.join_next() => Step::Header,
            // Streams beyond the bound wait in the transport, which has its own.
            stream = self.inbound.accept(), if room => Step::Stream(stream),
        }
    }

    fn handle(&mut self, step: Step) {
        let now = clock::now();
        match step {
            Step::Control(Ok(Progress::Read(0))) => {
                self.session.handle_ended("end of stream".to_owned());
            }
            Step::Control(Ok(Progress::Read(count))) => {
                self.session.handle_bytes(now, self.control.received(count));
            }
            Step::Control(Ok(Progress::Wrote)) | Step::Header | Step::Streams => {}
            Step::Control(Err(error)) => self.session.handle_ended(error.to_string()),
            Step::Timer => self.on_timer(now),
            Step::Phase => self.on_phase(),
            Step::Command(Some(command)) => self.on_command(now, command),
            // The handle is held by this task, so the channel cannot be closed.
            Step::Command(None) => {}
            Step::Stream(Ok(stream)) => self.on_stream(stream),
            Step::Stream(Err(reason)) => self.session.handle_ended(reason),
        }
        self.session.handle_streams(now, self.link.streams());
    }

    /// Takes what the session has to say; returns why the connection is to end.
    fn drain_outputs(&mut self) -> Option<CloseReason> {
        let mut end = None;
        while let Some(event) = self.session.poll_event() {
            match event {
                SessionEvent::Closed(reason) => end = Some(reason),
                SessionEvent::PeerDraining => {
                    self.link.set_rank(Rank::Closing);
                    self.peer.on_links_changed(clock::now());
                    self.shared.notify();
                    self.tell_lane(Event::PeerDraining(self.link.id));
                }
                SessionEvent::PeerRole(role) => {
                    self.link.set_rank(rank(role));
                    self.peer.on_links_changed(clock::now());
                    self.shared.notify();
                }
                SessionEvent::PeerStats(stats) => self.link.measure(|m| m.peer = stats),
                SessionEvent::Up { .. } => {}
            }
        }
        self.control.take_output(&mut self.session);
        if end.is_none() && self.control.outgoing.len() > OUTPUT_BYTES_MAX {
            self.session.close(CloseReason::Flooded);
            end = Some(CloseReason::Flooded);
        }
        end
    }

    fn on_timer(&mut self, now: Instant) {
        let received = self.link.connection.totals().received;
        if received != self.meter.heard {
            self.meter.heard = received;
            self.session.handle_activity(now);
        }
        self.session.handle_timeout(now);
        let interval = self.shared.timers.ping_interval;
        if now.saturating_duration_since(self.meter.at) >= interval {
            self.sample(now);
        }
    }

    /// Measures the last interval and tells the lane, the peer and the status.
    fn sample(&mut self, now: Instant) {
        let totals = self.link.connection.totals();
        let written = self.link.written.load(Ordering::Relaxed);
        let ping_loss = self.session.loss(now);
        let sample = self.meter.sample(now, totals, written, ping_loss);
        let rtt = self.session.rtt().or(totals.rtt).unwrap_or_default();
        let sample = PathSample { rtt, ..sample };
        self.link.measure(|m| m.sample = sample);
        let micros = |d: Duration| u32::try_from(d.as_micros()).unwrap_or(u32::MAX);
        self.session.report(Stats {
            rtt_us: micros(rtt),
            // A share as a duration of seconds has its millionths as microseconds.
            loss_ppm: micros(Duration::from_secs_f64(sample.loss.clamp(0.0, 1.0))),
            goodput: sample.goodput,
            streams: u32::try_from(self.link.streams()).unwrap_or(u32::MAX),
        });
        self.tell_lane(Event::Sample(self.link.id, sample));
    }

    fn on_phase(&mut self) {
        let now = clock::now();
        match *self.phase.borrow_and_update() {
            Phase::Running => {}
            Phase::Draining { until } => {
                self.link.set_rank(Rank::Closing);
                let left = until.saturating_duration_since(now);
                self.session.handle_streams(now, self.link.streams());
                self.session.begin_drain(now, Some(left));
            }
            Phase::Forced => self.session.close(CloseReason::Local(CloseCode::Normal)),
        }
    }

    fn on_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Close(code) => self.session.close(CloseReason::Local(code)),
            Command::Retire => {
                self.link.set_rank(Rank::Closing);
                self.session.handle_streams(now, self.link.streams());
                self.session.begin_drain(now, None);
            }
            Command::Role(role) => {
                self.link.set_rank(rank(role));
                self.session.set_role(role);
            }
        }
        self.peer.on_links_changed(now);
        self.shared.notify();
    }

    fn on_stream(&mut self, stream: RawStream) {
        let (shared, peer) = (Arc::clone(&self.shared), Arc::clone(&self.peer));
        let verdict = if self.session.is_up() {
            self.link.reserve().ok_or((RefuseCode::Overloaded, "too many streams"))
        } else {
            Err((RefuseCode::Draining, "gateway is draining"))
        };
        match verdict {
            Ok(guard) => {
                self.headers.spawn(take_stream(shared, peer, guard, stream));
            }
            Err((code, reason)) => {
                count(&shared.counters.streams_refused);
                let limit = shared.timers.header;
                self.headers.spawn(async move {
                    // The peer may be gone; then nobody wants the answer.
                    let _ = tokio::time::timeout(limit, refuse(stream, code, reason)).await;
                });
            }
        }
    }

    fn tell_lane(&self, event: Event) {
        if let Some(lane) = &self.lane {
            // Only samples can be lost to a full queue; an end is told in `finish`.
            let _ = lane.try_send(event);
        }
    }

    async fn finish(mut self, reason: &CloseReason) {
        self.link.set_rank(Rank::Closing);
        self.peer.remove(clock::now(), &self.link);
        self.shared.notify();
        if !matches!(reason, CloseReason::Drained) {
            self.peer.note_error(reason.to_string());
        }
        // The lane first: what replaces this connection must not wait for its goodbye.
        if let Some(lane) = &self.lane {
            let _ = lane.send(Event::ConnectionLost(self.link.id)).await;
        }
        self.control.finish(GOODBYE_TIMEOUT).await;
        self.link.connection.close(reason.code(), &reason.to_string());
        self.headers.shutdown().await;
        count(&self.shared.counters.connections_closed);
    }
}

impl Meter {
    fn sample(&mut self, now: Instant, totals: Totals, written: u64, ping_loss: f64) -> PathSample {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64().max(0.001);
        let delta = |new: u64, old: u64| new.saturating_sub(old);
        let lost_bytes = delta(totals.lost, self.totals.lost);
        let delivered = delta(totals.sent, self.totals.sent).saturating_sub(lost_bytes);
        let packets = delta(totals.packets, self.totals.packets);
        let packets_lost = delta(totals.packets_lost, self.totals.packets_lost);
        // Headers and repeats count as delivered, so the backlog is a lower bound.
        self.backlog = (self.backlog + delta(written, self.written)).saturating_sub(delivered);
        let loss =
            if packets >= LOSS_PACKETS_MIN { ratio(packets_lost, packets) } else { ping_loss };
        (self.at, self.totals, self.written) = (now, totals, written);
        let goodput = Duration::from_secs_f64(elapsed).as_micros();
        let goodput = u128::from(delivered) * 1_000_000 / goodput.max(1);
        PathSample {
            rtt: Duration::ZERO,
            loss,
            goodput: u64::try_from(goodput).unwrap_or(u64::MAX),
            backlog: self.backlog,
        }
    }
}

/// Reads a stream's header and hands the stream to the gateway.
async fn take_stream(shared: Arc<Shared>, peer: Arc<Peer>, guard: StreamGuard, mut raw: RawStream) {
    let header = tokio::time::timeout(shared.timers.header, read_header(&mut raw)).await;
    let (code, reason, raw, _guard) = match header {
        Ok(Ok(header)) => {
            let (peer, peer_id) = (peer.config.cluster.clone(), peer.config.expected_id.clone());
            let stream = IncomingStream { peer, peer_id, header, raw, guard };
            match shared.incoming.try_send(stream) {
                Ok(()) => return,
                Err(mpsc::error::TrySendError::Full(stream)) => {
                    (RefuseCode::Overloaded, "queue is full".to_owned(), stream.raw, stream.guard)
                }
                Err(mpsc::error::TrySendError::Closed(stream)) => {
                    (RefuseCode::Draining, "no handler".to_owned(), stream.raw, stream.guard)
                }
            }
        }
        Ok(Err(reason)) => (RefuseCode::BadHeader, reason, raw, guard),
        Err(_) => (RefuseCode::BadHeader, "header took too long".to_owned(), raw, guard),
    };
    tracing::debug!(peer = %peer.config.cluster, code = code.label(), reason, "stream refused");
    count(&shared.counters.streams_refused);
    // The peer may be gone; then nobody wants the answer.
    let _ = tokio::time::timeout(shared.timers.header, refuse(raw, code, &reason)).await;
}

async fn read_header(raw: &mut RawStream) -> Result<StreamHeader, String> {
    let mut bytes = Vec::with_capacity(256);
    let mut needed = HEADER_HEAD_BYTES;
    loop {
        let start = bytes.len();
        // `needed` is bounded by the decoder, and never more than the header is read.
        bytes.resize(needed, 0);
        let part = bytes.get_mut(start..).unwrap_or_default();
        raw.read_exact(part).await.map_err(|error| error.to_string())?;
        match StreamHeader::decode(&bytes) {
            Ok(Decoded::Done(header, _)) => return Ok(header),
            Ok(Decoded::NeedBytes(total)) => needed = total,
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn rank(role: Role) -> Rank {
    match role {
        Role::Active => Rank::Active,
        Role::Standby => Rank::Standby,
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    let number = |n: u64| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    if whole == 0 { 0.0 } else { number(part) / number(whole) }
}

/// Packets in an interval from which their loss is meaningful; below, pings decide.
const LOSS_PACKETS_MIN: u64 = 50;
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_backlog_come_from_differences() {
        let start = clock::now();
        let zero = Totals::default();
        let mut meter = Meter { at: start, totals: zero, written: 0, backlog: 0, heard: 0 };
        let totals = Totals { sent: 30_000, lost: 10_000, packets: 100, packets_lost: 25, ..zero };
        let sample = meter.sample(start + Duration::from_secs(2), totals, 120_000, 0.0);
        assert_eq!((sample.goodput, sample.backlog), (10_000, 100_000));
        assert!((sample.loss - 0.25).abs() < 1e-9);
        let sample = meter.sample(start + Duration::from_secs(3), totals, 120_000, 0.5);
        assert_eq!((sample.goodput, sample.backlog), (0, 100_000));
        assert!((sample.loss - 0.5).abs() < 1e-9);
    }
}
