//! The rows of RFC 9112 that decide where a message ends, as bytes.

use super::*;

const GOOD: &str = "GET /public HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// Runs the bytes through a guard, whole and in single bytes: both must agree.
fn refusal(bytes: &[u8]) -> Option<Refusal> {
    let mut whole = Guard::new();
    let mut data = bytes.to_vec();
    whole.inspect(&mut data);
    let mut single = Guard::new();
    for byte in bytes {
        single.inspect(&mut [*byte]);
    }
    assert_eq!(whole.refusal(), single.refusal(), "{}", bytes.escape_ascii());
    whole.refusal()
}

fn accepts(text: &str) {
    let twice = format!("{text}{GOOD}");
    assert_eq!(refusal(twice.as_bytes()), None, "{twice:?}");
}

fn refuses(text: impl AsRef<[u8]>, want: Refusal) {
    assert_eq!(refusal(text.as_ref()), Some(want), "{}", text.as_ref().escape_ascii());
}

fn post(headers: &str, body: &str) -> String {
    format!("POST /public HTTP/1.1\r\nHost: a.test\r\n{headers}\r\n\r\n{body}")
}

#[test]
fn ordinary_messages_pass() {
    accepts(GOOD);
    accepts(&post("Content-Length: 5", "hello"));
    accepts(&post("content-length:5", "hello"));
    accepts(&post("Transfer-Encoding: chunKed", "5\r\nhello\r\n0\r\n\r\n"));
    accepts(&post("Transfer-Encoding: chunked", "5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n"));
    accepts("GET / HTTP/1.0\r\n\r\n");
    accepts(&format!("\r\n{GOOD}"));
}

#[test]
fn length_beside_coding_is_refused() {
    let both = "Content-Length: 6\r\nTransfer-Encoding: chunked";
    refuses(post(both, "0\r\n\r\nG"), Refusal::LengthAndCoding);
    let both = "Transfer-Encoding: chunked\r\nContent-Length: 4";
    refuses(post(both, "5c\r\n"), Refusal::LengthAndCoding);
}

