//! Names: DNS labels, cluster ids, hostnames, services and endpoints.
//!
//! Every name is bounded and checked when it is made, so code further in may print,
//! compare and concatenate names without looking at them again.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A name that breaks the rule of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// The text has a character that the kind does not allow.
    #[error("{kind} {value:?} has a character that is not allowed: {allowed}")]
    Character {
        /// What the text was meant to be.
        kind: &'static str,
        /// The text, cut to 80 characters.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The text is empty.
    #[error("{kind} is empty")]
    Empty {
        /// What the text was meant to be.
        kind: &'static str,
    },
    /// The text has the wrong form.
    #[error("{kind} {value:?} is not of the form {form}")]
    Form {
        /// What the text was meant to be.
        kind: &'static str,
        /// The text, cut to 80 characters.
        value: String,
        /// The form it must have.
        form: &'static str,
    },
    /// The text is too long.
    #[error("{kind} has {length} bytes, at most {limit} are allowed")]
    Length {
        /// What the text was meant to be.
        kind: &'static str,
        /// Bytes in the text.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

/// Cuts a peer's or user's text so that an error message stays readable.
pub(crate) fn excerpt(value: &str) -> String {
    value.chars().take(80).collect()
}

const LABEL_ALLOWED: &str = "lower-case letters, digits and '-', not at either end";

fn check_label(kind: &'static str, value: &str) -> Result<(), InvalidName> {
    if value.len() > LABEL_BYTES_MAX {
        return Err(InvalidName::Length { kind, length: value.len(), limit: LABEL_BYTES_MAX });
    }
    check_label_text(kind, value)
}

fn check_label_text(kind: &'static str, value: &str) -> Result<(), InvalidName> {
    if value.is_empty() {
        return Err(InvalidName::Empty { kind });
    }
    let inner = value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !inner || value.starts_with('-') || value.ends_with('-') {
        return Err(InvalidName::Character { kind, value: excerpt(value), allowed: LABEL_ALLOWED });
    }
    Ok(())
}

fn check_subdomain(kind: &'static str, value: &str, limit: usize) -> Result<(), InvalidName> {
    if value.len() > limit {
        return Err(InvalidName::Length { kind, length: value.len(), limit });
    }
    value.split('.').try_for_each(|label| check_label(kind, label))
}

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text and makes the name.
            ///
            /// # Errors
            ///
            /// [`InvalidName`] says which rule the text breaks.
            pub fn new(value: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> Result<(), InvalidName> = $check;
                check(value)?;
                Ok(Self(Arc::from(value)))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(value: String) -> Result<Self, InvalidName> {
                Self::new(&value)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;

            fn from_str(value: &str) -> Result<Self, InvalidName> {
                Self::new(value)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0.as_ref().to_owned()
            }
        }
    };
}

text_newtype!(
    /// One DNS label: a namespace, a service name, a port name.
    ///
    /// Spec: RFC 1123 section 2.1, at most 63 bytes.
    Label,
    |value| check_label("label", value)
);

text_newtype!(
    /// A Kubernetes object name that may contain dots, at most 253 bytes.
    ///
    /// Spec: RFC 1123 subdomain.
    ObjectName,
    // Kubernetes bounds the name as a whole, not its labels.
    |value| {
        let kind = "object name";
        let (length, limit) = (value.len(), HOSTNAME_BYTES_MAX);
        if length > limit {
            return Err(InvalidName::Length { kind, length, limit });
        }
        value.split('.').try_for_each(|label| check_label_text(kind, label))
    }
);

text_newtype!(
    /// The id of a cluster, unique in its clusterset.
    ///
    /// Spec: KEP-2149 `cluster.clusterset.k8s.io`, below 128 bytes.
    ClusterId,
    |value| check_subdomain("cluster id", value, CLUSTER_ID_BYTES_MAX)
);

text_newtype!(
    /// An opaque id of one endpoint, given by the cluster that has it.
    ///
    /// It never carries an address. 1 to 64 characters of `[0-9a-zA-Z_-]`.
    EndpointId,
    |value| {
        let kind = "endpoint id";
        if value.is_empty() {
            return Err(InvalidName::Empty { kind });
        }
        if value.len() > ENDPOINT_ID_BYTES_MAX {
            return Err(InvalidName::Length {
                kind,
                length: value.len(),
                limit: ENDPOINT_ID_BYTES_MAX,
            });
        }
        let good = value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if good {
            return Ok(());
        }
        Err(InvalidName::Character {
            kind,
            value: excerpt(value),
            allowed: "letters, digits, '-' and '_'",
        })
    }
);

text_newtype!(
    /// A hostname pattern in lower case: exact (`a.example`) or with one leading
    /// wildcard label (`*.example`).
    ///
    /// Spec: Gateway API `Hostname`; RFC 1123 labels, no port, no trailing dot.
    Hostname,
    |value| {
        let kind = "hostname";
        if value.is_empty() {
            return Err(InvalidName::Empty { kind });
        }
        let rest = value.strip_prefix("*.").unwrap_or(value);
        check_subdomain(kind, rest, HOSTNAME_BYTES_MAX)
    }
);

impl Hostname {
    /// Whether the first label is the wildcard.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }

    /// For `*.example`, `.example`; for an exact name, the name.
    pub fn suffix(&self) -> &str {
        self.0.strip_prefix('*').unwrap_or(&self.0)
    }

    /// Whether a request for the exact, lower-case `host` falls under this pattern.
    ///
    /// A wildcard stands for one or more labels and never for none.
    ///
    /// Spec: Gateway API HTTPRoute `hostnames`.
    pub fn matches(&self, host: &str) -> bool {
        if self.is_wildcard() {
            host.len() > self.suffix().len()
                && !host.starts_with('.')
                && host.ends_with(self.suffix())
        } else {
            host == self.as_str()
        }
    }

    /// The most specific pattern that both patterns cover, if there is one.
    ///
    /// Spec: Gateway API "hostname intersection" of Listener and HTTPRoute.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        match (self.is_wildcard(), other.is_wildcard()) {
            (false, false) => (self == other).then(|| self.clone()),
            (true, false) => self.matches(other.as_str()).then(|| other.clone()),
            (false, true) => other.matches(self.as_str()).then(|| self.clone()),
            (true, true) if self.suffix().ends_with(other.suffix()) => Some(self.clone()),
            (true, true) => other.suffix().ends_with(self.suffix()).then(|| other.clone()),
        }
    }
}

