//! One process of the real binary.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{eventually, soon};

/// A running process. Dropping it kills it and waits until it is gone.
///
/// It stays in the process group of the test run, so that an interrupt at the terminal
/// reaches it as well; it starts no processes of its own.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts the binary; what it prints goes to a file.
    pub(crate) fn start(log: &Path, arguments: &[&str]) -> Self {
        let open = || File::options().create(true).append(true).open(log).unwrap();
        let child = Command::new(BINARY)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(open())
            .stderr(open())
            .spawn()
            .unwrap();
        Self { child, log: log.to_owned() }
    }

    /// Asks the process to end.
    pub(crate) fn ask_to_end(&self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the process ends", || {
            std::future::ready(
                child
                    .try_wait()
                    .map_err(|e| e.to_string())
                    .and_then(|status| status.ok_or_else(|| "it runs".to_owned())),
            )
        })
        .await
    }

    /// Ends the process without a warning.
    pub(crate) fn kill(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What it printed.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
            show(&format!("--- {}\n{}\n", self.log.display(), tail.join("\n")));
        }
    }
}

/// Runs the binary until it ends by itself.
pub(crate) async fn run_to_end(arguments: impl IntoIterator<Item = &str>) -> Output {
    let mut command = tokio::process::Command::new(BINARY);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    soon("the command ends", command.output()).await.unwrap()
}

#[expect(clippy::print_stderr, reason = "the log of a process explains why a test failed")]
fn show(text: &str) {
    eprintln!("{text}");
}

const BINARY: &str = env!("CARGO_BIN_EXE_isthmus");
const LOG_LINES: usize = 60;
