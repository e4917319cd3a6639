use isthmus_model::ClusterId;

use super::*;
use crate::proto::version::VersionRange;

/// Two sessions joined by perfect pipes, with a simulated clock.
struct Pair {
    now: Instant,
    dialler: Session,
    acceptor: Session,
    /// Bytes from the dialler are dropped.
    cut_forward: bool,
    /// Bytes from the acceptor are dropped.
    cut_backward: bool,
}

fn config(own: &str, peer: &str) -> SessionConfig {
    SessionConfig {
        cluster: ClusterId::new(own).unwrap(),
        peer: ClusterId::new(peer).unwrap(),
        versions: VersionRange::CURRENT,
        hello_timeout: Duration::from_secs(10),
        ping_interval: Duration::from_secs(1),
        ping_padding: 100,
        dead_after: Duration::from_secs(3),
        bye_timeout: Duration::from_secs(2),
    }
}

impl Pair {
    #[expect(clippy::disallowed_methods, reason = "a base for simulated time")]
    fn new(dialler: SessionConfig, acceptor: SessionConfig) -> Self {
        let now = Instant::now();
        Self {
            now,
            dialler: Session::new(now, Side::Dialler, dialler),
            acceptor: Session::new(now, Side::Acceptor, acceptor),
            cut_forward: false,
            cut_backward: false,
        }
    }

    fn up() -> Self {
        let mut pair = Self::new(config("east", "west"), config("west", "east"));
        pair.exchange();
        assert_eq!(pair.dialler.poll_event(), Some(SessionEvent::Up { version: 1 }));
        assert_eq!(pair.acceptor.poll_event(), Some(SessionEvent::Up { version: 1 }));
        pair
    }

    fn exchange(&mut self) {
        loop {
            let forward = self.dialler.poll_transmit();
            let backward = self.acceptor.poll_transmit();
            if forward.is_none() && backward.is_none() {
                return;
            }
            if let Some(bytes) = forward.filter(|_| !self.cut_forward) {
                self.acceptor.handle_bytes(self.now, &bytes);
            }
            if let Some(bytes) = backward.filter(|_| !self.cut_backward) {
                self.dialler.handle_bytes(self.now, &bytes);
            }
        }
    }

    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(next) =
            [self.dialler.next_timeout(), self.acceptor.next_timeout()].into_iter().flatten().min()
        {
            if next > end {
                break;
            }
            self.now = next.max(self.now);
            self.dialler.handle_timeout(self.now);
            self.acceptor.handle_timeout(self.now);
            self.exchange();
        }
        self.now = end;
    }
}

fn closed(session: &mut Session) -> Option<CloseReason> {
    while let Some(event) = session.poll_event() {
        if let SessionEvent::Closed(reason) = event {
            return Some(reason);
        }
    }
    None
}

#[test]
fn both_ends_come_up_and_stay_up_while_pings_are_answered() {
    let mut pair = Pair::up();
    pair.advance(Duration::from_secs(60));
    assert!(pair.dialler.is_up() && pair.acceptor.is_up());
    assert_eq!(pair.dialler.rtt(), Some(Duration::ZERO));
    assert_eq!(pair.dialler.loss(pair.now), 0.0);
}

#[test]
fn a_dead_path_is_found_in_three_seconds() {
    let mut pair = Pair::up();
    (pair.cut_forward, pair.cut_backward) = (true, true);
    pair.advance(Duration::from_millis(2900));
    assert!(pair.dialler.is_up());
    pair.advance(Duration::from_millis(200));
    let reason = CloseReason::Silent(Duration::from_secs(3));
    assert_eq!(closed(&mut pair.dialler), Some(reason));
}

#[test]
fn a_path_dead_one_way_is_closed_for_both() {
    let mut pair = Pair::up();
    pair.cut_forward = true;
    pair.advance(Duration::from_millis(3100));
    let reason = CloseReason::Silent(Duration::from_secs(3));
    assert_eq!(closed(&mut pair.acceptor), Some(reason));
    assert!(matches!(
        closed(&mut pair.dialler),
        Some(CloseReason::Peer { code: CloseCode::Timeout, .. })
    ));
}

#[test]
fn stream_bytes_count_as_life() {
    let mut pair = Pair::up();
    (pair.cut_forward, pair.cut_backward) = (true, true);
    for _ in 0..10 {
        pair.advance(Duration::from_secs(1));
        pair.dialler.handle_activity(pair.now);
    }
    assert!(pair.dialler.is_up());
}

