//! `Gateway.spec.tls.frontend`: what is demanded of clients' certificates.
//!
//! Spec: Gateway API v1 FrontendTLSConfig, GEP-91.

use isthmus_model::{Label, ObjectName};

use super::super::values::{at_most, distinct, not_empty, one_of, port};
use crate::error::{At, FieldError, printable};
use crate::kind::ObjectKey;
use crate::objects::{CaRef, FrontendTls, FrontendValidation};
use crate::raw::gateway as raw;

pub(super) fn frontend(
    raw: &raw::FrontendTls,
    namespace: &Label,
) -> Result<FrontendTls, FieldError> {
    at_most("perPort", &raw.per_port, PORTS_MAX)?;
    distinct(|index| format!("perPort[{index}].port"), raw.per_port.iter().map(|p| p.port))?;
    let mut frontend = FrontendTls {
        default: config(&raw.default, namespace).at("default")?,
        ..FrontendTls::default()
    };
    for (index, entry) in raw.per_port.iter().enumerate() {
        let number = port(entry.port).at("port").at_index("perPort", index)?;
        let config = config(&entry.tls, namespace).at("tls").at_index("perPort", index)?;
        frontend.per_port.insert(number, config);
    }
    Ok(frontend)
}

fn config(
    raw: &raw::TlsConfig,
    namespace: &Label,
) -> Result<Option<FrontendValidation>, FieldError> {
    raw.validation.as_ref().map(|raw| validation(raw, namespace)).transpose().at("validation")
}

fn validation(
    raw: &raw::FrontendValidation,
    namespace: &Label,
) -> Result<FrontendValidation, FieldError> {
    not_empty("caCertificateRefs", &raw.ca_certificate_refs)?;
    at_most("caCertificateRefs", &raw.ca_certificate_refs, ROOTS_MAX)?;
    let mode = raw.mode.as_deref().unwrap_or("AllowValidOnly");
    let known = [("AllowInsecureFallback", true), ("AllowValidOnly", false)];
    let form = "AllowValidOnly or AllowInsecureFallback";
    let insecure_fallback = one_of("mode", mode, &known, form)?;
    let mut roots = Vec::with_capacity(raw.ca_certificate_refs.len());
    for (index, raw) in raw.ca_certificate_refs.iter().enumerate() {
        roots.push(ca_ref(raw, namespace).at_index("caCertificateRefs", index)?);
    }
    Ok(FrontendValidation { roots, insecure_fallback })
}

fn ca_ref(raw: &raw::CaRef, namespace: &Label) -> Result<CaRef, FieldError> {
    if !raw.group.is_empty() || raw.kind != "ConfigMap" {
        let text = format!("{}/{} {}", raw.group, raw.kind, raw.name);
        return Ok(CaRef::Unsupported(printable(&text)));
    }
    let given = raw.namespace.as_deref().map(Label::new).transpose().at("namespace")?;
    Ok(CaRef::ConfigMap(ObjectKey {
        namespace: given.unwrap_or_else(|| namespace.clone()),
        name: ObjectName::new(&raw.name).at("name")?,
    }))
}

/// The limits of the CRD.
const PORTS_MAX: usize = 64;
const ROOTS_MAX: usize = 8;
