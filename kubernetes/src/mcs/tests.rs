//! Several clusters as values: their objects go through validation, federation and this
//! module, and the writes go into a server that does what a real one would.
//!
//! The tests that a specification of mcs-api's conformance suite stands behind say which.

mod clusters;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use self::clusters::{Cluster, begin_anew, hello, settle, types};

fn two() -> [Cluster; 2] {
    [Cluster::new("a"), Cluster::new("b")]
}

fn exported_by_a() -> [Cluster; 2] {
    let [mut a, b] = two();
    a.user(hello());
    a.export(5, json!({}));
    [a, b]
}

/// Exported by both, by `a` earlier; `change` makes the Service of `b` another one.
fn exported_by_both(change: impl Fn(&mut Value)) -> [Cluster; 2] {
    let [a, mut b] = exported_by_a();
    let mut service = hello();
    change(&mut service);
    b.user(service);
    b.export(6, json!({}));
    let mut clusters = [a, b];
    settle(&mut clusters);
    clusters
}

#[test]
fn an_exported_service_is_imported_by_every_cluster_until_it_is_unexported() {
    // Conformance: "Exporting a ClusterIP service should create a ServiceImport of type
    // ClusterSetIP in the service's namespace in each cluster".
    let mut clusters = exported_by_a();
    settle(&mut clusters);
    for cluster in &clusters {
        let import = cluster.import().unwrap();
        assert_eq!(import["spec"]["type"], "ClusterSetIP");
        assert_eq!(import["apiVersion"], "multicluster.x-k8s.io/v1beta1");
        assert_eq!(import["status"]["clusters"], json!([{"cluster": "a"}]));
        assert_eq!(types(import), ["Ready=True/Ready"]);
    }
    let valid = ["Valid=True/Valid", "Ready=True/Ready", "Conflict=False/NoConflicts"];
    assert_eq!(types(clusters[0].export_object().unwrap()), valid);
    clusters[0].unexport();
    settle(&mut clusters);
    for cluster in &clusters {
        assert_eq!(cluster.managed, [] as [Value; 0], "everything of the import is gone");
    }
}

#[test]
fn an_import_stays_as_long_as_one_cluster_exports() {
    // Conformance: "A ServiceImport should only exist as long as there's at least one
    // exporting cluster".
    let mut clusters = exported_by_both(|_| {});
    let before = clusters[0].import().unwrap()["spec"].clone();
    clusters[0].unexport();
    settle(&mut clusters);
    let import = clusters[0].import().unwrap();
    assert_eq!(import["status"]["clusters"], json!([{"cluster": "b"}]));
    assert_eq!(import["spec"], before, "the address stays");
    clusters[1].unexport();
    settle(&mut clusters);
    assert!(clusters.iter().all(|cluster| cluster.import().is_none()));
}

#[test]
fn what_another_cluster_exports_stays_while_a_new_controller_has_not_heard_it() {
    let mut clusters = exported_by_a();
    settle(&mut clusters);
    let before = clusters[1].managed.clone();
    assert!(before.len() > 2);
    begin_anew(&mut clusters[1]);
    assert_eq!(clusters[1].managed, before, "addresses are kept, and nothing is written");
    // The cluster that exports has nothing to wait for.
    begin_anew(&mut clusters[0]);
    assert_eq!(clusters[0].import().unwrap()["status"]["clusters"], json!([{"cluster": "a"}]));
    settle(&mut clusters);
    assert_eq!(clusters[1].managed, before);
}

#[test]
fn nothing_stays_of_a_cluster_whose_link_is_gone_or_that_was_heard() {
    let mut clusters = exported_by_a();
    settle(&mut clusters);
    clusters[1].documents.retain(|object| object["kind"] != "ClusterLink");
    begin_anew(&mut clusters[1]);
    assert_eq!(clusters[1].managed, [] as [Value; 0]);
}

