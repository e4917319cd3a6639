use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::budget::{Budget, EVENTS_MAX, EVENTS_OF_OBJECT_MAX, WINDOW};
use super::*;

fn gateway(name: &str) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": name, "namespace": "infra", "uid": "u-1"}})
}

fn status(status: &str, reason: &str, message: &str) -> Value {
    json!({"conditions": [{"type": "Programmed", "status": status, "reason": reason, "message": message}]})
}

fn drafts(before: Value, after: Value) -> Vec<String> {
    let mut observed = gateway("web");
    // Observed in an older version than the one that is written.
    observed["apiVersion"] = json!("gateway.networking.k8s.io/v1beta1");
    observed["status"] = before;
    let id = ObjectId::of(&gateway("web")).unwrap();
    let body = json!({"status": after});
    let plan = Plan { actions: vec![Action::ApplyStatus { id, body }], unchanged: 0 };
    of_plan(&plan, &[observed]).iter().map(ToString::to_string).collect()
}

#[test]
fn what_turns_bad_is_a_warning_and_what_turns_good_is_normal() {
    let (good, bad) = (status("True", "Programmed", ""), status("False", "NoResources", "no pods"));
    assert_eq!(
        drafts(good.clone(), bad.clone()),
        ["Warning Gateway infra/web NoResources: no pods"]
    );
    assert_eq!(drafts(bad, good), ["Normal Gateway infra/web Programmed: Programmed again"]);
    let first = drafts(json!(null), status("False", "Invalid", ""));
    assert_eq!(first, ["Warning Gateway infra/web Invalid: not Programmed"]);
}

#[test]
fn what_stays_as_it_was_is_not_said_again() {
    let bad = status("False", "NoResources", "0 of 2 pods");
    assert!(drafts(bad.clone(), status("False", "NoResources", "1 of 2 pods")).is_empty());
    assert_eq!(drafts(bad.clone(), status("False", "AddressNotAssigned", "")).len(), 1);
    let good = status("True", "Programmed", "");
    assert!(drafts(good.clone(), good.clone()).is_empty());
    assert!(drafts(json!(null), good).is_empty());
    assert!(drafts(bad, json!({})).is_empty());
}

#[test]
fn waiting_is_no_news() {
    let waiting = [status("Unknown", "Pending", ""), status("False", "Pending", "")];
    for waits in waiting {
        assert!(drafts(json!(null), waits.clone()).is_empty());
        assert!(drafts(waits.clone(), status("True", "Programmed", "")).is_empty());
        assert!(drafts(status("False", "Invalid", ""), waits).is_empty());
    }
}

#[test]
fn parts_of_a_status_are_told_apart() {
    let listeners = |a: &str, b: &str| {
        let of = |name: &str, status: &str| json!({"name": name, "conditions": [{"type": "ResolvedRefs", "status": status, "reason": "InvalidCertificateRef", "message": "no Secret"}]});
        json!({"listeners": [of("a", a), of("b", b)]})
    };
    assert_eq!(
        drafts(listeners("True", "True"), listeners("True", "False")),
        ["Warning Gateway infra/web InvalidCertificateRef: listener b: no Secret"]
    );
}

#[test]
fn events_are_bounded_for_each_object_and_in_all_and_the_rest_is_counted() {
    let draft = |name: &str| Draft {
        id: ObjectId::of(&gateway(name)).unwrap(),
        uid: String::new(),
        severity: Severity::Warning,
        reason: "R".to_owned(),
        action: "A".to_owned(),
        note: "n".to_owned(),
    };
    let (mut budget, start) = (Budget::default(), isthmus_runtime::clock::now());
    let taken = budget.take(start, vec![draft("web"); 20]);
    assert_eq!(taken.len(), usize::try_from(EVENTS_OF_OBJECT_MAX).unwrap());
    assert_eq!(budget.dropped(), u64::from(20 - EVENTS_OF_OBJECT_MAX));
    let many = (0..300).map(|n| draft(&format!("g{n}"))).collect();
    let taken = budget.take(start + Duration::from_secs(59), many);
    assert_eq!(taken.len(), usize::try_from(EVENTS_MAX - EVENTS_OF_OBJECT_MAX).unwrap());
    assert_eq!(budget.take(start + WINDOW, vec![draft("web")]).len(), 1);
}

#[test]
fn an_event_names_its_object_and_keeps_the_bounds_of_its_api() {
    let id = ObjectId {
        api_version: "isthmus.io/v1alpha1".to_owned(),
        kind: "ClusterLink".to_owned(),
        namespace: String::new(),
        name: "n".repeat(253),
    };
    let condition = RawCondition {
        part: String::new(),
        kind: "Connected".to_owned(),
        status: crate::inspect::condition::RawStatus::False,
        reason: "r".repeat(500),
        message: "\u{e4}".repeat(2000),
        observed_generation: 0,
    };
    let none = Subject { id, uid: "u".to_owned(), conditions: Vec::new() };
    let after = Subject { conditions: vec![condition], ..none.clone() };
    let drafts = desired(&none, &after);
    let event = post::event(&drafts[0], "pod-1", Timestamp::from_second(1_800_000_000).unwrap(), 3);
    assert!(event.metadata.name.as_ref().unwrap().len() <= 253);
    assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
    assert_eq!(event.reason.unwrap().len(), 128);
    let note = event.note.unwrap();
    assert!(note.len() <= NOTE_BYTES_MAX && note.ends_with("..."));
    let regarding = event.regarding.unwrap();
    assert_eq!((regarding.namespace, regarding.uid.as_deref()), (None, Some("u")));
    assert_eq!(event.type_.as_deref(), Some("Warning"));
}
