//! A bulk transfer over bare quinn: one connection, one stream, quinn's own defaults.
//!
//! `bench/run link` measures a link beside it. `serve` writes its certificate into a
//! file and answers each stream with as many bytes as the first eight of it ask for;
//! `get` asks for them, throws them away and prints `<bytes> <seconds>`.
#![allow(clippy::print_stdout, reason = "the figures go to standard output")]

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use isthmus_runtime::clock;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig, VarInt};
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments.as_slice() {
        ["serve", address, certificate] => {
            runtime.block_on(serve(address.parse()?, Path::new(certificate)))
        }
        ["get", address, certificate, bytes] => {
            runtime.block_on(get(address.parse()?, Path::new(certificate), bytes.parse()?))
        }
        _ => Err("usage: raw_quinn serve ADDRESS FILE | raw_quinn get ADDRESS FILE BYTES".into()),
    }
}

/// Serves one connection after the other, until it is killed.
async fn serve(address: SocketAddr, certificate: &Path) -> Result<()> {
    let key = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()));
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)?;
    tls.alpn_protocols = vec![NAME.into()];
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let endpoint = Endpoint::server(config, address)?;
    // Written last: whoever sees the file may connect.
    std::fs::write(certificate, key.cert.der())?;
    while let Some(incoming) = endpoint.accept().await {
        let connection = incoming.await?;
        while let Ok((send, receive)) = connection.accept_bi().await {
            answer(send, receive).await?;
        }
    }
    Ok(())
}

async fn answer(mut send: SendStream, mut receive: RecvStream) -> Result<()> {
    let mut wanted = [0; 8];
    receive.read_exact(&mut wanted).await?;
    let mut left = u64::from_be_bytes(wanted);
    let chunk = vec![0; CHUNK_BYTES];
    while left > 0 {
        let now = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        send.write_all(&chunk[..now]).await?;
        left -= now as u64;
    }
    send.finish()?;
    Ok(())
}

async fn get(address: SocketAddr, certificate: &Path, bytes: u64) -> Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(std::fs::read(certificate)?))?;
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![NAME.into()];
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let endpoint = Endpoint::client(SocketAddr::new(address.ip(), 0))?;
    let connection = endpoint.connect_with(config, address, NAME)?.await?;
    let begun = clock::now();
    let received = receive(&connection, bytes).await?;
    println!("{received} {:.6}", begun.elapsed().as_secs_f64());
    connection.close(VarInt::from_u32(0), b"");
    endpoint.wait_idle().await;
    Ok(())
}

async fn receive(connection: &Connection, bytes: u64) -> Result<u64> {
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(&bytes.to_be_bytes()).await?;
    send.finish()?;
    let mut received = 0;
    while let Some(chunk) = receive.read_chunk(CHUNK_BYTES, true).await? {
        received += chunk.bytes.len() as u64;
    }
    Ok(received)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The server name and the application protocol.
const NAME: &str = "raw-quinn";
/// What is handed to quinn at once, and taken from it at most.
const CHUNK_BYTES: usize = 256 * 1024;
