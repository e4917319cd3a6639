//! Which requests are a CONNECT that a handler may see.

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};

use crate::authority::Authority;
use crate::wire::{REFUSED_REASON_BYTES_MAX, REFUSED_REASON_HEADER};

/// A request that is answered with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) reason: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    /// The answer, which also ends the stream.
    pub(crate) fn response(&self) -> Response<()> {
        let mut response = Response::new(());
        // A success or a 1xx would open a tunnel that nobody serves.
        let error = self.status.is_client_error() || self.status.is_server_error();
        *response.status_mut() = if error { self.status } else { StatusCode::BAD_GATEWAY };
        let reason = visible(&self.reason);
        if let Ok(value) = HeaderValue::from_str(&reason) {
            response.headers_mut().insert(REFUSED_REASON_HEADER, value);
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("CONNECT"));
        }
        response
    }
}

/// Checks a request's head and reads its authority.
///
/// Spec: RFC 9113 section 8.5; RFC 9110 section 9.3.6. `h2` itself resets a CONNECT with
/// `:scheme` or `:path`.
pub(crate) fn admit<B>(request: &Request<B>) -> Result<Authority, Refusal> {
    if request.method() != Method::CONNECT {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "only CONNECT is served here"));
    }
    let bad = |reason: String| Refusal::new(StatusCode::BAD_REQUEST, reason);
    if request.extensions().get::<h2::ext::Protocol>().is_some() {
        return Err(bad("extended CONNECT is not served".to_owned()));
    }
    let Some(text) = request.uri().authority() else {
        return Err(bad("the CONNECT has no authority".to_owned()));
    };
    let authority = Authority::parse(text.as_str()).map_err(|error| bad(error.to_string()))?;
    check_headers(request.headers(), text.as_str()).map_err(|reason| bad(reason.to_owned()))?;
    Ok(authority)
}

/// Refuses headers that others could read as another target or as an end of the data.
fn check_headers(headers: &HeaderMap, authority: &str) -> Result<(), &'static str> {
    let same = |host: &HeaderValue| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes());
    if !headers.get_all(header::HOST).iter().all(same) {
        return Err("the host header differs from the authority");
    }
    if headers.contains_key(header::CONTENT_LENGTH) {
        return Err("a CONNECT has no content length");
    }
    Ok(())
}

fn visible(reason: &str) -> String {
    let shown = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    reason.chars().take(REFUSED_REASON_BYTES_MAX).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(uri: &str, headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = uri.parse().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request
    }

    #[test]
    fn a_connect_with_one_reading_is_admitted() {
        let request = connect("a.test:80", &[("host", "A.test:80"), ("x-other", "y")]);
        assert_eq!(admit(&request).unwrap().to_string(), "a.test:80");
    }

    #[test]
    fn a_connect_with_two_readings_is_refused() {
        for (uri, headers) in [
            ("a.test", &[][..]),
            ("u@a.test:80", &[]),
            ("a.test:80", &[("host", "b.test:80")]),
            ("a.test:80", &[("host", "a.test:80"), ("host", "b.test:80")]),
            ("a.test:80", &[("content-length", "5")]),
        ] {
            let refusal = admit(&connect(uri, headers)).unwrap_err();
            assert_eq!(refusal.status, StatusCode::BAD_REQUEST, "{uri} {headers:?}");
        }
    }

    #[test]
    fn a_refusal_is_never_a_success_and_its_words_are_harmless() {
        let refusal = Refusal::new(StatusCode::OK, format!("a\r\nb\u{1b}{}", "x".repeat(999)));
        let response = refusal.response();
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        let reason = response.headers()[REFUSED_REASON_HEADER].to_str().unwrap();
        assert!(reason.starts_with("a??b?x") && reason.len() == 256, "{reason}");
    }
}
