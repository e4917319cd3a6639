//! A small world: resources, an ingress that serves them, and its metrics.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use isthmus_gateway::{Ingress, IngressOptions, Remote};
use isthmus_model::endpoint::PortEndpoints;
use isthmus_model::route::RouteParent;
use isthmus_model::*;
use isthmus_proxy::ProxySettings;
use isthmus_runtime::SnapshotCell;
use isthmus_telemetry::{ExpositionFormat, render_metrics};
use isthmus_telemetry::{Resource as Reporter, Telemetry, TelemetryOptions};

/// Resources that can be changed, and the port of their listeners.
pub(crate) struct World {
    pub(crate) port: u16,
    resources: BTreeMap<ResourceKey, Arc<Resource>>,
    generation: u64,
}

/// A served [`World`].
pub(crate) struct Running {
    ingress: Option<Ingress>,
    telemetry: Telemetry,
    snapshots: SnapshotCell<Snapshot>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { port: free_port(), resources: BTreeMap::new(), generation: 0 }
    }

    pub(crate) fn add(&mut self, resource: Resource) {
        self.resources.insert(resource.key(), Arc::new(resource));
    }

    /// A listener at the world's port.
    pub(crate) fn listener(
        &mut self,
        name: &str,
        protocol: ListenerProtocol,
        hostname: Option<&str>,
    ) {
        self.add(Resource::Listener(Listener {
            name: format!("n/g/{name}"),
            addresses: vec![],
            port: self.port,
            bind_port: self.port,
            hostname: hostname.map(|text| Hostname::new(text).unwrap()),
            protocol,
            certificates: vec![format!("n/{name}")],
            created: 0,
            served_by: None,
            client_validation: None,
            backend_certificate: None,
        }));
    }

    /// A service with one endpoint for each address, over TCP and UDP.
    pub(crate) fn service(&mut self, name: &str, addresses: &[SocketAddr]) {
        let key = service_key(name);
        let port = |transport| ServicePort {
            name: None,
            number: PORT,
            transport,
            app: AppProtocol::Tcp,
            app_protocol: None,
        };
        let endpoint = |(index, address): (usize, &SocketAddr)| Endpoint {
            id: EndpointId::new(&format!("{name}-{index}")).unwrap(),
            target: EndpointTarget::Local { address: *address, mesh: None },
            locality: Locality::default(),
            weight: 1,
            health: Health::Ready,
            identity: None,
            hostname: None,
        };
        let endpoints: Vec<_> = addresses.iter().enumerate().map(endpoint).collect();
        let group =
            |transport| PortEndpoints { port: PORT, transport, endpoints: endpoints.clone() };
        self.add(Resource::Service(Service {
            key: key.clone(),
            addresses: vec![],
            headless: false,
            ports: vec![port(Transport::Tcp), port(Transport::Udp)],
            clusters: vec![],
        }));
        let ports = vec![group(Transport::Tcp), group(Transport::Udp)];
        self.add(Resource::Endpoints(Endpoints { service: key, ports }));
    }

    /// A route of a listener to weighted services.
    pub(crate) fn route(
        &mut self,
        kind: StreamRouteKind,
        (name, created): (&str, i64),
        (listener, hostnames): (&str, &[&str]),
        backends: &[(&str, u32)],
    ) {
        let backend = |(name, weight): &(&str, u32)| Backend {
            target: BackendTarget::Service { service: service_key(name), port: PORT },
            weight: *weight,
            filters: vec![],
        };
        let hostnames = hostnames.iter().map(|name| Hostname::new(name).unwrap()).collect();
        self.add(Resource::StreamRoute(StreamRoute {
            kind,
            name: format!("n/{name}"),
            created,
            parents: vec![RouteParent::Listener { listener: format!("n/g/{listener}"), hostnames }],
            backends: backends.iter().map(backend).collect(),
        }));
    }

    pub(crate) fn snapshot(&mut self) -> Snapshot {
        self.generation += 1;
        let node = NodeInfo {
            cluster: ClusterId::new("c1").unwrap(),
            trust_domain: TrustDomain::new("c1.test").unwrap(),
            locality: Locality::default(),
        };
        Snapshot::build(Generation(self.generation), node, &self.resources)
    }

    /// Serves the world on the IPv4 loopback address.
    pub(crate) async fn run(&mut self) -> Running {
        self.run_at(Ipv4Addr::LOCALHOST.into(), ProxySettings::default()).await
    }

    pub(crate) async fn run_at(&mut self, address: IpAddr, proxy: ProxySettings) -> Running {
        let telemetry = Telemetry::start(TelemetryOptions::new(Reporter::new("test"))).unwrap();
        let snapshots = SnapshotCell::new(self.snapshot());
        let ingress = Ingress::start(IngressOptions {
            address,
            tls: None,
            snapshots: snapshots.clone(),
            remote: Remote::None,
            recorders: vec![telemetry.recorder(), telemetry.recorder()],
            proxy,
            seed: 7,
        })
        .unwrap();
        let mut status = ingress.status();
        let bound = status.wait_for(|fronts| !fronts.is_empty()).await.unwrap().clone();
        assert!(bound.iter().all(|front| front.error.is_none()), "{bound:?}");
        Running { ingress: Some(ingress), telemetry, snapshots }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

impl Running {
    pub(crate) fn publish(&self, world: &mut World) {
        self.snapshots.publish(Arc::new(world.snapshot()));
    }

    /// Whether a connection of this protocol ended with this flag.
    pub(crate) fn counted(&self, protocol: &str, flag: &str) -> bool {
        let families = self.telemetry.registry().gather();
        let text = render_metrics(&families, ExpositionFormat::Prometheus);
        let labels =
            [format!("request_protocol=\"{protocol}\""), format!("response_flags=\"{flag}\"")];
        text.lines().any(|line| {
            line.contains("closed_total")
                && line.contains("reporter=\"ingress\"")
                && labels.iter().all(|label| line.contains(label))
        })
    }

    pub(crate) async fn drain(mut self) {
        if let Some(ingress) = self.ingress.take() {
            ingress.drain(Duration::from_secs(5)).await;
        }
    }
}

pub(crate) fn service_key(name: &str) -> ServiceKey {
    ServiceKey::cluster(Label::new("n").unwrap(), Label::new(name).unwrap())
}

/// A port that is free for TCP and UDP now.
fn free_port() -> u16 {
    (0..100)
        .find_map(|_| {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
            let port = tcp.local_addr().ok()?.port();
            UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|_| port)
        })
        .expect("a port is free")
}

/// The port of every service.
const PORT: u16 = 4000;
