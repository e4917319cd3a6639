use std::collections::BTreeSet;

use isthmus_config::Kind;
use isthmus_kubernetes::apply::FIELD_MANAGER;
use isthmus_kubernetes::mark::{LEADER, LEADER_LABEL};

use super::*;
use crate::settings::Settings;

fn values(sets: &[(&str, Value)]) -> Values {
    let mut all = vec![("cluster.name".to_owned(), json!("c1"))];
    all.extend(sets.iter().map(|(path, value)| ((*path).to_owned(), value.clone())));
    Values::read(&[], &all).unwrap()
}

fn of_kind<'o>(objects: &'o [Value], kind: &str) -> Vec<&'o Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

#[test]
fn every_object_is_ours_and_none_is_taken_for_one_of_the_controllers() {
    let mut objects = objects(&values(&[]), Some("v1beta1"));
    objects.push(namespace());
    let mut ids = BTreeSet::new();
    for object in &objects {
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels[PART_LABEL], PART, "{object}");
        assert_eq!(labels[MANAGED_LABEL], MANAGER, "{object}");
        assert_ne!(labels[MANAGED_LABEL], FIELD_MANAGER);
        assert!(ids.insert(isthmus_kubernetes::ObjectId::of(object).unwrap()), "{object}");
    }
    assert_eq!(of_kind(&objects, "ClusterProperty").len(), 2);
}

#[test]
fn every_kind_that_is_watched_may_be_listed_and_watched() {
    let objects = objects(&values(&[]), None);
    let role = of_kind(&objects, "ClusterRole")[0];
    let rules = role["rules"].as_array().unwrap();
    let may = |group: &str, resource: &str, verb: &str| {
        rules.iter().any(|rule| {
            let has = |field: &str, wanted: &str| {
                rule[field].as_array().unwrap().iter().any(|entry| entry == wanted)
            };
            has("apiGroups", group) && has("resources", resource) && has("verbs", verb)
        })
    };
    for kind in Kind::ALL {
        let lower = kind.label().to_lowercase();
        let plural = match lower.strip_suffix('y') {
            Some(stem) if !lower.ends_with("way") => format!("{stem}ies"),
            _ if lower.ends_with("ss") => format!("{lower}es"),
            _ if lower.ends_with('s') => lower.clone(),
            _ => format!("{lower}s"),
        };
        for verb in ["list", "watch"] {
            assert!(may(kind.group(), &plural, verb), "{verb} {plural}");
        }
    }
}

#[test]
fn of_the_definitions_only_that_of_gateway_classes_may_be_watched() {
    let objects = objects(&values(&[]), None);
    let role = of_kind(&objects, "ClusterRole")[0];
    let rules = role["rules"].as_array().unwrap().iter();
    let rules: Vec<&Value> =
        rules.filter(|rule| rule["resources"] == json!(["customresourcedefinitions"])).collect();
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0]["resourceNames"], json!(["gatewayclasses.gateway.networking.k8s.io"]));
    assert_eq!(rules[0]["verbs"], json!(["list", "watch"]));
}

#[test]
fn no_right_is_given_by_a_wildcard_and_only_to_the_controller() {
    let objects = objects(&values(&[]), None);
    for object in of_kind(&objects, "ClusterRole").into_iter().chain(of_kind(&objects, "Role")) {
        assert!(!object["rules"].to_string().contains('*'), "{object}");
    }
    for kind in ["ClusterRoleBinding", "RoleBinding"] {
        for binding in of_kind(&objects, kind) {
            let subjects = binding["subjects"].as_array().unwrap();
            assert_eq!(subjects.len(), 1);
            assert_eq!(subjects[0]["name"], "isthmus-controller");
        }
    }
    for deployment in of_kind(&objects, "Deployment") {
        let is_controller = deployment["metadata"]["name"] == "isthmus-controller";
        let mounts = &deployment["spec"]["template"]["spec"]["automountServiceAccountToken"];
        assert_eq!(*mounts, json!(is_controller));
    }
}

