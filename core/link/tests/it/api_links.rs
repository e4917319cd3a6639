//! Links that work, end, and drain.

use std::time::{Duration, Instant};

use isthmus_link::{
    IncomingStream, LinkState, LinkStream, OpenError, RefuseCode, SelectorSettings, Transport,
    TransportChoice,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::gateway::{Gateway, Setup, World, cluster, header, id, round_trip};

fn over(transport: Transport) -> Setup {
    let transports = match transport {
        Transport::Quic => TransportChoice::QuicOnly,
        Transport::Tcp => TransportChoice::TcpOnly,
    };
    Setup {
        selector: SelectorSettings { transports, ..SelectorSettings::default() },
        ..Setup::default()
    }
}

/// Two gateways, `east` dialling `west`, joined over a transport.
async fn pair(transport: Transport) -> (World, Gateway, Gateway) {
    let world = World::new();
    let east = world.gateway("east", over(transport));
    let west = world.gateway("west", Setup::default());
    west.links.set_peers(vec![east.as_peer(false)]);
    east.links.set_peers(vec![west.as_peer(true)]);
    east.on(transport).await;
    west.on(transport).await;
    (world, east, west)
}

const BOTH: [Transport; 2] = [Transport::Quic, Transport::Tcp];

#[tokio::test]
async fn streams_go_both_ways_whoever_dials() {
    for transport in BOTH {
        let (_world, mut east, mut west) = pair(transport).await;
        let mut tasks = JoinSet::new();
        east.echo(&mut tasks);
        west.echo(&mut tasks);
        let stream = east.open("west").await;
        assert_eq!(stream.transport(), transport);
        assert_eq!(round_trip(stream, b"from the dialler").await.unwrap(), b"from the dialler");
        let back = round_trip(west.open("east").await, b"from the acceptor").await.unwrap();
        assert_eq!(back, b"from the acceptor");
        let counters = east.links.counters();
        assert_eq!((counters.streams_opened, counters.streams_accepted), (1, 1));
        assert_eq!((counters.bytes_sent, counters.bytes_received), (33, 33));
    }
}

#[tokio::test]
async fn a_header_arrives_as_sent_and_the_peer_is_its_certificate() {
    let (_world, east, mut west) = pair(Transport::Quic).await;
    let mut sent = header();
    sent.deadline = Some(Duration::from_secs(3));
    let mut stream = east.links.open(&cluster("west"), sent.clone()).await.unwrap();
    stream.write_all(b"early data").await.unwrap();
    let incoming = west.incoming.recv().await.unwrap();
    assert_eq!((&incoming.header, &incoming.peer_id), (&sent, &id("east")));
    assert_eq!(incoming.peer, cluster("east"));
    let mut far = incoming.accept().await.unwrap();
    let mut data = [0; 10];
    far.read_exact(&mut data).await.unwrap();
    assert_eq!(&data, b"early data");
    stream.accepted().await.unwrap();
}

#[tokio::test]
async fn a_megabyte_is_whole_in_both_directions() {
    for transport in BOTH {
        let (_world, east, mut west) = pair(transport).await;
        let mut tasks = JoinSet::new();
        west.echo(&mut tasks);
        let data: Vec<u8> =
            (0..1_u32 << 18).flat_map(|n| n.wrapping_mul(2654435761).to_le_bytes()).collect();
        assert_eq!(data.len(), 1 << 20);
        let back = round_trip(east.open("west").await, &data).await.unwrap();
        assert!(back == data, "data changed over {transport:?}");
    }
}

#[tokio::test]
async fn many_streams_share_a_link() {
    for transport in BOTH {
        let (_world, east, mut west) = pair(transport).await;
        let mut tasks = JoinSet::new();
        west.echo(&mut tasks);
        let mut streams = JoinSet::new();
        for number in 0..200_u32 {
            let links = east.links.clone();
            streams.spawn(async move {
                let stream = links.open(&cluster("west"), header()).await.unwrap();
                let data = number.to_be_bytes().repeat(1000);
                assert!(round_trip(stream, &data).await.unwrap() == data);
            });
        }
        while let Some(ended) = streams.join_next().await {
            ended.unwrap();
        }
        assert_eq!(east.status().streams, 0);
    }
}

/// Opens a stream and takes it at the other end.
async fn joined(east: &Gateway, west: &mut Gateway) -> (LinkStream, LinkStream) {
    let near = east.open("west").await;
    let incoming: IncomingStream = west.incoming.recv().await.unwrap();
    (near, incoming.accept().await.unwrap())
}

#[tokio::test]
async fn half_close_leaves_the_other_direction_open() {
    for transport in BOTH {
        let (_world, east, mut west) = pair(transport).await;
        let (mut near, mut far) = joined(&east, &mut west).await;
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let mut question = Vec::new();
        far.read_to_end(&mut question).await.unwrap();
        assert_eq!(question, b"question");
        far.write_all(b"answer").await.unwrap();
        far.shutdown().await.unwrap();
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
    }
}

#[tokio::test]
async fn a_dropped_stream_is_an_error_and_never_an_end() {
    for transport in BOTH {
        let (_world, east, mut west) = pair(transport).await;
        let (mut near, mut far) = joined(&east, &mut west).await;
        near.write_all(b"part").await.unwrap();
        near.flush().await.unwrap();
        let mut part = [0; 4];
        far.read_exact(&mut part).await.unwrap();
        drop(near);
        let error = far.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{transport:?}");
        // And a writer learns that nobody reads.
        let block = vec![0; 64 * 1024];
        while far.write_all(&block).await.is_ok() {}
    }
}

#[tokio::test]
async fn a_refused_stream_says_why() {
    for transport in BOTH {
        let (_world, east, mut west) = pair(transport).await;
        let mut tasks = JoinSet::new();
        west.echo(&mut tasks);
        let mut wrong = header();
        wrong.port = 1;
        let mut stream = east.links.open(&cluster("west"), wrong).await.unwrap();
        let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
        let refused = LinkStream::refusal(&error).unwrap();
        assert_eq!((refused.code, &*refused.reason), (RefuseCode::NotExported, "not exported"));
        assert!(!refused.code.is_retryable());
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(west.links.counters().streams_refused, 1);
    }
}

#[tokio::test]
async fn drain_lets_streams_end_and_takes_no_new_ones() {
    for transport in BOTH {
        let (_world, east, mut west) = pair(transport).await;
        let (mut near, mut far) = joined(&east, &mut west).await;
        let links = west.links.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { links.drain(Duration::from_secs(10)).await });
        east.wait("the drain", |status| status.state != LinkState::Up).await;
        // No new streams, in either direction.
        let error = west.links.open(&cluster("east"), header()).await.unwrap_err();
        assert_eq!(error, OpenError::Draining);
        let error = east.links.open(&cluster("west"), header()).await.unwrap_err();
        assert_eq!(error, OpenError::NoLink { peer: cluster("west") });
        // The old one goes on to its end, with much data right before it.
        let data = vec![7; 1 << 20];
        let write = async {
            far.write_all(&data).await.unwrap();
            far.shutdown().await.unwrap();
        };
        let mut back = Vec::new();
        near.shutdown().await.unwrap();
        let ((), read) = tokio::join!(write, near.read_to_end(&mut back));
        read.unwrap();
        assert!(back == data);
        drop((near, far));
        tasks.join_next().await.unwrap().unwrap();
        east.wait("the end", |status| status.state == LinkState::Down).await;
    }
}