/// Whether a service name means this cluster's Service or the clusterset's import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ServiceScope {
    /// A Service of this cluster, `<name>.<namespace>.svc.cluster.local`.
    Cluster,
    /// A ServiceImport, `<name>.<namespace>.svc.clusterset.local`.
    ClusterSet,
}

/// Names one service in one scope.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceKey {
    /// Which of the two name spaces.
    pub scope: ServiceScope,
    /// The namespace.
    pub namespace: Label,
    /// The service's own name.
    pub name: Label,
}

impl ServiceKey {
    /// Names a Service of this cluster.
    pub fn cluster(namespace: Label, name: Label) -> Self {
        Self { scope: ServiceScope::Cluster, namespace, name }
    }

    /// Names a ServiceImport.
    pub fn clusterset(namespace: Label, name: Label) -> Self {
        Self { scope: ServiceScope::ClusterSet, namespace, name }
    }

    /// Reads `<name>.<namespace>.svc.cluster.local` or `….svc.clusterset.local`.
    ///
    /// Returns `None` when the lower-case host is not such a name.
    ///
    /// Spec: KEP-1645 specification.md section 2; Kubernetes DNS specification 1.1.
    pub fn from_host(host: &str) -> Option<Self> {
        let (scope, rest) = match host.strip_suffix(CLUSTERSET_SUFFIX) {
            Some(rest) => (ServiceScope::ClusterSet, rest),
            None => (ServiceScope::Cluster, host.strip_suffix(CLUSTER_SUFFIX)?),
        };
        let (name, namespace) = rest.split_once('.')?;
        let (name, namespace) = (Label::new(name).ok()?, Label::new(namespace).ok()?);
        Some(Self { scope, namespace, name })
    }

