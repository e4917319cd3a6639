//! A cluster as its operator sees it: processes, status, metrics, access log, manifests.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use serde_json::Value;

use super::address::{APPLICATION, INBOUND, MESH, OUTBOUND};
use super::{App, Cluster, Plan, Process, Role, manifests, settings};
use crate::apps::Application;
use crate::client::Call;
use crate::relay::Relay;
use crate::wait::{eventually, eventually_true};

/// A cluster with its processes and applications.
pub(crate) struct Running {
    folder: PathBuf,
    root: PathBuf,
    cluster: Cluster,
    plan: Plan,
    apps: BTreeMap<String, Application>,
    taps: BTreeMap<String, Relay>,
    processes: BTreeMap<Role, Process>,
}

impl Running {
    /// Starts the applications and the processes.
    pub(crate) async fn start(root: &Path, cluster: Cluster, plan: Plan) -> Self {
        let (mut apps, mut taps) = (BTreeMap::new(), BTreeMap::new());
        for (index, app) in cluster.apps.iter().enumerate() {
            let address = SocketAddr::from((plan.app(index), APPLICATION));
            let started = Application::start(app.kind, &app.service, &cluster.name, address).await;
            apps.insert(app.service.clone(), started);
            if app.tapped {
                let (from, to) = ((plan.tap(index), MESH), (plan.app(index), MESH));
                taps.insert(app.service.clone(), Relay::start(from.into(), to.into()).await);
            }
        }
        let folder = root.join(&cluster.name);
        let root = root.to_owned();
        let mut running =
            Self { folder, root, cluster, plan, apps, taps, processes: BTreeMap::new() };
        for role in running.cluster.roles.clone() {
            running.start_process(role);
        }
        running
    }

    /// Starts a process that does not run.
    pub(crate) fn start_process(&mut self, role: Role) {
        let path = settings::path(&self.root, &self.cluster.name, role.file());
        let path = path.to_str().expect("temporary folders have readable names").to_owned();
        let mut arguments = role.arguments();
        arguments.extend(["-f", &path]);
        let log = self.folder.join(format!("{}.log", role.file()));
        let process = Process::start(&log, &arguments);
        self.processes.insert(role, process);
    }

    /// Kills a process without a warning.
    pub(crate) fn kill_process(&mut self, role: &Role) {
        self.processes.remove(role).expect("the process runs").kill();
    }

    /// Asks a process to end.
    pub(crate) fn ask_to_end(&self, role: &Role) {
        self.processes[role].ask_to_end();
    }

    /// Waits until a process has ended by itself.
    pub(crate) async fn ended(&mut self, role: &Role) -> ExitStatus {
        self.processes.get_mut(role).expect("the test has not killed it").ended().await
    }

    /// What a process printed.
    pub(crate) fn log(&self, role: &Role) -> String {
        self.processes[role].log()
    }

    /// Waits until every process says that it is ready.
    pub(crate) async fn is_ready(&self) {
        for role in self.processes.keys() {
            eventually(&format!("{role:?} of {} is ready", self.cluster.name), || async {
                let reply = Call::get(self.ready(role), "/healthz/ready").try_send().await?;
                if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
            })
            .await;
        }
    }

    /// The port of a process that says whether it is ready.
    pub(crate) fn ready(&self, role: &Role) -> SocketAddr {
        self.telemetry(role)[1]
    }

    /// A request to the ingress on the Gateway's port 80.
    pub(crate) fn get(&self, path: &str) -> Call {
        Call::get(self.ingress(80), path)
    }

    /// Where the ingress is bound for a port of the Gateway.
    pub(crate) fn ingress(&self, port: u16) -> SocketAddr {
        self.plan.ingress(port)
    }

    /// The addresses of the cluster.
    pub(crate) fn plan(&self) -> Plan {
        self.plan
    }

    /// A request that an application makes through its sidecar.
    pub(crate) fn call_from(&self, app: &str, url: &str) -> Call {
        Call::through(SocketAddr::from((self.address_of(app), OUTBOUND)), url)
    }

    /// A request to the plaintext port of an application's sidecar.
    pub(crate) fn call_inbound(&self, app: &str, path: &str) -> Call {
        Call::get(SocketAddr::from((self.address_of(app), INBOUND)), path)
    }

    /// An address of an application, with any port.
    pub(crate) fn at(&self, app: &str, port: u16) -> SocketAddr {
        SocketAddr::from((self.address_of(app), port))
    }

    /// An application.
    pub(crate) fn app(&self, name: &str) -> &Application {
        &self.apps[name]
    }

    /// The network in front of a tapped application's sidecar.
    pub(crate) fn tap(&self, name: &str) -> &Relay {
        &self.taps[name]
    }

    /// Where others reach the sidecar of a tapped application.
    pub(crate) fn tapped(&self, name: &str) -> SocketAddr {
        self.taps[name].address()
    }

