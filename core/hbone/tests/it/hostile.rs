//! Peers with a valid certificate and bad intentions.
//!
//! Spec: security.md section 2.3.

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderValue, Method, Request, StatusCode, Version};
use isthmus_hbone::wire::REFUSED_REASON_HEADER;
use isthmus_hbone::{ConnectHead, ServeEnd, ServeOutcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::world::{ClientTls, Seen, Server, World, soon};

/// A client that sends what it is told to.
async fn raw(world: &World, server: &Server, tasks: &mut JoinSet<()>) -> SendRequest<Bytes> {
    let io = world.dial(server.address).await;
    let (client, connection) = h2::client::handshake(io).await.unwrap();
    tasks.spawn(async move {
        let _ = connection.await;
    });
    client
}

fn request(method: Method, uri: &str) -> Request<()> {
    let builder = Request::builder().method(method).uri(uri).version(Version::HTTP_2);
    builder.body(()).unwrap()
}

async fn answer(client: &mut SendRequest<Bytes>, request: Request<()>) -> (StatusCode, String) {
    let (response, _send) = client.send_request(request, false).unwrap();
    let response = soon(response).await.unwrap();
    let reason = response.headers().get(REFUSED_REASON_HEADER).cloned();
    let reason = reason.unwrap_or(HeaderValue::from_static(""));
    (response.status(), reason.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn what_is_no_connect_is_refused_before_the_handler() {
    let (world, mut tasks) = (World::new(), JoinSet::new());
    let mut server = world.server().await;
    let mut client = raw(&world, &server, &mut tasks).await;
    for method in [Method::GET, Method::POST, Method::OPTIONS] {
        let (status, _) = answer(&mut client, request(method, "https://echo.test:80/")).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    }
    for bad in ["echo.test", "u@echo.test:80", "echo.test:0", "echo.test:99999", "*.test:80"] {
        let (status, reason) = answer(&mut client, request(Method::CONNECT, bad)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}");
        assert!(!reason.is_empty(), "{bad}");
    }
    let mut other_host = request(Method::CONNECT, "echo.test:80");
    other_host.headers_mut().insert("host", HeaderValue::from_static("admin.test:80"));
    assert_eq!(answer(&mut client, other_host).await.0, StatusCode::BAD_REQUEST);
    assert!(server.events.try_recv().is_err(), "the handler was asked");
    assert_eq!(answer(&mut client, request(Method::CONNECT, "echo.test:80")).await.0, 200);
}

#[tokio::test]
async fn huge_headers_are_refused_before_the_handler() {
    let (world, mut tasks) = (World::new(), JoinSet::new());
    let mut server = world.server().await;
    let mut client = raw(&world, &server, &mut tasks).await;
    let mut huge = request(Method::CONNECT, "echo.test:80");
    let value = HeaderValue::from_str(&"x".repeat(20 * 1024)).unwrap();
    huge.headers_mut().insert("x-huge", value);
    let (response, _send) = client.send_request(huge, false).unwrap();
    match soon(response).await {
        Ok(response) => assert_eq!(response.status(), 431),
        Err(error) => assert!(error.is_reset() || error.is_go_away(), "{error}"),
    }
    assert!(server.events.try_recv().is_err(), "the handler was asked");
}

/// HTTP/2 by hand, for what no library would send.
struct Frames {
    io: ClientTls,
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u32 = 11;

impl Frames {
    async fn begin(world: &World, server: &Server) -> Self {
        let mut io = world.dial(server.address).await;
        io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        // Empty SETTINGS.
        io.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        Self { io }
    }

    /// The next frame: type, flags, payload; `None` when the server has closed.
    async fn next(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.io.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.io.read_exact(&mut payload).await.ok()?;
        Some((head[3], head[4], payload))
    }

    /// The code of the GOAWAY that the server closes with.
    async fn goaway(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some((kind, _, payload)) = self.next().await {
            if kind == GOAWAY {
                code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
        code
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `CONNECT later.test:80` in HPACK without the dynamic table, reset at once.
fn open_and_reset(stream: u32) -> Vec<u8> {
    let mut block = vec![0x02, 7];
    block.extend(b"CONNECT");
    block.extend([0x01, 13]);
    block.extend(b"later.test:80");
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &block);
    bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    bytes
}

async fn ended(server: &mut Server) -> ServeOutcome {
    soon(server.outcomes.recv()).await.unwrap()
}

#[tokio::test]
async fn a_hundred_thousand_resets_are_cut_before_a_thousand() {
    let world = World::new();
    let mut server = world.server().await;
    let Frames { io } = Frames::begin(&world, &server).await;
    let (reader, mut writer) = tokio::io::split(io);
    let flood = async {
        for stream in (1..200_000).step_by(2) {
            if writer.write_all(&open_and_reset(stream)).await.is_err() {
                return stream;
            }
        }
        200_000
    };
    // Reading goes on meanwhile, so that only the server's own limit can end this.
    let drain = async {
        let mut reader = reader;
        let mut buffer = vec![0; 4096];
        while let Ok(1..) = reader.read(&mut buffer).await {}
    };
    soon(async { tokio::join!(flood, drain) }).await;
    let outcome = ended(&mut server).await;
    assert!(outcome.reset_early < 1000, "{outcome:?}");
    assert!(matches!(outcome.end, ServeEnd::ResetFlood | ServeEnd::Failed { .. }), "{outcome:?}");
}

#[tokio::test]
async fn patient_resets_are_cut_too_and_their_work_is_given_up() {
    let world = World::new();
    let mut server = world.server().await;
    let mut frames = Frames::begin(&world, &server).await;
    let mut opened = 0_u32;
    // A ping after each stream makes sure that the server has looked at it.
    let code = soon(async {
        loop {
            let stream = opened * 2 + 1;
            let mut bytes = open_and_reset(stream);
            let mut reset = bytes.split_off(bytes.len() - 13);
            let ping = frame(PING, 0, 0, &[0; 8]);
            bytes.extend(&ping);
            reset.extend(&ping);
            for part in [&bytes, &reset] {
                if frames.io.write_all(part).await.is_err() {
                    return frames.goaway().await;
                }
                loop {
                    match frames.next().await {
                        Some((PING, 1, _)) => break,
                        Some((GOAWAY, _, payload)) => {
                            return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
                        }
                        Some(_) => {}
                        None => return None,
                    }
                }
            }
            opened += 1;
        }
    })
    .await;
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
    assert!((256..1000).contains(&opened), "{opened}");
    let outcome = ended(&mut server).await;
    assert!(matches!(outcome.end, ServeEnd::ResetFlood), "{outcome:?}");
    // Every decision that was begun has been dropped.
    let (mut asked, mut given_up) = (0, 0);
    while let Ok(seen) = server.events.try_recv() {
        match seen {
            Seen::Asked { .. } => asked += 1,
            Seen::GivenUp => given_up += 1,
            Seen::Read { .. } => {}
        }
    }
    assert_eq!(asked, given_up);
}

#[tokio::test]
async fn an_endless_header_block_closes_the_connection() {
    let world = World::new();
    let mut server = world.server().await;
    let mut frames = Frames::begin(&world, &server).await;
    // A literal header with a name of one byte and a value of 4000.
    let mut field = vec![0x00, 1, b'x', 0x7f, 0xa1, 0x1e];
    field.extend([b'v'; 4000]);
    let _ = frames.io.write_all(&frame(HEADERS, 0, 1, &field)).await;
    let mut sent = 1;
    while sent < 100_000 && frames.io.write_all(&frame(CONTINUATION, 0, 1, &field)).await.is_ok() {
        sent += 1;
    }
    let outcome = ended(&mut server).await;
    assert!(matches!(outcome.end, ServeEnd::Failed { .. }), "{outcome:?}");
    assert!(sent < 100_000, "all of it was read");
}

#[tokio::test]
async fn rubbish_instead_of_a_preface_ends_the_connection() {
    let world = World::new();
    let mut server = world.server().await;
    let mut io = world.dial(server.address).await;
    io.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let outcome = ended(&mut server).await;
    assert!(matches!(outcome.end, ServeEnd::Failed { .. }), "{outcome:?}");
}

#[tokio::test]
async fn streams_above_the_limit_do_not_reach_the_handler() {
    let (world, mut tasks) = (World::new(), JoinSet::new());
    let limits = isthmus_hbone::ServeLimits { streams_max: 4, ..Default::default() };
    let mut server = world.server_with(limits).await;
    let client = world.client(server.address, &mut tasks).await;
    let head = ConnectHead::parse("later.test:80").unwrap();
    // More than the server allows, before its SETTINGS can have been obeyed or not.
    let streams: Vec<_> = (0..20).filter_map(|_| client.open_early(&head).ok()).collect();
    for _ in 0..4.min(streams.len()) {
        assert!(matches!(soon(server.events.recv()).await, Some(Seen::Asked { .. })));
    }
    assert!(server.events.try_recv().is_err(), "the handler was asked too often");
}
