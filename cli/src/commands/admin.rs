//! A small client of the admin endpoint: HTTP/1.1 on loopback, one request a connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::settings::Settings;

/// Asks the running cluster.
pub(crate) fn get(settings: &Settings, path: &str) -> anyhow::Result<Value> {
    request(settings, "GET", path)
}

/// Tells the running cluster to do something.
pub(crate) fn post(settings: &Settings, path: &str) -> anyhow::Result<Value> {
    request(settings, "POST", path)
}

fn request(settings: &Settings, method: &str, path: &str) -> anyhow::Result<Value> {
    let address = settings.telemetry.admin;
    let text = exchange(address, method, path).with_context(|| {
        let cluster = &settings.cluster;
        format!("cluster {cluster} does not answer at its admin address {address}; is it running?")
    })?;
    let (head, body) = text.split_once("\r\n\r\n").context("the answer is cut short")?;
    let status = head.split(' ').nth(1).unwrap_or("");
    if status != "200" {
        let reason = serde_json::from_str::<Value>(body)
            .ok()
            .and_then(|value| Some(value.get("error")?.as_str()?.to_owned()))
            .unwrap_or_else(|| body.trim().to_owned());
        bail!("{reason} (status {status})");
    }
    serde_json::from_str(body).context("the answer is not JSON")
}

fn exchange(address: SocketAddr, method: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nx-isthmus-admin: 1\r\n\
         content-length: 0\r\nconnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Writes a query parameter so that it survives a URL.
pub(crate) fn escape(value: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    value
        .bytes()
        .map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

const TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;
