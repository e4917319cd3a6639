use std::net::{Ipv4Addr, SocketAddr};

use isthmus_model::{ListenerProtocol, StreamRouteKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::world::World;

/// Reads each connection to its end, then answers with a name and what it read.
pub(crate) async fn after_the_end(tasks: &mut JoinSet<()>, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut read = Vec::new();
            if stream.read_to_end(&mut read).await.is_ok() {
                let _ = stream.write_all(name.as_bytes()).await;
                let _ = stream.write_all(&read).await;
            }
        }
    });
    address
}

/// Sends bytes, ends, and returns what comes back; empty when the connection is cut.
async fn exchange(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut back = Vec::new();
    let _ = stream.read_to_end(&mut back).await;
    String::from_utf8(back).unwrap()
}

fn tcp_world() -> World {
    let mut world = World::new();
    world.listener("tcp", ListenerProtocol::Tcp, None);
    world
}

#[tokio::test]
async fn tcp_goes_both_ways_and_each_way_ends_by_itself() {
    let mut tasks = JoinSet::new();
    let mut world = tcp_world();
    world.service("a", &[after_the_end(&mut tasks, "a:").await]);
    world.route(StreamRouteKind::Tcp, ("r", 1), ("tcp", &[]), &[("a", 1)]);
    let running = world.run().await;
    let large = "x".repeat(300_000);
    assert_eq!(exchange(world.address(), large.as_bytes()).await, format!("a:{large}"));
    running.drain().await;
}

#[tokio::test]
async fn a_connection_tries_another_endpoint_when_one_refuses() {
    let mut tasks = JoinSet::new();
    let mut world = tcp_world();
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let refused = gone.local_addr().unwrap();
    drop(gone);
    world.service("a", &[refused, after_the_end(&mut tasks, "a").await]);
    world.route(StreamRouteKind::Tcp, ("r", 1), ("tcp", &[]), &[("a", 1)]);
    let _running = world.run().await;
    for _ in 0..8 {
        assert_eq!(exchange(world.address(), b"").await, "a");
    }
}

#[tokio::test]
async fn connections_are_shared_by_weight_and_zero_gets_none() {
    let mut tasks = JoinSet::new();
    let mut world = tcp_world();
    for name in ["a", "b", "c"] {
        world.service(name, &[after_the_end(&mut tasks, name).await]);
    }
    world.route(StreamRouteKind::Tcp, ("r", 1), ("tcp", &[]), &[("a", 70), ("b", 30), ("c", 0)]);
    let _running = world.run().await;
    let mut counts = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..300 {
        *counts.entry(exchange(world.address(), b"").await).or_default() += 1;
    }
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["a", "b"]);
    // Four and a half standard deviations of 300 throws at 70 percent.
    assert!((174..=246).contains(&counts["a"]), "{counts:?}");
}

#[tokio::test]
async fn the_oldest_route_of_a_listener_wins() {
    let mut tasks = JoinSet::new();
    let mut world = tcp_world();
    for name in ["old", "young"] {
        world.service(name, &[after_the_end(&mut tasks, name).await]);
    }
    world.route(StreamRouteKind::Tcp, ("a", 9), ("tcp", &[]), &[("young", 1)]);
    world.route(StreamRouteKind::Tcp, ("b", 1), ("tcp", &[]), &[("old", 1)]);
    let _running = world.run().await;
    for _ in 0..4 {
        assert_eq!(exchange(world.address(), b"").await, "old");
    }
}

#[tokio::test]
async fn a_connection_without_a_route_or_backend_is_closed_and_counted() {
    let mut world = tcp_world();
    let running = world.run().await;
    assert_eq!(exchange(world.address(), b"hello").await, "");
    assert!(running.counted("tcp", "NR"));
    world.route(StreamRouteKind::Tcp, ("r", 1), ("tcp", &[]), &[("missing", 1)]);
    running.publish(&mut world);
    assert_eq!(exchange(world.address(), b"hello").await, "");
    world.service("missing", &[]);
    running.publish(&mut world);
    assert_eq!(exchange(world.address(), b"hello").await, "");
    assert!(running.counted("tcp", "UH"));
}
