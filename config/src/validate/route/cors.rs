//! CORS filters.
//!
//! Spec: Gateway API v1 HTTPCORSFilter, GEP-1767.

use isthmus_model::route::Cors;

use super::matching::header_name;
use crate::error::{At, FieldError, Reason};
use crate::raw::route as raw;
use crate::validate::values::{at_most, distinct};

pub(super) fn cors(raw: &raw::Cors) -> Result<Cors, FieldError> {
    at_most("allowOrigins", &raw.allow_origins, ENTRIES_MAX)?;
    for (index, text) in raw.allow_origins.iter().enumerate() {
        origin(text).at_index("allowOrigins", index)?;
    }
    alone("allowOrigins", &raw.allow_origins)?;
    at_most("allowMethods", &raw.allow_methods, METHODS.len())?;
    for (index, text) in raw.allow_methods.iter().enumerate() {
        if text != ANY && !METHODS.contains(&text.as_str()) {
            let reason = Reason::value(text, "a method like GET, or *");
            return Err(FieldError::new(format!("allowMethods[{index}]"), reason));
        }
    }
    alone("allowMethods", &raw.allow_methods)?;
    headers("allowHeaders", &raw.allow_headers)?;
    alone("allowHeaders", &raw.allow_headers)?;
    headers("exposeHeaders", &raw.expose_headers)?;
    let max_age = raw.max_age.unwrap_or(MAX_AGE_SECONDS);
    let seconds = i32::try_from(max_age).ok().and_then(|age| u32::try_from(age).ok());
    let seconds = seconds.filter(|age| *age > 0);
    Ok(Cors {
        allow_origins: raw.allow_origins.clone(),
        allow_credentials: raw.allow_credentials.unwrap_or(false),
        allow_methods: raw.allow_methods.clone(),
        allow_headers: raw.allow_headers.clone(),
        expose_headers: raw.expose_headers.clone(),
        max_age: seconds.ok_or_else(|| Reason::value(max_age, "seconds, from 1")).at("maxAge")?,
    })
}

/// Spec: CORSOrigin: `*`, or a scheme, a host whose first label may be `*`, and a port.
fn origin(text: &str) -> Result<(), Reason> {
    if text == ANY {
        return Ok(());
    }
    let form = || Reason::value(text, "an origin like https://*.example.com:8443, or *");
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let rest = rest.filter(|_| text.len() <= ORIGIN_BYTES_MAX).ok_or_else(form)?;
    let (host, port) = match rest.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (rest, None),
    };
    let digits = |port: &str| {
        (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit())
    };
    let labels = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let good = port.is_none_or(digits) && (host == ANY || labels.split('.').all(label));
    if good { Ok(()) } else { Err(form()) }
}

fn headers(field: &str, list: &[String]) -> Result<(), FieldError> {
    at_most(field, list, ENTRIES_MAX)?;
    for (index, text) in list.iter().enumerate() {
        header_name(text).at_index(field, index)?;
    }
    Ok(())
}

/// No entry twice, and `*` only by itself.
fn alone(field: &str, list: &[String]) -> Result<(), FieldError> {
    distinct(|index| format!("{field}[{index}]"), list.iter().cloned())?;
    if list.len() > 1 && list.iter().any(|entry| entry == ANY) {
        return Err(FieldError::rule(field, "must not have '*' alongside other entries"));
    }
    Ok(())
}

/// Everything.
const ANY: &str = "*";
/// Spec: the methods that the field takes.
const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
/// Spec: the default of `maxAge`.
const MAX_AGE_SECONDS: i64 = 5;
/// The limits of the CRD.
const ENTRIES_MAX: usize = 64;
const ORIGIN_BYTES_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_have_a_scheme_and_a_host() {
        for good in ["*", "https://a.example", "http://*.a.example:12345", "https://*", "http://x"]
        {
            assert!(origin(good).is_ok(), "{good}");
        }
        for bad in ["a.example", "https://", "https://a:", "https://a:x", "ftp://a", "https://a/b"]
        {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }
}
