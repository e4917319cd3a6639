//! Service accounts and their rights.
//!
//! Only the controller has rights. Gateways, the east-west gateway and DNS prove who they
//! are by a token that the API server does not take, and ask the controller; so a taken
//! gateway pod reads nothing from the API server.

use isthmus_kubernetes::source::DEFINITION;
use isthmus_model::name::SYSTEM_NAMESPACE;
use serde_json::{Value, json};

use super::{COMPONENTS, cluster_meta, full_name, meta};
use crate::commands::install::values::Values;

/// Service accounts, roles and bindings.
pub(super) fn objects(values: &Values) -> Vec<Value> {
    let mut objects: Vec<Value> =
        COMPONENTS.iter().map(|component| account(component, values)).collect();
    let subjects = json!([{
        "kind": "ServiceAccount", "name": "isthmus-controller", "namespace": SYSTEM_NAMESPACE,
    }]);
    let bind = |kind: &str, role: &str, metadata: Value| {
        json!({
            "apiVersion": RBAC, "kind": kind, "metadata": metadata,
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": "isthmus-controller",
            },
            "subjects": subjects,
        })
    };
    let name = full_name("controller");
    objects.push(json!({
        "apiVersion": RBAC, "kind": "ClusterRole", "metadata": cluster_meta(&name, "controller"),
        "rules": cluster_rules(),
    }));
    objects.push(bind("ClusterRoleBinding", "ClusterRole", cluster_meta(&name, "controller")));
    objects.push(json!({
        "apiVersion": RBAC, "kind": "Role", "metadata": meta(&name, "controller"),
        "rules": own_rules(),
    }));
    objects.push(bind("RoleBinding", "Role", meta(&name, "controller")));
    objects
}

fn account(component: &str, values: &Values) -> Value {
    let mut account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": meta(&full_name(component), component),
        // The one pod that needs the API server asks for the token itself.
        "automountServiceAccountToken": false,
    });
    if !values.image_pull_secrets.is_empty() {
        account["imagePullSecrets"] = json!(values.image_pull_secrets);
    }
    account
}

/// What the controller may do anywhere.
fn cluster_rules() -> Value {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": verbs });
    json!([
        // The release of the Gateway API: one definition, selected by its name.
        {
            "apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"],
            "resourceNames": [DEFINITION], "verbs": WATCH,
        },
        // Read: the configuration, and who and where pods are.
        rule("", &["namespaces", "nodes", "secrets"], WATCH),
        rule("", &["pods"], READ),
        rule(GATEWAY, GATEWAY_KINDS, WATCH),
        rule("security.istio.io", &["peerauthentications"], WATCH),
        rule(ISTHMUS, &["clusterlinks", "gatewayparameters"], WATCH),
        rule(MCS, &["serviceexports"], WATCH),
        rule("about.k8s.io", &["clusterproperties"], READ),
        // Written as a whole: what is made for a Gateway or an imported service.
        rule("", &["configmaps", "serviceaccounts", "services"], OWN),
        rule("apps", &["deployments"], OWN),
        rule("discovery.k8s.io", &["endpointslices"], OWN),
        // An EndpointSlice may name an address outside of the cluster's pods.
        rule("discovery.k8s.io", &["endpointslices/restricted"], &["create"]),
        rule("policy", &["poddisruptionbudgets"], OWN),
        rule(MCS, &["serviceimports"], OWN),
        // Status only.
        rule(GATEWAY, GATEWAY_STATUSES, &["patch"]),
        rule(ISTHMUS, &["clusterlinks/status"], &["patch"]),
        rule(MCS, &["serviceexports/status", "serviceimports/status"], &["patch"]),
        // An owner reference that blocks the owner's deletion needs this.
        rule(GATEWAY, &["gateways/finalizers"], &["update"]),
        rule(MCS, &["serviceimports/finalizers"], &["update"]),
        rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
        rule("", &["events"], &["create", "patch"]),
        rule("events.k8s.io", &["events"], &["create", "patch"]),
    ])
}

/// What the controller may do in its own namespace.
fn own_rules() -> Value {
    json!([
        // A name cannot restrict the creation, because it is not known yet.
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"] },
        {
            "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
            "resourceNames": ["isthmus-controller"], "verbs": ["get", "update"],
        },
        { "apiGroups": [""], "resources": ["secrets"], "verbs": ["create"] },
        {
            "apiGroups": [""], "resources": ["secrets"],
            "resourceNames": ["isthmus-authority"], "verbs": ["get", "update", "patch"],
        },
        // The label of the leader's pod. Pods have no fixed names that a rule could list.
        { "apiGroups": [""], "resources": ["pods"], "verbs": ["patch"] },
    ])
}

const RBAC: &str = "rbac.authorization.k8s.io/v1";
const GATEWAY: &str = "gateway.networking.k8s.io";
const ISTHMUS: &str = "isthmus.io";
const MCS: &str = "multicluster.x-k8s.io";
const WATCH: &[&str] = &["list", "watch"];
const READ: &[&str] = &["get", "list", "watch"];
const OWN: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];
pub(super) const GATEWAY_KINDS: &[&str] = &[
    "backendtlspolicies",
    "gatewayclasses",
    "gateways",
    "grpcroutes",
    "httproutes",
    "listenersets",
    "referencegrants",
    "tcproutes",
    "tlsroutes",
    "udproutes",
];
const GATEWAY_STATUSES: &[&str] = &[
    "backendtlspolicies/status",
    "gatewayclasses/status",
    "gateways/status",
    "grpcroutes/status",
    "httproutes/status",
    "listenersets/status",
    "tcproutes/status",
    "tlsroutes/status",
    "udproutes/status",
];
