//! GRPCRoute, brought into the form of an HTTPRoute: a method of a service is the path
//! `/service/method`.
//!
//! Spec: Gateway API v1 GRPCRoute, the CEL rules of the CRD.

use isthmus_model::route::{PathMatch, Pattern, RouteMatch, Timeouts};
use isthmus_model::{HttpRouteKind, Label, ObjectName};
use serde_json::Value;

use super::filter::filters;
use super::matching::route_match;
use super::{
    BACKENDS_MAX, HOSTNAMES_MAX, RULE_MATCHES_MAX, RULES_MAX, backend_ref, hostnames, match_total,
    parents,
};
use crate::error::{At, FieldError, Reason};
use crate::objects::{HttpRoute, HttpRule};
use crate::raw::route as shared;
use crate::raw::route::grpc as raw;
use crate::validate::values::{at_most, distinct, one_of};
use crate::validate::{created, key};

/// Reads a GRPCRoute. `value` is the same object as JSON.
pub(in crate::validate) fn grpc_route(
    raw: raw::RawGrpcRoute,
    value: &Value,
    seen: i64,
) -> Result<HttpRoute, FieldError> {
    let key = key(&raw.metadata)?;
    let created = created(&raw.metadata, seen)?;
    let spec = raw.spec;
    let parents = parents(&spec.parent_refs, value, &key.namespace)?;
    let hostnames = hostnames(&spec.hostnames, HOSTNAMES_MAX)?;
    at_most("spec.rules", &spec.rules, RULES_MAX)?;
    match_total(spec.rules.iter().map(|rule| rule.matches.len()))?;
    let names = spec.rules.iter().filter_map(|rule| rule.name.clone());
    distinct(|_| "spec.rules[*].name".to_owned(), names)?;
    let mut rules = Vec::with_capacity(spec.rules.len());
    for (index, raw) in spec.rules.into_iter().enumerate() {
        rules.push(rule(raw, &key.namespace).at_index("spec.rules", index)?);
    }
    Ok(HttpRoute { kind: HttpRouteKind::Grpc, key, parents, hostnames, rules, created })
}

fn rule(raw: raw::GrpcRule, namespace: &Label) -> Result<HttpRule, FieldError> {
    at_most("matches", &raw.matches, RULE_MATCHES_MAX)?;
    at_most("backendRefs", &raw.backend_refs, BACKENDS_MAX)?;
    if let Some(name) = &raw.name {
        ObjectName::new(name).at("name")?;
    }
    grpc_filters(&raw.filters)?;
    let filters = filters(&raw.filters, namespace, false)?;
    let mut backends = Vec::with_capacity(raw.backend_refs.len());
    for (index, raw) in raw.backend_refs.iter().enumerate() {
        grpc_filters(&raw.filters).at_index("backendRefs", index)?;
        let backend = backend_ref(raw, namespace, false);
        backends.push(backend.at_index("backendRefs", index)?);
    }
    let mut matches = Vec::with_capacity(raw.matches.len().max(1));
    for (index, raw) in raw.matches.into_iter().enumerate() {
        matches.push(grpc_match(raw).at_index("matches", index)?);
    }
    if matches.is_empty() {
        matches.push(RouteMatch::default());
    }
    let mut without_effect = Vec::new();
    if raw.session_persistence.is_some() {
        without_effect.push("sessionPersistence");
    }
    Ok(HttpRule {
        name: raw.name,
        matches,
        filters,
        backends,
        timeouts: Timeouts::default(),
        retry: None,
        without_effect,
    })
}

/// Spec: GRPCRouteFilterType has fewer types than HTTPRoute.
fn grpc_filters(raw: &[shared::Filter]) -> Result<(), FieldError> {
    let known = FILTERS.map(|kind| (kind, ()));
    for (index, filter) in raw.iter().enumerate() {
        let form = "a type of filter that a GRPCRoute has";
        one_of("type", &filter.kind, &known, form).at_index("filters", index)?;
    }
    Ok(())
}

fn grpc_match(raw: raw::GrpcMatch) -> Result<RouteMatch, FieldError> {
    let path = match &raw.method {
        Some(method) => method_path(method).at("method")?,
        None => RouteMatch::default().path,
    };
    let headers =
        shared::Match { path: None, headers: raw.headers, query_params: Vec::new(), method: None };
    Ok(RouteMatch { path, ..route_match(&headers)? })
}

/// The paths of a method match. A path without its service or method is never called, so
/// that what is left out stands for any one path element.
fn method_path(raw: &raw::MethodMatch) -> Result<PathMatch, FieldError> {
    let known = [("Exact", true), ("RegularExpression", false)];
    let kind = raw.kind.as_deref().unwrap_or("Exact");
    let exact = one_of("type", kind, &known, "Exact or RegularExpression")?;
    let service = raw.service.as_deref().filter(|text| !text.is_empty());
    let method = raw.method.as_deref().filter(|text| !text.is_empty());
    if service.is_none() && method.is_none() {
        return Err(FieldError::rule("", "needs a service or a method"));
    }
    for (field, text) in [("service", service), ("method", method)] {
        let Some(text) = text else { continue };
        let dotted = field == "service";
        if text.len() > NAME_BYTES_MAX || (exact && !is_name(text, dotted)) {
            let form = "a name of gRPC, of at most 1024 bytes";
            return Err(FieldError::new(field, Reason::value(text, form)));
        }
    }
    let pattern = |text: String| Pattern::new(&text).map(PathMatch::Regex);
    match (exact, service, method) {
        (true, Some(service), Some(method)) => {
            Ok(PathMatch::Exact(format!("/{service}/{method}").into()))
        }
        (true, Some(service), None) => Ok(PathMatch::Prefix(format!("/{service}/").into())),
        (true, None, Some(method)) => pattern(format!("/{ANY_ELEMENT}/{method}")).at("method"),
        (_, service, method) => {
            let part = |text: Option<&str>| match text {
                Some(text) => format!("(?:{text})"),
                None => ANY_ELEMENT.to_owned(),
            };
            pattern(format!("/{}/{}", part(service), part(method))).at("")
        }
    }
}

/// Spec: the CEL rules of GRPCMethodMatch: identifiers, for services with dots between
/// them and possibly one before.
fn is_name(text: &str, dotted: bool) -> bool {
    let identifier = |part: &str| {
        part.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if !dotted {
        return identifier(text);
    }
    text.strip_prefix('.').unwrap_or(text).split('.').all(identifier)
}

/// One whole element of a path.
const ANY_ELEMENT: &str = "[^/]+";
const FILTERS: [&str; 4] =
    ["ExtensionRef", "RequestHeaderModifier", "RequestMirror", "ResponseHeaderModifier"];
/// The limit of the CRD.
const NAME_BYTES_MAX: usize = 1024;
