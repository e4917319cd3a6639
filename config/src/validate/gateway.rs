//! GatewayClass, Gateway, ListenerSet, ReferenceGrant.
//!
//! Spec: Gateway API v1, the CEL rules of the CRDs.

mod frontend;

use std::collections::BTreeMap;

use isthmus_model::{Label, ObjectName};

use super::parameters::parameters_ref;
use super::values::{at_most, distinct, hostname, not_empty, one_of, port};
use super::{created, key};
use crate::error::{At, FieldError, Reason, printable};
use crate::kind::{GATEWAY_GROUP, ObjectKey};
use crate::objects::gateway::{Operator, Requirement};
use crate::objects::{
    AllowedNamespaces, FrontendTls, Gateway, GatewayAddress, GatewayClass, GatewayListener,
    GrantFrom, GrantTo, Infrastructure, ListenerSet, Protocol, ReferenceGrant, RouteKind,
    SecretRef, Selector,
};
use crate::raw::gateway as raw;
use crate::raw::metadata::LabelSelector;

pub(super) fn gateway_class(
    raw: raw::RawGatewayClass,
    seen: i64,
) -> Result<GatewayClass, FieldError> {
    let controller_name = raw.spec.controller_name;
    let form = controller_name.split_once('/').is_some_and(|(domain, path)| {
        ObjectName::new(domain).is_ok() && !path.is_empty() && path.is_ascii()
    });
    if !form {
        let reason = Reason::value(&controller_name, "a domain and a path: example.com/controller");
        return Err(FieldError::new("spec.controllerName", reason));
    }
    let parameters = raw.spec.parameters_ref.as_ref().map(parameters_ref).transpose();
    Ok(GatewayClass {
        created: created(&raw.metadata, seen)?,
        name: ObjectName::new(&raw.metadata.name).at("metadata.name")?,
        controller_name,
        parameters: parameters.at("spec.parametersRef")?,
    })
}

pub(super) fn gateway(raw: raw::RawGateway, seen: i64) -> Result<Gateway, FieldError> {
    let key = key(&raw.metadata)?;
    let spec = raw.spec;
    at_most("spec.addresses", &spec.addresses, ADDRESSES_MAX)?;
    let listeners = listeners(&spec.listeners, &key.namespace)?;
    let mut addresses = Vec::new();
    for (index, raw) in spec.addresses.iter().enumerate() {
        addresses.extend(address(raw).at_index("spec.addresses", index)?);
    }
    let tls = spec.tls.as_ref();
    let frontend = tls.and_then(|tls| tls.frontend.as_ref());
    let frontend = frontend.map(|raw| frontend::frontend(raw, &key.namespace)).transpose();
    let backend = tls.and_then(|tls| tls.backend.as_ref());
    let reference = backend.and_then(|backend| backend.client_certificate_ref.as_ref());
    let backend = reference.map(|raw| secret_ref(raw, &key.namespace)).transpose();
    let infrastructure = spec.infrastructure.map(|raw| infrastructure(raw, &key.namespace));
    let infrastructure = infrastructure.transpose();
    let allowed = spec.allowed_listeners.as_ref();
    let allowed = allowed_namespaces(
        allowed.and_then(|allowed| allowed.namespaces.as_ref()),
        AllowedNamespaces::None,
    );
    Ok(Gateway {
        created: created(&raw.metadata, seen)?,
        class: ObjectName::new(&spec.gateway_class_name).at("spec.gatewayClassName")?,
        listeners,
        addresses,
        frontend: frontend.at("spec.tls.frontend")?.unwrap_or_else(FrontendTls::default),
        backend_certificate: backend.at("spec.tls.backend.clientCertificateRef")?,
        allowed_listeners: allowed.at("spec.allowedListeners.namespaces")?,
        infrastructure: infrastructure.at("spec.infrastructure")?.unwrap_or_default(),
        key,
    })
}

