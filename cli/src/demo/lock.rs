//! One demo at a time for each user, and what a demo left that was killed.
//!
//! The lock is the kernel's and ends with the process, however it ends. The file holds
//! the ids of the demo and of its processes, so that those of a demo that was killed can
//! be named. They are not ended unasked: an id may have gone to a stranger.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// The lock of a running demo.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock.
    ///
    /// # Errors
    ///
    /// Another demo has it, or a former demo has left processes; the message says which
    /// and what to do.
    pub(crate) fn take(path: PathBuf) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        let mut file =
            options.open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut text = String::new();
        (&mut file).take(TEXT_BYTES_MAX).read_to_string(&mut text).unwrap_or_default();
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let owner = text.lines().next().unwrap_or("unknown");
                bail!("another `isthmus demo` is running (process {owner}); end it first");
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        let left: Vec<String> = text.lines().skip(1).filter_map(leftover).collect();
        if !left.is_empty() {
            let list = left.join("\n  ");
            let ids: Vec<&str> =
                left.iter().filter_map(|line| line.split_whitespace().next()).collect();
            bail!(
                "a former demo left processes running:\n  {list}\nend them with `kill {}`",
                ids.join(" ")
            );
        }
        Ok(Self { file, path })
    }

    /// Notes the processes that run now.
    pub(crate) fn note(&mut self, processes: &[(u32, String)]) -> Result<()> {
        let mut text = format!("{}\n", std::process::id());
        for (id, name) in processes {
            text.push_str(&format!("{id} {} {name}\n", started(*id).unwrap_or_default()));
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(text.as_bytes())
        };
        write(&mut self.file).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Where the lock of this user's demo is.
pub(crate) fn path() -> PathBuf {
    std::env::temp_dir().join(format!("isthmus-demo-{}.lock", rustix::process::getuid().as_raw()))
}

/// What a line of the file names, if that very process still runs.
fn leftover(line: &str) -> Option<String> {
    let mut words = line.splitn(3, ' ');
    let id: u32 = words.next()?.parse().ok()?;
    let then: u64 = words.next()?.parse().ok()?;
    let name = words.next()?;
    (started(id)? == then).then(|| format!("{id} ({name})"))
}

/// When a process was started, in the kernel's ticks, if it runs.
fn started(id: u32) -> Option<u64> {
    let text =
        std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("stat")).ok()?;
    started_of(&text)
}

/// Spec: proc_pid_stat(5): the name may have spaces and brackets; after its last bracket
/// comes field 3, the state; field 22 is the start time.
fn started_of(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    if state == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The file names at most a few dozen processes.
const TEXT_BYTES_MAX: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_demo_is_told_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let mut first = Lock::take(path.clone()).unwrap();
        first.note(&[]).unwrap();
        let error = Lock::take(path.clone()).unwrap_err().to_string();
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        drop(first);
        Lock::take(path).unwrap();
    }

    #[test]
    fn processes_that_a_killed_demo_left_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let mut first = Lock::take(path.clone()).unwrap();
        first.note(&[(std::process::id(), "onprem".to_owned())]).unwrap();
        drop(first);
        let error = Lock::take(path).unwrap_err().to_string();
        assert!(error.ends_with(&format!("end them with `kill {}`", std::process::id())));
    }

    #[test]
    fn an_id_that_went_to_another_process_is_no_leftover() {
        assert_eq!(leftover(&format!("{} 1 onprem", std::process::id())), None);
        assert_eq!(leftover("junk"), None);
    }

    #[test]
    fn the_start_time_is_found_behind_a_name_with_brackets() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        assert_eq!(started_of(stat), Some(4242));
    }
}
