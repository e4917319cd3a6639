//! Peers that are not who they say, or do not behave.

use std::sync::Arc;
use std::time::Duration;

use isthmus_link::{
    ALPN, LinkLimits, LinkState, LinkStream, LinkTimers, OpenError, RefuseCode, SelectorSettings,
    Transport, TransportChoice,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::gateway::{Gateway, Setup, World, cluster, header, id};

fn over(transports: TransportChoice) -> Setup {
    Setup {
        selector: SelectorSettings { transports, ..SelectorSettings::default() },
        ..Setup::default()
    }
}

/// Waits until a gateway has counted something.
async fn counted(gateway: &Gateway, condition: impl Fn(&Gateway) -> bool) {
    let wait = async {
        while !condition(gateway) {
            // Counters change without a wake.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(20), wait).await;
    assert!(outcome.is_ok(), "{:?}", gateway.links.counters());
}

#[tokio::test]
async fn an_identity_that_is_no_peer_is_refused_by_the_acceptor() {
    for transports in [TransportChoice::QuicOnly, TransportChoice::TcpOnly] {
        let world = World::new();
        let mallory = world.gateway("mallory", over(transports));
        let west = world.gateway("west", Setup::default());
        let east = world.gateway("east", Setup::default());
        west.links.set_peers(vec![east.as_peer(false)]);
        mallory.links.set_peers(vec![west.as_peer(true)]);
        counted(&west, |west| west.links.counters().auth_failures > 0).await;
        assert_eq!(west.status().state, LinkState::Down);
        assert_eq!(west.links.counters().connections_opened, 0);
        assert_eq!(mallory.status().state, LinkState::Down);
    }
}

#[tokio::test]
async fn a_wrong_identity_is_refused_by_the_dialler() {
    for transports in [TransportChoice::QuicOnly, TransportChoice::TcpOnly] {
        let world = World::new();
        let east = world.gateway("east", over(transports));
        let setup = Setup { certificate_of: Some("mallory"), ..Setup::default() };
        let west = world.gateway("west", setup);
        west.links.set_peers(vec![east.as_peer(false)]);
        // The host name in the certificate passes, the identity does not.
        east.links.set_peers(vec![west.as_peer(true)]);
        counted(&east, |east| east.links.counters().auth_failures > 0).await;
        assert_eq!(east.status().state, LinkState::Down);
        let error = east.status().last_error.unwrap();
        assert!(error.contains(&format!("expected {}", id("west"))), "{error}");
    }
}

#[tokio::test]
async fn a_cluster_name_that_the_certificate_does_not_back_is_refused() {
    let world = World::new();
    // East's certificate is a peer's, but its Hello says "east" where west knows "other".
    let east = world.gateway("east", over(TransportChoice::QuicOnly));
    let west = world.gateway("west", Setup::default());
    let mut peer = east.as_peer(false);
    peer.cluster = cluster("other");
    west.links.set_peers(vec![peer]);
    east.links.set_peers(vec![west.as_peer(true)]);
    counted(&west, |west| west.links.counters().auth_failures > 0).await;
    assert_eq!(west.status().state, LinkState::Down);
    let error = east.status().last_error.unwrap();
    assert!(error.contains("identity"), "{error}");
}

#[tokio::test]
async fn another_authority_is_refused() {
    let (world, stranger) = (World::new(), World::new());
    let east = stranger.gateway("east", over(TransportChoice::TcpOnly));
    let west = world.gateway("west", Setup::default());
    west.links.set_peers(vec![east.as_peer(false)]);
    east.links.set_peers(vec![west.as_peer(true)]);
    counted(&west, |west| west.links.counters().handshakes_failed > 0).await;
    assert_eq!(west.status().state, LinkState::Down);
}

#[tokio::test]
async fn streams_above_the_limit_are_refused_and_busy_is_told() {
    for transports in [TransportChoice::QuicOnly, TransportChoice::TcpOnly] {
        let world = World::new();
        let limits = LinkLimits { streams_per_connection: 2, ..LinkLimits::default() };
        let east = world.gateway("east", Setup { limits, ..over(transports) });
        let mut west = world.gateway("west", Setup::default());
        west.links.set_peers(vec![east.as_peer(false)]);
        east.links.set_peers(vec![west.as_peer(true)]);
        east.up().await;
        let mut open = vec![east.open("west").await, east.open("west").await];
        let error = east.links.open(&cluster("west"), header()).await.unwrap_err();
        assert_eq!(error, OpenError::Busy { peer: cluster("west"), connections: 1 });
        // A place that is free again is used again.
        let first = west.incoming.recv().await.unwrap();
        first.refuse(RefuseCode::Unreachable, "down").await.unwrap();
        let error = open[0].read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(LinkStream::refusal(&error).unwrap().code, RefuseCode::Unreachable);
        open.remove(0);
        east.open("west").await;
    }
}

#[tokio::test]
async fn a_full_queue_refuses_streams_as_overload() {
    let world = World::new();
    let east = world.gateway("east", Setup::default());
    let west = world.gateway("west", Setup::default());
    west.links.set_peers(vec![east.as_peer(false)]);
    east.links.set_peers(vec![west.as_peer(true)]);
    east.up().await;
    // Nobody takes streams at west, whose queue has 256 places.
    let mut open = Vec::new();
    let refused = loop {
        let mut stream = east.open("west").await;
        if west.links.counters().streams_refused > 0 || open.len() > 256 {
            break stream.accepted().await.unwrap_err();
        }
        open.push(stream);
    };
    let refused = LinkStream::refusal(&refused).unwrap().clone();
    assert_eq!(refused.code, RefuseCode::Overloaded);
    assert!(refused.code.is_retryable());
}

/// A yamux connection with a valid certificate, in the hands of a hostile peer.
async fn hostile(
    world: &World,
    west: &Gateway,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let (client, _) = world.tls("east", "east");
    let mut client = rustls::ClientConfig::clone(&client);
    client.alpn_protocols = vec![ALPN.to_vec()];
    let socket = tokio::net::TcpStream::connect(west.address).await.unwrap();
    let name = ServerName::try_from("west.test").unwrap();
    TlsConnector::from(Arc::new(client)).connect(name, socket).await.unwrap()
}

/// A yamux data frame that opens stream 1 with records around the bytes.
fn first_frame(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    let mut frame = vec![0, 0, 0, 1, 0, 0, 0, 1];
    frame.extend_from_slice(&(u32::from(length) + 2).to_be_bytes());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(bytes);
    frame
}

#[tokio::test]
async fn hostile_bytes_on_the_control_stream_end_only_their_connection() {
    let world = World::new();
    let east = world.gateway("east", Setup::default());
    let west = world.gateway("west", Setup::default());
    west.links.set_peers(vec![east.as_peer(false)]);
    east.links.set_peers(vec![west.as_peer(true)]);
    east.up().await;
    let inputs: [&[u8]; 5] =
        [&[0xff; 64], &[1, 0xff, 0xff], &[4, 0, 0], &[1, 0, 3, 1, 0, 0], b"GET / HTTP/1.1\r\n\r\n"];
    for (number, input) in inputs.iter().enumerate() {
        let mut stream = hostile(&world, &west).await;
        stream.write_all(&first_frame(input)).await.unwrap();
        // The gateway closes: the stream comes to its end.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        let failed = u64::try_from(number).unwrap() + 1;
        counted(&west, |west| west.links.counters().handshakes_failed >= failed).await;
    }
    // Bytes that are not even yamux.
    let mut stream = hostile(&world, &west).await;
    stream.write_all(&[0xaa; 100]).await.unwrap();
    let _ = stream.read_to_end(&mut Vec::new()).await;
    // The honest link never noticed.
    assert_eq!(east.status().state, LinkState::Up);
    assert_eq!(east.links.counters().connections_closed, 0);
    east.open("west").await;
}

#[tokio::test]
async fn a_peer_that_never_says_hello_is_dropped_in_time() {
    let world = World::new();
    let east = world.gateway("east", Setup::default());
    let timers = LinkTimers { handshake: Duration::from_millis(300), ..LinkTimers::default() };
    let west = world.gateway("west", Setup { timers, ..Setup::default() });
    west.links.set_peers(vec![east.as_peer(false)]);
    let mut silent = hostile(&world, &west).await;
    let _ = silent.read_to_end(&mut Vec::new()).await;
    counted(&west, |west| west.links.counters().handshakes_failed == 1).await;
    // Nor does one that does not even begin TLS hold anything.
    let mut raw = tokio::net::TcpStream::connect(west.address).await.unwrap();
    let _ = raw.read_to_end(&mut Vec::new()).await;
    counted(&west, |west| west.links.counters().handshakes_failed == 2).await;
}

#[tokio::test]
async fn a_connection_above_the_limit_of_a_peer_is_closed() {
    let world = World::new();
    let limits = LinkLimits { connections_per_peer: 2, ..LinkLimits::default() };
    let east = world.gateway("east", over(TransportChoice::QuicOnly));
    let west = world.gateway("west", Setup { limits, ..Setup::default() });
    west.links.set_peers(vec![east.as_peer(false)]);
    let mut peer = west.as_peer(true);
    peer.connections = 4;
    east.links.set_peers(vec![peer]);
    counted(&west, |west| west.links.counters().connections_closed >= 2).await;
    assert!(west.status().connections <= 2);
    assert_eq!(west.status().transport, Some(Transport::Quic));
}
