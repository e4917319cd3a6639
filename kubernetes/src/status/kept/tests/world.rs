//! Objects as an API server has them, what is decided of them, and random edits.

use std::collections::BTreeMap;
use std::sync::Arc;

use isthmus_config::translate::Translation;
use isthmus_config::{
    ConfigError, Context, Index, ObjectKey, Objects, Origin, SourceDocument, Translator,
};
use isthmus_model::{ClusterId, TrustDomain};
use serde_json::{Value, json};

use crate::apply::Action;
use crate::provision::place::GatewayPlace;
use crate::status::StatusInputs;

/// SplitMix64: small, and the same for ever.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Uniform in `0..bound`.
    pub(super) fn pick(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(bound).unwrap()).unwrap()
    }

    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.pick(100) < percent
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.pick(of.len())]
    }
}

/// A cluster: what is observed, and what was decided of it at some moment.
pub(super) struct World {
    objects: BTreeMap<String, Arc<Value>>,
    observed: Vec<Arc<Value>>,
    index: Index,
    translator: Translator,
    decided: (Arc<Objects>, Translation),
    rejected: Vec<ConfigError>,
    places: BTreeMap<ObjectKey, GatewayPlace>,
    generation: i64,
}

impl World {
    /// A class of ours, one of others, a Gateway and a Service.
    pub(super) fn new() -> Self {
        let mut world = Self {
            objects: BTreeMap::new(),
            observed: Vec::new(),
            index: Index::new(),
            translator: Translator::default(),
            decided: (Arc::default(), Translation::default()),
            rejected: Vec::new(),
            places: BTreeMap::new(),
            generation: 0,
        };
        world.put_class("isthmus", "isthmus.io/gateway-controller");
        world.put_class("other", "example.com/other");
        let listeners = json!([{"name": "http", "port": 80, "protocol": "HTTP"}]);
        let spec = json!({"gatewayClassName": "isthmus", "listeners": listeners});
        world.put("Gateway", "shop/edge", spec);
        world.put("Service", "shop/s0", json!({"ports": [{"name": "http", "port": 80}]}));
        world.decide();
        world
    }

