//! BackendTLSPolicy.
//!
//! Spec: Gateway API v1 BackendTLSPolicy, the CEL rules of the CRD.

use isthmus_model::{Label, ObjectName, SubjectName};

use super::values::{at_most, distinct, hostname, not_empty, one_of};
use super::{created, key};
use crate::error::{At, FieldError, Reason, printable};
use crate::kind::ObjectKey;
use crate::objects::{BackendTlsPolicy, BackendTlsRoots, CaRef, PolicyTarget, PolicyTargetRef};
use crate::raw::backend_tls as raw;
use crate::raw::gateway::LocalRef;

pub(super) fn backend_tls_policy(
    raw: raw::RawBackendTlsPolicy,
    seen: i64,
) -> Result<BackendTlsPolicy, FieldError> {
    let key = key(&raw.metadata)?;
    let created = created(&raw.metadata, seen)?;
    let spec = raw.spec;
    let targets = targets(&spec.target_refs).at("spec")?;
    let validation = &spec.validation;
    let names = names(&validation.subject_alt_names).at("spec.validation")?;
    let roots = roots(validation, &key.namespace).at("spec.validation")?;
    let name = hostname(&validation.hostname, false).at("spec.validation.hostname")?;
    Ok(BackendTlsPolicy { key, targets, hostname: name.to_string(), names, roots, created })
}

fn targets(raw: &[raw::TargetRef]) -> Result<Vec<PolicyTarget>, FieldError> {
    not_empty("targetRefs", raw)?;
    at_most("targetRefs", raw, TARGETS_MAX)?;
    let section = |raw: &raw::TargetRef| raw.section_name.clone().filter(|text| !text.is_empty());
    let same = raw.iter().map(|raw| {
        let section = section(raw).unwrap_or_default();
        format!("{}/{}/{}/{section}", raw.group, raw.kind, raw.name)
    });
    distinct(|index| format!("targetRefs[{index}]"), same)?;
    let mut targets = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let at = |field: &str| format!("targetRefs[{index}].{field}");
        let target = if raw.group.is_empty() && raw.kind == "Service" {
            PolicyTargetRef::Service(Label::new(&raw.name).at(&at("name"))?)
        } else {
            let text = format!("{}/{} {}", raw.group, raw.kind, raw.name);
            PolicyTargetRef::Unsupported(printable(&text))
        };
        let section = section(raw).as_deref().map(ObjectName::new).transpose();
        targets.push(PolicyTarget { target, section: section.at(&at("sectionName"))? });
    }
    Ok(targets)
}

fn names(raw: &[raw::SubjectAltName]) -> Result<Vec<SubjectName>, FieldError> {
    at_most("subjectAltNames", raw, NAMES_MAX)?;
    let mut names = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        names.push(subject_name(raw).at_index("subjectAltNames", index)?);
    }
    Ok(names)
}

fn subject_name(raw: &raw::SubjectAltName) -> Result<SubjectName, FieldError> {
    let known = [("Hostname", true), ("URI", false)];
    let dns = one_of("type", &raw.kind, &known, "Hostname or URI")?;
    let (field, given, other_field, other) = if dns {
        ("hostname", &raw.hostname, "uri", &raw.uri)
    } else {
        ("uri", &raw.uri, "hostname", &raw.hostname)
    };
    if other.as_deref().is_some_and(|text| !text.is_empty()) {
        return Err(FieldError::rule(other_field, "must be absent for this type"));
    }
    let text = given.as_deref().filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| FieldError::new(field, Reason::Missing))?;
    if dns {
        return Ok(SubjectName::Dns(hostname(text, true).at(field)?.to_string()));
    }
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    let good = !scheme.is_empty()
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && !rest.is_empty()
        && text.len() <= URI_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !good {
        let form = "a URI like spiffe://example.com/ns/a/sa/b, of at most 253 bytes";
        return Err(FieldError::new(field, Reason::value(text, form)));
    }
    Ok(SubjectName::Uri(text.to_owned()))
}

fn roots(raw: &raw::Validation, namespace: &Label) -> Result<BackendTlsRoots, FieldError> {
    at_most("caCertificateRefs", &raw.ca_certificate_refs, ROOTS_MAX)?;
    let well_known = raw.well_known_ca_certificates.as_deref().filter(|text| !text.is_empty());
    match (well_known, raw.ca_certificate_refs.as_slice()) {
        (Some(_), [_, ..]) => {
            let rule = "must be absent when caCertificateRefs has entries";
            Err(FieldError::rule("wellKnownCACertificates", rule))
        }
        (None, []) => {
            Err(FieldError::rule("", "needs caCertificateRefs or wellKnownCACertificates"))
        }
        (Some(text), []) => {
            one_of("wellKnownCACertificates", text, &[("System", ())], "System")?;
            Ok(BackendTlsRoots::System)
        }
        (None, references) => {
            let mut roots = Vec::with_capacity(references.len());
            for (index, raw) in references.iter().enumerate() {
                roots.push(ca_ref(raw, namespace).at_index("caCertificateRefs", index)?);
            }
            Ok(BackendTlsRoots::References(roots))
        }
    }
}

fn ca_ref(raw: &LocalRef, namespace: &Label) -> Result<CaRef, FieldError> {
    if !raw.group.is_empty() || raw.kind != "ConfigMap" {
        let text = format!("{}/{} {}", raw.group, raw.kind, raw.name);
        return Ok(CaRef::Unsupported(printable(&text)));
    }
    let name = ObjectName::new(&raw.name).at("name")?;
    Ok(CaRef::ConfigMap(ObjectKey { namespace: namespace.clone(), name }))
}

/// The limits of the CRD.
const TARGETS_MAX: usize = 16;
const ROOTS_MAX: usize = 8;
const NAMES_MAX: usize = 5;
const URI_BYTES_MAX: usize = 253;
