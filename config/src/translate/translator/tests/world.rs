//! Objects as an API server has them, and random edits of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use isthmus_model::{AppProtocol, Label, Locality, ServicePort, Transport};
use serde_json::{Value, json};

use crate::context::Workload;
use crate::error::Origin;
use crate::source::SourceDocument;

/// SplitMix64: small, and the same for ever.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Uniform in `0..bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    pub(super) fn pick(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(u64::try_from(bound).unwrap())).unwrap()
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.pick(of.len())]
    }
}

/// The objects, by kind, namespace and name.
#[derive(Default)]
pub(super) struct World {
    objects: BTreeMap<String, Arc<Value>>,
    versions: i64,
}

impl World {
    pub(super) fn documents(&self) -> Vec<SourceDocument> {
        let one = |(name, object): (&String, &Arc<Value>)| {
            SourceDocument::object(Origin::new(name, 0), Arc::clone(object))
        };
        self.objects.iter().map(one).collect()
    }

    pub(super) fn remove(&mut self, name: &str) {
        assert!(self.objects.remove(name).is_some(), "{name}");
    }

    pub(super) fn set_generation(&mut self, name: &str, generation: i64) {
        let mut object = Value::clone(&self.objects[name]);
        object["metadata"]["generation"] = json!(generation);
        self.objects.insert(name.to_owned(), Arc::new(object));
    }

    fn put(&mut self, api: &str, kind: &str, (namespace, name): (&str, &str), rest: Value) {
        self.versions += 1;
        let mut object = rest;
        object["apiVersion"] = json!(api);
        object["kind"] = json!(kind);
        object["metadata"]["name"] = json!(name);
        // Equal generations of different versions are there as well: those of a source that
        // counts none.
        object["metadata"]["generation"] = json!(self.versions / 2);
        object["metadata"]["creationTimestamp"] = json!("2026-01-31T12:00:00Z");
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        self.objects.insert(format!("{kind}/{namespace}/{name}"), Arc::new(object));
    }

    /// A class, a Gateway that takes every route, and Services with endpoints.
    pub(super) fn put_base(&mut self) {
        self.put(GATEWAY, "GatewayClass", ("", "isthmus"), class("isthmus.io/gateway-controller"));
        let listeners = json!([{
            "name": "http", "port": 80, "protocol": "HTTP",
            "allowedRoutes": {"namespaces": {"from": "All"}},
        }]);
        let spec = json!({"spec": {"gatewayClassName": "isthmus", "listeners": listeners}});
        self.put(GATEWAY, "Gateway", ("shop", "g0"), spec);
        for name in ["s0", "s1", "s2"] {
            let spec = json!({"spec": {"ports": [{"name": "http", "port": 80}]}});
            self.put("v1", "Service", ("shop", name), spec);
            self.put_slice("shop", name, "10.0.0.1");
        }
    }

    pub(super) fn put_route(&mut self, number: u64, path: &str) {
        let rules = json!([{
            "matches": [{"path": {"type": "PathPrefix", "value": path}}],
            "backendRefs": [{"name": format!("s{}", number % 3), "port": 80}],
        }]);
        let spec = json!({"spec": {"parentRefs": [{"name": "g0"}], "rules": rules}});
        self.put(GATEWAY, "HTTPRoute", ("shop", &format!("r{number}")), spec);
    }