fn infrastructure(
    raw: raw::Infrastructure,
    namespace: &Label,
) -> Result<Infrastructure, FieldError> {
    // Spec: infrastructure.parametersRef names an object of the Gateway's namespace.
    let local = |raw: raw::LocalRef| raw::ParametersRef {
        group: raw.group,
        kind: raw.kind,
        name: raw.name,
        namespace: Some(namespace.to_string()),
    };
    let parameters = raw.parameters_ref.map(|raw| parameters_ref(&local(raw))).transpose();
    Ok(Infrastructure {
        labels: raw.labels,
        annotations: raw.annotations,
        parameters: parameters.at("parametersRef")?,
    })
}

pub(super) fn listener_set(raw: raw::RawListenerSet, seen: i64) -> Result<ListenerSet, FieldError> {
    let key = key(&raw.metadata)?;
    let parent = raw.spec.parent_ref;
    let given = parent.namespace.as_deref().map(Label::new).transpose();
    let namespace = given.at("spec.parentRef.namespace")?.unwrap_or_else(|| key.namespace.clone());
    let name = ObjectName::new(&parent.name).at("spec.parentRef.name")?;
    let ours = parent.group.as_deref().is_none_or(|group| group == GATEWAY_GROUP)
        && parent.kind.as_deref().is_none_or(|kind| kind == "Gateway");
    Ok(ListenerSet {
        created: created(&raw.metadata, seen)?,
        gateway: ours.then_some(ObjectKey { namespace, name }),
        listeners: listeners(&raw.spec.listeners, &key.namespace)?,
        key,
    })
}

fn listeners(raw: &[raw::Listener], namespace: &Label) -> Result<Vec<GatewayListener>, FieldError> {
    not_empty("spec.listeners", raw)?;
    at_most("spec.listeners", raw, LISTENERS_MAX)?;
    let mut listeners = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        listeners.push(listener(raw, namespace).at_index("spec.listeners", index)?);
    }
    let names = listeners.iter().map(|listener| listener.name.clone());
    distinct(|index| format!("spec.listeners[{index}].name"), names)?;
    Ok(listeners)
}

/// Spec: an address without a value asks for one to be assigned: there is nothing to bind.
fn address(raw: &raw::Address) -> Result<Option<GatewayAddress>, FieldError> {
    let kind = raw.kind.as_deref().unwrap_or("IPAddress");
    let Some(value) = raw.value.as_deref().filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    if kind != "IPAddress" {
        return Ok(Some(GatewayAddress::Unsupported(printable(&format!("{kind} {value}")))));
    }
    let address = value.parse().map_err(|_| Reason::value(value, "an IP address"));
    Ok(Some(GatewayAddress::Ip(address.at("value")?)))
}