#[test]
fn the_service_of_the_controller_finds_the_leader_alone() {
    let objects = objects(&values(&[]), None);
    let services = of_kind(&objects, "Service");
    let found = services.iter().find(|it| it["metadata"]["name"] == "isthmus-controller").unwrap();
    assert_eq!(found["spec"]["selector"][LEADER_LABEL], LEADER);
    for deployment in of_kind(&objects, "Deployment") {
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        assert!(labels.get(LEADER_LABEL).is_none(), "the process says it, not its template");
    }
    let patches_pods = |role: &Value| {
        role["rules"].as_array().unwrap().iter().any(|rule| {
            let has =
                |field: &str, entry: &str| rule[field].as_array().unwrap().contains(&json!(entry));
            has("apiGroups", "") && has("resources", "pods") && has("verbs", "patch")
        })
    };
    assert!(patches_pods(of_kind(&objects, "Role")[0]));
    assert!(!patches_pods(of_kind(&objects, "ClusterRole")[0]), "not in every namespace");
}

#[test]
fn a_pod_has_the_time_to_drain_before_it_is_killed() {
    let values = values(&[]);
    let objects = objects(&values, None);
    for deployment in of_kind(&objects, "Deployment") {
        let pod = &deployment["spec"]["template"]["spec"];
        let component = deployment["metadata"]["labels"][COMPONENT_LABEL].as_str().unwrap();
        let settings: Value = serde_saphyr::from_str(&settings::text(component, &values)).unwrap();
        let seconds = |field: &str| -> u64 {
            let text = settings["drain"][field].as_str().unwrap();
            text.strip_suffix('s').unwrap().parse().unwrap()
        };
        // Ingress and links drain one after the other.
        let parts = if component == "eastwest" { 2 } else { 1 };
        let drain = seconds("delay") + parts * seconds("deadline");
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace >= drain + 5, "{component}: {grace} s for {drain} s");
    }
}

#[test]
fn the_settings_of_every_component_are_valid() {
    for families in [json!([]), json!(["IPv6", "IPv4"])] {
        let values = values(&[
            ("ipFamilies", families),
            ("trustDomain", json!("c1.test")),
            ("telemetry.otlp", json!("http://collector:4317")),
            ("telemetry.accessLog", json!("failures")),
        ]);
        let config_map = settings::config_map(&values);
        for (key, text) in config_map["data"].as_object().unwrap() {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("cluster.yaml");
            std::fs::write(&file, text.as_str().unwrap()).unwrap();
            let settings = Settings::load(&file).unwrap_or_else(|error| panic!("{key}: {error}"));
            assert!(settings.kubernetes.is_some(), "{key}");
        }
    }
}

#[test]
fn a_change_of_settings_replaces_the_pods() {
    let hash = |values: &Values| {
        let objects = objects(values, None);
        let template = &of_kind(&objects, "Deployment")[1]["spec"]["template"];
        template["metadata"]["annotations"][pods::SETTINGS_HASH].clone()
    };
    assert_eq!(hash(&values(&[])), hash(&values(&[("dns.replicas", json!(3))])));
    assert_ne!(hash(&values(&[])), hash(&values(&[("log.filter", json!("debug"))])));
}

#[test]
fn switches_leave_objects_out() {
    let off = values(&[
        ("networkPolicy.enabled", json!(false)),
        ("podDisruptionBudget.enabled", json!(false)),
        ("gatewayClass.enabled", json!(false)),
        ("clusterProperties", json!("never")),
    ]);
    let objects = objects(&off, Some("v1beta1"));
    for kind in ["NetworkPolicy", "PodDisruptionBudget", "GatewayClass", "ClusterProperty"] {
        assert!(of_kind(&objects, kind).is_empty(), "{kind}");
    }
}
