//! The authority's state folder as a Secret.
//!
//! The Secret is the truth: what it holds replaces the folder at the start, and every
//! change of the folder goes into it before this process can have lost the lead for long.
//! A Secret that somebody else has written means that this process does not lead any more.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use isthmus_certs::Bundle;
use isthmus_kubernetes::keep::Entries;
use isthmus_kubernetes::{Client, KeepError, Keeper};
use isthmus_model::name::SYSTEM_NAMESPACE;
use isthmus_runtime::atomic_file::{self, Access};
use isthmus_runtime::{Stop, error_chain};
use tokio::sync::watch;

/// The authority's files and the secret of endpoint ids.
#[derive(Debug)]
pub(crate) struct Kept {
    keeper: Keeper,
    folder: PathBuf,
    saved: Entries,
    endpoint_secret: [u8; SECRET_BYTES],
}

impl Kept {
    /// Puts what the Secret holds in place of the folder. A Secret that cannot be read is
    /// an error: with new keys every identity of the cluster would change.
    pub(crate) async fn restore(client: Client, folder: PathBuf) -> anyhow::Result<Self> {
        let mut keeper = Keeper::new(client, SYSTEM_NAMESPACE, SECRET);
        let saved = keeper.load().await?.unwrap_or_default();
        let known = saved.get(ENDPOINT_SECRET).and_then(|bytes| bytes.as_slice().try_into().ok());
        let endpoint_secret = match known {
            Some(secret) => secret,
            None => {
                let mut secret = [0; SECRET_BYTES];
                aws_lc_rs::rand::fill(&mut secret).context("the system gives no random bytes")?;
                secret
            }
        };
        if saved.keys().any(|name| name != ENDPOINT_SECRET) {
            replace(&folder, &saved)
                .with_context(|| format!("cannot restore {}", folder.display()))?;
        }
        Ok(Self { keeper, folder, saved, endpoint_secret })
    }

    /// What endpoint ids are made with.
    pub(crate) fn endpoint_secret(&self) -> [u8; SECRET_BYTES] {
        self.endpoint_secret
    }

    /// Writes the folder into the Secret if they differ.
    pub(crate) async fn save(&mut self) -> anyhow::Result<()> {
        let mut entries =
            read(&self.folder).with_context(|| format!("cannot read {}", self.folder.display()))?;
        entries.insert(ENDPOINT_SECRET.to_owned(), self.endpoint_secret.to_vec());
        if entries != self.saved {
            self.keeper.save(entries.clone()).await?;
            self.saved = entries;
        }
        Ok(())
    }

    /// Saves with each new bundle and now and then, until the process drains; ends when
    /// the Secret has another owner.
    pub(crate) async fn follow(mut self, mut bundle: watch::Receiver<Arc<Bundle>>, mut stop: Stop) {
        let mut interval = tokio::time::interval(SAVE_INTERVAL);
        loop {
            tokio::select! {
                () = stop.draining() => return,
                outcome = bundle.changed() => if outcome.is_err() { return },
                _ = interval.tick() => {}
            }
            match self.save().await {
                Ok(()) => {}
                Err(error) if error.downcast_ref().is_some_and(is_conflict) => {
                    tracing::error!(%error, "ending");
                    return;
                }
                Err(error) => tracing::error!(
                    error = %error_chain(error.as_ref()),
                    "the authority's keys are not kept; trying again"
                ),
            }
        }
    }
}

fn is_conflict(error: &KeepError) -> bool {
    matches!(error, KeepError::Conflict { .. })
}

/// The files of a folder; locks and half-written files are not state.
fn read(folder: &Path) -> std::io::Result<Entries> {
    let mut entries = Entries::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_file() && is_state(&name) {
            entries.insert(name, std::fs::read(entry.path())?);
        }
    }
    Ok(entries)
}

fn replace(folder: &Path, entries: &Entries) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for name in read(folder)?.keys().filter(|name| !entries.contains_key(*name)) {
        std::fs::remove_file(folder.join(name))?;
    }
    for (name, content) in entries {
        // Names come from the API server; one with a slash would leave the folder.
        if is_state(name) && name != ENDPOINT_SECRET && !name.contains('/') {
            atomic_file::write(&folder.join(name), content, Access::Owner)?;
        }
    }
    Ok(())
}

fn is_state(name: &str) -> bool {
    !name.starts_with('.') && !name.ends_with(".lock") && !name.ends_with(".tmp")
}

/// The Secret of the authority.
const SECRET: &str = "isthmus-authority";
const ENDPOINT_SECRET: &str = "endpoint-secret";
const SECRET_BYTES: usize = 32;
/// How often the folder is compared with the Secret besides changes of the bundle.
const SAVE_INTERVAL: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_replaced_as_a_whole_and_locks_are_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("authority.lock"), "").unwrap();
        std::fs::write(path.join("old.pem"), "old").unwrap();
        let entries = Entries::from([
            ("authority.json".to_owned(), b"{}".to_vec()),
            (ENDPOINT_SECRET.to_owned(), vec![1; 32]),
            ("../escape".to_owned(), b"x".to_vec()),
        ]);
        replace(&path, &entries).unwrap();
        assert_eq!(read(&path).unwrap().into_keys().collect::<Vec<_>>(), ["authority.json"]);
        assert!(path.join("authority.lock").exists());
        assert!(!folder.path().join("escape").exists());
    }
}
