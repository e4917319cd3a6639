//! What a controller remembers across restarts: its epoch, the secret of endpoint ids,
//! ClusterSetIPs, and the last known good state of its peers.
//!
//! A file that cannot be read costs continuity and nothing else (new endpoint ids, new
//! addresses, an empty view until peers are heard), so the controller starts without it;
//! the broken file is kept aside for whoever wants to know why.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use isthmus_model::{ClusterId, LinkState};
use isthmus_runtime::atomic_file::{self, Access};
use serde::{Deserialize, Serialize};

use crate::proto::{SavedPeer, ServiceName};

/// The content of the state file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SavedState {
    pub(crate) version: u32,
    /// The epoch in which it was written.
    pub(crate) epoch: u64,
    /// The secret of endpoint ids.
    pub(crate) secret: [u8; 32],
    /// When it was written, seconds since 1970.
    pub(crate) saved_at: u64,
    pub(crate) vips: Vec<(ServiceName, IpAddr)>,
    pub(crate) links: BTreeMap<ClusterId, LinkState>,
    pub(crate) peers: BTreeMap<ClusterId, SavedSide>,
}

/// What is kept of one peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SavedSide {
    pub(crate) state: SavedPeer,
    pub(crate) lease_valid: bool,
}

/// The state file.
#[derive(Debug, Clone)]
pub(crate) struct StateFile {
    path: PathBuf,
}

impl StateFile {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE_NAME) }
    }

    /// What was saved; `None` when there is nothing, or nothing that can be read.
    pub(crate) fn load(&self) -> Option<SavedState> {
        let content = match std::fs::read(&self.path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                let path = self.path.display();
                tracing::error!(%path, %error, "the federation state cannot be read");
                return None;
            }
        };
        let reason = match serde_json::from_slice::<SavedState>(&content) {
            Ok(state) if state.version == FILE_VERSION => return Some(state),
            Ok(state) => format!("version {} is not known", state.version),
            Err(error) => error.to_string(),
        };
        let aside = self.path.with_extension("corrupt");
        // If it cannot be moved it will be replaced, which loses only the evidence.
        let _ = std::fs::rename(&self.path, &aside);
        let path = aside.display();
        tracing::error!(%path, reason, "the federation state is corrupt; starting without it");
        None
    }

    /// Replaces the file.
    pub(crate) fn save(&self, state: &SavedState) -> io::Result<()> {
        let content = serde_json::to_vec(state)?;
        atomic_file::write(&self.path, &content, Access::Owner)
    }
}

/// The version of the file's form.
pub(crate) const FILE_VERSION: u32 = 1;
const FILE_NAME: &str = "federation.json";
