//! Matches of a rule.

use std::collections::BTreeSet;

use http::{HeaderName, Method};
use isthmus_model::route::{HeaderMatch, PathMatch, Pattern, QueryMatch, RouteMatch, ValueMatch};
use isthmus_model::table::PREFIX_DEPTH_LIMIT;

use crate::error::{At, FieldError, Reason};
use crate::raw::route as raw;
use crate::validate::values::at_most;

pub(super) fn route_match(raw: &raw::Match) -> Result<RouteMatch, FieldError> {
    at_most("headers", &raw.headers, PREDICATES_MAX)?;
    at_most("queryParams", &raw.query_params, PREDICATES_MAX)?;
    let path = match &raw.path {
        Some(path) => path_match(path).at("path")?,
        None => PathMatch::Prefix("/".into()),
    };
    let mut headers = Vec::with_capacity(raw.headers.len());
    let mut seen = BTreeSet::new();
    for (index, raw) in raw.headers.iter().enumerate() {
        let name = header_name(&raw.name).at(&format!("headers[{index}].name"))?;
        if !seen.insert(name.as_str().to_owned()) {
            let reason = Reason::duplicate(&raw.name);
            return Err(FieldError::new(format!("headers[{index}].name"), reason));
        }
        headers.push(HeaderMatch { name, value: value_match(raw).at_index("headers", index)? });
    }
    let mut query = Vec::with_capacity(raw.query_params.len());
    let mut seen = BTreeSet::new();
    for (index, raw) in raw.query_params.iter().enumerate() {
        let at = format!("queryParams[{index}].name");
        if raw.name.is_empty() || raw.name.len() > NAME_BYTES_MAX {
            return Err(FieldError::new(at, Reason::value(&raw.name, "a name of 1 to 256 bytes")));
        }
        if !seen.insert(&raw.name) {
            return Err(FieldError::new(at, Reason::duplicate(&raw.name)));
        }
        let value = value_match(raw).at_index("queryParams", index)?;
        query.push(QueryMatch { name: raw.name.clone(), value });
    }
    let method = raw.method.as_deref().map(method).transpose().at("method")?;
    Ok(RouteMatch { path, method, headers, query })
}

/// Spec: HTTPMethod: the nine methods of RFC 9110 and RFC 5789.
fn method(text: &str) -> Result<Method, Reason> {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ];
    let known = KNOWN.into_iter().find(|method| method.as_str() == text);
    known.ok_or_else(|| {
        Reason::value(
            text,
            "a method: GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH",
        )
    })
}

fn value_match(raw: &raw::NamedMatch) -> Result<ValueMatch, FieldError> {
    if raw.value.is_empty() || raw.value.len() > VALUE_BYTES_MAX {
        let form = "a value of 1 to 4096 bytes";
        return Err(FieldError::new("value", Reason::value(&raw.value, form)));
    }
    match raw.kind.as_deref().unwrap_or("Exact") {
        "Exact" => Ok(ValueMatch::Exact(raw.value.clone())),
        "RegularExpression" => Ok(ValueMatch::Regex(Pattern::new(&raw.value).at("value")?)),
        other => Err(FieldError::new("type", Reason::value(other, "Exact or RegularExpression"))),
    }
}

fn path_match(raw: &raw::TypedValue) -> Result<PathMatch, FieldError> {
    let value = raw.value.as_deref().unwrap_or("/");
    match raw.kind.as_deref().unwrap_or("PathPrefix") {
        "Exact" => Ok(PathMatch::Exact(plain_path(value).at("value")?.into())),
        "PathPrefix" => {
            let path = plain_path(value).at("value")?;
            if path.trim_end_matches('/').matches('/').count() > PREFIX_DEPTH_LIMIT {
                let reason = Reason::value(path, "a prefix of at most 64 path elements");
                return Err(FieldError::new("value", reason));
            }
            Ok(PathMatch::Prefix(path.into()))
        }
        "RegularExpression" => Ok(PathMatch::Regex(Pattern::new(value).at("value")?)),
        other => {
            let form = "Exact, PathPrefix or RegularExpression";
            Err(FieldError::new("type", Reason::value(other, form)))
        }
    }
}

/// A path that a canonical request path can equal.
///
/// Spec: the CEL rules of HTTPPathMatch.
pub(super) fn plain_path(path: &str) -> Result<&str, Reason> {
    let rule = |rule| Err(Reason::Rule { rule });
    if !path.starts_with('/') {
        return rule("must begin with '/'");
    }
    if path.len() > PATH_BYTES_MAX {
        return rule("must have at most 1024 bytes");
    }
    if path.contains("//") {
        return rule("must not contain '//'");
    }
    if path.split('/').any(|element| matches!(element, "." | "..")) {
        return rule("must not contain the elements '.' and '..'");
    }
    let lower = path.to_ascii_lowercase();
    if lower.contains("%2f") {
        return rule("must not contain an encoded '/' (%2f)");
    }
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        let good = match byte {
            b'%' => {
                let mut hex = || rest.next().is_some_and(|b| b.is_ascii_hexdigit());
                hex() && hex()
            }
            _ => byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&byte),
        };
        if !good {
            return rule("must have only the characters of a URL path, others as %xx");
        }
    }
    Ok(path)
}

/// Spec: HTTPHeaderName: 1 to 256 characters of an RFC 9110 token.
pub(super) fn header_name(text: &str) -> Result<HeaderName, Reason> {
    let form = "a header name";
    if text.len() > NAME_BYTES_MAX {
        return Err(Reason::value(text, form));
    }
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| Reason::value(text, form))
}

const PREDICATES_MAX: usize = 16;
const NAME_BYTES_MAX: usize = 256;
const VALUE_BYTES_MAX: usize = 4096;
const PATH_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_no_canonical_request_has_are_refused() {
        for good in ["/", "/a/b/", "/a%20b", "/v1.2/~x:@", "/.well-known", "/..a"] {
            assert!(plain_path(good).is_ok(), "{good}");
        }
        let long = format!("/{}", "a".repeat(1024));
        for bad in [
            "", "a", "/a//b", "/a/./b", "/a/..", "/a%2Fb", "/a%2", "/a?b", "/a b", "/é", "/#",
            &long,
        ] {
            assert!(plain_path(bad).is_err(), "{bad}");
        }
    }
}
