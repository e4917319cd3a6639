//! ServiceExport, ClusterProperty, ClusterLink and PeerAuthentication.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::metadata::Raw;

pub(crate) type RawServiceExport = Raw<Option<ServiceExportSpec>>;
pub(crate) type RawClusterProperty = Raw<ClusterPropertySpec>;
pub(crate) type RawClusterLink = Raw<ClusterLinkSpec>;
pub(crate) type RawPeerAuthentication = Raw<Option<PeerAuthenticationSpec>>;

/// Spec: MCS API v1alpha1 ServiceExportSpec.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ServiceExportSpec {
    #[serde(default)]
    pub(crate) exported_labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) exported_annotations: BTreeMap<String, String>,
}

/// Spec: About API v1beta1 ClusterPropertySpec.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ClusterPropertySpec {
    pub(crate) value: String,
}

/// The link to one other cluster.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ClusterLinkSpec {
    pub(crate) cluster: Option<String>,
    pub(crate) trust_domain: String,
    #[serde(default)]
    pub(crate) addresses: Vec<String>,
    pub(crate) dial: Option<bool>,
    pub(crate) bundle: Bundle,
    #[serde(default)]
    pub(crate) import: Vec<AccessRule>,
    #[serde(default)]
    pub(crate) export: Vec<AccessRule>,
}

/// Exactly one of the three.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Bundle {
    pub(crate) inline: Option<String>,
    pub(crate) config_map_ref: Option<ConfigMapRef>,
    pub(crate) sha256: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ConfigMapRef {
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) key: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AccessRule {
    pub(crate) namespaces: Vec<String>,
    pub(crate) names: Vec<String>,
    #[serde(default)]
    pub(crate) ports: Vec<i64>,
}

/// Spec: `security.istio.io/v1` PeerAuthentication.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PeerAuthenticationSpec {
    pub(crate) selector: Option<WorkloadSelector>,
    pub(crate) mtls: Option<MutualTls>,
    #[serde(default)]
    pub(crate) port_level_mtls: BTreeMap<String, MutualTls>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct WorkloadSelector {
    #[serde(default)]
    pub(crate) match_labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MutualTls {
    pub(crate) mode: Option<String>,
}
