//! Streams and the certificates that opened them.

use std::sync::Mutex;

use isthmus_runtime::clock;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

use super::*;
use crate::client::port::{Port, PortError};
use crate::message::{ClientMessage, LinkReport, Nonce};
use crate::testing::{hello, node, service};

/// A certificate that can be replaced while connections come and go.
#[derive(Debug)]
struct Wallet {
    key: Mutex<Arc<CertifiedKey>>,
    handshakes: watch::Sender<usize>,
    renewals: watch::Sender<u64>,
}

impl Wallet {
    fn new(first: Identity) -> Arc<Self> {
        let key = Mutex::new(certified(first));
        let (handshakes, renewals) = (watch::Sender::new(0), watch::Sender::new(0));
        Arc::new(Self { key, handshakes, renewals })
    }

    fn renew(&self, next: Identity) {
        *self.key.lock().unwrap() = certified(next);
        self.renewals.send_modify(|count| *count += 1);
    }

    /// Waits until so many connections have asked for the certificate.
    async fn shown(&self, times: usize) {
        let mut handshakes = self.handshakes.subscribe();
        within(handshakes.wait_for(|count| *count >= times)).await.unwrap();
    }
}

fn certified(identity: Identity) -> Arc<CertifiedKey> {
    let Identity { chain, key } = identity;
    Arc::new(CertifiedKey::from_der(chain, key, &provider()).unwrap())
}

