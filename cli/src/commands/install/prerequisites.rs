//! The CRDs of others: the Gateway API, the MCS API and ClusterProperty.
//!
//! They are not ours to install, because other products of the cluster use them in
//! versions of their own. What is missing is named with the command that adds it.

use isthmus_kubernetes::install::{Filter, Installer};
use isthmus_kubernetes::status::release::ANNOTATION as VERSION_ANNOTATION;
use serde_json::Value;

use crate::commands::reach::explained;

/// What the cluster has.
#[derive(Debug, Default)]
pub(super) struct Prerequisites {
    gateway_api: Vec<String>,
    /// Version and channel of the Gateway API's CRDs, as their annotations say.
    release: Option<(String, String)>,
    mcs: Vec<String>,
    properties: Option<String>,
}

/// Reads which CRDs there are.
pub(super) async fn check(installer: &mut Installer) -> anyhow::Result<Prerequisites> {
    let kind = "CustomResourceDefinition";
    let crds = installer.list("apiextensions.k8s.io/v1", kind, Filter::default()).await;
    Ok(Prerequisites::of(&crds.map_err(|failure| explained(&failure))?))
}

impl Prerequisites {
    fn of(crds: &[Value]) -> Self {
        let mut found = Self::default();
        for crd in crds {
            let text = |pointer: &str| crd.pointer(pointer).and_then(Value::as_str);
            let (Some(group), Some(plural)) = (text("/spec/group"), text("/spec/names/plural"))
            else {
                continue;
            };
            match group {
                GATEWAY_GROUP => {
                    found.gateway_api.push(plural.to_owned());
                    let of = |name: &str| {
                        let value =
                            crd.pointer("/metadata/annotations").and_then(|all| all.get(name));
                        value.and_then(Value::as_str).unwrap_or("unknown").to_owned()
                    };
                    if plural == "gateways" {
                        found.release = Some((of(VERSION_ANNOTATION), of(CHANNEL_ANNOTATION)));
                    }
                }
                MCS_GROUP => found.mcs.push(plural.to_owned()),
                "about.k8s.io" if plural == "clusterproperties" => {
                    found.properties = newest(crd);
                }
                _ => {}
            }
        }
        found
    }

    /// The version in which ClusterProperty is served.
    pub(super) fn properties(&self) -> Option<&str> {
        self.properties.as_deref()
    }

    /// What there is, for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some((version, channel)) = &self.release {
            lines.push(format!("Gateway API {version}, {channel} channel"));
            let lacks = lacking(&self.gateway_api, GATEWAY_OPTIONAL);
            if !lacks.is_empty() {
                lines.push(format!("  without {}: they are not served", lacks.join(", ")));
            }
        }
        if lacking(&self.mcs, MCS_REQUIRED).is_empty() {
            lines.push("Multi-Cluster Services API".to_owned());
        }
        match &self.properties {
            Some(version) => lines.push(format!("ClusterProperty {version}")),
            None => lines.push("no ClusterProperty: the cluster's id is not published".to_owned()),
        }
        lines
    }

    /// What has to be applied first; empty when nothing is missing.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let mut check = |product: &str, found: &[String], required: &[&str], source: &str| {
            let lacks = lacking(found, required);
            if !lacks.is_empty() {
                missing.push(format!(
                    "the CRDs of the {product} are missing ({}). Apply them:\n{source}",
                    lacks.join(", ")
                ));
            }
        };
        check("Gateway API", &self.gateway_api, GATEWAY_REQUIRED, GATEWAY_SOURCE);
        check("Multi-Cluster Services API", &self.mcs, MCS_REQUIRED, MCS_SOURCE);
        missing
    }
}

fn lacking<'n>(found: &[String], wanted: &[&'n str]) -> Vec<&'n str> {
    wanted.iter().copied().filter(|name| !found.iter().any(|found| found == name)).collect()
}

/// The served version that we prefer.
fn newest(crd: &Value) -> Option<String> {
    let versions = crd.pointer("/spec/versions")?.as_array()?;
    let is_served = |wanted: &str| {
        versions.iter().any(|version| version["name"] == wanted && version["served"] == true)
    };
    ["v1beta1", "v1alpha1"].into_iter().find(|wanted| is_served(wanted)).map(str::to_owned)
}

const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
const MCS_GROUP: &str = "multicluster.x-k8s.io";
const CHANNEL_ANNOTATION: &str = "gateway.networking.k8s.io/channel";
const GATEWAY_REQUIRED: &[&str] = &["gatewayclasses", "gateways", "httproutes", "referencegrants"];
const GATEWAY_OPTIONAL: &[&str] =
    &["backendtlspolicies", "grpcroutes", "listenersets", "tcproutes", "tlsroutes", "udproutes"];
const MCS_REQUIRED: &[&str] = &["serviceexports", "serviceimports"];
const GATEWAY_SOURCE: &str = "  kubectl apply --server-side -f https://github.com/kubernetes-sigs/\
    gateway-api/releases/download/v1.6.3/standard-install.yaml";
const MCS_SOURCE: &str = "  kubectl apply --server-side -k \
    'https://github.com/kubernetes-sigs/mcs-api/config/crd?ref=v0.5.2'";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn crd(group: &str, plural: &str) -> Value {
        json!({
            "metadata": { "annotations": {
                VERSION_ANNOTATION: "v1.6.3", CHANNEL_ANNOTATION: "standard",
            } },
            "spec": {
                "group": group, "names": { "plural": plural },
                "versions": [{ "name": "v1alpha1", "served": true }],
            },
        })
    }

    #[test]
    fn what_is_missing_is_named_with_the_command_that_adds_it() {
        let missing = Prerequisites::of(&[crd(GATEWAY_GROUP, "gateways")]).missing();
        assert!(missing[0].contains("(gatewayclasses, httproutes, referencegrants)"));
        assert!(missing[0].contains("v1.6.3/standard-install.yaml"), "{missing:?}");
        assert!(missing[1].contains("(serviceexports, serviceimports)"));
    }

    #[test]
    fn what_is_there_is_told_by_version_and_channel() {
        let mut crds: Vec<Value> =
            GATEWAY_REQUIRED.iter().map(|plural| crd(GATEWAY_GROUP, plural)).collect();
        crds.extend(MCS_REQUIRED.iter().map(|plural| crd(MCS_GROUP, plural)));
        crds.push(crd("about.k8s.io", "clusterproperties"));
        let found = Prerequisites::of(&crds);
        assert!(found.missing().is_empty());
        assert_eq!(found.lines()[0], "Gateway API v1.6.3, standard channel");
        assert!(found.lines()[1].contains("without backendtlspolicies"));
        assert_eq!(found.properties(), Some("v1alpha1"));
    }
}
