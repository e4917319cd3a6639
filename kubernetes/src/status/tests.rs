mod users;

use std::net::IpAddr;

use isthmus_config::{Content, Context, Index, Origin, SourceDocument, translate};
use isthmus_model::{ClusterId, Label, ObjectName, TrustDomain};
use serde_json::json;

use super::*;
use crate::apply::{Action, plan_status};
use crate::provision::place::{PlaceAddress, PlaceProblem};

/// A cluster with one class; every [`World::apply`] takes the objects of the moment.
struct World {
    index: Index,
    observed: Vec<Value>,
    places: BTreeMap<ObjectKey, GatewayPlace>,
    bundle_version: Option<&'static str>,
}

impl World {
    /// A class of ours, one of others, and the Gateway `infra/edge` of ours at its place.
    fn new() -> Self {
        let mut world = Self {
            index: Index::new(),
            observed: Vec::new(),
            places: BTreeMap::new(),
            bundle_version: None,
        };
        world.observe(class("isthmus", CONTROLLER));
        world.observe(class("other", "other.io/controller"));
        world.observe(gateway("edge", "isthmus"));
        world.place(
            "edge",
            GatewayPlace {
                addresses: vec![PlaceAddress::Ip(IpAddr::from([192, 0, 2, 1]))],
                pods_available: 1,
                problem: None,
            },
        );
        world
    }

    fn place(&mut self, gateway: &str, place: GatewayPlace) {
        self.places.insert(key(gateway), place);
    }

    /// Puts in an object, or replaces it.
    fn observe(&mut self, object: Value) {
        let id = |object: &Value| (object["kind"].clone(), object["metadata"]["name"].clone());
        self.observed.retain(|known| id(known) != id(&object));
        self.observed.push(object);
    }

    fn remove(&mut self, kind: &str, name: &str) {
        self.observed.retain(|o| o["kind"] != kind || o["metadata"]["name"] != name);
    }

    /// The statuses for what is observed now.
    fn desired(&mut self) -> Vec<Value> {
        let documents = self.observed.iter().enumerate().map(|(at, object)| SourceDocument {
            origin: Origin::new(&format!("{at:03}"), 1),
            content: Content::Object(object.clone().into()),
        });
        let documents: Vec<SourceDocument> = documents.collect();
        let outcome = self.index.apply(&documents, 0);
        let cluster = ClusterId::new("c1").unwrap();
        let context = Context::new(cluster, TrustDomain::new("c1.example").unwrap());
        let translation = translate(self.index.objects(), &context);
        let statuses = Statuses::default().turn(&StatusInputs {
            objects: self.index.objects(),
            conditions: &translation.conditions,
            listeners: &translation.listeners,
            gateways: &translation.gateways,
            places: &self.places,
            observed: &self.observed.iter().cloned().map(Arc::new).collect::<Vec<_>>(),
            rejected: &outcome.errors,
            bundle_version: self.bundle_version,
        });
        statuses.iter().map(|pair| Value::clone(&pair.desired)).collect()
    }

    /// The status of one object; null when none is desired.
    fn status(&mut self, kind: &str, name: &str) -> Value {
        let mut all = self.desired().into_iter();
        let found = all.find(|o| o["kind"] == kind && o["metadata"]["name"] == name);
        found.map(|object| object["status"].clone()).unwrap_or_default()
    }

    /// Writes every status as the executor does; says how many were written.
    fn write(&mut self, now: &str) -> usize {
        let desired = self.desired();
        let plan = plan_status(&desired, &self.observed, OWN_CONDITIONS, now).unwrap();
        for action in &plan.actions {
            let Action::ApplyStatus { id, body } = action else { panic!("{action:?}") };
            let found = self
                .observed
                .iter_mut()
                .find(|object| object["kind"] == id.kind && object["metadata"]["name"] == id.name);
            found.unwrap()["status"] = body["status"].clone();
        }
        plan.actions.len()
    }
}

fn key(name: &str) -> ObjectKey {
    let namespace = Label::new("infra").unwrap();
    ObjectKey { namespace, name: ObjectName::new(name).unwrap() }
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
        "metadata": {"namespace": "infra", "name": name, "generation": 1},
        "spec": spec,
    })
}

fn class(name: &str, controller: &str) -> Value {
    let mut class = object("GatewayClass", name, json!({ "controllerName": controller }));
    class["metadata"] = json!({"name": name, "generation": 1});
    class
}

