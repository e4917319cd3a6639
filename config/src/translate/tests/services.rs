//! Services of the cluster with their endpoints.

use std::collections::BTreeSet;
use std::net::IpAddr;

use isthmus_model::{EndpointTarget, Health, ServiceKey, Transport};

use super::*;
use crate::context::Workload;

const SLICES: &str = "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}, {name: metrics, port: 9090}]
endpoints:
- {addresses: [127.0.1.1], conditions: {ready: true}, zone: us-east-1b, hostname: web-0}
- {addresses: [127.0.1.2], conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [127.0.1.3], conditions: {ready: false}}
- {addresses: [127.0.1.4]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-2, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [127.0.1.1], conditions: {ready: false}}]
---
apiVersion: v1
kind: Service
metadata: {name: head, namespace: shop}
spec: {clusterIP: None, ports: [{port: 80}]}
";

#[test]
fn services_have_the_endpoints_of_their_slices_by_port_name() {
    let mut context = context();
    context.workloads.push(Workload {
        namespace: label("shop"),
        name: label("web-0"),
        service_account: label("web"),
        labels: Default::default(),
        address: "127.0.1.1".parse().unwrap(),
        ports: vec![8080],
        mesh: "127.0.1.1:15008".parse().unwrap(),
        locality: Locality::new("eu-west-1", "eu-west-1a"),
    });
    let services = local_services(&objects(&format!("{BASE}{SLICES}")), &context);
    let web = &services[&ServiceKey::cluster(label("shop"), label("web"))];
    assert_eq!(web.service.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(web.endpoints.ports.len(), 1);
    let by_ip = |ip: &str| {
        let address = format!("{ip}:8080").parse().unwrap();
        let mut all = web.endpoints.ports[0].endpoints.iter();
        let found = all
            .find(|e| matches!(e.target, EndpointTarget::Local { address: a, .. } if a == address));
        found.unwrap().clone()
    };
    let first = by_ip("127.0.1.1");
    assert_eq!(first.identity.unwrap().as_str(), "spiffe://aws.demo/ns/shop/sa/web");
    assert_eq!(first.locality, Locality::new("eu-west-1", "us-east-1b"));
    assert_eq!(first.hostname, Some(label("web-0")));
    assert_eq!(first.health, Health::Ready, "the better of two slices counts");
    let EndpointTarget::Local { mesh: Some(mesh), .. } = first.target else { panic!() };
    assert_eq!(mesh.0.port(), 15008);
    assert_eq!(by_ip("127.0.1.2").health, Health::Draining);
    assert_eq!(by_ip("127.0.1.3").health, Health::NotReady);
    let plain = by_ip("127.0.1.4");
    assert_eq!((plain.health, plain.identity), (Health::Ready, None));
    assert_eq!(plain.locality, Locality::new("us-east-1", "us-east-1a"));
    let ids: BTreeSet<_> = web.endpoints.ports[0].endpoints.iter().map(|e| &e.id).collect();
    assert_eq!(ids.len(), 4);
    let head = &services[&ServiceKey::cluster(label("shop"), label("head"))];
    assert!(head.service.headless && head.service.addresses.is_empty());
}

#[test]
fn ids_of_endpoints_are_stable() {
    let id = || {
        let services = local_services(&objects(&format!("{BASE}{SLICES}")), &context());
        let web = &services[&ServiceKey::cluster(label("shop"), label("web"))];
        web.endpoints.ports[0].endpoints[0].id.to_string()
    };
    assert_eq!(id(), id());
    assert_eq!(id().len(), 32);
}

#[test]
fn tcp_and_udp_on_one_number_have_endpoints_of_their_own_and_tcp_goes_first() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: dns}\n\
        spec: {ports: [{name: udp, port: 53, protocol: UDP}, {name: tcp, port: 53}]}\n\
        ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: {kubernetes.io/service-name: dns}}\n\
        addressType: IPv4\nports: [{name: udp, port: 5353, protocol: UDP}, {name: tcp, port: 5354}]\nendpoints: [{addresses: [127.0.0.1]}]\n";
    let services = local_services(&objects(text), &context());
    let ports = &services.values().next().unwrap().endpoints.ports;
    let targets: Vec<_> = ports
        .iter()
        .map(|group| match group.endpoints[0].target {
            EndpointTarget::Local { address, .. } => (group.transport, address.port()),
            EndpointTarget::Remote { .. } => panic!("the endpoint is local"),
        })
        .collect();
    assert_eq!(targets, [(Transport::Tcp, 5354), (Transport::Udp, 5353)]);
}
