//! The mesh inside one cluster.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::exchange;
use crate::wait::{eventually, soon};
use crate::world::{App, Cluster, Role, World};

const CART: &str = "http://cart.shop.svc.cluster.local/hello";
const MARKER: &str = "marker-that-must-not-be-readable";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_between_sidecars_is_encrypted_and_carries_the_callers_identity() {
    let roles = ["frontend", "cart"].map(|name| Role::Sidecar(name.into()));
    let [frontend, cart] = roles.clone();
    let cluster = Cluster::named("east")
        .app(App::http("frontend").calling())
        .app(App::http("cart").tapped())
        .processes([Role::Ca, Role::Controller].into_iter().chain(roles));
    let world = World::of(cluster).await;
    let cluster = world.only();
    let answer = eventually("the sidecars find each other", || async {
        let call = cluster.call_from("frontend", CART).header("x-marker", MARKER).body(MARKER);
        let answer = call.try_send().await?;
        if answer.status == 200 { Ok(answer) } else { Err(answer.text()) }
    })
    .await;
    assert_eq!(answer.service(), "cart");
    assert_eq!(answer.seen("x-marker"), [MARKER]);
    assert_eq!(answer.json()["path"], "/hello");
    assert_eq!(answer.seen("host"), ["cart.shop.svc.cluster.local"]);

    let tap = cluster.tap("cart");
    assert!(tap.carried() > 0, "the request has passed the relay");
    assert!(!tap.saw(MARKER) && !tap.saw("/hello"), "the relay can read the request");

    // What is readable is seen there, and the mesh port takes none of it.
    let raw = exchange(cluster.tapped("cart"), b"GET /in-the-clear HTTP/1.1\r\n\r\n").await;
    assert!(tap.saw("/in-the-clear") && !raw.text.contains("200"), "{}", raw.text);

    let ours = |record: &serde_json::Value| record["response_code"] == 200;
    let out = cluster.logs(&frontend, ours).await;
    assert_eq!(out["reporter"], "outbound");
    assert_eq!(out["upstream_peer_uri_san"], "spiffe://east.e2e/ns/shop/sa/cart");
    let into = cluster.logs(&cart, ours).await;
    assert_eq!(into["reporter"], "inbound");
    assert_eq!(into["downstream_peer_uri_san"], "spiffe://east.e2e/ns/shop/sa/frontend");
    assert_eq!(into["trace_id"], out["trace_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_decides_whether_plaintext_is_taken() {
    let cluster = Cluster::named("east")
        .app(App::http("frontend").calling())
        .app(App::http("cart").with_inbound())
        .manifest("mtls.yaml", &policy("STRICT"));
    let world = World::of(cluster).await;
    let cluster = world.only();
    let plaintext = || cluster.call_inbound("cart", "/").host("cart");
    eventually("STRICT refuses plaintext", || async {
        match plaintext().try_send().await {
            Ok(answer) => Err(answer.text()),
            Err(_) => Ok(()),
        }
    })
    .await;
    assert_eq!(cluster.call_from("frontend", CART).send().await.service(), "cart");
    cluster.replace("mtls.yaml", &policy("PERMISSIVE"));
    eventually("PERMISSIVE takes plaintext", || async { plaintext().try_send().await }).await;
    assert_eq!(plaintext().send().await.service(), "cart");
    assert_eq!(cluster.call_from("frontend", CART).send().await.service(), "cart");
    cluster.replace("mtls.yaml", &policy("STRICT"));
    eventually("STRICT refuses plaintext again", || async {
        match plaintext().try_send().await {
            Ok(answer) => Err(answer.text()),
            Err(_) => Ok(()),
        }
    })
    .await;
    // The mesh port never takes plaintext.
    let raw = exchange(cluster.at("cart", 15008), b"GET / HTTP/1.1\r\nHost: cart\r\n\r\n").await;
    assert!(raw.closed && !raw.text.contains("200 OK"), "{}", raw.text);
}

fn policy(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: shop}}
spec: {{mtls: {{mode: {mode}}}}}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn opaque_bytes_pass_a_forward_and_a_connect() {
    let host = "db.shop.svc.cluster.local";
    let cluster = Cluster::named("east")
        .app(App::http("frontend").calling().forwarding(5432, host))
        .app(App::tcp("db").meshed());
    let world = World::of(cluster).await;
    let cluster = world.only();

    let mut forward = TcpStream::connect(cluster.at("frontend", 5432)).await.unwrap();
    echoes(&mut forward, b"by the forward").await;

    let mut tunnel = TcpStream::connect(cluster.at("frontend", 15001)).await.unwrap();
    let request = format!("CONNECT {host}:80 HTTP/1.1\r\nHost: {host}:80\r\n\r\n");
    tunnel.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("the head of the answer", tunnel.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    echoes(&mut tunnel, b"by the tunnel").await;

    let received = cluster.app("db").received().concat();
    assert_eq!(received.len(), "by the forwardby the tunnel".len());
    let record = cluster.logs(&Role::Up, |r| r["reporter"] == "inbound").await;
    assert_eq!(record["protocol"], "TCP");
    assert_eq!(record["downstream_peer_uri_san"], "spiffe://east.e2e/ns/shop/sa/frontend");
}

async fn echoes(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    let mut back = vec![0; bytes.len()];
    soon("the echo", stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(back, bytes);
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    soon("the end of the connection", stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"");
}
