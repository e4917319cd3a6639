//! A gateway with one link set, for tests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use isthmus_link::{
    ALPN, IncomingStream, LinkLimits, LinkOptions, LinkSet, LinkState, LinkStatus, LinkStream,
    LinkTimers, PeerConfig, RefuseCode, SelectorSettings, StreamHeader, Transport,
};
use isthmus_model::{ClusterId, Label, ServiceKey, SpiffeId};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// A certificate authority and the identities it has given out.
pub struct World {
    issuer: CertifiedIssuer<'static, KeyPair>,
    ids: Arc<Mutex<BTreeMap<Vec<u8>, SpiffeId>>>,
}

#[derive(Debug, Clone)]
pub struct Setup {
    pub quic: bool,
    pub tcp: bool,
    pub limits: LinkLimits,
    pub timers: LinkTimers,
    pub selector: SelectorSettings,
    /// The identity in the certificate, when it is not the gateway's own.
    pub certificate_of: Option<&'static str>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            quic: true,
            tcp: true,
            limits: LinkLimits::default(),
            timers: LinkTimers::default(),
            selector: SelectorSettings::default(),
            certificate_of: None,
        }
    }
}

pub struct Gateway {
    pub name: &'static str,
    pub links: LinkSet,
    pub address: SocketAddr,
    pub incoming: mpsc::Receiver<IncomingStream>,
}

pub fn cluster(name: &str) -> ClusterId {
    ClusterId::new(name).unwrap()
}

pub fn id(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://{name}.test/ns/isthmus-system/sa/isthmus-eastwest")).unwrap()
}

pub fn header() -> StreamHeader {
    let (ns, name) = (Label::new("shop").unwrap(), Label::new("cart").unwrap());
    StreamHeader::new(ServiceKey::clusterset(ns, name), 8080)
}

impl World {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        Self { issuer, ids: Arc::default() }
    }

    pub fn gateway(&self, name: &'static str, setup: Setup) -> Gateway {
        let (client, server) = self.tls(name, setup.certificate_of.unwrap_or(name));
        let ids = Arc::clone(&self.ids);
        let authenticate = move |chain: &[CertificateDer<'_>]| {
            let leaf = chain.first().ok_or("empty chain")?;
            ids.lock().unwrap().get(leaf.as_ref()).cloned().ok_or_else(|| "no id".to_owned())
        };
        let (udp, tcp) = sockets();
        let address = udp.local_addr().unwrap();
        let (sender, incoming) = mpsc::channel(256);
        let links = LinkSet::start(LinkOptions {
            cluster: cluster(name),
            client_tls: Arc::new(move |_| Arc::clone(&client)),
            server_tls: server,
            quic: if setup.quic { vec![udp] } else { Vec::new() },
            tcp: if setup.tcp { vec![tcp] } else { Vec::new() },
            authenticate: Arc::new(authenticate),
            incoming: sender,
            limits: setup.limits,
            timers: setup.timers,
            selector: setup.selector,
            seed: 7,
        })
        .unwrap();
        Gateway { name, links, address, incoming }
    }

    /// TLS settings with a certificate for the host `name` and the identity of `owner`.
    pub fn tls(
        &self,
        name: &str,
        owner: &str,
    ) -> (Arc<rustls::ClientConfig>, Arc<rustls::ServerConfig>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![format!("{name}.test")]).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![leaf.der().clone()];
        self.ids.lock().unwrap().insert(leaf.der().to_vec(), id(owner));
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots.clone()),
            Arc::clone(&provider),
        )
        .build()
        .unwrap();
        let mut client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .unwrap();
        client.alpn_protocols = vec![ALPN.to_vec()];
        let mut server = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        server.alpn_protocols = vec![ALPN.to_vec()];
        (Arc::new(client), Arc::new(server))
    }
}

/// A UDP and a TCP socket on one port number.
pub fn sockets() -> (std::net::UdpSocket, std::net::TcpListener) {
    for _ in 0..100 {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.set_nonblocking(true).unwrap();
        if let Ok(tcp) = std::net::TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
    panic!("no port number is free for UDP and TCP");
}

impl Gateway {
    /// The settings by which another gateway knows this one.
    pub fn as_peer(&self, dial: bool) -> PeerConfig {
        self.as_peer_at(self.address, dial)
    }

    pub fn as_peer_at(&self, address: SocketAddr, dial: bool) -> PeerConfig {
        PeerConfig {
            cluster: cluster(self.name),
            expected_id: id(self.name),
            addresses: vec![address.to_string()],
            dial,
            connections: 1,
        }
    }

    pub fn status(&self) -> LinkStatus {
        self.links.status().remove(0)
    }

    /// Waits for the state of the first peer.
    pub async fn wait(&self, what: &str, condition: impl Fn(&LinkStatus) -> bool) -> LinkStatus {
        let mut changed = self.links.watch();
        let wait = async {
            loop {
                let status = self.status();
                if condition(&status) {
                    return status;
                }
                changed.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(Duration::from_secs(20), wait).await {
            Ok(status) => status,
            Err(_) => panic!("{} never saw {what}: {:?}", self.name, self.status()),
        }
    }

    pub async fn up(&self) -> LinkStatus {
        self.wait("a link", |status| status.state == LinkState::Up).await
    }

    pub async fn on(&self, transport: Transport) -> LinkStatus {
        let condition = |s: &LinkStatus| s.state == LinkState::Up && s.transport == Some(transport);
        self.wait(transport.label(), condition).await
    }

    pub async fn open(&self, peer: &str) -> LinkStream {
        self.links.open(&cluster(peer), header()).await.unwrap()
    }

    /// Answers each stream with what it brings, in a task of `tasks`.
    pub fn echo(&mut self, tasks: &mut JoinSet<()>) {
        let (_, empty) = mpsc::channel(1);
        let mut incoming = std::mem::replace(&mut self.incoming, empty);
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            while let Some(stream) = incoming.recv().await {
                streams.spawn(async move {
                    if stream.header.port == 1 {
                        return stream.refuse(RefuseCode::NotExported, "not exported").await;
                    }
                    let stream = stream.accept().await?;
                    let (mut reader, mut writer) = tokio::io::split(stream);
                    tokio::io::copy(&mut reader, &mut writer).await?;
                    writer.shutdown().await
                });
            }
        });
    }
}

/// Sends `bytes`, half-closes, and returns what comes back.
pub async fn round_trip(stream: LinkStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut back = Vec::new();
    let write = async {
        writer.write_all(bytes).await?;
        writer.shutdown().await
    };
    let (written, read) = tokio::join!(write, reader.read_to_end(&mut back));
    read?;
    written?;
    Ok(back)
}
