//! Filters of a rule or a backend.

use std::collections::BTreeSet;

use http::{HeaderName, HeaderValue, StatusCode};
use isthmus_model::Label;
use isthmus_model::route::{Filter, HeaderChange, PathChange, Redirect, Rewrite};

use super::backend_ref;
use super::cors::cors;
use super::matching::header_name;
use crate::error::{At, FieldError, Reason};
use crate::objects::RouteFilter;
use crate::raw::route as raw;
use crate::validate::values::{at_most, hostname, one_of, port};

/// Reads a list of filters. `namespace` is that of the route. `prefix_only` says that the rule has exactly one match and
/// that it is of a path prefix, which `ReplacePrefixMatch` needs.
pub(super) fn filters(
    raw: &[raw::Filter],
    namespace: &Label,
    prefix_only: bool,
) -> Result<Vec<RouteFilter>, FieldError> {
    at_most("filters", raw, FILTERS_MAX)?;
    let mut filters = Vec::with_capacity(raw.len());
    let mut once = BTreeSet::new();
    for (index, raw) in raw.iter().enumerate() {
        let parsed = filter(raw, namespace, prefix_only).at_index("filters", index)?;
        let repeatable = matches!(raw.kind.as_str(), "RequestMirror" | "ExtensionRef");
        if !repeatable && !once.insert(raw.kind.as_str()) {
            let reason = Reason::duplicate(&raw.kind);
            return Err(FieldError::new(format!("filters[{index}].type"), reason));
        }
        filters.push(parsed);
    }
    if once.contains("RequestRedirect") && once.contains("URLRewrite") {
        let rule = "must not have both RequestRedirect and URLRewrite";
        return Err(FieldError::rule("filters", rule));
    }
    Ok(filters)
}

fn filter(
    raw: &raw::Filter,
    namespace: &Label,
    prefix_only: bool,
) -> Result<RouteFilter, FieldError> {
    let given = [
        ("RequestHeaderModifier", "requestHeaderModifier", raw.request_header_modifier.is_some()),
        (
            "ResponseHeaderModifier",
            "responseHeaderModifier",
            raw.response_header_modifier.is_some(),
        ),
        ("RequestRedirect", "requestRedirect", raw.request_redirect.is_some()),
        ("URLRewrite", "urlRewrite", raw.url_rewrite.is_some()),
        ("RequestMirror", "requestMirror", raw.request_mirror.is_some()),
        ("CORS", "cors", raw.cors.is_some()),
        ("ExternalAuth", "externalAuth", raw.external_auth.is_some()),
        ("ExtensionRef", "extensionRef", raw.extension_ref.is_some()),
    ];
    let Some((kind, field, present)) = given.iter().find(|(kind, ..)| *kind == raw.kind) else {
        let form = "a filter type of the Gateway API";
        return Err(FieldError::new("type", Reason::value(&raw.kind, form)));
    };
    if let Some((_, other, _)) = given.iter().find(|(other, _, set)| *set && other != kind) {
        return Err(FieldError::rule(*other, "must be absent in a filter of another type"));
    }
    if !present {
        return Err(FieldError::new(*field, Reason::Missing));
    }
    let filter = if let Some(raw) = &raw.request_header_modifier {
        Filter::RequestHeaders(header_change(raw).at(field)?)
    } else if let Some(raw) = &raw.response_header_modifier {
        Filter::ResponseHeaders(header_change(raw).at(field)?)
    } else if let Some(raw) = &raw.request_redirect {
        Filter::Redirect(redirect(raw, prefix_only).at(field)?)
    } else if let Some(raw) = &raw.url_rewrite {
        let host = raw.hostname.as_deref().map(|text| hostname(text, false)).transpose();
        let path = raw.path.as_ref().map(|path| path_change(path, prefix_only)).transpose();
        let hostname = host.at("hostname").at(field)?;
        Filter::Rewrite(Rewrite { hostname, path: path.at("path").at(field)? })
    } else if let Some(raw) = &raw.request_mirror {
        return mirror(raw, namespace).at(field);
    } else if let Some(raw) = &raw.cors {
        Filter::Cors(cors(raw).at(field)?)
    } else {
        return Ok(RouteFilter::Unsupported(kind));
    };
    Ok(RouteFilter::Supported(filter))
}

/// Spec: HTTPRequestMirrorFilter: percent or fraction, else every request.
fn mirror(raw: &raw::RequestMirror, namespace: &Label) -> Result<RouteFilter, FieldError> {
    let backend = backend_ref(&raw.backend_ref.to_backend(), namespace, false).at("backendRef")?;
    let fraction = match (raw.percent, &raw.fraction) {
        (Some(_), Some(_)) => {
            return Err(FieldError::rule("percent", "must be absent when fraction is set"));
        }
        (None, None) => (100, 100),
        (Some(percent), None) => {
            let share = u32::try_from(percent).ok().filter(|percent| *percent <= 100);
            (
                share
                    .ok_or_else(|| Reason::value(percent, "a percentage, 0 to 100"))
                    .at("percent")?,
                100,
            )
        }
        (None, Some(raw)) => {
            let number = |value: i64, least: u32, field, form| {
                let number = i32::try_from(value).ok().and_then(|value| u32::try_from(value).ok());
                let number = number.filter(|number| *number >= least);
                number.ok_or_else(|| Reason::value(value, form)).at(field)
            };
            let denominator = raw.denominator.unwrap_or(100);
            let parts = (
                number(raw.numerator, 0, "numerator", "a number from 0").at("fraction")?,
                number(denominator, 1, "denominator", "a number from 1").at("fraction")?,
            );
            if parts.0 > parts.1 {
                let rule = "must not be more than the denominator";
                return Err(FieldError::rule("fraction.numerator", rule));
            }
            parts
        }
    };
    Ok(RouteFilter::Mirror { backend, fraction })
}