#[tokio::test]
async fn drain_ends_at_its_deadline() {
    for transport in BOTH {
        let (_world, east, mut west) = pair(transport).await;
        let (mut near, far) = joined(&east, &mut west).await;
        west.links.drain(Duration::from_millis(200)).await;
        assert!(near.read_to_end(&mut Vec::new()).await.is_err());
        drop(far);
    }
}

#[tokio::test]
async fn a_peer_that_ends_is_seen_at_once() {
    for transport in BOTH {
        let (_world, east, mut west) = pair(transport).await;
        let (mut near, far) = joined(&east, &mut west).await;
        let start = Instant::now();
        drop((far, west));
        east.wait("the loss", |status| status.state == LinkState::Down).await;
        assert!(start.elapsed() < Duration::from_secs(2));
        assert!(near.read_to_end(&mut Vec::new()).await.is_err());
        let error = east.links.open(&cluster("west"), header()).await.unwrap_err();
        assert_eq!(error, OpenError::NoLink { peer: cluster("west") });
    }
}

#[tokio::test]
async fn a_removed_peer_is_closed_and_an_added_one_is_dialled() {
    let (_world, east, west) = pair(Transport::Quic).await;
    east.links.set_peers(Vec::new());
    west.wait("the removal", |status| status.state == LinkState::Down).await;
    assert!(east.links.status().is_empty());
    let error = east.links.open(&cluster("west"), header()).await.unwrap_err();
    assert_eq!(error, OpenError::UnknownPeer { peer: cluster("west") });
    east.links.set_peers(vec![west.as_peer(true)]);
    west.up().await;
}

#[tokio::test]
async fn several_connections_share_the_streams() {
    let world = World::new();
    let east = world.gateway("east", over(Transport::Quic));
    let mut west = world.gateway("west", Setup::default());
    west.links.set_peers(vec![east.as_peer(false)]);
    let mut peer = west.as_peer(true);
    peer.connections = 3;
    east.links.set_peers(vec![peer]);
    east.wait("three connections", |status| status.connections == 3).await;
    let mut streams = Vec::new();
    for _ in 0..9 {
        streams.push(joined(&east, &mut west).await);
    }
    assert_eq!(east.status().streams, 9);
    let mut sides: Vec<_> = streams.iter().map(|(near, _)| near.connection()).collect();
    sides.sort_unstable();
    sides.dedup();
    assert_eq!(sides.len(), 3);
}

#[tokio::test]
async fn both_ends_may_dial() {
    let world = World::new();
    let mut east = world.gateway("east", Setup::default());
    let mut west = world.gateway("west", Setup::default());
    west.links.set_peers(vec![east.as_peer(true)]);
    east.links.set_peers(vec![west.as_peer(true)]);
    east.wait("two connections", |status| status.connections == 2).await;
    west.wait("two connections", |status| status.connections == 2).await;
    let mut tasks = JoinSet::new();
    east.echo(&mut tasks);
    west.echo(&mut tasks);
    for _ in 0..4 {
        assert_eq!(round_trip(east.open("west").await, b"a").await.unwrap(), b"a");
        assert_eq!(round_trip(west.open("east").await, b"b").await.unwrap(), b"b");
    }
}
