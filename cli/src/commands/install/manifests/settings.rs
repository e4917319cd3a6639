//! The settings of each process, as one ConfigMap.

use isthmus_model::name::SYSTEM_NAMESPACE;
use serde_json::{Value, json};

use super::{COMPONENTS, meta};
use crate::commands::install::values::{IpFamily, Values};

/// The ConfigMap with a key for each component.
pub(super) fn config_map(values: &Values) -> Value {
    let mut data = json!({});
    for component in COMPONENTS {
        data[format!("{component}.yaml")] = json!(text(component, values));
    }
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": meta("isthmus-settings", ""),
        "data": data,
    })
}

/// The settings file of a component. JSON is YAML; it is printed so that it can be read.
pub(super) fn text(component: &str, values: &Values) -> String {
    let settings = settings(component, values);
    // Only keys that are not text could fail, and there are none.
    serde_saphyr::to_string(&settings).unwrap_or_else(|_| settings.to_string())
}

/// The settings of a component: one role, on every address of the pod.
fn settings(component: &str, values: &Values) -> Value {
    let any = any_address(values);
    let is = |role: &str| component == role;
    let listen = |port: u16| json!(format!("{}:{port}", if any == "::" { "[::]" } else { any }));
    let mut settings = json!({
        "cluster": values.cluster.name,
        "clusterset": values.clusterset.name,
        "region": values.cluster.region,
        "zone": values.cluster.zone,
        "state": "/var/lib/isthmus",
        "drain": { "delay": if is("controller") { "0s" } else { "5s" }, "deadline": "30s" },
        "ingress": { "enabled": is("eastwest"), "address": any },
        "eastwest": { "enabled": is("eastwest") },
        "controller": { "enabled": is("controller") },
        "ca": { "enabled": is("controller") },
        "dns": { "enabled": is("dns") },
        "telemetry": {
            "accessLog": values.telemetry.access_log,
            "sampling": values.telemetry.sampling,
            "metrics": listen(METRICS),
            "ready": listen(READY),
        },
        "log": { "filter": values.log.filter, "format": values.log.format },
        "kubernetes": {},
    });
    if !values.trust_domain.is_empty() {
        settings["trustDomain"] = json!(values.trust_domain);
    }
    if !values.telemetry.otlp.is_empty() {
        settings["telemetry"]["otlp"] = json!(values.telemetry.otlp);
    }
    match component {
        "controller" => {
            settings["controller"]["discovery"] = listen(DISCOVERY);
            settings["controller"]["federation"] = listen(FEDERATION);
            settings["kubernetes"]["gatewayImage"] = json!(values.gateway_image());
            settings["kubernetes"]["gatewayImagePullPolicy"] = json!(values.image.pull_policy);
            settings["kubernetes"]["tokenAuthority"] = listen(AUTHORITY);
        }
        "eastwest" => {
            settings["eastwest"]["link"] = listen(LINK);
            settings["eastwest"]["mesh"] = listen(MESH);
            data_plane(&mut settings);
        }
        _ => {
            settings["dns"]["address"] = listen(DNS);
            data_plane(&mut settings);
        }
    }
    settings
}

fn data_plane(settings: &mut Value) {
    let at = |port: u16| json!(format!("isthmus-controller.{SYSTEM_NAMESPACE}.svc:{port}"));
    settings["kubernetes"]["authority"] = at(AUTHORITY);
    settings["kubernetes"]["discovery"] = at(DISCOVERY);
}

/// Every address of a pod. One without IPv6 cannot bind `::`.
fn any_address(values: &Values) -> &'static str {
    if values.ip_families.contains(&IpFamily::IPv6) { "::" } else { "0.0.0.0" }
}

/// Where pods get certificates.
pub(super) const AUTHORITY: u16 = 15010;
/// Where the data plane subscribes.
pub(super) const DISCOVERY: u16 = 15012;
/// Where other clusters' controllers arrive.
pub(super) const FEDERATION: u16 = 15013;
/// Where other clusters' links arrive.
pub(super) const LINK: u16 = 15443;
/// Where this cluster's own workloads reach the east-west gateway.
pub(super) const MESH: u16 = 15008;
/// Where the DNS server answers.
pub(super) const DNS: u16 = 15053;
/// Where metrics are scraped.
pub(super) const METRICS: u16 = 15020;
/// Where probes ask.
pub(super) const READY: u16 = 15021;
