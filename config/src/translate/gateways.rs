//! Gateways and their ListenerSets to listeners and certificates.
//!
//! A Gateway and the ListenerSets that it allows are one list of listeners. Of two that
//! cannot both be bound the one of higher precedence stays: the older Gateway with its
//! sets, in it the Gateway's own, then those of the older set, then by name. Listeners of
//! one object have no precedence among each other: of those that clash none is used.

mod listeners;
mod parameters;
mod places;
mod tls;

use std::collections::{BTreeMap, BTreeSet};

use isthmus_model::{Certificate, Resource};

pub(super) use self::listeners::OurListener;
use self::listeners::{Owner, Work};
pub use self::parameters::{ServedGateway, served_gateways};
use self::parameters::{allows, parameters_of_class};
use self::places::Taken;
use crate::context::Context;
use crate::kind::{Kind, ObjectKey, ObjectRef};
use crate::objects::{Gateway, ListenerSet, Objects};
use crate::translate::conditions::{ConditionPart, ConditionType, Problem, Report};
use crate::translate::{CONTROLLER_NAME, GatewayStatus, Named, Translation};

/// Our Gateways and ListenerSets, for routes to attach to.
#[derive(Default)]
pub(super) struct Gateways<'o> {
    owners: BTreeMap<Kind, BTreeMap<&'o ObjectKey, ListenerOwner<'o>>>,
    others: BTreeMap<Kind, BTreeSet<&'o ObjectKey>>,
}

/// What a parentRef with a Gateway or ListenerSet names.
pub(super) enum Found<'g, 'o> {
    /// Nothing.
    Absent,
    /// An object of another controller.
    NotOurs,
    /// One of ours.
    Ours(&'g ListenerOwner<'o>),
}

/// One Gateway or ListenerSet of ours.
pub(super) struct ListenerOwner<'o> {
    /// Its name; routes "of the same namespace" are of this one.
    pub(super) key: &'o ObjectKey,
    /// Its listeners, in order.
    pub(super) listeners: Vec<OurListener<'o>>,
}

impl<'o> Gateways<'o> {
    /// Finds a Gateway or ListenerSet.
    pub(super) fn find(&self, kind: Kind, key: &ObjectKey) -> Found<'_, 'o> {
        if let Some(owner) = self.owners.get(&kind).and_then(|owners| owners.get(key)) {
            return Found::Ours(owner);
        }
        match self.others.get(&kind).is_some_and(|others| others.contains(key)) {
            true => Found::NotOurs,
            false => Found::Absent,
        }
    }

    fn insert(&mut self, kind: Kind, key: &'o ObjectKey, listeners: Vec<OurListener<'o>>) {
        let owners = self.owners.entry(kind).or_default();
        owners.insert(key, ListenerOwner { key, listeners });
    }

    fn insert_other(&mut self, kind: Kind, key: &'o ObjectKey) {
        self.others.entry(kind).or_default().insert(key);
    }
}

/// Adds the listeners and certificates of every Gateway of ours.
pub(super) fn translate<'o>(
    objects: &'o Objects,
    context: &Context,
    out: &mut Translation,
) -> Gateways<'o> {
    for class in objects.gateway_classes.values() {
        if class.controller_name == CONTROLLER_NAME {
            let object = ObjectRef::cluster(Kind::GatewayClass, class.name.as_str());
            let mut report = Report::of(object, &mut out.conditions);
            let problem = parameters_of_class(objects, class).err();
            report.outcome(&ConditionPart::Object, ConditionType::Accepted, problem.as_ref());
        }
    }
    let mut gateways = Gateways::default();
    let all = objects.gateways.values().map(AsRef::as_ref);
    let (mut ours, others): (Vec<&Gateway>, Vec<&Gateway>) =
        all.partition(|gateway| is_ours(objects, gateway));
    others.iter().for_each(|gateway| gateways.insert_other(Kind::Gateway, &gateway.key));
    ours.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
    let mut sets = sets(objects, &mut gateways);
    let mut taken = Taken::default();
    let mut certificates = BTreeSet::new();
    for gateway in ours {
        let sets = sets.remove(&gateway.key).unwrap_or_default();
        let mut work = Work::new(objects, context, gateway, &mut taken, &mut certificates);
        one(&mut work, &sets, &mut gateways, out);
    }
    for name in certificates {
        out.resources.extend(certificate(objects, &name).map(Named::from));
    }
    gateways
}

pub(super) fn is_ours(objects: &Objects, gateway: &Gateway) -> bool {
    let class = objects.gateway_classes.get(&gateway.class);
    class.is_some_and(|class| class.controller_name == CONTROLLER_NAME)
}

fn certificate(objects: &Objects, key: &ObjectKey) -> Option<Resource> {
    let tls = objects.secrets.get(key)?.tls.as_ref()?;
    let (chain_pem, key_pem) = (tls.chain_pem.clone(), tls.key_pem.clone());
    Some(Resource::Certificate(Certificate { name: key.to_string(), chain_pem, key_pem }))
}

