//! What `isthmus status` shows, gathered from the parts of this process.

use std::sync::{Arc, Mutex, PoisonError};

use isthmus_certs::{AuthorityHandle, RenewalHealth};
use isthmus_discovery::{DiscoveryClient, SubscriberStatus};
use isthmus_gateway::{FrontStatus, LinkHandle};
use isthmus_model::{EndpointTarget, Snapshot, SpiffeId, TrustDomain};
use isthmus_runtime::{SnapshotCell, clock};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::settings::Settings;
use crate::up::data_plane::transport;
use crate::up::explain::Viewpoint;

/// The parts of this process that have something to show. Parts are added as they start.
#[derive(Default)]
pub(crate) struct Board {
    parts: Mutex<Parts>,
}

#[derive(Default)]
struct Parts {
    authority: Option<AuthorityHandle>,
    clients: Vec<(String, Arc<DiscoveryClient>)>,
    fronts: Option<watch::Receiver<Vec<FrontStatus>>>,
    identities: Vec<(SpiffeId, watch::Receiver<RenewalHealth>)>,
    links: Option<LinkHandle>,
    roles: Vec<String>,
    subscribers: Option<watch::Receiver<Vec<SubscriberStatus>>>,
    services: Option<SnapshotCell<Snapshot>>,
    viewpoints: Vec<Viewpoint>,
    control: Option<Arc<dyn Fn() -> Value + Send + Sync>>,
}

impl Board {
    /// Adds a running role.
    pub(crate) fn role(&self, name: &str) {
        self.with(|parts| parts.roles.push(name.to_owned()));
    }

    /// Adds the authority of this process.
    pub(crate) fn set_authority(&self, authority: AuthorityHandle) {
        self.with(|parts| parts.authority = Some(authority));
    }

    /// The authority of this process.
    pub(crate) fn authority(&self) -> Option<AuthorityHandle> {
        self.with(|parts| parts.authority.clone())
    }

    /// Adds a subscriber of discovery in this process.
    pub(crate) fn client(&self, name: &str, client: Arc<DiscoveryClient>) {
        self.with(|parts| parts.clients.push((name.to_owned(), client)));
    }

    /// Adds an identity.
    pub(crate) fn identity(&self, id: SpiffeId, health: watch::Receiver<RenewalHealth>) {
        self.with(|parts| parts.identities.push((id, health)));
    }

    /// Adds the ingress.
    pub(crate) fn fronts(&self, fronts: watch::Receiver<Vec<FrontStatus>>) {
        self.with(|parts| parts.fronts = Some(fronts));
    }

    /// Adds the links.
    pub(crate) fn links(&self, links: LinkHandle) {
        self.with(|parts| parts.links = Some(links));
    }

    /// Adds the subscribers of the controller.
    pub(crate) fn subscribers(&self, subscribers: watch::Receiver<Vec<SubscriberStatus>>) {
        self.with(|parts| parts.subscribers = Some(subscribers));
    }

    /// Adds a snapshot that has every service.
    pub(crate) fn services(&self, snapshots: SnapshotCell<Snapshot>) {
        self.with(|parts| parts.services = Some(snapshots));
    }

    /// Adds somebody whom `isthmus explain` can ask.
    pub(crate) fn viewpoint(&self, viewpoint: Viewpoint) {
        self.with(|parts| parts.viewpoints.push(viewpoint));
    }

    /// Adds what the controller says of itself.
    pub(crate) fn control(&self, status: Arc<dyn Fn() -> Value + Send + Sync>) {
        self.with(|parts| parts.control = Some(status));
    }

    /// Those whom `isthmus explain` can ask.
    pub(crate) fn viewpoints(&self) -> Vec<Viewpoint> {
        self.with(|parts| parts.viewpoints.clone())
    }

    /// The whole status as JSON.
    pub(crate) fn status(&self, settings: &Settings) -> Value {
        let control = self.with(|parts| parts.control.clone());
        let control = control.map_or(Value::Null, |control| control());
        self.with(|parts| {
            let generation = parts.services.as_ref().map(|cell| cell.load().generation);
            json!({
                "cluster": settings.cluster,
                "clusterset": settings.clusterset,
                "trustDomain": settings.trust_domain,
                "region": settings.region,
                "zone": settings.zone,
                "version": env!("CARGO_PKG_VERSION"),
                "generation": generation,
                "roles": parts.roles,
                "listeners": parts.fronts.as_ref().map(|fronts| listeners(&fronts.borrow())),
                "peers": peers(parts.links.as_ref(), &control, parts.services.as_ref()),
                "services": parts.services.as_ref().map(|cell| services(&cell.load())),
                "subscribers": parts.subscribers.as_ref().map(|all| subscribers(&all.borrow())),
                "clients": parts.clients.iter().map(client).collect::<Vec<_>>(),
                "certificates": parts.identities.iter().map(certificate).collect::<Vec<_>>(),
                "configErrors": control.get("configErrors"),
                "conditions": control.get("conditions"),
                "federation": control.get("federation"),
            })
        })
    }

