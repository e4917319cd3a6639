//! HTTPS at the ingress.

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::CertificateDer;

use crate::client::Call;
use crate::wait::eventually;
use crate::world::{App, Cluster, Listener, Running, World};

/// A certificate with its Secret.
struct Certificate {
    der: CertificateDer<'static>,
    secret: String,
}

impl Certificate {
    fn new(name: &str, host: &str) -> Self {
        let CertifiedKey { cert, signing_key }: CertifiedKey<KeyPair> =
            generate_simple_self_signed([host.to_owned()]).unwrap();
        let indented =
            |pem: String| -> String { pem.lines().map(|line| format!("    {line}\n")).collect() };
        let secret = format!(
            "apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: shop}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
{}  tls.key: |
{}",
            indented(cert.pem()),
            indented(signing_key.serialize_pem()),
        );
        Self { der: cert.der().clone(), secret }
    }
}

fn two_hosts(a: &Certificate, b: &Certificate) -> Cluster {
    Cluster::named("east")
        .listener(Listener::https(443, "a.test", "cert-a"))
        .listener(Listener::https(443, "b.test", "cert-b"))
        .app(App::http("app-a"))
        .app(App::http("app-b"))
        .route("a", "a.test", "- {backendRefs: [{name: app-a, port: 80}]}")
        .route("b", "b.test", "- {backendRefs: [{name: app-b, port: 80}]}")
        .manifest("cert-a.yaml", &a.secret)
        .manifest("cert-b.yaml", &b.secret)
}

fn get(cluster: &Running, name: &str, root: &Certificate) -> Call {
    Call::get(cluster.ingress(443), "/").host(name).tls(name, &root.der)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_name_chooses_the_certificate_and_must_fit_the_host() {
    let (a, b) = (Certificate::new("cert-a", "a.test"), Certificate::new("cert-b", "b.test"));
    let world = World::of(two_hosts(&a, &b)).await;
    let cluster = world.only();
    for (host, root, service) in [("a.test", &a, "app-a"), ("b.test", &b, "app-b")] {
        let answer = get(cluster, host, root).send().await;
        assert_eq!(answer.service(), service);
        assert_eq!(answer.seen("x-forwarded-proto"), ["https"]);
        assert_eq!(get(cluster, host, root).http2().send().await.service(), service);
    }
    // The connection was made for the other host.
    assert_eq!(get(cluster, "a.test", &a).host("b.test").send().await.status, 421);
    assert_eq!(get(cluster, "a.test", &a).host("b.test").http2().send().await.status, 421);
    let wrong = get(cluster, "a.test", &b).try_send().await;
    assert!(wrong.unwrap_err().starts_with("TLS: "), "the certificate of a.test is not b's");
    let unknown = get(cluster, "c.test", &a).try_send().await;
    assert!(unknown.unwrap_err().starts_with("TLS: "), "there is no listener for c.test");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_certificate_is_used_by_the_next_handshake() {
    let (a, b) = (Certificate::new("cert-a", "a.test"), Certificate::new("cert-b", "b.test"));
    let world = World::of(two_hosts(&a, &b)).await;
    let cluster = world.only();
    assert_eq!(get(cluster, "a.test", &a).send().await.status, 200);
    let new = Certificate::new("cert-a", "a.test");
    cluster.replace("cert-a.yaml", &new.secret);
    eventually("the new certificate is used", || get_once(cluster, &new)).await;
    assert!(get(cluster, "a.test", &a).try_send().await.is_err());
    assert_eq!(get(cluster, "b.test", &b).send().await.service(), "app-b");
}

async fn get_once(cluster: &Running, root: &Certificate) -> Result<u16, String> {
    Ok(get(cluster, "a.test", root).try_send().await?.status)
}
