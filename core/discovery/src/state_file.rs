//! The last good state on disk, from which a proxy starts when there is no controller.
//!
//! # Form
//!
//! ```text
//! isthmus-state 1 <sha-256 of the rest, hex> <bytes of the rest>
//! {"cluster":…,"role":…,"epoch":…,"generation":…,"saved":…,"names":[…]}
//! <version of the resource, hex> <the resource as JSON>
//! …
//! ```
//!
//! The checksum covers everything after the first line, and the first line has one
//! spelling only, so no damaged file is taken. A resource that does not decode although
//! the checksum holds was written by another version of the program: it alone is left out.
//! The checksum finds damage, not forgery; whoever may write the file is trusted, and the
//! file is readable by its owner only because certificates with their keys may be inside.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use isthmus_model::{ClusterId, Generation, NodeInfo, Resource, ServiceKey, TrustDomain};
use isthmus_runtime::atomic_file::{self, Access};
use serde::{Deserialize, Serialize};

use crate::message::{Epoch, Position, Rejection, Version};
use crate::node::NodeRole;
use crate::subscriber::{Held, Saved};

/// A state file that is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateFileError {
    /// The content is not what its checksum says, or ends early.
    #[error("state file {path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The content after the checksum has another form.
    #[error("state file {path} has an unexpected form")]
    Form {
        /// The file.
        path: PathBuf,
    },
    /// The file is of another cluster, trust domain or role.
    #[error("state file {path} is of {found}, not of {wanted}")]
    Other {
        /// The file.
        path: PathBuf,
        /// Whose state it is.
        found: String,
        /// Whose state it should be.
        wanted: String,
    },
    /// The file is too large.
    #[error("state file {path} has more than {limit} bytes", limit = FILE_BYTES_MAX)]
    Size {
        /// The file.
        path: PathBuf,
    },
    /// The system refused to read or write it.
    #[error("state file {path} cannot be read or written")]
    System {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file was written by a later version of the program.
    #[error("state file {path} has format {format:?}, this program reads 1")]
    Version {
        /// The file.
        path: PathBuf,
        /// The format named in the file, cut short.
        format: String,
    },
}

/// What a state file held.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) saved: Saved,
    /// When it was written.
    pub(crate) at: SystemTime,
    /// The resources that were left out.
    pub(crate) rejections: Vec<Rejection>,
}

/// The state file of one proxy.
#[derive(Debug, Clone)]
pub(crate) struct StateFile {
    path: PathBuf,
    owner: Owner,
}

/// Whose state a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    cluster: ClusterId,
    trust_domain: TrustDomain,
    role: String,
}

#[derive(Serialize, Deserialize)]
struct Meta {
    #[serde(flatten)]
    owner: Owner,
    epoch: u64,
    generation: u64,
    /// Seconds since 1970.
    saved: u64,
    names: Vec<String>,
}

impl StateFile {
    /// The file at a path, for one role of one cluster.
    pub(crate) fn new(path: &Path, node: &NodeInfo, role: NodeRole) -> Self {
        let owner = Owner {
            cluster: node.cluster.clone(),
            trust_domain: node.trust_domain.clone(),
            role: role.label().into(),
        };
        Self { path: path.to_owned(), owner }
    }

    /// Reads the state; `None` when there is no file.
    pub(crate) fn load(&self) -> Result<Option<Loaded>, StateFileError> {
        let path = || self.path.clone();
        let system = |source| StateFileError::System { path: path(), source };
        match std::fs::metadata(&self.path) {
            Ok(meta) if meta.len() > FILE_BYTES_MAX => {
                return Err(StateFileError::Size { path: path() });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(system(error)),
        }
        let content = std::fs::read(&self.path).map_err(system)?;
        self.decode(&content).map(Some)
    }

    /// Replaces the file. Blocks; called off the async threads.
    pub(crate) fn store(&self, saved: &Saved, at: SystemTime) -> Result<(), StateFileError> {
        let system = |source| StateFileError::System { path: self.path.clone(), source };
        let content = self.encode(saved, at).map_err(|error| system(error.into()))?;
        atomic_file::write(&self.path, &content, Access::Owner).map_err(system)
    }

    fn encode(&self, saved: &Saved, at: SystemTime) -> Result<Vec<u8>, serde_json::Error> {
        let meta = Meta {
            owner: self.owner.clone(),
            epoch: saved.position.epoch.0,
            generation: saved.position.generation.0,
            saved: at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            names: saved.names.iter().map(ServiceKey::host).collect(),
        };
        let mut body = serde_json::to_vec(&meta)?;
        body.push(b'\n');
        for held in saved.held.values() {
            body.extend_from_slice(held.version.to_string().as_bytes());
            body.push(b' ');
            serde_json::to_writer(&mut body, &held.resource)?;
            body.push(b'\n');
        }
        let mut content = header(&body).into_bytes();
        content.append(&mut body);
        Ok(content)
    }

    fn decode(&self, content: &[u8]) -> Result<Loaded, StateFileError> {
        let path = || self.path.clone();
        let damaged = || StateFileError::Damaged { path: path() };
        let end = content.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
        let (first, body) = content.split_at(end + 1);
        if first != header(body).as_bytes() {
            return Err(match later_format(first) {
                Some(format) => StateFileError::Version { path: path(), format },
                None => damaged(),
            });
        }
        let form = || StateFileError::Form { path: path() };
        let mut lines = body.split(|byte| *byte == b'\n');
        let meta: Meta =
            serde_json::from_slice(lines.next().ok_or_else(form)?).map_err(|_| form())?;
        if meta.owner != self.owner {
            let (found, wanted) = (meta.owner.to_string(), self.owner.to_string());
            return Err(StateFileError::Other { path: path(), found, wanted });
        }
        let mut held = BTreeMap::new();
        let mut rejections = Vec::new();
        for line in lines.filter(|line| !line.is_empty()) {
            match resource(line) {
                Ok(found) => {
                    held.insert(found.resource.key(), found);
                }
                Err(reason) => rejections.push(Rejection::named("resource", "on disk", &reason)),
            }
        }
        let position =
            Position { epoch: Epoch(meta.epoch), generation: Generation(meta.generation) };
        let names = meta.names.iter().filter_map(|host| ServiceKey::from_host(host)).collect();
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(meta.saved)).unwrap_or(UNIX_EPOCH);
        Ok(Loaded { saved: Saved { position, names, held }, at, rejections })
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "role {} of cluster {} ({})", self.role, self.cluster, self.trust_domain)
    }
}

