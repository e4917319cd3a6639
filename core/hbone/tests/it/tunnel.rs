//! Tunnels over one connection.

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use isthmus_hbone::wire::{SEND_BUFFER_BYTES_MAX, STREAM_WINDOW_BYTES};
use isthmus_hbone::{
    Availability, ConnectHead, ServeEnd, ServeLimits, TunnelClient, TunnelError, TunnelSettings,
    Verdict, serve_connect,
};
use isthmus_runtime::{Drain, DrainOutcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::TcpListener;
use tokio::task::{JoinSet, LocalSet};

use crate::world::{CLIENT, Seen, World, echo, soon};

fn head(authority: &str) -> ConnectHead {
    ConnectHead::parse(authority).unwrap()
}

#[tokio::test]
async fn bytes_travel_both_ways_and_the_handler_knows_who_asks() {
    let (world, mut tasks) = (World::new(), JoinSet::new());
    let mut server = world.server().await;
    let client = world.client(server.address, &mut tasks).await;
    let mut stream = soon(client.open(&head("echo.test:80"))).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut got = String::new();
    soon(stream.read_to_string(&mut got)).await.unwrap();
    assert_eq!(got, "ping");
    let asked = Seen::Asked { authority: "echo.test:80".to_owned(), peer: CLIENT.to_owned() };
    assert_eq!(server.events.recv().await.unwrap(), asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_tunnels_carry_a_mebibyte_each_without_mixing_it_up() {
    let (world, mut tasks) = (World::new(), JoinSet::new());
    let server = world.server().await;
    let client = world.client(server.address, &mut tasks).await;
    let mut exchanges = JoinSet::new();
    for seed in 0..100_u32 {
        let client = client.clone();
        exchanges.spawn(async move {
            let data: Vec<u8> =
                (0..1_048_576_u32).map(|i| ((i * 31 + seed * 7) % 251) as u8).collect();
            let stream = client.open(&head("echo.test:80")).await.unwrap();
            let (mut reader, mut writer) = split(stream);
            let mut got = Vec::with_capacity(data.len());
            let write = async {
                writer.write_all(&data).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            tokio::join!(write, async { reader.read_to_end(&mut got).await.unwrap() });
            assert!(got == data, "tunnel {seed}");
        });
    }
    soon(exchanges.join_all()).await;
    assert_eq!(client.availability(), Availability::Ready);
}

#[tokio::test]
async fn the_server_may_end_its_data_first_and_read_on() {
    let (world, mut tasks) = (World::new(), JoinSet::new());
    let mut server = world.server().await;
    let client = world.client(server.address, &mut tasks).await;
    let mut stream = soon(client.open(&head("greet.test:80"))).await.unwrap();
    let mut got = String::new();
    soon(stream.read_to_string(&mut got)).await.unwrap();
    assert_eq!(got, "hello");
    stream.write_all(&[7; 100_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(soon(next_read(&mut server.events)).await, (100_000, None));
}

#[tokio::test]
async fn half_closes_pass_through_a_relay_to_tcp() {
    let (world, mut tasks) = (World::new(), JoinSet::new());
    let server = world.server().await;
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = upstream.local_addr().unwrap().to_string();
    tasks.spawn(async move {
        let (mut io, _) = upstream.accept().await.unwrap();
        let mut got = Vec::new();
        io.read_to_end(&mut got).await.unwrap();
        // The answer is only possible after the end of the question.
        io.write_all(format!("{} bytes", got.len()).as_bytes()).await.unwrap();
    });
    let client = world.client(server.address, &mut tasks).await;
    let mut stream = soon(client.open(&head(&target))).await.unwrap();
    stream.write_all(&[1; 300_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut got = String::new();
    soon(stream.read_to_string(&mut got)).await.unwrap();
    assert_eq!(got, "300000 bytes");
}

#[tokio::test]
async fn a_refusal_brings_its_status_and_its_reason() {
    let (world, mut tasks) = (World::new(), JoinSet::new());
    let server = world.server().await;
    let client = world.client(server.address, &mut tasks).await;
    let error = soon(client.open(&head("nobody.test:80"))).await.unwrap_err();
    let TunnelError::Refused { status, reason } = error else { panic!("{error:?}") };
    assert_eq!((status, reason.as_str()), (StatusCode::FORBIDDEN, "no nobody.test here"));
    // One refusal costs its own stream only.
    soon(client.open(&head("echo.test:80"))).await.unwrap();
}

#[tokio::test]
async fn a_header_that_http2_forbids_is_the_callers_error_and_not_retried() {
    let (world, mut tasks) = (World::new(), JoinSet::new());
    let server = world.server().await;
    let client = world.client(server.address, &mut tasks).await;
    let mut bad = head("echo.test:80");
    bad.headers_mut().insert("connection", http::HeaderValue::from_static("close"));
    let error = soon(client.open(&bad)).await.unwrap_err();
    assert!(matches!(error, TunnelError::Request { .. }) && !error.is_retryable(), "{error:?}");
    soon(client.open(&head("echo.test:80"))).await.unwrap();
}

#[tokio::test]
async fn early_bytes_wait_for_the_verdict_and_arrive_with_it() {
    let (world, mut tasks) = (World::new(), JoinSet::new());
    let mut server = world.server().await;
    let client = world.client(server.address, &mut tasks).await;
    let mut stream = client.open_early(&head("later.test:80")).unwrap();
    stream.write_all(&[3; 50_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(matches!(soon(server.events.recv()).await, Some(Seen::Asked { .. })));
    server.targets.release.notify_one();
    let mut got = Vec::new();
    soon(stream.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, vec![3; 50_000]);
}

#[tokio::test]
async fn early_bytes_of_a_refused_tunnel_fail_to_be_answered() {
    let (world, mut tasks) = (World::new(), JoinSet::new());
    let server = world.server().await;
    let client = world.client(server.address, &mut tasks).await;
    let mut stream = client.open_early(&head("nobody.test:80")).unwrap();
    stream.write_all(b"early").await.unwrap();
    let error = soon(stream.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_client_that_gives_up_takes_the_pending_decision_with_it() {
    let (world, mut tasks) = (World::new(), JoinSet::new());
    let mut server = world.server().await;
    let client = world.client(server.address, &mut tasks).await;
    let stream = client.open_early(&head("later.test:80")).unwrap();
    assert!(matches!(soon(server.events.recv()).await, Some(Seen::Asked { .. })));
    drop(stream);
    assert_eq!(soon(server.events.recv()).await, Some(Seen::GivenUp));
}

#[tokio::test]
async fn a_dropped_tunnel_is_a_reset_and_never_a_clean_end() {
    let (world, mut tasks) = (World::new(), JoinSet::new());
    let mut server = world.server().await;
    let client = world.client(server.address, &mut tasks).await;
    let mut stream = soon(client.open(&head("read.test:80"))).await.unwrap();
    stream.write_all(b"half a mess").await.unwrap();
    drop(stream);
    let (bytes, error) = soon(next_read(&mut server.events)).await;
    assert!(bytes <= 11, "{bytes}");
    assert_eq!(error, Some(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_dead_client_is_an_error_for_the_server() {
    let (world, mut tasks) = (World::new(), JoinSet::new());
    let mut server = world.server().await;
    let client = world.client(server.address, &mut tasks).await;
    let mut stream = soon(client.open(&head("echo.test:80"))).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    soon(stream.read_exact(&mut [0])).await.unwrap();
    let _open = soon(client.open(&head("read.test:80"))).await.unwrap();
    tasks.shutdown().await;
    let (_, error) = soon(next_read(&mut server.events)).await;
    assert_eq!(error, Some(ErrorKind::ConnectionAborted));
    assert_eq!(client.availability(), Availability::Gone);
}

#[tokio::test]
async fn a_dead_server_is_an_error_for_the_client() {
    let (world, mut tasks) = (World::new(), JoinSet::new());
    let mut server = world.server().await;
    let client = world.client(server.address, &mut tasks).await;
    let mut stream = soon(client.open(&head("echo.test:80"))).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    soon(stream.read_exact(&mut [0])).await.unwrap();
    server.tasks.shutdown().await;
    let error = soon(stream.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    let error = soon(client.open(&head("echo.test:80"))).await.unwrap_err();
    assert!(matches!(error, TunnelError::ConnectionGone { .. }) && error.is_retryable());
}

#[tokio::test]
async fn a_reader_that_stalls_holds_its_writer_and_nobody_else() {
    let (world, mut tasks) = (World::new(), JoinSet::new());
    let mut server = world.server().await;
    let client = world.client(server.address, &mut tasks).await;
    let mut stalled = soon(client.open(&head("stall.test:80"))).await.unwrap();
    let chunk = vec![0; 64 * 1024];
    let mut written = 0;
    // Silence for this long on loopback means that the writer is held.
    let pause = Duration::from_millis(300);
    while let Ok(count) = tokio::time::timeout(pause, stalled.write(&chunk)).await {
        written += count.unwrap();
    }
    let bound = STREAM_WINDOW_BYTES as usize + SEND_BUFFER_BYTES_MAX;
    assert!((STREAM_WINDOW_BYTES as usize..=bound).contains(&written), "{written}");
    let mut other = soon(client.open(&head("echo.test:80"))).await.unwrap();
    other.write_all(b"free").await.unwrap();
    soon(other.read_exact(&mut [0; 4])).await.unwrap();
    server.targets.release.notify_one();
    soon(stalled.shutdown()).await.unwrap();
    assert_eq!(soon(next_read(&mut server.events)).await, (written, None));
}

#[tokio::test]
async fn a_full_connection_says_so_and_a_closed_tunnel_frees_its_place() {
    let (world, mut tasks) = (World::new(), JoinSet::new());
    let server = world.server().await;
    let settings = TunnelSettings { streams_max: 2, ..TunnelSettings::default() };
    let io = world.dial(server.address).await;
    let (client, driver) = TunnelClient::handshake(io, settings).await.unwrap();
    tasks.spawn(driver.run());
    let first = soon(client.open(&head("echo.test:80"))).await.unwrap();
    let _second = soon(client.open(&head("echo.test:80"))).await.unwrap();
    let error = soon(client.open(&head("echo.test:80"))).await.unwrap_err();
    assert!(matches!(error, TunnelError::AtCapacity { limit: 2 }), "{error:?}");
    drop(first);
    soon(client.open(&head("echo.test:80"))).await.unwrap();
}

#[tokio::test]
async fn a_drain_lets_open_tunnels_end_and_takes_no_new_ones() {
    let (world, mut tasks) = (World::new(), JoinSet::new());
    let mut server = world.server().await;
    let client = world.client(server.address, &mut tasks).await;
    let mut stream = soon(client.open(&head("echo.test:80"))).await.unwrap();
    let use_it = async {
        // The GOAWAY has arrived once the client knows that no more may be opened.
        while client.availability() != Availability::Gone {
            tokio::task::yield_now().await;
        }
        stream.write_all(b"still here").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "still here");
        drop(stream);
    };
    let (outcome, ()) =
        soon(async { tokio::join!(server.drain.run(Duration::from_secs(20)), use_it) }).await;
    assert_eq!(outcome, DrainOutcome::Complete);
    let outcome = soon(server.outcomes.recv()).await.unwrap();
    assert!(matches!(outcome.end, ServeEnd::Drained), "{outcome:?}");
    assert_eq!(outcome.served, 1);
}

#[tokio::test]
async fn a_drain_that_is_forced_cuts_tunnels_with_an_error() {
    let (world, mut tasks) = (World::new(), JoinSet::new());
    let mut server = world.server().await;
    let client = world.client(server.address, &mut tasks).await;
    let mut stream = soon(client.open(&head("echo.test:80"))).await.unwrap();
    let outcome = soon(server.drain.run(Duration::from_millis(50))).await;
    assert_eq!(outcome, DrainOutcome::Forced { left: 1 });
    assert!(soon(stream.read(&mut [0])).await.is_err());
    let outcome = soon(server.outcomes.recv()).await.unwrap();
    assert!(matches!(outcome.end, ServeEnd::Forced), "{outcome:?}");
}

/// The handler and the tunnel hold an `Rc`: everything runs on one worker.
#[tokio::test]
async fn a_server_connection_works_with_futures_that_are_not_send() {
    let world = World::new();
    let work = async {
        let (connection, io) = world.pair().await;
        let (drain, limits) = (Drain::new(), ServeLimits::default());
        let name = Rc::new("local");
        let handler = |_| {
            let name = Rc::clone(&name);
            async move {
                Verdict::accept(move |mut stream: isthmus_hbone::TunnelStream| async move {
                    stream.write_all(name.as_bytes()).await.unwrap();
                    echo(stream).await;
                })
            }
        };
        let serve = serve_connect(connection, &limits, handler, drain.stop());
        let (client, driver) =
            TunnelClient::handshake(io, TunnelSettings::default()).await.unwrap();
        let talk = async move {
            let mut stream = client.open(&head("any.test:1")).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut got = String::new();
            stream.read_to_string(&mut got).await.unwrap();
            got
        };
        let (outcome, (), got) = tokio::join!(serve, driver.run(), talk);
        assert_eq!(got, "local");
        // The client's handle and its tunnel are gone, so it has said goodbye.
        assert!(matches!(outcome.end, ServeEnd::Closed), "{outcome:?}");
    };
    soon(LocalSet::new().run_until(work)).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_connection_without_tunnels_ends_after_the_idle_timeout() {
    let world = World::new();
    let (connection, io) = world.pair().await;
    let (drain, limits) = (Drain::new(), ServeLimits::default());
    let handler = |_| async { Verdict::accept(|stream: isthmus_hbone::TunnelStream| echo(stream)) };
    let serve = serve_connect(connection, &limits, handler, drain.stop());
    let (client, driver) = TunnelClient::handshake(io, TunnelSettings::default()).await.unwrap();
    let begin = tokio::time::Instant::now();
    let (outcome, ()) = tokio::join!(serve, driver.run());
    let passed = begin.elapsed().as_secs();
    assert!((300..=375).contains(&passed), "{passed}");
    assert!(matches!(outcome.end, ServeEnd::Closed), "{outcome:?}");
    assert_eq!(client.availability(), Availability::Gone);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_is_found_out_by_pings() {
    let world = World::new();
    let (connection, io) = world.pair().await;
    let (client, driver) = TunnelClient::handshake(io, TunnelSettings::default()).await.unwrap();
    let mut stream = client.open_early(&head("echo.test:80")).unwrap();
    let begin = tokio::time::Instant::now();
    // The server's end is kept open and never read.
    let mut buffer = [0];
    let ((), read) = tokio::join!(driver.run(), stream.read(&mut buffer));
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert_eq!(begin.elapsed().as_secs(), 30);
    drop(connection);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_a_timeout() {
    let world = World::new();
    let (connection, io) = world.pair().await;
    let (client, driver) = TunnelClient::handshake(io, TunnelSettings::default()).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(driver.run());
    let error = client.open(&head("echo.test:80")).await.unwrap_err();
    assert!(matches!(error, TunnelError::Timeout { .. }), "{error:?}");
    drop(connection);
}

async fn next_read(
    events: &mut tokio::sync::mpsc::UnboundedReceiver<Seen>,
) -> (usize, Option<ErrorKind>) {
    loop {
        if let Seen::Read { bytes, error } = events.recv().await.unwrap() {
            return (bytes, error);
        }
    }
}
