//! What the fuzz targets and the replay of their corpora run.
//!
//! Both functions take any bytes and must neither panic nor grow without bound; they
//! check what must hold for every input and panic themselves when it does not.

use std::time::{Duration, Instant};

use isthmus_model::ClusterId;

use crate::proto::frame::{FRAME_BODY_BYTES_MAX, FrameBuffer, Role, Stats};
use crate::proto::header::{Datagram, Decoded, StreamHeader, StreamReply};
use crate::proto::selector::{
    Action, ConnectionId, Event, PathSample, Selector, SelectorSettings, Transport,
};
use crate::proto::session::{
    CloseCode, CloseReason, OUTPUT_BYTES_MAX, Session, SessionConfig, Side,
};
use crate::proto::version::VersionRange;

/// Reads the bytes with every decoder of the protocol.
///
/// What a decoder takes must come out the same after encoding and decoding again.
///
/// # Panics
///
/// When a value does not survive the round trip.
pub fn decode(bytes: &[u8]) {
    let mut buffer = FrameBuffer::default();
    for chunk in bytes.chunks(7) {
        buffer.push(chunk);
        while let Ok(Some(frame)) = buffer.next_frame() {
            let mut encoded = Vec::new();
            frame.encode(&mut encoded);
            let mut again = FrameBuffer::default();
            again.push(&encoded);
            assert_eq!(again.next_frame(), Ok(Some(frame)), "a frame survives encoding");
        }
    }
    if let Ok(Decoded::Done(header, used)) = StreamHeader::decode(bytes) {
        assert!(used <= bytes.len(), "a header ends within the input");
        let mut encoded = Vec::new();
        header.encode(&mut encoded);
        let want = Ok(Decoded::Done(header, encoded.len()));
        assert_eq!(StreamHeader::decode(&encoded), want, "a header survives encoding");
    }
    if let Ok(Decoded::Done(reply, _)) = StreamReply::decode(bytes) {
        let mut encoded = Vec::new();
        reply.encode(&mut encoded);
        let want = Ok(Decoded::Done(reply, encoded.len()));
        assert_eq!(StreamReply::decode(&encoded), want, "a reply survives encoding");
    }
    if let Ok(datagram) = Datagram::decode(bytes) {
        let mut encoded = Vec::new();
        datagram.encode(&mut encoded);
        assert_eq!(encoded, bytes, "a datagram survives encoding");
    }
}

/// Reads the bytes as operations on a session and on a selector.
///
/// Each operation is one byte and its arguments; see the match arms. `start` is any
/// instant, the base of the simulated clock.
///
/// # Panics
///
/// When an invariant of the state machines does not hold.
pub fn operate(start: Instant, bytes: &[u8]) {
    operate_session(start, bytes);
    operate_selector(start, bytes);
}

fn operate_session(start: Instant, bytes: &[u8]) {
    let Some((first, mut rest)) = bytes.split_first() else { return };
    let (Ok(own), Ok(peer)) = (ClusterId::new("east"), ClusterId::new("west")) else { return };
    let side = if first & 1 == 0 { Side::Acceptor } else { Side::Dialler };
    let config = SessionConfig {
        cluster: own,
        peer,
        versions: VersionRange::CURRENT,
        hello_timeout: Duration::from_secs(10),
        ping_interval: Duration::from_secs(1),
        ping_padding: 16,
        dead_after: Duration::from_secs(3),
        bye_timeout: Duration::from_secs(1),
    };
    let mut now = start;
    let mut session = Session::new(now, side, config);
    let mut closed = 0;
    while let Some((operation, after)) = rest.split_first() {
        let argument = after.first().copied().unwrap_or(0);
        rest = after.get(1..).unwrap_or_default();
        match operation % 8 {
            0 => {
                let length = usize::from(argument).min(rest.len());
                let (input, after) = rest.split_at(length);
                session.handle_bytes(now, input);
                rest = after;
            }
            1 => now += Duration::from_millis(u64::from(argument) * 20),
            2 => session.handle_streams(now, usize::from(argument)),
            3 => session.begin_drain(now, Some(Duration::from_millis(u64::from(argument)))),
            4 => session.close(CloseReason::Local(CloseCode::from_wire(u16::from(argument)))),
            5 => session.set_role(Role::Active),
            6 => session.report(Stats::default()),
            _ => session.handle_ended("reset".to_owned()),
        }
        session.handle_timeout(now);
        while let Some(event) = session.poll_event() {
            let is_close = matches!(event, crate::proto::session::SessionEvent::Closed(_));
            closed += usize::from(is_close);
        }
        if argument % 2 == 0 {
            let sent = session.poll_transmit().map_or(0, |bytes| bytes.len());
            assert!(sent <= OUTPUT_BYTES_MAX + FRAME_BODY_BYTES_MAX, "output is bounded");
        }
        assert!(closed <= 1, "a session closes once");
        assert_eq!(session.is_closed(), session.next_timeout().is_none(), "timers end with it");
        assert_eq!(session.is_closed(), closed == 1, "each close is told");
    }
}

fn operate_selector(start: Instant, bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let keep_warm = first & 1 == 1;
    let settings = SelectorSettings { keep_warm, ..SelectorSettings::default() };
    let mut now = start;
    let mut selector = Selector::new(now, settings, u64::from(*first));
    // What a shell would know: handshakes under way and connections that live.
    let (mut dialing, mut live, mut next) = (Vec::new(), Vec::new(), 0);
    for operation in rest {
        let argument = usize::from(operation >> 3);
        let pick = |live: &Vec<ConnectionId>| live.get(argument % live.len().max(1)).copied();
        match operation % 6 {
            0 => now += Duration::from_millis(50 << (argument % 10)),
            1 | 2 if !dialing.is_empty() => {
                let transport: Transport = dialing.remove(argument % dialing.len());
                let event = if operation % 6 == 1 {
                    next += 1;
                    live.push(ConnectionId(next));
                    Event::HandshakeDone(transport, ConnectionId(next))
                } else {
                    Event::HandshakeFailed(transport)
                };
                selector.handle_event(now, event);
            }
            3 => {
                if let Some(id) = pick(&live) {
                    live.retain(|own| *own != id);
                    selector.handle_event(now, Event::ConnectionLost(id));
                }
            }
            4 => {
                if let Some(id) = pick(&live) {
                    selector.handle_event(now, Event::PeerDraining(id));
                }
            }
            _ => {
                if let Some(id) = pick(&live) {
                    let loss = if argument % 2 == 0 { 0.5 } else { 0.0 };
                    let sample = PathSample { loss, ..PathSample::default() };
                    selector.handle_event(now, Event::Sample(id, sample));
                }
            }
        }
        selector.handle_timeout(now);
        while let Some(action) = selector.poll_action() {
            match action {
                Action::Dial(transport) => {
                    assert!(!dialing.contains(&transport), "one dial at a time");
                    dialing.push(transport);
                }
                Action::CancelDial(transport) => dialing.retain(|own| *own != transport),
                Action::Close(id) | Action::Retire(id) => live.retain(|own| *own != id),
                Action::Standby(id) | Action::Use(id, _) => {
                    assert!(live.contains(&id), "only live connections are used");
                }
            }
        }
        let idle = selector.active().is_none() && dialing.is_empty();
        assert!(!idle || selector.next_timeout().is_some(), "a lane never stops trying");
    }
}
