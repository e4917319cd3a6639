//! A world: clusters, their applications, and the network between them.

mod address;
mod cluster;
mod manifests;
mod process;
mod running;
mod settings;

use std::collections::BTreeMap;
use std::path::Path;

use tempfile::TempDir;

pub(crate) use address::{Plan, Subnet};
pub(crate) use cluster::{App, Cluster, Kind, Link, Listener, Role, http_route};
pub(crate) use process::{Process, run_to_end};
pub(crate) use running::Running;

use crate::relay::Relay;

/// Everything of one test. Dropping it ends every process and removes every file.
pub(crate) struct World {
    clusters: BTreeMap<String, Running>,
    relays: BTreeMap<(String, String), Relay>,
    // Last, so that files and addresses outlive the processes.
    _folder: TempDir,
    _subnet: Subnet,
}

impl World {
    /// Starts the clusters and waits until each says that it is ready.
    pub(crate) async fn start(clusters: impl IntoIterator<Item = Cluster>) -> Self {
        let world = Self::prepare(clusters).await;
        for cluster in world.clusters.values() {
            cluster.is_ready().await;
        }
        world
    }

    /// A world of one cluster.
    pub(crate) async fn of(cluster: Cluster) -> Self {
        Self::start([cluster]).await
    }

    /// Starts the clusters and does not wait for them.
    pub(crate) async fn prepare(clusters: impl IntoIterator<Item = Cluster>) -> Self {
        let subnet = Subnet::claim();
        let folder = tempfile::Builder::new().prefix("isthmus-e2e-").tempdir().unwrap();
        let clusters: Vec<Cluster> = clusters.into_iter().collect();
        let plans: BTreeMap<String, Plan> = clusters
            .iter()
            .enumerate()
            .map(|(index, cluster)| (cluster.name.clone(), subnet.plan(index)))
            .collect();
        for cluster in &clusters {
            settings::write(folder.path(), cluster, &plans[&cluster.name]);
        }
        let bundles = bundles(folder.path(), &clusters).await;
        let mut relays = BTreeMap::new();
        for (cluster, link) in clusters.iter().flat_map(|c| c.links.iter().map(move |l| (c, l))) {
            if link.relayed {
                let listen = subnet.relay(relays.len());
                let relay = Relay::start(listen, plans[&link.to].link()).await;
                relays.insert((cluster.name.clone(), link.to.clone()), relay);
            }
        }
        let mut running = BTreeMap::new();
        for cluster in clusters {
            let name = cluster.name.clone();
            let plan = plans[&name];
            let addresses = |to: &str| {
                let relay = relays.get(&(name.clone(), to.to_owned())).map(Relay::address);
                relay.unwrap_or_else(|| plans[to].link())
            };
            manifests::write(folder.path(), &cluster, &plan, &bundles, addresses);
            let cluster = Running::start(folder.path(), cluster, plan).await;
            running.insert(name, cluster);
        }
        Self { clusters: running, relays, _folder: folder, _subnet: subnet }
    }

    /// A cluster.
    pub(crate) fn cluster(&self, name: &str) -> &Running {
        &self.clusters[name]
    }

    /// A cluster, to start and end its processes.
    pub(crate) fn cluster_mut(&mut self, name: &str) -> &mut Running {
        self.clusters.get_mut(name).expect("the test names a cluster of its world")
    }

    /// The only cluster.
    pub(crate) fn only(&self) -> &Running {
        assert_eq!(self.clusters.len(), 1);
        self.clusters.values().next().expect("just counted")
    }

    /// The only cluster, to start and end its processes.
    pub(crate) fn only_mut(&mut self) -> &mut Running {
        assert_eq!(self.clusters.len(), 1);
        self.clusters.values_mut().next().expect("just counted")
    }

    /// The network on the way of a relayed link.
    pub(crate) fn relay(&self, from: &str, to: &str) -> &Relay {
        &self.relays[&(from.to_owned(), to.to_owned())]
    }
}

/// The trust bundles of clusters that are linked, as their operators would fetch them.
async fn bundles(folder: &Path, clusters: &[Cluster]) -> BTreeMap<String, String> {
    let mut bundles = BTreeMap::new();
    for cluster in clusters {
        if !clusters.iter().any(|other| other.links.iter().any(|link| link.to == cluster.name)) {
            continue;
        }
        let settings = settings::path(folder, &cluster.name, Role::Up.file());
        let settings = settings.to_str().expect("temporary folders have readable names");
        let output = run_to_end(["ca", "bundle", "-f", settings]).await;
        assert!(output.status.success(), "isthmus ca bundle: {output:?}");
        let bundle = String::from_utf8(output.stdout).expect("a bundle is JSON");
        bundles.insert(cluster.name.clone(), bundle);
    }
    bundles
}