fn listener(raw: &raw::Listener, namespace: &Label) -> Result<GatewayListener, FieldError> {
    let protocol = match raw.protocol.as_str() {
        "HTTP" => Protocol::Http,
        "HTTPS" => Protocol::Https,
        "TCP" => Protocol::Tcp,
        "TLS" => tls_protocol(raw.tls.as_ref())?,
        "UDP" => Protocol::Udp,
        other => Protocol::Unsupported(protocol_name(other).at("protocol")?),
    };
    if raw.tls.is_some() && matches!(raw.protocol.as_str(), "HTTP" | "TCP" | "UDP") {
        return Err(FieldError::rule("tls", "must be absent for protocol HTTP, TCP and UDP"));
    }
    let host = raw.hostname.as_deref().filter(|text| !text.is_empty());
    if host.is_some() && matches!(raw.protocol.as_str(), "TCP" | "UDP") {
        return Err(FieldError::rule("hostname", "must be absent for protocol TCP and UDP"));
    }
    let certificates = match &raw.tls {
        Some(tls) => certificates(tls, &protocol, namespace).at("tls")?,
        None if matches!(raw.protocol.as_str(), "HTTPS" | "TLS") => {
            return Err(FieldError::new("tls", Reason::Missing));
        }
        None => Vec::new(),
    };
    let allowed = raw.allowed_routes.as_ref();
    let kinds = allowed.map(|allowed| allowed.kinds.as_slice()).unwrap_or_default();
    at_most("allowedRoutes.kinds", kinds, ROUTE_KINDS_MAX)?;
    Ok(GatewayListener {
        name: ObjectName::new(&raw.name).at("name")?,
        hostname: host.map(|text| hostname(text, true)).transpose().at("hostname")?,
        port: port(raw.port).at("port")?,
        protocol,
        certificates,
        validates_clients: raw.tls.as_ref().is_some_and(|tls| tls.frontend_validation.is_some()),
        namespaces: allowed_namespaces(
            allowed.and_then(|allowed| allowed.namespaces.as_ref()),
            AllowedNamespaces::Same,
        )
        .at("allowedRoutes.namespaces")?,
        kinds: kinds
            .iter()
            .map(|kind| RouteKind {
                group: kind.group.clone().unwrap_or_else(|| GATEWAY_GROUP.to_owned()),
                kind: kind.kind.clone(),
            })
            .collect(),
    })
}

fn tls_protocol(tls: Option<&raw::ListenerTls>) -> Result<Protocol, FieldError> {
    let mode = tls.and_then(|tls| tls.mode.as_deref()).unwrap_or("Terminate");
    let known = [("Terminate", true), ("Passthrough", false)];
    let terminate = one_of("tls.mode", mode, &known, "Terminate or Passthrough")?;
    Ok(if terminate { Protocol::TlsTerminate } else { Protocol::TlsPassthrough })
}

/// Spec: ProtocolType: a name, or a domain and a name. One that the gateway does not speak
/// is no error here: the listener says so with a condition.
fn protocol_name(text: &str) -> Result<String, Reason> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-./".contains(&b);
    if text.is_empty() || text.len() > PROTOCOL_BYTES_MAX || !text.bytes().all(good) {
        return Err(Reason::value(text, "HTTP, HTTPS, TCP, TLS, UDP or a name with a domain"));
    }
    Ok(text.to_owned())
}

fn certificates(
    tls: &raw::ListenerTls,
    protocol: &Protocol,
    namespace: &Label,
) -> Result<Vec<SecretRef>, FieldError> {
    let form = "Terminate or Passthrough";
    let mode = tls.mode.as_deref().unwrap_or("Terminate");
    let terminate = one_of("mode", mode, &[("Terminate", true), ("Passthrough", false)], form)?;
    if *protocol == Protocol::Https && !terminate {
        return Err(FieldError::rule("mode", "must be Terminate for protocol HTTPS"));
    }
    let options = tls.options.as_ref().is_some_and(|options| !options.is_empty());
    if terminate && tls.certificate_refs.is_empty() && !options {
        return Err(FieldError::rule("certificateRefs", "must have an entry where TLS ends"));
    }
    at_most("certificateRefs", &tls.certificate_refs, CERTIFICATES_MAX)?;
    let mut found = Vec::new();
    for (index, reference) in tls.certificate_refs.iter().enumerate() {
        found.push(secret_ref(reference, namespace).at_index("certificateRefs", index)?);
    }
    Ok(found)
}

fn secret_ref(raw: &raw::SecretRef, namespace: &Label) -> Result<SecretRef, FieldError> {
    let (group, kind) = (raw.group.as_deref().unwrap_or(""), raw.kind.as_deref());
    let kind = kind.unwrap_or("Secret");
    if !group.is_empty() || kind != "Secret" {
        return Ok(SecretRef::Unsupported(printable(&format!("{group}/{kind} {}", raw.name))));
    }
    let given = raw.namespace.as_deref().map(Label::new).transpose().at("namespace")?;
    Ok(SecretRef::Secret(ObjectKey {
        namespace: given.unwrap_or_else(|| namespace.clone()),
        name: ObjectName::new(&raw.name).at("name")?,
    }))
}

