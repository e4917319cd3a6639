//! Processes that end and start again.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::client::{Call, Traffic};
use crate::wait::eventually;
use crate::world::{App, Cluster, Role, Running, World};

const HOST: &str = "shop.test";
const TO_CART: &str = "- {backendRefs: [{name: cart, port: 80}]}";

fn shop() -> Cluster {
    Cluster::named("east")
        .gateway()
        .app(App::http("frontend").calling())
        .app(App::http("cart").meshed())
        .route("shop", HOST, TO_CART)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_answered_before_the_process_ends() {
    let mut world = World::of(shop()).await;
    let cluster = world.only();
    let edge = cluster.get("/hold").host(HOST);
    let mesh = cluster.call_from("frontend", "http://cart.shop.svc.cluster.local/hold");
    let calls = [edge.clone(), edge.clone().http2(), mesh.clone(), mesh];
    let mut in_flight = JoinSet::new();
    for call in calls {
        in_flight.spawn(async move { call.send().await });
    }
    cluster.app("cart").holds(4).await;
    let ready = cluster.ready(&Role::Up);
    cluster.ask_to_end(&Role::Up);
    eventually("the process says that it is not ready", || async {
        let answer = Call::get(ready, "/healthz/ready").try_send().await?;
        if answer.status == 503 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    eventually("new clients are turned away", || async {
        world
            .only()
            .get("/")
            .host(HOST)
            .try_send()
            .await
            .map_or(Ok(()), |answer| Err(answer.text()))
    })
    .await;
    cluster.app("cart").release();
    while let Some(answer) = in_flight.join_next().await {
        assert_eq!(answer.unwrap().service(), "cart");
    }
    let status = world.only_mut().ended(&Role::Up).await;
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_requests_are_answered_until_load_balancers_have_noticed() {
    let cluster = shop().setting("drain: {delay: 1s, deadline: 20s}");
    let mut world = World::of(cluster).await;
    let call = world.only().get("/").host(HOST);
    let ready = world.only().ready(&Role::Up);
    assert_eq!(call.clone().send().await.status, 200);
    let traffic = Traffic::start([call.clone(), call.clone().http2()]);
    traffic.flows(10).await;
    world.only().ask_to_end(&Role::Up);
    eventually("the process says that it is not ready", || async {
        let answer = Call::get(ready, "/healthz/ready").try_send().await?;
        if answer.status == 503 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    // Now a load balancer would stop to send; nothing has failed until then.
    traffic.flows(10).await;
    traffic.ends_without_a_failure().await;
    assert!(world.only_mut().ended(&Role::Up).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_restarted_with_broken_manifests_serves_what_it_knew() {
    let mut world = World::of(shop()).await;
    answers(world.only()).await;
    world.only().replace("route-shop.yaml", "kind: [");
    world.only().replace("gateway.yaml", "kind: [");
    world.only_mut().kill_process(&Role::Up);
    world.only_mut().start_process(Role::Up);
    let cluster = world.only();
    // The status is served before the listeners are open.
    cluster.is_ready().await;
    cluster
        .status_shows("the status has the errors", |status| {
            let errors = status["configErrors"].as_array().map_or(0, Vec::len);
            if errors == 2 { Ok(()) } else { Err(status["configErrors"].to_string()) }
        })
        .await;
    assert_eq!(cluster.get("/").host(HOST).send().await.service(), "cart");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_process_ends_at_once_when_it_is_asked_to() {
    let mut world = World::of(shop()).await;
    assert_eq!(world.only().get("/").host(HOST).send().await.status, 200);
    let asked = tokio::time::Instant::now();
    world.only().ask_to_end(&Role::Up);
    let status = world.only_mut().ended(&Role::Up).await;
    assert!(status.success(), "{status}");
    assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_waits_for_another_says_so_and_ends_when_it_is_asked_to() {
    let mut world = World::prepare([shop().processes([Role::Gateway])]).await;
    let ready = world.only().ready(&Role::Gateway);
    eventually("the process says that it is not ready", || async {
        let answer = Call::get(ready, "/healthz/ready").try_send().await?;
        if answer.status == 503 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    world.only().ask_to_end(&Role::Gateway);
    let status = world.only_mut().ended(&Role::Gateway).await;
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_restarted_without_its_controller_serves_what_it_knew() {
    let sidecar = Role::Sidecar("cart".into());
    let roles = [Role::Ca, Role::Controller, Role::Gateway, sidecar.clone()];
    let mut world = World::of(shop().processes(roles)).await;
    answers(world.only()).await;
    for role in ["eastwest", "ingress", "shop-cart"] {
        world.only().has_saved(role).await;
    }

    world.only_mut().kill_process(&Role::Controller);
    assert_eq!(world.only().get("/").host(HOST).send().await.service(), "cart");
    world.only_mut().kill_process(&Role::Gateway);
    world.only_mut().start_process(Role::Gateway);
    answers(world.only()).await;
    world.only_mut().kill_process(&sidecar);
    world.only_mut().start_process(sidecar);
    answers(world.only()).await;

    // With the controller back, changes are taken in again.
    world.only_mut().start_process(Role::Controller);
    let rules = "- {matches: [{path: {value: /new}}], backendRefs: [{name: cart, port: 80}]}";
    world.only().replace("route-shop.yaml", &crate::world::http_route("shop", HOST, rules));
    let cluster = world.only();
    eventually("the change is taken in", || async {
        let answer = cluster.get("/").host(HOST).try_send().await?;
        if answer.status == 404 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    assert_eq!(cluster.get("/new").host(HOST).send().await.service(), "cart");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_restarted_after_a_crash_serves_again_with_the_same_trust() {
    let mut world = World::of(shop()).await;
    answers(world.only()).await;
    let file = world.only().settings_file(&Role::Up);
    let file = file.to_str().unwrap().to_owned();
    let before = crate::world::run_to_end(["ca", "bundle", "-f", &file]).await.stdout;
    world.only_mut().kill_process(&Role::Up);
    world.only_mut().start_process(Role::Up);
    answers(world.only()).await;
    let after = crate::world::run_to_end(["ca", "bundle", "-f", &file]).await.stdout;
    assert_eq!(String::from_utf8(before), String::from_utf8(after));
}

async fn answers(cluster: &Running) {
    eventually("the application answers", || async {
        let answer = cluster.get("/").host(HOST).try_send().await?;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
}
