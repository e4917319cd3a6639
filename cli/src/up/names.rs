//! DNS: zones made from the snapshot, and the server.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use isthmus_dns::{
    DnsServer, ForwardSettings, Forwarder, HeadlessEndpoint, Metrics, PortProtocol, ServerSettings,
    ServiceKind, ServicePortRecord, ServiceRecord, Sockets, ZoneData, ZoneSource,
    upstreams_of_file,
};
use isthmus_model::{EndpointTarget, Health, Label, Snapshot, Transport};
use isthmus_runtime::{SnapshotCell, Stop, bind_tcp, bind_udp};
use isthmus_telemetry::{MetricFamily, MetricKind, MetricsRegistry, PointValue};
use tokio::task::JoinSet;

use crate::settings::Settings;

/// Starts DNS over the services of the snapshots.
pub(crate) fn start(
    settings: &Settings,
    snapshots: SnapshotCell<Snapshot>,
    registry: &MetricsRegistry,
    tasks: &mut JoinSet<()>,
    stop: Stop,
) -> anyhow::Result<DnsServer> {
    let address = settings.dns.address;
    let udp = bind_udp(address, settings.worker_count()).context("dns.address")?;
    let tcp = bind_tcp(address, 1).context("dns.address")?;
    let upstreams = if settings.dns.upstreams.is_empty() {
        upstreams_of_file(Path::new(RESOLV_CONF)).unwrap_or_else(|error| {
            tracing::warn!(%error, "no resolver is known; names that are not ours are refused");
            Vec::new()
        })
    } else {
        settings.dns.upstreams.clone()
    };
    let metrics = Arc::new(Metrics::default());
    export(registry, Arc::clone(&metrics));
    let mut forward = ForwardSettings::new(upstreams);
    forward.own = vec![address];
    let forwarder = Forwarder::new(forward, Arc::clone(&metrics)).map(Arc::new);
    let zones = SnapshotCell::new(zone(&snapshots.load(), 1));
    let server = DnsServer::start(
        Sockets { udp, tcp },
        zones.clone(),
        forwarder,
        &ServerSettings::default(),
        metrics,
    )?;
    tasks.spawn(follow(snapshots, zones, stop));
    Ok(server)
}

async fn follow(snapshots: SnapshotCell<Snapshot>, zones: SnapshotCell<ZoneData>, mut stop: Stop) {
    let mut changed = snapshots.watch();
    // A snapshot may have come since the first zone was made.
    changed.mark_changed();
    let mut serial = 1u32;
    loop {
        tokio::select! {
            () = stop.draining() => return,
            outcome = changed.changed() => if outcome.is_err() { return },
        }
        serial = serial.wrapping_add(1);
        zones.publish(Arc::new(zone(&snapshots.load(), serial)));
    }
}

/// The zones of a snapshot.
fn zone(snapshot: &Snapshot, serial: u32) -> ZoneData {
    let services = snapshot.services();
    let namespaces: BTreeSet<Label> =
        services.iter().map(|entry| entry.service.key.namespace.clone()).collect();
    let records = services.iter().map(|entry| record(snapshot, entry)).collect();
    ZoneData::build(ZoneSource {
        cluster: snapshot.node.cluster.clone(),
        serial,
        name_servers: Vec::new(),
        namespaces: namespaces.into_iter().collect(),
        services: records,
    })
}

fn record(snapshot: &Snapshot, entry: &isthmus_model::snapshot::ServiceEntry) -> ServiceRecord {
    let service = &entry.service;
    let kind = if service.headless {
        let mut endpoints = Vec::new();
        for port in &service.ports {
            let Some(assignment) = entry.assignment(port.number) else { continue };
            for endpoint in &assignment.endpoints {
                // A remote endpoint has no address here, by design.
                let EndpointTarget::Local { address, .. } = &endpoint.target else { continue };
                endpoints.push(HeadlessEndpoint {
                    hostname: endpoint.hostname.clone(),
                    cluster: snapshot.node.cluster.clone(),
                    ip: address.ip(),
                    ready: endpoint.health == Health::Ready,
                });
            }
        }
        ServiceKind::Headless { endpoints }
    } else {
        ServiceKind::ClusterIp { ips: service.addresses.clone() }
    };
    let port = |port: &isthmus_model::service::ServicePort| ServicePortRecord {
        name: port.name.clone(),
        protocol: match port.transport {
            Transport::Sctp => PortProtocol::Sctp,
            Transport::Tcp => PortProtocol::Tcp,
            Transport::Udp => PortProtocol::Udp,
        },
        number: port.number,
    };
    let ports = service.ports.iter().map(port).collect();
    ServiceRecord { key: service.key.clone(), kind, ports }
}

fn export(registry: &MetricsRegistry, metrics: Arc<Metrics>) {
    registry.collector(move |out: &mut Vec<MetricFamily>| {
        let mut family =
            MetricFamily::new("isthmus_dns_events_total", "DNS events.", MetricKind::Counter);
        for (count, value) in metrics.snapshot() {
            let labels = [("family", count.family()), ("event", count.label())];
            family = family.with(&labels, PointValue::Counter(value));
        }
        out.push(family);
    });
}

const RESOLV_CONF: &str = "/etc/resolv.conf";
