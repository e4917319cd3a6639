//! What every object has: `apiVersion`, `kind`, `metadata`, `spec`, `status`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Ignored;

/// An object with a `spec`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema has fields that nothing reads")]
pub(crate) struct Raw<S> {
    api_version: Ignored,
    kind: Ignored,
    pub(crate) metadata: Metadata,
    pub(crate) spec: S,
    status: Ignored,
}

/// Spec: Kubernetes `ObjectMeta`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema has fields that nothing reads")]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    pub(crate) creation_timestamp: Option<String>,
    uid: Ignored,
    resource_version: Ignored,
    generation: Ignored,
    owner_references: Ignored,
    finalizers: Ignored,
    managed_fields: Ignored,
    self_link: Ignored,
    generate_name: Ignored,
    deletion_timestamp: Ignored,
    deletion_grace_period_seconds: Ignored,
    cluster_name: Ignored,
}

/// Spec: Kubernetes `LabelSelector`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LabelSelector {
    #[serde(default)]
    pub(crate) match_labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) match_expressions: Vec<LabelRequirement>,
}

/// Spec: Kubernetes `LabelSelectorRequirement`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LabelRequirement {
    pub(crate) key: String,
    pub(crate) operator: String,
    #[serde(default)]
    pub(crate) values: Vec<String>,
}
