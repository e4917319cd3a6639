//! One process from start to end.
//!
//! Start: telemetry, authority, controller, identities, discovery, data plane; each is
//! ready before the next needs it. End: readiness goes off, after a delay that lets load
//! balancers notice the data plane drains, then the rest ends in the opposite order.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use isthmus_certs::{BundleCell, BundleSet};
use isthmus_discovery::{ClientOptions, DiscoveryClient, NodeRole, Transport, WorkloadName};
use isthmus_dns::DnsServer;
use isthmus_gateway::{EastWest, FrontStatus, Ingress, Remote};
use isthmus_model::{Label, Locality, NodeInfo};
use isthmus_runtime::{Drain, Signal, Signals, SnapshotCell, Stop};
use isthmus_sidecar::Sidecar;
use isthmus_telemetry::{ControlServer, OtlpOptions, Readiness, Telemetry, TelemetryOptions};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::settings::{Settings, SidecarSettings};
use crate::up::board::Board;
use crate::up::control::{Authorities, Control};
use crate::up::explain::{Viewpoint, ViewpointKind};
use crate::up::identity::{Identities, Identity, Issuance, follow_bundles};
use crate::up::kubernetes::Cluster;
use crate::up::{Selection, data_plane, names, ports, ready};

mod controlling;
mod ending;

/// Runs the selected roles until SIGTERM or SIGINT.
pub(crate) async fn run(settings: Settings, selection: Selection) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    create_state(&settings.state)?;
    let settings = Arc::new(settings);
    let mut process = Process::new(Arc::clone(&settings), &selection)?;
    // A process may wait for others at its start, for the authority first of all.
    let started = tokio::select! {
        started = process.start(&selection) => started.map(|()| true),
        () = terminated(&mut signals) => Ok(false),
    };
    match started {
        Ok(true) => {}
        Ok(false) => {
            process.end(Duration::ZERO, Duration::ZERO).await;
            return Ok(());
        }
        Err(error) => {
            process.end(Duration::ZERO, Duration::ZERO).await;
            return Err(error);
        }
    }
    tracing::info!(cluster = %settings.cluster, process = %selection.name(), "started");
    let is_lost = tokio::select! {
        () = terminated(&mut signals) => false,
        () = process.lost() => true,
    };
    tracing::info!("ending");
    if is_lost {
        // Another process leads already: nothing here may be used any longer.
        process.end(Duration::ZERO, Duration::ZERO).await;
        anyhow::bail!("the lease of the controller is lost; start again as a standby");
    }
    process.end(settings.drain.delay, settings.drain.deadline).await;
    Ok(())
}

/// Waits until the process is asked to end.
async fn terminated(signals: &mut Signals) {
    loop {
        match signals.next().await {
            Signal::Terminate => return,
            Signal::Reload => tracing::info!("manifests are watched; there is nothing to reload"),
        }
    }
}

/// Creates the state folder, for the owner alone.
fn create_state(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot create the state folder {}", path.display()))
}

/// Everything that runs.
struct Process {
    settings: Arc<Settings>,
    board: Arc<Board>,
    readiness: Readiness,
    telemetry: Option<Telemetry>,
    servers: Vec<ControlServer>,
    /// Ends the background tasks: renewals, followers.
    background: Drain,
    tasks: JoinSet<()>,
    cluster: Option<Cluster>,
    authorities: Option<Authorities>,
    control: Option<Control>,
    clients: Vec<Arc<DiscoveryClient>>,
    ingress: Option<Ingress>,
    eastwest: Option<EastWest>,
    sidecars: Vec<Sidecar>,
    dns: Option<DnsServer>,
}

impl Process {
    fn new(settings: Arc<Settings>, selection: &Selection) -> anyhow::Result<Self> {
        let mut options = TelemetryOptions::new(data_plane::resource(&settings, &selection.name()));
        options.access_log = settings.telemetry.access_log_options();
        options.sampling_ratio = settings.telemetry.sampling;
        options.otlp = settings.telemetry.otlp.as_deref().map(OtlpOptions::new);
        Ok(Self {
            telemetry: Some(Telemetry::start(options)?),
            settings,
            board: Arc::default(),
            readiness: Readiness::default(),
            servers: Vec::new(),
            background: Drain::new(),
            tasks: JoinSet::new(),
            cluster: None,
            authorities: None,
            control: None,
            clients: Vec::new(),
            ingress: None,
            eastwest: None,
            sidecars: Vec::new(),
            dns: None,
        })
    }

