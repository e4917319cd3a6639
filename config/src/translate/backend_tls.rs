//! BackendTLSPolicies to how gateways speak TLS to services.
//!
//! A policy that cannot be used still counts: its target is never spoken to in clear
//! text.
//!
//! Conditions are written for each ancestor: a Gateway of ours that opens connections to a
//! target, for a route of whatever kind. So one for an HTTPRoute, GRPCRoute or TCPRoute
//! counts, and for a TLSRoute where the TLS of clients ends at the listener; one that
//! passes TLS through or carries datagrams does not, since a policy changes nothing there.

use std::collections::{BTreeMap, BTreeSet};

use isthmus_model::{BackendRoots, BackendTls, Resource, ServiceKey};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::kind::{Kind, ObjectKey};
use crate::objects::{
    BackendTlsPolicy, BackendTlsRoots, CaRef, Objects, PolicyTarget, PolicyTargetRef,
};
use crate::translate::Translation;
use crate::translate::conditions::{ConditionPart, ConditionType, Problem, Report};
use crate::translate::outcome::Users;
use crate::translate::services::object_key;

/// Adds the policies. Of those for one target the older is used, then the first by name.
///
/// Spec: BackendTLSPolicySpec.targetRefs; a policy for a port and one for the whole
/// service are of different targets.
pub(super) fn translate(objects: &Objects, users: &Users, out: &mut Translation) {
    let policies = objects.backend_tls_policies.values().map(AsRef::as_ref);
    let mut policies: Vec<&BackendTlsPolicy> = policies.collect();
    policies.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
    let mut taken = BTreeMap::new();
    for policy in policies {
        let (roots, references) = roots(objects, policy);
        let mut ancestors: BTreeMap<&ObjectKey, Option<Problem>> = BTreeMap::new();
        for target in &policy.targets {
            let (service, port) = match resolve(objects, policy, target) {
                Ok(found) => found,
                Err(problem) => {
                    let part = ConditionPart::Object;
                    let conditions = &mut out.conditions;
                    let mut report = Report::new(Kind::BackendTlsPolicy, &policy.key, conditions);
                    report.outcome(&part, ConditionType::Accepted, Some(&problem));
                    continue;
                }
            };
            let conflict = taken.get(&(service.clone(), port)).map(|older: &&ObjectKey| {
                let message = format!("{older} is an older policy for the same target");
                Problem::new("Conflicted", message)
            });
            for gateway in users.of(&service) {
                let known = ancestors.entry(gateway).or_default();
                *known = known.take().or_else(|| conflict.clone());
            }
            if conflict.is_none() {
                taken.insert((service.clone(), port), &policy.key);
                let resource = BackendTls {
                    policy: policy.key.to_string(),
                    service,
                    port,
                    hostname: policy.hostname.clone(),
                    names: policy.names.clone(),
                    roots: roots.clone(),
                };
                out.resources.push(Resource::BackendTls(resource).into());
            }
        }
        let invalid = match &roots {
            BackendRoots::Invalid { reason } => {
                Some(Problem::new("NoValidCACertificate", reason.clone()))
            }
            BackendRoots::Pem(_) | BackendRoots::System => None,
        };
        let mut report = Report::new(Kind::BackendTlsPolicy, &policy.key, &mut out.conditions);
        for (gateway, conflict) in ancestors {
            let part = ConditionPart::Ancestor(gateway.clone());
            let refusal = conflict.as_ref().or(invalid.as_ref());
            report.outcome(&part, ConditionType::Accepted, refusal);
            report.outcome(&part, ConditionType::ResolvedRefs, references.as_ref());
        }
    }
}

/// The Services that policies name, whether they exist or not.
pub(super) fn targets(objects: &Objects) -> BTreeSet<ServiceKey> {
    let policies = objects.backend_tls_policies.values();
    let all = policies.flat_map(|policy| policy.targets.iter().map(move |of| (policy, of)));
    let named = all.filter_map(|(policy, of)| match &of.target {
        PolicyTargetRef::Service(name) => {
            Some(ServiceKey::cluster(policy.key.namespace.clone(), name.clone()))
        }
        PolicyTargetRef::Unsupported(_) => None,
    });
    named.collect()
}

/// The service and port of a target.
fn resolve(
    objects: &Objects,
    policy: &BackendTlsPolicy,
    target: &PolicyTarget,
) -> Result<(ServiceKey, Option<u16>), Problem> {
    let service = match &target.target {
        PolicyTargetRef::Service(name) => {
            ServiceKey::cluster(policy.key.namespace.clone(), name.clone())
        }
        PolicyTargetRef::Unsupported(text) => {
            let message = format!("{text} is not a Service");
            return Err(Problem::new("InvalidKind", message));
        }
    };
    let found = object_key(&service).and_then(|key| objects.services.get(&key));
    let not_found = |message: String| Problem::new("TargetNotFound", message);
    let found = found.ok_or_else(|| not_found(format!("{service} does not exist")))?;
    let Some(section) = &target.section else {
        return Ok((service, None));
    };
    let named = |name: &isthmus_model::Label| name.as_str() == section.as_str();
    match found.ports.iter().find(|port| port.name.as_ref().is_some_and(named)) {
        Some(port) => Ok((service, Some(port.number))),
        None => Err(not_found(format!("{service} has no port with the name {section}"))),
    }
}

/// Whom a policy trusts, and the first reference that cannot be used. Those that can be
/// used count, as long as there is one.
fn roots(objects: &Objects, policy: &BackendTlsPolicy) -> (BackendRoots, Option<Problem>) {
    let references = match &policy.roots {
        BackendTlsRoots::References(references) => references,
        BackendTlsRoots::System => return (BackendRoots::System, None),
    };
    let mut problem = None;
    let mut texts = BTreeSet::new();
    for reference in references {
        match certificates(objects, reference) {
            Ok(text) => drop(texts.insert(text)),
            Err(found) => drop(problem.get_or_insert(found)),
        }
    }
    if texts.is_empty() {
        let message = problem.as_ref().map(|problem: &Problem| problem.message.clone());
        return (BackendRoots::Invalid { reason: message.unwrap_or_default() }, problem);
    }
    let texts: Vec<&str> = texts.into_iter().collect();
    (BackendRoots::Pem(texts.join("\n")), problem)
}

fn certificates<'o>(objects: &'o Objects, reference: &CaRef) -> Result<&'o str, Problem> {
    let key = match reference {
        CaRef::ConfigMap(key) => key,
        CaRef::Unsupported(text) => {
            return Err(Problem::new("InvalidKind", format!("{text} is not a ConfigMap")));
        }
    };
    let invalid = |message: String| Problem::new("InvalidCACertificateRef", message);
    let Some(config_map) = objects.config_maps.get(key) else {
        return Err(invalid(format!("ConfigMap {key} does not exist")));
    };
    let Some(text) = config_map.data.get(CA_KEY) else {
        return Err(invalid(format!("ConfigMap {key} has no key {CA_KEY}")));
    };
    let parsed = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    match parsed {
        Ok(list) if !list.is_empty() => Ok(text),
        Ok(_) | Err(_) => {
            Err(invalid(format!("{CA_KEY} of ConfigMap {key} has no certificates in PEM")))
        }
    }
}

/// The key of a ConfigMap that has certificates of authorities.
const CA_KEY: &str = "ca.crt";