#[test]
fn what_the_service_says_of_its_traffic_is_copied() {
    // Conformance: SessionAffinity, SessionAffinityConfig, InternalTrafficPolicy,
    // TrafficDistribution.
    let mut clusters = exported_by_a();
    settle(&mut clusters);
    for cluster in &clusters {
        let spec = &cluster.import().unwrap()["spec"];
        assert_eq!(spec["sessionAffinity"], "ClientIP");
        assert_eq!(spec["sessionAffinityConfig"], json!({"clientIP": {"timeoutSeconds": 10}}));
        assert_eq!(spec["internalTrafficPolicy"], "Cluster");
        assert_eq!(spec["trafficDistribution"], "PreferClose");
        let derived = &cluster.of("Service")[0]["spec"];
        assert_eq!(derived["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10);
        assert_eq!(derived["internalTrafficPolicy"], Value::Null);
    }
}

#[test]
fn there_is_one_address_of_each_family_in_the_order_of_the_families() {
    // Conformance: "An IP should be allocated for a ClusterSetIP ServiceImport for each IP
    // family".
    let [mut a, b] = two();
    let mut service = hello();
    service["spec"]["ipFamilies"] = json!(["IPv6", "IPv4"]);
    a.user(service);
    a.export(5, json!({}));
    let mut clusters = [a, b];
    settle(&mut clusters);
    for cluster in &clusters {
        let spec = &cluster.import().unwrap()["spec"];
        let derived = &cluster.of("Service")[0]["spec"];
        assert_eq!(spec["ipFamilies"], json!(["IPv6", "IPv4"]));
        assert_eq!(spec["ips"], derived["clusterIPs"]);
        let ips: Vec<&str> =
            spec["ips"].as_array().unwrap().iter().map(|ip| ip.as_str().unwrap()).collect();
        assert!(ips[0].contains(':') && ips[1].contains('.'), "{ips:?}");
    }
}

#[test]
fn a_family_that_this_cluster_does_not_have_is_left_out() {
    let [mut a, mut b] = two();
    b.only_ipv4();
    a.user(hello());
    a.export(5, json!({}));
    let mut clusters = [a, b];
    settle(&mut clusters);
    let spec = &clusters[1].import().unwrap()["spec"];
    assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
    assert_eq!(clusters[1].of("Service")[0]["spec"]["ipFamilyPolicy"], "SingleStack");
}

#[test]
fn the_ports_are_those_of_the_service() {
    // Conformance: "The ports for a ClusterSetIP ServiceImport should match those of the
    // exported service".
    let mut clusters = exported_by_a();
    settle(&mut clusters);
    let wanted = json!([
        {"name": "tcp", "protocol": "TCP", "port": 42},
        {"name": "udp", "protocol": "UDP", "port": 42},
    ]);
    assert_eq!(clusters[1].import().unwrap()["spec"]["ports"], wanted);
}

#[test]
fn a_port_without_a_name_gets_one_only_where_it_is_needed() {
    let [mut a, mut b] = two();
    let mut service = hello();
    service["spec"]["ports"] = json!([{"port": 42, "protocol": "TCP"}]);
    a.user(service);
    a.export(5, json!({}));
    b.user(hello());
    let mut clusters = [a, b];
    settle(&mut clusters);
    assert_eq!(clusters[1].of("Service")[0]["spec"]["ports"][0]["name"], Value::Null);
    let other = &mut clusters[1];
    other.documents.retain(|object| object["metadata"]["name"] != "hello");
    let mut service = hello();
    service["spec"]["ports"] = json!([{"name": "more", "port": 43, "protocol": "TCP"}]);
    other.user(service);
    other.export(6, json!({}));
    settle(&mut clusters);
    let name = clusters[1].of("Service")[0]["spec"]["ports"][0]["name"].clone();
    assert_eq!(name, "unnamed-tcp-42");
    assert_eq!(clusters[1].slice("a", "IPv4")["ports"][0]["name"], name);
    assert_eq!(clusters[1].import().unwrap()["spec"]["ports"][0]["name"], Value::Null);
}

#[test]
fn different_ports_are_united_and_conflict_on_both_exports() {
    // Conformance: "should expose the union of the constituent service ports and raise a
    // conflict"; StrictPortConflict: each port reaches only its cluster.
    let clusters = exported_by_both(|service| {
        service["spec"]["ports"][1] = json!({"name": "more", "port": 142, "protocol": "TCP"});
    });
    for cluster in &clusters {
        let ports = cluster.import().unwrap()["spec"]["ports"].as_array().unwrap().clone();
        let names: Vec<&Value> = ports.iter().map(|port| &port["name"]).collect();
        assert_eq!(names, ["tcp", "udp", "more"]);
        let conditions = types(cluster.export_object().unwrap());
        assert_eq!(conditions[2], "Conflict=True/PortConflict");
        let slice = |source: &str| cluster.slice(source, "IPv4");
        assert_eq!(slice("a")["ports"].as_array().unwrap().len(), 1);
        assert_eq!(slice("b")["ports"].as_array().unwrap().len(), 2);
        let same = |slice: &Value| slice["ports"][0]["port"].clone();
        assert_eq!(same(slice("a")), same(slice("b")), "a port of the gateway means a port");
    }
}

#[test]
fn one_port_name_with_two_numbers_is_the_oldest_exports() {
    // Conformance: "should apply the conflict resolution policy and report a Conflict
    // condition on each ServiceExport".
    let clusters = exported_by_both(|service| {
        service["spec"]["ports"] = json!([{"name": "tcp", "port": 43, "protocol": "TCP"}]);
    });
    for cluster in &clusters {
        assert_eq!(cluster.import().unwrap()["spec"]["ports"][0]["port"], 42);
        assert_eq!(types(cluster.export_object().unwrap())[2], "Conflict=True/PortConflict");
        let none = cluster.slice("b", "IPv4")["ports"].as_array().unwrap().len();
        assert_eq!(none, 0, "only the winner's cluster answers");
    }
}

#[test]
fn a_headless_service_has_no_address_and_the_pods_of_its_own_cluster() {
    // Conformance: "Exporting a headless service should create a ServiceImport of type
    // Headless"; "No clusterset IP should be allocated for a Headless ServiceImport".
    let [mut a, b] = two();
    let mut service = hello();
    service["spec"]["clusterIP"] = json!("None");
    service["spec"]["clusterIPs"] = json!(["None"]);
    a.user(service);
    a.user(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "shop", "name": "hello-x7k2p",
            "labels": {"kubernetes.io/service-name": "hello"}},
        "ports": [{"name": "tcp", "port": 42, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.1.0.9"], "hostname": "hello-0", "zone": "z",
            "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": "hello-0"}}],
    }));
    a.export(5, json!({}));
    let mut clusters = [a, b];
    settle(&mut clusters);
    for cluster in &clusters {
        let spec = &cluster.import().unwrap()["spec"];
        assert_eq!((&spec["type"], &spec["ips"]), (&json!("Headless"), &Value::Null));
        assert_eq!(spec["ipFamilies"], json!(["IPv4", "IPv6"]));
        assert!(cluster.of("Service").is_empty());
    }
    let slice = clusters[0].slice("a", "IPv4");
    assert_eq!(slice["endpoints"][0]["hostname"], "hello-0");
    assert_eq!(slice["endpoints"][0]["targetRef"]["name"], "hello-0");
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], Value::Null);
    assert!(clusters[1].of("EndpointSlice").is_empty());
}

