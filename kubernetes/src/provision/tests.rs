use std::sync::Arc;

use isthmus_config::{Index, SourceDocument};

use super::*;

const CLASS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: isthmus}
spec: {controllerName: isthmus.io/gateway-controller}
";

const SHARED: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: isthmus}
spec:
  controllerName: isthmus.io/gateway-controller
  parametersRef: {group: isthmus.io, kind: GatewayParameters, name: all, namespace: edge}
---
apiVersion: isthmus.io/v1alpha1
kind: GatewayParameters
metadata: {name: all, namespace: edge}
spec: {mode: Shared}
";

const HTTP: &str = "[{name: a, port: 80, protocol: HTTP}]";

fn gateway(name: &str, listeners: &str, more: &str) -> String {
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: shop}}
spec:
  gatewayClassName: isthmus
  listeners: {listeners}
{more}
"
    )
}

/// A Gateway `shop/web` with parameters of its own.
fn with_parameters(spec: &str) -> String {
    let more = "  infrastructure: {parametersRef: {group: isthmus.io, kind: GatewayParameters, \
                name: own}}";
    format!(
        "{CLASS}{}---\napiVersion: isthmus.io/v1alpha1\nkind: GatewayParameters\n\
         metadata: {{name: own, namespace: shop}}\nspec: {spec}\n",
        gateway("web", HTTP, more)
    )
}

struct World {
    objects: Arc<Objects>,
    uids: BTreeMap<ObjectRef, String>,
    settings: ProvisionSettings,
    observed: Vec<Value>,
    nodes: Vec<NodeState>,
    pods: Vec<PodState>,
}

impl World {
    fn new(text: &str) -> Self {
        let mut index = Index::new();
        let outcome = index.apply(&SourceDocument::split("t.yaml", text), 7);
        assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
        let objects = Arc::clone(index.objects());
        let uids = objects.references().into_iter();
        let uids = uids.map(|reference| (reference.clone(), format!("uid of {reference}")));
        Self {
            uids: uids.collect(),
            settings: settings(),
            observed: Vec::new(),
            nodes: Vec::new(),
            pods: Vec::new(),
            objects,
        }
    }

    fn run(&self) -> Provisioned {
        desired(&ProvisionInputs {
            objects: &self.objects,
            uids: &self.uids,
            settings: &self.settings,
            observed: &self.observed.iter().collect::<Vec<_>>(),
            nodes: &self.nodes,
            pods: &self.pods,
        })
    }

    fn get(&self, kind: &str) -> Option<Value> {
        let all = self.run().objects.into_iter();
        let mut all = all.filter(|object| {
            object["kind"] == kind && object["metadata"]["name"] != ROOTS_CONFIG_MAP
        });
        let found = all.next();
        assert!(all.next().is_none(), "one {kind} at most");
        found
    }

    fn place(&self, name: &str) -> GatewayPlace {
        self.run().places.remove(&ObjectKey::new("shop", name).unwrap()).unwrap()
    }

    /// The place of `web` when the server has its objects with these statuses.
    fn place_with(&mut self, service: Value, deployment: Value) -> GatewayPlace {
        let observe = |kind: &str, more: Value| {
            let mut object = self.get(kind).unwrap();
            for (key, value) in more.as_object().unwrap() {
                object[key] = value.clone();
            }
            object
        };
        self.observed = vec![observe("Service", service), observe("Deployment", deployment)];
        self.place("web")
    }
}

fn settings() -> ProvisionSettings {
    ProvisionSettings {
        image: "isthmus:dev".to_owned(),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        cluster: ClusterId::new("aws").unwrap(),
        clusterset: ObjectName::new("demo").unwrap(),
        trust_domain: TrustDomain::new("aws.demo").unwrap(),
        region: "eu".to_owned(),
        zone: String::new(),
        authority: "isthmus-controller.isthmus-system.svc:15010".to_owned(),
        discovery: "isthmus-controller.isthmus-system.svc:15012".to_owned(),
        eastwest: None,
        roots_pem: "PEM".to_owned(),
        otlp: None,
        log_filter: "info".to_owned(),
        bind: "::".parse().unwrap(),
    }
}

