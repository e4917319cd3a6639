//! The nearest usable endpoint answers: here, then in the other cluster, then here again.

use crate::apps::HANG_UP;
use crate::client::Traffic;
use crate::federation::{imported, url};
use crate::wait::eventually;
use crate::world::{App, Cluster, Link, Role, World};

async fn world() -> World {
    let world = World::start([
        Cluster::named("east")
            .gateway()
            .app(App::http("frontend").calling())
            .app(App::http("cart").meshed())
            .export("cart")
            .manifest("route-cart.yaml", &imported("cart"))
            .link(Link::to("west")),
        Cluster::named("west")
            .app(App::http("cart").meshed())
            .export("cart")
            .link(Link::from("east")),
    ])
    .await;
    world.cluster("east").sees("cart", "west").await;
    world.cluster("east").sees("cart", "east").await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn without_local_endpoints_the_other_cluster_answers_until_they_return() {
    let world = world().await;
    let east = world.cluster("east");
    let calls = [east.get("/").host("cart.test"), east.call_from("frontend", &url("cart", "/"))];
    for call in &calls {
        call.is_answered_by("east").await;
    }
    // No request fails: while the endpoint is being removed the application still runs.
    let traffic = Traffic::start(calls.clone());
    traffic.flows(10).await;
    east.remove_endpoints("cart");
    for call in &calls {
        call.is_answered_by("west").await;
    }
    traffic.flows(20).await;
    east.restore_endpoints("cart");
    for call in &calls {
        call.is_answered_by("east").await;
    }
    traffic.flows(10).await;
    traffic.ends_without_a_failure().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_peer_gives_way_to_local_endpoints_and_comes_back() {
    let mut world = world().await;
    let call = world.cluster("east").get("/").host("cart.test");
    world.cluster("east").remove_endpoints("cart");
    call.is_answered_by("west").await;
    world.cluster_mut("west").kill_process(&Role::Up);
    world.cluster("east").restore_endpoints("cart");
    call.is_answered_by("east").await;
    // Nobody waits for the dead: requests go on without a failure.
    let traffic = Traffic::start([call.clone()]);
    traffic.flows(20).await;
    traffic.ends_without_a_failure().await;

    world.cluster_mut("west").start_process(Role::Up);
    let (east, west) = (world.cluster("east"), world.cluster("west"));
    west.is_ready().await;
    east.is_linked_to("west").await;
    east.remove_endpoints("cart");
    call.is_answered_by("west").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_its_controller_goes_on_serving_what_only_it_has() {
    let roles = [Role::Ca, Role::Controller, Role::Gateway, Role::Sidecar("cart".into())];
    let mut world = World::start([
        Cluster::named("east")
            .gateway()
            .app(App::http("frontend").calling())
            .manifest("route-cart.yaml", &imported("cart"))
            .link(Link::to("west")),
        Cluster::named("west")
            .app(App::http("cart").meshed())
            .export("cart")
            .link(Link::from("east"))
            .processes(roles),
    ])
    .await;
    let east = world.cluster("east");
    east.sees("cart", "west").await;
    let calls = [east.get("/").host("cart.test"), east.call_from("frontend", &url("cart", "/"))];
    for call in &calls {
        call.is_answered_by("west").await;
    }
    let traffic = Traffic::start(calls);
    traffic.flows(10).await;
    world.cluster_mut("west").kill_process(&Role::Controller);
    world.cluster("east").has_lease_of("west", "expired").await;
    traffic.flows(20).await;
    world.cluster_mut("west").start_process(Role::Controller);
    world.cluster("east").has_lease_of("west", "valid").await;
    traffic.flows(20).await;
    traffic.ends_without_a_failure().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_an_application_leaves_without_an_answer_goes_to_another_if_it_may() {
    // With a sidecar before the application, and with a gateway that stands in for one.
    for meshed in [true, false] {
        let near = App::recorder("cart");
        let east = Cluster::named("east")
            .gateway()
            .manifest("route-cart.yaml", &imported("cart"))
            .link(Link::to("west"))
            .link(Link::to("north"));
        let region = east.region.clone();
        let world = World::start([
            east,
            Cluster { region, ..Cluster::named("west") }
                .app(if meshed { near.meshed() } else { near })
                .export("cart")
                .link(Link::from("east")),
            Cluster::named("north")
                .app(App::http("cart").meshed())
                .export("cart")
                .link(Link::from("east")),
        ])
        .await;
        let east = world.cluster("east");
        east.sees("cart", "west").await;
        east.sees("cart", "north").await;
        // West is nearer: all that it answers says its target.
        let call = east.get("/").host("cart.test");
        call.is_answered_with("target=/").await;
        let call = east.get(HANG_UP).host("cart.test");
        assert_eq!(call.clone().send().await.cluster(), "north");
        let answer = call.method("POST").body("once").send().await;
        assert_eq!(answer.status, 503, "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_peer_dies_another_one_answers_within_seconds() {
    let peer = |name: &str, other: &str| {
        Cluster::named(name)
            .app(App::http("cart").meshed())
            .export("cart")
            .link(Link::from("east"))
            .link(if name < other { Link::to(other) } else { Link::from(other) })
    };
    let east = Cluster::named("east")
        .gateway()
        .app(App::http("frontend").calling())
        .manifest("route-cart.yaml", &imported("cart"))
        .link(Link::to("north"))
        .link(Link::to("west"));
    let mut world = World::start([east, peer("north", "west"), peer("west", "north")]).await;
    let east = world.cluster("east");
    east.sees("cart", "north").await;
    east.sees("cart", "west").await;
    let call = east.get("/").host("cart.test");
    let first = eventually("one of the peers answers", || async {
        let answer = call.try_send().await?;
        if answer.status == 200 { Ok(answer.cluster()) } else { Err(answer.text()) }
    })
    .await;
    let second = if first == "north" { "west" } else { "north" };
    let calls = [call.clone(), east.call_from("frontend", &url("cart", "/"))];
    let traffic = Traffic::start(calls);
    traffic.flows(20).await;
    world.cluster_mut(&first).kill_process(&Role::Up);
    let killed = tokio::time::Instant::now();
    call.is_answered_by(second).await;
    assert!(killed.elapsed() < FAILOVER_MAX, "it took {:?}", killed.elapsed());
    traffic.flows(200).await;
    // What was under way to the dead cluster may fail; nothing after that.
    let (succeeded, failures) = traffic.end().await;
    assert!(failures.len() <= 10, "{succeeded} succeeded; {failures:?}");
}

/// From a cluster's death, which nothing announces, to the first answer of another.
const FAILOVER_MAX: std::time::Duration = std::time::Duration::from_secs(10);
