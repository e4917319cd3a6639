//! Conditions of ClusterLinks. What a link means is the business of federation; here is
//! only what contradicts this cluster or another link.

use std::collections::BTreeMap;

use crate::context::Context;
use crate::kind::{Kind, ObjectRef};
use crate::objects::{ClusterLink, Objects};
use crate::translate::conditions::{
    ConditionPart, ConditionType, ObjectCondition, Problem, Report,
};

/// Says of each link whether it can be used: a peer is another cluster with a trust domain
/// of its own, and of two links to one cluster or trust domain the older counts.
pub(super) fn conditions(
    objects: &Objects,
    context: &Context,
    conditions: &mut Vec<ObjectCondition>,
) {
    let mut links: Vec<&ClusterLink> = objects.cluster_links.values().map(AsRef::as_ref).collect();
    links.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    let mut clusters = BTreeMap::new();
    let mut domains = BTreeMap::new();
    for link in links {
        let older = clusters.get(&link.cluster).or_else(|| domains.get(&link.trust_domain));
        let problem = if link.cluster == context.cluster {
            Some(Problem::new("Invalid", "the link names this cluster itself"))
        } else if link.trust_domain == context.trust_domain {
            Some(Problem::new("Invalid", "the link names the trust domain of this cluster"))
        } else {
            older.map(|older| {
                let message = format!("ClusterLink {older} names the same cluster or trust domain");
                Problem::new("Conflicted", message)
            })
        };
        if problem.is_none() {
            clusters.insert(&link.cluster, &link.name);
            domains.insert(&link.trust_domain, &link.name);
        }
        let object = ObjectRef::cluster(Kind::ClusterLink, link.name.as_str());
        let mut report = Report::of(object, conditions);
        report.outcome(&ConditionPart::Object, ConditionType::Accepted, problem.as_ref());
    }
}
