//! Clusters as values: what a server, a controller and a link do, without any of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use isthmus_config::{ClusterSetIps, Context, Index, Origin, SourceDocument, Translator, Unmeshed};
use isthmus_federation::mcs::VipPool;
use isthmus_federation::plan::inputs::{EASTWEST_ACCOUNT, system_identity};
use isthmus_federation::plan::{
    EndpointSecret, Inputs, LinkRules, OwnCluster, PeerView, configured, plan as plan_federation,
};
use isthmus_federation::proto::{Entry, EntryKey, ServiceName};
use isthmus_federation::{Configuration, Decided, LeaseStatus, PeerState};
use isthmus_model::{ClusterId, Label, LinkState, Locality, TrustDomain};
use serde_json::{Value, json};

use crate::apply::{Action, ObjectId, plan, plan_status};
use crate::mcs::{self, McsInputs, OWN_CONDITIONS};
use crate::source::{NodeState, PodState};

/// One cluster with its server.
pub(super) struct Cluster {
    id: ClusterId,
    trust_domain: TrustDomain,
    /// The user's objects.
    pub(super) documents: Vec<Value>,
    /// Our own objects.
    pub(super) managed: Vec<Value>,
    pub(super) pods: Vec<PodState>,
    pub(super) decided: Option<Decided>,
    families: Vec<&'static str>,
    index: Index,
    published: BTreeMap<ClusterId, BTreeMap<EntryKey, Arc<Entry>>>,
    given: u8,
}

