//! The listeners of one Gateway or ListenerSet.

use std::collections::BTreeSet;
use std::net::IpAddr;

use isthmus_model::{Listener, ListenerProtocol, Resource, SpiffeId};

use super::parameters::parameters;
use super::places::{Claim, Taken, conflict_inside};
use super::tls::{client_validation, secret};
use crate::context::Context;
use crate::kind::{GATEWAY_GROUP, Kind, ObjectKey, ObjectRef};
use crate::objects::{Gateway, GatewayAddress, GatewayListener, Objects, Protocol, RouteKind};
use crate::translate::conditions::{ConditionPart, ConditionType, Problem, Report};
use crate::translate::{ListenerStatus, Translation};

/// One listener of ours, for routes to attach to.
pub(crate) struct OurListener<'o> {
    /// As the user wrote it.
    pub(crate) listener: &'o GatewayListener,
    /// The kinds of routes that may attach.
    pub(crate) kinds: Vec<RouteKind>,
    /// The name of its resource, if it has one.
    pub(crate) resource: Option<String>,
    /// Its entry in [`Translation::listeners`].
    pub(crate) status: usize,
}

/// The object that has listeners.
pub(super) struct Owner<'o> {
    pub(super) kind: Kind,
    pub(super) key: &'o ObjectKey,
    pub(super) listeners: &'o [GatewayListener],
    /// Whether none of its listeners may be used, whatever they say.
    pub(super) is_refused: bool,
}

/// What the listeners of a Gateway and its sets share.
pub(super) struct Work<'w, 'o> {
    pub(super) objects: &'o Objects,
    pub(super) gateway: &'o Gateway,
    /// Why the Gateway is not accepted as it is.
    pub(super) unsupported: Option<Problem>,
    /// The same, where no listener can be used for it.
    pub(super) refusal: Option<Problem>,
    /// Why backends are not shown the certificate that the Gateway names.
    pub(super) backend_problem: Option<Problem>,
    backend_certificate: Option<ObjectKey>,
    context: &'w Context,
    addresses: Vec<IpAddr>,
    served_by: Option<SpiffeId>,
    taken: &'w mut Taken,
    certificates: &'w mut BTreeSet<ObjectKey>,
}

impl<'w, 'o> Work<'w, 'o> {
    pub(super) fn new(
        objects: &'o Objects,
        context: &'w Context,
        gateway: &'o Gateway,
        taken: &'w mut Taken,
        certificates: &'w mut BTreeSet<ObjectKey>,
    ) -> Self {
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
        let mut refusal = unsupported.clone().filter(|_| addresses.is_empty());
        if let Err(problem) = parameters(objects, gateway) {
            unsupported = Some(problem.clone());
            refusal = Some(problem);
        }
        let served_by = context.ingress.served_by.get(&gateway.key).cloned();
        if served_by.is_some() {
            // They are the addresses of the Service before the workload.
            addresses.clear();
        }
        let owner = (Kind::Gateway, &gateway.key);
        let backend = gateway.backend_certificate.as_ref();
        let backend =
            backend.map(|r| secret(objects, owner, r, "InvalidClientCertificateRef")).transpose();
        let (backend_certificate, backend_problem) = match backend {
            Ok(key) => (key, None),
            Err(problem) => (None, Some(problem)),
        };
        Self {
            objects,
            gateway,
            unsupported,
            refusal,
            backend_problem,
            backend_certificate,
            context,
            addresses,
            served_by,
            taken,
            certificates,
        }
    }

