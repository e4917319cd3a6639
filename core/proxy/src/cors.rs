//! Cross-origin requests of browsers: preflights are answered here, other answers are
//! marked.
//!
//! The rule's filter is the one authority: what a backend says of its own is taken out
//! first. An origin is always echoed and never answered with `*`, so that the same answer
//! is right with and without credentials; caches are told by `Vary`. A request from an
//! origin that is not allowed is forwarded like any other and its answer is not marked:
//! the browser keeps the answer from the script.
//!
//! Spec: Gateway API HTTPCORSFilter; the Fetch standard, section "CORS protocol".

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};
use isthmus_model::route::{Cors, Filter};

/// The CORS filter of a list, if it has one; the first counts.
pub(crate) fn of(filters: &[Filter]) -> Option<&Cors> {
    filters.iter().find_map(|filter| match filter {
        Filter::Cors(cors) => Some(cors),
        Filter::Mirror(_)
        | Filter::Redirect(_)
        | Filter::RequestHeaders(_)
        | Filter::ResponseHeaders(_)
        | Filter::Rewrite(_) => None,
    })
}

/// Whether a request is a browser's question what it may send.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The headers that answer a preflight; none when its origin is not allowed.
pub(crate) fn preflight(cors: &Cors, request: &HeaderMap) -> HeaderMap {
    let mut answer = HeaderMap::new();
    answer.insert(VARY, HeaderValue::from_static("Origin"));
    if !allow_origin(cors, request.get(ORIGIN), &mut answer) {
        return answer;
    }
    for (allowed, asked, name) in [
        (&cors.allow_methods, ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_ALLOW_METHODS),
        (&cors.allow_headers, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_ALLOW_HEADERS),
    ] {
        // What was asked for, instead of `*`: with credentials browsers take `*` literally.
        let value = if has_star(allowed) { request.get(asked).cloned() } else { list(allowed) };
        if let Some(value) = value {
            answer.insert(name, value);
        }
    }
    if let Some(value) = exposed(cors, &HeaderMap::new()) {
        answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, value);
    }
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(cors.max_age));
    answer
}

/// Marks the answer to a request that came from `origin`, if it came from one.
pub(crate) fn mark(cors: &Cors, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
    for name in ANSWER_HEADERS {
        answer.remove(name);
    }
    answer.append(VARY, HeaderValue::from_static("Origin"));
    if !allow_origin(cors, origin, answer) {
        return;
    }
    if let Some(value) = exposed(cors, answer) {
        answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, value);
    }
}

fn allow_origin(cors: &Cors, origin: Option<&HeaderValue>, answer: &mut HeaderMap) -> bool {
    let Some(origin) = origin else { return false };
    let text = origin.to_str().unwrap_or("");
    if !cors.allow_origins.iter().any(|pattern| origin_matches(pattern, text)) {
        return false;
    }
    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if cors.allow_credentials {
        answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    true
}

/// "An exact match … or a wildcard: the `*` at the start of the host is any number of
/// labels, greedily." Schemes, hosts and ports are compared without case.
fn origin_matches(pattern: &str, origin: &str) -> bool {
    if pattern == "*" || pattern.eq_ignore_ascii_case(origin) {
        return true;
    }
    let (Some(pattern), Some(origin)) = (Origin::of(pattern), Origin::of(origin)) else {
        return false;
    };
    let host = match pattern.host.strip_prefix('*') {
        // `*.a.test` has a part before the dot, and `*` alone is every host.
        Some(suffix) => ends_with(origin.host, suffix) && origin.host.len() > suffix.len(),
        None => pattern.host.eq_ignore_ascii_case(origin.host),
    };
    let port = pattern.port == Some("*") || pattern.port == origin.port;
    host && port && pattern.scheme.eq_ignore_ascii_case(origin.scheme)
}

/// The parts of an origin; a scheme's own port is no port.
struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<&'a str>,
}

impl<'a> Origin<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        if rest.is_empty() || rest.contains(['/', '?', '#', '@', ' ']) {
            return None;
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            Some(_) | None => (rest, None),
        };
        let own = match scheme {
            "http" => Some("80"),
            "https" => Some("443"),
            _ => None,
        };
        Some(Self { scheme, host, port: port.filter(|port| Some(*port) != own) })
    }
}

