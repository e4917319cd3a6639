//! Headers by rule: what belongs to one connection, what a client may not say, and what
//! the proxy says instead.
//!
//! One pass over the headers finds what is present; nothing is looked up by name that is
//! not there, since most requests have none of these.
//!
//! Spec: RFC 9110 section 7.6.1 (Connection), RFC 9113 section 8.2.2.

use std::net::IpAddr;

use http::header::{
    CONNECTION, FORWARDED, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue};

/// How far `X-Forwarded-*` and `Forwarded` of a client are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardedTrust {
    /// They are replaced: the edge, where anybody may write anything.
    #[default]
    Replace,
    /// They are kept and the client's address is appended: behind a trusted proxy.
    Append,
    /// They are left alone: inside the mesh.
    Keep,
}

/// A protocol change that the client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpgradeRequest {
    /// None.
    None,
    /// One that is not passed on (h2c); the request is answered as if it had not asked.
    Other,
    /// WebSocket.
    WebSocket,
}

/// Removes what belongs to the client's connection and what it may not say.
///
/// Headers that the client names in `Connection` go too, but never those that framing,
/// routing or this proxy need. Names with an underscore go: CGI-style servers read them
/// as the name with a dash.
pub fn strip_request(headers: &mut HeaderMap, trust: ForwardedTrust) -> UpgradeRequest {
    let mut found = Found::default();
    for name in headers.keys() {
        found.note(name);
    }
    if found.is_empty() {
        return UpgradeRequest::None;
    }
    let upgrade = upgrade_request(headers, &found);
    if found.connection {
        remove_nominated(headers);
    }
    if found.hop {
        let trailers_wanted = headers.get(TE).is_some_and(|te| te.as_bytes() == b"trailers");
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
        if trailers_wanted {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    if found.forwarded && trust == ForwardedTrust::Replace {
        for name in &FORWARDED_NAMES {
            headers.remove(name);
        }
    }
    if found.underscore {
        let bad: Vec<HeaderName> =
            headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
        for name in bad {
            headers.remove(name);
        }
    }
    upgrade
}

/// Removes what belongs to the upstream's connection.
pub fn strip_response(headers: &mut HeaderMap) {
    let mut found = Found::default();
    for name in headers.keys() {
        found.note(name);
    }
    if found.connection {
        remove_nominated(headers);
    }
    if found.hop {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
}

/// Removes what may not come after a body: framing, routing and connection headers.
///
/// Spec: RFC 9110 section 6.5.1.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    strip_response(trailers);
    for name in FORWARDED_NAMES.iter().chain(&PROTECTED) {
        trailers.remove(name);
    }
}

/// What the client is, for the headers that the proxy writes.
#[derive(Debug, Clone)]
pub struct ClientInfo {
    /// The client's address, as this proxy saw it.
    pub address: IpAddr,
    /// The address as a header value, made once for each connection.
    pub address_value: HeaderValue,
    /// Whether the client's connection is TLS.
    pub tls: bool,
}

impl ClientInfo {
    /// Describes the client of one connection.
    pub fn new(address: IpAddr, tls: bool) -> Self {
        let text = address.to_canonical().to_string();
        let address_value =
            HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self { address, address_value, tls }
    }
}

/// Writes `X-Forwarded-For`, `-Proto` and `-Host`.
pub fn set_forwarded(
    headers: &mut HeaderMap,
    client: &ClientInfo,
    host: Option<&HeaderValue>,
    trust: ForwardedTrust,
) {
    let scheme = if client.tls { "https" } else { "http" };
    match trust {
        ForwardedTrust::Keep => {}
        ForwardedTrust::Replace => {
            headers.insert(X_FORWARDED_FOR, client.address_value.clone());
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
            if let Some(host) = host {
                headers.insert(X_FORWARDED_HOST, host.clone());
            }
        }
        ForwardedTrust::Append => {
            // Every line counts: proxies add lines as well as list items.
            let lines = headers.get_all(X_FORWARDED_FOR).iter().chain([&client.address_value]);
            let lines: Vec<&[u8]> = lines.map(HeaderValue::as_bytes).collect();
            let joined = HeaderValue::from_bytes(&lines.join(&b", "[..]));
            let value = joined.unwrap_or_else(|_| client.address_value.clone());
            headers.insert(X_FORWARDED_FOR, value);
            if !headers.contains_key(X_FORWARDED_PROTO) {
                headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
            }
            if let Some(host) = host.filter(|_| !headers.contains_key(X_FORWARDED_HOST)) {
                headers.insert(X_FORWARDED_HOST, host.clone());
            }
        }
    }
}

/// Which of the special headers are present.
#[derive(Debug, Default)]
struct Found {
    connection: bool,
    hop: bool,
    forwarded: bool,
    underscore: bool,
}

impl Found {
    fn is_empty(&self) -> bool {
        !(self.connection || self.hop || self.forwarded || self.underscore)
    }

    fn note(&mut self, name: &HeaderName) {
        let text = name.as_str();
        match text.as_bytes().first() {
            Some(b'c') if text == "connection" => self.connection = true,
            Some(b'f') if text == "forwarded" => self.forwarded = true,
            Some(b'x') if text.starts_with("x-forwarded-") || text == "x-real-ip" => {
                self.forwarded = true;
            }
            Some(b'k' | b'p' | b't' | b'u' | b'h') if is_hop(name) => self.hop = true,
            Some(_) | None => {}
        }
        self.underscore |= memchr::memchr(b'_', text.as_bytes()).is_some();
    }
}

fn is_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
}

fn upgrade_request(headers: &HeaderMap, found: &Found) -> UpgradeRequest {
    let named = |value: &HeaderValue, want: &str| {
        let text = value.to_str().unwrap_or("");
        text.split(',').any(|part| part.trim().eq_ignore_ascii_case(want))
    };
    let wanted = found.hop
        && found.connection
        && headers.get_all(CONNECTION).iter().any(|value| named(value, "upgrade"));
    let mut protocols = headers.get_all(UPGRADE).iter();
    let websocket = protocols.next().is_some_and(|value| named(value, "websocket"));
    if !found.hop || !headers.contains_key(UPGRADE) {
        UpgradeRequest::None
    } else if wanted && websocket && protocols.next().is_none() {
        UpgradeRequest::WebSocket
    } else {
        UpgradeRequest::Other
    }
}

/// Removes the headers that `Connection` names.
fn remove_nominated(headers: &mut HeaderMap) {
    let names_nothing = |value: &HeaderValue| {
        let value = value.as_bytes();
        value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
    };
    if headers.get_all(CONNECTION).iter().all(names_nothing) {
        // What nearly every server sends; `Keep-Alive` goes with the hop-by-hop headers.
        headers.remove(CONNECTION);
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| !PROTECTED.contains(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
}

/// `X-Forwarded-For`.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `X-Forwarded-Proto`.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `X-Forwarded-Host`.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Headers of one connection only.
static HOP_BY_HOP: [HeaderName; 9] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What a client says of those before it.
static FORWARDED_NAMES: [HeaderName; 7] = [
    FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-client-cert"),
    HeaderName::from_static("x-real-ip"),
];

/// Headers that `Connection` cannot remove, because something depends on them.
static PROTECTED: [HeaderName; 6] = [
    http::header::HOST,
    http::header::CONTENT_LENGTH,
    http::header::AUTHORIZATION,
    http::header::COOKIE,
    http::header::CACHE_CONTROL,
    http::header::CONTENT_TYPE,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        headers
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn hop_by_hop_headers_and_those_named_in_connection_go() {
        let mut headers = map(&[
            ("connection", "close, x-secret, authorization, host"),
            ("keep-alive", "5"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAA"),
            ("x-secret", "1"),
            ("authorization", "Bearer t"),
            ("host", "a"),
            ("x_forwarded_for", "1.2.3.4"),
            ("accept", "*/*"),
        ]);
        assert_eq!(strip_request(&mut headers, ForwardedTrust::Replace), UpgradeRequest::Other);
        assert_eq!(names(&headers), ["accept", "authorization", "host"]);
    }

    #[test]
    fn te_trailers_stays_for_grpc() {
        let mut headers = map(&[("te", "trailers")]);
        strip_request(&mut headers, ForwardedTrust::Replace);
        assert_eq!(names(&headers), ["te"]);
    }

    #[test]
    fn a_websocket_needs_both_headers() {
        let check = |headers: &[(&'static str, &'static str)], want| {
            let mut headers = map(headers);
            assert_eq!(strip_request(&mut headers, ForwardedTrust::Replace), want);
            assert!(!headers.contains_key(UPGRADE) && !headers.contains_key(CONNECTION));
        };
        let (upgrade, connection) =
            (("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade"));
        check(&[upgrade, connection], UpgradeRequest::WebSocket);
        check(&[upgrade], UpgradeRequest::Other);
        check(&[connection], UpgradeRequest::None);
        check(&[("upgrade", "h2c"), connection], UpgradeRequest::Other);
    }

    #[test]
    fn a_client_cannot_forge_where_it_comes_from() {
        let forged = [
            ("x-forwarded-for", "127.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
        ];
        let client = ClientInfo::new("192.0.2.7".parse().unwrap(), true);
        let host = HeaderValue::from_static("a.test");
        let mut headers = map(&forged);
        strip_request(&mut headers, ForwardedTrust::Replace);
        set_forwarded(&mut headers, &client, Some(&host), ForwardedTrust::Replace);
        assert_eq!(names(&headers), ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]);
        assert_eq!(headers[X_FORWARDED_FOR], "192.0.2.7");
        assert_eq!(headers[X_FORWARDED_PROTO], "https");

        let mut headers = map(&forged);
        strip_request(&mut headers, ForwardedTrust::Append);
        set_forwarded(&mut headers, &client, Some(&host), ForwardedTrust::Append);
        assert_eq!(headers[X_FORWARDED_FOR], "127.0.0.1, 192.0.2.7");
    }
}
