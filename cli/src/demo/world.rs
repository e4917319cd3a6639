//! The processes of the demo: three clusters, their applications, the wide area network.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};

use super::example::Folder;
use super::lock::Lock;
use super::process::{Output, Process};
use super::scenario::{Cluster, Scenario};
use super::wan::command::Command;

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct World<'d> {
    folder: &'d Folder,
    scenario: &'d Scenario,
    lock: Lock,
    /// The processes of each cluster, its own first; empty while it is killed.
    clusters: BTreeMap<String, Vec<Process>>,
    wan: Option<(Process, Control)>,
}

/// The relay's standard input and output.
#[derive(Debug)]
struct Control {
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl<'d> World<'d> {
    /// A world in which nothing runs.
    pub(crate) fn new(folder: &'d Folder, scenario: &'d Scenario, lock: Lock) -> Self {
        Self { folder, scenario, lock, clusters: BTreeMap::new(), wan: None }
    }

    /// Starts everything, after the trust bundles are exchanged.
    ///
    /// # Cancel safety
    ///
    /// What was started is ended by [`World::end`].
    pub(crate) async fn start(&mut self) -> Result<()> {
        exchange_bundles(self.folder, self.scenario).await?;
        let root = self.folder.path();
        let arguments = ["demo-wan".as_ref(), "--folder".as_ref(), root.as_os_str()];
        let mut process = Process::start("wan", root, Output::Pipe, arguments)?;
        let (commands, answers) = process.pipes().context("the relay has no pipes")?;
        let answers = BufReader::new(answers).lines();
        let (process, control) = self.wan.insert((process, Control { commands, answers }));
        control.answer().await.with_context(|| {
            format!("the relay did not start; its last lines:\n{}", process.log_tail())
        })?;
        for cluster in &self.scenario.clusters {
            self.start_cluster(&cluster.name)?;
        }
        Ok(())
    }

    /// Starts a cluster's applications and the cluster.
    pub(crate) fn start_cluster(&mut self, name: &str) -> Result<()> {
        let cluster = self.cluster(name)?;
        let root = self.folder.path();
        let settings = self.folder.settings(name);
        let arguments = ["up".as_ref(), "-f".as_ref(), settings.as_os_str()];
        let mut processes = vec![Process::start(name, root, Output::Log, arguments)?];
        for app in &cluster.apps {
            let listen = app.listen.to_string();
            let arguments = [
                "demo-app",
                "--with-parent",
                "--service",
                &app.service,
                "--cluster",
                name,
                "--listen",
                &listen,
            ];
            let process = format!("{name}/{}", app.service);
            processes.push(Process::start(&process, root, Output::Log, arguments)?);
        }
        self.clusters.insert(name.to_owned(), processes);
        self.note()
    }

    /// Kills a cluster and its applications, without a warning.
    pub(crate) async fn kill_cluster(&mut self, name: &str) -> Result<()> {
        let processes = self.clusters.insert(name.to_owned(), Vec::new()).unwrap_or_default();
        for process in processes {
            process.kill().await?;
        }
        self.note()
    }

    /// Cuts or restores a path.
    pub(crate) async fn wan(&mut self, command: &Command) -> Result<()> {
        let line = format!("{command}\n");
        let (_, control) = self.wan.as_mut().context("the relay does not run")?;
        control.commands.write_all(line.as_bytes()).await.context("the relay is gone")?;
        control.answer().await.with_context(|| command.to_string())
    }

    /// Fails when a process that should run has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        let wan = self.wan.as_mut().map(|(process, _)| process);
        let all = self.clusters.values_mut().flatten().chain(wan);
        for process in all {
            if let Some(status) = process.ended() {
                let log = process.log_tail();
                bail!("{} ended by itself ({status}); its last lines:\n{log}", process.name());
            }
        }
        Ok(())
    }

    /// Ends everything, all at once, and waits for it.
    pub(crate) async fn end(mut self) {
        let mut ending = tokio::task::JoinSet::new();
        for process in std::mem::take(&mut self.clusters).into_values().flatten() {
            ending.spawn(process.end(END_WITHIN));
        }
        if let Some((process, _)) = self.wan.take() {
            ending.spawn(process.end(END_WITHIN));
        }
        while ending.join_next().await.is_some() {}
        if let Err(error) = self.lock.note(&[]) {
            tracing::warn!(error = isthmus_runtime::error_chain(&*error), "cannot clear the lock");
        }
    }

    fn cluster(&self, name: &str) -> Result<&'d Cluster> {
        let found = self.scenario.clusters.iter().find(|cluster| cluster.name == name);
        found.with_context(|| format!("there is no cluster {name} in demo.yaml"))
    }

    fn note(&mut self) -> Result<()> {
        let wan = self.wan.as_ref().map(|(process, _)| process);
        let all = self.clusters.values().flatten().chain(wan);
        let all: Vec<_> = all.map(|process| (process.id(), process.name().to_owned())).collect();
        self.lock.note(&all)
    }
}

impl Control {
    async fn answer(&mut self) -> Result<()> {
        let line = tokio::time::timeout(ANSWER_WITHIN, self.answers.next_line()).await;
        match line.context("the relay does not answer")??.as_deref() {
            Some("ok") => Ok(()),
            Some(other) => bail!("the relay says {other}"),
            None => bail!("the relay has ended"),
        }
    }
}

/// Gives each cluster the trust bundles of its peers, as its operators would before they
/// link it: `isthmus ca init` on one side, a ConfigMap on the other.
async fn exchange_bundles(folder: &Folder, scenario: &Scenario) -> Result<()> {
    for peer in &scenario.clusters {
        let settings = folder.settings(&peer.name);
        let jwks = bundle(&settings)
            .await
            .with_context(|| format!("isthmus ca init -f {}", settings.display()))?;
        for cluster in scenario.clusters.iter().filter(|cluster| cluster.name != peer.name) {
            folder.write_bundle(&cluster.name, &peer.name, &jwks)?;
        }
    }
    Ok(())
}

async fn bundle(settings: &Path) -> Result<String> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command.args(["ca", "init", "-f"]).arg(settings).kill_on_drop(true).process_group(0);
    let output = tokio::time::timeout(BUNDLE_WITHIN, command.output());
    let output = output.await.context("took too long")??;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// How long a process may take to end by itself: longer than `drain.deadline` of the
/// clusters.
const END_WITHIN: Duration = Duration::from_secs(8);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const BUNDLE_WITHIN: Duration = Duration::from_secs(20);
