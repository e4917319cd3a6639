//! The settings file of the pods of a set.
//!
//! What is in it changes only by restarting the pods, which its hash in the pod template
//! does; so nothing of listeners or roots is here.

use serde_json::{Value, json};

use crate::provision::ProvisionSettings;
use crate::provision::set::{ADMIN_PORT, METRICS_PORT, READY_PORT, Set};

/// The ConfigMap with the settings file.
pub(super) fn config_map(set: &Set<'_>, uid: &str, text: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": set.plain_metadata(uid),
        "data": { FILE: text },
    })
}

/// The settings file, YAML.
pub(super) fn text(settings: &ProvisionSettings, set: &Set<'_>) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    let optional =
        |text: &Option<String>| text.as_deref().map_or_else(|| "null".to_owned(), quoted);
    let socket = |port| quoted(&std::net::SocketAddr::new(settings.bind, port).to_string());
    let cluster = quoted(settings.cluster.as_str());
    let clusterset = quoted(settings.clusterset.as_str());
    let trust_domain = quoted(settings.trust_domain.as_str());
    let (region, zone) = (quoted(&settings.region), quoted(&settings.zone));
    let workers = set.parameters.workers;
    let bind = quoted(&settings.bind.to_string());
    let (otlp, filter) = (optional(&settings.otlp), quoted(&settings.log_filter));
    let (metrics, ready) = (socket(METRICS_PORT), socket(READY_PORT));
    let (authority, discovery) = (quoted(&settings.authority), quoted(&settings.discovery));
    let eastwest = optional(&settings.eastwest);
    let (namespace, account) = (quoted(set.namespace.as_str()), quoted(set.name.as_str()));
    format!(
        "cluster: {cluster}
clusterset: {clusterset}
trustDomain: {trust_domain}
region: {region}
zone: {zone}
state: {STATE}
workers: {workers}
drain:
  delay: {DRAIN_DELAY}
  deadline: {DRAIN_DEADLINE}
ingress:
  enabled: true
  address: {bind}
eastwest:
  enabled: false
controller:
  enabled: false
ca:
  enabled: false
dns:
  enabled: false
kubernetes:
  authority: {authority}
  discovery: {discovery}
  eastwest: {eastwest}
  tokenFile: {TOKEN_FOLDER}/token
  rootsFile: {ROOTS_FOLDER}/roots.pem
  podLabels: {FOLDER}/pod/labels
  workload:
    namespace: {namespace}
    serviceAccount: {account}
telemetry:
  otlp: {otlp}
  metrics: {metrics}
  ready: {ready}
  admin: 127.0.0.1:{ADMIN_PORT}
log:
  format: json
  filter: {filter}
"
    )
}

/// Where the settings file and the labels of the pod are.
pub(super) const FOLDER: &str = "/etc/isthmus";
/// The settings file, and its key in the ConfigMap.
pub(super) const FILE: &str = "cluster.yaml";
/// Where the pod's token is.
pub(super) const TOKEN_FOLDER: &str = "/var/run/secrets/isthmus";
/// Where the roots of the cluster are.
pub(super) const ROOTS_FOLDER: &str = "/var/run/isthmus/roots";
/// The volume of the last good state.
pub(super) const STATE_VOLUME: &str = "/var/lib/isthmus";
/// The folder in it, which the process makes itself, with its own mode.
const STATE: &str = "/var/lib/isthmus/state";
/// How long a pod that ends still takes connections, so that endpoints are updated.
const DRAIN_DELAY: &str = "5s";
/// How long its open connections may then go on; together with the delay less than the
/// grace period of the pod.
const DRAIN_DEADLINE: &str = "30s";
