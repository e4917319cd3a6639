//! Deployments and PodDisruptionBudgets.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use isthmus_kubernetes::token_review::AUDIENCE;
use serde_json::{Value, json};

use super::settings::{AUTHORITY, DISCOVERY, DNS, FEDERATION, LINK, MESH, METRICS, READY, text};
use super::{COMPONENTS, full_name, meta, selector};
use crate::commands::install::values::{Component, Values};

/// A Deployment for each component.
pub(super) fn deployments(values: &Values) -> Vec<Value> {
    COMPONENTS.iter().map(|component| deployment(component, values)).collect()
}

/// Drains take one pod at a time.
pub(super) fn budgets() -> Vec<Value> {
    let budget = |component: &&str| {
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": meta(&full_name(component), component),
            "spec": {
                "maxUnavailable": 1,
                "selector": { "matchLabels": selector(component) },
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            },
        })
    };
    COMPONENTS.iter().map(budget).collect()
}

fn deployment(component: &str, values: &Values) -> Value {
    let wanted = wanted(component, values);
    let mut labels = super::labels(component);
    // Not a part of what is made, but of what runs: the same whoever made it.
    if let Some(labels) = labels.as_object_mut() {
        labels.remove(super::MANAGED_LABEL);
    }
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": meta(&full_name(component), component),
        "spec": {
            "replicas": wanted.replicas,
            "selector": { "matchLabels": selector(component) },
            "strategy": {
                "type": "RollingUpdate",
                // A new pod is ready before an old one goes.
                "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 },
            },
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": { SETTINGS_HASH: hash(&text(component, values)) },
                },
                "spec": pod(component, values),
            },
        },
    })
}

fn pod(component: &str, values: &Values) -> Value {
    let wanted = wanted(component, values);
    let is_controller = component == "controller";
    let mut security = json!({
        "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    if component == "eastwest" {
        security["sysctls"] =
            json!([{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "0" }]);
    }
    let mut pod = json!({
        "serviceAccountName": full_name(component),
        "automountServiceAccountToken": is_controller,
        "enableServiceLinks": false,
        "securityContext": security,
        "terminationGracePeriodSeconds": grace_seconds(component),
        "topologySpreadConstraints": [
            spread(component, "topology.kubernetes.io/zone"),
            spread(component, "kubernetes.io/hostname"),
        ],
        "containers": [container(component, values)],
        "volumes": volumes(component),
    });
    if !values.image_pull_secrets.is_empty() {
        pod["imagePullSecrets"] = json!(values.image_pull_secrets);
    }
    if !wanted.node_selector.is_empty() {
        pod["nodeSelector"] = json!(wanted.node_selector);
    }
    if !wanted.tolerations.is_empty() {
        pod["tolerations"] = json!(wanted.tolerations);
    }
    if !wanted.priority_class_name.is_empty() {
        pod["priorityClassName"] = json!(wanted.priority_class_name);
    }
    pod
}

fn container(component: &str, values: &Values) -> Value {
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": { "path": path, "port": READY },
            "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": 5,
        })
    };
    let mut mounts = vec![
        json!({ "name": "settings", "mountPath": "/etc/isthmus", "readOnly": true }),
        json!({ "name": "state", "mountPath": "/var/lib/isthmus" }),
    ];
    if component != "controller" {
        mounts.extend([
            json!({ "name": "token", "mountPath": "/var/run/secrets/isthmus", "readOnly": true }),
            json!({ "name": "roots", "mountPath": "/var/run/isthmus/roots", "readOnly": true }),
        ]);
    }
    json!({
        "name": "isthmus",
        "image": values.image(),
        "imagePullPolicy": values.image.pull_policy,
        "args": [role(component), "-f", "/etc/isthmus/cluster.yaml"],
        "ports": ports(component),
        // Asked until the first success, so that a pod is ready within a second of being
        // able to. One that never is starts again after an hour.
        "startupProbe": probe("/healthz/ready", 1, 3600),
        "readinessProbe": probe("/healthz/ready", 2, 3),
        "livenessProbe": probe("/healthz/live", 10, 6),
        "resources": wanted(component, values).resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": mounts,
    })
}

fn ports(component: &str) -> Value {
    let port = |name: &str, port: u16, protocol: &str| json!({ "name": name, "containerPort": port, "protocol": protocol });
    let mut ports = match component {
        "controller" => vec![
            port("authority", AUTHORITY, "TCP"),
            port("discovery", DISCOVERY, "TCP"),
            port("federation", FEDERATION, "TCP"),
        ],
        "eastwest" => vec![
            port("link-udp", LINK, "UDP"),
            port("link-tcp", LINK, "TCP"),
            port("mesh", MESH, "TCP"),
        ],
        _ => vec![port("dns", DNS, "UDP"), port("dns-tcp", DNS, "TCP")],
    };
    ports.extend([port("metrics", METRICS, "TCP"), port("ready", READY, "TCP")]);
    json!(ports)
}

fn volumes(component: &str) -> Value {
    let mut volumes = vec![
        json!({
            "name": "settings",
            "projected": { "sources": [
                { "configMap": {
                    "name": "isthmus-settings",
                    "items": [{ "key": format!("{component}.yaml"), "path": "cluster.yaml" }],
                } },
                // The labels say the region and the zone.
                { "downwardAPI": {
                    "items": [{
                        "path": "pod/labels",
                        "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.labels" },
                    }],
                } },
            ] },
        }),
        json!({ "name": "state", "emptyDir": { "medium": "Memory", "sizeLimit": "64Mi" } }),
    ];
    if component != "controller" {
        volumes.extend([
            json!({
                "name": "token",
                "projected": { "sources": [{ "serviceAccountToken": {
                    "audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token",
                } }] },
            }),
            // The controller makes it; until then these pods wait.
            json!({ "name": "roots", "configMap": { "name": "isthmus-roots" } }),
        ]);
    }
    json!(volumes)
}

fn spread(component: &str, key: &str) -> Value {
    json!({
        "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": { "matchLabels": selector(component) },
    })
}

fn wanted<'v>(component: &str, values: &'v Values) -> &'v Component {
    match component {
        "controller" => &values.controller,
        "eastwest" => &values.eastwest.component,
        _ => &values.dns.component,
    }
}

fn grace_seconds(component: &str) -> u32 {
    if component == "eastwest" { GRACE_SECONDS_TWICE } else { GRACE_SECONDS }
}

/// The subcommand that runs a component.
fn role(component: &str) -> &str {
    if component == "eastwest" { "gateway" } else { component }
}

/// A hash of settings, so that pods are replaced when theirs change.
fn hash(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Annotation of a pod: the hash of its settings.
pub(crate) const SETTINGS_HASH: &str = "isthmus.io/settings-hash";
/// The user of our images.
const USER: u32 = 65532;
/// More than the delay and the deadline of a drain.
const GRACE_SECONDS: u32 = 45;
/// The same for a process whose parts, ingress and links, drain one after the other.
const GRACE_SECONDS_TWICE: u32 = 75;
/// The life of a token; the kubelet renews it at four fifths.
const TOKEN_SECONDS: u32 = 3600;
