//! The state directory: numbered keys and certificates, and one file that names them.
//!
//! The directory has mode 0700 and keys have mode 0600; what others can read is refused,
//! not repaired, since a key that was readable once is no longer a secret. A lock keeps
//! two processes from being one authority.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use isthmus_model::TrustDomain;
use isthmus_runtime::atomic_file::{self, Access};
use isthmus_runtime::error_chain;
use rcgen::PublicKeyData;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::mint::Signer;
use super::plan::RootPhase;
use super::{AuthorityError, AuthorityOptions};
use crate::crypto::PrivateKey;
use crate::pem;
use crate::x509::CaCertificate;

/// What survives a restart, besides the files that it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) version: u32,
    pub(crate) trust_domain: TrustDomain,
    /// The sequence of the bundle; never goes back.
    pub(crate) sequence: u64,
    pub(crate) next_generation: u64,
    /// The longest lifetime of any SVID that may be alive.
    pub(crate) svid_seconds_max: u64,
    pub(crate) anchors: Anchors,
}

impl State {
    pub(crate) fn take_generation(&mut self) -> u64 {
        let generation = self.next_generation;
        self.next_generation = generation.saturating_add(1);
        generation
    }

    /// The generations whose files are in use.
    fn generations(&self) -> Vec<u64> {
        match &self.anchors {
            Anchors::Own { phase, intermediate } => {
                let mut generations = phase.generations();
                generations.push(*intermediate);
                generations
            }
            Anchors::User { .. } => Vec::new(),
        }
    }
}

/// Whose root it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub(crate) enum Anchors {
    /// The authority's own.
    Own { phase: RootPhase, intermediate: u64 },
    /// The user's, as they were last seen.
    User { roots: Vec<StoredRoot>, former: Vec<FormerRoot> },
}

/// A certificate inside the state file: DER in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredRoot {
    pub(crate) der: String,
}

/// A root that the user took away, while its certificates are alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FormerRoot {
    pub(crate) der: String,
    pub(crate) retire_at: u64,
}

/// A root with its key, for as long as it signs.
#[derive(Debug)]
pub(crate) struct RootRecord {
    pub(crate) certificate: Arc<CaCertificate>,
    pub(crate) key: PrivateKey,
}

