//! Bodies that flow both ways, trailers, and other protocols.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::wait::soon;
use crate::world::{App, Cluster, World};

const HOST: &str = "shop.test";

fn cluster(app: App) -> Cluster {
    let rules = format!("- {{backendRefs: [{{name: {}, port: 80}}]}}", app.service);
    Cluster::named("east").gateway().app(app).route("shop", HOST, &rules)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_streams_both_ways_at_once_and_ends_with_its_trailers() {
    for (app, is_http2) in [(App::http("cart"), false), (App::http2("cart"), true)] {
        let world = World::of(cluster(app)).await;
        let call = world.only().get("/echo").host(HOST).method("POST");
        let call = if is_http2 { call.http2() } else { call };
        let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, std::convert::Infallible>>(1);
        let body = StreamBody::new(Box::pin(stream(receiver)));
        let begun = call.begin(body);
        // The first part is under way before the answer is.
        sender.send(Ok(Frame::data(Bytes::from("part 0")))).await.unwrap();
        let (response, _connection) = soon("the head of the answer", begun).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        for number in 0..5 {
            let part = soon("a part of the answer", body.frame()).await.unwrap().unwrap();
            assert_eq!(part.into_data().unwrap(), format!("part {number}"));
            let next = Bytes::from(format!("part {}", number + 1));
            sender.send(Ok(Frame::data(next))).await.unwrap();
        }
        soon("the last part", body.frame()).await.unwrap().unwrap();
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "42".parse().unwrap())]);
        sender.send(Ok(Frame::trailers(trailers))).await.unwrap();
        drop(sender);
        let rest = soon("the end of the answer", body.collect()).await.unwrap();
        // A client's trailers are passed on to nobody (RFC 9110 section 6.5.1).
        assert!(rest.trailers().is_none());
        assert_eq!(rest.to_bytes(), "");
    }
}

fn stream<T>(mut receiver: mpsc::Receiver<T>) -> impl futures_util::Stream<Item = T> {
    futures_util::stream::poll_fn(move |context| receiver.poll_recv(context))
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_an_answer_reach_the_client() {
    let world = World::of(cluster(App::http2("cart"))).await;
    let answer = world.only().get("/trailers").host(HOST).http2().send().await;
    assert_eq!(answer.service(), "cart");
    assert_eq!(answer.trailers.unwrap()["x-checksum"], "abc");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_may_answer_before_the_body_has_come() {
    let world = World::of(cluster(App::http("cart"))).await;
    let call = world.only().get("/early").host(HOST).http2().method("POST");
    let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, std::convert::Infallible>>(1);
    let body = StreamBody::new(Box::pin(stream(receiver)));
    sender.send(Ok(Frame::data(Bytes::from("begun")))).await.unwrap();
    let (response, _connection) = soon("an early answer", call.begin(body)).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = soon("the whole answer", response.into_body().collect()).await.unwrap();
    assert!(body.to_bytes().starts_with(b"{"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_passes_and_carries_bytes_both_ways() {
    let world = World::of(cluster(App::upgrader("chat"))).await;
    let mut stream = TcpStream::connect(world.only().ingress(80)).await.unwrap();
    let request = "GET /chat HTTP/1.1\r\nhost: shop.test\r\nupgrade: websocket\r\n\
        connection: Upgrade\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = soon("the head of the answer", head(&mut stream)).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_ascii_lowercase().contains("upgrade: websocket"), "{head}");
    for text in ["hello", "again"] {
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut back = vec![0; text.len()];
        soon("the echo", stream.read_exact(&mut back)).await.unwrap();
        assert_eq!(back, text.as_bytes());
    }
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    soon("the end of the connection", stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"");
}

async fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(bytes).unwrap()
}
