//! State files that a crash leaves either old or new, never half.
//!
//! Write to a temporary file beside the target, sync it, rename it, sync the folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Who may read a state file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Mode 0600: keys and everything that may hold one.
    Owner,
    /// Mode 0644: bundles and other public state.
    Public,
}

/// Replaces the file at `path` with `content`, all or nothing.
///
/// # Errors
///
/// The system's error; the former file is then untouched.
pub fn write(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("the path has no folder"))?;
    let name = path.file_name().ok_or_else(|| io::Error::other("the path has no file name"))?;
    let temporary = folder.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let outcome = write_and_rename(&temporary, path, content, access);
    if outcome.is_err() {
        // The target is untouched; a leftover temporary file would only confuse.
        let _ = std::fs::remove_file(&temporary);
    }
    outcome?;
    File::open(folder)?.sync_all()
}

fn write_and_rename(
    temporary: &Path,
    path: &Path,
    content: &[u8],
    access: Access,
) -> io::Result<()> {
    let mode = match access {
        Access::Owner => 0o600,
        Access::Public => 0o644,
    };
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(temporary)?;
    // A temporary file left by a crash keeps its old mode, so the mode is set again.
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(temporary, path)
}