fn redirect(raw: &raw::RequestRedirect, prefix_only: bool) -> Result<Redirect, FieldError> {
    if let Some(scheme) = raw.scheme.as_deref() {
        one_of("scheme", scheme, &[("http", ()), ("https", ())], "http or https")?;
    }
    let code = raw.status_code.unwrap_or(302);
    let status = u16::try_from(code)
        .ok()
        .filter(|code| matches!(code, 301 | 302 | 303 | 307 | 308))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| Reason::value(code, "301, 302, 303, 307 or 308"));
    let host = raw.hostname.as_deref().map(|text| hostname(text, false)).transpose();
    let path = raw.path.as_ref().map(|path| path_change(path, prefix_only)).transpose();
    Ok(Redirect {
        scheme: raw.scheme.clone(),
        hostname: host.at("hostname")?,
        path: path.at("path")?,
        port: raw.port.map(port).transpose().at("port")?,
        status: status.at("statusCode")?,
    })
}

fn path_change(raw: &raw::PathModifier, prefix_only: bool) -> Result<PathChange, FieldError> {
    let known = [("ReplaceFullPath", false), ("ReplacePrefixMatch", true)];
    let prefix = one_of("type", &raw.kind, &known, "ReplaceFullPath or ReplacePrefixMatch")?;
    let (field, value, other_field, other) = if prefix {
        ("replacePrefixMatch", &raw.replace_prefix_match, "replaceFullPath", &raw.replace_full_path)
    } else {
        ("replaceFullPath", &raw.replace_full_path, "replacePrefixMatch", &raw.replace_prefix_match)
    };
    if other.is_some() {
        return Err(FieldError::rule(other_field, "must be absent for this type"));
    }
    let value = value.as_deref().ok_or_else(|| FieldError::new(field, Reason::Missing))?;
    let good = value.len() <= REPLACEMENT_BYTES_MAX
        && value.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'#' | b'?'))
        && (value.starts_with('/') || prefix);
    if !good {
        let form = "a path: '/' first, without spaces, '?' and '#', at most 1024 bytes";
        return Err(FieldError::new(field, Reason::value(value, form)));
    }
    if prefix && !prefix_only {
        let rule = "needs a rule with exactly one match, of type PathPrefix";
        return Err(FieldError::rule(field, rule));
    }
    Ok(if prefix { PathChange::Prefix(value.into()) } else { PathChange::Full(value.into()) })
}

fn header_change(raw: &raw::HeaderModifier) -> Result<HeaderChange, FieldError> {
    at_most("remove", &raw.remove, HEADERS_MAX)?;
    let mut remove = Vec::with_capacity(raw.remove.len());
    for (index, name) in raw.remove.iter().enumerate() {
        remove.push(changeable(name).at_index("remove", index)?);
    }
    Ok(HeaderChange {
        set: header_list("set", &raw.set)?,
        add: header_list("add", &raw.add)?,
        remove,
    })
}

fn header_list(
    field: &str,
    raw: &[raw::Header],
) -> Result<Vec<(HeaderName, HeaderValue)>, FieldError> {
    at_most(field, raw, HEADERS_MAX)?;
    let mut list: Vec<(HeaderName, HeaderValue)> = Vec::with_capacity(raw.len());
    for (index, header) in raw.iter().enumerate() {
        let at = |part: &str| format!("{field}[{index}].{part}");
        let name = changeable(&header.name).at(&at("name"))?;
        if list.iter().any(|(other, _)| *other == name) {
            return Err(FieldError::new(at("name"), Reason::duplicate(&header.name)));
        }
        let text = header.value.as_str();
        let good = !text.is_empty() && text.len() <= VALUE_BYTES_MAX;
        let value = HeaderValue::from_str(text).ok().filter(|_| good);
        let form = "a header value of 1 to 4096 printable bytes";
        list.push((name, value.ok_or_else(|| Reason::value(text, form)).at(&at("value"))?));
    }
    Ok(list)
}

/// A header that a filter may change. Those that frame the message or choose the route
/// may not be: what they say and what the proxy does would differ.
fn changeable(text: &str) -> Result<HeaderName, Reason> {
    let name = header_name(text)?;
    if PROTECTED.contains(&name.as_str()) {
        return Err(Reason::value(text, "a header that filters may change"));
    }
    Ok(name)
}

/// Framing, hop-by-hop headers, and Host, which `urlRewrite.hostname` changes.
const PROTECTED: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const FILTERS_MAX: usize = 16;
const HEADERS_MAX: usize = 16;
const VALUE_BYTES_MAX: usize = 4096;
const REPLACEMENT_BYTES_MAX: usize = 1024;
