//! When objects were first seen, kept over restarts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use isthmus_config::ObjectRef;
use isthmus_runtime::atomic_file::{self, Access};

/// When objects without a creation time were first seen, kept over restarts so that the
/// oldest stays the oldest.
pub(crate) struct Created {
    path: PathBuf,
    times: BTreeMap<ObjectRef, i64>,
}

impl Created {
    /// Reads what was saved; nothing when it cannot be read.
    pub(crate) fn load(path: PathBuf) -> Self {
        let times = match std::fs::read(&path) {
            Err(_) => BTreeMap::new(),
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "creation times cannot be read");
                BTreeMap::new()
            }),
        };
        Self { path, times }
    }

    /// The times.
    pub(crate) fn times(&self) -> &BTreeMap<ObjectRef, i64> {
        &self.times
    }

    /// Saves the times if they differ from those saved last.
    pub(crate) fn save(&mut self, times: &BTreeMap<ObjectRef, i64>) {
        if *times == self.times {
            return;
        }
        self.times.clone_from(times);
        if let Err(error) = write(&self.path, times) {
            tracing::warn!(path = %self.path.display(), %error, "creation times are not saved");
        }
    }
}

fn write(path: &Path, times: &BTreeMap<ObjectRef, i64>) -> anyhow::Result<()> {
    atomic_file::write(path, &serde_json::to_vec(times)?, Access::Owner)?;
    Ok(())
}
