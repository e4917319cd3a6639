//! ServiceExport, ClusterProperty, ClusterLink, PeerAuthentication.

use std::collections::BTreeMap;

use isthmus_model::policy::{MtlsMode, PeerAuthentication};
use isthmus_model::{ClusterId, Label, ObjectName, TrustDomain, name::SYSTEM_NAMESPACE};

use super::values::{at_most, host_and_port, not_empty, one_of, port};
use super::{created, key};
use crate::error::{At, FieldError, Reason};
use crate::kind::ObjectKey;
use crate::objects::{
    AccessRule, BundleSource, ClusterLink, ClusterProperty, NamePattern, ServiceExport,
};
use crate::raw::mesh as raw;

/// Spec: KEP-2149.
pub(super) fn cluster_property(
    raw: raw::RawClusterProperty,
    seen: i64,
) -> Result<ClusterProperty, FieldError> {
    let name = ObjectName::new(&raw.metadata.name).at("metadata.name")?;
    at_most("spec.value", raw.spec.value.as_bytes(), PROPERTY_BYTES_MAX)?;
    Ok(ClusterProperty { name, created: created(&raw.metadata, seen)?, value: raw.spec.value })
}

pub(super) fn service_export(
    raw: raw::RawServiceExport,
    seen: i64,
) -> Result<ServiceExport, FieldError> {
    let key = key(&raw.metadata)?;
    let spec = raw.spec.unwrap_or_default();
    Ok(ServiceExport {
        service: Label::new(key.name.as_str()).at("metadata.name")?,
        created: created(&raw.metadata, seen)?,
        key,
        exported_labels: spec.exported_labels,
        exported_annotations: spec.exported_annotations,
    })
}

pub(super) fn cluster_link(raw: raw::RawClusterLink, seen: i64) -> Result<ClusterLink, FieldError> {
    let spec = raw.spec;
    let name = ObjectName::new(&raw.metadata.name).at("metadata.name")?;
    let cluster = match &spec.cluster {
        Some(cluster) => ClusterId::new(cluster).at("spec.cluster")?,
        None => ClusterId::new(name.as_str()).at("metadata.name")?,
    };
    at_most("spec.addresses", &spec.addresses, ADDRESSES_MAX)?;
    for (index, address) in spec.addresses.iter().enumerate() {
        host_and_port(address).at_index("spec.addresses", index)?;
    }
    let dial = spec.dial.unwrap_or(!spec.addresses.is_empty());
    if dial && spec.addresses.is_empty() {
        return Err(FieldError::rule("spec.addresses", "must have an entry when dial is true"));
    }
    Ok(ClusterLink {
        name,
        cluster,
        trust_domain: TrustDomain::new(&spec.trust_domain).at("spec.trustDomain")?,
        addresses: spec.addresses,
        dial,
        bundle: bundle(spec.bundle).at("spec.bundle")?,
        import: access_rules("import", &spec.import).at("spec")?,
        export: access_rules("export", &spec.export).at("spec")?,
        created: created(&raw.metadata, seen)?,
    })
}

fn bundle(raw: raw::Bundle) -> Result<BundleSource, FieldError> {
    match (raw.inline, raw.config_map_ref, raw.sha256) {
        (Some(jwks), None, None) => {
            check_jwks(&jwks).at("inline")?;
            Ok(BundleSource::Inline(jwks))
        }
        (None, Some(reference), None) => {
            let namespace = reference.namespace.as_deref().unwrap_or(SYSTEM_NAMESPACE);
            let namespace = Label::new(namespace).at("configMapRef.namespace")?;
            let name = ObjectName::new(&reference.name).at("configMapRef.name")?;
            let key = reference.key.unwrap_or_else(|| BUNDLE_KEY.to_owned());
            let config_map = ObjectKey { namespace, name };
            Ok(BundleSource::ConfigMap { config_map, key, jwks: None })
        }
        (None, None, Some(hash)) => {
            let good = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
            if !good {
                return Err(FieldError::new("sha256", Reason::value(hash, "64 hex digits")));
            }
            Ok(BundleSource::Sha256(hash.to_ascii_lowercase()))
        }
        _ => Err(FieldError::rule("", "must have exactly one of inline, configMapRef, sha256")),
    }
}