    fn telemetry(&self) -> &Telemetry {
        self.telemetry.as_ref().expect("telemetry is taken only when the process ends")
    }

    fn stop(&self) -> Stop {
        self.background.stop()
    }

    async fn start(&mut self, selection: &Selection) -> anyhow::Result<()> {
        self.readiness.set_waiting("start", "the process is starting");
        let telemetry = self.telemetry.as_ref().expect("telemetry runs until the end");
        let all = *selection == Selection::All;
        let servers = ports::serve(&self.settings, telemetry, &self.readiness, &self.board, !all)?;
        self.servers.extend(servers);
        let settings = Arc::clone(&self.settings);
        let controls = (all && settings.controller.enabled) || *selection == Selection::Controller;
        let kept = if controls { self.lead(selection).await? } else { None };
        // In a cluster of Kubernetes the authority is part of the process that leads.
        let certifies = (all && settings.ca.enabled) || *selection == Selection::Ca;
        if certifies || kept.is_some() {
            self.start_authorities(&settings)?;
        }
        if *selection == Selection::Ca {
            self.readiness.set_ready("start");
            return Ok(());
        }
        let identities = Identities {
            issuance: match &self.authorities {
                Some(authorities) => Issuance::Local(authorities.handle()),
                None => Issuance::remote(&settings)?,
            },
            trust_domain: settings.trust_domain.clone(),
            state: settings.state.clone(),
            stop: self.stop(),
        };
        if controls {
            self.start_control(&identities, kept).await?;
        }
        if all || *selection == Selection::Gateway {
            self.start_gateway(&identities).await?;
        }
        for sidecar in &settings.sidecars {
            let chosen = *selection == Selection::Sidecar(sidecar.name.to_string());
            if all || chosen {
                self.start_sidecar(&identities, sidecar).await?;
            }
        }
        if (all && settings.dns.enabled) || *selection == Selection::Dns {
            self.start_dns(&identities).await?;
        }
        self.readiness.set_ready("start");
        Ok(())
    }

    /// An identity with the cell of bundles that goes with it.
    async fn identity(
        &mut self,
        identities: &Identities,
        namespace: &Label,
        account: &Label,
    ) -> anyhow::Result<(Identity, BundleCell)> {
        let cell = match &self.control {
            Some(control) => control.bundles(),
            None => SnapshotCell::new(BundleSet::new([])),
        };
        let identity = identities.issue(namespace, account, cell.clone(), &mut self.tasks).await?;
        self.board.identity(identity.id.clone(), identity.health.clone());
        Ok((identity, cell))
    }

    async fn system_identity(
        &mut self,
        identities: &Identities,
        account: &str,
    ) -> anyhow::Result<(Identity, BundleCell)> {
        let namespace = Label::new(isthmus_model::name::SYSTEM_NAMESPACE)?;
        self.identity(identities, &namespace, &Label::new(account)?).await
    }

    /// A subscriber of discovery: in this process if the controller is, else over mTLS.
    fn client(
        &mut self,
        (identity, cell): &(Identity, BundleCell),
        name: &str,
        role: NodeRole,
        subject: (Option<WorkloadName>, Locality),
    ) -> anyhow::Result<Arc<DiscoveryClient>> {
        let settings = &self.settings;
        let transport = match &self.control {
            Some(control) => Transport::InProcess(control.publisher()),
            None => {
                let own = identity.own_bundle.borrow();
                if let Some(own) = own.as_deref() {
                    cell.publish(Arc::new(BundleSet::new([own])));
                }
                Transport::Grpc(identity.discovery(settings)?)
            }
        };
        let client = DiscoveryClient::start(ClientOptions {
            node_name: data_plane::node_name(name, &settings.cluster),
            role,
            workload: subject.0,
            node: NodeInfo {
                cluster: settings.cluster.clone(),
                trust_domain: settings.trust_domain.clone(),
                locality: subject.1,
            },
            transport,
            state_file: Some(settings.state.join(format!("snapshot-{name}.json"))),
            limits: Default::default(),
        });
        let client = Arc::new(client);
        if self.control.is_none() {
            let own = identity.own_bundle.clone();
            let follow = follow_bundles(cell.clone(), own, client.snapshots(), self.stop());
            self.tasks.spawn(follow);
        }
        self.board.client(name, Arc::clone(&client));
        self.clients.push(Arc::clone(&client));
        if role != NodeRole::Ingress {
            self.await_configuration(name, &client, None);
        }
        Ok(client)
    }

