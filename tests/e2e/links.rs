//! What the network between two clusters can see and do.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::Traffic;
use crate::federation::{imported, url};
use crate::wait::eventually;
use crate::world::{App, Cluster, Link, Role, World};

const MARKER: &str = "marker-that-must-not-be-readable";

#[tokio::test(flavor = "multi_thread")]
async fn without_udp_the_link_goes_on_over_tcp_and_returns_to_quic() {
    let world = World::start([
        Cluster::named("east")
            .app(App::http("frontend").calling())
            .link(Link::to("west").relayed()),
        Cluster::named("west")
            .app(App::http("cart").meshed())
            .export("cart")
            .link(Link::from("east")),
    ])
    .await;
    let east = world.cluster("east");
    let call = east.call_from("frontend", &url("cart", "/"));
    call.is_answered_by("west").await;
    east.is_linked_by("west", "quic").await;
    world.relay("east", "west").cut_udp(true);
    east.is_linked_by("west", "tcp").await;
    // The connection of the sidecar was on the dead path; a new one is made.
    call.is_answered_by("west").await;
    let traffic = Traffic::start([call.clone()]);
    traffic.flows(20).await;
    world.relay("east", "west").cut_udp(false);
    east.is_linked_by("west", "quic").await;
    traffic.flows(20).await;
    // The change back is made while both work.
    traffic.ends_without_a_failure().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn opaque_bytes_reach_the_other_cluster() {
    let host = "db.shop.svc.clusterset.local";
    let world = World::start([
        Cluster::named("east")
            .app(App::http("frontend").calling().forwarding(5432, host))
            .link(Link::to("west")),
        Cluster::named("west").app(App::tcp("db").meshed()).export("db").link(Link::from("east")),
    ])
    .await;
    let (east, west) = (world.cluster("east"), world.cluster("west"));
    east.is_linked_to("west").await;
    east.sees("db", "west").await;
    let at = east.at("frontend", 5432);
    let large = MARKER.repeat(30_000);
    eventually("the bytes come back", || echo(at, large.as_bytes())).await;
    let record = west.logs(&Role::Up, |r| r["reporter"] == "inbound" && r["bytes_sent"] != 0);
    let record = record.await;
    assert_eq!(record["downstream_peer_uri_san"], "spiffe://east.e2e/ns/shop/sa/frontend");
}

async fn echo(at: SocketAddr, bytes: &[u8]) -> Result<(), String> {
    let stream = TcpStream::connect(at).await.map_err(|error| error.to_string())?;
    let (mut read, mut write) = stream.into_split();
    let mut back = Vec::new();
    let send = async {
        write.write_all(bytes).await?;
        write.shutdown().await
    };
    let (sent, received) = tokio::join!(send, read.read_to_end(&mut back));
    sent.and(received).map_err(|error| error.to_string())?;
    if back == bytes { Ok(()) } else { Err(format!("{} of {} bytes", back.len(), bytes.len())) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_between_the_clusters_sees_no_plaintext() {
    let world = World::start([
        Cluster::named("east")
            .gateway()
            .app(App::http("frontend").calling())
            .manifest("route-cart.yaml", &imported("cart"))
            .link(Link::to("west").relayed()),
        Cluster::named("west")
            .app(App::http("cart").meshed())
            .app(App::http("plain"))
            .export("cart")
            .export("plain")
            .link(Link::from("east")),
    ])
    .await;
    let east = world.cluster("east");
    east.is_linked_to("west").await;
    east.sees("cart", "west").await;
    east.sees("plain", "west").await;
    let relay = world.relay("east", "west");
    let before = relay.carried();
    let body = MARKER.repeat(200);
    for service in ["cart", "plain"] {
        let call = east.call_from("frontend", &url(service, "/secret-path"));
        let call = call.header("x-marker", MARKER).body(body.clone());
        let answer = call.is_answered_by("west").await;
        assert_eq!(answer.seen("x-marker"), [MARKER]);
        assert_eq!(answer.json()["bodyBytes"], body.len());
    }
    let call = east.get("/secret-path").host("cart.test").header("x-marker", MARKER);
    call.is_answered_by("west").await;
    assert!(relay.carried() - before > 2 * body.len(), "the requests have passed the relay");
    for text in [MARKER, "secret-path", "cart.shop", "PRIVATE KEY"] {
        assert!(!relay.saw(text), "{text} was readable");
    }
}
