//! A new root while requests flow.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::client::Traffic;
use crate::federation::{imported, url};
use crate::world::{App, Cluster, Link, Role, Running, World, run_to_end};

/// The shortest lives that the settings allow, so that a whole rotation fits into a test.
const SHORT_LIVES: &str = "ca: {svidLifetime: 5s, rotationOverlap: 2s}";

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_a_root_is_rotated() {
    let world = World::start([
        Cluster::named("east")
            .gateway()
            .app(App::http("frontend").calling())
            .app(App::http("local").meshed())
            .manifest("route-cart.yaml", &imported("cart"))
            .link(Link::to("west"))
            .setting(SHORT_LIVES),
        Cluster::named("west")
            .app(App::http("cart").meshed())
            .export("cart")
            .link(Link::from("east"))
            .setting(SHORT_LIVES),
    ])
    .await;
    let (east, west) = (world.cluster("east"), world.cluster("west"));
    east.sees("cart", "west").await;
    let calls = [
        east.get("/").host("cart.test"),
        east.call_from("frontend", &url("cart", "/")),
        east.call_from("frontend", "http://local.shop.svc.cluster.local/"),
    ];
    for (call, cluster) in calls.iter().zip(["west", "west", "east"]) {
        call.is_answered_by(cluster).await;
    }
    let traffic = Traffic::start(calls);
    traffic.flows(30).await;
    let old = roots(west).await;
    let knows = |status: &Value| sequence(status).ok_or_else(|| status["peers"].to_string());
    let before = east.status_shows("east knows the bundle of west", knows).await;
    west.rotate().await;
    // The peer learns of the new root before anything is signed with it.
    east.status_shows("the peer has the new bundle", |status| match sequence(status) {
        Some(now) if now > before => Ok(()),
        other => Err(format!("{other:?}, at first {before}")),
    })
    .await;
    // Published, then alone: the old root is retired when nothing of it is alive.
    crate::wait::eventually("the old root is retired", || async {
        let now = roots(west).await;
        let renewed = now.len() == 1 && now.is_disjoint(&old);
        if renewed { Ok(()) } else { Err(format!("{old:?}, now {now:?}")) }
    })
    .await;
    traffic.flows(30).await;
    traffic.ends_without_a_failure().await;
}

/// The sequence number of the peer's trust bundle.
fn sequence(status: &Value) -> Option<u64> {
    status["peers"][0]["bundleSequence"].as_u64()
}

/// The keys of the roots in a cluster's trust bundle.
async fn roots(cluster: &Running) -> BTreeSet<String> {
    let file = cluster.settings_file(&Role::Up);
    let file = file.to_str().expect("temporary folders have readable names");
    let output = run_to_end(["ca", "bundle", "-f", file]).await;
    assert!(output.status.success(), "{output:?}");
    let bundle: Value = serde_json::from_slice(&output.stdout).expect("a bundle is JSON");
    bundle["keys"]
        .as_array()
        .expect("a bundle has keys")
        .iter()
        .map(|k| k["x"].to_string())
        .collect()
}