    /// Adds the listeners of a Gateway or ListenerSet, with their conditions.
    pub(super) fn listeners(
        &mut self,
        owner: &Owner<'o>,
        out: &mut Translation,
    ) -> Vec<OurListener<'o>> {
        let mut conflicts = self.conflicts(owner);
        let mut found = Vec::with_capacity(owner.listeners.len());
        for (index, listener) in owner.listeners.iter().enumerate() {
            let conflict = conflicts.get_mut(index).and_then(Option::take);
            let state = self.state(owner, listener, conflict);
            state.report(owner, listener, out);
            let status = out.listeners.len();
            out.listeners.push(ListenerStatus {
                parent: ObjectRef::namespaced(owner.kind, owner.key),
                name: listener.name.clone(),
                supported_kinds: state.kinds.clone(),
                attached_routes: 0,
            });
            let resource = state.resource.as_ref().map(|resource| resource.name.clone());
            out.resources.extend(state.resource.map(|one| Resource::Listener(one).into()));
            found.push(OurListener { listener, kinds: state.kinds, resource, status });
        }
        found
    }

    /// For each listener which rule it breaks beside others; takes the places of those that
    /// break none. A place is kept also where a reference cannot be used now, so that
    /// another does not get it for as long as a Secret is absent.
    fn conflicts(&mut self, owner: &Owner<'o>) -> Vec<Option<Problem>> {
        let mut conflicts = vec![None; owner.listeners.len()];
        if owner.is_refused {
            return conflicts;
        }
        let mut claims = Vec::new();
        for (conflict, listener) in conflicts.iter_mut().zip(owner.listeners) {
            let Some(claim) = self.claim(listener) else { continue };
            match self.taken.conflict(&claim) {
                Some(problem) => *conflict = Some(problem),
                None => claims.push(claim),
            }
        }
        for (conflict, listener) in conflicts.iter_mut().zip(owner.listeners) {
            let Some(claim) = claims.iter().find(|claim| *claim.name == listener.name) else {
                continue;
            };
            *conflict = conflict_inside(claim, &claims);
            if conflict.is_none() {
                self.taken.take(claim);
            }
        }
        conflicts
    }

    fn claim(&self, listener: &'o GatewayListener) -> Option<Claim<'o>> {
        Some(Claim {
            name: &listener.name,
            protocol: protocol(&listener.protocol)?,
            hostname: listener.hostname.as_ref(),
            served_by: self.served_by.clone(),
            addresses: self.addresses.clone(),
            bind_port: self.bind_port(listener),
        })
    }

    fn bind_port(&self, listener: &GatewayListener) -> u16 {
        let mapped = self.context.ingress.port_map.get(&listener.port);
        mapped.copied().unwrap_or(listener.port)
    }

    fn state(
        &mut self,
        owner: &Owner<'o>,
        listener: &GatewayListener,
        conflict: Option<Problem>,
    ) -> ListenerState {
        let mut state = ListenerState { conflict, ..ListenerState::default() };
        state.accept(listener);
        state.allow_kinds(listener);
        let certificates = self.certificates_of(owner, listener, &mut state);
        let client_validation = self.client_validation(listener, &mut state);
        let Some(protocol) = protocol(&listener.protocol) else { return state };
        let terminates =
            matches!(protocol, ListenerProtocol::Https | ListenerProtocol::TlsTerminate);
        let no_certificate = terminates && certificates.is_empty();
        let unusable = state.accepted.is_some() || state.conflict.is_some();
        if owner.is_refused || no_certificate || unusable {
            return state;
        }
        let prefix = if owner.kind == Kind::ListenerSet { LISTENER_SET_PREFIX } else { "" };
        state.resource = Some(Listener {
            name: format!("{prefix}{}/{}", owner.key, listener.name),
            addresses: self.addresses.clone(),
            port: listener.port,
            bind_port: self.bind_port(listener),
            hostname: listener.hostname.clone(),
            protocol,
            certificates: certificates.iter().map(ToString::to_string).collect(),
            created: self.gateway.created,
            served_by: self.served_by.clone(),
            client_validation,
            backend_certificate: self.backend_certificate.as_ref().map(ToString::to_string),
        });
        self.certificates.extend(certificates);
        self.certificates.extend(self.backend_certificate.clone());
        state
    }

    fn certificates_of(
        &self,
        owner: &Owner<'o>,
        listener: &GatewayListener,
        state: &mut ListenerState,
    ) -> Vec<ObjectKey> {
        let mut usable = Vec::new();
        // Spec: certificateRefs: ignored where TLS is passed through.
        if listener.protocol == Protocol::TlsPassthrough {
            return usable;
        }
        for reference in &listener.certificates {
            let owner = (owner.kind, owner.key);
            match secret(self.objects, owner, reference, "InvalidCertificateRef") {
                Ok(key) => usable.push(key),
                Err(problem) => state.references = Some(problem),
            }
        }
        usable
    }

    /// Spec: GEP-91: the validation of the Gateway is that of listeners for HTTPS.
    fn client_validation(
        &self,
        listener: &GatewayListener,
        state: &mut ListenerState,
    ) -> Option<isthmus_model::ClientValidation> {
        if listener.protocol != Protocol::Https {
            return None;
        }
        let demanded = self.gateway.frontend.at(listener.port)?;
        let (found, problem) = client_validation(self.objects, &self.gateway.key, demanded);
        if problem.is_some() {
            state.references = problem;
        }
        // Serving without the check that the user asked for would open what is closed.
        if found.is_none() {
            let message = "no reference to certificates of authorities can be used";
            state.accepted = Some(Problem::new("NoValidCACertificate", message));
        }
        found
    }
}