    pub(super) fn inputs(&self) -> StatusInputs<'_> {
        let (objects, translation) = &self.decided;
        StatusInputs {
            objects,
            conditions: &translation.conditions,
            listeners: &translation.listeners,
            gateways: &translation.gateways,
            places: &self.places,
            observed: &self.observed,
            rejected: &self.rejected,
            bundle_version: None,
        }
    }

    pub(super) fn observed(&self) -> &[Arc<Value>] {
        &self.observed
    }

    /// The controller takes what is observed.
    pub(super) fn decide(&mut self) {
        let objects = Arc::clone(self.index.objects());
        let cluster = ClusterId::new("a").unwrap();
        let context = Context::new(cluster, TrustDomain::new("a.demo").unwrap());
        let translation = self.translator.translate(&objects, &context);
        self.decided = (objects, translation);
    }

    pub(super) fn put_class(&mut self, name: &str, controller: &str) {
        self.put("GatewayClass", &format!("/{name}"), json!({ "controllerName": controller }));
    }

    pub(super) fn put_route(&mut self, number: usize, gateway: &str) {
        let rules = json!([{"backendRefs": [{"name": "s0", "port": 80}]}]);
        let spec = json!({"parentRefs": [{"name": gateway}], "rules": rules});
        self.put("HTTPRoute", &format!("shop/r{number}"), spec);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.objects.remove(name);
        self.read();
    }

    /// A status is written, and the watch brings the object.
    pub(super) fn write(&mut self, action: &Action) {
        let Action::ApplyStatus { id, body } = action else { panic!("{action:?}") };
        let name = format!("{}/{}/{}", id.kind, id.namespace, id.name);
        let Some(object) = self.objects.get(&name) else { return };
        let mut object = Value::clone(object);
        object["status"] = body["status"].clone();
        self.objects.insert(name, Arc::new(object));
        self.read();
    }

    /// One random edit of one object: it comes, changes, or goes.
    pub(super) fn edit(&mut self, random: &mut Random) {
        if random.chance(8) {
            let at = random.pick(self.objects.len().max(1));
            if let Some(name) = self.objects.keys().nth(at).cloned() {
                self.remove(&name);
            }
            return;
        }
        let namespace = random.one(&NAMESPACES);
        match random.pick(16) {
            0 => {
                let controllers = ["isthmus.io/gateway-controller", "example.com/other"];
                let name = random.one(&["isthmus", "isthmus", "other"]);
                self.put_class(name, random.one(&controllers));
            }
            1..=2 => {
                let spec = json!({
                    "gatewayClassName": random.one(&["isthmus", "isthmus", "other"]),
                    "allowedListeners": {"namespaces": {"from": random.one(&["All", "None"])}},
                    "listeners": listeners(random),
                });
                self.put("Gateway", &format!("{namespace}/edge"), spec);
            }
            3 => {
                let parent = json!({"name": "edge", "namespace": random.one(&NAMESPACES)});
                let spec = json!({"parentRef": parent, "listeners": listeners(random)});
                self.put("ListenerSet", &format!("{namespace}/set"), spec);
            }
            4 => {
                let ports = json!([{"name": "http", "port": random.one(&[80, 81])}]);
                let name = format!("{namespace}/s{}", random.pick(2));
                self.put("Service", &name, json!({ "ports": ports }));
            }
            5..=6 => {
                let hostname = random.one(&["web.example", "web.example", "not a name"]);
                let target = json!({"group": "", "kind": "Service",
                    "name": format!("s{}", random.pick(2))});
                let validation = json!({"hostname": hostname, "wellKnownCACertificates": "System"});
                let spec = json!({"targetRefs": [target], "validation": validation});
                self.put("BackendTLSPolicy", &format!("{namespace}/p{}", random.pick(2)), spec);
            }
            7 => self.touch(random),
            8 => self.place(random),
            _ => {
                let kind = random.one(&[
                    "HTTPRoute",
                    "HTTPRoute",
                    "GRPCRoute",
                    "TCPRoute",
                    "TLSRoute",
                    "UDPRoute",
                ]);
                let spec = route(random, kind);
                self.put(kind, &format!("{namespace}/r{}", random.pick(3)), spec);
            }
        }
    }

    /// Somebody else writes a status, or an object comes anew as it was.
    fn touch(&mut self, random: &mut Random) {
        let at = random.pick(self.objects.len().max(1));
        let Some((name, object)) = self.objects.iter().nth(at) else { return };
        let (name, mut object) = (name.clone(), Value::clone(object));
        if name.contains("Route/") && random.chance(60) {
            let theirs = json!({"controllerName": "example.com/other",
                "parentRef": {"name": random.one(&["edge", "x"])},
                "conditions": [{"type": "Accepted", "status": "True", "lastTransitionTime": "t"}]});
            if let Some(Value::Array(entries)) = object.pointer_mut("/status/parents") {
                entries.insert(0, theirs);
            } else {
                object["status"] = json!({ "parents": [theirs] });
            }
        } else if random.chance(20) {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-31T12:00:00Z");
        }
        self.objects.insert(name, Arc::new(object));
        self.read();
    }

    /// The Gateways get a place, or lose it.
    fn place(&mut self, random: &mut Random) {
        let key = ObjectKey::new(random.one(&NAMESPACES), "edge").unwrap();
        if self.places.remove(&key).is_none() {
            let place = GatewayPlace { addresses: vec![], pods_available: 1, problem: None };
            self.places.insert(key, place);
        }
    }

    fn put(&mut self, kind: &str, name: &str, spec: Value) {
        self.generation += 1;
        let (namespace, short) = name.split_once('/').unwrap();
        let group = if kind == "Service" { "v1" } else { "gateway.networking.k8s.io/v1" };
        let path = format!("{kind}/{name}");
        let mut object = json!({"apiVersion": group, "kind": kind, "spec": spec,
            "metadata": {"name": short, "generation": self.generation,
                         "creationTimestamp": "2026-01-31T12:00:00Z"}});
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        if let Some(status) = self.objects.get(&path).and_then(|before| before.get("status")) {
            object["status"] = status.clone();
        }
        self.objects.insert(path, Arc::new(object));
        self.read();
    }

    /// The watch brings what has changed.
    fn read(&mut self) {
        let one = |(name, object): (&String, &Arc<Value>)| {
            SourceDocument::object(Origin::new(name, 0), Arc::clone(object))
        };
        let documents: Vec<SourceDocument> = self.objects.iter().map(one).collect();
        self.rejected = self.index.apply(&documents, 7).errors;
        self.observed = self.objects.values().cloned().collect();
    }
}

fn listeners(random: &mut Random) -> Value {
    let mut all = Vec::new();
    for (name, protocol) in [("http", "HTTP"), ("tcp", "TCP"), ("tls", "TLS"), ("udp", "UDP")] {
        let mut listener = json!({"name": name, "protocol": protocol,
            "port": random.one(&[80, 81, 82, 83, 84, 85, 0]),
            "allowedRoutes": {"namespaces": {"from": random.one(&["All", "All", "Same"])}}});
        if protocol == "TLS" {
            listener["tls"] = match random.chance(50) {
                true => json!({"mode": "Passthrough"}),
                false => json!({"mode": "Terminate", "certificateRefs": [{"name": "c"}]}),
            };
        }
        if random.chance(60) {
            all.push(listener);
        }
    }
    Value::Array(all)
}

fn route(random: &mut Random, kind: &str) -> Value {
    let mut parents = Vec::new();
    for _ in 0..=random.pick(2) {
        let mut parent = json!({"name": random.one(&["edge", "edge", "absent"]),
            "namespace": random.one(&NAMESPACES)});
        match random.pick(8) {
            0 => parent["sectionName"] = json!("http"),
            1..=2 => {
                parent["kind"] = json!("ListenerSet");
                parent["name"] = json!("set");
            }
            3 => parent = json!({"group": "", "kind": "Service", "name": "s0"}),
            _ => {}
        }
        parents.push(parent);
    }
    let port = random.one(&[80, 80, 80, 81, 0]);
    let backend = json!({"name": format!("s{}", random.pick(2)), "port": port});
    let mut spec = json!({"parentRefs": parents, "rules": [{"backendRefs": [backend]}]});
    if kind == "TLSRoute" {
        spec["hostnames"] = json!(["web.example"]);
    }
    spec
}

const NAMESPACES: [&str; 2] = ["infra", "shop"];
