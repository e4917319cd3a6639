//! The state of one cluster as its API server has it, for the operator's commands.
//!
//! [`inspect`] reads, and does nothing else: every list once, whole, with the rights of
//! whoever asks. What may not be read is noted and not an error, since an operator with
//! few rights still wants to see the rest. [`judge`] says what is wrong and what to do,
//! [`summary`] what there is; both are pure, over an [`Inspection`] that a test writes
//! down as it likes.

pub mod condition;

pub mod judge;

mod backends;

pub mod coredns;

mod objects;

pub mod summary;

mod system;

use std::collections::BTreeMap;
use std::time::SystemTime;

use futures_util::{StreamExt as _, stream};
use isthmus_config::Kind;
use isthmus_model::name::SYSTEM_NAMESPACE;
use isthmus_runtime::error_chain;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::apply::{FIELD_MANAGER, MANAGED_LABEL};
use crate::discovery;

/// What was read of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The objects that were read, with the label of their kind.
    pub objects: BTreeMap<String, Vec<Value>>,
    /// Kinds that the server does not serve.
    pub unserved: Vec<String>,
    /// What could not be read, with the reason.
    pub unread: Vec<(String, String)>,
    /// Names and annotations of the CustomResourceDefinitions; `None` when they could not
    /// be read.
    pub definitions: Option<BTreeMap<String, BTreeMap<String, String>>>,
    /// When it was read.
    pub now: SystemTime,
}

impl Inspection {
    /// Nothing was read yet.
    pub fn new(now: SystemTime) -> Self {
        let (objects, unserved) = (BTreeMap::new(), Vec::new());
        Self { objects, unserved, unread: Vec::new(), definitions: None, now }
    }

    /// The objects of a kind; none when it is not served or was not read.
    pub fn of(&self, kind: &str) -> &[Value] {
        self.objects.get(kind).map_or(&[], Vec::as_slice)
    }

    /// One object; the empty namespace is that of kinds without one.
    pub fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.of(kind).iter().find(|object| {
            text(object, "/metadata/namespace") == namespace
                && text(object, "/metadata/name") == name
        })
    }

    /// Whether a kind could be read, so that an object that is not there does not exist.
    pub fn has_read(&self, kind: &str) -> bool {
        self.objects.contains_key(kind)
    }
}

/// One list that is read.
struct Query {
    group: &'static str,
    kind: &'static str,
    versions: &'static [&'static str],
    /// The namespace; empty is all.
    namespace: &'static str,
    labels: Option<String>,
    fields: Option<String>,
}

impl Query {
    fn new(group: &'static str, kind: &'static str, versions: &'static [&'static str]) -> Self {
        Self { group, kind, versions, namespace: "", labels: None, fields: None }
    }

    fn within(self, namespace: &'static str) -> Self {
        Self { namespace, ..self }
    }

    fn named(self, name: &str) -> Self {
        Self { fields: Some(format!("metadata.name={name}")), ..self }
    }

    fn ours(self) -> Self {
        Self { labels: Some(format!("{MANAGED_LABEL}={FIELD_MANAGER}")), ..self }
    }
}

/// Reads a cluster.
pub async fn inspect(client: &Client, now: SystemTime) -> Inspection {
    let mut inspection = Inspection::new(now);
    let mut lists = stream::iter(queries())
        .map(|query| async move {
            let outcome = list(client, &query).await;
            (query, outcome)
        })
        .buffered(CONCURRENCY);
    while let Some((query, outcome)) = lists.next().await {
        match outcome {
            Ok(Some(found)) => {
                let all = inspection.objects.entry(query.kind.to_owned()).or_default();
                // Two queries of one kind may find one object.
                for object in found {
                    let id = |of: &Value| of.pointer("/metadata/uid").cloned();
                    if !all.iter().any(|known| id(known).is_some() && id(known) == id(&object)) {
                        all.push(object);
                    }
                }
            }
            Ok(None) => inspection.unserved.push(query.kind.to_owned()),
            Err(error) => {
                let place =
                    if query.namespace.is_empty() { "all namespaces" } else { query.namespace };
                let what = format!("{} in {place}", query.kind);
                inspection.unread.push((what, error_chain(&error)));
            }
        }
    }
    match definitions(client).await {
        Ok(found) => inspection.definitions = Some(found),
        Err(error) => {
            let what = "CustomResourceDefinition".to_owned();
            inspection.unread.push((what, error_chain(&error)));
        }
    }
    inspection
}

