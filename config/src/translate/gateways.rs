//! Gateways to listeners and certificates.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use isthmus_model::{Certificate, Hostname, Listener, ListenerProtocol, Resource};

use crate::context::Context;
use crate::kind::{GATEWAY_GROUP, Kind, ObjectKey, ObjectRef};
use crate::objects::{
    Gateway, GatewayAddress, GatewayListener, Objects, Protocol, RouteKind, SecretRef,
};
use crate::translate::conditions::{ConditionPart, ConditionType, Problem, Report};
use crate::translate::references::{Referent, Referrer, is_allowed};
use crate::translate::{CONTROLLER_NAME, Translation};

/// Our Gateways, for routes to attach to.
pub(super) type Gateways<'o> = BTreeMap<&'o ObjectKey, OurGateway<'o>>;

/// One Gateway of ours.
pub(super) struct OurGateway<'o> {
    pub(super) gateway: &'o Gateway,
    /// For each listener of the Gateway, the name of its resource, if it has one.
    pub(super) resources: Vec<Option<String>>,
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
            report.outcome(&ConditionPart::Object, ConditionType::Accepted, None);
        }
    }
    let mut ours: Vec<&Gateway> =
        objects.gateways.values().filter(|gateway| is_ours(objects, gateway)).collect();
    // The older Gateway has the address when two want it.
    ours.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
    let mut taken = Taken::default();
    let mut certificates = BTreeSet::new();
    let mut gateways = Gateways::new();
    for gateway in ours {
        let mut work =
            Work { objects, context, taken: &mut taken, certificates: &mut certificates };
        let resources = work.gateway(gateway, out);
        gateways.insert(&gateway.key, OurGateway { gateway, resources });
    }
    for name in certificates {
        out.resources.extend(certificate(objects, &name));
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

/// What listeners of older Gateways have, by bound address and port.
#[derive(Default)]
struct Taken {
    places: BTreeMap<(Option<IpAddr>, u16), Place>,
}

struct Place {
    protocol: ListenerProtocol,
    hostnames: BTreeSet<Option<Hostname>>,
}

struct Work<'w, 'o> {
    objects: &'o Objects,
    context: &'w Context,
    taken: &'w mut Taken,
    certificates: &'w mut BTreeSet<ObjectKey>,
}

impl Work<'_, '_> {
    fn gateway(&mut self, gateway: &Gateway, out: &mut Translation) -> Vec<Option<String>> {
        let mut addresses = Vec::new();
        let mut unsupported = None;
        for address in &gateway.addresses {
            match address {
                GatewayAddress::Ip(address) => addresses.push(*address),
                GatewayAddress::Unsupported(text) => {
                    let message = format!("the address {text} is not of type IPAddress");
                    unsupported = Some(Problem::new("UnsupportedAddress", message));
                }
            }
        }
        let mut resources = Vec::with_capacity(gateway.listeners.len());
        let mut programmed = 0;
        for listener in &gateway.listeners {
            let state = self.state(gateway, listener, &addresses, unsupported.as_ref());
            resources.push(state.resource.as_ref().map(|resource| resource.name.clone()));
            programmed += usize::from(state.resource.is_some());
            state.report(gateway, listener, out);
            out.resources.extend(state.resource.map(Resource::Listener));
        }
        let mut report = Report::new(Kind::Gateway, &gateway.key, &mut out.conditions);
        let all = programmed == gateway.listeners.len();
        let not_valid = Problem::new("ListenersNotValid", "not every listener can be used");
        let accepted = unsupported.as_ref().or_else(|| (!all).then_some(&not_valid));
        let part = ConditionPart::Object;
        match accepted {
            // Spec: Accepted stays true while some listener can be used.
            Some(problem) if programmed > 0 && unsupported.is_none() => {
                report.add(&part, ConditionType::Accepted, true, problem.clone());
            }
            other => report.outcome(&part, ConditionType::Accepted, other),
        }
        let none = Problem::new("Invalid", "no listener can be used");
        let programmed = (programmed == 0).then_some(&none);
        report.outcome(&part, ConditionType::Programmed, programmed);
        resources
    }

    fn state(
        &mut self,
        gateway: &Gateway,
        listener: &GatewayListener,
        addresses: &[IpAddr],
        unsupported: Option<&Problem>,
    ) -> ListenerState {
        let mut state = ListenerState {
            accepted: accepted(gateway, listener),
            conflict: conflict_inside(gateway, listener),
            ..ListenerState::default()
        };
        state.kinds(listener);
        let certificates = self.certificates_of(gateway, listener, &mut state);
        let protocol = match &listener.protocol {
            Protocol::Http => ListenerProtocol::Http,
            Protocol::Https => ListenerProtocol::Https,
            Protocol::Unsupported(_) => return state,
        };
        let no_address = unsupported.is_some() && addresses.is_empty();
        let no_certificate = protocol == ListenerProtocol::Https && certificates.is_empty();
        if no_address || no_certificate || state.accepted.is_some() || state.conflict.is_some() {
            return state;
        }
        let bind = self.context.ingress.port_map.get(&listener.port).copied();
        let bind_port = bind.unwrap_or(listener.port);
        if let Some(conflict) = self.take(listener, protocol, addresses, bind_port) {
            state.conflict = Some(conflict);
            return state;
        }
        state.resource = Some(Listener {
            name: format!("{}/{}", gateway.key, listener.name),
            addresses: addresses.to_vec(),
            port: listener.port,
            bind_port,
            hostname: listener.hostname.clone(),
            protocol,
            certificates: certificates.iter().map(ToString::to_string).collect(),
            created: gateway.created,
            served_by: None,
            client_validation: None,
            backend_certificate: None,
        });
        self.certificates.extend(certificates);
        state
    }

    /// Takes the place of a listener, or says which rule another Gateway's breaks.
    fn take(
        &mut self,
        listener: &GatewayListener,
        protocol: ListenerProtocol,
        addresses: &[IpAddr],
        port: u16,
    ) -> Option<Problem> {
        let any = [None];
        let some: Vec<_> = addresses.iter().copied().map(Some).collect();
        let places = if some.is_empty() { &any[..] } else { &some };
        for address in places {
            let Some(place) = self.taken.places.get(&(*address, port)) else { continue };
            if place.protocol != protocol {
                let message = "an older listener has another protocol on the same address";
                return Some(Problem::new("ProtocolConflict", message));
            }
            if place.hostnames.contains(&listener.hostname) {
                let message = "an older listener has the same hostname on the same address";
                return Some(Problem::new("HostnameConflict", message));
            }
        }
        for address in places {
            let place = self.taken.places.entry((*address, port));
            let place = place.or_insert_with(|| Place { protocol, hostnames: BTreeSet::new() });
            place.hostnames.insert(listener.hostname.clone());
        }
        None
    }

    fn certificates_of(
        &self,
        gateway: &Gateway,
        listener: &GatewayListener,
        state: &mut ListenerState,
    ) -> Vec<ObjectKey> {
        let mut usable = Vec::new();
        for reference in &listener.certificates {
            match self.certificate(gateway, reference) {
                Ok(key) => usable.push(key),
                Err(problem) => state.references = Some(problem),
            }
        }
        usable
    }

    fn certificate(&self, gateway: &Gateway, reference: &SecretRef) -> Result<ObjectKey, Problem> {
        let invalid = |message: String| Problem::new("InvalidCertificateRef", message);
        let key = match reference {
            SecretRef::Secret(key) => key,
            SecretRef::Unsupported(text) => {
                return Err(invalid(format!("{text} is not a Secret")));
            }
        };
        let namespace = &gateway.key.namespace;
        let from = Referrer { group: GATEWAY_GROUP, kind: "Gateway", namespace };
        let name = key.name.as_str();
        let to = Referent { group: "", kind: "Secret", namespace: &key.namespace, name };
        if !is_allowed(self.objects, from, to) {
            let message = format!("no ReferenceGrant allows the reference to Secret {key}");
            return Err(Problem::new("RefNotPermitted", message));
        }
        match self.objects.secrets.get(key) {
            None => Err(invalid(format!("Secret {key} does not exist"))),
            Some(secret) if secret.tls.is_none() => {
                Err(invalid(format!("Secret {key} is not of type kubernetes.io/tls")))
            }
            Some(_) => Ok(key.clone()),
        }
    }
}

fn accepted(gateway: &Gateway, listener: &GatewayListener) -> Option<Problem> {
    if let Protocol::Unsupported(protocol) = &listener.protocol {
        let message = format!("the protocol {protocol} is not supported");
        return Some(Problem::new("UnsupportedProtocol", message));
    }
    let https = listener.protocol == Protocol::Https;
    // Serving without the check that the user asked for would open what is closed.
    if listener.validates_clients || (https && gateway.validates_clients) {
        let message = "validation of client certificates is not supported";
        return Some(Problem::new("UnsupportedValue", message));
    }
    None
}

/// Spec: Gateway listeners are distinct by port, protocol and hostname; of listeners that
/// are not, none is used.
fn conflict_inside(gateway: &Gateway, listener: &GatewayListener) -> Option<Problem> {
    let others = || {
        let same = |other: &&GatewayListener| {
            other.port == listener.port
                && other.name != listener.name
                && !matches!(other.protocol, Protocol::Unsupported(_))
        };
        gateway.listeners.iter().filter(same)
    };
    if matches!(listener.protocol, Protocol::Unsupported(_)) {
        return None;
    }
    if let Some(other) = others().find(|other| other.protocol != listener.protocol) {
        let message = format!("listener {} has another protocol on the port", other.name);
        return Some(Problem::new("ProtocolConflict", message));
    }
    let other = others().find(|other| other.hostname == listener.hostname)?;
    let message = format!("listener {} has the same hostname on the port", other.name);
    Some(Problem::new("HostnameConflict", message))
}

pub(super) fn is_http_route(kind: &RouteKind) -> bool {
    kind.group == GATEWAY_GROUP && kind.kind == "HTTPRoute"
}

/// What came of one listener.
#[derive(Default)]
struct ListenerState {
    accepted: Option<Problem>,
    conflict: Option<Problem>,
    references: Option<Problem>,
    resource: Option<Listener>,
}

impl ListenerState {
    fn kinds(&mut self, listener: &GatewayListener) {
        let supported = !matches!(listener.protocol, Protocol::Unsupported(_));
        if let Some(kind) = listener.kinds.iter().find(|kind| !is_http_route(kind))
            && supported
        {
            let message = format!("routes of kind {}/{} cannot attach", kind.group, kind.kind);
            self.references = Some(Problem::new("InvalidRouteKinds", message));
        }
    }

    fn report(&self, gateway: &Gateway, listener: &GatewayListener, out: &mut Translation) {
        let part = ConditionPart::Listener(listener.name.clone());
        let mut report = Report::new(Kind::Gateway, &gateway.key, &mut out.conditions);
        let conflict = self.conflict.as_ref();
        report.outcome(&part, ConditionType::Accepted, self.accepted.as_ref().or(conflict));
        match conflict {
            Some(problem) => {
                report.add(&part, ConditionType::Conflicted, true, problem.clone());
            }
            None => {
                let none = Problem::new("NoConflicts", "");
                report.add(&part, ConditionType::Conflicted, false, none);
            }
        }
        report.outcome(&part, ConditionType::ResolvedRefs, self.references.as_ref());
        let invalid = Problem::new("Invalid", "the listener cannot be used");
        let programmed = self.resource.is_none().then_some(&invalid);
        report.outcome(&part, ConditionType::Programmed, programmed);
    }
}
