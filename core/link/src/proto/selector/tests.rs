use super::*;

/// A selector with a simulated clock.
struct Lane {
    now: Instant,
    selector: Selector,
}

const QUIC: Transport = Transport::Quic;
const TCP: Transport = Transport::Tcp;

fn id(number: u64) -> ConnectionId {
    ConnectionId(number)
}

impl Lane {
    #[expect(clippy::disallowed_methods, reason = "a base for simulated time")]
    fn new(settings: SelectorSettings) -> Self {
        let now = Instant::now();
        Self { now, selector: Selector::new(now, settings, 1) }
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        self.selector.handle_event(self.now, event);
        self.actions()
    }

    fn done(&mut self, transport: Transport, number: u64) -> Vec<Action> {
        self.event(Event::HandshakeDone(transport, id(number)))
    }

    fn lost(&mut self, number: u64) -> Vec<Action> {
        self.event(Event::ConnectionLost(id(number)))
    }

    fn sample(&mut self, number: u64, loss: f64) -> Vec<Action> {
        let sample = PathSample { loss, goodput: 1 << 20, ..PathSample::default() };
        self.event(Event::Sample(id(number), sample))
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.selector.poll_action()).collect()
    }

    /// Runs the clock and returns what happened.
    fn advance(&mut self, by: Duration) -> Vec<Action> {
        let end = self.now + by;
        let mut actions = Vec::new();
        while let Some(next) = self.selector.next_timeout().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            self.selector.handle_timeout(self.now);
            actions.extend(self.actions());
        }
        self.now = end;
        actions
    }
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A lane that runs on QUIC connection 1.
fn on_quic(settings: SelectorSettings) -> Lane {
    let mut lane = Lane::new(settings);
    assert_eq!(lane.actions(), [Action::Dial(QUIC)]);
    assert_eq!(lane.done(QUIC, 1), [Action::Use(id(1), ChangeReason::Initial)]);
    lane
}

#[test]
fn quic_that_answers_in_its_head_start_is_used_alone() {
    let mut lane = on_quic(SelectorSettings::default());
    assert_eq!(lane.advance(Duration::from_secs(60)), []);
    assert_eq!(lane.selector.active(), Some((QUIC, id(1))));
}

#[test]
fn tcp_wins_when_quic_is_blocked_and_quic_is_tried_again() {
    let mut lane = Lane::new(SelectorSettings::default());
    lane.actions();
    assert_eq!(lane.advance(millis(250)), [Action::Dial(TCP)]);
    assert_eq!(lane.done(TCP, 1), [Action::Use(id(1), ChangeReason::QuicUnavailable)]);
    assert_eq!(lane.event(Event::HandshakeFailed(QUIC)), []);
    // The delays grow to 30 s and stay there.
    let mut dials = 0;
    for _ in 0..300 {
        for action in lane.advance(Duration::from_secs(1)) {
            assert_eq!(action, Action::Dial(QUIC));
            dials += 1;
            lane.event(Event::HandshakeFailed(QUIC));
        }
    }
    assert!((10..=26).contains(&dials), "{dials} dials in 5 minutes");
}

#[test]
fn quic_that_fails_at_once_gives_up_its_head_start() {
    let mut lane = Lane::new(SelectorSettings::default());
    lane.actions();
    assert_eq!(lane.event(Event::HandshakeFailed(QUIC)), [Action::Dial(TCP)]);
}

#[test]
fn a_tcp_handshake_that_lost_the_race_is_cancelled() {
    let mut lane = Lane::new(SelectorSettings::default());
    lane.actions();
    lane.advance(millis(300));
    let used = Action::Use(id(1), ChangeReason::Initial);
    assert_eq!(lane.done(QUIC, 1), [used, Action::CancelDial(TCP)]);
    assert_eq!(lane.done(TCP, 2), [Action::Close(id(2))]);
}