impl Cluster {
    /// A cluster `a` or `b` that is linked with the other; the namespace `shop` exists.
    pub(super) fn new(id: &str) -> Self {
        let mut cluster = Self {
            id: ClusterId::new(id).unwrap(),
            trust_domain: TrustDomain::new(&format!("{id}.test")).unwrap(),
            documents: Vec::new(),
            managed: Vec::new(),
            pods: vec![gateway(0, true), gateway(1, false)],
            decided: None,
            families: vec!["IPv4", "IPv6"],
            index: Index::new(),
            published: BTreeMap::new(),
            given: 0,
        };
        let other = if id == "a" { "b" } else { "a" };
        cluster.link(other, other, &format!("{other}.test"), 1);
        cluster
            .user(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}));
        cluster
    }

    pub(super) fn link(&mut self, name: &str, cluster: &str, trust_domain: &str, created: u8) {
        let all = json!([{"namespaces": ["*"], "names": ["*"]}]);
        self.user(json!({
            "apiVersion": "isthmus.io/v1alpha1", "kind": "ClusterLink",
            "metadata": {"name": name, "generation": 1,
                "creationTimestamp": format!("2026-01-01T00:00:0{created}Z")},
            "spec": {"cluster": cluster, "trustDomain": trust_domain, "import": all, "export": all,
                "bundle": {"sha256": "ab".repeat(32)}},
        }));
    }

    pub(super) fn only_ipv4(&mut self) {
        self.families = vec!["IPv4"];
        for pod in &mut self.pods {
            pod.addresses.retain(std::net::IpAddr::is_ipv4);
        }
    }

    pub(super) fn user(&mut self, object: Value) {
        self.documents.push(object);
    }

    pub(super) fn export(&mut self, created: u8, spec: Value) {
        self.user(json!({
            "apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport",
            "metadata": {"namespace": "shop", "name": "hello", "generation": 1,
                "creationTimestamp": format!("2026-01-01T00:00:0{created}Z"),
                "labels": {"dummy-svcexport": "dummy"}},
            "spec": spec,
        }));
    }

    pub(super) fn unexport(&mut self) {
        self.documents.retain(|object| object["kind"] != "ServiceExport");
    }

    pub(super) fn document(&self, kind: &str, name: &str) -> Option<&Value> {
        let mut found = self.documents.iter();
        found.find(|it| it["kind"] == kind && it["metadata"]["name"] == name)
    }

    pub(super) fn export_object(&self) -> Option<&Value> {
        self.document("ServiceExport", "hello")
    }

    pub(super) fn import(&self) -> Option<&Value> {
        self.of("ServiceImport").into_iter().next()
    }

    /// Our own objects of a kind.
    pub(super) fn of(&self, kind: &str) -> Vec<&Value> {
        self.managed.iter().filter(|object| object["kind"] == kind).collect()
    }

    pub(super) fn slice(&self, source: &str, family: &str) -> &Value {
        let all = self.of("EndpointSlice").into_iter();
        let label = "multicluster.kubernetes.io/source-cluster";
        let mut found = all.filter(|slice| {
            slice["metadata"]["labels"][label] == source && slice["addressType"] == family
        });
        found.next().unwrap_or_else(|| panic!("no slice of {source} for {family}"))
    }

    /// One decision of the controller, from what the others published last.
    fn decide(&mut self, others: &BTreeMap<ClusterId, BTreeMap<EntryKey, Arc<Entry>>>) {
        let all = self.documents.iter().chain(&self.managed);
        let all = all.filter(|object| object["kind"] != "ServiceImport");
        let documents: Vec<_> = (0..)
            .zip(all)
            .map(|(n, object)| SourceDocument::object(Origin::new("watch", n), object.clone()))
            .collect();
        self.index.apply(&documents, 0);
        let mut context = Context::new(self.id.clone(), self.trust_domain.clone());
        context.clusterset_ips = ClusterSetIps::Given(mcs::clusterset_ips(&self.managed));
        context.unmeshed = Some(Unmeshed {
            server: system_identity(&self.trust_domain, EASTWEST_ACCOUNT),
            ports: 20_000..=29_999,
            given: mcs::given_ports(&self.managed),
        });
        let configuration = Configuration { objects: Arc::clone(self.index.objects()), context };
        let own = OwnCluster {
            cluster: self.id.clone(),
            trust_domain: self.trust_domain.clone(),
            locality: Locality::default(),
            federation_listen: "127.0.0.1:9000".parse().unwrap(),
            version: "1".into(),
        };
        let known = configured(&configuration, &own);
        let view = |(id, entries): (&ClusterId, _)| {
            (id.clone(), PeerView { entries, lease_valid: true, link: LinkState::default() })
        };
        let decided = plan_federation(
            &configuration,
            &Inputs {
                own: &own,
                exports: &known.exports,
                namespaces: &known.namespaces,
                properties: &known.properties,
                links: &known.links,
                peers: &others.iter().map(view).collect(),
                own_bundle: None,
                bundles: &BTreeMap::new(),
                secret: &EndpointSecret::new(&[7; 32]),
                vips: &VipPool::new("127.64.0.0/16".parse().unwrap(), []),
                clusterset_ips: &configuration.context.clusterset_ips,
                unmeshed: configuration.context.unmeshed.as_ref(),
                unmeshed_ports: &BTreeMap::new(),
            },
            &mut Translator::default(),
        );
        self.published.clone_from(&decided.federated.publications);
        self.decided = Some(Decided {
            configuration: Arc::new(configuration),
            plan: Arc::new(decided),
            peers: known.links.iter().map(|(id, link)| peer(id, link)).collect(),
            refused_links: known.refused_links,
        });
    }

    /// Writes what follows; how many writes that were.
    fn write(&mut self) -> usize {
        let nodes = [NodeState {
            name: "n1".into(),
            region: "r".into(),
            zone: "z1".into(),
            ..NodeState::default()
        }];
        let desired = mcs::desired(&McsInputs {
            decided: self.decided.as_ref().unwrap(),
            pods: &self.pods,
            nodes: &nodes,
            observed: &self.managed.iter().collect::<Vec<_>>(),
            documents: &self.documents.iter().collect::<Vec<_>>(),
        });
        let writes = plan(&desired.objects, &self.managed).unwrap();
        let all: Vec<Value> = self.documents.iter().chain(&self.managed).cloned().collect();
        let statuses = plan_status(&desired.statuses, &all, OWN_CONDITIONS, "now").unwrap();
        let actions: Vec<Action> = writes.actions.into_iter().chain(statuses.actions).collect();
        for action in &actions {
            self.serve(action);
        }
        actions.len()
    }

    /// What a server makes of a write.
    fn serve(&mut self, action: &Action) {
        let is_it = |object: &Value| ObjectId::of(object).unwrap() == *action.id();
        match action {
            Action::Apply { body, .. } => {
                let mut body = body.clone();
                let before = self.managed.iter().find(|object| is_it(object)).cloned();
                let before = before.unwrap_or_default();
                body["status"] = before["status"].clone();
                body["metadata"]["generation"] = json!(1);
                if body["kind"] == "Service" {
                    self.give_address(&mut body, &before);
                }
                self.managed.retain(|object| !is_it(object));
                self.managed.push(body);
            }
            Action::ApplyStatus { body, .. } => {
                let mut all = self.documents.iter_mut().chain(&mut self.managed);
                if let Some(object) = all.find(|object| is_it(object)) {
                    object["status"] = body["status"].clone();
                }
            }
            Action::Delete { .. } => self.managed.retain(|object| !is_it(object)),
        }
    }

    fn give_address(&mut self, service: &mut Value, before: &Value) {
        let spec = &mut service["spec"];
        let names = spec["ports"].as_array().unwrap().iter().map(|port| port["name"].as_str());
        let names: Vec<_> = names.collect();
        assert!(names.iter().all(|name| name.is_some_and(|n| !n.is_empty())) || names == [None]);
        if spec["ipFamilies"].is_null() {
            spec["ipFamilies"] = json!(self.families);
        }
        let families: Vec<String> = serde_json::from_value(spec["ipFamilies"].clone()).unwrap();
        assert!(families.iter().all(|family| self.families.contains(&family.as_str())));
        if !before.is_null() {
            assert_eq!(spec["ipFamilies"][0], before["spec"]["ipFamilies"][0], "is immutable");
            spec["clusterIPs"] = before["spec"]["clusterIPs"].clone();
            return;
        }
        self.given += 1;
        let address = |family: &String| match family.as_str() {
            "IPv4" => format!("10.96.0.{}", self.given),
            _ => format!("fd96::{}", self.given),
        };
        spec["clusterIPs"] = families.iter().map(address).map(Value::from).collect();
    }
}

