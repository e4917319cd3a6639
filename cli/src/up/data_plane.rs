//! Starts gateways and sidecars, and tells the controller what the links look like.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use isthmus_certs::MeshTls;
use isthmus_discovery::{DiscoveryClient, LinkReport, NODE_NAME_BYTES_MAX, OnDemand};
use isthmus_gateway::{EastWest, EastWestOptions, Ingress, IngressOptions, LinkHandle, Remote};
use isthmus_link::{LinkStatus, Transport as LinkWire};
use isthmus_model::{ClusterId, Label, LinkTransport, Snapshot, SpiffeId};
use isthmus_proxy::ProxySettings;
use isthmus_proxy::headers::ForwardedTrust;
use isthmus_runtime::{SnapshotCell, Stop};
use isthmus_sidecar::{Sidecar, SidecarOptions, TcpForward, Workload};
use isthmus_telemetry::{
    MetricFamily, MetricKind, MetricsRegistry, PointValue, RecorderSeed, Resource, Telemetry,
};

use crate::settings::{Settings, SidecarSettings};
use crate::up::kubernetes;

/// The recorders of one role, one for each worker.
pub(crate) fn recorders(
    settings: &Settings,
    telemetry: &Telemetry,
    role: &str,
) -> Vec<RecorderSeed> {
    let resource = Arc::new(resource(settings, role));
    (0..settings.worker_count()).map(|_| telemetry.recorder_for(Arc::clone(&resource))).collect()
}

/// What a role says of itself in telemetry.
pub(crate) fn resource(settings: &Settings, role: &str) -> Resource {
    Resource::new(role)
        .with_cluster(settings.cluster.as_str())
        .with_locality(&settings.region, &settings.zone)
        .with_instance(&node_name(role, &settings.cluster))
        .with_version(env!("CARGO_PKG_VERSION"))
}

/// Starts the ingress.
pub(crate) fn ingress(
    settings: &Settings,
    telemetry: &Telemetry,
    tls: Option<MeshTls>,
    snapshots: SnapshotCell<Snapshot>,
    remote: Remote,
) -> anyhow::Result<Ingress> {
    let limits = &settings.ingress.limits;
    let forwarded = if settings.ingress.trusted_proxies {
        ForwardedTrust::Append
    } else {
        ForwardedTrust::Replace
    };
    let proxy = ProxySettings {
        header_bytes_max: limits.header_bytes,
        header_count_max: limits.header_count,
        streams_max: limits.streams,
        connections_max: limits.connections,
        head_timeout: limits.head_timeout,
        idle_timeout: limits.idle_timeout,
        body_timeout: limits.body_timeout,
        forwarded,
        ..ProxySettings::default()
    };
    let options = IngressOptions {
        address: settings.ingress.address,
        tls,
        snapshots,
        remote,
        recorders: recorders(settings, telemetry, "isthmus-ingress"),
        proxy,
        seed: super::seed(),
    };
    Ingress::start(options).context("cannot start the ingress")
}

/// Starts the east-west gateway.
pub(crate) fn eastwest(
    settings: &Settings,
    telemetry: &Telemetry,
    tls: MeshTls,
    snapshots: SnapshotCell<Snapshot>,
) -> anyhow::Result<EastWest> {
    let options = EastWestOptions {
        cluster: settings.cluster.clone(),
        trust_domain: settings.trust_domain.clone(),
        link: settings.eastwest.link,
        mesh: settings.eastwest.mesh,
        tls,
        snapshots,
        recorders: recorders(settings, telemetry, "isthmus-eastwest"),
        proxy: ProxySettings::default(),
        limits: Default::default(),
        timers: Default::default(),
        seed: super::seed(),
    };
    Ok(EastWest::start(options)?)
}

/// Starts the sidecar of one workload.
pub(crate) fn sidecar(
    settings: &Settings,
    sidecar: &SidecarSettings,
    telemetry: &Telemetry,
    tls: MeshTls,
    (snapshots, on_demand): (SnapshotCell<Snapshot>, OnDemand),
) -> anyhow::Result<Sidecar> {
    let forward = |tcp: &crate::settings::TcpSettings| TcpForward {
        listen: tcp.listen,
        service: tcp.service.clone(),
        port: tcp.port,
    };
    let name = format!("{}.{}", sidecar.name, sidecar.namespace);
    let options = SidecarOptions {
        workload: Workload {
            name: sidecar.name.to_string(),
            namespace: sidecar.namespace.clone(),
            labels: sidecar.labels.clone(),
            application: sidecar.application.unwrap_or(sidecar.address),
            ports: sidecar.ports.clone(),
        },
        mesh: sidecar.mesh,
        outbound: sidecar.outbound,
        inbound: sidecar.inbound,
        tcp: sidecar.tcp.iter().map(forward).collect(),
        tls,
        snapshots,
        on_demand,
        gateway: gateway(settings),
        recorders: recorders(settings, telemetry, &name),
        proxy: ProxySettings::default(),
        seed: super::seed(),
    };
    Ok(Sidecar::start(options)?)
}

/// The cluster's east-west gateway, as its sidecars reach it.
pub(crate) fn gateway(settings: &Settings) -> Option<(SocketAddr, SpiffeId)> {
    let id = isthmus_gateway::eastwest::gateway_id(&settings.trust_domain)?;
    settings.eastwest.enabled.then_some((settings.eastwest.mesh, id))
}

