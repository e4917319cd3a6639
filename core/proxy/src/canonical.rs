//! The canonical request: one host and one path, which routing, policy, logging and
//! forwarding all use.
//!
//! Whatever two servers could read differently is either brought into one form here or
//! refused. HTTP/1.1 framing has been checked before ([`crate::guard`]); HTTP/2 framing is
//! checked by h2.
//!
//! Spec: RFC 9110 sections 4.2, 7.1, 7.2; RFC 9112 section 3.2; RFC 9113 section 8.3;
//! RFC 3986 sections 5.2.4 and 6.2.2.

use std::borrow::Cow;

use http::header::{COOKIE, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

/// Why a request cannot be made canonical.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotCanonical {
    /// `:authority` or the target's host differs from `Host`.
    #[error("host header and request target name different hosts")]
    AuthorityMismatch,
    /// The host has a character or form that a host cannot have.
    #[error("host is malformed")]
    Host,
    /// No host is given.
    #[error("host is missing")]
    HostMissing,
    /// The method is never forwarded.
    #[error("method is not allowed")]
    Method,
    /// The path has a coding that servers read differently.
    #[error("path has an ambiguous or broken coding")]
    Path,
    /// The target has a form that is not served.
    #[error("request target is not served")]
    Target,
}

impl NotCanonical {
    /// The answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::AuthorityMismatch
            | Self::Host
            | Self::HostMissing
            | Self::Path
            | Self::Target => StatusCode::BAD_REQUEST,
        }
    }
}

/// What a connection lets clients ask for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// `%2F` and `%5C` in a path are kept instead of refused.
    pub encoded_slashes: bool,
    /// CONNECT passes (the outbound side of a sidecar).
    pub connect: bool,
}

/// Host and port of a canonical request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Lower case, without port and trailing dot; an IPv6 address without brackets.
    pub host: String,
    /// The port, if one was given.
    pub port: Option<u16>,
}

/// Brings a request into its one form and returns its authority.
///
/// Afterwards the URI is the origin form (path and query) and there is exactly one
/// `Host`, equal to what the client asked for.
///
/// # Errors
///
/// [`NotCanonical`] says what two servers could read differently.
pub fn canonicalise(parts: &mut Parts, rules: Rules) -> Result<Authority, NotCanonical> {
    if parts.method == Method::TRACE || parts.method.as_str() == "TRACK" {
        return Err(NotCanonical::Method);
    }
    if parts.method == Method::CONNECT {
        return connect_authority(parts, rules);
    }
    let authority = {
        let target = target_authority(&parts.uri)?;
        let header = only_host(&parts.headers)?;
        match (target, header) {
            (Some(target), Some(header)) => {
                // RFC 9112 section 3.2.2 lets an absolute target replace Host, and RFC 9113
                // section 8.3.1 forbids that they differ: one rule for both.
                let target = parse_authority(target)?;
                if parse_authority(header)? != target {
                    return Err(NotCanonical::AuthorityMismatch);
                }
                target
            }
            (Some(text), None) | (None, Some(text)) => parse_authority(text)?,
            (None, None) => return Err(NotCanonical::HostMissing),
        }
    };
    join_cookies(&mut parts.headers);
    canonical_path(parts, rules)?;
    set_host(&mut parts.headers, &authority)?;
    Ok(authority)
}

fn connect_authority(parts: &Parts, rules: Rules) -> Result<Authority, NotCanonical> {
    if !rules.connect {
        return Err(NotCanonical::Method);
    }
    let target = parts.uri.authority().ok_or(NotCanonical::Target)?.as_str();
    let authority = parse_authority(target)?;
    if authority.port.is_none() { Err(NotCanonical::Target) } else { Ok(authority) }
}

fn target_authority(uri: &Uri) -> Result<Option<&str>, NotCanonical> {
    match uri.scheme_str() {
        None | Some("http" | "https") => Ok(uri.authority().map(http::uri::Authority::as_str)),
        Some(_) => Err(NotCanonical::Target),
    }
}