/// Lets the clusters decide, write and publish until nothing is written any more.
pub(super) fn settle(clusters: &mut [Cluster; 2]) {
    for _ in 0..ROUNDS_MAX {
        let mut writes = 0;
        for at in 0..clusters.len() {
            let own = clusters[at].id.clone();
            let others = clusters.iter().filter(|other| other.id != own);
            let seen = others.map(|other| {
                (other.id.clone(), other.published.get(&own).cloned().unwrap_or_default())
            });
            let seen = seen.collect();
            let before = clusters[at].published.clone();
            clusters[at].decide(&seen);
            writes += clusters[at].write() + usize::from(clusters[at].published != before);
        }
        if writes == 0 {
            return;
        }
    }
    panic!("the clusters write for ever");
}

/// Lets a cluster decide and write as a controller does that begins with nothing and has
/// not heard the other cluster yet.
pub(super) fn begin_anew(cluster: &mut Cluster) {
    for _ in 0..ROUNDS_MAX {
        cluster.decide(&BTreeMap::new());
        for peer in &mut cluster.decided.as_mut().unwrap().peers {
            (peer.lease, peer.is_known) = (LeaseStatus::Never, false);
        }
        if cluster.write() == 0 {
            return;
        }
    }
    panic!("the cluster writes for ever");
}

/// The conditions of an object in short: `Valid=True/Valid`.
pub(super) fn types(object: &Value) -> Vec<String> {
    let text = |it: &Value, field: &str| it[field].as_str().unwrap().to_owned();
    let short =
        |it: &Value| format!("{}={}/{}", text(it, "type"), text(it, "status"), text(it, "reason"));
    object["status"]["conditions"].as_array().unwrap().iter().map(short).collect()
}

/// The Service of the conformance suite, as a server has it.
pub(super) fn hello() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": "hello", "labels": {"dummy-svc": "dummy"},
            "annotations": {"dummy-svc": "dummy"}},
        "spec": {
            "type": "ClusterIP", "selector": {"app": "hello"},
            "ports": [
                {"name": "tcp", "port": 42, "protocol": "TCP", "targetPort": 42},
                {"name": "udp", "port": 42, "protocol": "UDP", "targetPort": 42},
            ],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}},
            "internalTrafficPolicy": "Cluster", "trafficDistribution": "PreferClose",
            "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"],
            "clusterIP": "10.96.9.9", "clusterIPs": ["10.96.9.9", "fd96::99"],
        },
    })
}

pub(super) fn service_name() -> ServiceName {
    ServiceName::new(Label::new("shop").unwrap(), Label::new("hello").unwrap())
}

fn gateway(n: u8, is_ready: bool) -> PodState {
    PodState {
        namespace: "isthmus-system".into(),
        name: format!("isthmus-eastwest-{n}"),
        uid: format!("u{n}"),
        service_account: "isthmus-eastwest".into(),
        node: "n1".into(),
        addresses: vec![
            format!("10.0.0.{}", n + 1).parse().unwrap(),
            format!("fd00::{}", n + 1).parse().unwrap(),
        ],
        is_ready,
        ..PodState::default()
    }
}

fn peer(cluster: &ClusterId, link: &LinkRules) -> PeerState {
    PeerState {
        cluster: cluster.clone(),
        trust_domain: link.trust_domain.clone(),
        lease: LeaseStatus::Valid,
        transport: None,
        reading: true,
        writing: true,
        is_known: true,
        services_imported: 0,
        services_exported: 0,
        holding: false,
        last_error: None,
    }
}

const ROUNDS_MAX: usize = 20;
