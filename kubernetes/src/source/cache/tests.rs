use serde_json::json;

use super::*;
use crate::source::{Selection, kinds};

const SERVICE: Watched = Watched::Config(Kind::Service);
const NAMESPACE: Watched = Watched::Config(Kind::Namespace);

fn scope(watched: Watched) -> Scope {
    Scope { watched, namespace: "".into() }
}

fn object(namespace: &str, name: &str, more: &str) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name, "resourceVersion": "9"},
           "spec": {"clusterIP": more}})
}

fn namespace(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"mesh": label}}})
}

fn cache(watched: &[Watched]) -> Cache {
    Cache::new(watched.iter().copied().map(scope).collect(), BTreeMap::new())
}

fn listed(cache: &mut Cache, watched: Watched, objects: Vec<Value>) -> Effect {
    cache.handle(&scope(watched), Change::Listing);
    for object in objects {
        cache.handle(&scope(watched), Change::Listed(object));
    }
    cache.handle(&scope(watched), Change::ListedAll)
}

fn origins(cache: &Cache) -> Vec<String> {
    cache.state().documents.iter().map(|document| document.origin.to_string()).collect()
}

#[test]
fn a_state_is_complete_when_every_present_kind_has_listed() {
    let mut cache = cache(&[SERVICE, NAMESPACE]);
    assert!(!cache.is_complete());
    listed(&mut cache, SERVICE, vec![object("shop", "web", "a")]);
    assert!(!cache.is_complete());
    assert_eq!(cache.pending(), [Pending { kind: "Namespace".to_owned(), error: None }]);
    cache.handle(&scope(NAMESPACE), Change::Absent);
    assert!(cache.is_complete());
    assert_eq!(origins(&cache), ["Service/shop/web"]);
    assert_eq!(cache.state().absent, [Kind::Namespace]);
}

#[test]
fn the_release_of_the_gateway_api_is_known_once_read_and_nothing_waits_for_it() {
    let definition = |release: &str| {
        let annotations = json!({ (crate::status::release::ANNOTATION): release });
        json!({"metadata": {"name": kinds::DEFINITION, "annotations": annotations}})
    };
    let mut cache = cache(&[SERVICE, Watched::Definition]);
    listed(&mut cache, SERVICE, vec![object("shop", "web", "a")]);
    assert!(!cache.is_complete(), "its list is awaited while nothing speaks against it");
    let refused = Change::Failed("forbidden".to_owned());
    cache.handle(&scope(Watched::Definition), refused);
    assert!(cache.is_complete());
    assert_eq!(cache.state().bundle_version, None);
    let before = listed(&mut cache, Watched::Definition, vec![definition("v1.6.3")]);
    assert_eq!(
        (before, cache.state().bundle_version.as_deref()),
        (Effect::Changed, Some("v1.6.3"))
    );
    let upgraded = Change::Applied(definition("v1.7.0"));
    assert_eq!(cache.handle(&scope(Watched::Definition), upgraded), Effect::Changed);
    assert_eq!(cache.state().bundle_version.as_deref(), Some("v1.7.0"));
    assert_eq!(cache.state().documents.len(), 1, "it is no object of the configuration");
}

#[test]
fn a_heartbeat_is_no_change() {
    let mut cache = cache(&[SERVICE]);
    listed(&mut cache, SERVICE, vec![object("shop", "web", "a")]);
    let mut same = object("shop", "web", "a");
    same["metadata"]["resourceVersion"] = json!("10");
    assert_eq!(cache.handle(&scope(SERVICE), Change::Applied(same.clone())), Effect::Nothing);
    assert_eq!(listed(&mut cache, SERVICE, vec![same]), Effect::Nothing);
    let other = object("shop", "web", "b");
    assert_eq!(cache.handle(&scope(SERVICE), Change::Applied(other)), Effect::Changed);
}

