//! Settings of a process that runs in a Kubernetes cluster, or controls one.
//!
//! With this block the controller reads objects from the API server instead of a folder,
//! keeps its keys in a Secret and writes only while it holds the Lease; the data plane
//! proves itself by the token of its pod instead of a Unix user.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use isthmus_kubernetes::{Access, Selection};
use isthmus_model::{Label, Locality};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A process in a Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct KubernetesSettings {
    /// Controller: the kubeconfig. Default: the pod's service account; outside a pod the
    /// files that kubectl reads.
    #[schemars(example = "/etc/isthmus/kubeconfig")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Controller: the context of the kubeconfig. Default: its current one.
    #[schemars(example = &"east")]
    pub(crate) context: Option<String>,
    /// Controller: the namespaces whose objects are read; empty means all.
    pub(crate) namespaces: Vec<String>,
    /// Controller: labels that a namespace must have for its objects to be read.
    pub(crate) namespace_labels: BTreeMap<String, String>,
    /// Controller: the image of the gateways that are made for Gateway objects.
    pub(crate) gateway_image: String,
    /// Controller: imagePullPolicy of these gateways. Default: left to the API server.
    #[schemars(example = &"IfNotPresent")]
    pub(crate) gateway_image_pull_policy: Option<String>,
    /// Controller: where pods get certificates by their token, TLS.
    #[schemars(with = "String")]
    pub(crate) token_authority: SocketAddr,
    /// Data plane: host:port of the controller's certificate service.
    pub(crate) authority: String,
    /// Data plane: host:port of the controller's discovery.
    pub(crate) discovery: String,
    /// Gateways: ip:port of the east-west gateway's mesh port. Default: none, which means
    /// that no other cluster is reached.
    #[schemars(with = "Option<String>", example = "10.96.0.7:15008")]
    pub(crate) eastwest: Option<SocketAddr>,
    /// Data plane: the projected token of the pod.
    pub(crate) token_file: PathBuf,
    /// Data plane: the roots of the cluster, PEM.
    pub(crate) roots_file: PathBuf,
    /// Data plane: the pod's labels as a downward API volume has them; the topology labels
    /// among them say where the pod runs.
    pub(crate) pod_labels: PathBuf,
    /// Gateways: whom the pod runs as. Default: the account of the role in isthmus-system.
    #[schemars(example = serde_json::json!({ "namespace": "shop", "serviceAccount": "edge-isthmus" }))]
    pub(crate) workload: Option<WorkloadSettings>,
}

/// The service account of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct WorkloadSettings {
    /// The namespace of the pod.
    #[schemars(with = "String")]
    pub(crate) namespace: Label,
    /// The service account of the pod.
    #[schemars(with = "String")]
    pub(crate) service_account: Label,
}

impl Default for KubernetesSettings {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            context: None,
            namespaces: Vec::new(),
            namespace_labels: BTreeMap::new(),
            gateway_image: "isthmus:dev".to_owned(),
            gateway_image_pull_policy: None,
            token_authority: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 15010),
            authority: "isthmus-controller.isthmus-system.svc:15010".to_owned(),
            discovery: "isthmus-controller.isthmus-system.svc:15012".to_owned(),
            eastwest: None,
            token_file: "/var/run/secrets/isthmus/token".into(),
            roots_file: "/var/run/isthmus/roots/roots.pem".into(),
            pod_labels: "/etc/isthmus/pod/labels".into(),
            workload: None,
        }
    }
}

impl KubernetesSettings {
    /// How the API server is reached.
    pub(crate) fn access(&self) -> Access {
        let is_in_pod = Path::new(POD_TOKEN).exists();
        if self.kubeconfig.is_none() && self.context.is_none() && is_in_pod {
            return Access::InCluster;
        }
        Access::Kubeconfig { path: self.kubeconfig.clone(), context: self.context.clone() }
    }

    /// What is watched.
    pub(crate) fn selection(&self) -> Selection {
        Selection {
            namespaces: self.namespaces.clone(),
            namespace_labels: self.namespace_labels.clone(),
            object_labels: BTreeMap::new(),
        }
    }

    /// Where this pod runs, by the topology labels that Kubernetes copies from its node;
    /// `otherwise` where there are none.
    ///
    /// Spec: Kubernetes 1.35 "Pod topology labels".
    pub(crate) fn locality(&self, otherwise: Locality) -> Locality {
        let Ok(text) = std::fs::read_to_string(&self.pod_labels) else { return otherwise };
        locality_of(&text).unwrap_or(otherwise)
    }

    /// Makes paths absolute.
    pub(super) fn resolved(mut self, resolve: impl Fn(&Path) -> PathBuf) -> Self {
        self.kubeconfig = self.kubeconfig.map(|path| resolve(&path));
        for path in [&mut self.token_file, &mut self.roots_file, &mut self.pod_labels] {
            *path = resolve(path);
        }
        self
    }
}

/// The locality in the text of a downward API file: a line `key="value"` for each label.
fn locality_of(text: &str) -> Option<Locality> {
    let value = |label: &str| {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        let found = lines.filter(|(key, _)| *key == label).map(|(_, value)| value).next();
        found.map(|value| value.trim_matches('"')).unwrap_or_default()
    };
    let (region, zone) =
        (value("topology.kubernetes.io/region"), value("topology.kubernetes.io/zone"));
    (!region.is_empty() || !zone.is_empty()).then(|| Locality::new(region, zone))
}

/// What every pod has that may use the API server.
const POD_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topology_labels_of_the_pod_are_its_locality() {
        let text =
            "app=\"x\"\ntopology.kubernetes.io/region=\"eu\"\ntopology.kubernetes.io/zone=\"eu-a\"";
        assert_eq!(locality_of(text), Some(Locality::new("eu", "eu-a")));
        assert_eq!(locality_of("app=\"x\""), None);
    }
}
