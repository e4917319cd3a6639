//! Invitations: what one cluster must know of another to link with it.
//!
//! The controller writes the invitation of its own cluster into a ConfigMap, so that an
//! operator who may read that ConfigMap in one cluster and write a ClusterLink in
//! another can join the two. What travels between them is this text and nothing else: no
//! kubeconfig, no token of an API server, no key. It is public, but it decides whom a
//! cluster trusts, so it must come from where it says it comes from.
//!
//! Pure: [`token`] is the form of one line, [`agree`] compares two invitations, and an
//! invitation with a ClusterLink that exists.

pub mod agree;

mod token;

use std::fmt;

use isthmus_certs::{Bundle, BundleInvalid};
use isthmus_config::{AccessRule, NamePattern};
use isthmus_model::name::SYSTEM_NAMESPACE;
use isthmus_model::{ClusterId, InvalidName, ObjectName, TrustDomain};
use serde_json::{Value, json};

pub use crate::link::token::TokenError;

/// What another cluster needs for a link to this one.
///
/// It holds public material only: names, addresses that peers dial, and certificates of
/// roots without their keys. Whoever reads it gains no access; whoever changes it on its
/// way can make a cluster trust another authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The cluster's id, unique in its clusterset.
    pub cluster: ClusterId,
    /// The clusterset that it belongs to.
    pub clusterset: ObjectName,
    /// The trust domain of its authority.
    pub trust_domain: TrustDomain,
    /// `host:port` of its east-west gateways, at most [`ADDRESSES_MAX`]; empty when other
    /// clusters cannot dial it.
    pub addresses: Vec<String>,
    /// Its trust bundle, a SPIFFE JWKS document of at most [`BUNDLE_BYTES_MAX`] bytes.
    pub bundle: String,
}

/// Why a text is no invitation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvitationError {
    /// A field is not there.
    #[error("{field} is missing")]
    Absent {
        /// The field, as the ConfigMap names it.
        field: &'static str,
    },
    /// An address is not of the form `host:port`.
    #[error("addresses: {value:?} is not of the form host:port")]
    Address {
        /// The address, cut to 120 characters.
        value: String,
    },
    /// The bundle is not one of the trust domain.
    #[error("bundle.json is not a trust bundle of {trust_domain}")]
    Bundle {
        /// The trust domain.
        trust_domain: TrustDomain,
        /// What is wrong.
        source: BundleInvalid,
    },
    /// A name is not legal.
    #[error("{field} is not legal")]
    Name {
        /// The field, as the ConfigMap names it.
        field: &'static str,
        /// What is wrong.
        source: InvalidName,
    },
    /// A field is too long.
    #[error("{field} has more than {limit}")]
    TooLong {
        /// The field, as the ConfigMap names it.
        field: &'static str,
        /// What it may have.
        limit: &'static str,
    },
}

/// What of the services may pass a link that is made from an invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkOptions {
    /// The name of the ClusterLink; the other cluster's id unless given.
    pub name: Option<ObjectName>,
    /// What this cluster takes; empty takes nothing.
    pub import: Vec<AccessRule>,
    /// What this cluster offers of what it exports; empty offers nothing.
    pub export: Vec<AccessRule>,
}

/// The texts of an invitation, before they are looked at.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Fields {
    pub(crate) cluster: String,
    pub(crate) clusterset: String,
    pub(crate) trust_domain: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) bundle: String,
}

impl Invitation {
    /// Reads the ConfigMap [`CONFIG_MAP`].
    ///
    /// # Errors
    ///
    /// [`InvitationError`] names the key that is missing or wrong.
    pub fn from_config_map(config_map: &Value) -> Result<Self, InvitationError> {
        let text = |field: &'static str| {
            let found = config_map.get("data").and_then(|data| data.get(field)?.as_str());
            found.map(str::to_owned).ok_or(InvitationError::Absent { field })
        };
        let addresses = text("addresses")?;
        Self::try_from(Fields {
            cluster: text("cluster")?,
            clusterset: text("clusterset")?,
            trust_domain: text("trustDomain")?,
            addresses: addresses.split_whitespace().map(str::to_owned).collect(),
            bundle: text("bundle.json")?,
        })
    }

    /// The ConfigMap that publishes the invitation in its own cluster.
    pub fn to_config_map(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": CONFIG_MAP,
                "namespace": SYSTEM_NAMESPACE,
                "annotations": {"isthmus.io/description": DESCRIPTION},
            },
            "data": {
                "cluster": self.cluster.as_str(),
                "clusterset": self.clusterset.as_str(),
                "trustDomain": self.trust_domain.as_str(),
                "addresses": self.addresses.join("\n"),
                "bundle.json": self.bundle,
            },
        })
    }

    /// The ClusterLink that another cluster makes of the invitation.
    ///
    /// It dials when there is an address to dial. So both sides dial, and the first
    /// connection that stands is used, unless one of them cannot be reached.
    pub fn to_cluster_link(&self, options: &LinkOptions) -> Value {
        let name = options.name.as_ref().map_or(self.cluster.as_str(), ObjectName::as_str);
        json!({
            "apiVersion": CLUSTER_LINK.0,
            "kind": CLUSTER_LINK.1,
            "metadata": {"name": name},
            "spec": {
                "cluster": self.cluster.as_str(),
                "trustDomain": self.trust_domain.as_str(),
                "addresses": self.addresses,
                "dial": !self.addresses.is_empty(),
                "bundle": {"inline": self.bundle},
                "import": rules(&options.import),
                "export": rules(&options.export),
            },
        })
    }

    pub(crate) fn fields(&self) -> Fields {
        Fields {
            cluster: self.cluster.as_str().to_owned(),
            clusterset: self.clusterset.as_str().to_owned(),
            trust_domain: self.trust_domain.as_str().to_owned(),
            addresses: self.addresses.clone(),
            bundle: self.bundle.clone(),
        }
    }
}

