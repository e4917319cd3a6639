//! Requests that two servers could read differently.
//!
//! Every case goes through the real ingress to a backend that believes whatever it is
//! sent and remembers every byte. After every case another client must get the answer to
//! its own request, over the same pooled connection to the backend.

use crate::apps::BROKEN;
use crate::client::exchange;
use crate::world::{App, Cluster, Running, World};

/// What must come of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// One refusal; the connection ends; the backend sees nothing.
    Refused,
    /// The head is fine and the body is not: the backend may see the head; the connection
    /// ends and nothing after the fault is taken for a request.
    RefusedInBody,
    /// Either of the two, or exactly one request in canonical form.
    RefusedOrCanonical,
}

use Expect::{Refused, RefusedInBody, RefusedOrCanonical};

#[tokio::test(flavor = "multi_thread")]
async fn no_head_smuggles_a_request() {
    let world = World::of(recorder()).await;
    let mut cases = Vec::new();
    for (name, line) in LENGTHS {
        let head = format!("POST /public HTTP/1.1\r\nHost: a.test\r\n{line}\r\n\r\n");
        cases.push((format!("length: {name}"), format!("{head}{ADMIN}"), Refused));
    }
    for (name, line) in CODINGS {
        let head = format!("POST /public HTTP/1.1\r\nHost: a.test\r\n{line}\r\n\r\n");
        cases.push((format!("coding: {name}"), format!("{head}0\r\n\r\n{ADMIN}"), Refused));
    }
    for (name, line) in HEADERS {
        let head = format!("GET /public HTTP/1.1\r\nHost: a.test\r\n{line}\r\n\r\n");
        cases.push((format!("header: {name}"), head, Refused));
    }
    for (name, lines) in HOSTS {
        let head = format!("GET /public HTTP/1.1\r\n{lines}\r\n");
        cases.push((format!("host: {name}"), head, Refused));
    }
    for (name, line) in REQUEST_LINES {
        let head = format!("{line}\r\nHost: a.test\r\n\r\n");
        cases.push((format!("request line: {name}"), head, Refused));
    }
    for (name, bytes, expect) in OTHERS {
        cases.push(((*name).to_owned(), (*bytes).to_owned(), *expect));
    }
    check(world.only(), cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_chunked_body_smuggles_a_request() {
    let world = World::of(recorder()).await;
    let mut cases = Vec::new();
    for (name, body, expect) in CHUNKS {
        let head = "POST /public HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        cases.push((format!("chunks: {name}"), format!("{head}{body}"), *expect));
    }
    let long = ";a=a".repeat(16 * 1024);
    let head = "POST /public HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bytes = format!("{head}5{long}\r\nhello\r\n0\r\n\r\n");
    cases.push(("chunks: 64 KiB of extensions".into(), bytes, RefusedInBody));
    check(world.only(), cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let world = World::of(recorder()).await;
    let mut bytes = String::new();
    for number in 0..200 {
        bytes += &format!("GET /public/{number} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    }
    let answer = exchange(world.only().ingress(80), format!("{bytes}{PROBE}").as_bytes()).await;
    let targets: Vec<&str> = answer.text.split("target=").skip(1).collect();
    assert_eq!(targets.len(), 201);
    for (number, target) in targets[..200].iter().enumerate() {
        assert!(target.starts_with(&format!("/public/{number}HTTP")), "{number}: {target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_after_an_upgrade_that_was_not_granted_are_no_request_of_the_backend() {
    let world = World::of(recorder()).await;
    let cluster = world.only();
    for upgrade in ["websocket", "h2c", "x"] {
        let bytes = format!(
            "GET /public HTTP/1.1\r\nHost: a.test\r\nUpgrade: {upgrade}\r\n\
             Connection: Upgrade\r\n\r\nGET /admin HTTP/1.1\r\nHost: evil.test\r\n\r\n"
        );
        exchange(cluster.ingress(80), bytes.as_bytes()).await;
        assert!(!recorded(cluster).contains("/admin"), "{upgrade}");
        victim(cluster, upgrade).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_answer_of_the_backend_is_nobody_elses_answer() {
    let world = World::of(recorder()).await;
    let cluster = world.only();
    for (name, _) in BROKEN {
        let call = cluster.get(&format!("/public/{name}")).host("a.test");
        let answer = call.try_send().await;
        // What can be understood may be passed on, what cannot is a bad gateway; a body
        // that breaks off is an error of the client's connection.
        if let Ok(answer) = answer {
            assert!(matches!(answer.status, 200 | 204 | 502), "{name}: {answer:?}");
            assert!(!answer.text().contains("poison"), "{name}: {answer:?}");
        }
        victim(cluster, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_request_has_one_host() {
    let world = World::of(recorder()).await;
    let call = world.only().get("/public").host("a.test").http2();
    assert_eq!(call.clone().header("host", "a.test").send().await.status, 200);
    assert_eq!(call.header("host", "b.test").send().await.status, 400);
}

async fn check(cluster: &Running, cases: Vec<(String, String, Expect)>) {
    let mut wrong = Vec::new();
    for (name, bytes, expect) in cases {
        let before = requests(cluster);
        let answer = exchange(cluster.ingress(80), format!("{bytes}{PROBE}").as_bytes()).await;
        let statuses = answer.statuses();
        let seen = requests(cluster) - before;
        let refused = matches!(statuses.as_slice(), [400..=499 | 501 | 505]) && answer.closed;
        // The probe is a request of its own only where the case before it was one.
        let canonical = statuses == [200, 200] && seen == 2;
        let cut = matches!(statuses.as_slice(), [] | [400..=499 | 501]) && answer.closed;
        let good = match expect {
            Refused => refused && seen == 0,
            RefusedInBody => cut && seen <= 1,
            RefusedOrCanonical => (cut && seen <= 1) || canonical,
        };
        if !good || recorded(cluster).contains("/admin") {
            wrong.push(format!(
                "{name}: expected {expect:?}, got {statuses:?}, closed {}, {seen} requests at \
                 the backend",
                answer.closed
            ));
        }
        victim(cluster, &name).await;
    }
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Another client gets the answer to its own request.
async fn victim(cluster: &Running, after: &str) {
    for number in 0..3 {
        let path = format!("/victim/{number}");
        let answer = cluster.get(&path).host("a.test").send().await;
        assert_eq!(answer.text(), format!("target={path}"), "after {after}");
    }
}

/// How many requests of attackers the backend has seen.
fn requests(cluster: &Running) -> usize {
    let text = recorded(cluster);
    text.matches(" /public").count() + text.matches(" /probe").count()
}

fn recorded(cluster: &Running) -> String {
    let all = cluster.app("rec").received().concat();
    String::from_utf8_lossy(&all).into_owned()
}

fn recorder() -> Cluster {
    let rules = "
        - {matches: [{path: {value: /public}}], backendRefs: [{name: rec, port: 80}]}
        - {matches: [{path: {value: /victim}}], backendRefs: [{name: rec, port: 80}]}
        - {matches: [{path: {value: /probe}}], backendRefs: [{name: rec, port: 80}]}";
    let cluster = Cluster::named("east").gateway().app(App::recorder("rec"));
    cluster.route("rec", "a.test", rules)
}

/// Follows every case on the same connection, and ends it.
const PROBE: &str = "GET /probe HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
/// What an attacker wants the backend to take for a request.
const ADMIN: &str = "GET /admin HTTP/1.1\r\nHost: a.test\r\n\r\n";

const LENGTHS: &[(&str, &str)] = &[
    ("CL.TE", "Content-Length: 6\r\nTransfer-Encoding: chunked"),
    ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 4"),
    ("plus", "Content-Length: +5"),
    ("minus zero", "Content-Length: -0"),
    ("hex", "Content-Length: 0x5"),
    ("underscore", "Content-Length: 5_0"),
    ("list of equal values", "Content-Length: 5,5"),
    ("list of different values", "Content-Length: 5, 6"),
    ("exponent", "Content-Length: 1e1"),
    ("empty", "Content-Length:"),
    ("blank", "Content-Length:  "),
    ("2^64", "Content-Length: 18446744073709551616"),
    ("NUL", "Content-Length: 5\0"),
    ("form feed", "Content-Length: \x0c5"),
    ("twice the same", "Content-Length: 5\r\nContent-Length: 5"),
    ("twice different", "Content-Length: 5\r\nContent-Length: 6"),
    ("name with a control byte", "Content-Length\u{85}: 5"),
];

const CODINGS: &[(&str, &str)] = &[
    ("xchunked", "Transfer-Encoding: xchunked"),
    ("vertical tab after", "Transfer-Encoding: chunked\x0b"),
    ("vertical tab before", "Transfer-Encoding: \x0bchunked"),
    ("quoted", "Transfer-Encoding: \"chunked\""),
    ("parameter", "Transfer-Encoding: chunked;a=b"),
    ("NUL", "Transfer-Encoding: chunked\0"),
    ("space before the colon", "Transfer-Encoding : chunked"),
    ("space before the name", " Transfer-Encoding: chunked"),
    ("folded", "Transfer-Encoding:\r\n chunked"),
    ("gzip, chunked", "Transfer-Encoding: gzip, chunked"),
    ("chunked twice in a list", "Transfer-Encoding: chunked, chunked"),
    ("empty first element", "Transfer-Encoding: , chunked"),
    ("empty last element", "Transfer-Encoding: chunked,"),
    ("identity, chunked", "Transfer-Encoding: identity, chunked"),
    ("two lines", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"),
    ("two equal lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
];

const HEADERS: &[(&str, &str)] = &[
    ("empty name", ": x"),
    ("space in the name", "X y: 1"),
    ("control byte in the name", "X\u{85}: 1"),
    ("no colon", "X"),
    ("bare CR in a value", "X: a\rHost: b.test"),
    ("NUL in a value", "X: a\0b"),
    ("bare LF in a value", "X: a\nY: b"),
    ("expectation", "Expect: x"),
];

const HOSTS: &[(&str, &str)] = &[
    ("none", ""),
    ("twice the same", "Host: a.test\r\nHost: a.test\r\n"),
    ("two", "Host: a.test\r\nHost: b.test\r\n"),
    ("list", "Host: a.test, b.test\r\n"),
    ("user", "Host: a.test@b.test\r\n"),
    ("large port", "Host: a.test:99999\r\n"),
    ("port with a letter", "Host: a.test:80x\r\n"),
    ("space", "Host: a test\r\n"),
    ("open bracket", "Host: [::1\r\n"),
    ("empty", "Host: \r\n"),
    ("path", "Host: a.test/..\r\n"),
    ("escape", "Host: a.test%2eevil\r\n"),
    ("first line is folded", " Host: a.test\r\nHost: a.test\r\n"),
];

const REQUEST_LINES: &[(&str, &str)] = &[
    ("two spaces", "GET  /public HTTP/1.1"),
    ("tab", "GET /public\tHTTP/1.1"),
    ("word after the version", "GET /public HTTP/1.1 x"),
    ("HTTP/1.10", "GET /public HTTP/1.10"),
    ("HTTP/1.32", "GET /public HTTP/1.32"),
    ("HTTP/2.0", "GET /public HTTP/2.0"),
    ("letter in the method", "G\u{e9}T /public HTTP/1.1"),
    ("bare CR", "GET /public\rb HTTP/1.1"),
    ("other host", "GET http://b.test/public HTTP/1.1"),
    ("star", "GET * HTTP/1.1"),
    ("no slash", "GET public HTTP/1.1"),
    ("ftp", "GET ftp://a.test/public HTTP/1.1"),
    ("fragment", "GET /public#/../admin HTTP/1.1"),
    ("space in the path", "GET /public b HTTP/1.1"),
    ("CONNECT to an address", "CONNECT 169.254.169.254:80 HTTP/1.1"),
    ("CONNECT to the host", "CONNECT a.test:443 HTTP/1.1"),
    ("TRACE", "TRACE /public HTTP/1.1"),
    ("TRACK", "TRACK /public HTTP/1.1"),
];

const OTHERS: &[(&str, &str, Expect)] = &[
    ("bare LF", "GET /public HTTP/1.1\nHost: a.test\n\n", Refused),
    ("one bare LF", "GET /public HTTP/1.1\r\nHost: a.test\n\r\n", Refused),
    ("HTTP/0.9", "GET /public\r\n", Refused),
    (
        "coding in HTTP/1.0",
        "POST /public HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "length with a zero in front",
        "POST /public HTTP/1.1\r\nHost: a.test\r\nContent-Length: 05\r\n\r\nhello",
        RefusedOrCanonical,
    ),
    (
        "coding in capitals",
        "POST /public HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunKed\r\n\r\n0\r\n\r\n",
        RefusedOrCanonical,
    ),
    (
        "underscore for the dash",
        "POST /public HTTP/1.1\r\nHost: a.test\r\nTransfer_Encoding: chunked\r\n\
         Content-Length: 5\r\n\r\nhello",
        RefusedOrCanonical,
    ),
];

const CHUNKS: &[(&str, &str, Expect)] = &[
    ("hex prefix", "0x5\r\nhello\r\n0\r\n\r\n", RefusedInBody),
    ("plus", "+5\r\nhello\r\n0\r\n\r\n", RefusedInBody),
    ("minus", "-5\r\nhello\r\n0\r\n\r\n", RefusedInBody),
    ("underscore", "5_\r\nhello\r\n0\r\n\r\n", RefusedInBody),
    ("space before", " 5\r\nhello\r\n0\r\n\r\n", RefusedInBody),
    ("space after", "5 \r\nhello\r\n0\r\n\r\n", RefusedOrCanonical),
    ("empty extension", "5;\r\nhello\r\n0\r\n\r\n", RefusedOrCanonical),
    ("2^64 - 1", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n", RefusedInBody),
    ("2^64 - 2", "fffffffffffffffe\r\nhello\r\n0\r\n\r\n", RefusedInBody),
    ("2^64", "10000000000000000\r\nhello\r\n0\r\n\r\n", RefusedInBody),
    ("empty size", "\r\nhello\r\n0\r\n\r\n", RefusedInBody),
    ("CR in an extension", "5;a=b\rX\r\nhello\r\n0\r\n\r\n", RefusedInBody),
    ("LF after the size", "5;\nhello\r\n0\r\n\r\n", RefusedInBody),
    ("two CR", "2\r\r;a\r\n02\r\n2d\r\n0\r\n\r\n", RefusedInBody),
    ("data longer than its size", "3\r\nhello\r\n0\r\n\r\n", RefusedInBody),
    ("data shorter than its size", "8\r\nhello\r\n0\r\n\r\n", RefusedInBody),
    ("letters for the line end", "5\r\nhelloXX0\r\n\r\n", RefusedInBody),
    ("last chunk with LF first", "5\r\nhello\r\n0\n\r\n", RefusedInBody),
    ("last line with LF", "5\r\nhello\r\n0\r\n\n", RefusedInBody),
    (
        "trailer that looks like a request",
        "0\r\nX:GET /hidden HTTP/1.1\r\n\r\n",
        RefusedOrCanonical,
    ),
    ("forbidden trailer", "0\r\nContent-Length: 50\r\n\r\n", RefusedOrCanonical),
    ("trailer without a colon", "0\r\nGET /hidden HTTP/1.1\r\n\r\n", RefusedInBody),
];