#[test]
fn only_the_exact_coding_chunked_passes() {
    for value in [
        "xchunked",
        "chunked\u{b}",
        "\u{b}chunked",
        "\"chunked\"",
        "chunked;a=b",
        "gzip, chunked",
        "chunked, chunked",
        ", chunked",
        "chunked,",
        "identity, chunked",
        "identity",
        "",
    ] {
        let head = post(&format!("Transfer-Encoding: {value}"), "0\r\n\r\n");
        assert!(refusal(head.as_bytes()).is_some(), "{value:?}");
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked";
    refuses(post(twice, "0\r\n\r\n"), Refusal::TransferEncoding);
    refuses(post("Transfer-Encoding : chunked", ""), Refusal::HeaderName);
    refuses(post(" Transfer-Encoding: chunked", ""), Refusal::ObsoleteFold);
    refuses(post("Transfer-Encoding:\r\n chunked", ""), Refusal::TransferEncoding);
    let old = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    refuses(old, Refusal::TransferEncoding);
}

#[test]
fn only_one_plain_length_passes() {
    for value in
        ["+5", "-0", "0x5", "5_0", "5,5", "5, 6", "1e1", "", " ", "18446744073709551616", "5 5"]
    {
        refuses(post(&format!("Content-Length: {value}"), "hello"), Refusal::ContentLength);
    }
    let twice = "Content-Length: 5\r\nContent-Length: 5";
    refuses(post(twice, "hello"), Refusal::ContentLength);
    refuses(post("Content-Length: 5\0", "hello"), Refusal::HeaderValue);
}

#[test]
fn chunk_sizes_are_plain_hexadecimal() {
    for size in
        ["0x5", "+5", "-5", "5_", " 5", "5 ", "ffffffffffffffff", "10000000000000000", "", "g"]
    {
        let body = format!("{size}\r\nhello\r\n0\r\n\r\n");
        refuses(post("Transfer-Encoding: chunked", &body), Refusal::ChunkSize);
    }
    let coding = "Transfer-Encoding: chunked";
    refuses(post(coding, "5\r\nhelloX\r\n"), Refusal::ChunkEnd);
    refuses(post(coding, "5\r\nhell\r\n0\r\n"), Refusal::ChunkEnd);
    refuses(post(coding, "5;\nhello"), Refusal::BareLineFeed);
    refuses(post(coding, "2\r\r;a\r\nab"), Refusal::ChunkSize);
    refuses(post(coding, "5;a=b\rX\r\nhello"), Refusal::ChunkExtension);
    let long = format!("5{}\r\n", ";a=a".repeat(16 * 1024));
    assert!(refusal(post(coding, &long).as_bytes()).is_some());
    let many = "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n".repeat(100);
    refuses(post(coding, &many), Refusal::ChunkExtension);
    let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    refuses(post(coding, &trailers), Refusal::Trailers);
}

#[test]
fn line_ends_names_and_request_lines_are_strict() {
    refuses("GET / HTTP/1.1\nHost: a\n\n", Refusal::BareLineFeed);
    refuses("GET / HTTP/1.1\r\nHost: a\n\r\n", Refusal::BareLineFeed);
    refuses("GET / HTTP/1.1\r\nHost: a\r\nX: a\rHost: b\r\n\r\n", Refusal::HeaderValue);
    refuses("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", Refusal::HeaderValue);
    for name in [": x", "X y: 1", "X", "X\u{85}: 1", "X : 1"] {
        refuses(post(name, ""), Refusal::HeaderName);
    }
    for line in [
        "GET  /",
        "GET /\tHTTP/1.1",
        "GET / HTTP/1.1 x",
        "GET / HTTP/1.10",
        "GET / HTTP/1.32",
        "GET / HTTP/2.0",
        "PRI * HTTP/2.0",
        "GÉT / HTTP/1.1",
        "GET /",
        "GET /a b HTTP/1.1",
        "GET /x#y HTTP/1.1",
        "GET /a\rb HTTP/1.1",
        "\r\r\nGET / HTTP/1.1",
    ] {
        let message = format!("{line}\r\nHost: a\r\n\r\n");
        assert!(refusal(message.as_bytes()).is_some(), "{line:?}");
    }
    refuses(format!("\r\n\r\n{GOOD}"), Refusal::RequestLine);
}

#[test]
fn host_is_given_exactly_once() {
    refuses("GET / HTTP/1.1\r\n\r\n", Refusal::Host);
    refuses("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Refusal::Host);
    refuses("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Refusal::Host);
}

#[test]
fn everything_from_the_offending_line_on_is_overwritten() {
    let good = GOOD.len();
    let mut data = format!("{GOOD}GET / HTTP/1.1\nHost: a\r\n\r\n{GOOD}").into_bytes();
    let mut guard = Guard::new();
    guard.inspect(&mut data);
    assert_eq!(&data[..good], GOOD.as_bytes());
    assert!(data[good..].iter().all(|byte| *byte == 0));
    let mut later = GOOD.as_bytes().to_vec();
    guard.inspect(&mut later);
    assert!(later.iter().all(|byte| *byte == 0));
}

#[test]
fn bytes_after_an_upgrade_request_are_not_http() {
    let upgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n\u{0}\u{1}raw";
    assert_eq!(refusal(upgrade.as_bytes()), None);
}

#[test]
fn the_phase_follows_the_message() {
    let mut guard = Guard::new();
    assert_eq!(guard.phase(), Phase::Idle);
    guard.inspect(&mut b"GE".to_vec());
    assert_eq!(guard.phase(), Phase::Head);
    guard.inspect(&mut b"T / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na".to_vec());
    assert_eq!(guard.phase(), Phase::Body);
    guard.inspect(&mut b"bc".to_vec());
    assert_eq!(guard.phase(), Phase::Idle);
}