fn ends_with(text: &str, suffix: &str) -> bool {
    let start = text.len().checked_sub(suffix.len());
    start.and_then(|at| text.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
}

fn has_star(list: &[String]) -> bool {
    list.iter().any(|item| item == "*")
}

fn list(items: &[String]) -> Option<HeaderValue> {
    let text = items.join(", ");
    HeaderValue::from_str(&text).ok().filter(|_| !text.is_empty())
}

/// The names that scripts may read; with credentials `*` is every name of the answer.
fn exposed(cors: &Cors, answer: &HeaderMap) -> Option<HeaderValue> {
    if !has_star(&cors.expose_headers) {
        return list(&cors.expose_headers);
    }
    if !cors.allow_credentials {
        return Some(HeaderValue::from_static("*"));
    }
    let hidden = |name: &&HeaderName| name.as_str() != "set-cookie";
    let names = answer.keys().filter(hidden).map(|name| name.as_str().to_owned());
    list(&names.collect::<Vec<_>>())
}

/// What only the gateway says about origins.
const ANSWER_HEADERS: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(ToString::to_string).collect()
    }

    fn cors() -> Cors {
        Cors {
            allow_origins: strings(&["https://www.foo.com", "https://*.bar.com"]),
            allow_credentials: true,
            allow_methods: strings(&["GET", "OPTIONS"]),
            allow_headers: strings(&["x-header-1", "x-header-2"]),
            expose_headers: strings(&["x-header-3", "x-header-4"]),
            max_age: 3600,
        }
    }

    fn asks(origin: &str, method: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        headers.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static(method));
        headers.insert(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("x-a, x-b"));
        headers
    }

    /// The cases of the Gateway API's conformance test HTTPRouteCORS.
    #[test]
    fn a_preflight_of_an_allowed_origin_is_told_what_the_filter_allows() {
        for origin in ["https://www.foo.com", "https://www.bar.com", "https://xpto.www.bar.com"] {
            let request = asks(origin, "GET");
            assert!(is_preflight(&Method::OPTIONS, &request));
            let answer = preflight(&cors(), &request);
            assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], origin);
            assert_eq!(answer[ACCESS_CONTROL_ALLOW_METHODS], "GET, OPTIONS");
            assert_eq!(answer[ACCESS_CONTROL_ALLOW_HEADERS], "x-header-1, x-header-2");
            assert_eq!(answer[ACCESS_CONTROL_EXPOSE_HEADERS], "x-header-3, x-header-4");
            assert_eq!(answer[ACCESS_CONTROL_MAX_AGE], "3600");
            assert_eq!(answer[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        }
        for origin in ["https://foobar.com", "http://www.foo.com", "https://bar.com", "null"] {
            let answer = preflight(&cors(), &asks(origin, "GET"));
            assert_eq!(answer.len(), 1, "{origin} is told nothing but Vary");
        }
    }

    #[test]
    fn stars_echo_what_was_asked_and_never_appear_with_credentials() {
        for allow_credentials in [false, true] {
            let star = || strings(&["*"]);
            let cors = Cors {
                allow_origins: star(),
                allow_credentials,
                allow_methods: star(),
                allow_headers: star(),
                expose_headers: star(),
                max_age: 5,
            };
            let answer = preflight(&cors, &asks("https://foobar.com:12345", "PUT"));
            assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "https://foobar.com:12345");
            assert_eq!(answer[ACCESS_CONTROL_ALLOW_METHODS], "PUT");
            assert_eq!(answer[ACCESS_CONTROL_ALLOW_HEADERS], "x-a, x-b");
            assert_eq!(answer.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS), allow_credentials);
            let mut marked = HeaderMap::new();
            marked.insert("x-one", HeaderValue::from_static("1"));
            mark(&cors, Some(&HeaderValue::from_static("https://a.test")), &mut marked);
            let exposed = marked[ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap();
            assert_eq!(exposed == "*", !allow_credentials);
            assert_eq!(exposed.contains("x-one"), allow_credentials);
        }
    }

    #[test]
    fn what_the_backend_says_of_origins_is_replaced() {
        let backend = || {
            let mut answer = HeaderMap::new();
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            answer
        };
        let mut answer = backend();
        mark(&cors(), Some(&HeaderValue::from_static("https://www.foo.com")), &mut answer);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "https://www.foo.com");
        for origin in [None, Some(HeaderValue::from_static("http://evil.test"))] {
            let mut answer = backend();
            mark(&cors(), origin.as_ref(), &mut answer);
            assert_eq!(answer.keys().collect::<Vec<_>>(), [VARY]);
        }
    }

    #[test]
    fn origins_are_compared_by_scheme_host_and_port() {
        for (pattern, origin, want) in [
            ("https://*", "https://a.test", true),
            ("https://*", "http://a.test", false),
            ("https://*.a.test", "https://a.test", false),
            ("https://*.a.test", "https://b.a.test:443", true),
            ("https://*.a.test", "https://b.a.test:8443", false),
            ("https://a.test:*", "https://a.test:8443", true),
            ("https://a.test", "https://A.test", true),
            ("https://*.a.test", "https://evil.test/.a.test", false),
            ("http://[::1]:80", "http://[::1]", true),
        ] {
            assert_eq!(origin_matches(pattern, origin), want, "{pattern} {origin}");
        }
    }
}
