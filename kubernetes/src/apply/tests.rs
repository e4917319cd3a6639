use super::*;

fn service(name: &str, port: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
           "metadata": {"namespace": "shop", "name": name},
           "spec": {"ports": [{"name": "http", "port": port}]}})
}

/// What the server makes of an applied object: defaults, uid, fields of others.
fn stored(plan: &Plan) -> Vec<Value> {
    let mut stored = Vec::new();
    for action in &plan.actions {
        let Action::Apply { body, .. } = action else { continue };
        let mut body = body.clone();
        body["metadata"]["uid"] = json!("u1");
        body["metadata"]["labels"]["other"] = json!("x");
        body["spec"]["type"] = json!("ClusterIP");
        body["spec"]["ports"][0]["protocol"] = json!("TCP");
        stored.push(body);
    }
    stored
}

fn kinds(plan: &Plan) -> Vec<&'static str> {
    let kind = |action: &Action| match action {
        Action::Apply { .. } => "apply",
        Action::ApplyStatus { .. } => "status",
        Action::Delete { .. } => "delete",
    };
    plan.actions.iter().map(kind).collect()
}

#[test]
fn nothing_is_written_when_nothing_has_changed() {
    let desired = [service("web", 80)];
    let first = plan(&desired, &[]).unwrap();
    assert_eq!(kinds(&first), ["apply"]);
    let second = plan(&desired, &stored(&first)).unwrap();
    assert_eq!((second.actions.len(), second.unchanged), (0, 1));
}

#[test]
fn a_field_that_is_no_longer_desired_is_a_change() {
    let mut desired = service("web", 80);
    desired["spec"]["externalName"] = json!("a.example");
    let observed = stored(&plan(&[desired], &[]).unwrap());
    assert_eq!(kinds(&plan(&[service("web", 80)], &observed).unwrap()), ["apply"]);
}

#[test]
fn a_field_that_somebody_else_has_changed_is_written_back() {
    let desired = [service("web", 80)];
    let mut observed = stored(&plan(&desired, &[]).unwrap());
    observed[0]["spec"]["ports"][0]["port"] = json!(81);
    assert_eq!(kinds(&plan(&desired, &observed).unwrap()), ["apply"]);
}

#[test]
fn a_quantity_that_the_server_writes_in_another_way_is_no_change() {
    let mut desired = service("web", 80);
    desired["spec"]["resources"] = json!({"limits": {"cpu": 1, "memory": "1024Mi"}});
    let desired = [desired];
    let mut observed = stored(&plan(&desired, &[]).unwrap());
    observed[0]["spec"]["resources"] = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
    assert_eq!(plan(&desired, &observed).unwrap().unchanged, 1);
    observed[0]["spec"]["resources"]["limits"]["cpu"] = json!("2");
    assert_eq!(kinds(&plan(&desired, &observed).unwrap()), ["apply"]);
}

#[test]
fn an_object_of_nothing_but_its_names_is_neither_written_nor_deleted() {
    let observed = stored(&plan(&[service("web", 80)], &[]).unwrap());
    let names = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": "web"}});
    let kept = plan(std::slice::from_ref(&names), &observed).unwrap();
    assert_eq!((kept.actions.len(), kept.unchanged), (0, 1));
    assert_eq!(plan(&[names], &[]).unwrap().actions, [], "and one that has gone stays gone");
}

#[test]
fn a_name_that_only_somebody_else_has_is_new_to_us() {
    let is_new = |observed: &[Value]| {
        let plan = plan(&[service("web", 80)], observed).unwrap();
        matches!(plan.actions[..], [Action::Apply { is_new: true, .. }])
    };
    assert!(is_new(&[]) && is_new(&[service("web", 81)]));
    let mut ours = stored(&plan(&[service("web", 81)], &[]).unwrap());
    assert!(!is_new(&ours));
    ours[0]["metadata"]["annotations"] = json!({});
    assert!(!is_new(&ours), "a label of ours is enough where the hash was taken away");
}

#[test]
fn an_entry_that_somebody_else_has_added_is_left_alone() {
    let desired = [service("web", 80)];
    let mut observed = stored(&plan(&desired, &[]).unwrap());
    let port = json!({"name": "injected", "port": 9});
    observed[0]["spec"]["ports"].as_array_mut().unwrap().insert(0, port);
    assert_eq!(plan(&desired, &observed).unwrap().unchanged, 1);
}

