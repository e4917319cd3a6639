//! Whether two clusters can be linked, and what becomes of a ClusterLink that exists.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::link::Invitation;

/// Why two clusters cannot be linked as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// Both are in other clustersets.
    #[error(
        "cluster {a} is in clusterset {a_set} and cluster {b} in {b_set}: a link joins clusters of one clusterset"
    )]
    Clusterset {
        /// One cluster.
        a: String,
        /// Its clusterset.
        a_set: String,
        /// The other cluster.
        b: String,
        /// Its clusterset.
        b_set: String,
    },
    /// None of the two can be dialled.
    #[error(
        "neither {a} nor {b} has an address yet: the Service isthmus-system/isthmus-eastwest-link of one of them needs a LoadBalancer address, externalIPs, or the annotation isthmus.io/link-addresses"
    )]
    NoAddress {
        /// One cluster.
        a: String,
        /// The other.
        b: String,
    },
    /// It is one cluster.
    #[error(
        "both are the cluster {cluster}: a cluster is not linked with itself (two clusters with one id need another `cluster` in one's settings)"
    )]
    SameCluster {
        /// The cluster.
        cluster: String,
    },
    /// The clusters have one trust domain.
    #[error(
        "clusters {a} and {b} both use the trust domain {trust_domain}: each needs its own, because a certificate is checked against the authority of its domain"
    )]
    SameTrustDomain {
        /// One cluster.
        a: String,
        /// The other.
        b: String,
        /// The trust domain of both.
        trust_domain: String,
    },
}

/// What a ClusterLink that exists means for an invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// No ClusterLink names the cluster or its trust domain.
    Absent,
    /// A ClusterLink has the name of the new one and leads to another cluster.
    NameTaken {
        /// The cluster that it leads to.
        cluster: String,
    },
    /// A ClusterLink to the cluster exists and trusts the same authority; what else it
    /// says may be older.
    Known {
        /// Its name.
        name: String,
    },
    /// A ClusterLink to the cluster takes its bundle from elsewhere (a ConfigMap or a
    /// hash), so somebody else keeps it.
    KeptElsewhere {
        /// Its name.
        name: String,
    },
    /// A ClusterLink names the same cluster or trust domain and trusts another authority.
    OtherAuthority {
        /// Its name.
        name: String,
    },
}

/// Checks that two clusters can be linked.
///
/// # Errors
///
/// [`Disagreement`] says what both sides have in common that they must not have, or lack.
pub fn check(a: &Invitation, b: &Invitation) -> Result<(), Disagreement> {
    let names = || (a.cluster.to_string(), b.cluster.to_string());
    if a.cluster == b.cluster {
        return Err(Disagreement::SameCluster { cluster: a.cluster.to_string() });
    }
    if a.trust_domain == b.trust_domain {
        let ((a_name, b_name), trust_domain) = (names(), a.trust_domain.to_string());
        return Err(Disagreement::SameTrustDomain { a: a_name, b: b_name, trust_domain });
    }
    if a.clusterset != b.clusterset {
        let (a_name, b_name) = names();
        let (a_set, b_set) = (a.clusterset.to_string(), b.clusterset.to_string());
        return Err(Disagreement::Clusterset { a: a_name, a_set, b: b_name, b_set });
    }
    if a.addresses.is_empty() && b.addresses.is_empty() {
        let (a, b) = names();
        return Err(Disagreement::NoAddress { a, b });
    }
    Ok(())
}

/// Compares an invitation with the ClusterLinks of a cluster; `name` is that of the
/// ClusterLink that would be made.
pub fn standing(links: &[Value], invitation: &Invitation, name: &str) -> Standing {
    for link in links {
        let found = text(link, "/metadata/name");
        let is_cluster = cluster_of(link) == invitation.cluster.as_str();
        let is_domain = text(link, "/spec/trustDomain") == invitation.trust_domain.as_str();
        if !is_cluster && !is_domain {
            if found == name {
                return Standing::NameTaken { cluster: cluster_of(link).to_owned() };
            }
            continue;
        }
        let name = found.to_owned();
        let Some(inline) = link.pointer("/spec/bundle/inline").and_then(Value::as_str) else {
            return Standing::KeptElsewhere { name };
        };
        let is_same = is_cluster && is_domain && share_a_key(inline, &invitation.bundle);
        return if is_same { Standing::Known { name } } else { Standing::OtherAuthority { name } };
    }
    Standing::Absent
}

/// The cluster that a ClusterLink leads to.
pub fn cluster_of(link: &Value) -> &str {
    let named = link.pointer("/spec/cluster").and_then(Value::as_str);
    named.unwrap_or_else(|| text(link, "/metadata/name"))
}

/// Whether two bundles have a root in common, as the bundles of one authority have before
/// and after a rotation.
fn share_a_key(a: &str, b: &str) -> bool {
    let roots = |text: &str| -> BTreeSet<String> {
        let document: Value = serde_json::from_str(text).unwrap_or_default();
        let keys = document.get("keys").and_then(Value::as_array).cloned().unwrap_or_default();
        keys.iter().filter_map(|key| Some(key.pointer("/x5c/0")?.as_str()?.to_owned())).collect()
    };
    !roots(a).is_disjoint(&roots(b))
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
