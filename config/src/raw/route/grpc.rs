//! GRPCRoute.
//!
//! Spec: Gateway API v1, standard and experimental channel.

use serde::Deserialize;

use super::{BackendRef, Filter, NamedMatch, ParentRef};
use crate::raw::Ignored;
use crate::raw::metadata::Raw;

pub(crate) type RawGrpcRoute = Raw<GrpcRouteSpec>;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema has fields that nothing reads")]
pub(crate) struct GrpcRouteSpec {
    #[serde(default)]
    pub(crate) parent_refs: Vec<ParentRef>,
    #[serde(default)]
    pub(crate) hostnames: Vec<String>,
    #[serde(default)]
    pub(crate) rules: Vec<GrpcRule>,
    use_default_gateways: Ignored,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GrpcRule {
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) matches: Vec<GrpcMatch>,
    #[serde(default)]
    pub(crate) filters: Vec<Filter>,
    #[serde(default)]
    pub(crate) backend_refs: Vec<BackendRef>,
    pub(crate) session_persistence: Ignored,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GrpcMatch {
    pub(crate) method: Option<MethodMatch>,
    #[serde(default)]
    pub(crate) headers: Vec<NamedMatch>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MethodMatch {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) method: Option<String>,
}
