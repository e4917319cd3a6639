//! The admin endpoint: what a process knows, as JSON, on loopback only.
//!
//! Loopback alone is not a guard: a web page in a browser on the same machine can reach
//! it (by DNS rebinding or a plain form), and so can a proxy that was talked into it.
//! Hence four rules: the `Host` must be a loopback name, a request that has passed a
//! proxy is refused, what changes state needs POST, and it needs a header that a browser
//! sends to another origin only after asking (security.md A-07).

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use http::header::{self, HeaderName};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::server::{ControlServer, Reply, ServeError, is_read, method_not_allowed, reply};

/// The parameters of an admin request, decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pairs: BTreeMap<String, String>,
}

impl Query {
    /// The value of a parameter; the last one when it was given twice.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.pairs.get(name).map(String::as_str)
    }

    /// The value of a parameter that must be there.
    ///
    /// # Errors
    ///
    /// [`AdminError::BadRequest`] names the parameter.
    pub fn required(&self, name: &str) -> Result<&str, AdminError> {
        let missing = || AdminError::BadRequest { reason: format!("parameter {name} is missing") };
        self.value(name).ok_or_else(missing)
    }

    fn parse(text: &str) -> Self {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
        Self { pairs }
    }
}

/// Why an admin request was not answered as wished.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The request cannot be understood.
    #[error("bad request: {reason}")]
    BadRequest {
        /// What is wrong with it.
        reason: String,
    },
    /// What was asked for does not exist.
    #[error("{what} does not exist")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The process cannot answer now.
    #[error("not available: {reason}")]
    Unavailable {
        /// Why not.
        reason: String,
    },
}

/// What the admin endpoint answers; clones share it, so a role may add paths later.
#[derive(Clone, Default)]
pub struct AdminRoutes {
    routes: Arc<RwLock<BTreeMap<&'static str, Route>>>,
}

impl AdminRoutes {
    /// No paths.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds (or replaces) a path that only reads: GET gives the handler's value as JSON.
    ///
    /// Handlers never put keys, tokens or other secrets into their values.
    pub fn get(
        &self,
        path: &'static str,
        handler: impl Fn(&Query) -> Result<Value, AdminError> + Send + Sync + 'static,
    ) {
        self.insert(path, Route { changes: false, handler: Arc::new(handler) });
    }

    /// Adds (or replaces) a path that changes state: POST with `x-isthmus-admin: 1`.
    pub fn post(
        &self,
        path: &'static str,
        handler: impl Fn(&Query) -> Result<Value, AdminError> + Send + Sync + 'static,
    ) {
        self.insert(path, Route { changes: true, handler: Arc::new(handler) });
    }

    fn insert(&self, path: &'static str, route: Route) {
        // A panic of another holder leaves a whole map behind, here and below.
        self.routes.write().unwrap_or_else(PoisonError::into_inner).insert(path, route);
    }

    fn answer(&self, parts: &Parts) -> Reply {
        if let Err(reason) = admit(parts) {
            return failure(StatusCode::FORBIDDEN, reason);
        }
        let path = parts.uri.path();
        if path == "/" && is_read(&parts.method) {
            return success(&self.index());
        }
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let Some(route) = routes.get(path).cloned() else {
            return failure(StatusCode::NOT_FOUND, "no such path; GET / lists them");
        };
        // A handler may add routes, so the lock is not held while it runs.
        drop(routes);
        match (route.changes, &parts.method) {
            (false, method) if !is_read(method) => return method_not_allowed("GET, HEAD"),
            (true, method) if method != Method::POST => return method_not_allowed("POST"),
            (true, _) if parts.headers.get(&ADMIN).is_none_or(|value| value != "1") => {
                let reason = "a change needs the header x-isthmus-admin: 1";
                return failure(StatusCode::FORBIDDEN, reason);
            }
            _ => {}
        }
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        match (route.handler)(&query) {
            Ok(value) => success(&value),
            Err(error) => failure(status(&error), &error.to_string()),
        }
    }

    fn index(&self) -> Value {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let method = |route: &Route| if route.changes { "POST" } else { "GET" };
        routes.iter().map(|(path, route)| (path.to_string(), json!(method(route)))).collect()
    }
}

impl fmt::Debug for AdminRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminRoutes").field("routes", &self.index()).finish()
    }
}

/// Serves the admin endpoint on a loopback address.
///
/// # Errors
///
/// [`ServeError::NotLoopback`] for any other address; the other variants when the
/// address cannot be bound.
pub fn serve_admin(address: SocketAddr, routes: &AdminRoutes) -> Result<ControlServer, ServeError> {
    if !address.ip().is_loopback() {
        return Err(ServeError::NotLoopback { address });
    }
    let routes = routes.clone();
    ControlServer::start("admin", address, Arc::new(move |parts: &Parts| routes.answer(parts)))
}

#[derive(Clone)]
struct Route {
    changes: bool,
    handler: Arc<AdminHandler>,
}

type AdminHandler = dyn Fn(&Query) -> Result<Value, AdminError> + Send + Sync;

/// The rules that every admin request must meet.
fn admit(parts: &Parts) -> Result<(), &'static str> {
    if FORWARDED.iter().any(|name| parts.headers.contains_key(name)) {
        return Err("the request has passed a proxy");
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
    if hosts.next().is_some() || !host.parse().is_ok_and(|host| is_local(&host)) {
        return Err("the host must be localhost or a loopback address");
    }
    if parts.uri.authority().is_some_and(|authority| !is_local(authority)) {
        return Err("the target must be localhost or a loopback address");
    }
    Ok(())
}

