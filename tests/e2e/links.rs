//! What the network between two clusters can see and do.

use crate::federation::{imported, url};
use crate::world::{App, Cluster, Link, World};

const MARKER: &str = "marker-that-must-not-be-readable";

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
