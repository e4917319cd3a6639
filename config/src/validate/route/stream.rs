//! TCPRoute, TLSRoute and UDPRoute.
//!
//! Spec: Gateway API v1; the older versions allow what v1 refuses (several rules, a
//! TLSRoute without hostnames), and are held to the same rules here.

use isthmus_model::{ObjectName, StreamRouteKind};
use serde_json::Value;

use super::{BACKENDS_MAX, backend_ref, hostnames, parents};
use crate::error::{At, FieldError, Reason};
use crate::objects::StreamRoute;
use crate::raw::route::stream as raw;
use crate::validate::values::{at_most, not_empty};
use crate::validate::{created, key};

/// Reads a route of one of the kinds. `value` is the same object as JSON.
pub(in crate::validate) fn stream_route(
    kind: StreamRouteKind,
    raw: raw::RawStreamRoute,
    value: &Value,
    seen: i64,
) -> Result<StreamRoute, FieldError> {
    let key = key(&raw.metadata)?;
    let created = created(&raw.metadata, seen)?;
    let spec = raw.spec;
    let parents = parents(&spec.parent_refs, value, &key.namespace)?;
    let hostnames = match (kind, spec.hostnames) {
        (StreamRouteKind::Tls, given) => {
            let given = given.unwrap_or_default();
            not_empty("spec.hostnames", &given)?;
            hostnames(&given, TLS_HOSTNAMES_MAX)?
        }
        (StreamRouteKind::Tcp | StreamRouteKind::Udp, None) => Vec::new(),
        (StreamRouteKind::Tcp | StreamRouteKind::Udp, Some(_)) => {
            let rule = "is not a field of this kind of route";
            return Err(FieldError::rule("spec.hostnames", rule));
        }
    };
    at_most("spec.rules", &spec.rules, 1)?;
    let Some(rule) = spec.rules.into_iter().next() else {
        return Err(FieldError::new("spec.rules", Reason::Missing));
    };
    if let Some(name) = &rule.name {
        ObjectName::new(name).at("spec.rules[0].name")?;
    }
    not_empty("spec.rules[0].backendRefs", &rule.backend_refs)?;
    at_most("spec.rules[0].backendRefs", &rule.backend_refs, BACKENDS_MAX)?;
    let mut backends = Vec::with_capacity(rule.backend_refs.len());
    for (index, raw) in rule.backend_refs.into_iter().enumerate() {
        let backend = backend_ref(&raw.into_backend(), &key.namespace, false);
        backends.push(backend.at_index("spec.rules[0].backendRefs", index)?);
    }
    Ok(StreamRoute { kind, key, parents, hostnames, backends, created })
}

/// The limit of the CRD.
const TLS_HOSTNAMES_MAX: usize = 1024;