fn only_host(headers: &HeaderMap) -> Result<Option<&str>, NotCanonical> {
    let mut hosts = headers.get_all(HOST).iter();
    let first = hosts.next();
    if hosts.next().is_some() {
        return Err(NotCanonical::AuthorityMismatch);
    }
    first.map(|value| value.to_str().map_err(|_| NotCanonical::Host)).transpose()
}

/// Reads `host[:port]`.
///
/// # Errors
///
/// [`NotCanonical::Host`] when it is not a DNS name, an IPv4 or a bracketed IPv6 address,
/// or the port is not a number from 1 to 65535.
pub fn parse_authority(text: &str) -> Result<Authority, NotCanonical> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or(NotCanonical::Host)?;
        let address: std::net::Ipv6Addr = address.parse().map_err(|_| NotCanonical::Host)?;
        return Ok(Authority { host: address.to_string(), port: parse_port(rest)? });
    }
    let (host, port) = match text.find(':') {
        Some(at) => (&text[..at], parse_port(&text[at..])?),
        None => (text, None),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty()
        || host.len() > HOST_BYTES_MAX
        || !host.as_bytes().split(|b| *b == b'.').all(is_host_label)
    {
        return Err(NotCanonical::Host);
    }
    Ok(Authority { host: host.to_ascii_lowercase(), port })
}

fn parse_port(rest: &str) -> Result<Option<u16>, NotCanonical> {
    if rest.is_empty() {
        return Ok(None);
    }
    let digits = rest.strip_prefix(':').ok_or(NotCanonical::Host)?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    match digits.parse::<u16>() {
        Ok(port) if plain && port > 0 => Ok(Some(port)),
        Ok(_) | Err(_) => Err(NotCanonical::Host),
    }
}

/// Letters, digits, `-` and `_`, not at the ends for `-`; more is not a host.
fn is_host_label(label: &[u8]) -> bool {
    let good = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'_';
    !label.is_empty()
        && label.len() <= 63
        && label.iter().all(good)
        && !label.starts_with(b"-")
        && !label.ends_with(b"-")
}

/// Joins the crumbs that HTTP/2 clients split a cookie into.
///
/// Spec: RFC 9113 section 8.2.3.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(_), Some(_)) = (crumbs.next(), crumbs.next()) else { return };
    let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

fn set_host(headers: &mut HeaderMap, authority: &Authority) -> Result<(), NotCanonical> {
    if let Some(present) = headers.get(HOST)
        && is_canonical_host(present.as_bytes(), authority)
    {
        return Ok(());
    }
    let value = HeaderValue::from_str(&host_header(authority)).map_err(|_| NotCanonical::Host)?;
    headers.insert(HOST, value);
    Ok(())
}

/// The `Host` of an authority.
pub fn host_header(authority: &Authority) -> String {
    let host = if authority.host.contains(':') {
        format!("[{}]", authority.host)
    } else {
        authority.host.clone()
    };
    match authority.port {
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}

fn is_canonical_host(present: &[u8], authority: &Authority) -> bool {
    let host = authority.host.as_bytes();
    present.strip_prefix(host).is_some_and(|rest| match authority.port {
        None => rest.is_empty(),
        Some(_) => rest.first() == Some(&b':'),
    })
}

fn canonical_path(parts: &mut Parts, rules: Rules) -> Result<(), NotCanonical> {
    let path = parts.uri.path();
    if path == "*" && parts.method == Method::OPTIONS {
        return Ok(());
    }
    if !path.starts_with('/') {
        return Err(NotCanonical::Target);
    }
    let has_origin_form = parts.uri.authority().is_none() && parts.uri.scheme().is_none();
    let canonical = normalise(path, rules)?;
    if has_origin_form && matches!(canonical, Cow::Borrowed(_)) {
        return Ok(());
    }
    let text: Cow<'_, str> = match parts.uri.query() {
        Some(query) => format!("{canonical}?{query}").into(),
        None => canonical,
    };
    let path_and_query = PathAndQuery::try_from(text.as_bytes()).map_err(|_| NotCanonical::Path)?;
    parts.uri = Uri::from(path_and_query);
    Ok(())
}

