//! The race of the two transports, and the way back.

use std::time::{Duration, Instant};

use isthmus_link::{
    ChangeReason, LinkState, LinkTimers, SelectorSettings, Transport, TransportChoice,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::gateway::{Gateway, Setup, World, round_trip};
use crate::relay::Relay;

/// Short times, so that a test takes seconds; their ratios are those of the defaults.
fn quick() -> Setup {
    Setup {
        timers: LinkTimers {
            ping_interval: Duration::from_millis(100),
            dead_after: Duration::from_millis(400),
            handshake: Duration::from_millis(1500),
            ..LinkTimers::default()
        },
        selector: SelectorSettings {
            probe: (Duration::from_millis(100), Duration::from_millis(500)),
            stability: Duration::from_millis(200),
            ..SelectorSettings::default()
        },
        ..Setup::default()
    }
}

fn linked(world: &World, setup: Setup) -> (Gateway, Gateway, Relay) {
    let east = world.gateway("east", setup.clone());
    let west = world.gateway("west", setup);
    let relay = Relay::new(west.address);
    west.links.set_peers(vec![east.as_peer(false)]);
    (east, west, relay)
}

#[tokio::test]
async fn a_gateway_without_udp_is_reached_over_tcp() {
    let world = World::new();
    let east = world.gateway("east", Setup::default());
    let mut west = world.gateway("west", Setup { quic: false, ..Setup::default() });
    west.links.set_peers(vec![east.as_peer(false)]);
    let start = Instant::now();
    east.links.set_peers(vec![west.as_peer(true)]);
    let status = east.on(Transport::Tcp).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(status.changes[&ChangeReason::QuicUnavailable], 1);
    let mut tasks = JoinSet::new();
    west.echo(&mut tasks);
    assert_eq!(round_trip(east.open("west").await, b"x").await.unwrap(), b"x");
}

#[tokio::test]
async fn a_gateway_without_tcp_is_reached_over_quic() {
    let world = World::new();
    let east = world.gateway("east", Setup::default());
    let west = world.gateway("west", Setup { tcp: false, ..Setup::default() });
    west.links.set_peers(vec![east.as_peer(false)]);
    east.links.set_peers(vec![west.as_peer(true)]);
    let status = east.on(Transport::Quic).await;
    assert_eq!(status.changes[&ChangeReason::Initial], 1);
}

#[tokio::test]
async fn blocked_udp_moves_the_link_to_tcp_and_open_udp_moves_it_back() {
    let world = World::new();
    let (east, mut west, relay) = linked(&world, quick());
    let mut tasks = JoinSet::new();
    west.echo(&mut tasks);
    east.links.set_peers(vec![west.as_peer_at(relay.address, true)]);
    east.on(Transport::Quic).await;

    let start = Instant::now();
    relay.set_udp(false);
    let status = east.on(Transport::Tcp).await;
    assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
    assert_eq!(status.changes[&ChangeReason::QuicLost], 1);
    assert_eq!(round_trip(east.open("west").await, b"x").await.unwrap(), b"x");

    relay.set_udp(true);
    // A stream that is open on TCP when QUIC takes over goes on to its end.
    let mut old = east.open("west").await;
    assert_eq!(old.transport(), Transport::Tcp);
    let status = east.on(Transport::Quic).await;
    assert_eq!(status.changes[&ChangeReason::QuicRecovered], 1);
    west.on(Transport::Quic).await;
    assert_eq!(east.open("west").await.transport(), Transport::Quic);
    old.write_all(b"late").await.unwrap();
    old.shutdown().await.unwrap();
    let mut back = Vec::new();
    old.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, b"late");
    drop(old);
    east.wait("the end of tcp", |status| status.connections == 1).await;
}

#[tokio::test]
async fn blocked_udp_from_the_start_costs_a_quarter_of_a_second() {
    let world = World::new();
    let (east, west, relay) = linked(&world, Setup::default());
    relay.set_udp(false);
    let start = Instant::now();
    east.links.set_peers(vec![west.as_peer_at(relay.address, true)]);
    let status = east.on(Transport::Tcp).await;
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(250) && took < Duration::from_secs(2), "{took:?}");
    assert_eq!(status.changes[&ChangeReason::QuicUnavailable], 1);
}

#[tokio::test]
async fn a_warm_tcp_connection_takes_over() {
    let world = World::new();
    let mut setup = quick();
    setup.selector.keep_warm = true;
    let (east, west, relay) = linked(&world, setup);
    east.links.set_peers(vec![west.as_peer_at(relay.address, true)]);
    east.wait("two connections", |status| status.connections == 2).await;
    assert_eq!(east.status().transport, Some(Transport::Quic));
    // With TCP closed to new connections only the warm one can take over.
    relay.set_tcp(false);
    relay.set_udp(false);
    east.on(Transport::Tcp).await;
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_found_dead_and_found_again() {
    for transports in [TransportChoice::QuicOnly, TransportChoice::TcpOnly] {
        let world = World::new();
        let mut setup = quick();
        setup.selector.transports = transports;
        let (east, mut west, relay) = linked(&world, setup);
        east.links.set_peers(vec![west.as_peer_at(relay.address, true)]);
        east.up().await;
        let mut stream = east.open("west").await;
        let far = west.incoming.recv().await.unwrap();
        relay.set_dead(true);
        let start = Instant::now();
        east.wait("the silence", |status| status.state == LinkState::Down).await;
        west.wait("the silence", |status| status.state == LinkState::Down).await;
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        // The streams end with an error, at both ends.
        assert!(stream.read_to_end(&mut Vec::new()).await.is_err());
        assert!(far.accept().await.is_err());
        relay.set_dead(false);
        east.up().await;
        let mut tasks = JoinSet::new();
        west.echo(&mut tasks);
        assert_eq!(round_trip(east.open("west").await, b"x").await.unwrap(), b"x");
    }
}

#[tokio::test]
async fn round_trips_are_measured_on_both_ends() {
    for quic in [true, false] {
        let world = World::new();
        let east = world.gateway("east", quick());
        let west = world.gateway("west", Setup { quic, ..quick() });
        west.links.set_peers(vec![east.as_peer(false)]);
        east.links.set_peers(vec![west.as_peer(true)]);
        east.up().await;
        let wait = async {
            while [&east, &west].iter().any(|g| {
                let status = g.status();
                status.rtt.is_none() || status.peer_stats.rtt_us == 0
            }) {
                // Measurements change without a wake.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
        assert!(east.status().rtt.unwrap() < Duration::from_secs(1));
        assert_eq!(east.status().loss, 0.0);
    }
}