fn header(body: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{MAGIC} {FORMAT} {hex} {}\n", body.len())
}

/// The format that a first line names, if it is a first line of another format.
fn later_format(first: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(first).ok()?;
    let mut words = text.split_whitespace();
    let format = (words.next() == Some(MAGIC)).then(|| words.next()).flatten()?;
    (format != FORMAT).then(|| format.chars().take(8).collect())
}

fn resource(line: &[u8]) -> Result<Held, String> {
    let at = 2 * Version::BYTES;
    let (version, json) = line.split_at_checked(at).ok_or("the line is too short")?;
    let version = std::str::from_utf8(version).ok().and_then(Version::from_hex);
    let json = json.strip_prefix(b" ").ok_or("the version does not end")?;
    let resource: Resource = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let version = version.ok_or("the version is not one")?;
    Ok(Held { version, resource: Arc::new(resource) })
}

const MAGIC: &str = "isthmus-state";
const FORMAT: &str = "1";

/// Bytes in a state file; a larger one is not read.
pub(crate) const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt;

    use isthmus_model::ResourceKind;

    use super::*;
    use crate::testing::{gateways, key, node_info, saved, world};

    fn file(path: &Path) -> StateFile {
        StateFile::new(path, &node_info(), NodeRole::Ingress)
    }

    fn at() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    #[test]
    fn a_state_survives_the_disk_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let file = file(&path);
        assert!(file.load().unwrap().is_none());
        let mut state = saved();
        state.names = vec![key("cart")];
        file.store(&state, at()).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let loaded = file.load().unwrap().unwrap();
        assert_eq!(loaded.saved, state);
        assert_eq!(loaded.at, at());
        assert!(loaded.rejections.is_empty());
    }

    #[test]
    fn every_kind_survives_the_disk() {
        let file = file(Path::new("state"));
        let all = crate::testing::resources(gateways().into_iter().chain(world()));
        let mut state = saved();
        state.held = all
            .into_iter()
            .map(|(key, resource)| {
                let version = Version::of(&serde_json::to_vec(&resource).unwrap());
                (key, Held { version, resource })
            })
            .collect();
        let kinds: BTreeSet<_> = state.held.keys().map(|key| key.kind).collect();
        assert!(kinds.into_iter().eq(ResourceKind::ALL));
        let loaded = file.decode(&file.encode(&state, at()).unwrap()).unwrap();
        assert!(loaded.rejections.is_empty());
        assert_eq!(loaded.saved, state);
    }

    #[test]
    fn a_state_of_another_owner_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        file(&path).store(&saved(), at()).unwrap();
        let other = StateFile::new(&path, &node_info(), NodeRole::Sidecar);
        assert!(matches!(other.load(), Err(StateFileError::Other { .. })));
        let mut node = node_info();
        node.cluster = ClusterId::new("elsewhere").unwrap();
        let other = StateFile::new(&path, &node, NodeRole::Ingress);
        assert!(matches!(other.load(), Err(StateFileError::Other { .. })));
    }

    #[test]
    fn a_file_cut_at_any_byte_is_refused() {
        let file = file(Path::new("state"));
        let content = file.encode(&saved(), at()).unwrap();
        for length in 0..content.len() {
            let outcome = file.decode(&content[..length]);
            assert!(outcome.is_err(), "cut at {length}");
        }
        let mut longer = content;
        longer.push(b'\n');
        assert!(file.decode(&longer).is_err());
    }

    #[test]
    fn a_file_with_any_bit_flipped_is_refused() {
        let file = file(Path::new("state"));
        let content = file.encode(&saved(), at()).unwrap();
        for index in 0..content.len() {
            for bit in 0..8 {
                let mut bad = content.clone();
                bad[index] ^= 1 << bit;
                assert!(file.decode(&bad).is_err(), "byte {index} bit {bit}");
            }
        }
    }

    #[test]
    fn a_later_format_is_named_and_a_later_resource_is_left_out() {
        let file = file(Path::new("state"));
        let outcome = file.decode(b"isthmus-state 2 00 0\n");
        assert!(matches!(outcome, Err(StateFileError::Version { format, .. }) if format == "2"));
        let content = file.encode(&saved(), at()).unwrap();
        let start = content.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let mut body = content[start..].to_vec();
        body.extend_from_slice(b"00000000000000000000000000000000 {\"kind\":\"New\"}\n");
        body.extend_from_slice(b"short\n");
        let mut changed = header(&body).into_bytes();
        changed.append(&mut body);
        let loaded = file.decode(&changed).unwrap();
        assert_eq!(loaded.rejections.len(), 2);
        assert_eq!(loaded.saved, saved());
    }
}
