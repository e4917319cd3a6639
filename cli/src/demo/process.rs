//! One child process: started with its output in a log file, ended by its id.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Where a child's standard output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// To its log file.
    Log,
    /// To the demo, which must read it.
    Pipe,
}

/// A running child. It is killed when dropped, but its owner should end it properly.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    id: u32,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts this very binary with other arguments.
    ///
    /// The child has a process group of its own, so that Ctrl-C reaches only the demo,
    /// which ends its children in order.
    pub(crate) fn start<A: AsRef<OsStr>>(
        name: &str,
        folder: &Path,
        output: Output,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self> {
        let log = folder.join(format!("{}.log", name.replace('/', "-")));
        let open = || {
            let file = File::options().create(true).append(true).open(&log);
            file.with_context(|| format!("cannot open {}", log.display()))
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).process_group(0).kill_on_drop(true);
        // Applications and the relay end when their standard input does, which is when
        // the demo ends, however it ends.
        command.stdin(Stdio::piped()).stderr(open()?);
        match output {
            Output::Log => command.stdout(open()?),
            Output::Pipe => command.stdout(Stdio::piped()),
        };
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let id = child.id().with_context(|| format!("{name} ended at once"))?;
        Ok(Self { name: name.to_owned(), id, child, log })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Takes its standard input and output; `None` the second time.
    pub(crate) fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        Some((self.child.stdin.take()?, self.child.stdout.take()?))
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The last lines that it logged.
    pub(crate) fn log_tail(&self) -> String {
        tail(&std::fs::read_to_string(&self.log).unwrap_or_default(), LOG_TAIL_LINES)
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// SIGTERM; SIGKILL when `deadline` has passed.
    pub(crate) async fn end(mut self, deadline: Duration) {
        let id = i32::try_from(self.id).ok().and_then(rustix::process::Pid::from_raw);
        if let (Some(id), None) = (id, self.ended()) {
            // The child has not been waited for, so the id is still its own.
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(deadline, self.child.wait()).await.is_err() {
            tracing::warn!(process = self.name, "did not end in time and is killed");
            let _ = self.child.kill().await;
        }
    }
}

/// The last lines of a text.
fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

const LOG_TAIL_LINES: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a", 2), "a");
        assert_eq!(tail("", 2), "");
    }
}