/// Normalises a path: unreserved characters are decoded, other escapes upper-cased, dot
/// segments resolved, empty segments merged.
///
/// # Errors
///
/// [`NotCanonical::Path`] for broken escapes, escaped or plain control characters,
/// escaped slashes (unless allowed) and backslashes, non-ASCII bytes, and dot segments
/// that lead above the root.
pub fn normalise(path: &str, rules: Rules) -> Result<Cow<'_, str>, NotCanonical> {
    if is_plain(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path.as_bytes(), rules)?;
    let mut segments: Vec<&str> = Vec::new();
    let mut directory = false;
    for segment in decoded.split('/').skip(1) {
        directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop().ok_or(NotCanonical::Path)?;
            }
            _ => segments.push(segment),
        }
    }
    let mut out = String::with_capacity(decoded.len());
    for segment in &segments {
        out.push('/');
        out.push_str(segment);
    }
    if directory || out.is_empty() {
        out.push('/');
    }
    Ok(Cow::Owned(out))
}

/// Whether a path has nothing to normalise; one pass, which is all that most requests cost.
fn is_plain(path: &[u8]) -> bool {
    let mut previous = 0u8;
    for &byte in path {
        let special = match byte {
            b'%' | b'\\' | 0..=0x20 | 0x7f..=0xff => true,
            b'/' | b'.' => previous == b'/',
            _ => false,
        };
        if special {
            return false;
        }
        previous = byte;
    }
    true
}

fn decode(path: &[u8], rules: Rules) -> Result<String, NotCanonical> {
    let mut out = String::with_capacity(path.len());
    let mut bytes = path.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
                    return Err(NotCanonical::Path);
                };
                push_decoded(&mut out, u8::try_from(high * 16 + low).unwrap_or(0), rules)?;
            }
            b'\\' | 0..=0x20 | 0x7f..=0xff => return Err(NotCanonical::Path),
            _ => out.push(char::from(byte)),
        }
    }
    Ok(out)
}

fn push_decoded(out: &mut String, byte: u8, rules: Rules) -> Result<(), NotCanonical> {
    let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let slash = byte == b'/' || byte == b'\\';
    if byte < 0x20 || byte == 0x7f || (slash && !rules.encoded_slashes) {
        return Err(NotCanonical::Path);
    }
    // Overlong forms of '/' and '.' begin with these bytes, which UTF-8 never has.
    if matches!(byte, 0xc0 | 0xc1 | 0xf5..=0xff) {
        return Err(NotCanonical::Path);
    }
    if unreserved {
        out.push(char::from(byte));
    } else {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        out.push('%');
        out.push(char::from(HEX[usize::from(byte >> 4)]));
        out.push(char::from(HEX[usize::from(byte & 15)]));
    }
    Ok(())
}

