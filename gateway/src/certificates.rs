//! Which certificate a TLS listener presents.
//!
//! One rustls configuration for each bound address and worker, made anew when the
//! listeners or certificates of that address change, so that a new certificate is used by
//! the next handshake. A certificate that cannot be used is left out and logged: the
//! other names of the address go on.
//!
//! What clients must prove is a matter of the listener, so the server name chooses among
//! configurations where listeners of one address differ in it.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use isthmus_certs::{pem, provider};
use isthmus_model::gateway::ClientValidation;
use isthmus_model::hosts::HostTable;
use isthmus_model::snapshot::FrontKey;
use isthmus_model::{Certificate, Generation, Hostname, ListenerProtocol, Snapshot};
use isthmus_proxy::{TlsSource, Worker};
use isthmus_runtime::error_chain;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::client_certificates;

/// The TLS of one bound address, on one worker, for its listeners of one protocol.
pub(crate) struct FrontTls {
    worker: Rc<Worker>,
    key: FrontKey,
    protocol: ListenerProtocol,
    made: RefCell<Option<Made>>,
}

struct Made {
    generation: Generation,
    inputs: Vec<Input>,
    configs: HostTable<Arc<ServerConfig>>,
}

/// What a configuration is made from; equal inputs keep the configuration, and with it
/// the sessions that clients may resume.
#[derive(PartialEq, Eq)]
struct Input {
    hostname: Option<Hostname>,
    certificates: Vec<Arc<Certificate>>,
    validation: Option<ClientValidation>,
}

impl FrontTls {
    pub(crate) fn new(worker: Rc<Worker>, key: FrontKey, protocol: ListenerProtocol) -> Self {
        Self { worker, key, protocol, made: RefCell::new(None) }
    }
}

impl TlsSource for FrontTls {
    fn config(&self) -> Option<Arc<ServerConfig>> {
        self.config_for(None)
    }

    /// By the listener that takes the name: what it demands of clients holds for them.
    fn config_for(&self, server_name: Option<&str>) -> Option<Arc<ServerConfig>> {
        let name = server_name.map(str::to_ascii_lowercase).unwrap_or_default();
        let of = |made: &Made| made.configs.best(&name).cloned();
        let snapshot = self.worker.pin();
        let mut made = self.made.borrow_mut();
        if let Some(made) = made.as_ref().filter(|made| made.generation == snapshot.generation) {
            return of(made);
        }
        let inputs = inputs(&snapshot, &self.key, self.protocol);
        let configs = match made.take() {
            Some(before) if before.inputs == inputs => before.configs,
            Some(_) | None => configs(&inputs, &alpn(self.protocol)),
        };
        let generation = snapshot.generation;
        of(made.insert(Made { generation, inputs, configs }))
    }
}

fn inputs(snapshot: &Snapshot, key: &FrontKey, protocol: ListenerProtocol) -> Vec<Input> {
    let listeners = snapshot.front(key).map(|front| front.listeners()).unwrap_or_default();
    let of = |listener: &Arc<isthmus_model::Listener>| Input {
        hostname: listener.hostname.clone(),
        certificates: listener
            .certificates
            .iter()
            .filter_map(|name| snapshot.certificate(name).cloned())
            .collect(),
        validation: listener.client_validation.clone(),
    };
    listeners.iter().filter(|listener| listener.protocol == protocol).map(of).collect()
}

/// What is offered by ALPN. Opaque bytes offer nothing, so that rustls accepts whatever
/// protocol the client names.
fn alpn(protocol: ListenerProtocol) -> Vec<Vec<u8>> {
    match protocol {
        ListenerProtocol::Https => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        ListenerProtocol::Http
        | ListenerProtocol::Tcp
        | ListenerProtocol::TlsPassthrough
        | ListenerProtocol::TlsTerminate
        | ListenerProtocol::Udp => Vec::new(),
    }
}

/// A configuration for each hostname, shared by listeners that demand the same of clients.
/// Sessions are resumed only within one configuration.
fn configs(inputs: &[Input], alpn: &[Vec<u8>]) -> HostTable<Arc<ServerConfig>> {
    let mut configs = HostTable::default();
    let Some(resolver) = resolver(inputs).map(Arc::new) else { return configs };
    let mut made: Vec<(&Option<ClientValidation>, Arc<ServerConfig>)> = Vec::new();
    for input in inputs {
        let known = made.iter().find(|(validation, _)| **validation == input.validation);
        let config = match known {
            Some((_, config)) => Arc::clone(config),
            None => {
                let config = config(&resolver, input.validation.as_ref(), alpn);
                let Some(config) = config else { continue };
                made.push((&input.validation, Arc::clone(&config)));
                config
            }
        };
        configs.slot(input.hostname.as_ref(), || config);
    }
    configs
}

fn config(
    resolver: &Arc<Resolver>,
    validation: Option<&ClientValidation>,
    alpn: &[Vec<u8>],
) -> Option<Arc<ServerConfig>> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .ok()?;
    let builder = match validation {
        None => builder.with_no_client_auth(),
        Some(validation) => {
            builder.with_client_cert_verifier(client_certificates::verifier(validation))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::clone(resolver) as _);
    config.alpn_protocols = alpn.to_vec();
    Some(Arc::new(config))
}

/// The certificates of all listeners; `None` when none can be used.
fn resolver(inputs: &[Input]) -> Option<Resolver> {
    let mut by_host: HostTable<Vec<Arc<CertifiedKey>>> = HostTable::default();
    let mut usable = 0;
    for input in inputs {
        for certificate in &input.certificates {
            match certified_key(certificate) {
                Ok(key) => {
                    usable += 1;
                    by_host.slot(input.hostname.as_ref(), Vec::new).push(Arc::new(key));
                }
                Err(reason) => {
                    let certificate = &certificate.name;
                    tracing::warn!(%certificate, %reason, "a certificate cannot be used");
                }
            }
        }
    }
    (usable > 0).then_some(Resolver { by_host })
}

fn certified_key(certificate: &Certificate) -> Result<CertifiedKey, String> {
    let (chain, key) = pem::chain_and_key(&certificate.chain_pem, &certificate.key_pem)
        .map_err(|error| error_chain(&error))?;
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
