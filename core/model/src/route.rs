//! HTTP routes as the user wrote them, validated and with references resolved to names.
//!
//! Spec: Gateway API v1 HTTPRoute.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::name::{Hostname, InvalidName, ServiceKey, excerpt};

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

/// A regular expression that matches whole values, in linear time.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: Arc<str>,
    regex: Arc<regex::Regex>,
}

impl Pattern {
    /// Compiles the expression, anchored at both ends.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] above 1 KiB of text, above 256 KiB compiled, or when the syntax is
    /// wrong.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let kind = "regular expression";
        if text.len() > PATTERN_BYTES_MAX {
            return Err(InvalidName::Length { kind, length: text.len(), limit: PATTERN_BYTES_MAX });
        }
        let form = || InvalidName::Form {
            kind,
            value: excerpt(text),
            form: "a linear-time expression (RE2 syntax) of at most 256 KiB when compiled",
        };
        let regex = regex::RegexBuilder::new(&format!("^(?:{text})$"))
            .size_limit(PATTERN_COMPILED_BYTES_MAX)
            .dfa_size_limit(PATTERN_COMPILED_BYTES_MAX)
            .build()
            .map_err(|_| form())?;
        Ok(Self { text: Arc::from(text), regex: Arc::new(regex) })
    }

    /// Whether the whole value matches.
    pub fn is_match(&self, value: &str) -> bool {
        self.regex.is_match(value)
    }

    /// The expression as the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidName;

    fn try_from(value: String) -> Result<Self, InvalidName> {
        Self::new(&value)
    }
}

impl From<Pattern> for String {
    fn from(value: Pattern) -> Self {
        value.text.as_ref().to_owned()
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
    #[serde(with = "status")]
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

/// Serde for `http`'s types by their text.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<T: AsRef<str>, S: Serializer>(v: &T, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(v.as_ref())
    }

    pub(super) fn deserialize<'de, T, D>(d: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }

    pub(super) mod option {
        use super::*;

        pub(in super::super) fn serialize<T: AsRef<str>, S: Serializer>(
            v: &Option<T>,
            s: S,
        ) -> Result<S::Ok, S::Error> {
            match v {
                Some(v) => s.serialize_some(v.as_ref()),
                None => s.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, T, D>(d: D) -> Result<Option<T>, D::Error>
        where
            T: FromStr<Err: Display>,
            D: Deserializer<'de>,
        {
            let text = Option::<String>::deserialize(d)?;
            text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
        }
    }

    pub(super) mod list {
        use http::HeaderName;
        use serde::Serialize;

        use super::*;

        pub(in super::super) fn serialize<S: Serializer>(
            v: &[HeaderName],
            s: S,
        ) -> Result<S::Ok, S::Error> {
            v.iter().map(HeaderName::as_str).collect::<Vec<_>>().serialize(s)
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            d: D,
        ) -> Result<Vec<HeaderName>, D::Error> {
            let texts = Vec::<String>::deserialize(d)?;
            texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
        }
    }

    pub(super) mod pairs {
        use http::{HeaderName, HeaderValue};
        use serde::Serialize;

        use super::*;

        type Pairs = Vec<(HeaderName, HeaderValue)>;

        pub(in super::super) fn serialize<S: Serializer>(
            v: &[(HeaderName, HeaderValue)],
            s: S,
        ) -> Result<S::Ok, S::Error> {
            let lossless = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into();
            let texts: Vec<(&str, String)> =
                v.iter().map(|(name, value)| (name.as_str(), lossless(value))).collect();
            texts.serialize(s)
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            d: D,
        ) -> Result<Pairs, D::Error> {
            let texts = Vec::<(String, String)>::deserialize(d)?;
            texts
                .iter()
                .map(|(name, value)| {
                    let name = name.parse().map_err(D::Error::custom)?;
                    Ok((name, HeaderValue::from_str(value).map_err(D::Error::custom)?))
                })
                .collect()
        }
    }
}

/// Serde for a status code by its number.
mod status {
    use http::StatusCode;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(v: &StatusCode, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u16(v.as_u16())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<StatusCode, D::Error> {
        StatusCode::from_u16(u16::deserialize(d)?).map_err(D::Error::custom)
    }
}

const PATTERN_BYTES_MAX: usize = 1024;
const PATTERN_COMPILED_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_values_and_are_bounded() {
        let pattern = Pattern::new("/v[0-9]+|/x").unwrap();
        assert!(pattern.is_match("/v12") && pattern.is_match("/x"));
        assert!(!pattern.is_match("/v12/y") && !pattern.is_match("a/x"));
        assert!(Pattern::new("(a+)+$").is_ok());
        for bad in [r"\w{1000}{1000}", "(", &"a".repeat(1025)] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
    }

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