const HOST_BYTES_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use http::{Request, Version};

    use super::*;

    fn path(text: &str) -> Result<String, NotCanonical> {
        normalise(text, Rules::default()).map(Cow::into_owned)
    }

    /// security.md P-01 to P-06.
    #[test]
    fn every_way_to_write_a_path_becomes_one_or_is_refused() {
        for (text, want) in [
            ("/public/../admin", "/admin"),
            ("/public/%2e%2e/admin", "/admin"),
            ("/%2E%2e/admin", ""),
            ("/public/.%2e/admin", "/admin"),
            ("/public/..;/admin", "/public/..;/admin"),
            ("/%252e%252e/admin", "/%252e%252e/admin"),
            ("//admin", "/admin"),
            ("/./admin", "/admin"),
            ("/admin//", "/admin/"),
            ("/admi%6e", "/admin"),
            ("/admin%20", "/admin%20"),
            ("/a%c3%a9", "/a%C3%A9"),
            ("/admin%2f", ""),
            ("/public%2f..%2fadmin", ""),
            ("/%5cadmin", ""),
            ("/\\admin", ""),
            ("/admin%00", ""),
            ("/admin%0a", ""),
            ("/%c0%ae%c0%ae/admin", ""),
            ("/%zz", ""),
            ("/%", ""),
            ("/%u002e", ""),
            ("/../admin", ""),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/..", ""),
            ("/a..b/c.", "/a..b/c."),
        ] {
            let want = (!want.is_empty()).then_some(want);
            assert_eq!(path(text).ok().as_deref(), want, "{text}");
        }
    }

    #[test]
    fn normalising_twice_changes_nothing() {
        for text in ["/a/%7e/./b//c/../d", "/%41%42", "/x;y/%20/..", "/"] {
            let once = path(text).unwrap();
            assert_eq!(path(&once).unwrap(), once);
        }
    }

    #[test]
    fn hosts_have_one_form() {
        let host = |text: &str| parse_authority(text).map(|a| (a.host, a.port)).ok();
        assert_eq!(host("A.TEST"), Some(("a.test".into(), None)));
        assert_eq!(host("a.test."), Some(("a.test".into(), None)));
        assert_eq!(host("a.test:8443"), Some(("a.test".into(), Some(8443))));
        assert_eq!(host("[::1]:80"), Some(("::1".into(), Some(80))));
        for bad in [
            "",
            "-",
            "a.test..",
            "a.test%00",
            "a test",
            "a.test:99999",
            "a.test:80x",
            "a.test:",
            "a.test, b.test",
            "a.test@b.test",
            "[::1",
            "a.test/..",
            "a.test%2eevil",
            "a..b",
            ":80",
            "u@a.test",
            "a.test:+80",
            "é.test",
        ] {
            assert_eq!(host(bad), None, "{bad}");
        }
    }

    #[expect(clippy::unwrap_in_result, reason = "a test's own request is well formed")]
    fn request(uri: &str, hosts: &[&str], version: Version) -> Result<String, NotCanonical> {
        let mut builder = Request::builder().uri(uri).version(version);
        for host in hosts {
            builder = builder.header(HOST, *host);
        }
        let mut parts = builder.body(()).unwrap().into_parts().0;
        let authority = canonicalise(&mut parts, Rules::default())?;
        let host = parts.headers.get(HOST).unwrap().to_str().unwrap();
        assert_eq!(host, host_header(&authority));
        Ok(format!("{host} {}", parts.uri))
    }

    #[test]
    fn target_and_host_must_agree() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        assert_eq!(request("/x?q", &["A.test."], one).unwrap(), "a.test /x?q");
        assert_eq!(request("http://a.test/x", &["a.test"], one).unwrap(), "a.test /x");
        assert_eq!(request("http://a.test/x", &[], two).unwrap(), "a.test /x");
        let mismatch = Err(NotCanonical::AuthorityMismatch);
        assert_eq!(request("http://b.test/x", &["a.test"], one), mismatch);
        assert_eq!(request("http://b.test/x", &["a.test"], two), mismatch);
        assert_eq!(request("http://a.test/x", &["a.test", "a.test"], two), mismatch);
        assert_eq!(request("/x", &[], one), Err(NotCanonical::HostMissing));
        assert_eq!(request("ftp://a.test/x", &["a.test"], one), Err(NotCanonical::Target));
    }

    #[test]
    fn trace_and_connect_are_not_forwarded() {
        for method in [Method::TRACE, Method::CONNECT, Method::from_bytes(b"TRACK").unwrap()] {
            let request = Request::builder().method(method).uri("a.test:80").body(()).unwrap();
            let mut parts = request.into_parts().0;
            let refused = canonicalise(&mut parts, Rules::default());
            assert_eq!(refused, Err(NotCanonical::Method));
        }
    }
}