/// Whom the ingress runs as. In a pod it is whom the pod runs as: of a Gateway its own
/// account, and for the listeners of un-meshed pods the east-west gateway's.
pub(crate) fn ingress_account(settings: &Settings) -> anyhow::Result<(Label, Label)> {
    let own = settings.kubernetes.as_ref();
    if let Some(workload) = own.and_then(|own| own.workload.as_ref()) {
        return Ok((workload.namespace.clone(), workload.service_account.clone()));
    }
    let is_shared = own.is_some() && settings.eastwest.enabled;
    let account = if is_shared { "isthmus-eastwest" } else { "isthmus-ingress" };
    Ok((Label::new(isthmus_model::name::SYSTEM_NAMESPACE)?, Label::new(account)?))
}

/// How the ingress of a process without links reaches other clusters.
pub(crate) fn remote(settings: &Settings) -> Remote {
    let address = settings.kubernetes.as_ref().and_then(|own| own.eastwest);
    let id = isthmus_gateway::eastwest::gateway_id(&settings.trust_domain);
    match (address, id) {
        (Some(address), Some(id)) => Remote::Gateway(address, id),
        (Some(_) | None, _) => Remote::None,
    }
}

/// The name of a process in its role, for discovery and telemetry. Replicas have different ones: what one of them
/// reports must not replace what another does.
pub(crate) fn node_name(role: &str, cluster: &ClusterId) -> String {
    let mut name = format!("{role}.{cluster}.{}", kubernetes::host_name());
    while name.len() > NODE_NAME_BYTES_MAX {
        name.pop();
    }
    name
}

/// Tells the controller of every change of the links, of round-trip times now and then, and
/// the same again before it counts as old.
pub(crate) async fn report_links(links: LinkHandle, client: Arc<DiscoveryClient>, mut stop: Stop) {
    let mut changed = links.set().watch();
    let mut interval = tokio::time::interval(REPORT_INTERVAL);
    let (mut last, mut unsaid) = (Vec::new(), 0);
    loop {
        tokio::select! {
            () = stop.draining() => return,
            outcome = changed.changed() => if outcome.is_err() { return },
            _ = interval.tick() => {}
        }
        let reports: Vec<LinkReport> = links.set().status().iter().map(report).collect();
        unsaid += 1;
        if reports != last || unsaid >= REPORTS_UNSAID_MAX {
            client.report(reports.clone());
            (last, unsaid) = (reports, 0);
        }
    }
}

fn report(status: &LinkStatus) -> LinkReport {
    let permille = (status.loss * 1000.0).clamp(0.0, 1000.0);
    LinkReport {
        cluster: status.peer.clone(),
        transport: transport(status),
        rtt_micros: status.rtt.and_then(|rtt| u64::try_from(rtt.as_micros()).ok()),
        // Clamped above, so that the cast keeps the value.
        loss_permille: permille as u16,
    }
}

/// The transport in use, as the model names it.
pub(crate) fn transport(status: &LinkStatus) -> Option<LinkTransport> {
    if status.state != isthmus_link::LinkState::Up {
        return None;
    }
    Some(match status.transport? {
        LinkWire::Quic => LinkTransport::Quic,
        LinkWire::Tcp => LinkTransport::Tcp,
    })
}

/// Exports the links' metrics.
pub(crate) fn export_links(registry: &MetricsRegistry, links: LinkHandle) {
    registry.collector(move |out: &mut Vec<MetricFamily>| {
        let gauge = |name, help| MetricFamily::new(name, help, MetricKind::Gauge);
        let mut up = gauge("isthmus_link_up", "Whether the link to a peer is up, by transport.");
        let mut rtt = gauge("isthmus_link_rtt_seconds", "Smoothed round-trip time of a link.");
        let mut loss = gauge("isthmus_link_loss_ratio", "Share of lost packets of a link.");
        let mut streams = gauge("isthmus_link_streams", "Open streams of a link.");
        let mut changes = MetricFamily::new(
            "isthmus_link_changes_total",
            "Changes of a link's transport, by reason.",
            MetricKind::Counter,
        );
        for status in links.set().status() {
            let peer = status.peer.as_str();
            let wire = transport(&status).map_or("none", LinkTransport::label);
            let is_up = f64::from(u8::from(transport(&status).is_some()));
            up = up.with(&[("peer", peer), ("transport", wire)], PointValue::Gauge(is_up));
            if let Some(time) = status.rtt {
                rtt = rtt.with(&[("peer", peer)], PointValue::Gauge(time.as_secs_f64()));
            }
            loss = loss.with(&[("peer", peer)], PointValue::Gauge(status.loss));
            // Stream counts are far below 2^52, so the conversion is exact.
            let open = status.streams as f64;
            streams = streams.with(&[("peer", peer)], PointValue::Gauge(open));
            for (reason, count) in &status.changes {
                let labels = [("peer", peer), ("reason", reason.label())];
                changes = changes.with(&labels, PointValue::Counter(*count));
            }
        }
        out.extend([up, rtt, loss, streams, changes]);
    });
}

/// How often round-trip times are reported without another change.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How many equal reports are not sent; the controller forgets a gateway after 15 s.
const REPORTS_UNSAID_MAX: u32 = 5;