#[test]
fn an_external_name_is_not_exported() {
    // Conformance: "Exporting an ExternalName service should set ServiceExport Valid
    // condition to False".
    let [mut a, b] = two();
    a.user(json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": "hello"},
        "spec": {"type": "ExternalName", "externalName": "example.com"}}));
    a.export(5, json!({}));
    let mut clusters = [a, b];
    settle(&mut clusters);
    let conditions = types(clusters[0].export_object().unwrap());
    assert_eq!(conditions[0], "Valid=False/InvalidServiceType");
    assert!(clusters.iter().all(|cluster| cluster.managed.is_empty()));
}

#[test]
fn headless_or_not_is_decided_by_the_oldest_export() {
    // Conformance: "A service exported on two clusters with conflicting headlessness".
    let clusters = exported_by_both(|service| {
        service["spec"]["clusterIP"] = json!("None");
        service["spec"]["clusterIPs"] = json!(["None"]);
    });
    for cluster in &clusters {
        assert_eq!(cluster.import().unwrap()["spec"]["type"], "ClusterSetIP");
        assert_eq!(types(cluster.export_object().unwrap())[2], "Conflict=True/TypeConflict");
    }
}

#[test]
fn only_exported_labels_and_annotations_reach_the_import_and_the_oldest_win() {
    // Conformance [ExportedLabels], both specifications.
    let [mut a, mut b] = two();
    let spec =
        |key: &str| json!({"exportedLabels": {key: "true"}, "exportedAnnotations": {key: "true"}});
    a.user(hello());
    b.user(hello());
    a.export(5, spec("dummy"));
    b.export(6, spec("dummy2"));
    let mut clusters = [a, b];
    settle(&mut clusters);
    for cluster in &clusters {
        let metadata = &cluster.import().unwrap()["metadata"];
        for field in ["labels", "annotations"] {
            assert_eq!(metadata[field]["dummy"], "true");
            assert_eq!(metadata[field]["dummy2"], Value::Null);
            assert_eq!(metadata[field]["dummy-svc"], Value::Null);
        }
        let conflict = &types(cluster.export_object().unwrap())[2];
        assert_eq!(conflict, "Conflict=True/AnnotationsConflict,LabelsConflict");
    }
}

