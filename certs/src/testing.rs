//! Fixtures: authorities of other domains, hostile ones included, and handshakes in
//! memory under a clock that tests set.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use isthmus_model::TrustDomain;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use crate::bundle::Bundle;

pub(crate) fn domain(text: &str) -> TrustDomain {
    TrustDomain::new(text).unwrap()
}

/// A CA that signs whatever it is told to.
pub(crate) struct Root {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) key: KeyPair,
    pub(crate) params: CertificateParams,
}

impl Root {
    pub(crate) fn sign(
        &self,
        params: &CertificateParams,
        key: &KeyPair,
    ) -> CertificateDer<'static> {
        let issuer = Issuer::from_params(&self.params, &self.key);
        params.signed_by(key, &issuer).unwrap().into()
    }

    /// A CA below this one.
    pub(crate) fn intermediate(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        Self { der: self.sign(&params, &key), key, params }
    }
}

pub(crate) fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// A root with a subject and a key of its own.
pub(crate) fn root(domain: &str) -> Root {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    root_of(ca_params(&format!("{domain} {count}")))
}

pub(crate) fn root_of(params: CertificateParams) -> Root {
    let key = KeyPair::generate().unwrap();
    Root { der: params.self_signed(&key).unwrap().into(), key, params }
}

pub(crate) fn leaf_params(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names =
        uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

pub(crate) fn leaf(root: &Root, uris: &[&str]) -> CertificateDer<'static> {
    root.sign(&leaf_params(uris), &KeyPair::generate().unwrap())
}

pub(crate) fn chain_and_key(
    root: &Root,
    id: &str,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let leaf = root.sign(&leaf_params(&[id]), &key);
    (vec![leaf], PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
}

pub(crate) fn bundle(name: &str, sequence: u64, root: &Root) -> Bundle {
    Bundle::new(domain(name), Some(sequence), None, std::slice::from_ref(&root.der)).unwrap()
}

/// A wall clock for TLS that tests set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock(Arc<AtomicU64>);

impl Clock {
    pub(crate) fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::Relaxed);
    }

    pub(crate) fn client(&self, config: &ClientConfig) -> Arc<ClientConfig> {
        let mut config = config.clone();
        config.time_provider = Arc::new(self.clone());
        Arc::new(config)
    }

    pub(crate) fn server(&self, config: &ServerConfig) -> Arc<ServerConfig> {
        let mut config = config.clone();
        config.time_provider = Arc::new(self.clone());
        Arc::new(config)
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = Duration::from_secs(self.0.load(Ordering::Relaxed));
        Some(UnixTime::since_unix_epoch(now))
    }
}

/// Both ends of a finished handshake.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
}

/// A whole handshake in memory; the error is that of the side that refused.
#[expect(clippy::unwrap_in_result, reason = "writing to memory does not fail")]
pub(crate) fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Result<Finished, rustls::Error> {
    let name = crate::tls::mesh_server_name();
    let mut client = ClientConnection::new(Arc::clone(client), name)?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        feed(&wire, |bytes| server.read_tls(bytes));
        server.process_new_packets()?;
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        feed(&wire, |bytes| client.read_tls(bytes));
        client.process_new_packets()?;
    }
    Ok(Finished { client, server })
}

fn feed(mut wire: &[u8], mut read: impl FnMut(&mut dyn std::io::Read) -> std::io::Result<usize>) {
    while !wire.is_empty() {
        read(&mut wire).unwrap();
    }
}
