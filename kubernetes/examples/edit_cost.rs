//! What one edited route costs the controller in a large cluster.
//!
//! `edit_cost [ROUTES SERVICES ROUNDS]` fills a cache with as many HTTPRoutes on one
//! Gateway, Services and EndpointSlices, then edits one route after the other and takes
//! each edit through everything that follows from it: cache, index, federation with its
//! translation, statuses, the plan of their writes and the events about them. Nothing is
//! read from a server and nothing is written: the statuses come back by themselves, which is
//! no work of the controller and is not counted. It prints the time of each step and the
//! resident memory.
#![allow(clippy::print_stdout, reason = "the figures go to standard output")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_config::{Content, Context, Index, Kind, SourceDocument, Translator};
use isthmus_federation::mcs::VipPool;
use isthmus_federation::plan::{EndpointSecret, Inputs, OwnCluster, configured, plan};
use isthmus_federation::{Configuration, Plan};
use isthmus_kubernetes::source::cache::{Cache, Change};
use isthmus_kubernetes::source::kinds::{Scope, Watched};
use isthmus_kubernetes::status::{self, StatusInputs, Statuses};
use isthmus_kubernetes::{Action, Plan as Writes, StatusPlanner, events};
use isthmus_model::{ClusterId, Locality, TrustDomain};
use isthmus_runtime::clock;
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<usize> =
        std::env::args().skip(1).map(|text| text.parse()).collect::<std::result::Result<_, _>>()?;
    let (routes, services, rounds) = match arguments.as_slice() {
        [] => (2_000, 5_000, 30),
        [routes, services, rounds] => (*routes, *services, *rounds),
        _ => return Err("usage: edit_cost [ROUTES SERVICES ROUNDS]".into()),
    };
    let empty = resident()?;
    let mut controller = Controller::new(routes, services)?;
    let mut first = Times::default();
    let writes = controller.turn(&mut first)?;
    let first: Duration = first.0.iter().map(|(_, time)| *time).sum();
    println!("{routes} HTTPRoutes, {services} Services and as many EndpointSlices");
    println!("first turn              {:8.1} ms", milliseconds(first));
    controller.write(&writes);
    controller.turn(&mut Times::default())?;
    println!("resident memory         {:8.1} MiB", resident()? - empty);
    let mut steps: BTreeMap<&'static str, Vec<Duration>> = BTreeMap::new();
    let (mut spent, mut whole) = (0.0, Vec::new());
    for round in 0..rounds {
        let mut times = Times::default();
        let object = controller.edited(round % routes, round);
        let (start, before) = (clock::now(), cpu()?);
        controller.apply(Kind::HttpRoute, object);
        let writes = controller.turn(&mut times)?;
        whole.push(clock::now() - start);
        spent += cpu()? - before;
        controller.write(&writes);
        for (step, time) in times.0 {
            steps.entry(step).or_default().push(time);
        }
    }
    let spent = spent / f64::from(u32::try_from(rounds)?);
    println!("one edit, CPU           {spent:8.1} ms, mean of {rounds}");
    println!("one edit                {:8.1} ms, median of {rounds}", median(&mut whole));
    for (step, mut times) in steps {
        println!("  {step:22}{:8.1} ms", median(&mut times));
    }
    println!("resident memory         {:8.1} MiB", resident()? - empty);
    Ok(())
}

