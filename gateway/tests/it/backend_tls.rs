//! TLS towards the backends of TCP and terminated TLS, as a BackendTLSPolicy asks for it.

use std::net::SocketAddr;

use isthmus_model::{
    BackendRoots, BackendTls, ListenerProtocol, Resource, StreamRouteKind, SubjectName,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::tls::{Signed, connect, exchange};
use crate::world::{World, service_key};

/// Trusts what signed a certificate, or nothing, for every port of the service `db`.
fn policy(world: &mut World, signed: Option<&Signed>, names: &[&str]) {
    let invalid = || BackendRoots::Invalid { reason: "ConfigMap n/ca does not exist".into() };
    world.add(Resource::BackendTls(BackendTls {
        policy: "n/p".into(),
        service: service_key("db"),
        port: None,
        hostname: "db.internal".into(),
        names: names.iter().map(|name| SubjectName::Dns((*name).to_owned())).collect(),
        roots: signed.map_or_else(invalid, |signed| BackendRoots::Pem(signed.chain_pem.clone())),
    }));
}

fn tcp_world(backend: SocketAddr) -> World {
    let mut world = World::new();
    world.listener("tcp", ListenerProtocol::Tcp, None);
    world.service("db", &[backend]);
    world.route(StreamRouteKind::Tcp, ("r", 1), ("tcp", &[]), &[("db", 1)]);
    world
}

/// What a plain connection is answered; empty when it is cut.
async fn answer(to: SocketAddr) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let _ = stream.write_all(b"hello").await;
    let _ = stream.shutdown().await;
    let mut back = Vec::new();
    let _ = stream.read_to_end(&mut back).await;
    String::from_utf8(back).unwrap()
}

#[tokio::test]
async fn tcp_reaches_a_tls_backend_with_the_server_name_of_its_policy() {
    let mut tasks = JoinSet::new();
    let backend = Signed::new("db.internal");
    let mut world = tcp_world(backend.serve_named(&mut tasks).await);
    policy(&mut world, Some(&backend), &[]);
    let running = world.run().await;
    assert_eq!(answer(world.address()).await, "db.internal");
    running.drain().await;
}

#[tokio::test]
async fn terminated_tls_is_encrypted_again_towards_the_backend() {
    let mut tasks = JoinSet::new();
    let (front, backend) = (Signed::new("db.test"), Signed::new("db.internal"));
    let mut world = World::new();
    world.listener("end", ListenerProtocol::TlsTerminate, Some("db.test"));
    front.add_to(&mut world, "end");
    world.service("db", &[backend.serve_named(&mut tasks).await]);
    world.route(StreamRouteKind::Tls, ("r", 1), ("end", &["db.test"]), &[("db", 1)]);
    policy(&mut world, Some(&backend), &["db.internal"]);
    let _running = world.run().await;
    let stream = connect(world.address(), "db.test", front.client(&[])).await.unwrap();
    assert_eq!(exchange(stream, "").await, "db.internal");
}

#[tokio::test]
async fn tls_that_is_passed_through_is_not_wrapped_again() {
    let mut tasks = JoinSet::new();
    let backend = Signed::new("db.test");
    let mut world = World::new();
    world.listener("pass", ListenerProtocol::TlsPassthrough, Some("db.test"));
    world.service("db", &[backend.serve(&mut tasks, "db").await]);
    world.route(StreamRouteKind::Tls, ("r", 1), ("pass", &["db.test"]), &[("db", 1)]);
    policy(&mut world, Some(&backend), &[]);
    let _running = world.run().await;
    let stream = connect(world.address(), "db.test", backend.client(&[])).await.unwrap();
    assert_eq!(exchange(stream, "").await, "db");
}

#[tokio::test]
async fn a_backend_that_does_not_prove_its_name_gets_no_byte() {
    let mut tasks = JoinSet::new();
    let (backend, other) = (Signed::new("db.internal"), Signed::new("db.internal"));
    let mut world = tcp_world(backend.serve(&mut tasks, "db").await);
    policy(&mut world, Some(&backend), &["another.internal"]);
    let running = world.run().await;
    assert_eq!(answer(world.address()).await, "", "no subject alternative name of the policy");
    policy(&mut world, Some(&other), &[]);
    running.publish(&mut world);
    assert_eq!(answer(world.address()).await, "", "another authority");
    policy(&mut world, Some(&backend), &[]);
    running.publish(&mut world);
    assert_eq!(answer(world.address()).await, "db");
}

#[tokio::test]
async fn a_policy_without_a_valid_authority_never_falls_back_to_clear_text() {
    let mut tasks = JoinSet::new();
    let clear = crate::streams::after_the_end(&mut tasks, "clear:").await;
    let mut world = tcp_world(clear);
    policy(&mut world, None, &[]);
    let running = world.run().await;
    assert_eq!(answer(world.address()).await, "");
    assert!(running.counted("tcp", "UT_TLS"), "counted as a fault of the backend's TLS");
}
