//! Whole requests: a client, a worker and backends, on loopback sockets.

mod world;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use isthmus_model::route::{Cors, Filter, HeaderChange, Mirror, Retry};
use isthmus_model::{BackendRoots, BackendTls};

use self::world::{HANG, World, backend, key, on_worker, rule, target, tls_backend};

fn mirror(service: &str, fraction: (u32, u32)) -> Filter {
    Filter::Mirror(Mirror { target: target(service), fraction })
}

#[test]
fn preflights_are_answered_here_and_other_answers_are_marked() {
    on_worker(async {
        let app = backend(|_| (200, vec![("access-control-allow-origin", "*")])).await;
        let cors = Cors {
            allow_origins: vec!["https://*.a.test".into()],
            allow_methods: vec!["PUT".into()],
            ..Cors::default()
        };
        let set = vec![("x-set".parse().unwrap(), HeaderValue::from_static("1"))];
        let change = HeaderChange { set, ..HeaderChange::default() };
        let filters = vec![Filter::Cors(cors), Filter::ResponseHeaders(change)];
        let world = World::start(rule(filters, None), &[("app", &app)], vec![]).await;
        let origin = "origin: https://b.a.test\r\n";
        let asks = format!("{origin}access-control-request-method: PUT\r\n");
        let answer = world.send("OPTIONS /x", &asks, "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("access-control-allow-origin: https://b.a.test"), "{answer}");
        assert!(answer.contains("access-control-allow-methods: PUT"), "{answer}");
        assert_eq!(app.seen().len(), 0, "the backend sees no preflight");
        let answer = world.send("GET /x", origin, "").await;
        assert!(answer.contains("access-control-allow-origin: https://b.a.test"), "{answer}");
        assert!(answer.contains("x-set: 1"), "{answer}");
        let answer = world.send("GET /x", "origin: https://evil.test\r\n", "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(!answer.contains("access-control-allow-origin"), "{answer}");
        assert_eq!(app.seen().len(), 2);
    });
}

#[test]
fn copies_carry_the_body_and_a_backend_that_hangs_delays_nobody() {
    on_worker(async {
        let app = backend(|_| (200, vec![])).await;
        let (copy, hangs) = (backend(|_| (500, vec![])).await, backend(|_| (HANG, vec![])).await);
        let filters = vec![
            mirror("copy", (1, 1)),
            mirror("hangs", (1, 1)),
            mirror("copy", (0, 1)),
            mirror("gone", (1, 1)),
        ];
        let services = [("app", &app), ("copy", &copy), ("hangs", &hangs)];
        let world = World::start(rule(filters, None), &services, vec![]).await;
        let answer = world.send("POST /pay", "content-length: 5\r\n", "hello").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        for mirrored in [&copy, &hangs] {
            mirrored.wait_for(1).await;
            assert_eq!(mirrored.seen(), [("POST /pay".to_owned(), "hello".to_owned())]);
        }
        assert!(world.send("GET /", "", "").await.starts_with("HTTP/1.1 200"));
        copy.wait_for(2).await;
        assert_eq!(copy.seen()[1], ("GET /".to_owned(), String::new()));
        assert_eq!(world.worker.mirrors.dropped(), 2, "those to the service that is not there");
    });
}

#[test]
fn a_body_above_the_limit_goes_through_and_its_copy_is_given_up() {
    on_worker(async {
        let (app, copy) = (backend(|_| (200, vec![])).await, backend(|_| (200, vec![])).await);
        let services = [("app", &app), ("copy", &copy)];
        let world = World::start(rule(vec![mirror("copy", (1, 1))], None), &services, vec![]).await;
        let body = "x".repeat(crate::mirror::BODY_BYTES_MAX + 1);
        let head = format!("content-length: {}\r\n", body.len());
        let answer = world.send("POST /", &head, &body).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(app.seen()[0].1.len(), body.len());
        assert_eq!((copy.seen().len(), world.worker.mirrors.dropped()), (0, 1));
    });
}

fn retry(codes: &[u16], attempts: u32) -> Retry {
    Retry { codes: codes.to_vec(), attempts, backoff: Duration::from_millis(1) }
}

#[test]
fn a_rule_retries_its_codes_also_with_a_small_body() {
    on_worker(async {
        let app = backend(|n| (if n < 3 { 503 } else { 200 }, vec![])).await;
        let world =
            World::start(rule(vec![], Some(retry(&[503], 2))), &[("app", &app)], vec![]).await;
        let answer = world.send("POST /", "content-length: 2\r\n", "hi").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(app.seen().iter().all(|(_, body)| body == "hi"));
        assert_eq!(app.seen().len(), 3);
    });
}

#[test]
fn retries_end_with_the_last_answer_and_leave_other_codes_alone() {
    on_worker(async {
        let app = backend(|n| (if n == 1 { 500 } else { 503 }, vec![])).await;
        let world =
            World::start(rule(vec![], Some(retry(&[503], 2))), &[("app", &app)], vec![]).await;
        assert!(world.send("GET /", "", "").await.starts_with("HTTP/1.1 500"));
        assert!(world.send("GET /", "", "").await.starts_with("HTTP/1.1 503"));
        assert_eq!(app.seen().len(), 1 + 3);
    });
}

#[test]
fn an_attempt_that_takes_too_long_is_retried_within_the_time_of_the_request() {
    on_worker(async {
        let app = backend(|n| (if n == 1 { HANG } else { 200 }, vec![])).await;
        let mut rule = rule(vec![], Some(retry(&[], 1)));
        rule.timeouts.backend_request = Some(Duration::from_millis(100));
        let world = World::start(rule, &[("app", &app)], vec![]).await;
        assert!(world.send("GET /", "", "").await.starts_with("HTTP/1.1 200"));
        assert_eq!(app.seen().len(), 2);
    });
}

fn policy(hostname: &str, roots: BackendRoots) -> BackendTls {
    BackendTls {
        policy: "n/p".into(),
        service: key("app"),
        port: None,
        hostname: hostname.into(),
        names: vec![],
        roots,
    }
}

#[test]
fn a_policy_speaks_tls_to_the_backend_and_a_changed_one_connects_anew() {
    on_worker(async {
        let (app, pem) = tls_backend("app.test").await;
        let good = policy("app.test", BackendRoots::Pem(pem.clone()));
        let world = World::start(rule(vec![], None), &[("app", &app)], vec![good]).await;
        for _ in 0..2 {
            let answer = world.send("GET /", "", "").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        world.publish(vec![policy("other.test", BackendRoots::Pem(pem))]);
        let answer = world.send("GET /", "", "").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "the old connection is not used: {answer}");
        let reason = "no such ConfigMap".to_owned();
        world.publish(vec![policy("app.test", BackendRoots::Invalid { reason })]);
        let answer = world.send("GET /", "", "").await;
        assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
        assert!(answer.contains("no such ConfigMap"), "{answer}");
        assert_eq!(app.seen().len(), 2);
        let _ = Arc::strong_count(&world.telemetry);
    });
}
