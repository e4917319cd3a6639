//! HTTPRoute, and what it shares with the other kinds of routes.
//!
//! Spec: Gateway API v1 HTTPRoute, the CEL rules of the CRD.

mod cors;
mod filter;
mod grpc;
mod matching;
mod retry;
mod stream;

use isthmus_model::route::{PathMatch, RouteMatch, Timeouts};
use isthmus_model::{Hostname, HttpRouteKind, Label, ObjectName, ServiceKey, ServiceScope};
use serde_json::Value;

pub(super) use self::grpc::grpc_route;
pub(super) use self::stream::stream_route;

use super::values::{at_most, distinct, duration, hostname, port};
use super::{created, key};
use crate::error::{At, FieldError, Reason, printable};
use crate::kind::{GATEWAY_GROUP, MCS_GROUP, ObjectKey};
use crate::objects::{BackendRef, BackendTargetRef, HttpRoute, HttpRule, ParentRef, ParentTarget};
use crate::raw::route as raw;

/// Reads an HTTPRoute. `value` is the same object as JSON.
pub(super) fn http_route(
    raw: raw::RawHttpRoute,
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
    let mut rules = Vec::with_capacity(spec.rules.len());
    for (index, raw) in spec.rules.iter().enumerate() {
        rules.push(rule(raw, &key.namespace).at_index("spec.rules", index)?);
    }
    let names = spec.rules.iter().filter_map(|rule| rule.name.clone());
    distinct(|_| "spec.rules[*].name".to_owned(), names)?;
    Ok(HttpRoute { kind: HttpRouteKind::Http, key, parents, hostnames, rules, created })
}

/// The parentRefs of a route, each with the JSON that it was read from.
fn parents(
    raw: &[raw::ParentRef],
    value: &Value,
    namespace: &Label,
) -> Result<Vec<ParentRef>, FieldError> {
    at_most("spec.parentRefs", raw, PARENTS_MAX)?;
    let mut parents: Vec<ParentRef> = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let written = value.pointer(&format!("/spec/parentRefs/{index}"));
        let mut parent = parent_ref(raw, namespace).at_index("spec.parentRefs", index)?;
        parent.raw = written.cloned().unwrap_or_default();
        let same = |other: &ParentRef| {
            (&other.target, &other.section, other.port)
                == (&parent.target, &parent.section, parent.port)
        };
        if parents.iter().any(same) {
            let reason = Reason::duplicate(&raw.name);
            return Err(FieldError::new(format!("spec.parentRefs[{index}]"), reason));
        }
        parents.push(parent);
    }
    Ok(parents)
}

fn hostnames(raw: &[String], limit: usize) -> Result<Vec<Hostname>, FieldError> {
    at_most("spec.hostnames", raw, limit)?;
    let texts = raw.iter().enumerate();
    texts.map(|(index, text)| hostname(text, true).at_index("spec.hostnames", index)).collect()
}

fn match_total(counts: impl Iterator<Item = usize>) -> Result<(), FieldError> {
    let count: usize = counts.sum();
    if count > ROUTE_MATCHES_MAX {
        let reason = Reason::TooMany { count, limit: ROUTE_MATCHES_MAX };
        return Err(FieldError::new("spec.rules[*].matches", reason));
    }
    Ok(())
}

fn parent_ref(raw: &raw::ParentRef, namespace: &Label) -> Result<ParentRef, FieldError> {
    let given = raw.namespace.as_deref().map(Label::new).transpose().at("namespace")?;
    let namespace = given.unwrap_or_else(|| namespace.clone());
    let group = raw.group.as_deref().unwrap_or(GATEWAY_GROUP);
    let kind = raw.kind.as_deref().unwrap_or("Gateway");
    let name = || Label::new(&raw.name).at("name");
    let target = match (group, kind) {
        (GATEWAY_GROUP, "Gateway") => {
            let name = ObjectName::new(&raw.name).at("name")?;
            ParentTarget::Gateway(ObjectKey { namespace, name })
        }
        (GATEWAY_GROUP, "ListenerSet") => {
            let name = ObjectName::new(&raw.name).at("name")?;
            ParentTarget::ListenerSet(ObjectKey { namespace, name })
        }
        ("", "Service") => ParentTarget::Service(ServiceKey::cluster(namespace, name()?)),
        (MCS_GROUP, "ServiceImport") => {
            ParentTarget::Service(ServiceKey::clusterset(namespace, name()?))
        }
        (group, kind) => {
            let text = format!("{group}/{kind} {namespace}/{}", raw.name);
            ParentTarget::Unsupported(printable(&text))
        }
    };
    let section = raw.section_name.as_deref().filter(|text| !text.is_empty());
    Ok(ParentRef {
        target,
        section: section.map(ObjectName::new).transpose().at("sectionName")?,
        port: raw.port.map(port).transpose().at("port")?,
        raw: Value::Null,
    })
}

