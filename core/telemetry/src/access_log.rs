//! Where access log lines go, and the thread that writes them.
//!
//! A pipe that nobody reads or a full disk must not hold up anything else, so one thread
//! does nothing but write; blocks of lines that find its queue full are dropped and
//! counted (security.md C-18).

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::sync::oneshot;

use crate::access::{AccessFormat, Batch};
use crate::metrics::{Counter, MetricsRegistry};
use crate::recorder::AccessLogMode;

/// The access log of a process.
#[derive(Debug, Clone)]
pub struct AccessLogOptions {
    /// Which requests have a line. Default: none.
    pub mode: AccessLogMode,
    /// Text or JSON. Default: text.
    pub format: AccessFormat,
    /// Where the lines go. Default: standard output.
    pub target: AccessLogTarget,
}

impl Default for AccessLogOptions {
    fn default() -> Self {
        Self {
            mode: AccessLogMode::Off,
            format: AccessFormat::Text,
            target: AccessLogTarget::Stdout,
        }
    }
}

/// Where access log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Appended to a file.
    File(PathBuf),
    /// Nowhere here; they are only exported by OTLP.
    OtlpOnly,
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
}

impl AccessLogTarget {
    fn open(&self) -> io::Result<Option<Box<dyn Write + Send>>> {
        Ok(match self {
            Self::File(path) => {
                let file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
                Some(Box::new(file))
            }
            Self::OtlpOnly => None,
            Self::Stderr => Some(Box::new(io::stderr())),
            Self::Stdout => Some(Box::new(io::stdout())),
        })
    }
}

/// The telemetry task's side of the writing thread.
#[derive(Debug)]
pub(crate) struct AccessLog {
    format: AccessFormat,
    blocks: SyncSender<String>,
    dropped: Counter,
}

impl AccessLog {
    /// Starts the thread; the receiver resolves when it has written everything, after
    /// the log was dropped. `None` when there is nowhere to write to.
    pub(crate) fn start(
        options: &AccessLogOptions,
        registry: &MetricsRegistry,
    ) -> io::Result<Option<(Self, oneshot::Receiver<()>)>> {
        if options.mode == AccessLogMode::Off {
            return Ok(None);
        }
        let Some(target) = options.target.open()? else { return Ok(None) };
        let (blocks, queue) = sync_channel(BLOCKS_MAX);
        let (done, ended) = oneshot::channel();
        // Not joined: the thread may sit in a write that never returns. `ended` says
        // when it is through, and the process does not wait for it beyond a deadline.
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_blocks(target, &queue, done))?;
        let help = "Access log blocks (one recorder batch each) that found the writer busy";
        let dropped = registry.counter("isthmus_access_log_dropped_blocks_total", help);
        Ok(Some((Self { format: options.format, blocks, dropped }, ended)))
    }

    /// Queues the lines of a batch; never waits.
    pub(crate) fn offer(&self, batch: &Batch) {
        let mut block = String::new();
        for (record, _) in batch.iter().filter(|(_, log)| *log) {
            record.render(self.format, &mut block);
        }
        if !block.is_empty() && self.blocks.try_send(block).is_err() {
            self.dropped.inc();
        }
    }
}

fn write_blocks(
    mut target: Box<dyn Write + Send>,
    queue: &Receiver<String>,
    done: oneshot::Sender<()>,
) {
    let mut failing = false;
    for block in queue {
        let result = target.write_all(block.as_bytes()).and_then(|()| target.flush());
        match result {
            Ok(()) => failing = false,
            Err(error) if !std::mem::replace(&mut failing, true) => {
                tracing::warn!(%error, "cannot write the access log; its lines are lost");
            }
            Err(_) => {}
        }
    }
    // Nobody may be waiting any more.
    let _ = done.send(());
}

/// Blocks that wait for the writer.
const BLOCKS_MAX: usize = 64;