impl TryFrom<Fields> for Invitation {
    type Error = InvitationError;

    fn try_from(fields: Fields) -> Result<Self, InvitationError> {
        let name = |field| move |source| InvitationError::Name { field, source };
        if fields.addresses.len() > ADDRESSES_MAX {
            return Err(InvitationError::TooLong { field: "addresses", limit: "16 entries" });
        }
        if let Some(bad) = fields.addresses.iter().find(|address| !is_host_and_port(address)) {
            return Err(InvitationError::Address { value: bad.chars().take(120).collect() });
        }
        if fields.bundle.len() > BUNDLE_BYTES_MAX {
            return Err(InvitationError::TooLong { field: "bundle.json", limit: "64 KiB" });
        }
        let trust_domain = TrustDomain::new(&fields.trust_domain).map_err(name("trustDomain"))?;
        if let Err(source) = Bundle::from_jwks(&trust_domain, fields.bundle.as_bytes()) {
            return Err(InvitationError::Bundle { trust_domain, source });
        }
        Ok(Self {
            cluster: ClusterId::new(&fields.cluster).map_err(name("cluster"))?,
            clusterset: ObjectName::new(&fields.clusterset).map_err(name("clusterset"))?,
            trust_domain,
            addresses: fields.addresses,
            bundle: fields.bundle,
        })
    }
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster {} ({})", self.cluster, self.trust_domain)
    }
}

/// Where other clusters reach the Service of the links, [`LINK_SERVICE`].
///
/// - The annotation [`ADDRESSES_ANNOTATION`] wins: an operator knows of a name, of an
///   address translation or of a private network between the clusters.
/// - A LoadBalancer has the addresses and hostnames of its status, with the Service's
///   port. It has none until the cloud assigns one.
/// - `spec.externalIPs` count for every type.
/// - A NodePort or ClusterIP has nothing else: which nodes another cluster can reach is
///   not known to the Service, and a ClusterIP means nothing outside.
pub fn addresses(service: &Value) -> Vec<String> {
    let annotations = service.pointer("/metadata/annotations");
    let given = annotations.and_then(|all| all.get(ADDRESSES_ANNOTATION)?.as_str());
    if let Some(given) = given {
        let entries = given.split([',', ' ', '\n']).map(str::trim);
        let entries = entries.filter(|entry| is_host_and_port(entry)).map(str::to_owned);
        return entries.take(ADDRESSES_MAX).collect();
    }
    let port = service.pointer("/spec/ports/0/port").and_then(Value::as_u64);
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { return Vec::new() };
    let list = |pointer| service.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let is_balanced = service.pointer("/spec/type").is_some_and(|kind| kind == "LoadBalancer");
    let assigned = list("/status/loadBalancer/ingress").filter(|_| is_balanced).filter_map(|at| {
        let text = |field| at.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        text("ip").or_else(|| text("hostname"))
    });
    let external = list("/spec/externalIPs").filter_map(Value::as_str);
    let mut addresses = Vec::new();
    for host in assigned.chain(external) {
        let address =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

fn rules(rules: &[AccessRule]) -> Value {
    let rule = |rule: &AccessRule| {
        let mut value =
            json!({"namespaces": patterns(&rule.namespaces), "names": patterns(&rule.names)});
        if !rule.ports.is_empty() {
            value["ports"] = json!(rule.ports);
        }
        value
    };
    rules.iter().map(rule).collect()
}

fn patterns(names: &[NamePattern]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn is_host_and_port(text: &str) -> bool {
    if text.parse::<std::net::SocketAddr>().is_ok() {
        return true;
    }
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host = !host.is_empty()
            && host.len() <= 253
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
        is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// The name of the ConfigMap with the invitation of its own cluster, in the system
/// namespace.
pub const CONFIG_MAP: &str = "isthmus-invitation";
/// The Service of the links, in the system namespace.
pub const LINK_SERVICE: &str = "isthmus-eastwest-link";
/// The annotation of [`LINK_SERVICE`] by which an operator says where it is reached:
/// `host:port`, several with commas between.
pub const ADDRESSES_ANNOTATION: &str = "isthmus.io/link-addresses";
/// `apiVersion` and `kind` of a ClusterLink.
pub const CLUSTER_LINK: (&str, &str) = ("isthmus.io/v1alpha1", "ClusterLink");
/// Addresses of one invitation; a ClusterLink takes no more.
pub const ADDRESSES_MAX: usize = 16;
/// Bytes of the bundle of an invitation: far above an authority with two roots, and
/// small enough for a token that fits a command line.
pub const BUNDLE_BYTES_MAX: usize = 64 * 1024;
const DESCRIPTION: &str =
    "What another cluster needs for a ClusterLink to this one; public, kept by the controller.";

#[cfg(test)]
mod tests;
