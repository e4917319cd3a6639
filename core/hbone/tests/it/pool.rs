//! The pool.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use isthmus_hbone::wire::ALPN_CONNECT;
use isthmus_hbone::{
    ConnectError, ConnectHead, PoolLimits, TunnelError, TunnelKey, TunnelPool, TunnelSettings,
};
use isthmus_model::SpiffeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::world::{CLIENT, ClientTls, SERVER, World, dial, soon};

fn key(address: SocketAddr) -> TunnelKey {
    let id = |text| SpiffeId::parse(text).unwrap();
    TunnelKey { address, peer: id(SERVER), local: id(CLIENT) }
}

fn head() -> ConnectHead {
    ConnectHead::parse("echo.test:80").unwrap()
}

fn echo_once(stream: isthmus_hbone::TunnelStream) -> impl Future<Output = ()> {
    let mut stream = stream;
    async move {
        stream.write_all(b"x").await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
    }
}

#[tokio::test]
async fn a_hundred_and_fifty_tunnels_share_two_connections() {
    let world = World::new();
    let server = world.server().await;
    let config = world.client_config(SERVER, ALPN_CONNECT);
    let pool = TunnelPool::new(PoolLimits::default());
    let dials = Arc::new(AtomicUsize::new(0));
    let mut opens = JoinSet::new();
    for _ in 0..150 {
        let (pool, config, dials) = (pool.clone(), Arc::clone(&config), Arc::clone(&dials));
        let address = server.address;
        opens.spawn(async move {
            let connect = || {
                dials.fetch_add(1, Ordering::Relaxed);
                dial(address, Arc::clone(&config))
            };
            pool.open(&key(address), connect, &head()).await.unwrap()
        });
    }
    let streams = soon(opens.join_all()).await;
    let early = pool
        .open_early(&key(server.address), || dial(server.address, Arc::clone(&config)), &head())
        .await
        .unwrap();
    soon(echo_once(early)).await;
    assert_eq!((streams.len(), pool.len(), dials.load(Ordering::Relaxed)), (150, 2, 2));
    for stream in streams {
        soon(echo_once(stream)).await;
    }
    soon(pool.drain()).await;
    assert!(pool.is_empty());
    let (key, head) = (key(server.address), head());
    let again = pool.open(&key, || dial(server.address, Arc::clone(&config)), &head);
    assert!(matches!(soon(again).await, Err(TunnelError::ConnectionGone { .. })));
}

#[tokio::test]
async fn a_connection_that_died_is_replaced() {
    let world = World::new();
    let mut server = world.server().await;
    let config = world.client_config(SERVER, ALPN_CONNECT);
    let pool = TunnelPool::new(PoolLimits::default());
    let first = server.address;
    let stream =
        soon(pool.open(&key(first), || dial(first, Arc::clone(&config)), &head())).await.unwrap();
    soon(echo_once(stream)).await;
    server.tasks.shutdown().await;
    // The key stays; what it dials has moved.
    let second = world.server().await;
    let connect = || dial(second.address, Arc::clone(&config));
    let stream = soon(pool.open(&key(first), connect, &head())).await.unwrap();
    soon(echo_once(stream)).await;
    assert_eq!(pool.len(), 1);
}

#[tokio::test]
async fn everyone_who_waits_for_a_connection_shares_its_failure() {
    let pool = TunnelPool::new(PoolLimits::default());
    let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let dials = Arc::new(AtomicUsize::new(0));
    let mut opens = JoinSet::new();
    for _ in 0..50 {
        let (pool, dials) = (pool.clone(), Arc::clone(&dials));
        opens.spawn(async move {
            let connect = || async {
                dials.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                let source = std::io::ErrorKind::ConnectionRefused.into();
                Err::<ClientTls, _>(ConnectError::Dial { target: address.to_string(), source })
            };
            pool.open(&key(address), connect, &head()).await.unwrap_err()
        });
    }
    for error in soon(opens.join_all()).await {
        assert!(matches!(error, TunnelError::Connect { .. }), "{error:?}");
    }
    assert_eq!(dials.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_the_dial_costs_one_timeout() {
    let pool = TunnelPool::new(PoolLimits::default());
    let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let connect = || std::future::pending::<Result<ClientTls, ConnectError>>();
    let begin = tokio::time::Instant::now();
    let (key, head) = (key(address), head());
    let (a, b) = tokio::join!(pool.open(&key, connect, &head), pool.open(&key, connect, &head));
    assert!(matches!(a, Err(TunnelError::Connect { .. })), "{a:?}");
    assert!(matches!(b, Err(TunnelError::Connect { .. })), "{b:?}");
    assert_eq!(begin.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn a_pool_has_a_bound() {
    let world = World::new();
    let server = world.server().await;
    let config = world.client_config(SERVER, ALPN_CONNECT);
    let tunnel = TunnelSettings { streams_max: 1, ..TunnelSettings::default() };
    let limits = PoolLimits { connections_per_key_max: 2, tunnel, ..PoolLimits::default() };
    let pool = TunnelPool::new(limits);
    let (key, address) = (key(server.address), server.address);
    let connect = || dial(address, Arc::clone(&config));
    let first = soon(pool.open(&key, connect, &head())).await.unwrap();
    let _second = soon(pool.open(&key, connect, &head())).await.unwrap();
    let error = soon(pool.open(&key, connect, &head())).await.unwrap_err();
    assert!(matches!(error, TunnelError::AtCapacity { limit: 2 }), "{error:?}");
    drop(first);
    soon(pool.open(&key, connect, &head())).await.unwrap();
}

#[tokio::test]
async fn a_pool_follows_a_server_that_drains() {
    let world = World::new();
    let server = world.server().await;
    let config = world.client_config(SERVER, ALPN_CONNECT);
    let pool = TunnelPool::new(PoolLimits::default());
    let (key, old) = (key(server.address), server.address);
    let mut stream =
        soon(pool.open(&key, || dial(old, Arc::clone(&config)), &head())).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        server.drain.run(std::time::Duration::from_secs(20)).await;
    });
    let next = world.server().await;
    // Before the GOAWAY arrives the old server may still answer; both must work.
    let connect = || dial(next.address, Arc::clone(&config));
    for _ in 0..20 {
        soon(echo_once(soon(pool.open(&key, connect, &head())).await.unwrap())).await;
    }
    stream.write_all(b"x").await.unwrap();
    soon(stream.read_exact(&mut [0])).await.unwrap();
}
