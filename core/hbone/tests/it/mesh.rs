//! The handshake.

use std::sync::Arc;
use std::time::Duration;

use isthmus_hbone::wire::{ALPN_CONNECT, ALPN_HTTP};
use isthmus_hbone::{AcceptError, ConnectError, MeshAcceptor, MeshConnector, MeshProtocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{CLIENT, SERVER, World, identify, soon};

#[tokio::test]
async fn both_ends_learn_the_protocol_and_the_server_learns_the_peer() {
    let world = World::new();
    for protocol in [MeshProtocol::Connect, MeshProtocol::Http] {
        let acceptor = MeshAcceptor::new(world.server_config(&[ALPN_HTTP, ALPN_CONNECT]), identify);
        let (near, far) = duplex(16 * 1024);
        let connector = MeshConnector::new();
        let config = world.client_config(SERVER, protocol.alpn());
        let (server, client) =
            soon(async { tokio::join!(acceptor.accept(far), connector.connect(near, config)) })
                .await;
        let (mut server, mut client) = (server.unwrap(), client.unwrap());
        assert_eq!((server.protocol, client.protocol), (protocol, protocol));
        assert_eq!(server.peer.as_str(), CLIENT);
        client.stream.write_all(b"hi").await.unwrap();
        client.stream.flush().await.unwrap();
        let mut got = [0; 2];
        server.stream.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hi");
    }
}

#[tokio::test]
async fn a_server_with_another_identity_is_refused_by_the_client() {
    let world = World::new();
    let acceptor = MeshAcceptor::new(world.server_config(&[ALPN_CONNECT]), identify);
    let (near, far) = duplex(16 * 1024);
    let connector = MeshConnector::new();
    let config = world.client_config("spiffe://east.test/ns/shop/sa/other", ALPN_CONNECT);
    let (server, client) =
        soon(async { tokio::join!(acceptor.accept(far), connector.connect(near, config)) }).await;
    assert!(matches!(server, Err(AcceptError::Handshake { .. })), "{server:?}");
    assert!(matches!(client, Err(ConnectError::Handshake { .. })), "{client:?}");
}

#[tokio::test]
async fn a_server_without_a_mesh_protocol_is_refused() {
    let world = World::new();
    let acceptor = MeshAcceptor::new(world.server_config(&[]), identify);
    let (near, far) = duplex(16 * 1024);
    let connector = MeshConnector::new();
    let config = world.client_config(SERVER, ALPN_CONNECT);
    let (server, client) =
        soon(async { tokio::join!(acceptor.accept(far), connector.connect(near, config)) }).await;
    assert!(matches!(client, Err(ConnectError::Protocol { .. })), "{client:?}");
    assert!(server.is_err(), "{server:?}");
}

#[tokio::test]
async fn a_client_without_a_mesh_protocol_is_refused() {
    let world = World::new();
    let acceptor = MeshAcceptor::new(world.server_config(&[ALPN_CONNECT]), identify);
    let (near, far) = duplex(16 * 1024);
    let mut config = (*world.client_config(SERVER, ALPN_CONNECT)).clone();
    config.alpn_protocols.clear();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let connect = connector.connect("any.test".try_into().unwrap(), near);
    let (server, _client) = soon(async { tokio::join!(acceptor.accept(far), connect) }).await;
    assert!(matches!(server, Err(AcceptError::Protocol { .. })), "{server:?}");
}

#[tokio::test]
async fn an_identity_that_cannot_be_read_is_refused_with_its_reason() {
    let world = World::new();
    let acceptor =
        MeshAcceptor::new(world.server_config(&[ALPN_CONNECT]), |_: &[_]| Err("two names"));
    let (near, far) = duplex(16 * 1024);
    let connector = MeshConnector::new();
    let config = world.client_config(SERVER, ALPN_CONNECT);
    let (server, _client) =
        soon(async { tokio::join!(acceptor.accept(far), connector.connect(near, config)) }).await;
    assert!(matches!(server, Err(AcceptError::Identity { reason }) if reason == "two names"));
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_cut() {
    let world = World::new();
    let limit = Duration::from_millis(100);
    let acceptor =
        MeshAcceptor::new(world.server_config(&[ALPN_CONNECT]), identify).with_timeout(limit);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut slow = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    // The first byte of a handshake record, and then silence.
    slow.write_all(&[0x16]).await.unwrap();
    let (io, _) = listener.accept().await.unwrap();
    let outcome = soon(acceptor.accept(io)).await;
    assert!(matches!(outcome, Err(AcceptError::Timeout { .. })));
    // The connection is closed, not only given up.
    assert!(matches!(soon(slow.read(&mut [0; 8])).await, Ok(0) | Err(_)));
}
