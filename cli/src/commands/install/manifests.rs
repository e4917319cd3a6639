//! The objects of an installation, as values of JSON.
//!
//! They are what the chart in `deploy/helm/isthmus` renders for the same values;
//! `tests/conformance/chart/run` renders both and compares. Only the label
//! [`MANAGED_LABEL`] differs: it says who has made an object. It is never that of the
//! controllers, which delete objects of theirs that they do not desire.
//!
//! # Flow
//!
//! 1. `accounts`: who may do what.
//! 2. `settings`: the settings of each process.
//! 3. `pods`: Deployments and PodDisruptionBudgets.
//! 4. `network`: Services and NetworkPolicies.
//! 5. [`objects`]: all of them, in the order in which they are applied.

mod accounts;

mod network;

mod pods;

mod settings;

use isthmus_kubernetes::apply::MANAGED_LABEL;
use isthmus_model::name::SYSTEM_NAMESPACE;
use serde_json::{Value, json};

use super::values::{ClusterProperties, Values};

/// The namespace of everything. Pods of ours keep to the strictest of the standards.
///
/// Spec: Kubernetes "Pod Security Standards", Restricted.
pub(crate) fn namespace() -> Value {
    let mut labels = labels("");
    labels["pod-security.kubernetes.io/enforce"] = json!("restricted");
    labels["pod-security.kubernetes.io/warn"] = json!("restricted");
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": SYSTEM_NAMESPACE, "labels": labels },
    })
}

/// Everything but the CRDs and the namespace, in the order in which it is applied.
///
/// `properties` is the version of about.k8s.io in which the cluster serves
/// ClusterProperty.
pub(crate) fn objects(values: &Values, properties: Option<&str>) -> Vec<Value> {
    let mut objects = accounts::objects(values);
    objects.push(settings::config_map(values));
    objects.extend(network::services(values));
    if values.network_policy.enabled {
        objects.extend(network::policies());
    }
    objects.extend(pods::deployments(values));
    if values.pod_disruption_budget.enabled {
        objects.extend(pods::budgets());
    }
    if values.gateway_class.enabled {
        objects.push(gateway_class());
    }
    objects.extend(cluster_properties(values, properties));
    objects
}

fn gateway_class() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": { "name": GATEWAY_CLASS, "labels": labels("controller") },
        "spec": {
            "controllerName": "isthmus.io/gateway-controller",
            "description": "Gateways of Isthmus, a Deployment and a Service for each",
        },
    })
}

/// Spec: KEP-2149, the well-known properties of a cluster in a clusterset.
fn cluster_properties(values: &Values, served: Option<&str>) -> Vec<Value> {
    let version = match values.cluster_properties {
        ClusterProperties::Always => served.unwrap_or(PROPERTY_VERSION),
        ClusterProperties::Auto => match served {
            Some(version) => version,
            None => return Vec::new(),
        },
        ClusterProperties::Never => return Vec::new(),
    };
    let property = |name: &str, value: &str| {
        json!({
            "apiVersion": format!("about.k8s.io/{version}"), "kind": "ClusterProperty",
            "metadata": { "name": name, "labels": labels("controller") },
            "spec": { "value": value },
        })
    };
    vec![
        property("cluster.clusterset.k8s.io", &values.cluster.name),
        property("clusterset.k8s.io", &values.clusterset.name),
    ]
}

/// The labels of an object of a component; the empty one is the product as a whole.
fn labels(component: &str) -> Value {
    let mut labels = json!({
        "app.kubernetes.io/name": "isthmus",
        PART_LABEL: PART,
        MANAGED_LABEL: MANAGER,
    });
    if !component.is_empty() {
        labels[COMPONENT_LABEL] = json!(component);
    }
    labels
}

/// What finds the pods of a component.
fn selector(component: &str) -> Value {
    json!({ "app.kubernetes.io/name": "isthmus", COMPONENT_LABEL: component })
}

/// `isthmus-controller` and its kin.
fn full_name(component: &str) -> String {
    format!("isthmus-{component}")
}

fn meta(name: &str, component: &str) -> Value {
    json!({ "name": name, "namespace": SYSTEM_NAMESPACE, "labels": labels(component) })
}

fn cluster_meta(name: &str, component: &str) -> Value {
    json!({ "name": name, "labels": labels(component) })
}

/// Who we are in `managedFields` and in [`MANAGED_LABEL`].
pub(crate) const MANAGER: &str = "isthmus-install";
/// The label of everything that an installation has, by `isthmus install` or the chart.
pub(crate) const PART_LABEL: &str = "app.kubernetes.io/part-of";
/// The value of [`PART_LABEL`].
pub(crate) const PART: &str = "isthmus";
/// The label with the component of an object.
pub(crate) const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// The components, each a Deployment, in the order in which they start.
pub(crate) const COMPONENTS: [&str; 3] = ["controller", "eastwest", "dns"];
/// The class that Gateways name.
pub(crate) const GATEWAY_CLASS: &str = "isthmus";
/// The version of ClusterProperty where the cluster is not asked.
const PROPERTY_VERSION: &str = "v1beta1";

#[cfg(test)]
mod tests;