#[test]
fn a_label_that_the_server_would_refuse_does_not_cost_the_import() {
    let [mut a, b] = two();
    a.user(hello());
    let labels = json!({
        "good.test/key": "v", "bad key": "v", "key": "bad value", "isthmus.io/mine": "v",
        "multicluster.kubernetes.io/service-name": "other", "-x": "v", "a/b/c": "v",
        "app.kubernetes.io/managed-by": "me", "app.kubernetes.io/name": "hello",
    });
    a.export(5, json!({"exportedLabels": labels}));
    let mut clusters = [a, b];
    settle(&mut clusters);
    let import = clusters[1].import().unwrap();
    let kept: BTreeSet<&String> =
        import["metadata"]["labels"].as_object().unwrap().keys().collect();
    let wanted = ["app.kubernetes.io/managed-by", "app.kubernetes.io/name", "good.test/key"];
    assert!(kept.into_iter().eq(wanted), "{import:#}");
    assert_eq!(import["metadata"]["labels"]["app.kubernetes.io/managed-by"], "isthmus");
}

#[test]
fn slices_name_their_source_and_hold_the_ready_pods_of_the_gateway() {
    // Conformance [EndpointSlice].
    let mut clusters = exported_by_a();
    settle(&mut clusters);
    for cluster in &clusters {
        let derived = cluster.of("Service")[0]["metadata"]["name"].clone();
        for family in ["IPv4", "IPv6"] {
            let slice = cluster.slice("a", family);
            let labels = &slice["metadata"]["labels"];
            assert_eq!(labels["multicluster.kubernetes.io/service-name"], "hello");
            assert_eq!(labels["multicluster.kubernetes.io/source-cluster"], "a");
            assert_eq!(labels["kubernetes.io/service-name"], derived);
            let manager = &labels["endpointslice.kubernetes.io/managed-by"];
            assert_eq!(manager, "endpointslice-controller.isthmus.io");
            let endpoint = |n: usize| &slice["endpoints"][n];
            assert_eq!(endpoint(0)["conditions"]["ready"], true);
            assert_eq!(endpoint(0)["nodeName"], "n1");
            assert_eq!(endpoint(0)["zone"], "z1");
            assert_eq!(endpoint(0)["targetRef"]["name"], "isthmus-eastwest-0");
            assert_eq!(endpoint(1)["conditions"]["ready"], false);
        }
    }
}