fn is_local(authority: &Authority) -> bool {
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn status(error: &AdminError) -> StatusCode {
    match error {
        AdminError::BadRequest { .. } => StatusCode::BAD_REQUEST,
        AdminError::NotFound { .. } => StatusCode::NOT_FOUND,
        AdminError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn success(value: &Value) -> Reply {
    reply(StatusCode::OK, JSON, format!("{value:#}\n"))
}

fn failure(status: StatusCode, error: &str) -> Reply {
    reply(status, JSON, format!("{}\n", json!({ "error": error })))
}

/// Percent and plus decoding; what is not valid stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let byte = digits.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(*first),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

static ADMIN: HeaderName = HeaderName::from_static("x-isthmus-admin");
static FORWARDED: [HeaderName; 3] =
    [header::FORWARDED, header::VIA, HeaderName::from_static("x-forwarded-for")];
const JSON: &str = "application/json";

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::testing::exchange;

    fn routes(changes: &Arc<AtomicU32>) -> AdminRoutes {
        let routes = AdminRoutes::new();
        routes.get("/status", |query| Ok(json!({ "name": query.value("name") })));
        routes.get("/service", |query| {
            let what = query.required("name")?.to_owned();
            Err(AdminError::NotFound { what })
        });
        let changes = Arc::clone(changes);
        routes.post("/drain", move |_| Ok(json!(changes.fetch_add(1, Ordering::SeqCst))));
        routes
    }

    #[tokio::test]
    async fn reads_and_changes_follow_the_rules() {
        let changes = Arc::new(AtomicU32::new(0));
        let local = "127.0.0.1:0".parse().unwrap();
        let server = serve_admin(local, &routes(&changes)).unwrap();
        let at = server.local_addr();
        let check = async |head: &str, want: &str| {
            let answer = exchange(at, &format!("{head}\r\n\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {want} ")), "{head}\n{answer}");
            answer
        };
        let answer = check("GET /status?name=a%20b+c HTTP/1.1\r\nhost: localhost", "200").await;
        assert!(answer.contains("\"name\": \"a b c\""), "{answer}");
        let answer = check(&format!("GET / HTTP/1.1\r\nhost: {at}"), "200").await;
        assert!(answer.contains("\"/drain\": \"POST\""), "{answer}");
        check("GET /service?name=x HTTP/1.1\r\nhost: [::1]:1", "404").await;
        check("GET /service HTTP/1.1\r\nhost: localhost", "400").await;
        check("GET /nothing HTTP/1.1\r\nhost: localhost", "404").await;
        check("POST /status HTTP/1.1\r\nhost: localhost", "405").await;
        let answer = check("GET /drain HTTP/1.1\r\nhost: localhost\r\nx-isthmus-admin: 1", "405");
        assert!(answer.await.contains("allow: POST"));
        check("HEAD /drain HTTP/1.1\r\nhost: localhost\r\nx-isthmus-admin: 1", "405").await;
        check("OPTIONS /drain HTTP/1.1\r\nhost: localhost", "405").await;
        check("POST /drain HTTP/1.1\r\nhost: localhost", "403").await;
        check("POST /drain HTTP/1.1\r\nhost: localhost\r\nx-isthmus-admin: 0", "403").await;
        assert_eq!(changes.load(Ordering::SeqCst), 0);
        check("POST /drain HTTP/1.1\r\nhost: localhost\r\nx-isthmus-admin: 1", "200").await;
        assert_eq!(changes.load(Ordering::SeqCst), 1);
    }

    /// security.md A-07: rebinding, a proxy in between, and forged targets.
    #[tokio::test]
    async fn hosts_that_are_not_local_are_refused() {
        let changes = Arc::new(AtomicU32::new(0));
        let server = serve_admin("127.0.0.1:0".parse().unwrap(), &routes(&changes)).unwrap();
        for head in [
            "GET /status HTTP/1.1\r\nhost: evil.test",
            "GET /status HTTP/1.1\r\nhost: localhost.evil.test",
            "GET /status HTTP/1.1\r\nhost: 127.0.0.1.evil.test",
            "GET /status HTTP/1.1\r\nhost: localhost@evil.test",
            "GET /status HTTP/1.1\r\nhost: 10.0.0.1",
            "GET /status HTTP/1.1\r\nhost: ",
            "GET /status HTTP/1.0",
            "GET /status HTTP/1.1\r\nhost: localhost\r\nhost: evil.test",
            "GET http://evil.test/status HTTP/1.1\r\nhost: localhost",
            "GET /status HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: 127.0.0.1",
            "GET /status HTTP/1.1\r\nhost: localhost\r\nvia: 1.1 x",
        ] {
            let answer = exchange(server.local_addr(), &format!("{head}\r\n\r\n")).await;
            assert!(answer.contains(" 403 "), "{head}\n{answer}");
        }
    }

    #[tokio::test]
    async fn an_oversized_head_is_refused() {
        let server = serve_admin("127.0.0.1:0".parse().unwrap(), &AdminRoutes::new()).unwrap();
        let head = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(70_000));
        let answer = exchange(server.local_addr(), &head).await;
        assert!(answer.is_empty() || answer.contains(" 414 ") || answer.contains(" 431 "));
    }

    #[tokio::test]
    async fn only_loopback_addresses_are_bound() {
        for address in ["0.0.0.0:0", "[::]:0", "10.0.0.1:0"] {
            let address = address.parse().unwrap();
            let result = serve_admin(address, &AdminRoutes::new());
            assert!(matches!(result, Err(ServeError::NotLoopback { .. })));
        }
    }

    #[test]
    fn broken_percent_codes_stay_as_they_are() {
        assert_eq!(decode("%zz%4"), "%zz%4");
        assert_eq!(decode("%E6%97%A5"), "\u{65e5}");
        assert_eq!(decode("%ff"), "\u{fffd}");
    }
}
