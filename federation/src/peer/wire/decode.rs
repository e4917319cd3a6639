//! Messages of a peer to checked values.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use isthmus_model::{
    AppProtocol, ClusterId, EndpointId, Health, InvalidName, Label, Locality, ServicePort,
    SpiffeId, Transport,
};

use super::pb;
use crate::proto::admit::{ENDPOINTS_PER_PORT_MAX, PORTS_MAX, PROPERTIES_MAX};
use crate::proto::{
    Body, BundleDocument, Change, ClusterProperties, EndpointSummary, Entry, EntryKey,
    ExportedMetadata, ExportedService, ExportedTraffic, Frame, GatewayInfo, IpFamily, Position,
    Request, ServiceName, SessionAffinity, SummaryEndpoint,
};

/// A message of which nothing can be said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameInvalid {
    /// The cluster is not a cluster id.
    #[error("the frame names no cluster: {0}")]
    Cluster(#[source] InvalidName),
}

/// Why an entry cannot be read.
type Reason = &'static str;

/// Reads a request; `None` for one of a kind that this release does not know.
pub(crate) fn request(message: pb::Request) -> Option<Request> {
    let position = |p: pb::Position| Position { epoch: p.epoch, version: p.version };
    Some(match message.kind? {
        pb::request::Kind::Subscribe(subscribe) => {
            Request::Subscribe { fence: subscribe.fence, resume: subscribe.resume.map(position) }
        }
        pb::request::Kind::Ack(ack) => {
            Request::Ack { position: ack.position.map(position)?, sequence: ack.sequence }
        }
    })
}

/// Reads a frame; `None` for one of a kind that this release does not know.
pub(crate) fn frame(message: pb::Frame) -> Result<Option<Frame>, FrameInvalid> {
    let cluster = ClusterId::new(&message.cluster).map_err(FrameInvalid::Cluster)?;
    let changes = |all: Vec<pb::Change>| all.into_iter().map(change).collect();
    let Some(body) = message.body else { return Ok(None) };
    let body = match body {
        pb::frame::Body::Delta(delta) => Body::Delta {
            base: delta.base,
            version: delta.version,
            changes: changes(delta.changes),
        },
        pb::frame::Body::Full(full) => Body::Full {
            version: full.version,
            index: full.index,
            last: full.last,
            entries: changes(full.entries),
        },
        pb::frame::Body::Heartbeat(heartbeat) => Body::Heartbeat {
            sent: heartbeat.sent,
            sequence: heartbeat.sequence,
            lease: Duration::from_millis(heartbeat.lease_millis),
        },
    };
    Ok(Some(Frame { cluster, epoch: message.epoch, body }))
}

fn change(message: pb::Change) -> Change {
    let change = match message.kind {
        Some(pb::change::Kind::Remove(removed)) => key(removed).map(|key| key.map(Change::Remove)),
        Some(pb::change::Kind::Set(set)) => {
            entry(set).map(|entry| entry.map(|entry| Change::Set(Arc::new(entry))))
        }
        None => Ok(None),
    };
    match change {
        Ok(Some(change)) => change,
        Ok(None) => Change::Unknown,
        Err(reason) => Change::Invalid(reason),
    }
}

fn key(message: pb::Key) -> Result<Option<EntryKey>, Reason> {
    Ok(match message.kind {
        Some(pb::key::Kind::Service(name)) => Some(EntryKey::Service(service_name(Some(name))?)),
        Some(pb::key::Kind::Endpoints(key)) => {
            let (service, port) = endpoints_key(Some(key))?;
            Some(EntryKey::Endpoints(service, port))
        }
        Some(pb::key::Kind::Gateway(_)) => Some(EntryKey::Gateway),
        Some(pb::key::Kind::Properties(_)) => Some(EntryKey::Properties),
        Some(pb::key::Kind::Bundle(_)) => Some(EntryKey::Bundle),
        None => None,
    })
}

fn entry(message: pb::Entry) -> Result<Option<Entry>, Reason> {
    let Some(kind) = message.kind else { return Ok(None) };
    Ok(Some(match kind {
        pb::entry::Kind::Service(v) => Entry::Service(service(v)?),
        pb::entry::Kind::Endpoints(v) => Entry::Endpoints(endpoints(v)?),
        pb::entry::Kind::Gateway(v) => {
            Entry::Gateway(GatewayInfo { identity: identity(&v.identity)?, version: v.version })
        }
        pb::entry::Kind::Properties(v) => Entry::Properties(properties(v)?),
        pb::entry::Kind::Bundle(v) => {
            Entry::Bundle(BundleDocument { jwks: Arc::from(v.jwks), sequence: v.sequence })
        }
    }))
}