fn queries() -> Vec<Query> {
    let kinds = Kind::ALL.into_iter().filter(|kind| is_read(*kind));
    let mut queries: Vec<Query> =
        kinds.map(|kind| Query::new(kind.group(), kind.label(), kind.versions())).collect();
    let core = |kind| Query::new("", kind, &["v1"]);
    let apps = || Query::new("apps", "Deployment", &["v1"]);
    queries.extend([
        Query::new("multicluster.x-k8s.io", "ServiceImport", &["v1beta1", "v1alpha1"]),
        apps().within(SYSTEM_NAMESPACE),
        apps().ours(),
        core("Pod").within(SYSTEM_NAMESPACE),
        core("Pod").ours(),
        core("ConfigMap").within(coredns::NAMESPACE).named(coredns::CONFIG_MAP),
        core("ConfigMap").within(SYSTEM_NAMESPACE).named(crate::link::CONFIG_MAP),
        Query::new("coordination.k8s.io", "Lease", &["v1"])
            .within(SYSTEM_NAMESPACE)
            .named(system::LEASE),
    ]);
    queries
}

/// Secrets are nobody's business here, and the rest has no status and no findings.
fn is_read(kind: Kind) -> bool {
    match kind {
        Kind::ClusterProperty
        | Kind::ConfigMap
        | Kind::Namespace
        | Kind::PeerAuthentication
        | Kind::ReferenceGrant
        | Kind::Secret => false,
        Kind::BackendTlsPolicy
        | Kind::ClusterLink
        | Kind::EndpointSlice
        | Kind::Gateway
        | Kind::GatewayClass
        | Kind::GatewayParameters
        | Kind::GrpcRoute
        | Kind::HttpRoute
        | Kind::ListenerSet
        | Kind::Service
        | Kind::ServiceExport
        | Kind::TcpRoute
        | Kind::TlsRoute
        | Kind::UdpRoute => true,
    }
}

/// The objects of a query; `None` when the kind is not served.
async fn list(client: &Client, query: &Query) -> Result<Option<Vec<Value>>, kube::Error> {
    let found = discovery::find(client, query.group, query.kind, query.versions).await?;
    let Some(served) = found else { return Ok(None) };
    let api = served.api(client.clone(), query.namespace);
    let mut parameters = ListParams::default().limit(PAGE);
    parameters.label_selector = query.labels.clone();
    parameters.field_selector = query.fields.clone();
    let mut objects = Vec::new();
    loop {
        let page = api.list(&parameters).await?;
        for mut object in page.items {
            object.metadata.managed_fields = None;
            let mut value = serde_json::to_value(object).unwrap_or_default();
            value["apiVersion"] = json!(served.resource.api_version);
            value["kind"] = json!(query.kind);
            objects.push(value);
        }
        parameters.continue_token = page.metadata.continue_.filter(|next| !next.is_empty());
        if parameters.continue_token.is_none() || objects.len() >= OBJECTS_MAX {
            return Ok(Some(objects));
        }
    }
}

/// Names and annotations alone: whole definitions are megabytes.
async fn definitions(
    client: &Client,
) -> Result<BTreeMap<String, BTreeMap<String, String>>, kube::Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let found = api.list_metadata(&ListParams::default()).await?;
    let entry = |item: kube::core::PartialObjectMeta<_>| {
        let metadata = item.metadata;
        Some((metadata.name?, metadata.annotations.unwrap_or_default()))
    };
    Ok(found.items.into_iter().filter_map(entry).collect())
}

/// The text at a JSON pointer, or nothing.
pub(crate) fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The list at a JSON pointer, or an empty one.
pub(crate) fn items<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// `Gateway infra/web`.
pub(crate) fn name_of(object: &Value) -> String {
    let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
    let kind = text(object, "/kind");
    if namespace.is_empty() {
        format!("{kind} {name}")
    } else {
        format!("{kind} {namespace}/{name}")
    }
}

/// Lists at the same time.
const CONCURRENCY: usize = 6;
/// Objects in one page of a list.
const PAGE: u32 = 500;
/// Objects of one kind that are looked at; more are left out.
const OBJECTS_MAX: usize = 50_000;

#[cfg(test)]
mod tests;
