//! A worker with one rule for everything, and backends that write down what they get.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use isthmus_model::endpoint::PortEndpoints;
use isthmus_model::route::{Backend, BackendTarget, Filter, HttpRoute, Retry, Rule};
use isthmus_model::table::RouteTable;
use isthmus_model::{
    AppProtocol, BackendTls, ClusterId, Endpoint, EndpointId, EndpointTarget, Endpoints,
    Generation, Health, Label, Locality, NodeInfo, Resource, Service as ModelService, ServiceKey,
    ServicePort, Snapshot, Trail, Transport, TrustDomain,
};
use isthmus_runtime::{Drain, LocalTasks, SnapshotCell};
use isthmus_telemetry::{HopRole, Telemetry, TelemetryOptions};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::canonical::Authority;
use crate::mesh::{MeshDialer, NoRemote};
use crate::router::{Route, RouteInput, Router};
use crate::server::Service;
use crate::settings::ProxySettings;
use crate::worker::{Worker, WorkerParts};

/// Runs a test as a worker runs: on one thread, within a limit of time.
pub(super) fn on_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limited = async { tokio::time::timeout(TEST_LIMIT, test).await.expect("took too long") };
    tokio::task::LocalSet::new().block_on(&runtime, limited);
}

pub(super) fn key(service: &str) -> ServiceKey {
    ServiceKey::cluster(Label::new("n").unwrap(), Label::new(service).unwrap())
}

pub(super) fn target(service: &str) -> BackendTarget {
    BackendTarget::Service { service: key(service), port: 80 }
}

/// A rule for every request, to the service `app`.
pub(super) fn rule(filters: Vec<Filter>, retry: Option<Retry>) -> Rule {
    Rule {
        name: None,
        matches: vec![Default::default()],
        filters,
        backends: vec![Backend { target: target("app"), weight: 1, filters: vec![] }],
        timeouts: Default::default(),
        retry,
    }
}

pub(super) struct World {
    pub(super) worker: Rc<Worker>,
    pub(super) telemetry: Arc<Telemetry>,
    address: SocketAddr,
    cell: SnapshotCell<Snapshot>,
    resources: Vec<Resource>,
    _drain: Drain,
}

