//! Applications that work on bytes.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Shared;

/// Sends every byte back.
pub(super) async fn echo(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let connection = shared.begin();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return stream.shutdown().await;
        }
        shared.note(connection, &buffer[..count]);
        stream.write_all(&buffer[..count]).await?;
    }
}

/// Answers every HTTP/1.1 request with its target, and remembers every byte; one for
/// [`HANG_UP`] ends the connection.
///
/// It believes whatever it is sent, as a naive server does: a request that is smuggled
/// past the proxy is answered like any other.
pub(super) async fn record(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let connection = shared.begin();
    let mut pending = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        while let Some((used, target)) = request(&pending) {
            pending.drain(..used);
            if target.ends_with(HANG_UP) {
                return Ok(());
            }
            if let Some((_, answer)) = BROKEN.iter().find(|(name, _)| target.ends_with(name)) {
                stream.write_all(answer.as_bytes()).await?;
                continue;
            }
            let body = format!("target={target}");
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await?;
        }
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        shared.note(connection, &buffer[..count]);
        pending.extend_from_slice(&buffer[..count]);
    }
}

/// Answers `101` to a request for another protocol and then sends every byte back.
pub(super) async fn upgrade(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let connection = shared.begin();
    let mut head = Vec::new();
    while position(&head, b"\r\n\r\n").is_none() {
        let count = stream.read_buf(&mut head).await?;
        if count == 0 {
            return Ok(());
        }
    }
    shared.note(connection, &head);
    if position(&head.to_ascii_lowercase(), b"upgrade: websocket").is_none() {
        stream.write_all(b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n").await?;
        return Ok(());
    }
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
        connection: upgrade\r\n\r\n";
    stream.write_all(answer).await?;
    echo(stream, shared).await
}

/// The length of the first whole request and its target.
fn request(bytes: &[u8]) -> Option<(usize, String)> {
    let head = position(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let target = text.split(' ').nth(1).unwrap_or_default().to_owned();
    let header = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim().to_owned())
    };
    let used = if header("transfer-encoding").is_some() {
        head + chunked(&bytes[head..])?
    } else {
        head + header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    (bytes.len() >= used).then_some((used, target))
}

/// The length of a whole chunked body.
fn chunked(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = position(&bytes[at..], b"\r\n")?;
        let size = String::from_utf8_lossy(&bytes[at..at + line]).into_owned();
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        at += line + 2;
        if size == 0 {
            // Trailers, then an empty line.
            loop {
                let line = position(&bytes[at..], b"\r\n")?;
                at += line + 2;
                if line == 0 {
                    return Some(at);
                }
            }
        }
        at += size + 2;
        bytes.get(at..)?;
    }
}

/// Where a pattern begins.
pub(crate) fn position(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

/// The target of a request that is not answered.
pub(crate) const HANG_UP: &str = "/hang-up";

/// Answers that no server should give, by the last part of the target.
pub(crate) const BROKEN: &[(&str, &str)] = &[
    (
        "length-and-coding",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    ),
    (
        "two-lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 60\r\n\r\nok\
         HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    ),
    (
        "more-than-its-length",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\
         Content-Length: 6\r\n\r\npoison",
    ),
    (
        "body-after-204",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    ),
    ("bad-length", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok"),
    ("folded", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length : 2\r\n\r\nok"),
    ("no-http", "SSH-2.0-OpenSSH_9.6\r\n\r\n"),
];

const BUFFER_BYTES: usize = 16 * 1024;
