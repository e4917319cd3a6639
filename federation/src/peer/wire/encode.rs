//! Our own values to messages.

use isthmus_model::{Health, ServicePort, Transport};

use super::pb;
use crate::proto::{
    Body, Change, EndpointSummary, Entry, EntryKey, ExportedService, Frame, Position, Request,
    ServiceName, SessionAffinity, SummaryEndpoint,
};

/// Writes a request.
pub(crate) fn request(request: Request) -> pb::Request {
    let position = |p: Position| pb::Position { epoch: p.epoch, version: p.version };
    let kind = match request {
        Request::Ack { position: at, sequence } => {
            pb::request::Kind::Ack(pb::Ack { position: Some(position(at)), sequence })
        }
        Request::Subscribe { fence, resume } => {
            pb::request::Kind::Subscribe(pb::Subscribe { fence, resume: resume.map(position) })
        }
    };
    pb::Request { kind: Some(kind) }
}

/// Writes a frame.
pub(crate) fn frame(frame: Frame) -> pb::Frame {
    let changes = |all: Vec<Change>| all.into_iter().map(change).collect();
    let body = match frame.body {
        Body::Delta { base, version, changes: all } => {
            pb::frame::Body::Delta(pb::Delta { base, version, changes: changes(all) })
        }
        Body::Full { version, index, last, entries } => {
            pb::frame::Body::Full(pb::Full { version, index, last, entries: changes(entries) })
        }
        Body::Heartbeat { sent, sequence, lease } => {
            let lease_millis = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
            pb::frame::Body::Heartbeat(pb::Heartbeat { sent, sequence, lease_millis })
        }
    };
    pb::Frame { cluster: frame.cluster.to_string(), epoch: frame.epoch, body: Some(body) }
}

fn change(change: Change) -> pb::Change {
    let kind = match change {
        Change::Remove(removed) => Some(pb::change::Kind::Remove(key(&removed))),
        Change::Set(set) => Some(pb::change::Kind::Set(entry(&set))),
        // An exporter makes neither.
        Change::Invalid(_) | Change::Unknown => None,
    };
    pb::Change { kind }
}

fn key(key: &EntryKey) -> pb::Key {
    let kind = match key {
        EntryKey::Bundle => pb::key::Kind::Bundle(true),
        EntryKey::Endpoints(service, port) => {
            pb::key::Kind::Endpoints(endpoints_key(service, *port))
        }
        EntryKey::Gateway => pb::key::Kind::Gateway(true),
        EntryKey::Properties => pb::key::Kind::Properties(true),
        EntryKey::Service(name) => pb::key::Kind::Service(service_name(name)),
    };
    pb::Key { kind: Some(kind) }
}

fn entry(entry: &Entry) -> pb::Entry {
    let kind = match entry {
        Entry::Bundle(v) => {
            pb::entry::Kind::Bundle(pb::Bundle { jwks: v.jwks.to_string(), sequence: v.sequence })
        }
        Entry::Endpoints(v) => pb::entry::Kind::Endpoints(endpoints(v)),
        Entry::Gateway(v) => pb::entry::Kind::Gateway(pb::Gateway {
            identity: v.identity.to_string(),
            version: v.version.clone(),
        }),
        Entry::Properties(v) => pb::entry::Kind::Properties(pb::Properties {
            region: v.locality.region.to_string(),
            zone: v.locality.zone.to_string(),
            properties: v.properties.clone().into_iter().collect(),
        }),
        Entry::Service(v) => pb::entry::Kind::Service(service(v)),
    };
    pb::Entry { kind: Some(kind) }
}

fn service(service: &ExportedService) -> pb::Service {
    let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
    pb::Service {
        name: Some(service_name(&service.name)),
        created: service.created,
        headless: service.headless,
        ports: service.ports.iter().map(port).collect(),
        client_ip_affinity_seconds: match service.traffic.session_affinity {
            SessionAffinity::ClientIp { timeout_seconds } => Some(timeout_seconds),
            SessionAffinity::None => None,
        },
        internal_traffic_policy: text(&service.traffic.internal_traffic_policy),
        traffic_distribution: text(&service.traffic.traffic_distribution),
        ip_families: service.traffic.ip_families.iter().map(|f| f.label().to_owned()).collect(),
        exported_labels: service.metadata.labels.clone().into_iter().collect(),
        exported_annotations: service.metadata.annotations.clone().into_iter().collect(),
    }
}

fn port(port: &ServicePort) -> pb::Port {
    let transport = match port.transport {
        Transport::Sctp => "SCTP",
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
    };
    pb::Port {
        name: port.name.as_ref().map(ToString::to_string),
        number: u32::from(port.number),
        transport: transport.to_owned(),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoints(summary: &EndpointSummary) -> pb::Endpoints {
    pb::Endpoints {
        key: Some(endpoints_key(&summary.service, summary.port)),
        endpoints: summary.endpoints.iter().map(endpoint).collect(),
    }
}

fn endpoint(endpoint: &SummaryEndpoint) -> pb::Endpoint {
    let health = match endpoint.health {
        Health::Draining => pb::Health::Draining,
        Health::NotReady => pb::Health::NotReady,
        Health::Ready => pb::Health::Ready,
    };
    pb::Endpoint {
        id: endpoint.id.to_string(),
        region: endpoint.locality.region.to_string(),
        zone: endpoint.locality.zone.to_string(),
        weight: u32::from(endpoint.weight),
        health: health.into(),
        identity: endpoint.identity.to_string(),
        app_port: u32::from(endpoint.app_port),
        hostname: endpoint.hostname.as_ref().map(ToString::to_string),
    }
}

fn endpoints_key(service: &ServiceName, port: u16) -> pb::EndpointsKey {
    pb::EndpointsKey { service: Some(service_name(service)), port: u32::from(port) }
}

fn service_name(name: &ServiceName) -> pb::ServiceName {
    pb::ServiceName { namespace: name.namespace.to_string(), name: name.name.to_string() }
}
