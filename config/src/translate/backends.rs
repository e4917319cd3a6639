//! What the backend references of routes mean.

use isthmus_model::route::BackendTarget;
use isthmus_model::{Label, ServiceKey, ServicePort, ServiceScope, Transport};

use crate::context::Context;
use crate::kind::{GATEWAY_GROUP, Kind, MCS_GROUP};
use crate::objects::{BackendRef, BackendTargetRef, Objects, ServiceType};
use crate::translate::conditions::Problem;
use crate::translate::references::{Referent, Referrer, is_allowed};
use crate::translate::services::object_key;

/// Resolves the references of one route.
pub(super) struct Resolver<'r> {
    pub(super) objects: &'r Objects,
    pub(super) context: &'r Context,
    /// The kind of the route, which grants name.
    pub(super) kind: Kind,
    /// The namespace of the route.
    pub(super) namespace: &'r Label,
    /// What the port must speak.
    pub(super) transport: Transport,
}

impl Resolver<'_> {
    /// The target of a backend, or why it cannot be used.
    pub(super) fn target(&self, backend: &BackendRef) -> Result<BackendTarget, Problem> {
        let service = match &backend.target {
            BackendTargetRef::Service(service) => service,
            BackendTargetRef::Unsupported { kind, .. } => {
                let message = format!("{kind} is not a kind of backend here");
                return Err(Problem::new("InvalidKind", message));
            }
        };
        let (group, kind) = match service.scope {
            ServiceScope::Cluster => ("", "Service"),
            ServiceScope::ClusterSet => (MCS_GROUP, "ServiceImport"),
        };
        let from =
            Referrer { group: GATEWAY_GROUP, kind: self.kind.label(), namespace: self.namespace };
        let to =
            Referent { group, kind, namespace: &service.namespace, name: service.name.as_str() };
        if !is_allowed(self.objects, from, to) {
            let message = format!("no ReferenceGrant allows the reference to {service}");
            return Err(Problem::new("RefNotPermitted", message));
        }
        let not_found = |message: String| Problem::new("BackendNotFound", message);
        let port = backend.port.ok_or_else(|| not_found("the port is required".into()))?;
        let ports = self.ports(service)?;
        if !ports.iter().any(|known| known.number == port && known.transport == self.transport) {
            let transport = match self.transport {
                Transport::Sctp => "SCTP",
                Transport::Tcp => "TCP",
                Transport::Udp => "UDP",
            };
            return Err(not_found(format!("{service} has no {transport} port {port}")));
        }
        Ok(BackendTarget::Service { service: service.clone(), port })
    }

    fn ports(&self, service: &ServiceKey) -> Result<&[ServicePort], Problem> {
        let not_found = || Problem::new("BackendNotFound", format!("{service} does not exist"));
        if service.scope == ServiceScope::ClusterSet {
            return match self.context.imports.get(service) {
                Some(import) => Ok(&import.ports),
                None => Err(not_found()),
            };
        }
        let local = object_key(service).and_then(|key| self.objects.services.get(&key));
        let local = local.ok_or_else(not_found)?;
        if let ServiceType::ExternalName(_) = &local.service_type {
            let message = format!("{service} is of type ExternalName, which is not routed to");
            return Err(Problem::new("UnsupportedValue", message));
        }
        Ok(&local.ports)
    }
}