    fn with<T>(&self, apply: impl FnOnce(&mut Parts) -> T) -> T {
        // A panic in a status handler must not take status away for good.
        apply(&mut self.parts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn listeners(fronts: &[FrontStatus]) -> Value {
    let one = |front: &FrontStatus| {
        json!({
            "address": front.address,
            "protocol": format!("{:?}", front.family).to_uppercase(),
            "listeners": front.listeners,
            "error": front.error,
        })
    };
    fronts.iter().map(one).collect()
}

/// Links joined with what the controller knows of the same peers, and with the trust
/// bundles in use.
fn peers(
    links: Option<&LinkHandle>,
    control: &Value,
    snapshots: Option<&SnapshotCell<Snapshot>>,
) -> Value {
    let links = links.map(|links| links.set().status()).unwrap_or_default();
    let known = control.get("peers").and_then(Value::as_array).cloned().unwrap_or_default();
    let now = clock::now();
    let mut rows: Vec<Value> = known;
    for status in links {
        let cluster = status.peer.as_str();
        let position = rows.iter().position(|row| row["cluster"] == cluster);
        let index = position.unwrap_or_else(|| {
            rows.push(json!({ "cluster": cluster }));
            rows.len() - 1
        });
        let row = &mut rows[index];
        row["state"] = json!(status.state.label());
        row["transport"] = json!(transport(&status).map(isthmus_model::LinkTransport::label));
        row["rttMicros"] = json!(status.rtt.map(|rtt| rtt.as_micros() as u64));
        row["lossPermille"] = json!((status.loss * 1000.0).round());
        row["connections"] = json!(status.connections);
        row["streams"] = json!(status.streams);
        row["sinceSeconds"] = json!(now.saturating_duration_since(status.since).as_secs());
        row["address"] = json!(status.address);
        row["lastError"] = json!(status.last_error);
        let changes = status.changes.iter().map(|(why, count)| (why.label().to_owned(), *count));
        row["changes"] = json!(changes.collect::<std::collections::BTreeMap<_, _>>());
    }
    if let Some(snapshot) = snapshots.map(SnapshotCell::load) {
        for row in &mut rows {
            let domain = row["trustDomain"].as_str().and_then(|text| TrustDomain::new(text).ok());
            let bundle = domain.and_then(|domain| snapshot.bundles().get(&domain));
            row["bundleSequence"] = json!(bundle.map(|bundle| bundle.sequence));
        }
    }
    Value::Array(rows)
}

fn services(snapshot: &Snapshot) -> Value {
    let one = |entry: &isthmus_model::snapshot::ServiceEntry| {
        let service = &entry.service;
        let endpoints: Vec<Value> = service
            .ports
            .iter()
            .filter_map(|port| entry.assignment(port.number))
            .flat_map(|assignment| {
                let one = |endpoint: &Arc<isthmus_model::Endpoint>| {
                    json!({
                        "port": assignment.port,
                        "id": endpoint.id,
                        "cluster": endpoint.remote_cluster().unwrap_or(&snapshot.node.cluster),
                        "local": matches!(endpoint.target, EndpointTarget::Local { .. }),
                        "locality": endpoint.locality.to_string(),
                        "health": endpoint.health,
                        "identity": endpoint.identity,
                    })
                };
                assignment.endpoints.iter().map(one).collect::<Vec<_>>()
            })
            .collect();
        json!({
            "host": service.key.host(),
            "addresses": service.addresses,
            "headless": service.headless,
            "ports": service.ports.iter().map(|port| port.number).collect::<Vec<_>>(),
            "clusters": service.clusters,
            "endpoints": endpoints,
        })
    };
    snapshot.services().into_iter().map(one).collect()
}

fn subscribers(all: &[SubscriberStatus]) -> Value {
    let one = |subscriber: &SubscriberStatus| {
        json!({
            "node": subscriber.node,
            "role": subscriber.role.label(),
            "workload": subscriber.workload,
            "generation": subscriber.generation,
            "names": subscriber.names,
            "nacks": subscriber.nacks.iter().map(|nack| format!("{nack:?}")).collect::<Vec<_>>(),
        })
    };
    all.iter().map(one).collect()
}

fn client((name, client): &(String, Arc<DiscoveryClient>)) -> Value {
    let status = client.status();
    json!({
        "name": name,
        "connected": status.connected,
        "fromDisk": status.from_disk,
        "generation": status.generation,
        "ageSeconds": status.age.map(|age| age.as_secs()),
        "names": status.names,
        "lastError": status.last_error,
        "stateFileError": status.state_file_error,
    })
}

fn certificate((id, health): &(SpiffeId, watch::Receiver<RenewalHealth>)) -> Value {
    let health = health.borrow();
    let left = health.not_after.and_then(|end| end.duration_since(clock::wall()).ok());
    json!({
        "identity": id,
        "standing": health.standing.label(),
        "secondsLeft": left.map(|left| left.as_secs()),
        "renewals": health.renewals,
        "failures": health.failures,
    })
}
