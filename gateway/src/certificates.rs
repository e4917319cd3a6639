//! Which certificate a TLS listener presents.
//!
//! One rustls configuration for each bound address and worker, made anew when the
//! listeners or certificates of that address change, so that a new certificate is used by
//! the next handshake. A certificate that cannot be used is left out and logged: the
//! other names of the address go on.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use isthmus_certs::provider;
use isthmus_model::hosts::HostTable;
use isthmus_model::snapshot::FrontKey;
use isthmus_model::{Certificate, Generation, Hostname, Snapshot};
use isthmus_proxy::{TlsSource, Worker};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The TLS of one bound address, on one worker.
pub(crate) struct FrontTls {
    worker: Rc<Worker>,
    key: FrontKey,
    made: RefCell<Option<Made>>,
}

struct Made {
    generation: Generation,
    inputs: Vec<Input>,
    config: Option<Arc<ServerConfig>>,
}

/// What a configuration is made from; equal inputs keep the configuration, and with it
/// the sessions that clients may resume.
#[derive(PartialEq, Eq)]
struct Input {
    hostname: Option<Hostname>,
    certificate: Arc<Certificate>,
}

impl FrontTls {
    pub(crate) fn new(worker: Rc<Worker>, key: FrontKey) -> Self {
        Self { worker, key, made: RefCell::new(None) }
    }
}

impl TlsSource for FrontTls {
    fn config(&self) -> Option<Arc<ServerConfig>> {
        let snapshot = self.worker.pin();
        let mut made = self.made.borrow_mut();
        if let Some(made) = made.as_ref().filter(|made| made.generation == snapshot.generation) {
            return made.config.clone();
        }
        let inputs = inputs(&snapshot, &self.key);
        let config = match made.take() {
            Some(before) if before.inputs == inputs => before.config,
            Some(_) | None => config(&inputs),
        };
        let generation = snapshot.generation;
        *made = Some(Made { generation, inputs, config: config.clone() });
        config
    }
}

fn inputs(snapshot: &Snapshot, key: &FrontKey) -> Vec<Input> {
    let listeners = snapshot.front(key).map(|front| front.listeners()).unwrap_or_default();
    let of = |listener: &Arc<isthmus_model::Listener>| {
        let hostname = listener.hostname.clone();
        let names = listener.certificates.clone();
        names.into_iter().filter_map(move |name| {
            let certificate = Arc::clone(snapshot.certificate(&name)?);
            Some(Input { hostname: hostname.clone(), certificate })
        })
    };
    listeners.iter().flat_map(of).collect()
}

fn config(inputs: &[Input]) -> Option<Arc<ServerConfig>> {
    let mut by_host: HostTable<Vec<Arc<CertifiedKey>>> = HostTable::default();
    let mut usable = 0;
    for input in inputs {
        match certified_key(&input.certificate) {
            Ok(key) => {
                usable += 1;
                by_host.slot(input.hostname.as_ref(), Vec::new).push(Arc::new(key));
            }
            Err(reason) => {
                let certificate = &input.certificate.name;
                tracing::warn!(%certificate, %reason, "a certificate cannot be used");
            }
        }
    }
    if usable == 0 {
        return None;
    }
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .ok()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver { by_host }));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Some(Arc::new(config))
}

fn certified_key(certificate: &Certificate) -> Result<CertifiedKey, String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.chain_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes())
        .map_err(|error| error.to_string())?;
    // Checks that key and certificate belong together.
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| error.to_string())
}

struct Resolver {
    by_host: HostTable<Vec<Arc<CertifiedKey>>>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        // Without a server name only a listener that takes every host may answer.
        let keys = self.by_host.best(name.as_deref().unwrap_or(""))?;
        let schemes = hello.signature_schemes();
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let covers = |key: &&Arc<CertifiedKey>| covers(key, name.as_deref());
        // Several certificates: one that names the host and fits the client goes first.
        keys.iter().find(|key| fits(key) && covers(key)).or_else(|| keys.iter().find(fits)).cloned()
    }
}

fn covers(key: &CertifiedKey, name: Option<&str>) -> bool {
    let Some(leaf) = key.cert.first() else { return false };
    let Some(name) = name.and_then(|name| rustls_pki_types::ServerName::try_from(name).ok()) else {
        return true;
    };
    rustls::server::ParsedCertificate::try_from(leaf)
        .is_ok_and(|leaf| rustls::client::verify_server_name(&leaf, &name).is_ok())
}
