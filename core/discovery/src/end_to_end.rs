//! Real publishers and clients: over mutual TLS on loopback, and inside the process.

mod absence;

mod delivery;

mod renewal;

mod trust;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use isthmus_model::{Generation, Resource, Snapshot, SpiffeId, TrustDomain};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::client::{ClientLimits, ClientOptions, DiscoveryClient, GrpcTransport, Transport};
use crate::hub::{Publisher, PublisherHandle};
use crate::message::Epoch;
use crate::node::NodeRole;
use crate::server::{DiscoveryServer, IdentifyPeer, PeerIdentity, ServerOptions};
use crate::testing::{key, node_info, resources, world};

/// One authority that signs for every trust domain, so that only the checks of this crate
/// tell them apart.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    fn identity(&self, id: &str) -> Identity {
        let mut params = CertificateParams::new(vec!["isthmus.test".to_owned()]).unwrap();
        let uri = format!("spiffe://{id}");
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![leaf.der().clone()];
        Identity { chain, key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
    }

    fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        roots
    }

    fn server(&self, id: &str) -> Arc<rustls::ServerConfig> {
        let Identity { chain, key } = self.identity(id);
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(self.roots()),
            provider(),
        )
        .build()
        .unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        Arc::new(config)
    }

    fn client(&self, id: Option<&str>) -> Arc<rustls::ClientConfig> {
        let builder = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(self.roots());
        Arc::new(match id {
            Some(id) => {
                let Identity { chain, key } = self.identity(id);
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        })
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn identify() -> IdentifyPeer {
    Arc::new(|chain: &[CertificateDer<'_>]| {
        let (_, leaf) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
        let names = leaf.subject_alternative_name().ok()??;
        let id = names.value.general_names.iter().find_map(|name| {
            let x509_parser::extensions::GeneralName::URI(uri) = name else { return None };
            SpiffeId::parse(uri).ok()
        })?;
        let not_after = u64::try_from(leaf.validity().not_after.timestamp()).ok()?;
        Some(PeerIdentity { id, not_after: UNIX_EPOCH + Duration::from_secs(not_after) })
    })
}

const CONTROLLER: &str = "c1.test/ns/isthmus-system/sa/isthmus-controller";
const INGRESS: &str = "c1.test/ns/isthmus-system/sa/isthmus-ingress";
const EASTWEST: &str = "c1.test/ns/isthmus-system/sa/isthmus-eastwest";
const EDGE: &str = "c1.test/ns/shop/sa/edge";
const WEB: &str = "c1.test/ns/shop/sa/web";

async fn serve(ca: &Authority, id: &str, publisher: PublisherHandle, at: &str) -> DiscoveryServer {
    let listener = TcpListener::bind(at).await.unwrap();
    let domain = TrustDomain::new("c1.test").unwrap();
    let options = ServerOptions::new(ca.server(id), identify(), domain, publisher);
    DiscoveryServer::start(listener, options).unwrap()
}

fn options(role: NodeRole, transport: Transport, file: Option<&Path>) -> ClientOptions {
    ClientOptions {
        node_name: format!("node-{role}"),
        role,
        workload: None,
        node: node_info(),
        transport,
        state_file: file.map(Path::to_owned),
        limits: ClientLimits {
            reconnect_max: Duration::from_millis(300),
            save_delay: Duration::from_millis(5),
            want_timeout: Duration::from_secs(20),
            ..ClientLimits::default()
        },
    }
}

fn grpc(ca: &Authority, id: Option<&str>, address: &str) -> Transport {
    Transport::Grpc(GrpcTransport {
        address: address.to_owned(),
        tls: ca.client(id),
        server_name: ServerName::try_from("isthmus.test").unwrap(),
        controller: SpiffeId::parse(&format!("spiffe://{CONTROLLER}")).unwrap(),
        identify: identify(),
        renewed: watch::channel(0).1,
    })
}

/// An address where nobody listens.
async fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it happens in time")
}

async fn reaches(client: &DiscoveryClient, generation: u64) -> Arc<Snapshot> {
    within(client.wait_for(|status| status.generation == Some(Generation(generation)))).await;
    client.snapshots().load()
}

fn publish(publisher: &Publisher, generation: u64, all: Vec<Resource>) {
    publisher.handle().publish(Generation(generation), resources(all)).unwrap();
}
