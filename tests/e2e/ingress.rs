//! The ingress: what a client from outside sees, and what the application and the
//! operator see of it.

use serde_json::json;

use crate::client::exchange;
use crate::wait::eventually;
use crate::world::{App, Cluster, Role, World};

const TO_CART: &str = "- {backendRefs: [{name: cart, port: 80}]}";

fn shop() -> Cluster {
    Cluster::named("east").gateway().app(App::http("cart")).route("shop", "shop.test", TO_CART)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_http1_and_http2_reach_the_application() {
    let world = World::of(shop()).await;
    let cluster = world.only();
    for call in [cluster.get("/a?b=c"), cluster.get("/a?b=c").http2()] {
        let answer = call.host("shop.test").send().await;
        assert_eq!(answer.service(), "cart");
        assert_eq!(
            (&answer.json()["path"], &answer.json()["query"]),
            (&json!("/a"), &json!("b=c"))
        );
    }
    let large = vec![b'x'; 3_000_000];
    for call in [cluster.get("/upload"), cluster.get("/upload").http2()] {
        let answer = call.host("shop.test").body(large.clone()).send().await;
        assert_eq!(answer.json()["bodyBytes"], large.len());
        assert_eq!(answer.json()["method"], "POST");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_about_other_proxies_is_replaced() {
    let world = World::of(shop()).await;
    let call = world.only().get("/").host("shop.test");
    let answer = call
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-forwarded-host", "evil.test")
        .header("x-forwarded-proto", "https")
        .header("forwarded", "for=6.6.6.6")
        .header("x-isthmus-port", "22")
        .header("x-forwarded-client-cert", "URI=spiffe://evil")
        .header("connection", "x-forwarded-for, x-secret")
        .header("x-secret", "1")
        .send()
        .await;
    assert_eq!(answer.seen("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(answer.seen("x-forwarded-host"), ["shop.test"]);
    assert_eq!(answer.seen("x-forwarded-proto"), ["http"]);
    for gone in ["forwarded", "x-isthmus-port", "x-forwarded-client-cert", "x-secret", "connection"]
    {
        assert_eq!(answer.seen(gone), [""; 0], "{gone}");
    }
    assert_eq!(answer.seen("host"), ["shop.test"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_each_request_once_in_the_access_log_and_the_metrics() {
    let world = World::of(shop()).await;
    let cluster = world.only();
    let answer = cluster.get("/seen?secret=1").host("shop.test").send().await;
    assert_eq!(answer.status, 200);
    let missed = cluster.get("/missed").host("nobody.test").send().await;
    assert_eq!(missed.status, 404);
    let record = cluster.logs(&Role::Up, |record| record["path"] == "/seen").await;
    assert_eq!(record["reporter"], "ingress");
    assert_eq!(record["response_code"], 200);
    assert_eq!(record["response_flags"], "-");
    assert_eq!(record["authority"], "shop.test");
    assert_eq!(record["destination_service"], "cart");
    assert_eq!(record["upstream_host"], json!(cluster.at("cart", 8080)));
    let record = cluster.logs(&Role::Up, |record| record["path"] == "/missed").await;
    assert_eq!((&record["response_code"], &record["response_flags"]), (&json!(404), &json!("NR")));
    let log = cluster.access_log(&Role::Up);
    assert_eq!(log.len(), 2, "{log:?}");
    eventually("the metrics count the request", || async {
        let labels = ["response_code=\"200\"", "reporter=\"ingress\""];
        let count = cluster.metric("isthmus_requests_total", &labels).await;
        if count == 1.0 { Ok(()) } else { Err(cluster.metrics().await) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_are_too_slow_or_send_too_much_are_refused() {
    let limits = "{headerBytes: 8192, headerCount: 20, headTimeout: 500ms}";
    let world = World::of(shop().limits(limits)).await;
    let cluster = world.only();
    let at = cluster.ingress(80);
    let slow = exchange(at, b"GET / HTTP/1.1\r\nHost: shop.test\r\nx-not-").await;
    assert!(slow.closed && !slow.text.contains(" 200 "), "{}", slow.text);
    let many = "x-many: 1\r\n".repeat(30);
    let many = format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{many}\r\n");
    let answer = exchange(at, many.as_bytes()).await;
    assert_eq!(answer.statuses(), [431], "{}", answer.text);
    let large = format!("GET / HTTP/1.1\r\nHost: shop.test\r\nx: {}\r\n\r\n", "a".repeat(9000));
    let answer = exchange(at, large.as_bytes()).await;
    assert_eq!(answer.statuses(), [431], "{}", answer.text);
    let call = cluster.get("/").host("shop.test").http2().header("x", &"a".repeat(9000));
    let large = call.try_send().await;
    assert!(large.as_ref().map_or(true, |answer| answer.status == 431), "{large:?}");
    assert_eq!(cluster.get("/").host("shop.test").send().await.status, 200);
}
