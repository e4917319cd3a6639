//! Who uses the targets of policies of which the translation does not say it.

use super::*;

/// A route of a kind to the service `web` at a listener of `edge`.
fn stream_route(kind: &str, listener: &str) -> Value {
    let mut parent = parent("edge");
    parent["sectionName"] = json!(listener);
    let rules = json!([{"backendRefs": [{"name": "web", "port": 443}]}]);
    let mut spec = json!({"parentRefs": [parent], "rules": rules});
    if kind == "TLSRoute" {
        spec["hostnames"] = json!(["web.example"]);
    }
    object(kind, "front", spec)
}

/// A Gateway with a listener of every kind that stream routes attach to.
fn with_streams() -> Value {
    let tls = |mode: &str| json!({"mode": mode, "certificateRefs": [{"name": "certificate"}]});
    let mut gateway = gateway("edge", "isthmus");
    gateway["spec"]["listeners"] = json!([
        {"name": "tcp", "port": 1000, "protocol": "TCP"},
        {"name": "ends", "port": 1001, "protocol": "TLS", "tls": tls("Terminate")},
        {"name": "passes", "port": 1002, "protocol": "TLS", "tls": {"mode": "Passthrough"}},
        {"name": "udp", "port": 1003, "protocol": "UDP"},
        {"name": "elsewhere", "port": 1004, "protocol": "TLS", "tls": tls("Terminate"),
         "hostname": "other.example"},
        {"name": "closed", "port": 1005, "protocol": "TCP",
         "allowedRoutes": {"kinds": [{"kind": "TLSRoute"}]}},
    ]);
    gateway
}

#[test]
fn streams_that_end_at_a_gateway_count_as_users_of_a_policy_that_cannot_be_used() {
    for (kind, listener, is_user) in [
        ("TCPRoute", "tcp", true),
        ("TCPRoute", "closed", false),
        ("TLSRoute", "ends", true),
        ("TLSRoute", "passes", false),
        ("TLSRoute", "elsewhere", false),
        ("TLSRoute", "absent", false),
        ("UDPRoute", "udp", false),
    ] {
        let mut world = World::new();
        let policy = with_policy(&mut world, 443);
        world.remove("HTTPRoute", "front");
        world.observe(with_streams());
        world.observe(stream_route(kind, listener));
        let used = |status: &Value| status["ancestors"][0]["ancestorRef"]["name"] == "edge";
        let at = format!("{kind} at {listener}");
        // As the translation counts them.
        assert_eq!(used(&world.status("BackendTLSPolicy", "tls")), is_user, "{at}");
        let hostname = json!("not a name");
        world.observe(changed(policy.clone(), 2, "/spec/validation/hostname", hostname));
        let status = world.status("BackendTLSPolicy", "tls");
        assert_eq!(used(&status), is_user, "rejected, {at}");
        world.observe(policy);
        world.remove("Service", "web");
        let status = world.status("BackendTLSPolicy", "tls");
        assert_eq!(used(&status), is_user, "without its target, {at}");
    }
}

#[test]
fn a_copy_of_requests_counts_and_a_route_that_is_not_accepted_does_not() {
    let mut world = World::new();
    let policy = with_policy(&mut world, 443);
    let mirror = json!([{
        "filters": [{"type": "RequestMirror",
                     "requestMirror": {"backendRef": {"name": "web", "port": 443}}}],
        "backendRefs": [{"name": "other", "port": 80}],
    }]);
    let mut route = route(&[parent("edge")]);
    route["spec"]["rules"] = mirror;
    world.observe(route.clone());
    let hostname = json!("not a name");
    world.observe(changed(policy, 2, "/spec/validation/hostname", hostname));
    let names = |status: &Value| status["ancestors"].as_array().map_or(0, Vec::len);
    assert_eq!(names(&world.status("BackendTLSPolicy", "tls")), 1);
    route["spec"]["parentRefs"][0]["sectionName"] = json!("absent");
    world.observe(route);
    assert_eq!(names(&world.status("BackendTLSPolicy", "tls")), 0);
}