/// The ListenerSets of our Gateways, in order of precedence. A set whose Gateway does not
/// exist is left to whichever controller will have the Gateway.
fn sets<'o>(
    objects: &'o Objects,
    gateways: &mut Gateways<'o>,
) -> BTreeMap<&'o ObjectKey, Vec<&'o ListenerSet>> {
    let mut sets: BTreeMap<&ObjectKey, Vec<&ListenerSet>> = BTreeMap::new();
    for set in objects.listener_sets.values() {
        let gateway = set.gateway.as_ref().and_then(|key| objects.gateways.get(key));
        match gateway.filter(|gateway| is_ours(objects, gateway)) {
            Some(gateway) => sets.entry(&gateway.key).or_default().push(set),
            None => gateways.insert_other(Kind::ListenerSet, &set.key),
        }
    }
    for sets in sets.values_mut() {
        sets.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
    }
    sets
}

/// One Gateway with its ListenerSets.
fn one<'o>(
    work: &mut Work<'_, 'o>,
    sets: &[&'o ListenerSet],
    gateways: &mut Gateways<'o>,
    out: &mut Translation,
) {
    let gateway = work.gateway;
    let owner = Owner {
        kind: Kind::Gateway,
        key: &gateway.key,
        listeners: &gateway.listeners,
        is_refused: work.refusal.is_some(),
    };
    let listeners = work.listeners(&owner, out);
    let served = listeners.iter().filter(|listener| listener.resource.is_some()).count();
    report_gateway(work, served, out);
    gateways.insert(Kind::Gateway, &gateway.key, listeners);
    let mut attached_listener_sets = 0;
    for set in sets {
        let refusal = refusal_of_set(work, set);
        let owner = Owner {
            kind: Kind::ListenerSet,
            key: &set.key,
            listeners: &set.listeners,
            is_refused: refusal.is_some(),
        };
        let listeners = work.listeners(&owner, out);
        let served = listeners.iter().filter(|listener| listener.resource.is_some()).count();
        report_set(set, refusal.as_ref(), served, out);
        attached_listener_sets += u32::from(served > 0);
        gateways.insert(Kind::ListenerSet, &set.key, listeners);
    }
    let gateway = ObjectRef::namespaced(Kind::Gateway, &gateway.key);
    out.gateways.push(GatewayStatus { gateway, attached_listener_sets });
}

fn report_gateway(work: &Work<'_, '_>, served: usize, out: &mut Translation) {
    let gateway = work.gateway;
    let mut report = Report::new(Kind::Gateway, &gateway.key, &mut out.conditions);
    let part = ConditionPart::Object;
    let all = served == gateway.listeners.len();
    let not_valid = Problem::new("ListenersNotValid", "not every listener can be used");
    match work.unsupported.as_ref().or_else(|| (!all).then_some(&not_valid)) {
        // Spec: Accepted stays true while some listener can be used.
        Some(problem) if served > 0 && work.unsupported.is_none() => {
            report.add(&part, ConditionType::Accepted, true, problem.clone());
        }
        other => report.outcome(&part, ConditionType::Accepted, other),
    }
    let none = Problem::new("Invalid", "no listener can be used");
    let programmed = (served == 0).then_some(&none);
    report.outcome(&part, ConditionType::Programmed, programmed);
    report.outcome(&part, ConditionType::ResolvedRefs, work.backend_problem.as_ref());
    if gateway.frontend.has_insecure_fallback() {
        let message = "clients without a valid certificate are let in";
        let problem = Problem::new("ConfigurationChanged", message);
        report.add(&part, ConditionType::InsecureFrontendValidationMode, true, problem);
    }
}

fn refusal_of_set(work: &Work<'_, '_>, set: &ListenerSet) -> Option<Problem> {
    let gateway = work.gateway;
    if !allows(work.objects, gateway, set) {
        let message = format!("Gateway {} does not allow the set", gateway.key);
        return Some(Problem::new("NotAllowed", message));
    }
    work.refusal.as_ref().map(|_| {
        let message = format!("Gateway {} is not accepted", gateway.key);
        Problem::new("ParentNotAccepted", message)
    })
}

/// Spec: ListenerSet: accepted while some listener can be used.
fn report_set(set: &ListenerSet, refusal: Option<&Problem>, served: usize, out: &mut Translation) {
    let mut report = Report::new(Kind::ListenerSet, &set.key, &mut out.conditions);
    let part = ConditionPart::Object;
    let not_valid = || {
        let which = if served == 0 { "no listener can" } else { "not every listener can" };
        Problem::new("ListenersNotValid", format!("{which} be used"))
    };
    let none = (served == 0).then(not_valid);
    let problem = refusal.or(none.as_ref());
    match problem {
        None if served < set.listeners.len() => {
            report.add(&part, ConditionType::Accepted, true, not_valid());
        }
        other => report.outcome(&part, ConditionType::Accepted, other),
    }
    report.outcome(&part, ConditionType::Programmed, problem);
}

#[cfg(test)]
mod tests;