fn gateway(name: &str, class: &str) -> Value {
    object(
        "Gateway",
        name,
        json!({
            "gatewayClassName": class,
            "allowedListeners": {"namespaces": {"from": "Same"}},
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        }),
    )
}

fn parent(name: &str) -> Value {
    json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name})
}

fn route(parents: &[Value]) -> Value {
    object("HTTPRoute", "front", json!({ "parentRefs": parents, "rules": [] }))
}

fn changed(mut object: Value, generation: i64, pointer: &str, value: Value) -> Value {
    object["metadata"]["generation"] = json!(generation);
    *object.pointer_mut(pointer).unwrap() = value;
    object
}

/// `True Accepted 1`: status, reason and generation of a condition.
fn said(status: &Value, kind: &str) -> String {
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    let Some(found) = found else { return "nothing".to_owned() };
    let text = |field: &str| found[field].as_str().unwrap().to_owned();
    format!("{} {} {}", text("status"), text("reason"), found["observedGeneration"])
}

fn message(status: &Value, kind: &str) -> String {
    let conditions = status["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
    found["message"].as_str().unwrap().to_owned()
}

const CONTROLLER: &str = "isthmus.io/gateway-controller";

#[test]
fn a_class_says_what_is_supported_and_a_class_of_others_is_left_alone() {
    let mut world = World::new();
    world.bundle_version = Some("v1.6.3");
    let status = world.status("GatewayClass", "isthmus");
    assert_eq!(said(&status, "Accepted"), "True Accepted 1");
    assert_eq!(said(&status, "SupportedVersion"), "True SupportedVersion 1");
    assert_eq!(status["supportedFeatures"][0], json!({ "name": "BackendTLSPolicy" }));
    assert_eq!(world.status("GatewayClass", "other"), Value::Null);
    world.bundle_version = Some("v2.0.0");
    let status = world.status("GatewayClass", "isthmus");
    assert_eq!(said(&status, "SupportedVersion"), "False UnsupportedVersion 1");
    assert!(message(&status, "SupportedVersion").contains("v2.0.0"));
    assert_eq!(said(&status, "Accepted"), "True Accepted 1", "they are used all the same");
    world.bundle_version = None;
    assert_eq!(said(&world.status("GatewayClass", "isthmus"), "SupportedVersion"), "nothing");
}

#[test]
fn a_gateway_says_its_addresses_and_listeners() {
    let mut world = World::new();
    world.observe(route(&[parent("edge")]));
    let status = world.status("Gateway", "edge");
    assert_eq!(said(&status, "Accepted"), "True Accepted 1");
    assert_eq!(said(&status, "Programmed"), "True Programmed 1");
    assert_eq!(status["addresses"], json!([{"type": "IPAddress", "value": "192.0.2.1"}]));
    let listener = &status["listeners"][0];
    assert_eq!((&listener["name"], &listener["attachedRoutes"]), (&json!("http"), &json!(1)));
    let kind = json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"});
    assert_eq!(listener["supportedKinds"][0], kind);
    for (kind, expected) in [
        ("Accepted", "True Accepted 1"),
        ("Conflicted", "False NoConflicts 1"),
        ("Programmed", "True Programmed 1"),
        ("ResolvedRefs", "True ResolvedRefs 1"),
    ] {
        assert_eq!(said(listener, kind), expected);
    }
}

#[test]
fn a_gateway_is_programmed_only_when_clients_can_reach_it() {
    let mut world = World::new();
    let mut check = |place: Option<GatewayPlace>, expected: &str| {
        world.places.clear();
        if let Some(place) = place {
            world.place("edge", place);
        }
        let status = world.status("Gateway", "edge");
        assert_eq!(said(&status, "Programmed"), expected);
        assert_eq!(said(&status, "Accepted"), "True Accepted 1");
        assert_eq!(said(&status["listeners"][0], "Programmed"), "True Programmed 1");
    };
    let addresses = vec![PlaceAddress::Hostname("lb.example".to_owned())];
    let place = GatewayPlace { addresses, pods_available: 1, problem: None };
    check(None, "False Pending 1");
    check(Some(place.clone()), "True Programmed 1");
    check(Some(GatewayPlace { pods_available: 0, ..place.clone() }), "False Pending 1");
    let unassigned = GatewayPlace { addresses: vec![], ..place.clone() };
    check(Some(unassigned), "False AddressNotAssigned 1");
    let problem = Some(PlaceProblem::new("AddressNotUsable", "192.0.2.9 is not given"));
    check(Some(GatewayPlace { problem, ..place }), "False AddressNotUsable 1");
}

#[test]
fn a_gateway_at_more_addresses_than_a_status_takes_says_the_first() {
    let mut world = World::new();
    let addresses: Vec<PlaceAddress> =
        (1..=20).map(|last| PlaceAddress::Ip(IpAddr::from([192, 0, 2, last]))).collect();
    world.place("edge", GatewayPlace { addresses, pods_available: 1, problem: None });
    let status = world.status("Gateway", "edge");
    let written = status["addresses"].as_array().unwrap();
    assert_eq!((written.len(), &written[15]["value"]), (16, &json!("192.0.2.16")));
    assert_eq!(said(&status, "Programmed"), "True Programmed 1");
}

#[test]
fn a_listener_that_is_not_programmed_keeps_its_reason_whatever_the_place_says() {
    let mut world = World::new();
    let spoiled = json!("INVALID");
    world.observe(changed(gateway("edge", "isthmus"), 2, "/spec/listeners/0/protocol", spoiled));
    world.places.clear();
    let status = world.status("Gateway", "edge");
    assert_eq!(said(&status, "Accepted"), "False ListenersNotValid 2");
    assert_eq!(said(&status, "Programmed"), "False Invalid 2");
    assert_eq!(status["listeners"][0]["supportedKinds"], json!([]));
}

#[test]
fn a_rejected_gateway_says_why_and_that_its_last_version_is_in_use() {
    let mut world = World::new();
    world.desired();
    world.observe(changed(gateway("edge", "isthmus"), 2, "/spec/listeners/0/port", json!(0)));
    world.observe(changed(gateway("fresh", "isthmus"), 1, "/spec/listeners/0/port", json!(0)));
    world.observe(changed(gateway("foreign", "other"), 1, "/spec/listeners/0/port", json!(0)));
    let status = world.status("Gateway", "edge");
    assert_eq!(said(&status, "Accepted"), "False Invalid 2");
    assert_eq!(said(&status, "Programmed"), "False Invalid 2");
    let why = message(&status, "Accepted");
    assert!(why.starts_with("spec.listeners[0].port: "), "{why}");
    assert!(why.ends_with("the last valid version (generation 1) is still in use"), "{why}");
    // What is in use is of the version that is in use.
    assert_eq!(said(&status["listeners"][0], "Accepted"), "True Accepted 1");
    assert_eq!(status["addresses"][0]["value"], "192.0.2.1");

    let status = world.status("Gateway", "fresh");
    assert_eq!(said(&status, "Accepted"), "False Invalid 1");
    assert!(!message(&status, "Accepted").contains("still in use"));
    assert_eq!(status["listeners"], json!([]));
    assert_eq!(world.status("Gateway", "foreign"), Value::Null);
}

#[test]
fn a_rejected_class_is_not_accepted() {
    let mut world = World::new();
    let mut class = class("isthmus", CONTROLLER);
    class["metadata"]["creationTimestamp"] = json!("not a time");
    world.observe(class);
    let status = world.status("GatewayClass", "isthmus");
    assert_eq!(said(&status, "Accepted"), "False Unsupported 1");
}

#[test]
fn listener_sets_are_counted_and_wait_for_their_gateway() {
    let mut world = World::new();
    let listeners = json!([{"name": "more", "port": 8080, "protocol": "HTTP"}]);
    let spec = json!({ "parentRef": parent("edge"), "listeners": listeners });
    assert_eq!(world.status("Gateway", "edge").get("attachedListenerSets"), None);
    world.observe(object("ListenerSet", "set", spec));
    assert_eq!(world.status("Gateway", "edge")["attachedListenerSets"], 1);
    let status = world.status("ListenerSet", "set");
    assert_eq!(said(&status, "Accepted"), "True Accepted 1");
    assert_eq!(said(&status, "Programmed"), "True Programmed 1");
    assert_eq!(status["listeners"][0]["name"], "more");
    // A count that is in the status goes back to zero.
    world.write("t1");
    world.remove("ListenerSet", "set");
    assert_eq!(world.status("Gateway", "edge")["attachedListenerSets"], 0);

    let spec = json!({ "parentRef": parent("edge"), "listeners": listeners });
    world.observe(object("ListenerSet", "set", spec));
    world.places.clear();
    let status = world.status("ListenerSet", "set");
    assert_eq!(said(&status, "Programmed"), "False Pending 1");
}

#[test]
fn a_set_of_a_rejected_gateway_says_so() {
    let mut world = World::new();
    world.observe(changed(gateway("bad", "isthmus"), 1, "/spec/listeners/0/port", json!(0)));
    let listeners = json!([{"name": "more", "port": 8080, "protocol": "HTTP"}]);
    let spec = json!({ "parentRef": parent("bad"), "listeners": listeners });
    world.observe(object("ListenerSet", "set", spec));
    let status = world.status("ListenerSet", "set");
    assert_eq!(said(&status, "Accepted"), "False ParentNotAccepted 1");
}

#[test]
fn a_route_repeats_its_parents_as_they_are_written() {
    let mut world = World::new();
    world.observe(gateway("foreign", "other"));
    let mut with_section = parent("edge");
    with_section["sectionName"] = json!("http");
    with_section["namespace"] = json!("infra");
    with_section["port"] = json!(80);
    let unknown = parent("nobodys");
    let parents = [with_section.clone(), parent("foreign"), unknown, parent("edge")];
    world.observe(route(&parents));
    let status = world.status("HTTPRoute", "front");
    let written: Vec<&Value> =
        status["parents"].as_array().unwrap().iter().map(|entry| &entry["parentRef"]).collect();
    assert_eq!(written, [&with_section, &parent("edge")]);
    let entry = &status["parents"][0];
    assert_eq!(entry["controllerName"], CONTROLLER);
    assert_eq!(said(entry, "Accepted"), "True Accepted 1");
    assert_eq!(said(entry, "ResolvedRefs"), "True ResolvedRefs 1");
}

#[test]
fn a_route_that_never_was_ours_is_not_written() {
    let mut world = World::new();
    world.observe(gateway("foreign", "other"));
    world.observe(route(&[parent("foreign"), parent("nobodys")]));
    assert_eq!(world.status("HTTPRoute", "front"), Value::Null);
}

#[test]
fn entries_of_others_stay_where_they_are_and_ours_go_with_our_parent() {
    let mut world = World::new();
    let theirs = |name: &str| {
        json!({"controllerName": "other.io/controller", "parentRef": parent(name),
               "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted",
                               "message": "", "observedGeneration": 1,
                               "lastTransitionTime": "t0"}]})
    };
    let ours = json!({"controllerName": CONTROLLER, "parentRef": parent("edge"),
                      "conditions": []});
    let mut both = route(&[parent("edge"), parent("foreign")]);
    both["status"] = json!({ "parents": [theirs("a"), ours, theirs("b")] });
    world.observe(both.clone());
    let status = world.status("HTTPRoute", "front");
    let names: Vec<&Value> =
        status["parents"].as_array().unwrap().iter().map(|e| &e["parentRef"]["name"]).collect();
    assert_eq!(names, ["a", "edge", "b"]);
    assert_eq!(said(&status["parents"][1], "Accepted"), "True Accepted 1");

    world.observe(changed(both, 2, "/spec/parentRefs", json!([parent("foreign")])));
    let status = world.status("HTTPRoute", "front");
    assert_eq!(status["parents"], json!([theirs("a"), theirs("b")]));
    assert_eq!(world.write("t1"), 3, "the class, the Gateway, and the route once");
    assert_eq!(world.status("HTTPRoute", "front"), Value::Null);
}