fn ingress(ips: &[&str]) -> Value {
    let ips: Vec<_> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
    json!({ "status": { "loadBalancer": { "ingress": ips } } })
}

fn available(pods: u64) -> Value {
    json!({ "status": { "availableReplicas": pods } })
}

fn reason(place: &GatewayPlace) -> Option<&'static str> {
    place.problem.as_ref().map(|problem| problem.reason)
}

fn addresses(place: &GatewayPlace) -> Vec<String> {
    place.addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn a_gateway_gets_objects_of_one_name_that_it_owns() {
    let world = World::new(&(CLASS.to_owned() + &gateway("web", HTTP, "")));
    let objects = world.run().objects;
    let id = |object: &Value| {
        let text = |pointer| object.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
    };
    let ids: Vec<_> = objects.iter().map(id).collect();
    let expected = [
        "ConfigMap isthmus-system/isthmus-roots",
        "ConfigMap shop/isthmus-roots",
        "ServiceAccount shop/web-isthmus",
        "ConfigMap shop/web-isthmus",
        "Service shop/web-isthmus",
        "Deployment shop/web-isthmus",
    ];
    assert_eq!(ids, expected);
    assert_eq!(objects[1]["data"][ROOTS_KEY], "PEM");
    assert!(objects[1]["metadata"].get("ownerReferences").is_none());
    for object in &objects[2..] {
        let owner = &object["metadata"]["ownerReferences"][0];
        assert_eq!(owner["apiVersion"], "gateway.networking.k8s.io/v1");
        assert_eq!((&owner["kind"], &owner["name"]), (&json!("Gateway"), &json!("web")));
        assert_eq!(owner["uid"], "uid of Gateway shop/web");
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["gateway.networking.k8s.io/gateway-name"], "web");
        assert_eq!(labels["gateway.networking.k8s.io/gateway-class-name"], "isthmus");
    }
    let plan = crate::apply::plan(&objects, &[]).unwrap();
    assert_eq!(plan.actions.len(), objects.len());
}

#[test]
fn what_is_written_is_not_written_again() {
    let world = World::new(&(CLASS.to_owned() + &gateway("web", HTTP, "")));
    let objects = world.run().objects;
    let actions = crate::apply::plan(&objects, &[]).unwrap().actions;
    let body = |action: &crate::Action| match action {
        crate::Action::Apply { body, .. } => body.clone(),
        crate::Action::ApplyStatus { .. } | crate::Action::Delete { .. } => panic!("{action:?}"),
    };
    let observed: Vec<_> = actions.iter().map(body).collect();
    assert_eq!(crate::apply::plan(&objects, &observed).unwrap().actions, []);
}

#[test]
fn a_gateway_of_others_or_in_its_deletion_gets_nothing() {
    let other = CLASS.replace("isthmus.io/gateway-controller", "x.io/other");
    assert_eq!(World::new(&(other + &gateway("web", HTTP, ""))).get("Deployment"), None);
    let mut world = World::new(&(CLASS.to_owned() + &gateway("web", HTTP, "")));
    world.uids.clear();
    assert_eq!(world.get("Deployment"), None);
    let roots = world.run().objects;
    assert_eq!((roots.len(), &roots[0]["metadata"]["namespace"]), (1, &json!("isthmus-system")));
}

#[test]
fn uids_are_read_from_what_the_server_has() {
    let object = |kind: &str, more: Value| {
        let mut object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
            "metadata": { "namespace": "shop", "name": "web", "uid": "u1" },
        });
        for (key, value) in more.as_object().unwrap() {
            object["metadata"][key] = value.clone();
        }
        object
    };
    let found = uids(&[object("Gateway", json!({})), object("HTTPRoute", json!({}))]);
    let key = ObjectKey::new("shop", "web").unwrap();
    let expected = [(ObjectRef::namespaced(Kind::Gateway, &key), "u1".to_owned())];
    assert_eq!(found, expected.into());
    let ending = json!({ "deletionTimestamp": "2026-01-31T12:00:00Z" });
    assert!(uids(&[object("Gateway", ending)]).is_empty());
}

