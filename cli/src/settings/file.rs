//! The settings file as it is written.
//!
//! The documentation of these fields, and of the types below them, is what
//! `isthmus up --print-settings` prints.

use std::path::{Path, PathBuf};

use isthmus_model::{ClusterId, ObjectName, TrustDomain};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    CaSettings, ControllerSettings, DnsSettings, DrainSettings, EastWestSettings, IngressSettings,
    KubernetesSettings, LogSettings, Problem, Settings, SidecarSettings, TelemetrySettings,
};

/// Settings of one cluster, for `isthmus up -f cluster.yaml`.
///
/// Durations are text: 500ms, 30s, 1h30m, 7d. Paths are relative to this file. An unknown
/// field is an error. Settings are read once, at the start.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    /// The id of the cluster, unique in its clusterset. Required.
    #[schemars(with = "String")]
    pub(super) cluster: ClusterId,
    /// The clusterset that the cluster belongs to. Required.
    #[schemars(with = "String")]
    pub(super) clusterset: ObjectName,
    /// The trust domain of the cluster's identities.
    /// Default: <cluster>.<clusterset>.
    #[schemars(with = "Option<String>", example = "aws-us-east.demo")]
    #[serde(default)]
    pub(super) trust_domain: Option<TrustDomain>,
    /// The region of the cluster, as the node label topology.kubernetes.io/region has it.
    /// Default: empty, which is near to no other region.
    #[serde(default)]
    pub(super) region: String,
    /// The zone of the cluster, as the node label topology.kubernetes.io/zone has it.
    /// Default: empty, which is near to no other zone.
    #[serde(default)]
    pub(super) zone: String,
    /// The folder of manifests (Service, EndpointSlice, Gateway, HTTPRoute,
    /// ServiceExport, ClusterLink, ...). It is watched; changes take effect at once.
    #[serde(default = "default_manifests")]
    pub(super) manifests: PathBuf,
    /// The folder of keys, certificates and last good state. It is created with mode 0700.
    #[serde(default = "default_state")]
    pub(super) state: PathBuf,
    /// Data plane threads of each role; 0 means one for each core. At most 1024.
    #[serde(default)]
    pub(super) workers: usize,
    /// How a process ends on SIGTERM or SIGINT.
    #[serde(default)]
    pub(super) drain: DrainSettings,
    /// The ingress gateway: requests from outside, by Gateway and HTTPRoute.
    #[serde(default)]
    pub(super) ingress: IngressSettings,
    /// The east-west gateway: links to other clusters.
    #[serde(default)]
    pub(super) eastwest: EastWestSettings,
    /// The controller: reads manifests, talks to other clusters' controllers, configures
    /// gateways, sidecars and DNS.
    #[serde(default)]
    pub(super) controller: ControllerSettings,
    /// The certificate authority of the cluster.
    #[serde(default)]
    pub(super) ca: CaSettings,
    /// The DNS server: clusterset.local, cluster.local, and other names by forwarding.
    #[serde(default)]
    pub(super) dns: DnsSettings,
    /// Objects from a Kubernetes cluster instead of a folder, identities by pods' tokens.
    /// Default: none, which means `manifests` and Unix users.
    #[schemars(example = serde_json::json!({ "context": "east" }))]
    #[serde(default)]
    pub(super) kubernetes: Option<KubernetesSettings>,
    /// Metrics, traces, the access log, and the ports that show the state.
    #[serde(default)]
    pub(super) telemetry: TelemetrySettings,
    /// The log of the process, on standard error.
    #[serde(default)]
    pub(super) log: LogSettings,
    /// The workloads that have a sidecar. An endpoint of a Service that is not listed
    /// here is reached in plaintext. Default: none.
    #[serde(default)]
    pub(super) sidecars: Vec<SidecarSettings>,
}

impl File {
    /// Fills in what depends on other fields and makes paths absolute.
    ///
    /// `path` is the absolute path of the file.
    pub(super) fn into_settings(self, path: PathBuf) -> Result<Settings, Problem> {
        let folder = path.parent().unwrap_or_else(|| Path::new("/")).to_path_buf();
        let trust_domain = match self.trust_domain {
            Some(trust_domain) => trust_domain,
            None => TrustDomain::new(&format!("{}.{}", self.cluster, self.clusterset))
                .map_err(|error| Problem::new("trustDomain", error.to_string()))?,
        };
        let mut ca = self.ca;
        if let Some(user) = &mut ca.user_intermediate {
            for file in [&mut user.chain, &mut user.key, &mut user.root] {
                *file = resolve(&folder, file);
            }
        }
        let mut telemetry = self.telemetry;
        telemetry.access_log_file = telemetry.access_log_file.map(|file| resolve(&folder, &file));
        Ok(Settings {
            cluster: self.cluster,
            clusterset: self.clusterset,
            trust_domain,
            region: self.region,
            zone: self.zone,
            manifests: resolve(&folder, &self.manifests),
            state: resolve(&folder, &self.state),
            workers: self.workers,
            drain: self.drain,
            ingress: self.ingress,
            eastwest: self.eastwest,
            controller: self.controller,
            ca,
            dns: self.dns,
            kubernetes: self.kubernetes.map(|own| own.resolved(|path| resolve(&folder, path))),
            telemetry,
            log: self.log,
            sidecars: self.sidecars,
            file: path,
        })
    }
}

/// Joins and drops `.` components, so that messages show plain paths.
fn resolve(folder: &Path, path: &Path) -> PathBuf {
    folder.join(path).components().collect()
}

fn default_manifests() -> PathBuf {
    PathBuf::from("./manifests")
}

fn default_state() -> PathBuf {
    PathBuf::from("./state")
}
