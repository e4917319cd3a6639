//! What an operator asks, and what the answers are when something is wrong.

use std::net::TcpListener;
use std::process::Output;

use crate::client::{Answer, ask};
use crate::federation::url;
use crate::wait::eventually;
use crate::world::{App, Cluster, Link, Role, Running, World, run_to_end};

const TO_CART: &str =
    "- {matches: [{path: {value: /cart}}], backendRefs: [{name: cart, port: 80}]}";

fn shop() -> Cluster {
    Cluster::named("east")
        .gateway()
        .app(App::http("frontend").calling())
        .app(App::http("cart").meshed())
        .route("shop", "shop.test", TO_CART)
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_services_have_addresses_and_others_do_not_exist() {
    let world = World::start([
        shop().link(Link::to("west")),
        Cluster::named("west")
            .app(App::http("stock").meshed())
            .export("stock")
            .link(Link::from("east")),
    ])
    .await;
    let east = world.cluster("east");
    east.sees("stock", "west").await;
    let dns = east.plan().dns();
    let name = "stock.shop.svc.clusterset.local";
    let answer = eventually("the name has an address", || async {
        let answer = ask(dns, name).await?;
        if answer.addresses.is_empty() { Err(format!("{answer:?}")) } else { Ok(answer) }
    })
    .await;
    assert_eq!((answer.code, answer.addresses.len()), (0, 1), "{answer:?}");
    // The status tells the same address.
    let status = east.status().await;
    assert!(status["services"].to_string().contains(&answer.addresses[0].to_string()), "{status}");
    // Names are equal in any case.
    assert_eq!(ask(dns, "STOCK.shop.svc.ClusterSet.local").await.unwrap(), answer);
    let nothing = Answer { code: 3, addresses: Vec::new() };
    for name in ["nobody.shop.svc.clusterset.local", "nobody.nowhere.svc.clusterset.local"] {
        assert_eq!(ask(dns, name).await.unwrap(), nothing, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_names_the_route_and_the_endpoint_that_a_request_takes() {
    let world = World::of(shop()).await;
    let cluster = world.only();
    assert_eq!(cluster.get("/cart").host("shop.test").send().await.service(), "cart");
    let text = explain(cluster, &["http://shop.test/cart/1"]).await;
    assert!(text.contains("HTTPRoute shop/shop rule 0"), "{text}");
    assert!(text.contains("spiffe://east.e2e/ns/shop/sa/cart"), "{text}");
    let text = explain(cluster, &["http://shop.test/other"]).await;
    assert!(text.contains("404"), "{text}");
    let url = "http://cart.shop.svc.cluster.local/";
    assert_eq!(cluster.call_from("frontend", url).send().await.service(), "cart");
    let text = explain(cluster, &[url, "--from", "shop/frontend"]).await;
    assert!(text.contains("spiffe://east.e2e/ns/shop/sa/cart"), "{text}");
    let missing = url_of_nobody();
    let text = explain(cluster, &[&missing, "--from", "shop/frontend"]).await;
    assert!(text.contains("404"), "{text}");
    let wrong = run(cluster, &["explain", url, "--from", "shop/nobody"]).await;
    assert!(!wrong.status.success());
    let error = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(error.contains("shop/frontend"), "the message tells who can be asked: {error}");
}

fn url_of_nobody() -> String {
    url("nobody", "/")
}

#[tokio::test(flavor = "multi_thread")]
async fn status_is_for_people_and_for_machines() {
    let world = World::of(shop()).await;
    let cluster = world.only();
    let text = run(cluster, &["status"]).await;
    assert!(text.status.success(), "{text:?}");
    assert!(String::from_utf8_lossy(&text.stdout).contains("east"), "{text:?}");
    let json = run(cluster, &["status", "-o", "json"]).await;
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["cluster"], "east");
    let status = cluster.status().await;
    let identities = status["certificates"].to_string();
    assert!(identities.contains("spiffe://east.e2e/ns/shop/sa/cart"), "{identities}");
    assert!(!status.to_string().contains("PRIVATE KEY"));
    // A page in a browser, and a client of a proxy, get nothing from the admin port.
    let [.., admin] = cluster.plan().telemetry(0);
    let foreign = crate::client::Call::get(admin, "/status").host("evil.test").send().await;
    assert_eq!(foreign.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reports_every_error_and_fails() {
    let world = World::of(shop()).await;
    let cluster = world.only();
    let good = run(cluster, &["up", "--check"]).await;
    assert!(good.status.success(), "{good:?}");
    cluster.replace("bad.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: X, namespace: shop}\nspec: {ports: [{port: 80}]}\n");
    cluster.replace("worse.yaml", "kind: [");
    let bad = run(cluster, &["up", "--check"]).await;
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    let report = String::from_utf8_lossy(&bad.stdout).into_owned();
    for text in ["bad.yaml", "metadata.name", "worse.yaml"] {
        assert!(report.contains(text), "{text} is not in:\n{report}");
    }
    let file = cluster.settings_file(&Role::Up);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("workers: 1", "wrokers: 1")).unwrap();
    let bad = run(cluster, &["up", "--check"]).await;
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    let error = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(error.contains("wrokers"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named_and_ends_the_process() {
    let world = World::of(shop()).await;
    let cluster = world.only();
    // The same settings again: every port is taken.
    let again = run(cluster, &["up"]).await;
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    let error = String::from_utf8_lossy(&again.stderr).into_owned();
    let [metrics, ..] = cluster.plan().telemetry(0);
    assert!(error.contains(&metrics.to_string()), "the address is named: {error}");
    assert_eq!(cluster.get("/cart").host("shop.test").send().await.service(), "cart");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_of_the_mesh_is_named_and_ends_the_process() {
    let mut world = World::of(shop()).await;
    world.only().ask_to_end(&Role::Up);
    assert!(world.only_mut().ended(&Role::Up).await.success());
    let taken = world.only().plan().mesh();
    let _taken = TcpListener::bind(taken).unwrap();
    let again = run(world.only(), &["up"]).await;
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    let error = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(error.contains(&taken.to_string()), "the address is named: {error}");
}

async fn explain(cluster: &Running, arguments: &[&str]) -> String {
    let output = run(cluster, &[&["explain"], arguments].concat()).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command with the settings of the cluster.
async fn run(cluster: &Running, arguments: &[&str]) -> Output {
    let file = cluster.settings_file(&Role::Up);
    let file = file.to_str().expect("temporary folders have readable names");
    run_to_end(arguments.iter().copied().chain(["-f", file])).await
}