fn allowed_namespaces(
    raw: Option<&raw::RouteNamespaces>,
    default: AllowedNamespaces,
) -> Result<AllowedNamespaces, FieldError> {
    let Some((raw, from)) = raw.and_then(|raw| Some((raw, raw.from.as_deref()?))) else {
        return Ok(default);
    };
    match from {
        "All" => Ok(AllowedNamespaces::All),
        "None" => Ok(AllowedNamespaces::None),
        "Same" => Ok(AllowedNamespaces::Same),
        "Selector" => {
            let raw = raw.selector.as_ref();
            let raw = raw.ok_or_else(|| FieldError::new("selector", Reason::Missing))?;
            Ok(AllowedNamespaces::Selector(selector(raw).at("selector")?))
        }
        other => {
            let reason = Reason::value(other, "All, None, Same or Selector");
            Err(FieldError::new("from", reason))
        }
    }
}

fn selector(raw: &LabelSelector) -> Result<Selector, FieldError> {
    at_most("matchExpressions", &raw.match_expressions, SELECTOR_PARTS_MAX)?;
    let known = [
        ("DoesNotExist", Operator::DoesNotExist),
        ("Exists", Operator::Exists),
        ("In", Operator::In),
        ("NotIn", Operator::NotIn),
    ];
    let mut requirements = Vec::new();
    for (index, part) in raw.match_expressions.iter().enumerate() {
        let at = |field: &str| format!("matchExpressions[{index}].{field}");
        let form = "DoesNotExist, Exists, In or NotIn";
        let operator = one_of(&at("operator"), &part.operator, &known, form)?;
        let needs_values = matches!(operator, Operator::In | Operator::NotIn);
        if needs_values == part.values.is_empty() {
            let rule = "must have entries for In and NotIn, and none for the other operators";
            return Err(FieldError::rule(at("values"), rule));
        }
        let (key, values) = (part.key.clone(), part.values.clone());
        requirements.push(Requirement { key, operator, values });
    }
    let labels: BTreeMap<String, String> = raw.match_labels.clone();
    Ok(Selector { labels, requirements })
}

pub(super) fn reference_grant(
    raw: raw::RawReferenceGrant,
    seen: i64,
) -> Result<ReferenceGrant, FieldError> {
    let spec = raw.spec;
    not_empty("spec.from", &spec.from)?;
    at_most("spec.from", &spec.from, GRANT_ENTRIES_MAX)?;
    not_empty("spec.to", &spec.to)?;
    at_most("spec.to", &spec.to, GRANT_ENTRIES_MAX)?;
    let mut from = Vec::new();
    for (index, entry) in spec.from.into_iter().enumerate() {
        let namespace = Label::new(&entry.namespace);
        from.push(GrantFrom {
            namespace: namespace.at(&format!("spec.from[{index}].namespace"))?,
            group: entry.group,
            kind: entry.kind,
        });
    }
    let to = spec.to.into_iter().map(|entry| GrantTo {
        group: entry.group,
        kind: entry.kind,
        name: entry.name.filter(|name| !name.is_empty()),
    });
    Ok(ReferenceGrant {
        key: key(&raw.metadata)?,
        created: created(&raw.metadata, seen)?,
        from,
        to: to.collect(),
    })
}

/// The limits of the CRDs.
const LISTENERS_MAX: usize = 64;
const ADDRESSES_MAX: usize = 16;
const PROTOCOL_BYTES_MAX: usize = 255;
const CERTIFICATES_MAX: usize = 64;
const ROUTE_KINDS_MAX: usize = 8;
const GRANT_ENTRIES_MAX: usize = 16;
/// Ours: Kubernetes has no limit.
const SELECTOR_PARTS_MAX: usize = 64;
