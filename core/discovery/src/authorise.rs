//! Which roles an identity may have: decided by the certificate, never by the hello.
//!
//! The role Ingress is no privilege: every workload may take it, and sees the listeners
//! that name it as their server, which for most is none. `visibility` decides that by the
//! identity that is kept here.

use isthmus_model::name::SYSTEM_NAMESPACE;
use isthmus_model::{Label, SpiffeId, TrustDomain};

use crate::node::{NodeIdentity, NodeRole, WorkloadName};

/// A node that is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{identity} is not of trust domain {own}")]
    Foreign { identity: SpiffeId, own: TrustDomain },
    #[error("{identity} is no workload")]
    NoWorkload { identity: SpiffeId },
    #[error("{identity} may not have the role {asked}, only {}", list(allowed))]
    Role { identity: SpiffeId, allowed: &'static [NodeRole], asked: NodeRole },
    #[error("{identity} is not the workload {asked}")]
    Workload { identity: SpiffeId, asked: WorkloadName },
}

/// Makes the authorised node of a proven identity.
///
/// Our own accounts have the role of their name; the east-west gateway may serve listeners
/// too, those for pods outside the mesh. Every other workload of the own trust domain is a
/// sidecar or serves the listeners of its Gateway, in both cases for itself alone.
pub(crate) fn authorise(
    identity: &SpiffeId,
    own: &TrustDomain,
    asked: &NodeIdentity,
) -> Result<NodeIdentity, Refused> {
    if identity.trust_domain() != own {
        return Err(Refused::Foreign { identity: identity.clone(), own: own.clone() });
    }
    let no_workload = || Refused::NoWorkload { identity: identity.clone() };
    let (namespace, account) = identity.namespace_and_account().ok_or_else(no_workload)?;
    let label = |text| Label::new(text).map_err(|_| no_workload());
    let workload = WorkloadName { namespace: label(namespace)?, account: label(account)? };
    let allowed: &[NodeRole] = match (namespace, account) {
        (SYSTEM_NAMESPACE, "isthmus-dns") => &[NodeRole::Dns],
        (SYSTEM_NAMESPACE, "isthmus-eastwest") => &[NodeRole::EastWest, NodeRole::Ingress],
        (SYSTEM_NAMESPACE, INGRESS_ACCOUNT) => &[NodeRole::Ingress],
        _ => &[NodeRole::Ingress, NodeRole::Sidecar],
    };
    if !allowed.contains(&asked.role) {
        let (identity, asked) = (identity.clone(), asked.role);
        return Err(Refused::Role { identity, allowed, asked });
    }
    if let Some(asked) = &asked.workload
        && *asked != workload
    {
        return Err(Refused::Workload { identity: identity.clone(), asked: asked.clone() });
    }
    Ok(NodeIdentity {
        name: asked.name.clone(),
        role: asked.role,
        workload: Some(workload),
        identity: Some(identity.clone()),
    })
}

fn list(roles: &[NodeRole]) -> String {
    let labels: Vec<_> = roles.iter().map(|role| role.label()).collect();
    labels.join(" or ")
}

/// The account of the ingress that serves every listener without a server of its own.
pub(crate) const INGRESS_ACCOUNT: &str = "isthmus-ingress";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node;

    #[test]
    fn the_certificate_decides_the_role() {
        let own = TrustDomain::new("c1.test").unwrap();
        let check = |identity: &str, role, served: bool| {
            let id = SpiffeId::parse(&format!("spiffe://{identity}")).unwrap();
            let asked = NodeIdentity { workload: None, ..node("n", role) };
            let outcome = authorise(&id, &own, &asked);
            assert_eq!(outcome.is_ok(), served, "{identity} as {role}: {outcome:?}");
        };
        let system = |account: &str| format!("c1.test/ns/isthmus-system/sa/{account}");
        check(&system("isthmus-ingress"), NodeRole::Ingress, true);
        check(&system("isthmus-eastwest"), NodeRole::EastWest, true);
        check(&system("isthmus-dns"), NodeRole::Dns, true);
        check(&system("isthmus-dns"), NodeRole::Ingress, false);
        check(&system("isthmus-eastwest"), NodeRole::Ingress, true);
        check(&system("isthmus-eastwest"), NodeRole::Sidecar, false);
        check(&system("isthmus-ingress"), NodeRole::EastWest, false);
        check(&system("isthmus-ingress"), NodeRole::Sidecar, false);
        check("c1.test/ns/shop/sa/isthmus-ingress", NodeRole::Ingress, true);
        check("c1.test/ns/shop/sa/isthmus-ingress", NodeRole::Sidecar, true);
        check("c1.test/ns/shop/sa/web", NodeRole::Ingress, true);
        check("c1.test/ns/shop/sa/web", NodeRole::EastWest, false);
        check("c1.test/ns/shop/sa/web", NodeRole::Dns, false);
        check("c1.test/node/a", NodeRole::Ingress, false);
        check("c1.test/node/a", NodeRole::Sidecar, false);
        check("c2.test/ns/isthmus-system/sa/isthmus-ingress", NodeRole::Ingress, false);
        check("c2.test/ns/shop/sa/web", NodeRole::Sidecar, false);
        check("c2.test/ns/shop/sa/web", NodeRole::Ingress, false);
    }

    #[test]
    fn the_identity_is_that_of_the_certificate_and_a_refusal_names_the_roles() {
        let own = TrustDomain::new("c1.test").unwrap();
        let id = SpiffeId::parse("spiffe://c1.test/ns/shop/sa/gw").unwrap();
        let mut asked = node("n", NodeRole::Ingress);
        asked.identity = SpiffeId::parse("spiffe://c1.test/ns/isthmus-system/sa/other").ok();
        assert_eq!(authorise(&id, &own, &asked).unwrap().identity, Some(id.clone()));
        asked.role = NodeRole::Dns;
        let refused = authorise(&id, &own, &asked).unwrap_err().to_string();
        assert!(refused.ends_with("the role Dns, only Ingress or Sidecar"), "{refused}");
    }

    #[test]
    fn a_sidecar_is_served_for_itself_alone() {
        let own = TrustDomain::new("c1.test").unwrap();
        let id = SpiffeId::parse("spiffe://c1.test/ns/shop/sa/web").unwrap();
        let mut asked = node("n", NodeRole::Sidecar);
        asked.workload = None;
        let served = authorise(&id, &own, &asked).unwrap();
        assert_eq!(served.workload.unwrap().to_string(), "shop/web");
        let other = Label::new("other").unwrap();
        asked.workload = Some(WorkloadName { namespace: other.clone(), account: other });
        assert!(matches!(authorise(&id, &own, &asked), Err(Refused::Workload { .. })));
    }
}