impl ResolvesClientCert for Wallet {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.handshakes.send_modify(|count| *count += 1);
        Some(Arc::clone(&self.key.lock().unwrap()))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn renewing(ca: &Authority, wallet: &Arc<Wallet>, address: &str) -> Transport {
    let Transport::Grpc(mut transport) = grpc(ca, None, address) else { unreachable!() };
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(ca.roots())
        .with_client_cert_resolver(Arc::<Wallet>::clone(wallet));
    // A resumed session would show the former certificate.
    tls.resumption = rustls::client::Resumption::disabled();
    transport.tls = Arc::new(tls);
    transport.renewed = wallet.renewals.subscribe();
    Transport::Grpc(transport)
}

/// A server that shows each certificate that it takes to `seen`.
async fn serve_with(
    ca: &Authority,
    publisher: &Publisher,
    connections_max: usize,
    seen: impl Fn(&CertificateDer<'_>, PeerIdentity) -> PeerIdentity + Send + Sync + 'static,
) -> DiscoveryServer {
    let domain = TrustDomain::new("c1.test").unwrap();
    let read = identify();
    let identify: IdentifyPeer = Arc::new(move |chain| Some(seen(chain.first()?, read(chain)?)));
    let mut options =
        ServerOptions::new(ca.server(CONTROLLER), identify, domain, publisher.handle());
    options.connections_max = connections_max;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    DiscoveryServer::start(listener, options).unwrap()
}

/// The world and one service.
fn more() -> Vec<Resource> {
    let mut all = world();
    all.push(service("new", "10.0.0.8"));
    all
}

async fn next(port: &mut Port) -> Result<u64, PortError> {
    let delta = within(port.next()).await?;
    port.send(ClientMessage::Ack(delta.nonce))?;
    Ok(delta.position.generation.0)
}

#[tokio::test]
async fn a_stream_ends_with_its_certificate_and_the_next_one_goes_on_from_there() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let connections = watch::Sender::new(0);
    let mut opened = connections.subscribe();
    let server = serve_with(&ca, &publisher, 8, move |_, peer| {
        connections.send_modify(|count| *count += 1);
        let left = if *connections.borrow() == 1 { SHORT } else { LONG };
        PeerIdentity { not_after: clock::wall() + left, ..peer }
    })
    .await;
    let transport = grpc(&ca, Some(INGRESS), &server.local_addr().to_string());
    let client = DiscoveryClient::start(options(NodeRole::Ingress, transport, None));
    let snapshots = client.snapshots();
    reaches(&client, 1).await;
    let swaps = snapshots.watch();
    within(opened.wait_for(|count| *count == 2)).await.unwrap();
    within(client.wait_for(|status| status.connected && status.last_error.is_none())).await;
    // What is held was said in the hello, so nothing came and nothing was built again.
    assert!(!swaps.has_changed().unwrap());
    publish(&publisher, 2, more());
    assert_eq!(reaches(&client, 2).await.services().len(), 4);
}

#[tokio::test]
async fn a_peer_is_told_why_its_stream_ended() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let ended = |_: &CertificateDer<'_>, peer| PeerIdentity { not_after: clock::wall(), ..peer };
    let server = serve_with(&ca, &publisher, 8, ended).await;
    let transport = grpc(&ca, Some(INGRESS), &server.local_addr().to_string());
    let client = DiscoveryClient::start(options(NodeRole::Ingress, transport, None));
    within(client.wait_for(|status| status.last_error.is_some())).await;
    let status = client.status();
    assert!(status.last_error.unwrap().contains("has expired"));
    assert_eq!(status.generation, None);
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_on_a_new_stream_and_the_node_is_never_gone() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let mut reports = publisher.handle().reports();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    let server = serve_with(&ca, &publisher, 8, move |leaf, peer| {
        record.lock().unwrap().push(leaf.to_vec());
        peer
    })
    .await;
    let wallet = Wallet::new(ca.identity(EASTWEST));
    let transport = renewing(&ca, &wallet, &server.local_addr().to_string());
    let client = DiscoveryClient::start(options(NodeRole::EastWest, transport, None));
    let link = LinkReport {
        cluster: isthmus_model::ClusterId::new("east").unwrap(),
        transport: Some(isthmus_model::LinkTransport::Quic),
        rtt_micros: Some(1500),
        loss_permille: 0,
    };
    client.report(vec![link.clone()]);
    reaches(&client, 1).await;
    assert_eq!(within(reports.recv()).await.unwrap().links, std::slice::from_ref(&link));
    wallet.renew(ca.identity(EASTWEST));
    // The client says its links again on the new stream, and leaves the former one then.
    let report = within(reports.recv()).await.unwrap();
    assert!(report.connected);
    assert_eq!(report.links, [link]);
    within(async {
        while publisher.handle().subscribers().await.len() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let leaves = seen.lock().unwrap().clone();
    assert!(matches!(leaves.as_slice(), [first, second] if first != second));
    assert!(reports.try_recv().is_err());
    let status = client.status();
    assert!(status.connected && status.last_error.is_none());
    publish(&publisher, 2, more());
    reaches(&client, 2).await;
}

#[tokio::test]
async fn a_stream_goes_on_while_the_renewed_certificate_opens_no_other() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let server = serve(&ca, CONTROLLER, publisher.handle(), "127.0.0.1:0").await;
    let wallet = Wallet::new(ca.identity(INGRESS));
    let transport = renewing(&ca, &wallet, &server.local_addr().to_string());
    let client = DiscoveryClient::start(options(NodeRole::Ingress, transport, None));
    reaches(&client, 1).await;
    // Of an authority that nobody knows.
    wallet.renew(Authority::new().identity(INGRESS));
    // The third time is the second attempt with it.
    wallet.shown(3).await;
    publish(&publisher, 2, more());
    reaches(&client, 2).await;
    let status = client.status();
    assert!(status.connected && status.last_error.is_none());
    assert_eq!(publisher.handle().subscribers().await.len(), 1);
}

#[tokio::test]
async fn a_connection_is_closed_when_its_stream_is_over() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let server = serve_with(&ca, &publisher, 1, |_, peer| peer).await;
    let transport = grpc(&ca, Some(INGRESS), &server.local_addr().to_string());
    let own = node("n", NodeRole::Ingress);
    let mut first = Port::open(transport.clone(), own.clone()).await.unwrap();
    first.send(ClientMessage::Hello(Box::new(hello(&own)))).unwrap();
    assert_eq!(next(&mut first).await.unwrap(), 1);
    first.send(ClientMessage::Ack(Nonce(77))).unwrap();
    assert!(matches!(next(&mut first).await, Err(PortError::Status { .. })));
    // The peer does not let go, and keeps nobody from its place all the same.
    let client = DiscoveryClient::start(options(NodeRole::Ingress, transport, None));
    reaches(&client, 1).await;
    drop(first);
}

/// Long enough for a stream to be opened, as a rule; if not, there is one more try.
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(3600);