/// Whether a text is a SPIFFE bundle document, as far as that can be seen without
/// looking at the keys.
pub(crate) fn check_jwks(text: &str) -> Result<(), Reason> {
    if text.len() > JWKS_BYTES_MAX {
        return Err(Reason::Rule { rule: "must have at most 256 KiB" });
    }
    let value: Option<serde_json::Value> = serde_json::from_str(text).ok();
    match value.as_ref().and_then(|value| value.get("keys")) {
        Some(keys) if keys.is_array() => Ok(()),
        Some(_) | None => Err(Reason::Rule { rule: "must be a JSON Web Key Set" }),
    }
}

fn access_rules(field: &str, raw: &[raw::AccessRule]) -> Result<Vec<AccessRule>, FieldError> {
    at_most(field, raw, RULES_MAX)?;
    let mut rules = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        rules.push(access_rule(raw).at_index(field, index)?);
    }
    Ok(rules)
}

fn access_rule(raw: &raw::AccessRule) -> Result<AccessRule, FieldError> {
    at_most("ports", &raw.ports, NAMES_MAX)?;
    let mut ports = Vec::with_capacity(raw.ports.len());
    for (index, number) in raw.ports.iter().enumerate() {
        ports.push(port(*number).at_index("ports", index)?);
    }
    Ok(AccessRule {
        namespaces: patterns("namespaces", &raw.namespaces)?,
        names: patterns("names", &raw.names)?,
        ports,
    })
}

fn patterns(field: &str, raw: &[String]) -> Result<Vec<NamePattern>, FieldError> {
    not_empty(field, raw)?;
    at_most(field, raw, NAMES_MAX)?;
    let mut patterns = Vec::with_capacity(raw.len());
    for (index, text) in raw.iter().enumerate() {
        patterns.push(match text.as_str() {
            "*" => NamePattern::Any,
            name => NamePattern::Name(Label::new(name).at_index(field, index)?),
        });
    }
    Ok(patterns)
}

pub(super) fn peer_authentication(
    raw: raw::RawPeerAuthentication,
    seen: i64,
) -> Result<(ObjectKey, PeerAuthentication), FieldError> {
    let key = key(&raw.metadata)?;
    let spec = raw.spec.unwrap_or_default();
    let selector = spec.selector.map(|selector| selector.match_labels).unwrap_or_default();
    if !spec.port_level_mtls.is_empty() && selector.is_empty() {
        let rule = "needs a selector";
        return Err(FieldError::rule("spec.portLevelMtls", rule));
    }
    let mut ports = BTreeMap::new();
    for (text, mtls) in &spec.port_level_mtls {
        let field = format!("spec.portLevelMtls[{text}]");
        let number = text.parse().map_err(|_| Reason::value(text, "a port number, 1 to 65535"));
        let number = number.and_then(port).at(&field)?;
        if let Some(mode) = mtls_mode(Some(mtls)).at(&field)? {
            ports.insert(number, mode);
        }
    }
    let policy = PeerAuthentication {
        name: key.to_string(),
        namespace: key.namespace.clone(),
        selector,
        mode: mtls_mode(spec.mtls.as_ref()).at("spec.mtls")?,
        ports,
        created: created(&raw.metadata, seen)?,
    };
    Ok((key, policy))
}

fn mtls_mode(raw: Option<&raw::MutualTls>) -> Result<Option<MtlsMode>, FieldError> {
    let known = [
        ("UNSET", None),
        ("DISABLE", Some(MtlsMode::Disable)),
        ("PERMISSIVE", Some(MtlsMode::Permissive)),
        ("STRICT", Some(MtlsMode::Strict)),
    ];
    let text = raw.and_then(|mtls| mtls.mode.as_deref()).unwrap_or("UNSET");
    one_of("mode", text, &known, "UNSET, DISABLE, PERMISSIVE or STRICT")
}

/// The key of a bundle in its ConfigMap, unless the reference names one.
const BUNDLE_KEY: &str = "bundle.json";
const ADDRESSES_MAX: usize = 16;
const RULES_MAX: usize = 64;
const NAMES_MAX: usize = 256;
/// Spec: About API: the CRD allows 128 000 characters.
const PROPERTY_BYTES_MAX: usize = 512 * 1024;
const JWKS_BYTES_MAX: usize = 256 * 1024;
