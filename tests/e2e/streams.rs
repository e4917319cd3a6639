//! TCPRoutes, TLSRoutes, UDPRoutes and GRPCRoutes from a directory.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::client::Call;
use crate::wait::{eventually, soon};
use crate::world::{App, Cluster, World};

const GROUP: &str = "gateway.networking.k8s.io/v1";

/// A Gateway `streams` with these listeners, each `{name, port, protocol, ...}` in YAML.
fn gateway(listeners: &[&str]) -> String {
    let listeners: String = listeners.iter().map(|one| format!("  - {one}\n")).collect();
    format!(
        "apiVersion: {GROUP}
kind: Gateway
metadata: {{name: streams, namespace: shop}}
spec:
  gatewayClassName: isthmus
  listeners:
{listeners}"
    )
}

/// A route of the Gateway; `created` decides which of two is older.
fn route(kind: &str, name: &str, created: &str, section: &str, spec: &str) -> String {
    format!(
        "apiVersion: {GROUP}
kind: {kind}
metadata: {{name: {name}, namespace: shop, creationTimestamp: \"{created}\"}}
spec:
  parentRefs: [{{name: streams, sectionName: {section}}}]
{spec}"
    )
}

/// A Service on port 53 or 443 whose one endpoint is a socket of the test.
fn service_at(name: &str, port: u16, protocol: &str, address: SocketAddr) -> String {
    let (ip, target) = (address.ip(), address.port());
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{ports: [{{name: main, port: {port}, protocol: {protocol}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: shop
  labels: {{kubernetes.io/service-name: {name}}}
addressType: IPv4
ports: [{{name: main, port: {target}, protocol: {protocol}}}]
endpoints: [{{addresses: [\"{ip}\"], conditions: {{ready: true}}}}]
"
    )
}

/// Sends bytes, ends the writing side, and reads what comes back to its end.
async fn echoed(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await?;
    Ok(back)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tcp_route_relays_bytes_and_the_oldest_route_of_a_listener_is_used() {
    let rule = |name: &str| format!("  rules: [{{backendRefs: [{{name: {name}, port: 80}}]}}]");
    let cluster = Cluster::named("east")
        .gateway()
        .manifest(
            "streams.yaml",
            &gateway(&[
                "{name: db, port: 9301, protocol: TCP}",
                "{name: none, port: 9302, protocol: TCP}",
            ]),
        )
        .app(App::tcp("first"))
        .app(App::recorder("second"))
        .manifest("a.yaml", &route("TCPRoute", "old", "2020-01-01T00:00:00Z", "db", &rule("first")))
        .manifest(
            "b.yaml",
            &route("TCPRoute", "young", "2021-01-01T00:00:00Z", "db", &rule("second")),
        );
    let world = World::of(cluster).await;
    let cluster = world.only();
    let long = vec![7u8; 300_000];
    for _ in 0..5 {
        assert_eq!(soon("an echo", echoed(cluster.ingress(9301), &long)).await.unwrap(), long);
    }
    assert!(cluster.app("second").received().is_empty());
    // Without a route the connection ends without a byte.
    let nothing = soon("an end", echoed(cluster.ingress(9302), b"x")).await;
    assert!(nothing.map_or(true, |bytes| bytes.is_empty()));
    // With a change of the route the next connection goes elsewhere.
    let weights = "  rules: [{backendRefs: [{name: first, port: 80, weight: 0}, {name: second, port: 80, weight: 1}]}]";
    cluster.replace("a.yaml", &route("TCPRoute", "old", "2020-01-01T00:00:00Z", "db", weights));
    eventually("the other backend", || async {
        let _ = tokio::time::timeout(
            std::time::Duration::from_millis(200),
            echoed(cluster.ingress(9301), b"hello"),
        )
        .await;
        if cluster.app("second").received().is_empty() { Err("not yet") } else { Ok(()) }
    })
    .await;
}

/// A TLS server of the test that answers with its name, and its certificate.
async fn tls_server(name: &str, tasks: &mut JoinSet<()>) -> (SocketAddr, CertificateDer<'static>) {
    let CertifiedKey { cert, signing_key }: CertifiedKey<KeyPair> =
        generate_simple_self_signed([name.to_owned()]).unwrap();
    let der = cert.der().clone();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(isthmus_certs::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der.clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let name = name.to_owned();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.write_all(name.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    (address, der)
}

/// What a TLS server behind an address says to this server name.
async fn said(
    address: SocketAddr,
    name: &str,
    root: &CertificateDer<'static>,
) -> Result<String, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(isthmus_certs::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.map_err(|e| e.to_string())?;
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_passes_through_to_the_backend_of_its_server_name() {
    let mut tasks = JoinSet::new();
    let (a, root_a) = tls_server("a.test", &mut tasks).await;
    let (b, root_b) = tls_server("x.b.test", &mut tasks).await;
    let spec = |host: &str, name: &str| {
        format!(
            "  hostnames: [\"{host}\"]\n  rules: [{{backendRefs: [{{name: {name}, port: 443}}]}}]"
        )
    };
    let listener = "{name: tls, port: 8443, protocol: TLS, tls: {mode: Passthrough}}";
    let cluster = Cluster::named("east")
        .gateway()
        .manifest("streams.yaml", &gateway(&[listener]))
        .manifest("service-a.yaml", &service_at("a", 443, "TCP", a))
        .manifest("service-b.yaml", &service_at("b", 443, "TCP", b))
        .manifest(
            "a.yaml",
            &route("TLSRoute", "a", "2020-01-01T00:00:00Z", "tls", &spec("a.test", "a")),
        )
        .manifest(
            "b.yaml",
            &route("TLSRoute", "b", "2020-01-01T00:00:00Z", "tls", &spec("*.b.test", "b")),
        );
    let world = World::of(cluster).await;
    let gateway = world.only().ingress(8443);
    assert_eq!(soon("a", said(gateway, "a.test", &root_a)).await.unwrap(), "a.test");
    assert_eq!(soon("b", said(gateway, "x.b.test", &root_b)).await.unwrap(), "x.b.test");
    soon("a refusal", said(gateway, "c.test", &root_a)).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_udp_route_carries_datagrams_of_many_clients_and_their_answers() {
    let mut tasks = JoinSet::new();
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tasks.spawn(async move {
        let mut buffer = [0u8; 2048];
        while let Ok((count, from)) = server.recv_from(&mut buffer).await {
            let _ = server.send_to(&buffer[..count], from).await;
        }
    });
    let rule = "  rules: [{backendRefs: [{name: dns, port: 53}]}]";
    let cluster = Cluster::named("east")
        .gateway()
        .manifest("streams.yaml", &gateway(&["{name: udp, port: 5300, protocol: UDP}"]))
        .manifest("service.yaml", &service_at("dns", 53, "UDP", address))
        .manifest("route.yaml", &route("UDPRoute", "dns", "2020-01-01T00:00:00Z", "udp", rule));
    let world = World::of(cluster).await;
    let gateway = world.only().ingress(5300);
    for client in 0..20u8 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(gateway).await.unwrap();
        for turn in 0..3u8 {
            socket.send(&[client, turn]).await.unwrap();
            let mut answer = [0u8; 16];
            let count = soon("an answer", socket.recv(&mut answer)).await.unwrap();
            assert_eq!(answer[..count], [client, turn]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_routes_choose_by_service_and_method() {
    let spec = "  rules:
  - {matches: [{method: {service: shop.Cart, method: Add}}], backendRefs: [{name: add, port: 80}]}
  - {matches: [{method: {service: shop.Cart}}], backendRefs: [{name: cart, port: 80}]}
  - {matches: [{method: {method: Ping}}], backendRefs: [{name: ping, port: 80}]}";
    let cluster = Cluster::named("east")
        .gateway()
        .manifest("streams.yaml", &gateway(&["{name: http, port: 8081, protocol: HTTP}"]))
        .app(App::http2("add"))
        .app(App::http2("cart"))
        .app(App::http2("ping"))
        .manifest("route.yaml", &route("GRPCRoute", "shop", "2020-01-01T00:00:00Z", "http", spec));
    let world = World::of(cluster).await;
    let gateway = world.only().ingress(8081);
    let call = |path: &str| {
        Call::get(gateway, path).method("POST").http2().header("content-type", "application/grpc")
    };
    for (path, service) in
        [("/shop.Cart/Add", "add"), ("/shop.Cart/Remove", "cart"), ("/any.Thing/Ping", "ping")]
    {
        assert_eq!(call(path).send().await.service(), service);
    }
    let unmatched = call("/shop.Other/Add").send().await;
    assert_eq!(unmatched.header("grpc-status"), Some("12"), "{unmatched:?}");
}