#[test]
fn tcp_is_dialled_in_the_moment_that_quic_is_lost() {
    let mut lane = on_quic(SelectorSettings::default());
    lane.advance(Duration::from_secs(10));
    assert_eq!(lane.lost(1), [Action::Dial(TCP)]);
    assert_eq!(lane.done(TCP, 2), [Action::Use(id(2), ChangeReason::QuicLost)]);
}

#[test]
fn a_warm_tcp_connection_takes_over_without_a_handshake() {
    let settings = SelectorSettings { keep_warm: true, ..SelectorSettings::default() };
    let mut lane = on_quic(settings);
    assert_eq!(lane.advance(millis(250)), [Action::Dial(TCP)]);
    assert_eq!(lane.done(TCP, 2), [Action::Standby(id(2))]);
    assert_eq!(lane.lost(1), [Action::Use(id(2), ChangeReason::QuicLost)]);
    // QUIC comes back and TCP stays warm.
    assert_eq!(lane.advance(millis(250)), [Action::Dial(QUIC)]);
    assert_eq!(lane.done(QUIC, 3), [Action::Standby(id(3))]);
    let want = [Action::Standby(id(2)), Action::Use(id(3), ChangeReason::QuicRecovered)];
    assert_eq!(lane.advance(Duration::from_secs(2)), want);
}

/// Brings a lane from QUIC to TCP and back, and returns how long the probation was.
fn round(lane: &mut Lane, quic: &mut u64) -> Duration {
    lane.lost(*quic);
    let dialled = lane.actions().contains(&Action::Dial(TCP));
    assert!(!dialled);
    lane.done(TCP, *quic + 1);
    while !lane.advance(millis(100)).contains(&Action::Dial(QUIC)) {}
    assert_eq!(lane.done(QUIC, *quic + 2), [Action::Standby(id(*quic + 2))]);
    let start = lane.now;
    *quic += 2;
    loop {
        let actions = lane.advance(millis(100));
        if actions.contains(&Action::Use(id(*quic), ChangeReason::QuicRecovered)) {
            assert!(actions.contains(&Action::Retire(id(*quic - 1))));
            return lane.now.duration_since(start);
        }
    }
}

#[test]
fn each_flap_doubles_the_probation_and_calm_resets_it() {
    let mut lane = on_quic(SelectorSettings::default());
    let mut quic = 1;
    let holds: Vec<u64> = (0..5).map(|_| round(&mut lane, &mut quic).as_secs()).collect();
    assert_eq!(holds, [2, 4, 8, 16, 32]);
    lane.advance(Duration::from_secs(121));
    assert_eq!(round(&mut lane, &mut quic).as_secs(), 2);
    assert_eq!(lane.selector.changes()[&ChangeReason::QuicRecovered], 6);
    assert_eq!(lane.selector.changes()[&ChangeReason::QuicLost], 6);
}

#[test]
fn loss_demotes_quic_only_when_tcp_is_really_there_and_quic_still_bad() {
    let mut lane = on_quic(SelectorSettings::default());
    assert_eq!(lane.sample(1, 0.2), []);
    assert_eq!(lane.sample(1, 0.2), []);
    assert_eq!(lane.sample(1, 0.2), [Action::Dial(TCP)]);
    // It recovers before TCP is there.
    assert_eq!(lane.sample(1, 0.0), []);
    assert_eq!(lane.done(TCP, 2), [Action::Close(id(2))]);
    // The second time it does not.
    for _ in 0..3 {
        lane.sample(1, 0.2);
    }
    let want = [Action::Retire(id(1)), Action::Use(id(3), ChangeReason::QuicLossy)];
    assert_eq!(lane.done(TCP, 3), want);
    assert_eq!(lane.advance(Duration::from_secs(9)), []);
    assert_eq!(lane.advance(Duration::from_secs(1)), [Action::Dial(QUIC)]);
}

