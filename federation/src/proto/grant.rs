//! Import and export rules: which services may pass between this cluster and a peer.
//!
//! The rules are those of the ClusterLink; they grant, and an empty list denies
//! everything. What belongs to each cluster alone is granted by no rule.

use isthmus_config::{AccessRule, NamePattern};
use isthmus_model::name::SYSTEM_NAMESPACE;

use super::entry::ServiceName;

/// The rules of one direction of one link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    rules: Vec<AccessRule>,
}

impl Grants {
    /// A service passes when one of these covers it.
    pub fn new(rules: Vec<AccessRule>) -> Self {
        Self { rules }
    }

    /// Lets every service pass that may pass at all.
    pub fn everything() -> Self {
        let any = || vec![NamePattern::Any];
        Self::new(vec![AccessRule { namespaces: any(), names: any(), ports: Vec::new() }])
    }

    /// Whether the service passes, with at least one port.
    pub fn allow_service(&self, service: &ServiceName) -> bool {
        self.allow(service, None)
    }

    /// Whether this port of the service passes.
    pub fn allow_port(&self, service: &ServiceName, port: u16) -> bool {
        self.allow(service, Some(port))
    }

    fn allow(&self, service: &ServiceName, port: Option<u16>) -> bool {
        let covers = |rule: &AccessRule| rule.allows(&service.namespace, &service.name, port);
        !is_reserved(service) && self.rules.iter().any(covers)
    }
}

/// Whether no rule can let the service pass: what belongs to each cluster alone.
///
/// A wildcard must not let a peer shadow the cluster's own DNS or API server.
pub fn is_reserved(service: &ServiceName) -> bool {
    let namespace = service.namespace.as_str();
    RESERVED_NAMESPACES.contains(&namespace)
        || (namespace == "default" && service.name.as_str() == "kubernetes")
}

/// Namespaces whose services never cross.
pub const RESERVED_NAMESPACES: [&str; 4] =
    ["kube-node-lease", "kube-public", "kube-system", SYSTEM_NAMESPACE];

#[cfg(test)]
mod tests {
    use isthmus_model::Label;

    use super::*;

    fn name(text: &str) -> ServiceName {
        let (namespace, name) = text.split_once('/').unwrap();
        ServiceName::new(Label::new(namespace).unwrap(), Label::new(name).unwrap())
    }

    #[test]
    fn nothing_passes_without_a_rule() {
        assert!(!Grants::default().allow_service(&name("shop/cart")));
    }

    #[test]
    fn a_wildcard_never_covers_what_is_reserved() {
        let grants = Grants::everything();
        assert!(grants.allow_service(&name("shop/cart")));
        for reserved in ["kube-system/kube-dns", "default/kubernetes", "isthmus-system/federation"]
        {
            assert!(!grants.allow_service(&name(reserved)), "{reserved}");
            assert!(!grants.allow_port(&name(reserved), 443), "{reserved}");
        }
    }

    #[test]
    fn ports_are_granted_with_their_service() {
        let namespaces = vec![NamePattern::Name(Label::new("shop").unwrap())];
        let rule = AccessRule { namespaces, names: vec![NamePattern::Any], ports: vec![80] };
        let grants = Grants::new(vec![rule]);
        assert!(grants.allow_port(&name("shop/cart"), 80));
        assert!(!grants.allow_port(&name("shop/cart"), 81));
        assert!(!grants.allow_port(&name("pay/cart"), 80));
    }
}
