//! HTTP routes as the user wrote them, validated and with references resolved to names.
//!
//! Spec: Gateway API v1 HTTPRoute.

mod pattern;

mod text;

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::name::{Hostname, ServiceKey};

pub use self::pattern::Pattern;

/// One HTTPRoute, or one GRPCRoute in the same form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRoute {
    /// The kind that the user wrote.
    #[serde(default)]
    pub kind: HttpRouteKind,
    /// `<namespace>/<name>`, unique among its kind.
    pub name: String,
    /// Creation time, seconds since 1970: the older route wins a tie.
    #[serde(default)]
    pub created: i64,
    /// Where the route is attached.
    pub parents: Vec<RouteParent>,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// The kind of route that an [`HttpRoute`] comes from.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub enum HttpRouteKind {
    /// GRPCRoute: its methods are paths (`/service/method`).
    Grpc,
    /// HTTPRoute.
    #[default]
    Http,
}

impl HttpRouteKind {
    /// The object's `kind`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Grpc => "GRPCRoute",
            Self::Http => "HTTPRoute",
        }
    }
}

/// One place where a route is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RouteParent {
    /// A listener, with the intersection of its hostname and the route's.
    Listener {
        /// Name of the listener resource.
        listener: String,
        /// The effective hostnames; empty means every host.
        #[serde(default)]
        hostnames: Vec<Hostname>,
    },
    /// A service, for traffic inside the mesh.
    Service {
        /// The service.
        service: ServiceKey,
        /// One port, or every port.
        #[serde(default)]
        port: Option<u16>,
    },
}

/// One rule of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its name, if it has one.
    #[serde(default)]
    pub name: Option<String>,
    /// Any of these matches the request; never empty (an omitted list is `/` prefix).
    pub matches: Vec<RouteMatch>,
    /// What is done to request and response.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// Where the request goes.
    #[serde(default)]
    pub backends: Vec<Backend>,
    /// How long it may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// When an attempt is made again; `None` retries only what was never sent.
    #[serde(default)]
    pub retry: Option<Retry>,
}

/// When a request is sent again.
///
/// Spec: HTTPRouteRetry, GEP-1731.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Statuses of the backend, 400 to 599, after which the request is sent again.
    #[serde(default)]
    pub codes: Vec<u16>,
    /// Attempts after the first, 1 to [`RETRIES_MAX`].
    pub attempts: u32,
    /// Pause before the second attempt; doubled for each further one. Zero is none.
    #[serde(default)]
    pub backoff: Duration,
}

/// Attempts after the first that a rule can ask for.
pub const RETRIES_MAX: u32 = 10;

/// One alternative of a rule; all its parts must match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// The method; `None` takes every method.
    #[serde(default, with = "text::option")]
    pub method: Option<Method>,
    /// Headers that must all match.
    #[serde(default)]
    pub headers: Vec<HeaderMatch>,
    /// Query parameters that must all match.
    #[serde(default)]
    pub query: Vec<QueryMatch>,
}

impl Default for RouteMatch {
    fn default() -> Self {
        let path = PathMatch::Prefix("/".into());
        Self { path, method: None, headers: Vec::new(), query: Vec::new() }
    }
}

/// How a path is matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathMatch {
    /// The whole path, case-sensitive.
    Exact(Box<str>),
    /// Whole path elements from the start.
    Prefix(Box<str>),
    /// A regular expression over the whole path.
    Regex(Pattern),
}

/// One header that must match. Every value of the header must, and there must be one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// The header's name.
    #[serde(with = "text")]
    pub name: HeaderName,
    /// What its value must be.
    pub value: ValueMatch,
}

/// One query parameter that must match; its first occurrence counts.
///
/// Spec: HTTPQueryParamMatch ("the first value … must be used").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryMatch {
    /// The parameter's name, decoded.
    pub name: String,
    /// What its decoded value must be.
    pub value: ValueMatch,
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ValueMatch {
    /// Equal, byte by byte.
    Exact(String),
    /// A regular expression over the whole value.
    Regex(Pattern),
}

impl ValueMatch {
    /// Whether a value matches.
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(want) => want.as_bytes() == value,
            Self::Regex(pattern) => {
                std::str::from_utf8(value).is_ok_and(|text| pattern.is_match(text))
            }
        }
    }
}

/// One thing done to a request or its response, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Filter {
    /// Answers preflights and marks answers for browsers.
    Cors(Cors),
    /// Sends a copy of the request to another backend, whose answer is dropped.
    Mirror(Mirror),
    /// Answers with a redirect instead of forwarding.
    Redirect(Redirect),
    /// Changes request headers.
    RequestHeaders(HeaderChange),
    /// Changes response headers.
    ResponseHeaders(HeaderChange),
    /// Rewrites host and path before forwarding.
    Rewrite(Rewrite),
}