#[test]
fn a_hello_of_another_cluster_is_refused() {
    let mut pair = Pair::new(config("mallory", "west"), config("west", "east"));
    pair.exchange();
    let Some(CloseReason::Cluster { said, .. }) = closed(&mut pair.acceptor) else { panic!() };
    assert_eq!(said.as_str(), "mallory");
    assert!(matches!(
        closed(&mut pair.dialler),
        Some(CloseReason::Peer { code: CloseCode::Identity, .. })
    ));
}

#[test]
fn versions_too_far_apart_are_refused_and_near_ones_agree() {
    let with = |mut config: SessionConfig, newest| {
        config.versions = VersionRange::newest(newest);
        config
    };
    let mut pair = Pair::new(with(config("a", "b"), 6), with(config("b", "a"), 4));
    pair.exchange();
    assert_eq!(pair.dialler.poll_event(), Some(SessionEvent::Up { version: 4 }));
    let mut pair = Pair::new(with(config("a", "b"), 7), with(config("b", "a"), 4));
    pair.exchange();
    assert!(matches!(closed(&mut pair.acceptor), Some(CloseReason::Version { .. })));
    assert!(matches!(
        closed(&mut pair.dialler),
        Some(CloseReason::Peer { code: CloseCode::Version, .. })
    ));
}

#[test]
fn a_silent_dialler_is_dropped_at_the_hello_timeout() {
    let mut pair = Pair::new(config("east", "west"), config("west", "east"));
    pair.cut_forward = true;
    pair.advance(Duration::from_secs(11));
    assert!(matches!(closed(&mut pair.acceptor), Some(CloseReason::HelloTimeout(_))));
}

#[test]
fn a_drain_waits_for_the_streams_of_both_ends() {
    let mut pair = Pair::up();
    pair.dialler.handle_streams(pair.now, 1);
    pair.acceptor.handle_streams(pair.now, 1);
    pair.acceptor.begin_drain(pair.now, Some(Duration::from_secs(30)));
    pair.exchange();
    assert_eq!(pair.dialler.poll_event(), Some(SessionEvent::PeerDraining));
    pair.advance(Duration::from_secs(5));
    // The draining end is done, the other still reads what came.
    pair.acceptor.handle_streams(pair.now, 0);
    pair.exchange();
    assert_eq!(closed(&mut pair.dialler), None);
    assert_eq!(closed(&mut pair.acceptor), None);
    pair.dialler.handle_streams(pair.now, 0);
    pair.exchange();
    assert_eq!(closed(&mut pair.dialler), Some(CloseReason::Drained));
    assert!(closed(&mut pair.acceptor).is_some());
}

#[test]
fn a_drain_ends_at_its_deadline() {
    let mut pair = Pair::up();
    pair.dialler.handle_streams(pair.now, 1);
    pair.dialler.begin_drain(pair.now, Some(Duration::from_secs(4)));
    pair.exchange();
    pair.advance(Duration::from_secs(5));
    assert_eq!(closed(&mut pair.dialler), Some(CloseReason::DrainDeadline));
}

#[test]
fn hostile_bytes_end_the_session_with_a_code() {
    let mut pair = Pair::up();
    pair.acceptor.handle_bytes(pair.now, &[4, 0xff, 0xff, 0]);
    let reason = closed(&mut pair.acceptor).unwrap();
    assert_eq!(reason.code(), CloseCode::Protocol);
    // A second Hello is not allowed either.
    let mut pair = Pair::up();
    let mut bytes = Vec::new();
    Frame::HelloAck { version: 1, cluster: ClusterId::new("a").unwrap(), capabilities: 0 }
        .encode(&mut bytes);
    pair.acceptor.handle_bytes(pair.now, &bytes);
    assert_eq!(closed(&mut pair.acceptor), Some(CloseReason::Unexpected("hello-ack")));
}

#[test]
fn floods_and_peers_that_do_not_read_are_dropped() {
    let mut ping = Vec::new();
    Frame::Ping { seq: 0, sent_at_us: 0, padding: 0 }.encode(&mut ping);
    let mut pair = Pair::up();
    let flood = ping.repeat(1100);
    pair.acceptor.handle_bytes(pair.now, &flood);
    assert_eq!(closed(&mut pair.acceptor), Some(CloseReason::Flooded));
    let mut pair = Pair::up();
    for _ in 0..100 {
        pair.now += Duration::from_secs(1);
        pair.acceptor.handle_bytes(pair.now, &ping.repeat(50));
    }
    assert_eq!(closed(&mut pair.acceptor), Some(CloseReason::Flooded));
}
