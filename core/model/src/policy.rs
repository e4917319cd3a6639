//! Policies of the mesh: how much mTLS an inbound side demands.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::{Label, SYSTEM_NAMESPACE};

/// An Istio PeerAuthentication.
///
/// Spec: `security.istio.io/v1` PeerAuthentication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAuthentication {
    /// `<namespace>/<name>`, unique.
    pub name: String,
    /// The namespace; the root namespace means the whole mesh.
    pub namespace: Label,
    /// Labels a workload must have; empty means every workload of the namespace.
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
    /// The mode; `None` inherits.
    #[serde(default)]
    pub mode: Option<MtlsMode>,
    /// Modes of single ports of the workload.
    #[serde(default)]
    pub ports: BTreeMap<u16, MtlsMode>,
    /// Creation time, seconds since 1970: among equals the older wins.
    #[serde(default)]
    pub created: i64,
}

/// How much mTLS an inbound side demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum MtlsMode {
    /// Plaintext only is accepted on application ports; mTLS on the mesh port still works.
    Disable,
    /// Both are accepted.
    Permissive,
    /// Only mTLS is accepted.
    Strict,
}

/// Finds the mode for one port of a workload.
///
/// The most specific object that says something wins: port of a matching selector,
/// matching selector, namespace, root namespace (`isthmus-system` or `istio-system`);
/// otherwise PERMISSIVE, as in Istio.
pub fn mtls_mode(
    policies: &[PeerAuthentication],
    namespace: &str,
    labels: &BTreeMap<String, String>,
    port: u16,
) -> (MtlsMode, Option<String>) {
    let selected = |policy: &&PeerAuthentication| {
        policy.namespace.as_str() == namespace
            && !policy.selector.is_empty()
            && policy.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    let whole = |policy: &&PeerAuthentication, of: &str| {
        policy.namespace.as_str() == of && policy.selector.is_empty()
    };
    let oldest = |found: Vec<&PeerAuthentication>| -> Vec<PeerAuthentication> {
        let mut found: Vec<_> = found.into_iter().cloned().collect();
        found.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        found
    };
    let by_selector = oldest(policies.iter().filter(selected).collect());
    if let Some((mode, name)) =
        by_selector.iter().find_map(|p| p.ports.get(&port).map(|mode| (*mode, p.name.clone())))
    {
        return (mode, Some(name));
    }
    let by_namespace = oldest(policies.iter().filter(|p| whole(p, namespace)).collect());
    let roots = [SYSTEM_NAMESPACE, ISTIO_ROOT_NAMESPACE];
    let by_root =
        oldest(policies.iter().filter(|p| roots.iter().any(|root| whole(p, root))).collect());
    [by_selector, by_namespace, by_root]
        .iter()
        .flatten()
        .find_map(|policy| Some((policy.mode?, Some(policy.name.clone()))))
        .unwrap_or((MtlsMode::Permissive, None))
}

const ISTIO_ROOT_NAMESPACE: &str = "istio-system";

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(namespace: &str, selector: &[(&str, &str)], mode: MtlsMode) -> PeerAuthentication {
        PeerAuthentication {
            name: format!("{namespace}/{}", selector.len()),
            namespace: Label::new(namespace).unwrap(),
            selector: selector.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            mode: Some(mode),
            ports: BTreeMap::new(),
            created: 0,
        }
    }

    #[test]
    fn the_most_specific_policy_wins() {
        let labels = BTreeMap::from([("app".to_owned(), "pay".to_owned())]);
        let mut policies = vec![policy("istio-system", &[], MtlsMode::Strict)];
        let mode = |policies: &[PeerAuthentication]| mtls_mode(policies, "shop", &labels, 80).0;
        assert_eq!(mode(&[]), MtlsMode::Permissive);
        assert_eq!(mode(&policies), MtlsMode::Strict);
        policies.push(policy("shop", &[], MtlsMode::Permissive));
        assert_eq!(mode(&policies), MtlsMode::Permissive);
        let mut own = policy("shop", &[("app", "pay")], MtlsMode::Strict);
        own.ports.insert(81, MtlsMode::Disable);
        policies.push(own);
        assert_eq!(mode(&policies), MtlsMode::Strict);
        assert_eq!(mtls_mode(&policies, "shop", &labels, 81).0, MtlsMode::Disable);
    }
}