/// An HTTPCORSFilter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cors {
    /// `*`, or origins of which a host may begin with the label `*`.
    #[serde(default)]
    pub allow_origins: Vec<String>,
    /// Whether requests may carry credentials.
    #[serde(default)]
    pub allow_credentials: bool,
    /// Methods; `*` is every method.
    #[serde(default)]
    pub allow_methods: Vec<String>,
    /// Request headers; `*` is every header.
    #[serde(default)]
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read; `*` is every header.
    #[serde(default)]
    pub expose_headers: Vec<String>,
    /// Seconds that a preflight's answer may be kept.
    #[serde(default)]
    pub max_age: u32,
}

/// An HTTPRequestMirrorFilter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Where the copy goes.
    pub target: BackendTarget,
    /// The share of requests that is copied: numerator and denominator, the latter not 0.
    pub fraction: (u32, u32),
}

/// Changes to a set of headers, in the order set, add, remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderChange {
    /// Replaces every value.
    #[serde(default, with = "text::pairs")]
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Adds a value.
    #[serde(default, with = "text::pairs")]
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Removes every value.
    #[serde(default, with = "text::list")]
    pub remove: Vec<HeaderName>,
}

/// An HTTPRequestRedirectFilter. Parts left out keep what the request had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// `http` or `https`.
    #[serde(default)]
    pub scheme: Option<String>,
    /// The host.
    #[serde(default)]
    pub hostname: Option<Hostname>,
    /// The path.
    #[serde(default)]
    pub path: Option<PathChange>,
    /// The port; left out, the scheme's own port, or the listener's when no scheme is set.
    #[serde(default)]
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    #[serde(with = "text::status")]
    pub status: StatusCode,
}

/// An HTTPURLRewriteFilter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrite {
    /// The Host sent to the backend.
    #[serde(default)]
    pub hostname: Option<Hostname>,
    /// The path sent to the backend.
    #[serde(default)]
    pub path: Option<PathChange>,
}

/// How a path is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathChange {
    /// The whole path.
    Full(Box<str>),
    /// The prefix that matched.
    Prefix(Box<str>),
}

/// One weighted backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Where it goes.
    pub target: BackendTarget,
    /// Share among the rule's backends, 0 to 1 000 000.
    pub weight: u32,
    /// Filters of this backend alone.
    #[serde(default)]
    pub filters: Vec<Filter>,
}

/// What a backend reference means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendTarget {
    /// A reference that cannot be used; its share of requests is answered with 500.
    Invalid {
        /// Why, for logs and `explain`.
        reason: String,
    },
    /// A Service or ServiceImport and its port.
    Service {
        /// The service.
        service: ServiceKey,
        /// The service's port number.
        port: u16,
    },
}

/// One TCPRoute, TLSRoute or UDPRoute: connections or datagrams to weighted backends.
///
/// Spec: Gateway API TCPRoute, TLSRoute, UDPRoute; each has exactly one rule. Of several
/// routes of one listener (for TLS: and hostname) the oldest is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRoute {
    /// The kind that the user wrote.
    pub kind: StreamRouteKind,
    /// `<namespace>/<name>`, unique among its kind.
    pub name: String,
    /// Creation time, seconds since 1970: the older route wins.
    #[serde(default)]
    pub created: i64,
    /// The listeners where the route is attached, with hostnames for TLS.
    pub parents: Vec<RouteParent>,
    /// Where connections or datagrams go. An invalid backend's share is refused.
    pub backends: Vec<Backend>,
}

/// The kind of route that a [`StreamRoute`] comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StreamRouteKind {
    /// TCPRoute.
    Tcp,
    /// TLSRoute.
    Tls,
    /// UDPRoute.
    Udp,
}

impl StreamRouteKind {
    /// The object's `kind`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Tcp => "TCPRoute",
            Self::Tls => "TLSRoute",
            Self::Udp => "UDPRoute",
        }
    }
}

/// How long a request may take. `None` sets no limit of its own.
///
/// Spec: HTTPRouteTimeouts; `0s` in the object means no limit and becomes `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// From the request's head to the end of the response's head, retries included.
    #[serde(default)]
    pub request: Option<Duration>,
    /// The same for one attempt.
    #[serde(default)]
    pub backend_request: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_survives_json() {
        let change = HeaderChange {
            set: vec![(HeaderName::from_static("x-a"), HeaderValue::from_static("1"))],
            add: Vec::new(),
            remove: vec![HeaderName::from_static("x-b")],
        };
        let rule = Rule {
            name: Some("main".into()),
            matches: vec![RouteMatch { method: Some(Method::GET), ..RouteMatch::default() }],
            filters: vec![Filter::RequestHeaders(change)],
            backends: vec![],
            timeouts: Timeouts {
                request: Some(Duration::from_millis(1500)),
                backend_request: None,
            },
            retry: None,
        };
        let route = HttpRoute {
            kind: Default::default(),
            name: "a/b".into(),
            created: 7,
            parents: vec![],
            rules: vec![rule],
        };
        let json = serde_json::to_string(&route).unwrap();
        assert_eq!(serde_json::from_str::<HttpRoute>(&json).unwrap(), route);
    }
}