/// The state directory, locked.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the directory if need be, checks its mode and locks it.
    pub(crate) fn open(path: PathBuf) -> Result<Self, AuthorityError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|source| file_error(&path, source))?;
        let metadata = std::fs::metadata(&path).map_err(|source| file_error(&path, source))?;
        check_mode(&path, &metadata)?;
        let lock_path = path.join(LOCK_FILE);
        let mut lock = OpenOptions::new();
        lock.write(true).create(true).truncate(false).mode(0o600);
        let lock = lock.open(&lock_path);
        let lock = lock.map_err(|source| file_error(&lock_path, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(AuthorityError::Locked { path: lock_path }),
            Err(TryLockError::Error(source)) => Err(file_error(&lock_path, source)),
        }
    }

    /// Reads the state; `None` when there was never any.
    pub(crate) fn load_state(&self) -> Result<Option<State>, AuthorityError> {
        let path = self.path.join(STATE_FILE);
        let content = match read_bounded(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.check_no_leftovers().map(|()| None);
            }
            Err(source) => return Err(file_error(&path, source)),
        };
        let corrupt = |reason: String| AuthorityError::Corrupt { path: path.clone(), reason };
        let state: State =
            serde_json::from_slice(&content).map_err(|error| corrupt(error.to_string()))?;
        if state.version != STATE_VERSION {
            return Err(corrupt(format!("version {} is not known", state.version)));
        }
        Ok(Some(state))
    }

    pub(crate) fn save_state(&self, state: &State) -> Result<(), AuthorityError> {
        let path = self.path.join(STATE_FILE);
        let content = serde_json::to_vec_pretty(state)
            .map_err(|error| file_error(&path, io::Error::other(error)))?;
        self.write(&path, &content, Access::Owner)
    }

    /// Compares the state with the settings.
    pub(crate) fn check_state(
        &self,
        state: &State,
        options: &AuthorityOptions,
    ) -> Result<(), AuthorityError> {
        let corrupt = |reason: String| {
            Err(AuthorityError::Corrupt { path: self.path.join(STATE_FILE), reason })
        };
        if state.trust_domain != options.trust_domain {
            let (is, set) = (&state.trust_domain, &options.trust_domain);
            return corrupt(format!("it belongs to the trust domain {is}, the settings say {set}"));
        }
        let own = matches!(state.anchors, Anchors::Own { .. });
        if own == options.user_intermediate.is_some() {
            let reason = if own {
                "it has an own root, the settings name a user's intermediate"
            } else {
                "it follows a user's root, the settings name no intermediate"
            };
            return corrupt(format!("{reason}; use another state directory"));
        }
        Ok(())
    }

    pub(crate) fn load_root(
        &self,
        domain: &TrustDomain,
        generation: u64,
    ) -> Result<Arc<CaCertificate>, AuthorityError> {
        let path = self.path.join(format!("root-{generation}.crt"));
        let certificate = read_certificates(&path)?.into_iter().next();
        let der = certificate.ok_or_else(|| corrupt(&path, "it has no certificate"))?;
        let root = CaCertificate::parse(&der, domain);
        root.map(Arc::new).map_err(|error| corrupt(&path, &error.to_string()))
    }

    pub(crate) fn load_root_record(
        &self,
        domain: &TrustDomain,
        generation: u64,
    ) -> Result<RootRecord, AuthorityError> {
        let certificate = self.load_root(domain, generation)?;
        let path = self.path.join(format!("root-{generation}.key"));
        let key = read_key(&path)?;
        if key.subject_public_key_info() != certificate.key_info() {
            return Err(corrupt(&path, "the key is not that of the certificate beside it"));
        }
        Ok(RootRecord { certificate, key })
    }

    pub(crate) fn save_root(
        &self,
        generation: u64,
        der: &CertificateDer<'_>,
        key: &PrivateKey,
    ) -> Result<(), AuthorityError> {
        self.save_pair(&format!("root-{generation}"), der, key)
    }

    pub(crate) fn save_intermediate(
        &self,
        generation: u64,
        der: &CertificateDer<'_>,
        key: &PrivateKey,
    ) -> Result<(), AuthorityError> {
        self.save_pair(&format!("intermediate-{generation}"), der, key)
    }

    pub(crate) fn intermediate_path(&self, generation: u64) -> PathBuf {
        self.path.join(format!("intermediate-{generation}.crt"))
    }

    pub(crate) fn load_intermediate(
        &self,
        domain: &TrustDomain,
        generation: u64,
    ) -> Result<Signer, AuthorityError> {
        let path = self.intermediate_path(generation);
        let chain = read_certificates(&path)?;
        let key = read_key(&self.path.join(format!("intermediate-{generation}.key")))?;
        Signer::new(chain, key, domain).map_err(|error| corrupt(&path, &error.to_string()))
    }

    /// Removes key and certificate files that the state does not name: what a crash left
    /// between writing them and writing the state, and what was retired.
    pub(crate) fn remove_orphans(&self, state: &State) {
        // Not there in all but the first start.
        let _ = std::fs::remove_file(self.path.join(CREATING_FILE));
        let used = state.generations();
        for (path, generation) in self.numbered_files() {
            if !used.contains(&generation)
                && let Err(error) = std::fs::remove_file(&path)
            {
                let path = path.display();
                tracing::warn!(%path, %error, "a file that is no longer used could not be removed");
            }
        }
    }

    /// Marks the first start, until [`Self::remove_orphans`]: keys that a crash leaves
    /// beside the mark were never used.
    pub(crate) fn begin_creation(&self) -> Result<(), AuthorityError> {
        self.write(&self.path.join(CREATING_FILE), b"", Access::Owner)
    }

    /// Keys without the state file mean that the state was lost, and a new authority must
    /// not quietly take its place.
    fn check_no_leftovers(&self) -> Result<(), AuthorityError> {
        if self.path.join(CREATING_FILE).exists() {
            return Ok(());
        }
        match self.numbered_files().first() {
            None => Ok(()),
            Some((path, _)) => Err(corrupt(
                path,
                "there are keys here but no authority.json; restore it, or remove the keys",
            )),
        }
    }

    /// The error for a state file whose content cannot be used.
    pub(crate) fn corrupt_state(&self, reason: &str) -> AuthorityError {
        corrupt(&self.path.join(STATE_FILE), reason)
    }

    fn numbered_files(&self) -> Vec<(PathBuf, u64)> {
        let Ok(entries) = std::fs::read_dir(&self.path) else { return Vec::new() };
        let mut files: Vec<_> =
            entries.flatten().filter_map(|entry| numbered(&entry.path())).collect();
        files.sort();
        files
    }

    fn save_pair(
        &self,
        name: &str,
        der: &CertificateDer<'_>,
        key: &PrivateKey,
    ) -> Result<(), AuthorityError> {
        let key_path = self.path.join(format!("{name}.key"));
        self.write(&key_path, key.to_pem().as_bytes(), Access::Owner)?;
        let path = self.path.join(format!("{name}.crt"));
        self.write(&path, to_pem(der).as_bytes(), Access::Public)
    }

    fn write(&self, path: &Path, content: &[u8], access: Access) -> Result<(), AuthorityError> {
        atomic_file::write(path, content, access).map_err(|source| file_error(path, source))
    }
}

