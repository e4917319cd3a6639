//! ClusterLink.
//!
//! The types only describe; objects are read by `isthmus-config`.

#![allow(dead_code, reason = "the schema is made from the types; no value of them is")]

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Definition, schema_of};

/// The definition.
pub(super) fn definition() -> Value {
    let column = |name: &str, kind: &str, path: &str, priority: u8| json!({ "name": name, "type": kind, "jsonPath": path, "priority": priority });
    let condition = |kind: &str| format!(".status.conditions[?(@.type==\"{kind}\")].status");
    Definition {
        kind: "ClusterLink",
        plural: "clusterlinks",
        short: "cl",
        scope: "Cluster",
        description: "The link of this cluster to one other: who it is, how it is reached and \
                      trusted, and which services may cross. Nothing crosses without a rule.",
        spec: schema_of::<ClusterLinkSpec>(),
        is_spec_required: true,
        status: Some(schema_of::<ClusterLinkStatus>()),
        columns: json!([
            column("Trust Domain", "string", ".spec.trustDomain", 0),
            column("Accepted", "string", &condition("Accepted"), 0),
            column("Connected", "string", &condition("Connected"), 0),
            column("Addresses", "string", ".spec.addresses", 1),
            column("Age", "date", ".metadata.creationTimestamp", 0),
        ]),
    }
    .to_value()
}

/// What is wanted of the link.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.dial) || !self.dial || (has(self.addresses) && size(self.addresses) > 0)",
        "message": "addresses must have an entry when dial is true",
        "fieldPath": ".addresses",
    },
]))]
struct ClusterLinkSpec {
    /// The id of the other cluster, unique in the clusterset. Default: the name of this
    /// object.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    cluster: Option<String>,
    /// The trust domain of the other cluster's identities. Each trust domain belongs to
    /// one cluster.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9._-]+$"))]
    trust_domain: String,
    /// Where the other cluster's east-west gateway is reached, as host:port; the port is
    /// usually 15443. The order says nothing: both transports of every address are tried.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 1, max = 261)), extend("x-kubernetes-list-type" = "set"))]
    addresses: Vec<String>,
    /// Whether this cluster dials the other. Default: true if there are addresses. One of
    /// both clusters has to.
    dial: Option<bool>,
    /// The keys by which the other cluster's certificates are trusted: exactly one of
    /// inline, configMapRef and sha256.
    #[schemars(extend("x-kubernetes-validations" = [
        {
            "rule": "(has(self.inline) ? 1 : 0) + (has(self.configMapRef) ? 1 : 0) + (has(self.sha256) ? 1 : 0) == 1",
            "message": "exactly one of inline, configMapRef and sha256 is needed",
        },
    ]))]
    bundle: Bundle,
    /// Which services of the other cluster are imported: those that match any of the
    /// rules. Default: none.
    #[serde(default)]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    import: Vec<AccessRule>,
    /// Which exported services of this cluster the other may import: those that match any
    /// of the rules. Default: none.
    #[serde(default)]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    export: Vec<AccessRule>,
}

/// The keys of the other cluster.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    /// The SPIFFE bundle of the other cluster, a JSON Web Key Set, as `isthmus ca bundle`
    /// prints it there. At most 256 KiB.
    #[schemars(length(min = 1, max = 262144))]
    inline: Option<String>,
    /// A ConfigMap with the bundle.
    config_map_ref: Option<ConfigMapRef>,
    /// The SHA-256 of the bundle, in hexadecimal: the bundle itself is taken from the
    /// first connection that has this hash.
    #[schemars(length(min = 64, max = 64), regex(pattern = "^[0-9a-fA-F]{64}$"))]
    sha256: Option<String>,
}

/// Names a key of a ConfigMap.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ConfigMapRef {
    /// The namespace of the ConfigMap. Default: isthmus-system.
    #[schemars(length(min = 1, max = 63))]
    namespace: Option<String>,
    /// The name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    name: String,
    /// The key with the bundle. Default: bundle.json.
    #[schemars(length(min = 1, max = 253))]
    key: Option<String>,
}

/// Services that a rule matches: each of the three must.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct AccessRule {
    /// Namespaces of the services; "*" is any.
    #[schemars(
        length(min = 1, max = 256),
        inner(length(min = 1, max = 63), regex(pattern = r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$"))
    )]
    namespaces: Vec<String>,
    /// Names of the services; "*" is any.
    #[schemars(
        length(min = 1, max = 256),
        inner(length(min = 1, max = 63), regex(pattern = r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$"))
    )]
    names: Vec<String>,
    /// Ports of the services. Default: every port.
    #[serde(default)]
    #[schemars(length(max = 256), inner(range(min = 1, max = 65535)))]
    ports: Vec<i32>,
}

/// What has become of the link.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
struct ClusterLinkStatus {
    /// What holds of the link: Accepted, whether the object can be used, and Connected,
    /// whether the other cluster is reached, each with its reason.
    #[serde(default)]
    #[schemars(length(max = 8), extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"],
    ))]
    conditions: Vec<Condition>,
}

/// One aspect of the state.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Condition {
    /// The aspect.
    #[serde(rename = "type")]
    #[schemars(length(max = 316))]
    kind: String,
    /// True, False or Unknown.
    #[schemars(regex(pattern = "^(True|False|Unknown)$"))]
    status: String,
    /// Why, in one word.
    #[schemars(length(min = 1, max = 1024))]
    reason: String,
    /// Why, for people.
    #[schemars(length(max = 32768))]
    message: String,
    /// When the status changed last.
    #[schemars(extend("format" = "date-time"))]
    last_transition_time: String,
    /// The generation of the object that this is about.
    #[schemars(range(min = 0))]
    observed_generation: Option<i64>,
}
