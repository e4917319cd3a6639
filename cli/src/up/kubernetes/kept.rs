//! The authority's state folder as a Secret.
//!
//! The Secret is the truth: what it holds replaces the folder at the start. A Secret that
//! somebody else has written means that this process does not lead any more, and ends it.
//!
//! # When a pod dies during a rotation
//!
//! The authority rotates only here, one turn at a time: everything that it has is in the
//! Secret, it does what is due, and what that made goes into the Secret before the next
//! turn. While the Secret cannot be written there is no next turn. So:
//!
//! - A root is published in one turn and used first in another, after its overlap. No
//!   certificate is below a root that the Secret does not have.
//! - The controller, other clusters and the ConfigMaps of the roots are told of a bundle
//!   only when it is kept.
//! - An intermediate signs at once, and may be lost with the pod. Its certificates go on
//!   verifying: they carry it, and it is below a kept root. The successor goes on with the
//!   former one, which is only at half of its life.
//!
//! What is left is the time between the publication of a root and its write, milliseconds
//! unless the API server refuses. Certificates that are issued in it bring the new bundle
//! along. If the pod dies then, the successor publishes another root under the same
//! sequence number, which the pods with these certificates do not take for news: they
//! refuse certificates below it from its first use until they are started again or the
//! former root is retired. A root is published once in more than six years.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use isthmus_certs::{Authority, AuthorityHandle, Bundle};
use isthmus_kubernetes::keep::Entries;
use isthmus_kubernetes::{Client, KeepError, Keeper};
use isthmus_model::name::SYSTEM_NAMESPACE;
use isthmus_runtime::atomic_file::{self, Access};
use isthmus_runtime::{Stop, clock, error_chain};
use tokio::sync::watch;

/// The authority's files and the secret of endpoint ids.
#[derive(Debug)]
pub(crate) struct Kept {
    keeper: Keeper,
    folder: PathBuf,
    saved: Entries,
    endpoint_secret: [u8; SECRET_BYTES],
    superseded: watch::Sender<bool>,
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
        let superseded = watch::Sender::new(false);
        Ok(Self { keeper, folder, saved, endpoint_secret, superseded })
    }

    /// What endpoint ids are made with.
    pub(crate) fn endpoint_secret(&self) -> [u8; SECRET_BYTES] {
        self.endpoint_secret
    }

    /// Becomes true when the Secret has another owner, so that this process has to end.
    pub(crate) fn superseded(&self) -> watch::Receiver<bool> {
        self.superseded.subscribe()
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

    /// Rotates what is due and keeps what that makes, until the process drains; `bundle` is
    /// told of the authority's when it is kept. Ends when the Secret has another owner.
    pub(crate) async fn follow(
        mut self,
        authority: AuthorityHandle,
        bundle: watch::Sender<Arc<Bundle>>,
        mut stop: Stop,
    ) {
        // An operator's rotation makes work as well.
        let mut changed = authority.bundle();
        loop {
            changed.mark_unchanged();
            let wait = match self.turn(&authority, &bundle).await {
                Ok(()) => {
                    let due = authority.read(Authority::next_due);
                    due.duration_since(clock::wall()).unwrap_or_default()
                }
                Err(error) if error.downcast_ref().is_some_and(is_conflict) => {
                    tracing::error!(%error, "ending");
                    self.superseded.send_replace(true);
                    return;
                }
                Err(error) => {
                    let error = error_chain(error.as_ref());
                    tracing::error!(error, "the authority does not rotate; trying again");
                    RETRY
                }
            };
            tokio::select! {
                () = stop.draining() => return,
                outcome = changed.changed() => if outcome.is_err() { return },
                // The wall clock may be set meanwhile, and the folder may have changed.
                () = tokio::time::sleep(wait.clamp(RETRY, SAVE_INTERVAL)) => {}
            }
        }
    }

    async fn turn(
        &mut self,
        authority: &AuthorityHandle,
        bundle: &watch::Sender<Arc<Bundle>>,
    ) -> anyhow::Result<()> {
        self.save().await?;
        let rotated = authority.tick();
        // A tick that failed may have done a step before.
        self.save().await?;
        let kept = authority.bundle().borrow().clone();
        bundle.send_if_modified(|told| {
            let is_news = **told != *kept;
            if is_news {
                *told = kept;
            }
            is_news
        });
        rotated.context("the authority cannot rotate")?;
        Ok(())
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
/// The pause after a turn that failed, and the shortest between two.
const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
