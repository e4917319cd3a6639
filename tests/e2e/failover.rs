//! The nearest usable endpoint answers: here, then in the other cluster, then here again.

use crate::client::Traffic;
use crate::federation::{imported, url};
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