#[test]
fn a_rejected_route_says_why_at_each_of_its_parents_of_ours() {
    let mut world = World::new();
    world.observe(gateway("foreign", "other"));
    let good = route(&[parent("edge"), parent("foreign")]);
    world.observe(good.clone());
    world.desired();
    let rules = json!([{"backendRefs": [{"name": "web", "port": 0}]}]);
    world.observe(changed(good, 2, "/spec/rules", rules));
    let status = world.status("HTTPRoute", "front");
    assert_eq!(status["parents"].as_array().map(Vec::len), Some(1));
    let entry = &status["parents"][0];
    assert_eq!(said(entry, "Accepted"), "False UnsupportedValue 2");
    let why = message(entry, "Accepted");
    assert!(why.contains("spec.rules[0].backendRefs[0].port"), "{why}");
    assert!(why.ends_with("(generation 1) is still in use"), "{why}");
}

#[test]
fn statuses_are_written_once_and_times_change_only_with_what_is_said() {
    let mut world = World::new();
    let mut second = parent("edge");
    second["sectionName"] = json!("http");
    world.observe(route(&[parent("edge"), second]));
    assert_eq!(world.write("t1"), 3);
    assert_eq!(world.write("t2"), 0);
    // The second parent is judged anew, the first is not touched.
    let mut object = route(&[parent("edge"), parent("edge")]);
    object["status"] = world.observed.last().unwrap()["status"].clone();
    object["spec"]["parentRefs"][1]["sectionName"] = json!("absent");
    object["metadata"]["generation"] = json!(2);
    world.observe(object);
    assert_eq!(world.write("t3"), 1);
    let status = &world.observed.last().unwrap()["status"];
    let time = |at: usize| &status["parents"][at]["conditions"][0]["lastTransitionTime"];
    assert_eq!((time(0), time(1)), (&json!("t1"), &json!("t3")));
    assert_eq!(world.write("t4"), 0);
}