#[test]
fn ports_of_the_gateway_and_of_allowed_sets_are_merged() {
    let listeners = "[{name: a, port: 80, protocol: HTTP}, \
                     {name: b, port: 80, protocol: HTTP, hostname: b.test}, \
                     {name: c, port: 53, protocol: TCP}, {name: d, port: 53, protocol: UDP}, \
                     {name: e, port: 99, protocol: x.io/y}]";
    let set = "---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: shop}
spec: {parentRef: {name: web}, listeners: [{name: a, port: 81, protocol: HTTP}]}
";
    let more = "  allowedListeners: {namespaces: {from: Same}}";
    let service = World::new(&(CLASS.to_owned() + &gateway("web", listeners, more) + set));
    let service = service.get("Service").unwrap();
    let ports = service["spec"]["ports"].as_array().unwrap();
    let names: Vec<_> = ports.iter().map(|port| port["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["tcp-53", "udp-53", "tcp-80", "tcp-81"]);
    assert_eq!(
        ports[1],
        json!({
            "name": "udp-53", "port": 53, "targetPort": 53, "protocol": "UDP",
        })
    );
    assert_eq!(service["spec"]["type"], "LoadBalancer");
    assert_eq!(service["spec"]["ipFamilyPolicy"], "PreferDualStack");
}

#[test]
fn without_a_port_there_is_no_service_and_the_place_says_so() {
    let unknown = "[{name: a, port: 80, protocol: x.io/y}]";
    let world = World::new(&(CLASS.to_owned() + &gateway("web", unknown, "")));
    assert_eq!(world.get("Service"), None);
    assert!(world.get("Deployment").is_some());
    assert_eq!(reason(&world.place("web")), Some("Invalid"));
    let reserved = "[{name: a, port: 15021, protocol: HTTP}]";
    let world = World::new(&(CLASS.to_owned() + &gateway("web", reserved, "")));
    assert!(world.place("web").problem.unwrap().message.starts_with("port 15021 is used"));
}

#[test]
fn labels_of_the_infrastructure_go_everywhere_and_never_over_our_own() {
    let more = "  infrastructure:
    annotations: {key1: value1}
    labels: {key2: value2, app.kubernetes.io/name: mine}";
    let world = World::new(&(CLASS.to_owned() + &gateway("web", HTTP, more)));
    let deployment = world.get("Deployment").unwrap();
    let selector = &deployment["spec"]["selector"]["matchLabels"];
    let template = &deployment["spec"]["template"];
    let all = [&world.get("ServiceAccount").unwrap(), &world.get("Service").unwrap(), template];
    for object in [&deployment].into_iter().chain(all) {
        let metadata = &object["metadata"];
        assert_eq!(metadata["annotations"]["key1"], "value1");
        assert_eq!(metadata["labels"]["key2"], "value2");
        for (key, value) in selector.as_object().unwrap() {
            assert_eq!(&metadata["labels"][key], value);
        }
    }
    assert_eq!(world.get("Service").unwrap()["spec"]["selector"], *selector);
}

#[test]
fn parameters_shape_service_and_pods() {
    let world = World::new(&with_parameters(
        "
  replicas: 3
  workers: 4
  service: {type: LoadBalancer, loadBalancerClass: x.io/y, externalTrafficPolicy: Local,
    annotations: {a: b}, labels: {c: d}}
  pod: {resources: {limits: {memory: 1Gi}}, nodeSelector: {disk: ssd}, priorityClassName: high,
    tolerations: [{operator: Exists}], annotations: {e: f}, labels: {g: h}}",
    ));
    let service = world.get("Service").unwrap();
    assert_eq!(service["spec"]["loadBalancerClass"], "x.io/y");
    assert_eq!(service["spec"]["externalTrafficPolicy"], "Local");
    assert_eq!(service["metadata"]["annotations"], json!({ "a": "b" }));
    assert_eq!(service["metadata"]["labels"]["c"], "d");
    let deployment = world.get("Deployment").unwrap();
    assert_eq!(deployment["spec"]["replicas"], 3);
    let template = &deployment["spec"]["template"];
    assert_eq!(template["metadata"]["labels"]["g"], "h");
    assert_eq!(template["metadata"]["annotations"]["e"], "f");
    let pod = &template["spec"];
    assert_eq!(pod["containers"][0]["resources"], json!({ "limits": { "memory": "1Gi" } }));
    assert_eq!(pod["nodeSelector"], json!({ "disk": "ssd" }));
    assert_eq!(pod["priorityClassName"], "high");
    assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]));
    assert_eq!(world.get("PodDisruptionBudget").unwrap()["spec"]["maxUnavailable"], 1);
    let settings = world.get("ConfigMap").unwrap();
    assert!(settings["data"]["cluster.yaml"].as_str().unwrap().contains("\nworkers: 4\n"));
}

