//! GatewayParameters.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::metadata::Raw;

pub(crate) type RawGatewayParameters = Raw<Option<GatewayParametersSpec>>;

/// What the processes of Gateways are to be like.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GatewayParametersSpec {
    pub(crate) mode: Option<String>,
    pub(crate) replicas: Option<i64>,
    pub(crate) workers: Option<i64>,
    #[serde(default)]
    pub(crate) service: ServiceParameters,
    #[serde(default)]
    pub(crate) pod: PodParameters,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ServiceParameters {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) load_balancer_class: Option<String>,
    pub(crate) external_traffic_policy: Option<String>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PodParameters {
    pub(crate) resources: Option<Value>,
    #[serde(default)]
    pub(crate) node_selector: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) tolerations: Vec<Value>,
    pub(crate) priority_class_name: Option<String>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
}
