use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use isthmus_model::{ListenerProtocol, StreamRouteKind};
use isthmus_proxy::ProxySettings;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::world::World;

/// Answers each datagram with a name and the datagram.
async fn echo(tasks: &mut JoinSet<()>, at: IpAddr, name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind((at, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tasks.spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((size, from)) = socket.recv_from(&mut buffer).await {
            let answer = [name.as_bytes(), &buffer[..size]].concat();
            let _ = socket.send_to(&answer, from).await;
        }
    });
    address
}

async fn client(to: SocketAddr) -> UdpSocket {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await.unwrap();
    // Only replies from the listener's own address pass.
    socket.connect(to).await.unwrap();
    socket
}

async fn ask(socket: &UdpSocket, text: &str) -> String {
    socket.send(text.as_bytes()).await.unwrap();
    let mut buffer = [0; 2048];
    let answer = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut buffer));
    let size = answer.await.expect("an answer comes").unwrap();
    String::from_utf8(buffer[..size].to_vec()).unwrap()
}

fn udp_world() -> World {
    let mut world = World::new();
    world.listener("udp", ListenerProtocol::Udp, None);
    world
}

#[tokio::test]
async fn clients_have_sessions_of_their_own() {
    let mut tasks = JoinSet::new();
    let mut world = udp_world();
    world.service("a", &[echo(&mut tasks, Ipv4Addr::LOCALHOST.into(), "a:").await]);
    world.route(StreamRouteKind::Udp, ("r", 1), ("udp", &[]), &[("a", 1)]);
    let running = world.run().await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(client(world.address()).await);
    }
    for round in 0..3 {
        for (number, socket) in clients.iter().enumerate() {
            let text = format!("{number}/{round}");
            assert_eq!(ask(socket, &text).await, format!("a:{text}"));
        }
    }
    running.drain().await;
}

#[tokio::test]
async fn ipv6_clients_reach_ipv6_endpoints() {
    let mut tasks = JoinSet::new();
    let mut world = udp_world();
    let at = IpAddr::from(Ipv6Addr::LOCALHOST);
    world.service("a", &[echo(&mut tasks, at, "six:").await]);
    world.route(StreamRouteKind::Udp, ("r", 1), ("udp", &[]), &[("a", 1)]);
    let _running = world.run_at(at, ProxySettings::default()).await;
    let socket = client((at, world.port).into()).await;
    assert_eq!(ask(&socket, "x").await, "six:x");
}

#[tokio::test]
async fn new_sessions_are_shared_by_weight() {
    let mut tasks = JoinSet::new();
    let mut world = udp_world();
    for name in ["a", "b", "c"] {
        world.service(name, &[echo(&mut tasks, Ipv4Addr::LOCALHOST.into(), name).await]);
    }
    world.route(StreamRouteKind::Udp, ("r", 1), ("udp", &[]), &[("a", 70), ("b", 30), ("c", 0)]);
    let _running = world.run().await;
    let mut counts = std::collections::BTreeMap::<String, u32>::new();
    let mut held = Vec::new();
    for _ in 0..300 {
        let socket = client(world.address()).await;
        let first = ask(&socket, "").await;
        assert_eq!(ask(&socket, "").await, first, "a session stays where it is");
        *counts.entry(first).or_default() += 1;
        held.push(socket);
    }
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert!((174..=246).contains(&counts["a"]), "{counts:?}");
}

#[tokio::test]
async fn a_session_moves_when_its_endpoint_leaves() {
    let mut tasks = JoinSet::new();
    let mut world = udp_world();
    let at = Ipv4Addr::LOCALHOST.into();
    let (old, new) = (echo(&mut tasks, at, "old").await, echo(&mut tasks, at, "new").await);
    world.service("a", &[old]);
    world.route(StreamRouteKind::Udp, ("r", 1), ("udp", &[]), &[("a", 1)]);
    let running = world.run().await;
    let socket = client(world.address()).await;
    assert_eq!(ask(&socket, "").await, "old");
    world.service("a", &[new]);
    running.publish(&mut world);
    assert_eq!(ask(&socket, "").await, "new");
}

#[tokio::test]
async fn datagrams_without_a_route_are_dropped_and_counted() {
    let mut tasks = JoinSet::new();
    let mut world = udp_world();
    let running = world.run().await;
    let socket = client(world.address()).await;
    socket.send(b"lost").await.unwrap();
    let counted = async {
        while !running.counted("udp", "NR") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), counted).await.unwrap();
    world.service("a", &[echo(&mut tasks, Ipv4Addr::LOCALHOST.into(), "a:").await]);
    world.route(StreamRouteKind::Udp, ("r", 1), ("udp", &[]), &[("a", 1)]);
    running.publish(&mut world);
    assert_eq!(ask(&socket, "found").await, "a:found");
}
