//! The pods of a set: their account, their Deployment, and how many may be away.

use serde_json::{Map, Value, json};

use crate::provision::name::hash;
use crate::provision::set::{METRICS_PORT, READY_PORT, Set, Texts};
use crate::provision::settings::{FILE, FOLDER, ROOTS_FOLDER, STATE_VOLUME, TOKEN_FOLDER};
use crate::provision::{ProvisionSettings, ROOTS_CONFIG_MAP, ROOTS_KEY};
use crate::token_review::AUDIENCE;

/// The account of the pods, which is their identity. They read nothing from the API.
pub(super) fn account(set: &Set<'_>, uid: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": set.metadata(uid, &Texts::new(), &Texts::new()),
        "automountServiceAccountToken": false,
    })
}

/// The Deployment. `file` is the settings file, whose hash makes new pods when it changes.
pub(super) fn deployment(
    set: &Set<'_>,
    uid: &str,
    settings: &ProvisionSettings,
    file: &str,
) -> Value {
    let asked = &set.parameters.pod;
    let (labels, mut annotations) = set.texts(&asked.labels, &asked.annotations);
    annotations.insert(SETTINGS_HASH.to_owned(), format!("{:08x}", hash(file.as_bytes())));
    let mut deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": set.metadata(uid, &Texts::new(), &Texts::new()),
        "spec": {
            "selector": { "matchLabels": set.selector() },
            // A new pod takes traffic before an old one stops.
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 },
            },
            "template": {
                "metadata": { "labels": labels, "annotations": annotations },
                "spec": pod(set, settings),
            },
        },
    });
    if let Some(replicas) = set.parameters.replicas {
        // Not said, it belongs to an autoscaler, with which we must not fight.
        deployment["spec"]["replicas"] = json!(replicas);
    }
    deployment
}

/// Lets the cluster take away one pod at a time; `None` for a single pod, which could
/// never be moved then.
pub(super) fn disruption_budget(set: &Set<'_>, uid: &str) -> Option<Value> {
    set.parameters.replicas.is_some_and(|replicas| replicas > 1).then(|| {
        json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": set.plain_metadata(uid),
            "spec": { "maxUnavailable": 1, "selector": { "matchLabels": set.selector() } },
        })
    })
}

fn pod(set: &Set<'_>, settings: &ProvisionSettings) -> Value {
    let asked = &set.parameters.pod;
    let spread = |key: &str| {
        json!({
            "topologyKey": key,
            "maxSkew": 1,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": set.selector() },
        })
    };
    let mut pod = json!({
        "serviceAccountName": set.name.as_str(),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": { "type": "RuntimeDefault" },
            // Spec: Kubernetes "safe sysctls": listeners on ports below 1024 without a
            // capability.
            "sysctls": [{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "0" }],
        },
        "topologySpreadConstraints": [
            spread("topology.kubernetes.io/zone"),
            spread("kubernetes.io/hostname"),
        ],
        "containers": [container(set, settings)],
        "volumes": volumes(set),
    });
    if !asked.node_selector.is_empty() {
        pod["nodeSelector"] = json!(asked.node_selector);
    }
    if !asked.tolerations.is_empty() {
        pod["tolerations"] = json!(asked.tolerations);
    }
    if let Some(class) = &asked.priority_class {
        pod["priorityClassName"] = json!(class);
    }
    pod
}

/// Listeners' ports are not named here: a changed listener must restart nothing.
fn container(set: &Set<'_>, settings: &ProvisionSettings) -> Value {
    let probe = |path: &str, seconds: u32, failures: u32| {
        json!({
            "httpGet": { "path": path, "port": "ready" },
            "periodSeconds": seconds,
            "failureThreshold": failures,
            "timeoutSeconds": 5,
        })
    };
    let mount = |name: &str, path: &str, is_read_only: bool| json!({ "name": name, "mountPath": path, "readOnly": is_read_only });
    let mut state = Map::new();
    state.insert("name".to_owned(), json!("state"));
    state.insert("mountPath".to_owned(), json!(STATE_VOLUME));
    // Small, so that many Gateways fit on a small node; GatewayParameters say more.
    let default = json!({ "requests": { "cpu": "10m", "memory": "32Mi" } });
    let mut container = json!({
        "name": "isthmus",
        "image": settings.image,
        "args": ["gateway", "-f", format!("{FOLDER}/{FILE}")],
        "ports": [
            { "name": "ready", "containerPort": READY_PORT, "protocol": "TCP" },
            { "name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP" },
        ],
        // Asked until the first success, so that a gateway is ready within a second of being
        // able to. One that never is starts again after an hour.
        "startupProbe": probe("/healthz/ready", 1, 3600),
        "readinessProbe": probe("/healthz/ready", 2, 3),
        "livenessProbe": probe("/healthz/live", 10, 6),
        "resources": set.parameters.pod.resources.clone().unwrap_or(default),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": [
            mount("settings", FOLDER, true),
            mount("token", TOKEN_FOLDER, true),
            mount("roots", ROOTS_FOLDER, true),
            state,
        ],
    });
    if let Some(policy) = &settings.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    container
}

fn volumes(set: &Set<'_>) -> Value {
    json!([
        {
            "name": "settings",
            "projected": { "sources": [
                { "configMap": {
                    "name": set.name.as_str(),
                    "items": [{ "key": FILE, "path": FILE }],
                } },
                // The labels of the topology among them say where the pod runs.
                { "downwardAPI": { "items": [
                    { "path": "pod/labels", "fieldRef": { "fieldPath": "metadata.labels" } },
                ] } },
            ] },
        },
        {
            "name": "token",
            "projected": { "sources": [
                { "serviceAccountToken": {
                    "audience": AUDIENCE,
                    "expirationSeconds": TOKEN_SECONDS,
                    "path": "token",
                } },
            ] },
        },
        {
            "name": "roots",
            "configMap": {
                "name": ROOTS_CONFIG_MAP,
                "items": [{ "key": ROOTS_KEY, "path": ROOTS_KEY }],
            },
        },
        { "name": "state", "emptyDir": {} },
    ])
}

/// The hash of the settings file of a pod.
const SETTINGS_HASH: &str = "isthmus.io/settings-hash";
/// More than the drain takes, which is in the settings file.
const GRACE_SECONDS: u32 = 45;
/// The user and group of the image.
const USER: u32 = 65532;
/// Lifetime of a token, which the kubelet renews; the least that the server takes is 600.
const TOKEN_SECONDS: u32 = 3600;
