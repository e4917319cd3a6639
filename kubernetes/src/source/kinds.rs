//! What is watched: every kind of the configuration, and what only Kubernetes has.
//!
//! A new [`Kind`] is watched without a line here, because group, versions and scope come
//! from it and the plural from the server.

use std::fmt;
use std::sync::Arc;

use isthmus_config::Kind;
use isthmus_config::kind::MCS_GROUP;

use crate::source::Selection;

/// A kind of object that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Watched {
    /// A kind of the configuration.
    Config(Kind),
    /// The definition of GatewayClass: the release of the Gateway API that is installed.
    Definition,
    /// A kind of objects that we make, of which only ours are watched.
    Managed(ManagedKind),
    /// Core Node: region, zone and addresses.
    Node,
    /// Core Pod: identity, addresses, node.
    Pod,
}

impl Watched {
    /// Everything that a source watches.
    pub fn all() -> impl Iterator<Item = Self> {
        let others = [Self::Definition, Self::Node, Self::Pod];
        Kind::ALL.into_iter().map(Self::Config).chain(others)
    }

    /// Whether nothing can be decided before the kind has been listed. Where the release of
    /// the Gateway API cannot be read, nothing but a condition about it is missing.
    pub(crate) fn is_required(self) -> bool {
        match self {
            Self::Definition => false,
            Self::Config(_) | Self::Managed(_) | Self::Node | Self::Pod => true,
        }
    }

    /// The `kind` of the objects.
    pub fn label(self) -> &'static str {
        match self {
            Self::Config(kind) => kind.label(),
            Self::Definition => "CustomResourceDefinition",
            Self::Managed(kind) => kind.label(),
            Self::Node => "Node",
            Self::Pod => "Pod",
        }
    }

    /// The API group; empty is the core group.
    pub fn group(self) -> &'static str {
        match self {
            Self::Config(kind) => kind.group(),
            Self::Definition => "apiextensions.k8s.io",
            Self::Managed(kind) => kind.group(),
            Self::Node | Self::Pod => "",
        }
    }

    /// The versions of the group that are understood.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Config(kind) => kind.versions(),
            Self::Managed(kind) => kind.versions(),
            Self::Definition | Self::Node | Self::Pod => &["v1"],
        }
    }

    /// Whether objects of the kind have no namespace.
    pub fn is_cluster_scoped(self) -> bool {
        match self {
            Self::Config(kind) => kind.is_cluster_scoped(),
            Self::Definition | Self::Node => true,
            Self::Managed(_) | Self::Pod => false,
        }
    }

    /// What the server can leave out before it sends anything.
    pub(crate) fn field_selector(self, namespace: &str) -> Option<String> {
        match self {
            Self::Config(Kind::Secret) => Some("type=kubernetes.io/tls".to_owned()),
            Self::Config(Kind::Namespace) if !namespace.is_empty() => {
                Some(format!("metadata.name={namespace}"))
            }
            Self::Definition => Some(format!("metadata.name={DEFINITION}")),
            Self::Pod => Some("status.phase!=Succeeded,status.phase!=Failed".to_owned()),
            Self::Config(_) | Self::Managed(_) | Self::Node => None,
        }
    }
}

/// A kind of objects that we make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ManagedKind {
    /// Core ConfigMap.
    ConfigMap,
    /// `apps` Deployment.
    Deployment,
    /// `discovery.k8s.io` EndpointSlice.
    EndpointSlice,
    /// `policy` PodDisruptionBudget.
    PodDisruptionBudget,
    /// Core Service.
    Service,
    /// Core ServiceAccount.
    ServiceAccount,
    /// `multicluster.x-k8s.io` ServiceImport.
    ServiceImport,
}

impl ManagedKind {
    /// Every kind, in order.
    pub const ALL: [Self; 7] = [
        Self::ConfigMap,
        Self::Deployment,
        Self::EndpointSlice,
        Self::PodDisruptionBudget,
        Self::Service,
        Self::ServiceAccount,
        Self::ServiceImport,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Deployment => "Deployment",
            Self::EndpointSlice => "EndpointSlice",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::Service => "Service",
            Self::ServiceAccount => "ServiceAccount",
            Self::ServiceImport => "ServiceImport",
        }
    }

    fn group(self) -> &'static str {
        match self {
            Self::ConfigMap | Self::Service | Self::ServiceAccount => "",
            Self::Deployment => "apps",
            Self::EndpointSlice => "discovery.k8s.io",
            Self::PodDisruptionBudget => "policy",
            Self::ServiceImport => MCS_GROUP,
        }
    }

    fn versions(self) -> &'static [&'static str] {
        match self {
            Self::ServiceImport => &["v1alpha1", "v1beta1"],
            Self::ConfigMap
            | Self::Deployment
            | Self::EndpointSlice
            | Self::PodDisruptionBudget
            | Self::Service
            | Self::ServiceAccount => &["v1"],
        }
    }
}

/// One watcher's part: a kind, in one namespace or in all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// The kind.
    pub watched: Watched,
    /// The namespace; empty means all.
    pub namespace: Arc<str>,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.watched.label())?;
        if !self.watched.group().is_empty() {
            write!(f, ".{}", self.watched.group())?;
        }
        if !self.namespace.is_empty() {
            write!(f, " in namespace {}", self.namespace)?;
        }
        Ok(())
    }
}

/// The parts that a selection needs.
pub(crate) fn scopes(selection: &Selection) -> Vec<Scope> {
    let mut scopes = Vec::new();
    for watched in Watched::all() {
        // Namespaces are cluster-scoped objects, and still only the selected are read.
        let is_divided =
            !watched.is_cluster_scoped() || watched == Watched::Config(Kind::Namespace);
        if is_divided && !selection.namespaces.is_empty() {
            let of = |namespace: &String| Scope { watched, namespace: namespace.as_str().into() };
            scopes.extend(selection.namespaces.iter().map(of));
        } else {
            scopes.push(Scope { watched, namespace: "".into() });
        }
    }
    scopes
}

/// The one definition that is watched. Its name selects it, so that a right to this name
/// alone is enough.
pub const DEFINITION: &str = "gatewayclasses.gateway.networking.k8s.io";