    pub(super) fn put_slice(&mut self, namespace: &str, service: &str, address: &str) {
        let slice = json!({
            "metadata": {"labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        });
        self.put(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            (namespace, &format!("{service}-x")),
            slice,
        );
    }

    /// One random edit of one object: it comes, changes, or goes.
    pub(super) fn edit(&mut self, random: &mut Random) {
        if random.chance(8) && !self.objects.is_empty() {
            let at = random.pick(self.objects.len());
            let name = self.objects.keys().nth(at).cloned().unwrap();
            self.remove(&name);
            return;
        }
        match random.below(24) {
            0..=12 => self.edit_traffic(random),
            13..=16 => self.edit_gateways(random),
            _ => self.edit_rest(random),
        }
    }

    /// What changes every second in a cluster.
    fn edit_traffic(&mut self, random: &mut Random) {
        let (namespace, number) = (random.one(&NAMESPACES), random.below(3));
        match random.below(13) {
            0..=6 => {
                let (kind, api) = random.one(&[
                    ("HTTPRoute", "v1"),
                    ("HTTPRoute", "v1"),
                    ("GRPCRoute", "v1"),
                    ("TCPRoute", "v1alpha2"),
                    ("TLSRoute", "v1alpha2"),
                    ("UDPRoute", "v1alpha2"),
                ]);
                let spec = json!({"spec": route(random, kind)});
                let api = format!("gateway.networking.k8s.io/{api}");
                self.put(&api, kind, (namespace, &format!("r{number}")), spec);
            }
            7..=9 => {
                let slice = slice(random, number);
                let name = format!("s{number}-{}", random.below(2));
                self.put("discovery.k8s.io/v1", "EndpointSlice", (namespace, &name), slice);
            }
            _ => self.put("v1", "Service", (namespace, &format!("s{number}")), service(random)),
        }
    }

    /// What routes attach to.
    fn edit_gateways(&mut self, random: &mut Random) {
        let (namespace, other) = (random.one(&NAMESPACES), random.one(&NAMESPACES));
        match random.below(4) {
            0..=1 => {
                let spec = json!({"spec": {
                    "gatewayClassName": random.one(&["isthmus", "isthmus", "isthmus", "other"]),
                    "allowedListeners": {"namespaces": {"from": "All"}},
                    "listeners": listeners(random),
                }});
                self.put(GATEWAY, "Gateway", (namespace, &format!("g{}", random.below(2))), spec);
            }
            2 => {
                let parent = json!({"name": "g0", "namespace": other});
                let spec = json!({"spec": {"parentRef": parent, "listeners": listeners(random)}});
                self.put(GATEWAY, "ListenerSet", (namespace, "l0"), spec);
            }
            _ => {
                let (name, owner) = random.one(&[
                    ("isthmus", "isthmus.io/gateway-controller"),
                    ("other", "example.com/other"),
                ]);
                self.put(GATEWAY, "GatewayClass", ("", name), class(owner));
            }
        }
    }

    /// What the others refer to, and policies.
    fn edit_rest(&mut self, random: &mut Random) {
        let (namespace, other) = (random.one(&NAMESPACES), random.one(&NAMESPACES));
        let number = random.below(3);
        match random.below(9) {
            // Their labels decide which routes some listeners allow.
            0..=1 => {
                let labels = json!({"metadata": {"labels": {"team": random.one(&["a", "b"])}}});
                self.put("v1", "Namespace", ("", namespace), labels);
            }
            2..=3 => {
                let kind = random.one(&["HTTPRoute", "GRPCRoute", "TCPRoute", "Gateway"]);
                let to = if kind == "Gateway" { "Secret" } else { "Service" };
                let from =
                    json!({"group": "gateway.networking.k8s.io", "kind": kind, "namespace": other});
                let spec = json!({"spec": {"from": [from], "to": [{"group": "", "kind": to}]}});
                let api = "gateway.networking.k8s.io/v1beta1";
                self.put(api, "ReferenceGrant", (namespace, &format!("x{number}")), spec);
            }
            4 => {
                let refs = json!([{"group": "", "kind": "ConfigMap", "name": "ca"}]);
                let spec = json!({"spec": {
                    "targetRefs": [{"group": "", "kind": "Service", "name": format!("s{number}")}],
                    "validation": {"hostname": "a.example", "caCertificateRefs": refs},
                }});
                self.put(GATEWAY, "BackendTLSPolicy", (namespace, &format!("p{number}")), spec);
            }
            5..=6 => {
                // One of another type can be used by no listener.
                let pair = json!({"tls.crt": CERTIFICATE, "tls.key": KEY});
                let of = random.one(&["kubernetes.io/tls", "kubernetes.io/tls", "Opaque"]);
                let secret = json!({"type": of, "stringData": pair});
                self.put("v1", "Secret", (namespace, "cert"), secret);
            }
            7 => {
                let text = random.one(&[CERTIFICATE, "nothing"]);
                self.put("v1", "ConfigMap", (namespace, "ca"), json!({"data": {"ca.crt": text}}));
            }
            _ => {
                let spec = json!({"spec": {"mtls": {"mode": random.one(&["STRICT", "DISABLE"])}}});
                self.put(
                    "security.istio.io/v1",
                    "PeerAuthentication",
                    (namespace, "default"),
                    spec,
                );
            }
        }
    }
}

/// Workloads at some of the addresses of endpoints.
pub(super) fn workloads(random: &mut Random) -> Vec<Workload> {
    let one = |n: u64| Workload {
        namespace: Label::new("shop").unwrap(),
        name: Label::new(&format!("w{n}")).unwrap(),
        service_account: Label::new("web").unwrap(),
        labels: BTreeMap::new(),
        address: format!("10.0.0.{n}").parse().unwrap(),
        ports: Vec::new(),
        mesh: format!("10.0.0.{n}:15008").parse().unwrap(),
        locality: Locality::new("r1", "z1"),
    };
    (0..random.below(4)).map(one).collect()
}

/// Ports of an import.
pub(super) fn ports(random: &mut Random) -> Vec<ServicePort> {
    let number = random.one(&[80, 80, 81]);
    let (transport, app) = (Transport::Tcp, AppProtocol::Http);
    vec![ServicePort { name: None, number, transport, app, app_protocol: None }]
}

fn class(controller: &str) -> Value {
    json!({"spec": {"controllerName": controller}})
}

fn listeners(random: &mut Random) -> Value {
    let from = match random.below(4) {
        0 => json!({"from": "Same"}),
        1..=2 => json!({"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}),
        _ => json!({"from": "All"}),
    };
    let mut listeners = vec![json!({
        "name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": from},
    })];
    if random.chance(60) {
        listeners.push(json!({
            "name": "https", "port": 443, "protocol": "HTTPS",
            "tls": {"certificateRefs": [{"name": "cert"}]},
        }));
    }
    if random.chance(30) {
        listeners[0]["hostname"] = json!("*.example.com");
    }
    if random.chance(60) {
        let tcp = json!({"name": "tcp", "port": 9000 + random.below(2), "protocol": "TCP"});
        let udp = json!({"name": "udp", "port": 53, "protocol": "UDP"});
        let mode = random.one(&["Passthrough", "Terminate"]);
        let tls = json!({"name": "tls", "port": 8443, "protocol": "TLS", "tls": {
            "mode": mode, "certificateRefs": [{"name": "cert"}],
        }});
        listeners.extend([tcp, udp, tls]);
    }
    Value::Array(listeners)
}

fn service(random: &mut Random) -> Value {
    let ports = json!([
        {"name": "http", "port": random.one(&[80, 80, 81])},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]);
    match random.below(6) {
        0 => json!({"spec": {"type": "ExternalName", "externalName": "a.b", "ports": ports}}),
        1 => json!({"spec": {"clusterIP": "None", "ports": ports}}),
        n => json!({"spec": {"clusterIP": format!("10.96.0.{n}"), "ports": ports}}),
    }
}

fn slice(random: &mut Random, number: u64) -> Value {
    let endpoint = |n: u64| json!({"addresses": [format!("10.0.0.{n}")], "conditions": {"ready": n.is_multiple_of(2)}});
    json!({
        "metadata": {"labels": {"kubernetes.io/service-name": format!("s{number}")}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": (0..random.below(5)).map(endpoint).collect::<Vec<_>>(),
    })
}

fn route(random: &mut Random, kind: &str) -> Value {
    let mut parents = Vec::new();
    for _ in 0..=random.below(2) {
        let number = random.below(2);
        parents.push(match random.below(6) {
            0 => json!({"name": "l0", "kind": "ListenerSet", "namespace": random.one(&NAMESPACES)}),
            1 => json!({"name": format!("s{number}"), "kind": "Service", "group": ""}),
            _ => json!({"name": format!("g{number}"), "namespace": random.one(&NAMESPACES)}),
        });
    }
    // One parent twice is not valid.
    parents.dedup_by_key(|parent| parent.to_string());
    let mut backends = Vec::new();
    for _ in 0..=random.below(2) {
        let name = format!("s{}", random.below(3));
        let port = if kind == "UDPRoute" { 53 } else { 80 };
        backends.push(match random.below(5) {
            0 => json!({"kind": "Bucket", "group": "x.io", "name": "b"}),
            1 => json!({
                "kind": "ServiceImport", "group": "multicluster.x-k8s.io", "name": name, "port": port,
            }),
            2 => json!({"name": name, "port": port, "namespace": random.one(&NAMESPACES)}),
            _ => json!({"name": name, "port": port}),
        });
    }
    let mut rule = json!({"backendRefs": backends});
    if kind == "HTTPRoute" && random.chance(30) {
        let target = json!({"name": format!("s{}", random.below(3)), "port": 80});
        rule["filters"] = json!([
            {"type": "RequestMirror", "requestMirror": {"backendRef": target}},
        ]);
    }
    let mut spec = json!({"parentRefs": parents, "rules": [rule]});
    if kind == "TLSRoute" || (kind.len() == "HTTPRoute".len() && random.chance(30)) {
        spec["hostnames"] = json!([random.one(&["a.example.com", "b.example.org"])]);
    }
    if matches!(kind, "TCPRoute" | "UDPRoute") {
        spec.as_object_mut().unwrap().remove("hostnames");
    }
    spec
}

const NAMESPACES: [&str; 3] = ["shop", "shop", "back"];
const GATEWAY: &str = "gateway.networking.k8s.io/v1";
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