#[test]
fn a_list_that_begins_again_keeps_the_objects_until_it_is_whole() {
    let mut cache = cache(&[SERVICE]);
    listed(&mut cache, SERVICE, vec![object("s", "a", ""), object("s", "b", "")]);
    cache.handle(&scope(SERVICE), Change::Listing);
    cache.handle(&scope(SERVICE), Change::Listed(object("s", "b", "")));
    assert_eq!(origins(&cache), ["Service/s/a", "Service/s/b"]);
    // The list breaks off and another begins: what the first gave does not count.
    cache.handle(&scope(SERVICE), Change::Failed("gone".to_owned()));
    cache.handle(&scope(SERVICE), Change::Listing);
    cache.handle(&scope(SERVICE), Change::Listed(object("s", "c", "")));
    assert_eq!(cache.handle(&scope(SERVICE), Change::ListedAll), Effect::Changed);
    assert_eq!(origins(&cache), ["Service/s/c"]);
    assert_eq!(cache.pending(), []);
}

#[test]
fn a_deleted_object_is_gone_and_a_second_deletion_is_nothing() {
    let mut cache = cache(&[SERVICE]);
    listed(&mut cache, SERVICE, vec![object("s", "a", "")]);
    let deleted = Change::Deleted(object("s", "a", ""));
    assert_eq!(cache.handle(&scope(SERVICE), deleted.clone()), Effect::Changed);
    assert_eq!(cache.handle(&scope(SERVICE), deleted), Effect::Nothing);
    assert!(origins(&cache).is_empty());
}

#[test]
fn a_config_map_that_loses_its_bundle_is_gone() {
    let maps = Watched::Config(Kind::ConfigMap);
    let map = |key: &str| json!({"metadata": {"namespace": "s", "name": "m"}, "data": {key: "x"}});
    let mut cache = cache(&[maps]);
    listed(&mut cache, maps, vec![map("ca.crt")]);
    assert_eq!(cache.handle(&scope(maps), Change::Applied(map("else"))), Effect::Changed);
    assert!(origins(&cache).is_empty());
}

#[test]
fn a_kind_that_goes_takes_its_objects_with_it() {
    let mut cache = cache(&[SERVICE]);
    listed(&mut cache, SERVICE, vec![object("s", "a", "")]);
    assert_eq!(cache.handle(&scope(SERVICE), Change::Absent), Effect::Changed);
    assert_eq!(cache.handle(&scope(SERVICE), Change::Absent), Effect::Nothing);
    assert!(cache.state().documents.is_empty());
}

#[test]
fn labels_of_namespaces_select_their_objects() {
    let labels = BTreeMap::from([("mesh".to_owned(), "on".to_owned())]);
    let mut cache = Cache::new(vec![scope(SERVICE), scope(NAMESPACE)], labels);
    listed(&mut cache, SERVICE, vec![object("in", "a", ""), object("out", "b", "")]);
    listed(&mut cache, NAMESPACE, vec![namespace("in", "on"), namespace("out", "off")]);
    assert_eq!(origins(&cache), ["Namespace/in", "Namespace/out", "Service/in/a"]);
    cache.handle(&scope(NAMESPACE), Change::Applied(namespace("out", "on")));
    assert!(origins(&cache).contains(&"Service/out/b".to_owned()));
}

#[test]
fn selected_namespaces_have_watchers_of_their_own() {
    let selection =
        Selection { namespaces: vec!["a".to_owned(), "b".to_owned()], ..Selection::default() };
    let names: Vec<_> = kinds::scopes(&selection).iter().map(ToString::to_string).collect();
    assert!(names.contains(&"Service in namespace a".to_owned()));
    assert!(names.contains(&"Namespace in namespace b".to_owned()));
    assert!(names.contains(&"GatewayClass.gateway.networking.k8s.io".to_owned()));
    assert!(!names.contains(&"Service".to_owned()));
}

#[test]
fn managed_objects_are_kept_whole() {
    let services = Watched::Managed(kinds::ManagedKind::Service);
    let imports = Watched::Managed(kinds::ManagedKind::ServiceImport);
    let mut cache = cache(&[services, imports]);
    let mut service = object("shop", "web", "10.0.0.1");
    service["status"] = json!({"conditions": [{"type": "Ready"}]});
    listed(&mut cache, services, vec![service.clone()]);
    assert!(!cache.is_complete());
    cache.handle(&scope(imports), Change::Absent);
    assert!(cache.is_complete());
    let metadata = service["metadata"].as_object_mut().unwrap();
    metadata.remove("resourceVersion");
    assert_eq!(cache.documents(), [Arc::new(service)]);
}