#[test]
fn one_bad_sample_between_good_ones_changes_nothing() {
    let mut lane = on_quic(SelectorSettings::default());
    for _ in 0..100 {
        assert_eq!(lane.sample(1, 0.2), []);
        assert_eq!(lane.sample(1, 0.2), []);
        assert_eq!(lane.sample(1, 0.01), []);
    }
}

#[test]
fn a_throttled_path_is_left_only_when_something_waits() {
    let mut lane = on_quic(SelectorSettings::default());
    let idle = PathSample { goodput: 100, ..PathSample::default() };
    for _ in 0..10 {
        assert_eq!(lane.event(Event::Sample(id(1), idle)), []);
    }
    let slow = PathSample { goodput: 12_000, backlog: 1 << 20, ..PathSample::default() };
    let actions: Vec<_> = (0..3).flat_map(|_| lane.event(Event::Sample(id(1), slow))).collect();
    assert_eq!(actions, [Action::Dial(TCP)]);
    assert!(lane.done(TCP, 2).contains(&Action::Use(id(2), ChangeReason::QuicSlow)));
}

#[test]
fn probation_is_prolonged_by_loss_and_ended_by_loss_of_tcp() {
    let mut lane = on_quic(SelectorSettings::default());
    lane.lost(1);
    lane.done(TCP, 2);
    lane.advance(millis(300));
    lane.done(QUIC, 3);
    for _ in 0..5 {
        assert_eq!(lane.advance(Duration::from_secs(1)), []);
        lane.sample(3, 0.5);
    }
    assert_eq!(lane.lost(2), [Action::Use(id(3), ChangeReason::TcpLost)]);
}

#[test]
fn with_nothing_up_both_are_retried_without_a_storm() {
    let mut lane = Lane::new(SelectorSettings::default());
    let mut dials = lane.actions().len();
    lane.event(Event::HandshakeFailed(QUIC));
    for _ in 0..600 {
        for action in lane.advance(millis(100)) {
            let Action::Dial(transport) = action else { panic!("{action:?}") };
            dials += 1;
            lane.event(Event::HandshakeFailed(transport));
        }
        lane.event(Event::HandshakeFailed(TCP));
    }
    assert!((20..=60).contains(&dials), "{dials} dials in a minute");
}

#[test]
fn a_draining_peer_is_replaced_and_its_streams_go_on() {
    let mut lane = on_quic(SelectorSettings::default());
    lane.advance(Duration::from_secs(10));
    assert_eq!(lane.event(Event::PeerDraining(id(1))), [Action::Retire(id(1))]);
    assert!(lane.advance(millis(250)).contains(&Action::Dial(QUIC)));
    let actions = lane.done(QUIC, 2);
    assert!(actions.contains(&Action::Use(id(2), ChangeReason::PeerDraining)));
    // The end of the retired one is no event for the selector.
    assert_eq!(lane.lost(1), []);
}

#[test]
fn a_lane_of_one_transport_never_dials_the_other() {
    for (choice, own) in [(TransportChoice::QuicOnly, QUIC), (TransportChoice::TcpOnly, TCP)] {
        let settings = SelectorSettings { transports: choice, ..SelectorSettings::default() };
        let mut lane = Lane::new(settings);
        let mut seen = lane.actions();
        for round in 0..20 {
            seen.extend(lane.done(own, round));
            seen.extend(lane.sample(round, 0.9));
            seen.extend(lane.advance(Duration::from_secs(5)));
            seen.extend(lane.lost(round));
            seen.extend(lane.advance(Duration::from_secs(5)));
            seen.extend(lane.event(Event::HandshakeFailed(own)));
            seen.extend(lane.advance(Duration::from_secs(6)));
        }
        let dials = seen.iter().filter(|action| matches!(action, Action::Dial(_)));
        assert!(dials.clone().count() > 20);
        assert!(dials.clone().all(|action| *action == Action::Dial(own)));
    }
}
