//! Which role an identity may have: decided by the certificate, never by the hello.

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
    #[error("{identity} has the role {allowed} and not {asked}")]
    Role { identity: SpiffeId, allowed: NodeRole, asked: NodeRole },
    #[error("{identity} is not the workload {asked}")]
    Workload { identity: SpiffeId, asked: WorkloadName },
}

/// Makes the authorised node of a proven identity.
///
/// Each of our own accounts has the one role of its name; every other workload of the own
/// trust domain is a sidecar, for itself alone.
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
    let allowed = match (namespace, account) {
        (SYSTEM_NAMESPACE, "isthmus-dns") => NodeRole::Dns,
        (SYSTEM_NAMESPACE, "isthmus-eastwest") => NodeRole::EastWest,
        (SYSTEM_NAMESPACE, "isthmus-ingress") => NodeRole::Ingress,
        _ => NodeRole::Sidecar,
    };
    if asked.role != allowed {
        let (identity, asked) = (identity.clone(), asked.role);
        return Err(Refused::Role { identity, allowed, asked });
    }
    if let Some(asked) = &asked.workload
        && *asked != workload
    {
        return Err(Refused::Workload { identity: identity.clone(), asked: asked.clone() });
    }
    Ok(NodeIdentity { name: asked.name.clone(), role: allowed, workload: Some(workload) })
}

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
        check(&system("isthmus-ingress"), NodeRole::Sidecar, false);
        check("c1.test/ns/shop/sa/isthmus-ingress", NodeRole::Ingress, false);
        check("c1.test/ns/shop/sa/isthmus-ingress", NodeRole::Sidecar, true);
        check("c1.test/ns/shop/sa/web", NodeRole::Ingress, false);
        check("c1.test/node/a", NodeRole::Sidecar, false);
        check("c2.test/ns/isthmus-system/sa/isthmus-ingress", NodeRole::Ingress, false);
        check("c2.test/ns/shop/sa/web", NodeRole::Sidecar, false);
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
