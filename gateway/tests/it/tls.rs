use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use isthmus_certs::provider;
use isthmus_model::{Certificate, ListenerProtocol, Resource, StreamRouteKind};
use isthmus_proxy::ProxySettings;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::streams::after_the_end;
use crate::world::World;

/// A certificate that signs itself.
pub(crate) struct Signed {
    pub(crate) chain_pem: String,
    key_pem: String,
}

impl Signed {
    pub(crate) fn new(host: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let chain_pem = params.self_signed(&key).unwrap().pem();
        Self { chain_pem, key_pem: key.serialize_pem() }
    }

    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.chain_pem.as_bytes()).unwrap()
    }

    pub(crate) fn client(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    /// A TLS server that answers each connection with a name.
    pub(crate) async fn serve(&self, tasks: &mut JoinSet<()>, name: &'static str) -> SocketAddr {
        self.answer(tasks, move |_| name.to_owned()).await
    }

    /// A TLS server that answers each connection with the server name it was asked for.
    pub(crate) async fn serve_named(&self, tasks: &mut JoinSet<()>) -> SocketAddr {
        self.answer(tasks, |asked| asked.unwrap_or("no name").to_owned()).await
    }

    async fn answer(
        &self,
        tasks: &mut JoinSet<()>,
        answer: impl Fn(Option<&str>) -> String + Send + 'static,
    ) -> SocketAddr {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.der()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let text = answer(stream.get_ref().1.server_name());
                    let _ = stream.write_all(text.as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
            }
        });
        address
    }

    pub(crate) fn add_to(&self, world: &mut World, listener: &str) {
        world.add(Resource::Certificate(Certificate {
            name: format!("n/{listener}"),
            chain_pem: self.chain_pem.clone(),
            key_pem: self.key_pem.clone(),
        }));
    }
}

pub(crate) async fn connect(
    to: SocketAddr,
    host: &str,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await.unwrap();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    TlsConnector::from(config).connect(name, stream).await
}

/// Sends text, ends, and returns what comes back.
pub(crate) async fn exchange(mut stream: TlsStream<TcpStream>, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.unwrap();
    String::from_utf8(back).unwrap()
}

#[tokio::test]
async fn passed_through_tls_reaches_the_backend_of_its_server_name() {
    let mut tasks = JoinSet::new();
    let (one, two) = (Signed::new("one.test"), Signed::new("two.test"));
    let mut world = World::new();
    world.listener("pass", ListenerProtocol::TlsPassthrough, Some("*.test"));
    world.service("one", &[one.serve(&mut tasks, "one").await]);
    world.service("two", &[two.serve(&mut tasks, "two").await]);
    let tls = StreamRouteKind::Tls;
    world.route(tls, ("r1", 1), ("pass", &["one.test"]), &[("one", 1)]);
    world.route(tls, ("r2", 1), ("pass", &["two.test"]), &[("two", 1)]);
    let running = world.run().await;
    for (host, signed) in [("one", &one), ("two", &two)] {
        let name = format!("{host}.test");
        // The backend's own certificate: nobody on the way has ended TLS.
        let stream = connect(world.address(), &name, signed.client(&[])).await.unwrap();
        assert_eq!(exchange(stream, "").await, host);
    }
    // The last is no server name: an address is never sent as one.
    for name in ["three.test", "other.example", "127.0.0.1"] {
        let refused = connect(world.address(), name, one.client(&[])).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::UnexpectedEof, "{name}: {refused}");
    }
    assert!(running.counted("tls", "NR"));
    running.drain().await;
}

#[tokio::test]
async fn tls_ends_at_the_gateway_and_the_bytes_go_on_in_clear() {
    let mut tasks = JoinSet::new();
    let signed = Signed::new("db.test");
    let mut world = World::new();
    world.listener("end", ListenerProtocol::TlsTerminate, Some("db.test"));
    signed.add_to(&mut world, "end");
    world.service("db", &[after_the_end(&mut tasks, "db:").await]);
    world.route(StreamRouteKind::Tls, ("r", 1), ("end", &["db.test"]), &[("db", 1)]);
    let _running = world.run().await;
    for alpn in [&[][..], &[&b"postgresql"[..]][..]] {
        let stream = connect(world.address(), "DB.test", signed.client(alpn)).await.unwrap();
        assert_eq!(exchange(stream, "select").await, "db:select");
    }
}