/// The steps of one turn.
#[derive(Default)]
struct Times(Vec<(&'static str, Duration)>);

impl Times {
    fn take(&mut self, step: &'static str, since: Instant) -> Instant {
        let now = clock::now();
        self.0.push((step, now - since));
        now
    }
}

/// What the process has between two edits.
struct Controller {
    cache: Cache,
    index: Index,
    context: Context,
    own: OwnCluster,
    vips: VipPool,
    translator: Translator,
    statuses: Statuses,
    status_planner: StatusPlanner,
    configuration: Option<Arc<Configuration>>,
    plan: Option<Arc<Plan>>,
}

impl Controller {
    fn new(routes: usize, services: usize) -> Result<Self> {
        let scopes = Watched::all().map(scope).collect();
        let mut cache = Cache::new(scopes, BTreeMap::new());
        let mut objects: BTreeMap<Kind, Vec<Value>> = BTreeMap::new();
        objects.insert(Kind::GatewayClass, vec![class()]);
        objects.insert(Kind::Gateway, vec![gateway()]);
        objects.insert(Kind::HttpRoute, (0..routes).map(|n| route(n, services, 0)).collect());
        objects.insert(Kind::Service, (0..services).map(service).collect());
        objects.insert(Kind::EndpointSlice, (0..services).map(slice).collect());
        for watched in Watched::all() {
            let scope = scope(watched);
            cache.handle(&scope, Change::Listing);
            if let Watched::Config(kind) = watched {
                for object in objects.remove(&kind).unwrap_or_default() {
                    cache.handle(&scope, Change::Listed(object));
                }
            }
            cache.handle(&scope, Change::ListedAll);
        }
        let (cluster, trust_domain) = (ClusterId::new("c1")?, TrustDomain::new("c1.example")?);
        Ok(Self {
            cache,
            index: Index::new(),
            context: Context::new(cluster.clone(), trust_domain.clone()),
            own: OwnCluster {
                cluster,
                trust_domain,
                locality: Locality::default(),
                federation_listen: "127.0.0.1:9000".parse()?,
                version: "1".into(),
            },
            vips: VipPool::new("127.64.0.0/16".parse()?, []),
            translator: Translator::default(),
            statuses: Statuses::default(),
            status_planner: StatusPlanner::new(status::OWN_CONDITIONS),
            configuration: None,
            plan: None,
        })
    }

    /// A route as somebody has edited it, with the status that it has.
    fn edited(&self, number: usize, version: usize) -> Value {
        let mut object = route(number, number + 1, version + 2);
        object["status"] = self.status(number).unwrap_or_default();
        object
    }

    fn apply(&mut self, kind: Kind, object: Value) {
        self.cache.handle(&scope(Watched::Config(kind)), Change::Applied(object));
    }

    fn status(&self, number: usize) -> Option<Value> {
        let name = name("route", number);
        let documents = self.cache.documents().into_iter();
        let mut found = documents.filter(|document| document["metadata"]["name"] == name);
        Some(found.next()?["status"].clone())
    }

    /// Statuses come back, as from a server.
    fn write(&mut self, writes: &Writes) {
        let name = |object: &Value| -> (String, String) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&object["kind"]), text(&object["metadata"]["name"]))
        };
        let documents = self.cache.documents();
        let documents: BTreeMap<_, _> = documents.iter().map(|it| (name(it), it)).collect();
        for action in &writes.actions {
            let Action::ApplyStatus { id, body } = action else { continue };
            let Some(document) = documents.get(&name(body)) else { continue };
            let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.label() == id.kind) else {
                continue;
            };
            let mut object = Value::clone(document);
            object["status"] = body["status"].clone();
            self.apply(kind, object);
        }
    }

    /// Everything that follows from a change.
    fn turn(&mut self, times: &mut Times) -> Result<Writes> {
        let at = clock::now();
        let state = self.cache.state();
        let at = times.take("1 cache to state", at);
        let outcome = self.index.apply(&state.documents, 0);
        let at = times.take("2 state to objects", at);
        let configuration = Arc::new(Configuration {
            objects: Arc::clone(self.index.objects()),
            context: self.context.clone(),
        });
        let at = times.take("3 configuration", at);
        let plan = Arc::new(self.decide(&configuration));
        let at = times.take("4 federation, translation", at);
        let is_news = self.plan.as_ref().is_none_or(|before| **before != *plan);
        let at = times.take("5 is it news", at);
        // As the writer's world has them.
        let objects = |documents: &[SourceDocument]| documents.iter().filter_map(value).collect();
        let documents: Vec<Arc<Value>> = objects(&state.documents);
        let routing: Vec<Arc<Value>> = objects(state.of_group(status::GROUP));
        let at = times.take("6 world", at);
        let statuses = self.statuses.turn(&StatusInputs {
            objects: &configuration.objects,
            conditions: &plan.conditions,
            listeners: &plan.listeners,
            gateways: &plan.gateways,
            places: &BTreeMap::new(),
            observed: &routing,
            rejected: &outcome.errors,
            bundle_version: None,
        });
        let at = times.take("7 statuses", at);
        let writes = self.status_planner.plan(&statuses, "now")?;
        let at = times.take("8 plan of writes", at);
        let drafts = events::of_plan(&writes, routing.iter().map(Arc::as_ref));
        let at = times.take("9 events", at);
        // What was there before goes as well: that is part of the price.
        self.configuration = Some(configuration);
        if is_news {
            self.plan = Some(plan);
        }
        drop((state, documents, routing, statuses, drafts));
        times.take("what was before goes", at);
        Ok(writes)
    }

    fn decide(&mut self, configuration: &Configuration) -> Plan {
        let known = configured(configuration, &self.own);
        plan(
            configuration,
            &Inputs {
                own: &self.own,
                exports: &known.exports,
                namespaces: &known.namespaces,
                properties: &known.properties,
                links: &known.links,
                peers: &BTreeMap::new(),
                own_bundle: None,
                bundles: &BTreeMap::new(),
                secret: &EndpointSecret::new(&[7; 32]),
                vips: &self.vips,
                clusterset_ips: &configuration.context.clusterset_ips,
                unmeshed: None,
                unmeshed_ports: &BTreeMap::new(),
            },
            &mut self.translator,
        )
    }
}