fn service(message: pb::Service) -> Result<ExportedService, Reason> {
    if message.ports.len() > PORTS_MAX {
        return Err("a service has too many ports");
    }
    let session_affinity = match message.client_ip_affinity_seconds {
        Some(timeout_seconds) => SessionAffinity::ClientIp { timeout_seconds },
        None => SessionAffinity::None,
    };
    Ok(ExportedService {
        name: service_name(message.name)?,
        created: message.created,
        headless: message.headless,
        ports: message.ports.into_iter().map(port).collect::<Result<_, _>>()?,
        traffic: ExportedTraffic {
            session_affinity,
            internal_traffic_policy: message.internal_traffic_policy.map(Arc::from),
            traffic_distribution: message.traffic_distribution.map(Arc::from),
            ip_families: message.ip_families.iter().filter_map(|text| family(text)).collect(),
        },
        metadata: ExportedMetadata {
            labels: message.exported_labels.into_iter().collect(),
            annotations: message.exported_annotations.into_iter().collect(),
        },
    })
}

/// A family that this release does not know is one that no address here can have.
fn family(text: &str) -> Option<IpFamily> {
    [IpFamily::Ipv4, IpFamily::Ipv6].into_iter().find(|family| family.label() == text)
}

fn port(message: pb::Port) -> Result<ServicePort, Reason> {
    let transport = match message.transport.as_str() {
        "SCTP" => Transport::Sctp,
        "TCP" => Transport::Tcp,
        "UDP" => Transport::Udp,
        _ => return Err("a port has an unknown transport"),
    };
    let name = message.name.as_deref().map(label).transpose()?;
    let app = AppProtocol::detect(message.app_protocol.as_deref(), message.name.as_deref());
    let number = port_number(message.number)?;
    Ok(ServicePort { name, number, transport, app, app_protocol: message.app_protocol })
}

fn endpoints(message: pb::Endpoints) -> Result<EndpointSummary, Reason> {
    if message.endpoints.len() > ENDPOINTS_PER_PORT_MAX {
        return Err("a port has too many endpoints");
    }
    let (service, port) = endpoints_key(message.key)?;
    let endpoints = message.endpoints.into_iter().map(endpoint).collect::<Result<_, _>>()?;
    Ok(EndpointSummary { service, port, endpoints })
}

fn endpoint(message: pb::Endpoint) -> Result<SummaryEndpoint, Reason> {
    let health = match message.health() {
        pb::Health::Ready => Health::Ready,
        pb::Health::Draining => Health::Draining,
        // A health that this release does not know takes no requests.
        pb::Health::NotReady | pb::Health::Unspecified => Health::NotReady,
    };
    Ok(SummaryEndpoint {
        id: EndpointId::new(&message.id).map_err(|_| "an endpoint id is not valid")?,
        locality: Locality::new(&message.region, &message.zone),
        weight: u16::try_from(message.weight).map_err(|_| "a weight is out of range")?,
        health,
        identity: identity(&message.identity)?,
        app_port: port_number(message.app_port)?,
        hostname: message.hostname.as_deref().map(label).transpose()?,
    })
}

fn properties(message: pb::Properties) -> Result<ClusterProperties, Reason> {
    if message.properties.len() > PROPERTIES_MAX {
        return Err("there are too many properties");
    }
    let properties: BTreeMap<String, String> = message.properties.into_iter().collect();
    Ok(ClusterProperties { locality: Locality::new(&message.region, &message.zone), properties })
}

fn endpoints_key(message: Option<pb::EndpointsKey>) -> Result<(ServiceName, u16), Reason> {
    let message = message.ok_or("a name is missing")?;
    Ok((service_name(message.service)?, port_number(message.port)?))
}

fn service_name(message: Option<pb::ServiceName>) -> Result<ServiceName, Reason> {
    let message = message.ok_or("a name is missing")?;
    Ok(ServiceName::new(label(&message.namespace)?, label(&message.name)?))
}

fn label(text: &str) -> Result<Label, Reason> {
    Label::new(text).map_err(|_| "a name is not a DNS label")
}

fn identity(text: &str) -> Result<SpiffeId, Reason> {
    SpiffeId::parse(text).map_err(|_| "an identity is not a SPIFFE ID")
}

fn port_number(number: u32) -> Result<u16, Reason> {
    u16::try_from(number).ok().filter(|port| *port != 0).ok_or("a port is out of range")
}
