//! Writes the settings files of a cluster, one for each of its processes.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::address::{APPLICATION, INBOUND, MESH, OUTBOUND};
use super::{App, Cluster, Plan, Role};

/// The settings file of one process.
pub(crate) fn path(folder: &Path, cluster: &str, file: &str) -> PathBuf {
    folder.join(cluster).join(format!("{file}.yaml"))
}

/// Writes the settings of every process.
pub(crate) fn write(folder: &Path, cluster: &Cluster, plan: &Plan) {
    fs::create_dir_all(folder.join(&cluster.name).join("manifests")).unwrap();
    let roles = cluster.roles.iter().cloned();
    // The first file is the one for `isthmus ca bundle` too.
    let roles = roles.chain((!cluster.roles.contains(&Role::Up)).then_some(Role::Up));
    for (index, role) in roles.enumerate() {
        let process = u8::try_from(index).expect("a cluster has few processes");
        let text = settings(cluster, plan, &role, process);
        fs::write(path(folder, &cluster.name, role.file()), text).unwrap();
    }
}

fn settings(cluster: &Cluster, plan: &Plan, role: &Role, process: u8) -> String {
    let Cluster { name, region, zone, .. } = cluster;
    let ports = cluster.ingress_ports();
    let ports: Vec<String> = ports.iter().map(|(port, bound)| format!("{port}: {bound}")).collect();
    let [metrics, ready, admin] = plan.telemetry(process);
    let mut text = format!(
        "cluster: {name}
clusterset: e2e
region: {region}
zone: {zone}
manifests: ./manifests
state: ./state
workers: 1
ingress: {{enabled: {ingress}, address: {address}, ports: {{{ports}}}, limits: {limits}}}
eastwest: {{enabled: true, link: {link}, mesh: {mesh}}}
controller: {{enabled: true, discovery: {discovery}, federation: {federation}}}
dns: {{enabled: true, address: {dns}}}
telemetry:
  accessLog: all
  accessLogFormat: json
  accessLogFile: ./{file}.access.log
  metrics: {metrics}
  ready: {ready}
  admin: {admin}
",
        ingress = !cluster.listeners.is_empty(),
        address = plan.ingress(80).ip(),
        ports = ports.join(", "),
        limits = cluster.limits,
        link = plan.link(),
        mesh = plan.mesh(),
        discovery = plan.discovery(),
        federation = plan.federation(),
        dns = plan.dns(),
        file = role.file(),
    );
    for line in &cluster.settings {
        let _ = writeln!(text, "{line}");
    }
    let apps = cluster.apps.iter().enumerate().filter(|(_, app)| app.meshed);
    let sidecars: String = apps.map(|(index, app)| sidecar(app, index, plan, role)).collect();
    if !sidecars.is_empty() {
        let _ = write!(text, "sidecars:\n{sidecars}");
    }
    text
}

fn sidecar(app: &App, index: usize, plan: &Plan, role: &Role) -> String {
    let address = plan.app(index);
    let service = &app.service;
    // Its own process listens where the relay sends to; everybody else sends to the relay.
    let behind = *role == Role::Sidecar(service.clone());
    let mesh = if app.tapped && !behind { plan.tap(index) } else { address };
    let mut text = format!(
        "  - name: {service}
    namespace: {namespace}
    serviceAccount: {service}
    labels: {{app: {service}}}
    address: {address}
    ports: [{APPLICATION}]
    mesh: {mesh}:{MESH}
",
        namespace = app.namespace,
    );
    if app.outbound {
        let _ = writeln!(text, "    outbound: {address}:{OUTBOUND}");
    }
    if app.inbound {
        let _ = writeln!(text, "    inbound: {address}:{INBOUND}");
    }
    if !app.forwards.is_empty() {
        let one = |(port, host): &(u16, String)| {
            format!("{{listen: {address}:{port}, service: {host}, port: 80}}")
        };
        let all: Vec<String> = app.forwards.iter().map(one).collect();
        let _ = writeln!(text, "    tcp: [{}]", all.join(", "));
    }
    text
}