/// What came of one listener.
#[derive(Default)]
struct ListenerState {
    accepted: Option<Problem>,
    conflict: Option<Problem>,
    references: Option<Problem>,
    kinds: Vec<RouteKind>,
    resource: Option<Listener>,
}

impl ListenerState {
    fn accept(&mut self, listener: &GatewayListener) {
        if let Protocol::Unsupported(protocol) = &listener.protocol {
            let message = format!("the protocol {protocol} is not supported");
            self.accepted = Some(Problem::new("UnsupportedProtocol", message));
        } else if listener.validates_clients {
            let message = "tls.frontendValidation of a listener is not supported: \
                           it is said with spec.tls.frontend of the Gateway";
            self.accepted = Some(Problem::new("UnsupportedValue", message));
        }
    }

    /// Spec: supportedKinds: those of the protocol, or those of the listener's that are
    /// among them.
    fn allow_kinds(&mut self, listener: &GatewayListener) {
        let known = route_kinds(&listener.protocol);
        let is_known =
            |kind: &RouteKind| kind.group == GATEWAY_GROUP && known.contains(&kind.kind.as_str());
        if listener.kinds.is_empty() {
            let kind = |kind: &&str| RouteKind {
                group: GATEWAY_GROUP.to_owned(),
                kind: (*kind).to_owned(),
            };
            self.kinds = known.iter().map(kind).collect();
            return;
        }
        self.kinds = listener.kinds.iter().filter(|kind| is_known(kind)).cloned().collect();
        if let Some(kind) = listener.kinds.iter().find(|kind| !is_known(kind))
            && !known.is_empty()
        {
            let message = format!("routes of kind {}/{} cannot attach", kind.group, kind.kind);
            self.references = Some(Problem::new("InvalidRouteKinds", message));
        }
    }

    fn report(&self, owner: &Owner<'_>, listener: &GatewayListener, out: &mut Translation) {
        let part = ConditionPart::Listener(listener.name.clone());
        let mut report = Report::new(owner.kind, owner.key, &mut out.conditions);
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
        let why = conflict.unwrap_or(&invalid);
        let programmed = self.resource.is_none().then_some(why);
        report.outcome(&part, ConditionType::Programmed, programmed);
    }
}

fn protocol(protocol: &Protocol) -> Option<ListenerProtocol> {
    match protocol {
        Protocol::Http => Some(ListenerProtocol::Http),
        Protocol::Https => Some(ListenerProtocol::Https),
        Protocol::Tcp => Some(ListenerProtocol::Tcp),
        Protocol::TlsPassthrough => Some(ListenerProtocol::TlsPassthrough),
        Protocol::TlsTerminate => Some(ListenerProtocol::TlsTerminate),
        Protocol::Udp => Some(ListenerProtocol::Udp),
        Protocol::Unsupported(_) => None,
    }
}

/// Spec: Gateway API "supported kinds" by protocol.
fn route_kinds(protocol: &Protocol) -> &'static [&'static str] {
    match protocol {
        Protocol::Http | Protocol::Https => &["HTTPRoute", "GRPCRoute"],
        Protocol::Tcp => &["TCPRoute"],
        Protocol::TlsPassthrough | Protocol::TlsTerminate => &["TLSRoute"],
        Protocol::Udp => &["UDPRoute"],
        Protocol::Unsupported(_) => &[],
    }
}

/// Keeps the names of a set's listeners apart from those of a Gateway of the same name.
const LISTENER_SET_PREFIX: &str = "listenerset/";
