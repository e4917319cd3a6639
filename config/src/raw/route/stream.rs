//! TCPRoute, TLSRoute and UDPRoute, which have one schema; only TLSRoute has hostnames.
//!
//! Spec: Gateway API v1, v1alpha3 and v1alpha2.

use serde::Deserialize;

use super::{ParentRef, StreamBackendRef};
use crate::raw::Ignored;
use crate::raw::metadata::Raw;

pub(crate) type RawStreamRoute = Raw<StreamRouteSpec>;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema has fields that nothing reads")]
pub(crate) struct StreamRouteSpec {
    #[serde(default)]
    pub(crate) parent_refs: Vec<ParentRef>,
    pub(crate) hostnames: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) rules: Vec<StreamRule>,
    use_default_gateways: Ignored,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct StreamRule {
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) backend_refs: Vec<StreamBackendRef>,
}