#[test]
fn ours_that_is_not_desired_is_deleted_once_and_that_of_others_never() {
    let mut observed = stored(&plan(&[service("old", 80)], &[]).unwrap());
    observed.push(service("foreign", 80));
    let deletion = plan(&[service("new", 80)], &observed).unwrap();
    assert_eq!(kinds(&deletion), ["apply", "delete"]);
    let Action::Delete { id, uid } = &deletion.actions[1] else { panic!() };
    assert_eq!((id.to_string().as_str(), uid.as_str()), ("Service shop/old", "u1"));
    observed[0]["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(kinds(&plan(&[], &observed).unwrap()), Vec::<&str>::new());
}

#[test]
fn another_version_of_an_object_is_the_same_object() {
    let mut desired = service("web", 80);
    desired["apiVersion"] = json!("example.io/v1");
    let mut observed = stored(&plan(&[desired.clone()], &[]).unwrap());
    observed[0]["apiVersion"] = json!("example.io/v1beta1");
    desired["apiVersion"] = json!("example.io/v1");
    let plan = plan(&[desired], &observed).unwrap();
    assert!(!kinds(&plan).contains(&"delete"), "{plan:?}");
}

#[test]
fn an_object_without_a_name_plans_nothing() {
    let error = plan(&[json!({"apiVersion": "v1", "kind": "Service"})], &[]).unwrap_err();
    assert_eq!(error.to_string(), "Service ?/?: /metadata/name is missing");
}

fn gateway(status: Value) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
           "metadata": {"namespace": "infra", "name": "edge"}, "status": status})
}

fn condition(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status, "reason": "R", "message": "", "observedGeneration": 1})
}

fn observed_after(desired: &Value, observed: &Value, now: &str) -> (usize, Value) {
    let own = ["Accepted", "Programmed"];
    let planned =
        plan_status(std::slice::from_ref(desired), std::slice::from_ref(observed), &own, now);
    let planned = planned.unwrap();
    match planned.actions.as_slice() {
        [Action::ApplyStatus { body, .. }] => (1, body.clone()),
        _ => (0, observed.clone()),
    }
}

#[test]
fn a_status_is_written_once_and_keeps_its_times() {
    let desired = gateway(json!({
        "conditions": [condition("Accepted", "True")],
        "listeners": [{"name": "http", "attachedRoutes": 1, "conditions": [condition("Programmed", "True")]}],
    }));
    let (writes, first) = observed_after(&desired, &gateway(json!({})), "t1");
    assert_eq!(writes, 1);
    assert_eq!(observed_after(&desired, &first, "t2").0, 0);

    let mut changed = desired;
    changed["status"]["listeners"][0]["conditions"][0]["status"] = json!("False");
    let (writes, second) = observed_after(&changed, &first, "t2");
    assert_eq!(writes, 1);
    assert_eq!(second["status"]["conditions"][0]["lastTransitionTime"], "t1");
    let listener = &second["status"]["listeners"][0]["conditions"][0];
    assert_eq!(listener["lastTransitionTime"], "t2");
}

#[test]
fn a_status_is_planned_on_the_version_that_was_observed() {
    let desired = gateway(json!({"conditions": [condition("Accepted", "True")]}));
    let mut observed = gateway(json!({}));
    let version = |observed: &Value| {
        let (writes, body) = observed_after(&desired, observed, "t");
        assert_eq!(writes, 1);
        body["metadata"].get("resourceVersion").cloned()
    };
    assert_eq!(version(&observed), None, "of most kinds it is not known");
    observed["metadata"]["resourceVersion"] = json!("7");
    assert_eq!(version(&observed), Some(json!("7")));
    // The version is no part of what is desired.
    let (_, mut written) = observed_after(&desired, &observed, "t");
    written["metadata"]["resourceVersion"] = json!("8");
    assert_eq!(observed_after(&desired, &written, "t").0, 0);
}

#[test]
fn conditions_of_others_stay_and_ours_go() {
    let with = |types: &[&str]| {
        let conditions: Vec<Value> = types.iter().map(|kind| condition(kind, "True")).collect();
        gateway(json!({ "conditions": conditions }))
    };
    let (_, mut observed) = observed_after(&with(&["Accepted"]), &gateway(json!({})), "t1");
    let conditions = observed["status"]["conditions"].as_array_mut().unwrap();
    conditions.push(condition("TheirOwn", "True"));
    assert_eq!(observed_after(&with(&["Accepted"]), &observed, "t2").0, 0);
    let conditions = observed["status"]["conditions"].as_array_mut().unwrap();
    conditions.push(condition("Programmed", "True"));
    assert_eq!(observed_after(&with(&["Accepted"]), &observed, "t2").0, 1);
}

#[test]
fn a_listener_that_goes_is_a_change_of_the_status() {
    let listeners = |names: &[&str]| {
        let listeners: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
        gateway(json!({ "listeners": listeners }))
    };
    let observed = listeners(&["a", "b"]);
    assert_eq!(observed_after(&listeners(&["a", "b"]), &observed, "t").0, 0);
    assert_eq!(observed_after(&listeners(&["a"]), &observed, "t").0, 1);
}

#[test]
fn a_status_for_an_object_that_is_gone_is_not_written() {
    let plan = plan_status(&[gateway(json!({}))], &[], &[], "t").unwrap();
    assert_eq!(plan, Plan::default());
}

#[test]
fn what_the_server_makes_of_our_objects_is_left_alone() {
    let observed = stored(&plan(&[service("web", 80)], &[]).unwrap());
    // The EndpointSlice controller copies the labels of the Service.
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "shop", "name": "web-x", "uid": "u2",
            "labels": {MANAGED_LABEL: FIELD_MANAGER}}});
    let all = [observed, vec![slice]].concat();
    assert_eq!(plan(&[service("web", 80)], &all).unwrap().actions.len(), 0);
}