#[test]
fn the_port_of_a_slice_is_the_one_at_which_the_gateway_listens() {
    let mut clusters = exported_by_a();
    settle(&mut clusters);
    let cluster = &clusters[1];
    let port = &cluster.slice("a", "IPv4")["ports"][0];
    let bound = *cluster.decided.as_ref().unwrap().plan.federated.unmeshed.values().next().unwrap();
    assert_eq!(port, &json!({"name": "tcp", "port": bound, "protocol": "TCP"}));
    let given = super::given_ports(&cluster.managed);
    assert_eq!(given.into_values().collect::<Vec<_>>(), [bound]);
}

#[test]
fn slices_are_cut_at_a_hundred_endpoints() {
    let mut clusters = exported_by_a();
    let gateway = clusters[1].pods[0].clone();
    for n in 2..150 {
        let mut pod = gateway.clone();
        pod.name = format!("isthmus-eastwest-{n}");
        clusters[1].pods.push(pod);
    }
    settle(&mut clusters);
    let sizes: Vec<usize> = clusters[1]
        .of("EndpointSlice")
        .iter()
        .filter(|slice| slice["addressType"] == "IPv4")
        .map(|slice| slice["endpoints"].as_array().unwrap().len())
        .collect();
    assert_eq!(sizes, [100, 50]);
}

#[test]
fn a_derived_service_that_is_deleted_comes_back_and_keeps_its_port() {
    let mut clusters = exported_by_a();
    settle(&mut clusters);
    let before = clusters[1].slice("a", "IPv4")["ports"].clone();
    clusters[1].managed.retain(|object| object["kind"] != "Service");
    settle(&mut clusters);
    assert_eq!(clusters[1].of("Service").len(), 1);
    assert_eq!(clusters[1].slice("a", "IPv4")["ports"], before);
    let import = clusters[1].import().unwrap();
    assert_eq!(import["spec"]["ips"], clusters[1].of("Service")[0]["spec"]["clusterIPs"]);
}

#[test]
fn a_service_of_somebody_else_with_the_derived_name_is_left_alone() {
    let mut clusters = exported_by_a();
    let name = super::names::derived(&clusters::service_name());
    let foreign = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"ports": [{"port": 1}], "clusterIPs": ["10.96.0.99"]}});
    clusters[1].user(foreign);
    settle(&mut clusters);
    assert!(clusters[1].of("Service").is_empty());
    let import = clusters[1].import().unwrap();
    assert_eq!(types(import), ["Ready=False/Pending"]);
    assert_eq!(import["spec"]["ips"], Value::Null);
    let message = import["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains(&name), "{message}");
}

#[test]
fn only_our_own_objects_give_addresses_and_ports() {
    let mut clusters = exported_by_a();
    settle(&mut clusters);
    let mut managed = clusters[1].managed.clone();
    assert_eq!(super::clusterset_ips(&managed).len(), 1);
    for object in &mut managed {
        object["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("somebody");
    }
    assert!(super::clusterset_ips(&managed).is_empty());
    assert!(super::given_ports(&managed).is_empty());
}

#[test]
fn a_link_says_whether_it_is_used_and_whether_the_other_cluster_is_heard() {
    let mut clusters = two();
    clusters[0].link("again", "b", "b.test", 9);
    settle(&mut clusters);
    let status = |name: &str| types(clusters[0].document("ClusterLink", name).unwrap());
    assert_eq!(status("b"), ["Accepted=True/Accepted", "Connected=True/Connected"]);
    assert_eq!(status("again"), ["Accepted=False/Conflicted", "Connected=False/NotAccepted"]);
    let link = clusters[0].document("ClusterLink", "b").unwrap();
    assert_eq!(link["status"]["lease"], "valid");
    assert_eq!(link["status"]["conditions"][0]["observedGeneration"], 1);
}

#[test]
fn the_older_version_is_written_where_the_server_has_only_that() {
    let [mut a, b] = two();
    a.user(hello());
    a.export(5, json!({}));
    let export = a.documents.iter_mut().find(|object| object["kind"] == "ServiceExport").unwrap();
    export["apiVersion"] = json!("multicluster.x-k8s.io/v1alpha1");
    let mut clusters = [a, b];
    settle(&mut clusters);
    let version = &clusters[0].import().unwrap()["apiVersion"];
    assert_eq!(version, "multicluster.x-k8s.io/v1alpha1");
}
