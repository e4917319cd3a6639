//! What an installation is told: the values of the chart, which are those of
//! `isthmus install` too.
//!
//! One set of types serves both: `values.schema.json` is generated from it, a test holds
//! the defaults against `values.yaml`, and `--set`, `--values` and the flags of
//! `isthmus install` end here. So a file that was made for one works for the other.

mod telemetry;

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use isthmus_model::{ClusterId, ObjectName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use self::telemetry::{Log, Telemetry};

/// The values of an installation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Values {
    /// The cluster.
    pub(crate) cluster: Cluster,
    /// The clusterset.
    pub(crate) clusterset: Clusterset,
    /// The trust domain of the cluster's identities; empty is <cluster>.<clusterset>.
    pub(crate) trust_domain: String,
    /// The families of our Services; empty is the cluster's default.
    pub(crate) ip_families: Vec<IpFamily>,
    /// The image of every component.
    pub(crate) image: Image,
    /// Secrets in isthmus-system with the logins of registries.
    pub(crate) image_pull_secrets: Vec<SecretName>,
    /// The controller.
    pub(crate) controller: Component,
    /// The east-west gateway.
    pub(crate) eastwest: EastWest,
    /// The DNS server.
    pub(crate) dns: Dns,
    /// The gateways that are provisioned.
    pub(crate) gateways: Gateways,
    /// The GatewayClass isthmus.
    pub(crate) gateway_class: Switch,
    /// Whether the ClusterProperty objects of the cluster are made.
    pub(crate) cluster_properties: ClusterProperties,
    /// NetworkPolicies.
    pub(crate) network_policy: Switch,
    /// PodDisruptionBudgets.
    pub(crate) pod_disruption_budget: Switch,
    /// The logs of the processes.
    pub(crate) log: Log,
    /// Traces, metrics and the access log.
    pub(crate) telemetry: Telemetry,
}

impl Values {
    /// Merges texts of YAML and `path=value` over the defaults, the later over the earlier.
    ///
    /// # Errors
    ///
    /// Names the file or the path that does not fit.
    pub(crate) fn read(
        files: &[(String, String)],
        sets: &[(String, Value)],
    ) -> anyhow::Result<Self> {
        let mut merged = serde_json::to_value(Self::default())?;
        for (name, text) in files {
            let value: Value = serde_saphyr::from_str(text).with_context(|| name.clone())?;
            merge(&mut merged, value);
            check(&merged).with_context(|| name.clone())?;
        }
        for (path, value) in sets {
            let keys = path.split('.').rev();
            let nested = keys.fold(value.clone(), |value, key| json!({ key: value }));
            merge(&mut merged, nested);
            check(&merged).with_context(|| format!("--set {path}={value}"))?;
        }
        let values = check(&merged)?;
        values.validate()?;
        Ok(values)
    }

    /// Checks what the types cannot.
    fn validate(&self) -> anyhow::Result<()> {
        let name = &self.cluster.name;
        if name.is_empty() {
            bail!("cluster.name is missing: say --cluster NAME, unique in the clusterset");
        }
        ClusterId::new(name).with_context(|| format!("cluster.name {name:?}"))?;
        let set = &self.clusterset.name;
        ObjectName::new(set).with_context(|| format!("clusterset.name {set:?}"))?;
        let replicas = [
            ("controller", self.controller.replicas),
            ("eastwest", self.eastwest.component.replicas),
            ("dns", self.dns.component.replicas),
        ];
        for (part, replicas) in replicas {
            if replicas > REPLICAS_MAX {
                bail!("{part}.replicas is {replicas}; at most {REPLICAS_MAX}");
            }
        }
        Ok(())
    }

    /// The image of our components.
    pub(crate) fn image(&self) -> String {
        format!("{}:{}", self.image.repository, self.image.tag)
    }

    /// The image of provisioned gateways.
    pub(crate) fn gateway_image(&self) -> String {
        if self.gateways.image.is_empty() { self.image() } else { self.gateways.image.clone() }
    }
}

/// The cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Cluster {
    /// The id of the cluster, unique in its clusterset. Required.
    pub(crate) name: String,
    /// The region of the cluster, for pods whose node does not say its own.
    pub(crate) region: String,
    /// The zone of the cluster, for pods whose node does not say its own.
    pub(crate) zone: String,
}

/// The clusterset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Clusterset {
    /// Its name, the same in every cluster that is to be linked.
    pub(crate) name: String,
}

impl Default for Clusterset {
    fn default() -> Self {
        Self { name: "default".to_owned() }
    }
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum IpFamily {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Image {
    /// The repository.
    pub(crate) repository: String,
    /// The tag.
    pub(crate) tag: String,
    /// When it is pulled.
    pub(crate) pull_policy: PullPolicy,
}

impl Default for Image {
    fn default() -> Self {
        let pull_policy = PullPolicy::IfNotPresent;
        Self { repository: "isthmus".to_owned(), tag: "dev".to_owned(), pull_policy }
    }
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum PullPolicy {
    /// At every start.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Never.
    Never,
}

/// Names a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecretName {
    /// The name.
    pub(crate) name: String,
}

/// What every Deployment has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Component {
    /// Pods, 0 to 100.
    #[schemars(range(min = 0, max = 100))]
    pub(crate) replicas: u32,
    /// Resources of the container, as in a pod.
    #[schemars(with = "Map<String, Value>")]
    pub(crate) resources: Value,
    /// Labels of the nodes that may have the pods.
    pub(crate) node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate, as in a pod.
    #[schemars(with = "Vec<Map<String, Value>>")]
    pub(crate) tolerations: Vec<Value>,
    /// The priority class of the pods; empty is the cluster's default.
    pub(crate) priority_class_name: String,
}

impl Component {
    fn new(replicas: u32, cpu: &str, memory: &str, limit: &str) -> Self {
        Self {
            replicas,
            resources: json!({
                "requests": { "cpu": cpu, "memory": memory }, "limits": { "memory": limit },
            }),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            priority_class_name: String::new(),
        }
    }
}

impl Default for Component {
    fn default() -> Self {
        Self::new(2, "50m", "64Mi", "1Gi")
    }
}

/// The east-west gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EastWest {
    /// Its Deployment.
    #[serde(flatten)]
    pub(crate) component: Component,
    /// The Service that other clusters reach.
    pub(crate) service: LinkService,
}