#[test]
fn a_pod_has_no_rights_and_finds_its_files() {
    let world = World::new(&(CLASS.to_owned() + &gateway("web", HTTP, "")));
    let deployment = world.get("Deployment").unwrap();
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], "web-isthmus");
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let container = &pod["containers"][0];
    assert_eq!(container["args"], json!(["gateway", "-f", "/etc/isthmus/cluster.yaml"]));
    assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/healthz/ready");
    let mounts = container["volumeMounts"].as_array().unwrap();
    let volumes = pod["volumes"].as_array().unwrap();
    let names = |list: &[Value]| -> Vec<Value> { list.iter().map(|v| v["name"].clone()).collect() };
    assert_eq!(names(mounts), names(volumes));
    let sources = &volumes[0]["projected"]["sources"];
    assert_eq!(sources[0]["configMap"]["name"], "web-isthmus");
    assert_eq!(sources[1]["downwardAPI"]["items"][0]["path"], "pod/labels");
    let token = &volumes[1]["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(token["audience"], crate::token_review::AUDIENCE);
}

#[test]
fn settings_roll_the_pods_and_listeners_and_roots_do_not() {
    let template = |world: &World| world.get("Deployment").unwrap()["spec"]["template"].clone();
    let mut world = World::new(&(CLASS.to_owned() + &gateway("web", HTTP, "")));
    let before = template(&world);
    world.settings.roots_pem = "OTHER".to_owned();
    let more = "[{name: a, port: 80, protocol: HTTP}, {name: b, port: 81, protocol: HTTP}]";
    world.objects = World::new(&(CLASS.to_owned() + &gateway("web", more, ""))).objects;
    assert_eq!(template(&world), before);
    world.settings.eastwest = Some("10.96.0.7:15008".to_owned());
    assert_ne!(template(&world), before);
}