    /// Replaces a manifest as an editor or a ConfigMap mount does: a new file is renamed
    /// over the old one.
    pub(crate) fn replace(&self, file: &str, text: &str) {
        let new = self.folder.join(format!("{file}.new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, self.folder.join("manifests").join(file)).unwrap();
    }

    /// Leaves a service without endpoints.
    pub(crate) fn remove_endpoints(&self, service: &str) {
        self.write_endpoints(service, &[]);
    }

    /// Gives a service its endpoint again.
    pub(crate) fn restore_endpoints(&self, service: &str) {
        self.write_endpoints(service, &[self.address_of(service)]);
    }

    fn write_endpoints(&self, service: &str, addresses: &[Ipv4Addr]) {
        let namespace = &self.find(service).1.namespace;
        let text = manifests::endpoint_slice(service, namespace, addresses);
        self.replace(&manifests::slice_file(service), &text);
    }

    /// The answer of the admin port to a question, by the first process.
    pub(crate) async fn admin(&self, path: &str) -> Result<Value, String> {
        let [.., admin] = self.plan.telemetry(0);
        let reply = Call::get(admin, path).host("localhost").try_send().await?;
        match reply.status {
            200 => Ok(reply.json()),
            status => Err(format!("{status} {}", reply.text())),
        }
    }

    /// The whole status.
    pub(crate) async fn status(&self) -> Value {
        self.admin("/status").await.unwrap()
    }

    /// Waits until the status meets a condition; `Err` says what is missing.
    pub(crate) async fn status_shows<T>(
        &self,
        what: &str,
        see: impl Fn(&Value) -> Result<T, String>,
    ) -> T {
        eventually(what, || {
            let answer = self.admin("/status");
            let see = &see;
            async move { see(&answer.await?) }
        })
        .await
    }

    /// Waits until the link to a peer is up.
    pub(crate) async fn is_linked_to(&self, peer: &str) {
        self.status_shows(&format!("{} is linked to {peer}", self.cluster.name), |status| {
            match field(&status["peers"], "cluster", peer)["state"].as_str() {
                Some("up") => Ok(()),
                _ => Err(status["peers"].to_string()),
            }
        })
        .await;
    }

    /// Waits until the link to a peer uses a transport.
    pub(crate) async fn is_linked_by(&self, peer: &str, transport: &str) {
        let what = format!("the link of {} to {peer} uses {transport}", self.cluster.name);
        self.status_shows(&what, |status| {
            let row = field(&status["peers"], "cluster", peer);
            if row["transport"] == transport { Ok(()) } else { Err(row.to_string()) }
        })
        .await;
    }

    /// Waits until the lease of a peer is `valid` or `expired`.
    pub(crate) async fn has_lease_of(&self, peer: &str, lease: &str) {
        let what = format!("the lease of {peer} is {lease} in {}", self.cluster.name);
        self.status_shows(&what, |status| {
            let row = field(&status["peers"], "cluster", peer);
            if row["lease"] == lease { Ok(()) } else { Err(row.to_string()) }
        })
        .await;
    }

    /// Waits until a service of `shop` has endpoints in a cluster.
    pub(crate) async fn sees(&self, service: &str, cluster: &str) {
        let host = format!("{service}.shop.svc.clusterset.local");
        self.status_shows(&format!("{} sees {host} of {cluster}", self.cluster.name), |status| {
            let endpoints = &field(&status["services"], "host", &host)["endpoints"];
            let of = field(endpoints, "cluster", cluster);
            if of.is_null() { Err(status["services"].to_string()) } else { Ok(()) }
        })
        .await;
    }

    /// Asks the authority of this cluster for a new root.
    pub(crate) async fn rotate(&self) {
        let [.., admin] = self.plan.telemetry(0);
        let call = Call::get(admin, "/ca/rotate").method("POST").host("localhost");
        let reply = call.header("x-isthmus-admin", "1").send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    /// The metrics of the first process, as text.
    pub(crate) async fn metrics(&self) -> String {
        let [metrics, ..] = self.plan.telemetry(0);
        Call::get(metrics, "/metrics").send().await.text()
    }

    /// The sum of a metric's series that have every one of these labels.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.metrics().await;
        let series = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The access log of a process.
    pub(crate) fn access_log(&self, role: &Role) -> Vec<Value> {
        let file = self.folder.join(format!("{}.access.log", role.file()));
        let text = fs::read_to_string(file).unwrap_or_default();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for an access record.
    pub(crate) async fn logs(&self, role: &Role, is: impl Fn(&Value) -> bool) -> Value {
        eventually("the access log has the record", || {
            let found = self.access_log(role).into_iter().find(|record| is(record));
            std::future::ready(found.ok_or_else(|| self.access_log(role)))
        })
        .await
    }

    /// Waits until a role has saved its last good configuration.
    pub(crate) async fn has_saved(&self, role: &str) {
        let file = self.folder.join("state").join(format!("snapshot-{role}.json"));
        eventually_true(&format!("{} exists", file.display()), || file.exists()).await;
    }

    /// The settings file of a process.
    pub(crate) fn settings_file(&self, role: &Role) -> PathBuf {
        settings::path(&self.root, &self.cluster.name, role.file())
    }

    /// The folder of manifests.
    pub(crate) fn manifests(&self) -> PathBuf {
        self.folder.join("manifests")
    }

    fn telemetry(&self, role: &Role) -> [SocketAddr; 3] {
        let index = self.cluster.roles.iter().position(|r| r == role).expect("it is a process");
        self.plan.telemetry(u8::try_from(index).expect("a cluster has few processes"))
    }

    fn find(&self, app: &str) -> (usize, &App) {
        let mut apps = self.cluster.apps.iter().enumerate();
        apps.find(|(_, a)| a.service == app).expect("the test names an application")
    }

    fn address_of(&self, app: &str) -> Ipv4Addr {
        self.plan.app(self.find(app).0)
    }
}

/// The element of an array whose field has a value; null when there is none.
pub(crate) fn field<'v>(array: &'v Value, name: &str, value: &str) -> &'v Value {
    let elements = array.as_array().map(Vec::as_slice).unwrap_or_default();
    elements.iter().find(|element| element[name] == value).unwrap_or(&Value::Null)
}
