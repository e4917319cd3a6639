//! The filters of a rule: header changes, rewrites and redirects.
//!
//! Spec: Gateway API HTTPRouteFilter.

use http::header::{HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, StatusCode, Uri};
use isthmus_model::route::{Filter, HeaderChange, PathChange, Redirect, Rewrite};

/// Applies the request filters of a rule or backend, in order.
///
/// `prefix_bytes` is what the rule's prefix match covered of the path.
pub fn apply_request(filters: &[Filter], headers: &mut HeaderMap, uri: &mut Uri, prefix: usize) {
    for filter in filters {
        match filter {
            Filter::RequestHeaders(change) => apply_change(change, headers),
            Filter::Rewrite(rewrite) => apply_rewrite(rewrite, headers, uri, prefix),
            Filter::Cors(_)
            | Filter::Mirror(_)
            | Filter::Redirect(_)
            | Filter::ResponseHeaders(_) => {}
        }
    }
}

/// Applies the response filters of a rule or backend, in order.
pub fn apply_response(filters: &[Filter], headers: &mut HeaderMap) {
    for filter in filters {
        match filter {
            Filter::ResponseHeaders(change) => apply_change(change, headers),
            Filter::Cors(_)
            | Filter::Mirror(_)
            | Filter::Redirect(_)
            | Filter::RequestHeaders(_)
            | Filter::Rewrite(_) => {}
        }
    }
}

/// What a redirect is made from.
#[derive(Debug, Clone, Copy)]
pub struct RedirectFrom<'a> {
    /// The request's scheme.
    pub scheme: &'a str,
    /// The request's host.
    pub host: &'a str,
    /// The port of the listener, as clients see it.
    pub listener_port: u16,
    /// The request's path and query.
    pub uri: &'a Uri,
    /// What the rule's prefix match covered of the path.
    pub prefix_bytes: usize,
}

/// The status and `Location` of a redirect; `None` when a header value cannot hold it.
pub fn redirect(redirect: &Redirect, from: RedirectFrom<'_>) -> Option<(StatusCode, HeaderValue)> {
    let scheme = redirect.scheme.as_deref().unwrap_or(from.scheme);
    let host = redirect.hostname.as_ref().map_or(from.host, |hostname| hostname.as_str());
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    // "If no port is specified … if redirect scheme is not-empty, the redirect port MUST
    // be the well-known port of that scheme … if empty, the Gateway Listener port."
    let port = redirect.port.or_else(|| match redirect.scheme {
        Some(_) => well_known_port(scheme),
        None => Some(from.listener_port),
    });
    let port = match port {
        Some(port) if Some(port) != well_known_port(scheme) => format!(":{port}"),
        Some(_) | None => String::new(),
    };
    let path = match &redirect.path {
        Some(change) => changed_path(change, from.uri.path(), from.prefix_bytes),
        None => from.uri.path().to_owned(),
    };
    let query = from.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{scheme}://{host}{port}{path}{query}")).ok()?;
    Some((redirect.status, location))
}

fn well_known_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

fn apply_change(change: &HeaderChange, headers: &mut HeaderMap) {
    for (name, value) in &change.set {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in &change.add {
        headers.append(name.clone(), value.clone());
    }
    for name in &change.remove {
        headers.remove(name);
    }
}

fn apply_rewrite(rewrite: &Rewrite, headers: &mut HeaderMap, uri: &mut Uri, prefix: usize) {
    if let Some(hostname) = &rewrite.hostname
        && let Ok(value) = HeaderValue::from_str(hostname.as_str())
    {
        headers.insert(HOST, value);
    }
    let Some(change) = &rewrite.path else { return };
    let path = changed_path(change, uri.path(), prefix);
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    // Both halves were valid before; a result that is not is left as it was.
    if let Ok(target) = PathAndQuery::try_from(text) {
        *uri = Uri::from(target);
    }
}

/// Replaces the path, or the part of it that a prefix match covered.
///
/// Spec: HTTPPathModifier `replacePrefixMatch`, table of examples.
fn changed_path(change: &PathChange, path: &str, prefix_bytes: usize) -> String {
    let joined = match change {
        PathChange::Full(full) => full.to_string(),
        PathChange::Prefix(replacement) => {
            let rest = path.get(prefix_bytes..).unwrap_or("");
            let start = replacement.trim_end_matches('/');
            if rest.is_empty() {
                replacement.to_string()
            } else if rest.starts_with('/') {
                format!("{start}{rest}")
            } else {
                format!("{start}/{rest}")
            }
        }
    };
    if joined.starts_with('/') { joined } else { format!("/{joined}") }
}

#[cfg(test)]
mod tests {
    use isthmus_model::Hostname;

    use super::*;

    /// The examples of `replacePrefixMatch` in the Gateway API.
    #[test]
    fn prefixes_are_replaced_as_the_specification_shows() {
        for (path, matched, replacement, want) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar", "/foo", "/", "/bar"),
            ("/foo/bar", "/", "/xyz", "/xyz/foo/bar"),
        ] {
            let prefix = matched.trim_end_matches('/').len();
            let change = PathChange::Prefix(replacement.into());
            assert_eq!(changed_path(&change, path, prefix), want, "{path} {matched} {replacement}");
        }
    }

    #[test]
    fn redirects_keep_what_they_do_not_set() {
        let uri: Uri = "/a/b?c=d".parse().unwrap();
        let from = RedirectFrom {
            scheme: "http",
            host: "a.test",
            listener_port: 8080,
            uri: &uri,
            prefix_bytes: 2,
        };
        let empty = Redirect {
            scheme: None,
            hostname: None,
            path: None,
            port: None,
            status: StatusCode::FOUND,
        };
        let check = |filter: Redirect, want: &str| {
            assert_eq!(redirect(&filter, from).unwrap().1, want);
        };
        check(empty.clone(), "http://a.test:8080/a/b?c=d");
        let https = Redirect { scheme: Some("https".into()), ..empty.clone() };
        check(https.clone(), "https://a.test/a/b?c=d");
        check(Redirect { port: Some(8443), ..https }, "https://a.test:8443/a/b?c=d");
        let host = Hostname::new("b.test").unwrap();
        check(
            Redirect { hostname: Some(host), port: Some(80), ..empty.clone() },
            "http://b.test/a/b?c=d",
        );
        let path = Some(PathChange::Prefix("/z".into()));
        check(Redirect { path, port: Some(80), ..empty }, "http://a.test/z/b?c=d");
    }
}