/// The policy for a service, the service, and a route to it at two Gateways.
fn with_policy(world: &mut World, port: i64) -> Value {
    world.observe(gateway("inner", "isthmus"));
    let ports = json!([{"name": "https", "port": 443}]);
    let mut service = object("Service", "web", json!({ "ports": ports }));
    service["apiVersion"] = json!("v1");
    world.observe(service);
    let mut route = route(&[parent("edge"), parent("inner")]);
    route["spec"]["rules"] = json!([{"backendRefs": [{"name": "web", "port": port}]}]);
    world.observe(route);
    let policy = object(
        "BackendTLSPolicy",
        "tls",
        json!({
            "targetRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "validation": {"hostname": "web.example", "wellKnownCACertificates": "System"},
        }),
    );
    world.observe(policy.clone());
    policy
}

#[test]
fn a_policy_is_judged_at_every_gateway_that_uses_its_target() {
    let mut world = World::new();
    // Two Gateways of one workload may not have the same listener.
    with_policy(&mut world, 443);
    let status = world.status("BackendTLSPolicy", "tls");
    let ancestors = status["ancestors"].as_array().unwrap();
    let names: Vec<&Value> = ancestors.iter().map(|entry| &entry["ancestorRef"]["name"]).collect();
    assert_eq!(names, ["edge", "inner"]);
    assert_eq!(ancestors[0]["controllerName"], CONTROLLER);
    assert_eq!(said(&ancestors[0], "Accepted"), "True Accepted 1");
    world.write("t1");
    assert_eq!(world.write("t2"), 0);
}

