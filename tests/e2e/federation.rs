//! Two clusters: what one exports and the other imports.

use crate::wait::eventually;
use crate::world::{App, Cluster, Link, World, http_route};

/// A route to a service of the clusterset.
pub(crate) fn imported(service: &str) -> String {
    let backend =
        format!("{{group: multicluster.x-k8s.io, kind: ServiceImport, name: {service}, port: 80}}");
    let rules = format!("- {{backendRefs: [{backend}]}}");
    http_route(service, &format!("{service}.test"), &rules)
}

/// The URL of a service of the clusterset.
pub(crate) fn url(service: &str, path: &str) -> String {
    format!("http://{service}.shop.svc.clusterset.local{path}")
}

fn east() -> Cluster {
    Cluster::named("east")
        .gateway()
        .app(App::http("frontend").calling())
        .manifest("route-cart.yaml", &imported("cart"))
        .manifest("route-plain.yaml", &imported("plain"))
}

fn west() -> Cluster {
    Cluster::named("west")
        .app(App::http("cart").meshed())
        .app(App::http("plain"))
        .export("cart")
        .export("plain")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_the_peer_is_reached_from_the_ingress_and_from_a_sidecar() {
    let world =
        World::start([east().link(Link::to("west")), west().link(Link::from("east"))]).await;
    let (east, west) = (world.cluster("east"), world.cluster("west"));
    east.is_linked_to("west").await;
    west.is_linked_to("east").await;
    east.sees("cart", "west").await;
    east.sees("plain", "west").await;
    for service in ["cart", "plain"] {
        let host = format!("{service}.test");
        let answer = east.get("/from-ingress").host(&host).is_answered_by("west").await;
        assert_eq!(answer.service(), service);
        let call = east.call_from("frontend", &url(service, "/from-sidecar"));
        assert_eq!(call.is_answered_by("west").await.service(), service);
    }
    let role = crate::world::Role::Up;
    // The destination knows the true source, not a gateway.
    let into = west.logs(&role, |r| r["reporter"] == "inbound" && r["path"] == "/from-sidecar");
    let into = into.await;
    assert_eq!(into["downstream_peer_uri_san"], "spiffe://east.e2e/ns/shop/sa/frontend");
    let out = |path: &'static str, san: &'static str| {
        east.logs(&role, move |r| r["path"] == path && r["upstream_peer_uri_san"] == san)
    };
    // The source knows the true destination, and that a gateway stands in for the other.
    for path in ["/from-ingress", "/from-sidecar"] {
        out(path, "spiffe://west.e2e/ns/shop/sa/cart").await;
        out(path, "spiffe://west.e2e/ns/isthmus-system/sa/isthmus-eastwest").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_both_sides_allow_is_imported() {
    let world = World::start([
        east().link(Link::to("west").importing(&["cart", "secret"])),
        west()
            .app(App::http("secret"))
            .export("secret")
            .link(Link::from("east").exporting(&["cart", "plain"])),
    ])
    .await;
    let (east, west) = (world.cluster("east"), world.cluster("west"));
    east.is_linked_to("west").await;
    east.sees("cart", "west").await;
    east.call_from("frontend", &url("cart", "/")).is_answered_by("west").await;
    // Not imported by the one side, not exported by the other.
    for denied in ["plain", "secret"] {
        let answer = east.call_from("frontend", &url(denied, "/")).send().await;
        assert_eq!(answer.status, 404, "{denied}");
        let host = format!("{denied}.shop.svc.clusterset.local");
        let status = east.status().await;
        assert!(!status["services"].to_string().contains(&host), "{status}");
    }
    // The rule changes and the service comes, and goes again.
    let link = std::fs::read_to_string(east.manifests().join("link-west.yaml")).unwrap();
    let wider = link.replace("\"secret\"", "\"plain\"");
    assert_ne!(link, wider);
    east.replace("link-west.yaml", &wider);
    east.sees("plain", "west").await;
    east.call_from("frontend", &url("plain", "/")).is_answered_by("west").await;
    east.replace("link-west.yaml", &link);
    eventually("the service is gone with the rule", || async {
        let answer = east.call_from("frontend", &url("plain", "/")).try_send().await?;
        if answer.status == 404 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    // Nothing of east was offered, so west knows nothing of it.
    assert!(!west.status().await["services"].to_string().contains("frontend.shop.svc.clusterset"));
}