impl World {
    pub(super) async fn start(
        rule: Rule,
        services: &[(&str, &TestBackend)],
        policies: Vec<BackendTls>,
    ) -> Self {
        let mut table = RouteTable::default();
        let route = HttpRoute {
            kind: Default::default(),
            name: "n/r".into(),
            created: 0,
            parents: vec![],
            rules: vec![rule],
        };
        table.add(&Arc::new(route), 0, &[]);
        table.finish();
        let resources: Vec<_> =
            services.iter().flat_map(|(name, backend)| service(name, backend.address)).collect();
        let cell = SnapshotCell::new(snapshot(1, &resources, policies));
        let options = TelemetryOptions::new(isthmus_telemetry::Resource::new("test"));
        let telemetry = Arc::new(Telemetry::start(options).unwrap());
        let (drain, tasks) = (Drain::new(), LocalTasks::default());
        let worker = Worker::start(WorkerParts {
            settings: ProxySettings::default(),
            recorder: telemetry.recorder().into_recorder(),
            reader: cell.reader(),
            connector: Box::new(MeshDialer::new(None, Rc::new(NoRemote), tasks.clone())),
            on_demand: None,
            stop: drain.stop(),
            tasks,
            seed: 7,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Service { router: Rc::new(OneRule(table)), tls: None };
        worker.tasks().spawn(crate::server::accept(Rc::clone(&worker), listener, service));
        Self { worker, telemetry, address, cell, resources, _drain: drain }
    }

    /// Replaces the policies.
    pub(super) fn publish(&self, policies: Vec<BackendTls>) {
        let generation = self.cell.load().generation.0 + 1;
        self.cell.publish(Arc::new(snapshot(generation, &self.resources, policies)));
    }

    /// Sends one request and reads the answer to its end.
    pub(super) async fn send(&self, line: &str, headers: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!("{line} HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

struct OneRule(RouteTable);

impl Router for OneRule {
    fn role(&self) -> HopRole {
        HopRole::Ingress
    }

    fn service(&self, _authority: &Authority) -> Option<ServiceKey> {
        None
    }

    fn route<'s>(
        &'s self,
        snapshot: &'s Snapshot,
        input: &RouteInput<'_>,
        trail: &mut Trail,
    ) -> Route<'s> {
        match self.0.find(&input.head, trail) {
            Some(matched) => Route::of_rule(snapshot, matched, input.random, trail),
            None => Route::not_found("no route"),
        }
    }

    fn listener_port(&self) -> u16 {
        80
    }
}

fn service(name: &str, address: SocketAddr) -> [Resource; 2] {
    let port = ServicePort {
        name: None,
        number: 80,
        transport: Transport::Tcp,
        app: AppProtocol::Http,
        app_protocol: None,
    };
    let endpoint = Endpoint {
        id: EndpointId::new(name).unwrap(),
        target: EndpointTarget::Local { address, mesh: None },
        locality: Locality::default(),
        weight: 1,
        health: Health::Ready,
        identity: None,
        hostname: None,
    };
    let group = PortEndpoints { port: 80, transport: Transport::Tcp, endpoints: vec![endpoint] };
    [
        Resource::Service(ModelService {
            key: key(name),
            addresses: vec![],
            headless: false,
            ports: vec![port],
            clusters: vec![],
        }),
        Resource::Endpoints(Endpoints { service: key(name), ports: vec![group] }),
    ]
}

fn snapshot(generation: u64, resources: &[Resource], policies: Vec<BackendTls>) -> Snapshot {
    let node = NodeInfo {
        cluster: ClusterId::new("a").unwrap(),
        trust_domain: TrustDomain::new("a.test").unwrap(),
        locality: Locality::default(),
    };
    let policies = policies.into_iter().map(Resource::BackendTls);
    let all: BTreeMap<_, _> = resources
        .iter()
        .cloned()
        .chain(policies)
        .map(|resource| (resource.key(), Arc::new(resource)))
        .collect();
    Snapshot::build(Generation(generation), node, &all)
}

/// A backend's view of its requests: method with path, and body.
type Seen = Vec<(String, String)>;

pub(super) struct TestBackend {
    address: SocketAddr,
    seen: Rc<RefCell<Seen>>,
    count: watch::Receiver<usize>,
}

impl TestBackend {
    pub(super) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    pub(super) async fn wait_for(&self, requests: usize) {
        self.count.clone().wait_for(|count| *count >= requests).await.unwrap();
    }
}

type Answers = dyn Fn(usize) -> (u16, Vec<(&'static str, &'static str)>);

/// A backend that gives its n-th request, from 1, a status and headers.
pub(super) async fn backend(
    answers: impl Fn(usize) -> (u16, Vec<(&'static str, &'static str)>) + 'static,
) -> TestBackend {
    serve(Rc::new(answers), None).await
}

/// A backend that speaks TLS, with the certificate that vouches for it, in PEM.
pub(super) async fn tls_backend(name: &str) -> (TestBackend, String) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let pem = made.cert.pem();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(isthmus_certs::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.into()], key.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    (serve(Rc::new(|_| (200, vec![])), Some(acceptor)).await, pem)
}

async fn serve(answers: Rc<Answers>, tls: Option<tokio_rustls::TlsAcceptor>) -> TestBackend {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, count) = watch::channel(0);
    let seen: Rc<RefCell<Seen>> = Rc::default();
    let written = Rc::clone(&seen);
    tokio::task::spawn_local(async move {
        let sender = Rc::new(sender);
        while let Ok((stream, _)) = listener.accept().await {
            let parts = (Rc::clone(&answers), Rc::clone(&written), Rc::clone(&sender));
            let tls = tls.clone();
            tokio::task::spawn_local(async move {
                match tls {
                    None => connection(stream, parts).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            connection(stream, parts).await;
                        }
                    }
                }
            });
        }
    });
    TestBackend { address, seen, count }
}

type Parts = (Rc<Answers>, Rc<RefCell<Seen>>, Rc<watch::Sender<usize>>);

async fn connection<S>(stream: S, (answers, seen, count): Parts)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (answers, seen, count) = (Rc::clone(&answers), Rc::clone(&seen), Rc::clone(&count));
        async move {
            let line = format!("{} {}", request.method(), request.uri().path());
            let mut body = request.into_body();
            let mut bytes = Vec::new();
            while let Some(Ok(frame)) =
                std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
            {
                bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            }
            seen.borrow_mut().push((line, String::from_utf8(bytes).unwrap()));
            let number = seen.borrow().len();
            count.send_replace(number);
            let (status, headers) = answers(number);
            if status == HANG {
                std::future::pending::<()>().await;
            }
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok::<_, Infallible>(response.body("answer".to_owned()).unwrap())
        }
    });
    let http = hyper::server::conn::http1::Builder::new();
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

/// A status that is never sent: the request hangs.
pub(super) const HANG: u16 = 999;
const TEST_LIMIT: Duration = Duration::from_secs(20);