fn rule(raw: &raw::Rule, namespace: &Label) -> Result<HttpRule, FieldError> {
    at_most("matches", &raw.matches, RULE_MATCHES_MAX)?;
    at_most("backendRefs", &raw.backend_refs, BACKENDS_MAX)?;
    if let Some(name) = &raw.name {
        ObjectName::new(name).at("name")?;
    }
    let mut matches = Vec::with_capacity(raw.matches.len().max(1));
    for (index, raw) in raw.matches.iter().enumerate() {
        matches.push(matching::route_match(raw).at_index("matches", index)?);
    }
    if matches.is_empty() {
        matches.push(RouteMatch::default());
    }
    let prefix_only = matches.len() == 1
        && matches.iter().all(|matching| matches!(matching.path, PathMatch::Prefix(_)));
    let filters = filter::filters(&raw.filters, namespace, prefix_only)?;
    let redirects = raw.filters.iter().any(|filter| filter.request_redirect.is_some());
    if redirects && !raw.backend_refs.is_empty() {
        let rule = "must be empty in a rule with a RequestRedirect filter";
        return Err(FieldError::rule("backendRefs", rule));
    }
    let mut backends = Vec::with_capacity(raw.backend_refs.len());
    for (index, raw) in raw.backend_refs.iter().enumerate() {
        let backend = backend_ref(raw, namespace, prefix_only);
        backends.push(backend.at_index("backendRefs", index)?);
    }
    let mut without_effect = Vec::new();
    if raw.session_persistence.is_some() {
        without_effect.push("sessionPersistence");
    }
    let timeouts = timeouts(raw.timeouts.as_ref()).at("timeouts")?;
    let retry = raw.retry.as_ref().map(|raw| retry::retry(raw, &mut without_effect));
    let retry = retry.transpose().at("retry")?;
    let name = raw.name.clone();
    Ok(HttpRule { name, matches, filters, backends, timeouts, retry, without_effect })
}

fn backend_ref(
    raw: &raw::BackendRef,
    namespace: &Label,
    prefix_only: bool,
) -> Result<BackendRef, FieldError> {
    let filters = filter::filters(&raw.filters, namespace, prefix_only)?;
    let given = raw.namespace.as_deref().map(Label::new).transpose().at("namespace")?;
    let namespace = given.unwrap_or_else(|| namespace.clone());
    let group = raw.group.as_deref().unwrap_or("");
    let kind = raw.kind.as_deref().unwrap_or("Service");
    let name = || Label::new(&raw.name).at("name");
    let target = match (group, kind) {
        ("", "Service") => BackendTargetRef::Service(ServiceKey::cluster(namespace, name()?)),
        (MCS_GROUP, "ServiceImport") => {
            BackendTargetRef::Service(ServiceKey::clusterset(namespace, name()?))
        }
        (group, kind) => {
            let kind = printable(&format!("{group}/{kind}"));
            BackendTargetRef::Unsupported { kind, namespace }
        }
    };
    // The CRD demands it of Services only; a ServiceImport without one is a reference
    // that cannot be used.
    let local = matches!(&target, BackendTargetRef::Service(s) if s.scope == ServiceScope::Cluster);
    if raw.port.is_none() && local {
        return Err(FieldError::new("port", Reason::Missing));
    }
    let weight = raw.weight.unwrap_or(1);
    let in_range = u32::try_from(weight).ok().filter(|weight| *weight <= WEIGHT_MAX);
    let weight = in_range.ok_or_else(|| Reason::value(weight, "a weight, 0 to 1000000"));
    Ok(BackendRef {
        target,
        port: raw.port.map(port).transpose().at("port")?,
        weight: weight.at("weight")?,
        filters,
    })
}

fn timeouts(raw: Option<&raw::Timeouts>) -> Result<Timeouts, FieldError> {
    let Some(raw) = raw else {
        return Ok(Timeouts::default());
    };
    let parse = |text: &Option<String>, field| {
        text.as_deref().map(duration).transpose().at(field).map(Option::flatten)
    };
    let request = parse(&raw.request, "request")?;
    let backend_request = parse(&raw.backend_request, "backendRequest")?;
    if let (Some(request), Some(backend)) = (request, backend_request)
        && backend > request
    {
        return Err(FieldError::rule("backendRequest", "must not be longer than request"));
    }
    Ok(Timeouts { request, backend_request })
}

/// The limits of the CRD.
const PARENTS_MAX: usize = 32;
const HOSTNAMES_MAX: usize = 16;
const RULES_MAX: usize = 16;
const RULE_MATCHES_MAX: usize = 64;
const ROUTE_MATCHES_MAX: usize = 128;
const BACKENDS_MAX: usize = 16;
const WEIGHT_MAX: u32 = 1_000_000;