    /// Keeps readiness off until a role has its first configuration.
    fn await_configuration(
        &mut self,
        role: &str,
        client: &Arc<DiscoveryClient>,
        fronts: Option<watch::Receiver<Vec<FrontStatus>>>,
    ) {
        let (client, stop) = (Arc::clone(client), self.stop());
        self.tasks.spawn(ready::follow(&self.readiness, role, client, fronts, stop));
    }

    async fn start_gateway(&mut self, identities: &Identities) -> anyhow::Result<()> {
        let settings = Arc::clone(&self.settings);
        let locality = settings.locality();
        let mut remote = data_plane::remote(&settings);
        if settings.eastwest.enabled {
            let own = self.system_identity(identities, "isthmus-eastwest").await?;
            let subject = (None, locality.clone());
            let client = self.client(&own, "eastwest", NodeRole::EastWest, subject)?;
            let tls = own.0.tls;
            let eastwest =
                data_plane::eastwest(&settings, self.telemetry(), tls, client.snapshots())?;
            let links = eastwest.links();
            data_plane::export_links(self.telemetry().registry(), links.clone());
            self.board.links(links.clone());
            self.board.services(client.snapshots());
            self.board.role("eastwest");
            self.tasks.spawn(data_plane::report_links(links.clone(), client, self.stop()));
            remote = Remote::Links(links);
            self.eastwest = Some(eastwest);
        }
        if settings.ingress.enabled {
            let (namespace, account) = data_plane::ingress_account(&settings)?;
            let own = self.identity(identities, &namespace, &account).await?;
            let client = self.client(&own, "ingress", NodeRole::Ingress, (None, locality))?;
            let snapshots = client.snapshots();
            let tls = Some(own.0.tls);
            let ingress =
                data_plane::ingress(&settings, self.telemetry(), tls, snapshots.clone(), remote)?;
            self.board.fronts(ingress.status());
            self.await_configuration("ingress", &client, Some(ingress.status()));
            self.board.services(snapshots.clone());
            self.board.viewpoint(Viewpoint {
                name: "ingress".into(),
                kind: ViewpointKind::Ingress,
                snapshots,
            });
            self.board.role("ingress");
            self.ingress = Some(ingress);
        }
        Ok(())
    }

    async fn start_sidecar(
        &mut self,
        identities: &Identities,
        sidecar: &SidecarSettings,
    ) -> anyhow::Result<()> {
        let settings = Arc::clone(&self.settings);
        let account = &sidecar.service_account;
        let own = self.identity(identities, &sidecar.namespace, account).await?;
        let name = format!("{}-{}", sidecar.namespace, sidecar.name);
        let workload =
            WorkloadName { namespace: sidecar.namespace.clone(), account: account.clone() };
        let locality = sidecar.locality(&settings);
        let subject = (Some(workload), locality);
        let client = self.client(&own, &name, NodeRole::Sidecar, subject)?;
        let discovery = (client.snapshots(), client.on_demand());
        let tls = own.0.tls;
        let running = data_plane::sidecar(&settings, sidecar, self.telemetry(), tls, discovery)?;
        self.board.viewpoint(Viewpoint {
            name: format!("{}/{}", sidecar.namespace, sidecar.name),
            kind: ViewpointKind::Sidecar {
                namespace: sidecar.namespace.clone(),
                on_demand: client.on_demand(),
            },
            snapshots: client.snapshots(),
        });
        self.board.role(&format!("sidecar {}/{}", sidecar.namespace, sidecar.name));
        self.sidecars.push(running);
        Ok(())
    }

    async fn start_dns(&mut self, identities: &Identities) -> anyhow::Result<()> {
        let settings = Arc::clone(&self.settings);
        let own = self.system_identity(identities, "isthmus-dns").await?;
        let locality = settings.locality();
        let client = self.client(&own, "dns", NodeRole::Dns, (None, locality))?;
        let stop = self.stop();
        let telemetry = self.telemetry.as_ref().expect("telemetry runs until the end");
        let registry = telemetry.registry();
        let server = names::start(&settings, client.snapshots(), registry, &mut self.tasks, stop)?;
        self.dns = Some(server);
        self.board.role("dns");
        Ok(())
    }
}
