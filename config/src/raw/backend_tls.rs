//! BackendTLSPolicy.
//!
//! Spec: Gateway API v1 BackendTLSPolicy; v1alpha3 has the same fields.

use serde::Deserialize;

use super::Ignored;
use super::gateway::LocalRef;
use super::metadata::Raw;

pub(crate) type RawBackendTlsPolicy = Raw<BackendTlsPolicySpec>;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema has fields that nothing reads")]
pub(crate) struct BackendTlsPolicySpec {
    #[serde(default)]
    pub(crate) target_refs: Vec<TargetRef>,
    pub(crate) validation: Validation,
    options: Ignored,
}

/// Spec: LocalPolicyTargetReferenceWithSectionName.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct TargetRef {
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) section_name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Validation {
    #[serde(default, rename = "caCertificateRefs")]
    pub(crate) ca_certificate_refs: Vec<LocalRef>,
    #[serde(rename = "wellKnownCACertificates")]
    pub(crate) well_known_ca_certificates: Option<String>,
    pub(crate) hostname: String,
    #[serde(default)]
    pub(crate) subject_alt_names: Vec<SubjectAltName>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SubjectAltName {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) hostname: Option<String>,
    pub(crate) uri: Option<String>,
}