/// Reads a private key that nobody else can read.
pub(crate) fn read_key(path: &Path) -> Result<PrivateKey, AuthorityError> {
    let metadata = std::fs::metadata(path).map_err(|source| file_error(path, source))?;
    check_mode(path, &metadata)?;
    let content = read_bounded(path).map_err(|source| file_error(path, source))?;
    let content = Zeroizing::new(content);
    let pem = std::str::from_utf8(&content).map_err(|_| corrupt(path, "it is not PEM"))?;
    PrivateKey::from_pem(pem).map_err(|error| corrupt(path, &error.to_string()))
}

/// Reads the certificates of a PEM file.
pub(crate) fn read_certificates(
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let content = read_bounded(path).map_err(|source| file_error(path, source))?;
    pem::certificates(&content).map_err(|error| corrupt(path, &error_chain(&error)))
}

/// Writes one certificate as PEM.
pub(crate) fn to_pem(der: &CertificateDer<'_>) -> String {
    let body = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

pub(crate) fn corrupt(path: &Path, reason: &str) -> AuthorityError {
    AuthorityError::Corrupt { path: path.to_owned(), reason: reason.to_owned() }
}

fn numbered(path: &Path) -> Option<(PathBuf, u64)> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(".key").or_else(|| name.strip_suffix(".crt"))?;
    let number = stem.strip_prefix("root-").or_else(|| stem.strip_prefix("intermediate-"))?;
    Some((path.to_owned(), number.parse().ok()?))
}

fn check_mode(path: &Path, metadata: &std::fs::Metadata) -> Result<(), AuthorityError> {
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(AuthorityError::Permissions { path: path.to_owned(), mode })
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("the file is larger than 1 MiB"));
    }
    Ok(content)
}

fn file_error(path: &Path, source: io::Error) -> AuthorityError {
    AuthorityError::File { path: path.to_owned(), source }
}

/// The version of the state file.
pub(crate) const STATE_VERSION: u32 = 1;
const CREATING_FILE: &str = "creating";
const FILE_BYTES_MAX: u64 = 1024 * 1024;
const LOCK_FILE: &str = "authority.lock";
const STATE_FILE: &str = "authority.json";