    /// The full DNS name of the service, without a trailing dot.
    pub fn host(&self) -> String {
        let suffix = match self.scope {
            ServiceScope::Cluster => CLUSTER_SUFFIX,
            ServiceScope::ClusterSet => CLUSTERSET_SUFFIX,
        };
        format!("{}.{}{suffix}", self.name, self.namespace)
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.scope {
            ServiceScope::Cluster => "Service",
            ServiceScope::ClusterSet => "ServiceImport",
        };
        write!(f, "{kind} {}/{}", self.namespace, self.name)
    }
}

/// Where something runs: region and zone, as the node labels
/// `topology.kubernetes.io/region` and `topology.kubernetes.io/zone` say it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Locality {
    /// The region; empty when unknown. An unknown region equals no other.
    #[serde(default)]
    pub region: Arc<str>,
    /// The zone; empty when unknown. An unknown zone equals no other.
    #[serde(default)]
    pub zone: Arc<str>,
}

impl Locality {
    /// Makes a locality from the two label values.
    pub fn new(region: &str, zone: &str) -> Self {
        Self { region: Arc::from(region), zone: Arc::from(zone) }
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.region, self.zone)
    }
}

/// Suffix of names that mean this cluster's Services.
pub const CLUSTER_SUFFIX: &str = ".svc.cluster.local";
/// Suffix of names that mean the clusterset's ServiceImports.
pub const CLUSTERSET_SUFFIX: &str = ".svc.clusterset.local";
/// Namespace of Isthmus' own workloads and reserved services.
pub const SYSTEM_NAMESPACE: &str = "isthmus-system";
/// The service account of the controllers.
pub const CONTROLLER_ACCOUNT: &str = "isthmus-controller";

const LABEL_BYTES_MAX: usize = 63;
const HOSTNAME_BYTES_MAX: usize = 253;
const CLUSTER_ID_BYTES_MAX: usize = 127;
const ENDPOINT_ID_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Hostname {
        Hostname::new(text).unwrap()
    }

    #[test]
    fn labels_follow_rfc_1123() {
        for good in ["a", "a-b", "0", &"x".repeat(63)] {
            assert!(Label::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "é", &"x".repeat(64)] {
            assert!(Label::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wildcard_covers_one_label_or_more_and_never_the_apex() {
        let pattern = host("*.w.test");
        assert!(pattern.matches("x.w.test"));
        assert!(pattern.matches("x.y.w.test"));
        assert!(!pattern.matches("w.test"));
        assert!(!pattern.matches("xw.test"));
        assert!(!pattern.matches(".w.test"));
    }

    #[test]
    fn intersection_keeps_the_more_specific_pattern() {
        let check = |a: &str, b: &str, want: Option<&str>| {
            assert_eq!(host(a).intersection(&host(b)), want.map(host), "{a} and {b}");
            assert_eq!(host(b).intersection(&host(a)), want.map(host), "{b} and {a}");
        };
        check("a.test", "a.test", Some("a.test"));
        check("a.test", "b.test", None);
        check("*.test", "a.test", Some("a.test"));
        check("*.test", "*.a.test", Some("*.a.test"));
        check("*.b.test", "*.a.test", None);
    }

    #[test]
    fn service_names_are_read_in_both_scopes() {
        let key = ServiceKey::from_host("cart.shop.svc.clusterset.local").unwrap();
        assert_eq!(key.scope, ServiceScope::ClusterSet);
        assert_eq!(key.host(), "cart.shop.svc.clusterset.local");
        let key = ServiceKey::from_host("cart.shop.svc.cluster.local").unwrap();
        assert_eq!(key.scope, ServiceScope::Cluster);
        for bad in ["cart.svc.cluster.local", "a.b.c.svc.clusterset.local", "cart.shop", ""] {
            assert_eq!(ServiceKey::from_host(bad), None, "{bad}");
        }
    }
}