impl Default for EastWest {
    fn default() -> Self {
        let component = Component::new(1, "100m", "64Mi", "1Gi");
        Self { component, service: LinkService::default() }
    }
}

/// The Service that other clusters reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct LinkService {
    /// The type.
    #[serde(rename = "type")]
    pub(crate) kind: ServiceType,
    /// Annotations, which many load balancers are set up by.
    pub(crate) annotations: BTreeMap<String, String>,
    /// The address to ask for; empty is any.
    #[serde(rename = "loadBalancerIP")]
    pub(crate) load_balancer_ip: String,
    /// The class of the load balancer; empty is the cluster's default.
    pub(crate) load_balancer_class: String,
    /// Local keeps the peers' addresses and sends only to nodes that have a pod.
    pub(crate) external_traffic_policy: TrafficPolicy,
}

impl Default for LinkService {
    fn default() -> Self {
        Self {
            kind: ServiceType::LoadBalancer,
            annotations: BTreeMap::new(),
            load_balancer_ip: String::new(),
            load_balancer_class: String::new(),
            external_traffic_policy: TrafficPolicy::Cluster,
        }
    }
}

/// The type of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum ServiceType {
    /// Reached inside the cluster only: this cluster dials the others.
    ClusterIP,
    /// Reached by a load balancer.
    LoadBalancer,
    /// Reached by a port of every node.
    NodePort,
}

/// Where a load balancer's traffic may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum TrafficPolicy {
    /// To any node.
    Cluster,
    /// To nodes that have a pod.
    Local,
}

/// The DNS server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Dns {
    /// Its Deployment.
    #[serde(flatten)]
    pub(crate) component: Component,
}

impl Default for Dns {
    fn default() -> Self {
        Self { component: Component::new(2, "20m", "32Mi", "256Mi") }
    }
}

/// The gateways that are provisioned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Gateways {
    /// Their image; empty is that of the components.
    pub(crate) image: String,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Switch {
    /// Whether it is made.
    pub(crate) enabled: bool,
}

impl Default for Switch {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// Whether the ClusterProperty objects are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ClusterProperties {
    /// When the cluster serves the kind.
    #[default]
    Auto,
    /// Yes.
    Always,
    /// No: somebody else names the cluster.
    Never,
}

/// Maps are merged, anything else is replaced, as Helm does it; null leaves the default.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (into, from) => *into = from,
    }
}

fn check(merged: &Value) -> anyhow::Result<Values> {
    for part in ["eastwest", "dns"] {
        check_flattened(merged, part)?;
    }
    Ok(serde_path_to_error::deserialize(merged)?)
}

/// Refuses unknown fields where serde does not, because of `flatten`.
fn check_flattened(merged: &Value, part: &str) -> anyhow::Result<()> {
    let known = serde_json::to_value(Values::default())?;
    let fields = |value: &Value| value.get(part).and_then(Value::as_object).cloned();
    let known = fields(&known).unwrap_or_default();
    for name in fields(merged).unwrap_or_default().keys() {
        if !known.contains_key(name) {
            bail!("{part}.{name}: there is no such value");
        }
    }
    Ok(())
}

const REPLICAS_MAX: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, sets: &[(&str, Value)]) -> anyhow::Result<Values> {
        let sets: Vec<_> = sets.iter().map(|(path, v)| ((*path).to_owned(), v.clone())).collect();
        Values::read(&[("values.yaml".to_owned(), text.to_owned())], &sets)
    }

    #[test]
    fn a_later_value_wins_and_its_neighbours_stay() {
        let text = "{cluster: {name: a, region: r}, dns: {replicas: 3}}";
        let values = read(text, &[("cluster.name", json!("b")), ("image.tag", json!("v2"))]);
        let values = values.unwrap();
        assert_eq!((values.cluster.name.as_str(), values.cluster.region.as_str()), ("b", "r"));
        assert_eq!(values.dns.component.replicas, 3);
        assert_eq!(values.image(), "isthmus:v2");
        assert_eq!(values.gateway_image(), "isthmus:v2");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (text, want) in [
            ("{}", "cluster.name is missing"),
            ("{cluster: {name: A_b}}", "cluster.name \"A_b\""),
            ("{cluster: {name: a}, dns: {replica: 2}}", "dns.replica: there is no such value"),
            ("{cluster: {name: a}, eastwest: {replicas: 101}}", "at most 100"),
            ("{cluster: {name: a}, log: {format: xml}}", "log.format"),
        ] {
            let error = format!("{:#}", read(text, &[]).unwrap_err());
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn the_values_of_the_chart_are_the_defaults() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/helm/isthmus/values.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        let chart: Value = serde_saphyr::from_str(&text).unwrap();
        let ours = serde_json::to_value(Values::default()).unwrap();
        let numbers = |value: &Value| value.to_string().replace("1.0", "1");
        let sorted = |value: &Value| -> BTreeMap<String, Value> {
            serde_json::from_str(&numbers(value)).unwrap()
        };
        assert_eq!(sorted(&chart), sorted(&ours));
    }
}
