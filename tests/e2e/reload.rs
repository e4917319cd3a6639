//! Manifests that change while requests flow.

use serde_json::Value;

use crate::client::Traffic;
use crate::wait::eventually;
use crate::world::{App, Cluster, Role, Running, World, http_route};

const HOST: &str = "shop.test";

fn to(service: &str) -> String {
    http_route("shop", HOST, &format!("- {{backendRefs: [{{name: {service}, port: 80}}]}}"))
}

fn cluster() -> Cluster {
    let cluster = Cluster::named("east").gateway().app(App::http("blue")).app(App::http("green"));
    cluster.manifest("route-shop.yaml", &to("blue"))
}

async fn answers(cluster: &Running, service: &str) {
    eventually(&format!("{service} answers"), || async {
        let answer = cluster.get("/").host(HOST).try_send().await?;
        if answer.service() == service { Ok(()) } else { Err(answer.text()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_a_route_is_replaced_again_and_again() {
    let world = World::of(cluster()).await;
    let cluster = world.only();
    let calls = (0..4).map(|_| cluster.get("/").host(HOST));
    let traffic = Traffic::start(calls);
    traffic.flows(20).await;
    for round in 0..6 {
        let service = if round % 2 == 0 { "green" } else { "blue" };
        cluster.replace("route-shop.yaml", &to(service));
        answers(cluster, service).await;
        traffic.flows(20).await;
    }
    traffic.ends_without_a_failure().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_manifest_is_reported_and_what_was_good_stays() {
    let world = World::of(cluster()).await;
    let cluster = world.only();
    answers(cluster, "blue").await;
    let errors = |status: &Value| status["configErrors"].as_array().cloned().unwrap_or_default();
    let broken = to("green").replace("name: green", "nam: green");
    for text in [broken.as_str(), "kind: [", "\0"] {
        cluster.replace("route-shop.yaml", text);
        let errors = cluster
            .status_shows("the status has the error", |status| match errors(status) {
                errors if errors.is_empty() => Err(status["configErrors"].to_string()),
                errors => Ok(errors),
            })
            .await;
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0]["file"], "route-shop.yaml");
        assert_eq!(cluster.get("/").host(HOST).send().await.service(), "blue");
        // Something else still changes.
        cluster.replace("route-other.yaml", &http_route("other", "other.test", OTHER));
        eventually("another route is taken in", || async {
            let answer = cluster.get("/").host("other.test").try_send().await?;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        })
        .await;
    }
    cluster.replace("route-shop.yaml", &to("green"));
    answers(cluster, "green").await;
    cluster
        .status_shows("the status has no error", |status| match errors(status) {
            errors if errors.is_empty() => Ok(()),
            errors => Err(format!("{errors:?}")),
        })
        .await;
    assert!(cluster.log(&Role::Up).contains("route-shop.yaml"));
}

const OTHER: &str = "- {backendRefs: [{name: green, port: 80}]}";