#[tokio::test]
async fn listeners_of_three_kinds_share_an_address() {
    let mut tasks = JoinSet::new();
    let (web, pass, end) =
        (Signed::new("web.test"), Signed::new("pass.test"), Signed::new("end.test"));
    let mut world = World::new();
    world.listener("web", ListenerProtocol::Https, Some("web.test"));
    web.add_to(&mut world, "web");
    let running = world.run().await;
    let http = "GET / HTTP/1.1\r\nhost: web.test\r\nconnection: close\r\n\r\n";
    let ask_web = async |world: &World| {
        let mut stream = connect(world.address(), "web.test", web.client(&[])).await.unwrap();
        stream.write_all(http.as_bytes()).await.unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.unwrap();
        String::from_utf8(back).unwrap()
    };
    assert!(ask_web(&world).await.starts_with("HTTP/1.1 404"));

    // The others come while the address is served.
    world.listener("pass", ListenerProtocol::TlsPassthrough, Some("pass.test"));
    world.listener("end", ListenerProtocol::TlsTerminate, Some("end.test"));
    end.add_to(&mut world, "end");
    world.service("pass", &[pass.serve(&mut tasks, "pass").await]);
    world.service("end", &[after_the_end(&mut tasks, "end:").await]);
    let tls = StreamRouteKind::Tls;
    world.route(tls, ("r1", 1), ("pass", &["pass.test"]), &[("pass", 1)]);
    world.route(tls, ("r2", 1), ("end", &["end.test"]), &[("end", 1)]);
    running.publish(&mut world);
    assert!(ask_web(&world).await.starts_with("HTTP/1.1 404"));
    let stream = connect(world.address(), "pass.test", pass.client(&[])).await.unwrap();
    assert_eq!(exchange(stream, "").await, "pass");
    let stream = connect(world.address(), "end.test", end.client(&[])).await.unwrap();
    assert_eq!(exchange(stream, "x").await, "end:x");
}

#[tokio::test]
async fn a_client_hello_in_many_pieces_reaches_the_backend_whole() {
    let mut tasks = JoinSet::new();
    let mut world = World::new();
    world.listener("pass", ListenerProtocol::TlsPassthrough, Some("a.test"));
    world.service("a", &[after_the_end(&mut tasks, "").await]);
    world.route(StreamRouteKind::Tls, ("r", 1), ("pass", &["a.test"]), &[("a", 1)]);
    let _running = world.run().await;
    let name = ServerName::try_from("a.test").unwrap();
    let config = Signed::new("a.test").client(&[]);
    let mut hello = Vec::new();
    ClientConnection::new(config, name).unwrap().write_tls(&mut hello).unwrap();
    let mut stream = TcpStream::connect(world.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in hello.chunks(3) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    stream.write_all(b"and more").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, [&hello[..], b"and more"].concat());
}

#[tokio::test]
async fn a_client_hello_that_is_slow_or_too_long_is_cut_off() {
    let mut world = World::new();
    world.listener("pass", ListenerProtocol::TlsPassthrough, Some("a.test"));
    let proxy =
        ProxySettings { tls_timeout: Duration::from_millis(200), ..ProxySettings::default() };
    let running = world.run_at(Ipv4Addr::LOCALHOST.into(), proxy).await;
    let cut = async |first: &[u8]| {
        let mut stream = TcpStream::connect(world.address()).await.unwrap();
        let _ = stream.write_all(first).await;
        let mut back = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut back));
        let _ = read.await.expect("the connection ends");
    };
    cut(&[22, 3, 1]).await;
    assert!(running.counted("tls", "DT"));
    cut(b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(running.counted("tls", "DPE"));
    // Records of 16 000 bytes of a ClientHello that claims 60 000.
    let mut long = Vec::new();
    for number in 0..4 {
        long.extend([22, 3, 1, 0x3E, 0x80]);
        let mut body = vec![0; 16_000];
        if number == 0 {
            body[..4].copy_from_slice(&[1, 0, 0xEA, 0x60]);
        }
        long.extend(body);
    }
    cut(&long).await;
    assert!(running.counted("tls", "TL"));
}
