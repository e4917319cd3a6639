//! A status list that controllers share: the server checks versions as a real one does.

use super::*;
use crate::apply::plan_status;

/// One route, whose `status.parents` two controllers write.
struct Store {
    route: Value,
}

impl Store {
    fn new() -> Arc<Mutex<Self>> {
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"namespace": "shop", "name": "web", "resourceVersion": "1"},
        });
        Arc::new(Mutex::new(Self { route }))
    }

    fn version(&self) -> &str {
        self.route["metadata"]["resourceVersion"].as_str().unwrap()
    }

    /// Replaces the status, which nobody may who names another version.
    fn write(&mut self, body: &Value) -> (u16, Value) {
        let asked = body["metadata"].get("resourceVersion");
        if asked.is_some_and(|asked| asked != self.version()) {
            return conflict(json!({"name": "web", "kind": "httproutes"}));
        }
        let next = self.version().parse::<u32>().unwrap() + 1;
        self.route["metadata"]["resourceVersion"] = json!(next.to_string());
        self.route["status"] = body["status"].clone();
        (200, self.route.clone())
    }

    /// What each controller says, by its name.
    fn said(&self) -> BTreeMap<String, String> {
        let parents = self.route["status"]["parents"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        parents.map(|it| (text(&it["controllerName"]), text(&it["message"]))).collect()
    }
}

/// What the server says to a write of another version; with causes, to one whose fields
/// have another manager.
fn conflict(details: Value) -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "the object has been modified", "reason": "Conflict", "code": 409,
        "details": details});
    (409, status)
}

async fn server_of(store: &Arc<Mutex<Store>>) -> Server {
    let store = Arc::clone(store);
    let answer = move |request: &str, body: &Value| match request {
        "GET /apis" => (200, groups()),
        "GET /apis/gateway.networking.k8s.io/v1" => (200, routes()),
        STATUS => store.lock().unwrap().write(body),
        request => panic!("{request}"),
    };
    Server::with(Arc::new(answer)).await
}

fn groups() -> Value {
    let version = json!({"groupVersion": "gateway.networking.k8s.io/v1", "version": "v1"});
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [
        {"name": "gateway.networking.k8s.io", "versions": [version], "preferredVersion": version},
    ]})
}

fn routes() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": "gateway.networking.k8s.io/v1", "resources": [
        {"name": "httproutes", "singularName": "httproute", "namespaced": true,
         "kind": "HTTPRoute", "verbs": ["get", "patch"]},
    ]})
}

/// The plan of a controller that has seen this version of the route: its own entry says
/// this, those of others are repeated.
fn plan_of(controller: &str, message: &str, seen: &Value) -> Plan {
    let parents = seen.pointer("/status/parents").and_then(Value::as_array).cloned();
    let mut parents = parents.unwrap_or_default();
    parents.retain(|entry| entry["controllerName"] != controller);
    parents.push(json!({"controllerName": controller, "message": message}));
    let desired = json!({"apiVersion": seen["apiVersion"], "kind": seen["kind"],
        "metadata": {"namespace": "shop", "name": "web"}, "status": {"parents": parents}});
    plan_status(&[desired], [seen], &[], "now").unwrap()
}

fn seen(store: &Arc<Mutex<Store>>) -> Value {
    store.lock().unwrap().route.clone()
}

const STATUS: &str =
    "PATCH /apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/web/status";

#[tokio::test]
async fn two_controllers_that_write_to_one_route_in_turn_keep_both_entries() {
    let store = Store::new();
    let server = server_of(&store).await;
    let mut executors = ["ours", "theirs"].map(|name| (name, Executor::new(server.client.clone())));
    for round in 0..10 {
        // Both have seen the same version when they plan, so one of them is always late.
        let before = seen(&store);
        executors.rotate_left(round % 2);
        let message = format!("round {round}");
        for (at, (name, executor)) in executors.iter_mut().enumerate() {
            let report = executor.execute(&plan_of(name, &message, &before), || true).await;
            assert_eq!(report.failures, [], "{message}");
            assert_eq!((report.applied, report.withheld.len()), (1 - at, at), "{message}");
        }
        // The watch brings what the other has written.
        let (name, executor) = &mut executors[1];
        let plan = plan_of(name, &message, &seen(&store));
        assert_eq!(executor.execute(&plan, || true).await.applied, 1, "{message}");
        let expected = ["ours", "theirs"].map(|name| (name.to_owned(), message.clone()));
        assert_eq!(store.lock().unwrap().said(), expected.into());
    }
}

#[tokio::test]
async fn a_write_planned_on_an_old_version_is_sent_once_and_waits_for_the_watch() {
    let store = Store::new();
    let server = server_of(&store).await;
    let mut executor = Executor::new(server.client.clone());
    let late = plan_of("ours", "m", &seen(&store));
    let theirs = plan_of("theirs", "m", &seen(&store));
    assert_eq!(Executor::new(server.client.clone()).execute(&theirs, || true).await.applied, 1);
    server.asked();
    for turn in 0..3 {
        let report = executor.execute(&late, || true).await;
        assert_eq!((report.withheld.len(), report.failures.len()), (1, 0), "turn {turn}");
    }
    let writes = server.asked().iter().filter(|request| *request == STATUS).count();
    assert_eq!(writes, 1);
    let renewed = plan_of("ours", "m", &seen(&store));
    assert_eq!(executor.execute(&renewed, || true).await.applied, 1);
    assert_eq!(store.lock().unwrap().said().len(), 2);
}

#[test]
fn a_conflict_of_versions_is_told_from_one_of_field_managers_and_needs_a_version() {
    let error = |details: Value| {
        let status = serde_json::from_value(conflict(details).1).unwrap();
        kube::Error::Api(Box::new(status))
    };
    let versions = error(json!({"name": "web"}));
    let managers = error(json!({"causes": [{"reason": "FieldManagerConflict",
        "message": "conflict with \"other\"", "field": ".status.parents"}]}));
    let mut route = seen(&Store::new());
    let planned = &plan_of("ours", "m", &route).actions[0];
    assert!(is_outdated(&versions, planned));
    assert!(!is_outdated(&managers, planned));
    route["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let unversioned = &plan_of("ours", "m", &route).actions[0];
    assert!(!is_outdated(&versions, unversioned));
}