fn value(document: &SourceDocument) -> Option<Arc<Value>> {
    match &document.content {
        Content::Object(value) => Some(Arc::clone(value)),
        Content::Text { .. } | Content::Unreadable { .. } => None,
    }
}

fn scope(watched: Watched) -> Scope {
    Scope { watched, namespace: "".into() }
}

fn name(kind: &str, number: usize) -> String {
    format!("{kind}-{number}")
}

fn metadata(namespace: Option<&str>, name: &str, generation: usize) -> Value {
    let mut metadata = json!({
        "name": name, "uid": format!("5e3c8f0e-0000-4000-8000-{name:0>12}"),
        "creationTimestamp": "2026-01-31T12:00:00Z", "generation": generation,
        "resourceVersion": "1234567", "labels": {"app.kubernetes.io/name": name},
    });
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    metadata
}

fn class() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": metadata(None, "isthmus", 1),
        "spec": {"controllerName": "isthmus.io/gateway-controller"},
    })
}

fn gateway() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": metadata(Some("bench"), "edge", 1),
        "spec": {"gatewayClassName": "isthmus", "listeners": [
            {"name": "http", "port": 80, "protocol": "HTTP",
             "allowedRoutes": {"namespaces": {"from": "All"}}},
        ]},
    })
}

fn route(number: usize, services: usize, version: usize) -> Value {
    let backend = name("service", number % services.max(1));
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": metadata(Some("bench"), &name("route", number), version + 1),
        "spec": {
            "parentRefs": [{
                "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge",
            }],
            "hostnames": [format!("host-{number}.example.com")],
            "rules": [{
                "matches": [{"path": {"type": "PathPrefix", "value": format!("/v{version}")}}],
                "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {
                    "set": [{"name": "x-version", "value": version.to_string()}],
                }}],
                "backendRefs": [{
                    "group": "", "kind": "Service", "name": backend, "port": 80, "weight": 1,
                }],
            }],
        },
    })
}

fn service(number: usize) -> Value {
    let name = name("service", number);
    let (high, low) = (number / 250 % 250, number % 250);
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(Some("bench"), &name, 1),
        "spec": {
            "clusterIP": format!("10.96.{high}.{low}"),
            "clusterIPs": [format!("10.96.{high}.{low}")],
            "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
            "sessionAffinity": "None", "type": "ClusterIP",
        },
        "status": {"loadBalancer": {}},
    })
}

fn slice(number: usize) -> Value {
    let service = name("service", number);
    let endpoint = |n: usize| {
        json!({
            "addresses": [format!("10.{}.{}.{}", 1 + n, number / 250 % 250, number % 250)],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "node-1", "zone": "zone-a",
            "targetRef": {"kind": "Pod", "namespace": "bench", "name": format!("{service}-{n}"),
                "uid": format!("9b1c3a52-0000-4000-8000-{number:012}")},
        })
    };
    let mut metadata = metadata(Some("bench"), &format!("{service}-abcde"), 1);
    metadata["labels"] = json!({
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "kubernetes.io/service-name": service,
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": "IPv4", "endpoints": [endpoint(0), endpoint(1)],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(0.0, |time| milliseconds(*time))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The CPU time of this thread, in milliseconds.
fn cpu() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split_whitespace().next().ok_or("schedstat is empty")?;
    Ok(nanoseconds.parse::<f64>()? / 1e6)
}

/// The resident memory of this process, in MiB.
fn resident() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    let kibibytes = line.split_whitespace().nth(1).ok_or("VmRSS is empty")?;
    Ok(kibibytes.parse::<f64>()? / 1024.0)
}
