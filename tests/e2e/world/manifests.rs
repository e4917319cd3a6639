//! Writes the manifests of a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::address::APPLICATION;
use super::{App, Cluster, Kind, Link, Plan};

/// Writes every manifest.
pub(crate) fn write(
    folder: &Path,
    cluster: &Cluster,
    plan: &Plan,
    bundles: &BTreeMap<String, String>,
    address_of: impl Fn(&str) -> SocketAddr,
) {
    let folder = folder.join(&cluster.name).join("manifests");
    let put = |file: &str, text: &str| fs::write(folder.join(file), text).unwrap();
    let mut namespaces: BTreeSet<&str> = cluster.apps.iter().map(|a| &*a.namespace).collect();
    namespaces.insert("shop");
    put("namespaces.yaml", &namespaces.into_iter().map(namespace).collect::<String>());
    if !cluster.listeners.is_empty() {
        put("gateway.yaml", &gateway(cluster));
    }
    for (index, app) in cluster.apps.iter().enumerate() {
        put(&format!("service-{}.yaml", app.service), &service(app));
        let slice = endpoint_slice(&app.service, &app.namespace, &[plan.app(index)]);
        put(&slice_file(&app.service), &slice);
    }
    for name in &cluster.exports {
        put(&format!("export-{name}.yaml"), &service_export(name));
    }
    for link in &cluster.links {
        let text = cluster_link(link, address_of(&link.to), &bundles[&link.to]);
        put(&format!("link-{}.yaml", link.to), &text);
    }
    for (file, text) in &cluster.manifests {
        put(file, text);
    }
}

/// The file of a service's EndpointSlice.
pub(crate) fn slice_file(service: &str) -> String {
    format!("endpoints-{service}.yaml")
}

/// An EndpointSlice of a service.
pub(crate) fn endpoint_slice(service: &str, namespace: &str, addresses: &[Ipv4Addr]) -> String {
    let one = |address: &Ipv4Addr| {
        format!("  - {{addresses: [\"{address}\"], conditions: {{ready: true}}}}\n")
    };
    let endpoints: String = addresses.iter().map(one).collect();
    let endpoints = if endpoints.is_empty() { " []\n".into() } else { format!("\n{endpoints}") };
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {service}-1
  namespace: {namespace}
  labels: {{kubernetes.io/service-name: {service}}}
addressType: IPv4
ports: [{{name: main, port: {APPLICATION}}}]
endpoints:{endpoints}"
    )
}

/// A ServiceExport of the namespace `shop`.
pub(crate) fn service_export(name: &str) -> String {
    format!(
        "apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceExport
metadata: {{name: {name}, namespace: shop}}
"
    )
}

fn namespace(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")
}

fn gateway(cluster: &Cluster) -> String {
    let mut text = String::from(
        "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: isthmus}
spec: {controllerName: isthmus.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: isthmus
  listeners:
",
    );
    for (index, listener) in cluster.listeners.iter().enumerate() {
        let port = listener.port;
        let protocol = if listener.secrets.is_empty() { "HTTP" } else { "HTTPS" };
        let _ = writeln!(text, "  - name: listener-{index}");
        let _ = writeln!(text, "    port: {port}\n    protocol: {protocol}");
        if let Some(hostname) = &listener.hostname {
            let _ = writeln!(text, "    hostname: {hostname}");
        }
        if !listener.secrets.is_empty() {
            let one = |name: &String| format!("{{name: {name}}}");
            let refs: Vec<String> = listener.secrets.iter().map(one).collect();
            let refs = refs.join(", ");
            let _ = writeln!(text, "    tls: {{mode: Terminate, certificateRefs: [{refs}]}}");
        }
    }
    text
}

fn service(app: &App) -> String {
    let protocol = match app.kind {
        Kind::Echo => "tcp",
        Kind::Http2 => "kubernetes.io/h2c",
        Kind::Http | Kind::Recorder | Kind::Upgrader => "http",
    };
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: main, port: 80, targetPort: {APPLICATION}, appProtocol: {protocol}}}]
",
        name = app.service,
        namespace = app.namespace,
    )
}

fn cluster_link(link: &Link, address: SocketAddr, bundle: &str) -> String {
    let addresses = if link.dial { format!("[\"{address}\"]") } else { "[]".into() };
    let rules = |names: &[String]| {
        let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        match names.as_slice() {
            [] => "[]".into(),
            names => format!("[{{namespaces: [shop], names: [{}]}}]", names.join(", ")),
        }
    };
    let bundle: String = bundle.lines().map(|line| format!("      {line}\n")).collect();
    format!(
        "apiVersion: isthmus.io/v1alpha1
kind: ClusterLink
metadata: {{name: {to}}}
spec:
  cluster: {to}
  trustDomain: {to}.e2e
  addresses: {addresses}
  import: {import}
  export: {export}
  bundle:
    inline: |
{bundle}",
        to = link.to,
        import = rules(&link.import),
        export = rules(&link.export),
    )
}