#[test]
fn the_settings_are_those_of_a_gateway_and_of_this_account() {
    let world = World::new(&(CLASS.to_owned() + &gateway("web", HTTP, "")));
    let settings = world.get("ConfigMap").unwrap();
    let text = settings["data"]["cluster.yaml"].as_str().unwrap();
    for line in [
        "cluster: \"aws\"",
        "trustDomain: \"aws.demo\"",
        "ingress:\n  enabled: true\n  address: \"::\"",
        "controller:\n  enabled: false",
        "  workload:\n    namespace: \"shop\"\n    serviceAccount: \"web-isthmus\"",
        "  eastwest: null",
        "  ready: \"[::]:15021\"",
        "  delay: 5s",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn a_gateway_is_where_its_service_is_and_has_the_pods_of_its_deployment() {
    let mut world = World::new(&(CLASS.to_owned() + &gateway("web", HTTP, "")));
    assert_eq!(reason(&world.place("web")), Some("Pending"));
    let place = world.place_with(json!({}), available(2));
    assert_eq!(reason(&place), Some("AddressNotAssigned"));
    let place = world.place_with(ingress(&["192.0.2.1", "2001:db8::1"]), available(2));
    assert_eq!(addresses(&place), ["192.0.2.1", "2001:db8::1"]);
    assert_eq!((place.pods_available, reason(&place)), (2, None));
    let name = json!({ "status": { "loadBalancer": { "ingress": [{ "hostname": "lb.test" }] } } });
    let place = world.place_with(name, available(1));
    assert_eq!(place.addresses, [PlaceAddress::Hostname("lb.test".to_owned())]);
    let place = world.place_with(ingress(&["192.0.2.1"]), json!({}));
    assert_eq!((place.pods_available, reason(&place)), (0, Some("Pending")));
    let failed = json!({ "status": { "conditions": [
        { "type": "ReplicaFailure", "status": "True", "message": "exceeded quota" },
    ] } });
    let place = world.place_with(ingress(&["192.0.2.1"]), failed);
    assert_eq!(reason(&place), Some("NoResources"));
    assert!(place.problem.unwrap().message.ends_with("exceeded quota"));
}

#[test]
fn inside_the_cluster_and_at_nodes_the_place_is_another() {
    let cluster_ips = || json!({ "spec": { "clusterIPs": ["10.96.0.9"] } });
    let mut world = World::new(&with_parameters("{service: {type: ClusterIP}}"));
    assert_eq!(addresses(&world.place_with(cluster_ips(), available(1))), ["10.96.0.9"]);
    let mut world = World::new(&with_parameters("{service: {type: NodePort}}"));
    assert_eq!(addresses(&world.place_with(cluster_ips(), available(1))), ["10.96.0.9"]);
    world.nodes = vec![node("n1", true, &[])];
    assert_eq!(addresses(&world.place_with(cluster_ips(), available(1))), ["10.96.0.9"]);
    world.nodes = vec![node("n1", true, &["198.51.100.7"])];
    assert_eq!(addresses(&world.place_with(cluster_ips(), available(1))), ["198.51.100.7"]);
}

fn node(name: &str, is_ready: bool, addresses: &[&str]) -> NodeState {
    NodeState {
        name: name.to_owned(),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        is_ready,
        ..NodeState::default()
    }
}

#[test]
fn ready_nodes_are_named_once_each_and_in_families_of_the_service() {
    let mut world = World::new(&with_parameters("{service: {type: NodePort}}"));
    world.nodes = vec![
        node("c", true, &["192.0.2.3", "fd00::3"]),
        node("b", false, &["192.0.2.2"]),
        node("a", true, &["192.0.2.1", "192.0.2.3"]),
    ];
    let mut of = |families: Value| {
        let service = json!({ "spec": { "clusterIPs": ["10.96.0.9"], "ipFamilies": families } });
        addresses(&world.place_with(service, available(1)))
    };
    assert_eq!(of(json!(["IPv4"])), ["192.0.2.1", "192.0.2.3"]);
    assert_eq!(of(json!(["IPv6"])), ["fd00::3"]);
    assert_eq!(of(json!([])), ["192.0.2.1", "192.0.2.3", "fd00::3"]);
    world.nodes.iter_mut().for_each(|node| node.is_ready = false);
    let service = json!({ "spec": { "clusterIPs": ["10.96.0.9"], "ipFamilies": ["IPv4"] } });
    let all = addresses(&world.place_with(service, available(1)));
    assert_eq!(all, ["192.0.2.1", "192.0.2.3", "192.0.2.2"], "while none is ready");
}

#[test]
fn where_only_nodes_with_pods_answer_only_those_are_named() {
    let service = "{service: {type: NodePort, externalTrafficPolicy: Local}}";
    let mut world = World::new(&with_parameters(service));
    world.nodes = vec![node("a", true, &["192.0.2.1"]), node("b", true, &["192.0.2.2"])];
    let service = || json!({ "spec": { "clusterIPs": ["10.96.0.9"] } });
    let all = addresses(&world.place_with(service(), available(0)));
    assert_eq!(all, ["192.0.2.1", "192.0.2.2"], "no node has one yet");
    let labels = world.get("Deployment").unwrap()["spec"]["selector"]["matchLabels"].clone();
    let pod = |node: &str, is_ready| PodState {
        namespace: "shop".to_owned(),
        node: node.to_owned(),
        labels: serde_json::from_value(labels.clone()).unwrap(),
        is_ready,
        ..PodState::default()
    };
    let other = PodState { labels: BTreeMap::new(), ..pod("a", true) };
    world.pods = vec![pod("a", false), pod("b", true), other];
    assert_eq!(addresses(&world.place_with(service(), available(1))), ["192.0.2.2"]);
}

#[test]
fn the_number_of_pods_is_left_to_whoever_scales_unless_it_is_said() {
    let mut world = World::new(&(CLASS.to_owned() + &gateway("web", HTTP, "")));
    assert!(world.get("Deployment").unwrap()["spec"].get("replicas").is_none());
    world = World::new(&with_parameters("{replicas: 2}"));
    assert_eq!(world.get("Deployment").unwrap()["spec"]["replicas"], 2);
}

#[test]
fn a_service_with_an_address_that_is_no_longer_asked_for_is_made_anew() {
    let more = "  addresses: [{value: 192.0.2.1}]";
    let mut world = World::new(&(CLASS.to_owned() + &gateway("web", HTTP, more)));
    let mut service = world.get("Service").unwrap();
    service["status"] = ingress(&["192.0.2.9"])["status"].clone();
    // The load balancer does not listen to the request: another Service would not help.
    world.observed = vec![service.clone()];
    assert!(world.get("Service").is_some());
    service["spec"]["loadBalancerIP"] = json!("192.0.2.9");
    world.observed = vec![service];
    assert_eq!(world.get("Service"), None);
    world.observed.clear();
    assert!(world.get("Service").is_some());
}

#[test]
fn an_address_that_is_asked_for_is_got_or_missed() {
    let asked = |addresses: &str| {
        let more = format!("  addresses: [{addresses}]");
        World::new(&(CLASS.to_owned() + &gateway("web", HTTP, &more)))
    };
    let mut world = asked("{value: 192.0.2.1}");
    let spec = world.get("Service").unwrap()["spec"].clone();
    assert_eq!(spec["loadBalancerIP"], "192.0.2.1");
    assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
    assert_eq!(reason(&world.place_with(ingress(&["192.0.2.1"]), available(1))), None);
    let other = world.place_with(ingress(&["192.0.2.2"]), available(1));
    assert_eq!(reason(&other), Some("AddressNotUsable"));
    let both = &mut asked("{value: 192.0.2.1}, {value: 192.0.2.2}");
    let place = both.place_with(ingress(&["192.0.2.1"]), available(1));
    assert!(place.problem.unwrap().message.ends_with("the address 192.0.2.2"));
    let any = &mut asked("{type: IPAddress}");
    assert!(any.get("Service").unwrap()["spec"].get("loadBalancerIP").is_none());
    assert_eq!(reason(&any.place_with(ingress(&["192.0.2.9"]), available(1))), None);
    let unsupported = asked("{type: x.io/y, value: z}");
    assert_eq!(unsupported.get("Service"), None);
}

#[test]
fn gateways_of_shared_parameters_have_one_set_and_one_identity() {
    let other = "[{name: a, port: 8080, protocol: HTTP}]";
    let text = SHARED.to_owned() + &gateway("web", HTTP, "") + &gateway("api", other, "");
    let mut world = World::new(&text);
    let domain = TrustDomain::new("aws.demo").unwrap();
    let identities = served_by(&world.objects, &domain);
    assert_eq!(identities.len(), 2);
    for identity in identities.values() {
        assert_eq!(identity.as_str(), "spiffe://aws.demo/ns/edge/sa/all-isthmus-shared");
    }
    let service = world.get("Service").unwrap();
    assert_eq!(service["metadata"]["namespace"], "edge");
    assert_eq!(service["metadata"]["ownerReferences"][0]["kind"], "GatewayParameters");
    assert_eq!(service["spec"]["ports"].as_array().unwrap().len(), 2);
    world.place_with(ingress(&["192.0.2.1"]), available(1));
    for name in ["web", "api"] {
        assert_eq!(addresses(&world.place(name)), ["192.0.2.1"]);
    }
}

#[test]
fn a_dedicated_identity_is_that_of_the_gateways_account() {
    let long = "a".repeat(253);
    let text = CLASS.to_owned() + &gateway("web", HTTP, "") + &gateway(&long, HTTP, "");
    let world = World::new(&text);
    let identities = served_by(&world.objects, &TrustDomain::new("aws.demo").unwrap());
    let of = |name: &str| identities[&ObjectKey::new("shop", name).unwrap()].as_str().to_owned();
    assert_eq!(of("web"), "spiffe://aws.demo/ns/shop/sa/web-isthmus");
    assert!(of(&long).ends_with("-isthmus"));
    for object in world.run().objects {
        assert!(object["metadata"]["name"].as_str().unwrap().len() <= 63);
        let labels = object["metadata"]["labels"].as_object().unwrap().values();
        assert!(labels.into_iter().all(|value| value.as_str().unwrap().len() <= 63));
    }
}