#[test]
fn a_rejected_policy_says_so_at_the_gateways_of_its_targets_routes() {
    let mut world = World::new();
    let policy = with_policy(&mut world, 443);
    let hostname = json!("not a name");
    world.observe(changed(policy, 2, "/spec/validation/hostname", hostname));
    let status = world.status("BackendTLSPolicy", "tls");
    assert_eq!(status["ancestors"].as_array().map(Vec::len), Some(2));
    assert_eq!(said(&status["ancestors"][0], "Accepted"), "False Invalid 2");
}

#[test]
fn a_policy_for_a_service_that_is_gone_says_so_where_it_was_used() {
    let mut world = World::new();
    with_policy(&mut world, 443);
    world.remove("Service", "web");
    let status = world.status("BackendTLSPolicy", "tls");
    assert_eq!(said(&status["ancestors"][0], "Accepted"), "False TargetNotFound 1");
}

#[test]
fn ancestors_of_others_leave_room_only_for_as_many_of_ours_as_the_list_takes() {
    let mut world = World::new();
    let mut policy = with_policy(&mut world, 443);
    let theirs = json!({"controllerName": "other.io/controller", "ancestorRef": parent("x"),
                        "conditions": []});
    policy["status"] = json!({ "ancestors": vec![theirs; 15] });
    world.observe(policy);
    let status = world.status("BackendTLSPolicy", "tls");
    let ancestors = status["ancestors"].as_array().unwrap();
    assert_eq!(ancestors.len(), 16);
    assert_eq!(ancestors[15]["ancestorRef"]["name"], "edge");
}
