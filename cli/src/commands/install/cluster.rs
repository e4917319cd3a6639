//! What the commands ask of the cluster and of the person at the terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use isthmus_kubernetes::ObjectId;
use isthmus_kubernetes::install::Installer;
use isthmus_model::name::SYSTEM_NAMESPACE;
use serde_json::Value;

use super::args::AccessArgs;
use super::corefile::{self, ZONE};
use super::manifests::MANAGER;
use crate::commands::reach::{explained, reach};

/// Connects by the kubeconfig that was named.
pub(super) async fn installer(access: &AccessArgs) -> anyhow::Result<Installer> {
    let connection = reach(access).await?;
    let access = access.to_access();
    say(&format!("cluster {} ({}), Kubernetes {}", connection.url, access, connection.version))?;
    Ok(Installer::new(connection.client, MANAGER))
}

/// A line of progress. Standard output is for what was asked for.
pub(super) fn say(line: &str) -> io::Result<()> {
    writeln!(io::stderr().lock(), "{line}")
}

/// Asks the person at the terminal; without one there is nobody to ask.
///
/// # Errors
///
/// There is no terminal, or the answer is not yes.
pub(super) fn confirm(question: &str, is_answered: bool) -> anyhow::Result<()> {
    if is_answered {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        bail!("{question} There is no terminal to ask at: say --yes if this is wanted");
    }
    write!(io::stderr().lock(), "{question} [y/N] ")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { bail!("not confirmed") }
}

/// An object's name in the system's namespace.
pub(super) fn own(api_version: &str, kind: &str, name: &str) -> ObjectId {
    named(api_version, kind, SYSTEM_NAMESPACE, name)
}

/// An object's name; the empty namespace is none.
pub(super) fn named(api_version: &str, kind: &str, namespace: &str, name: &str) -> ObjectId {
    ObjectId {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// The edit of a Corefile that is to be made.
#[derive(Debug)]
pub(super) struct Edit {
    observed: Value,
    after: String,
    /// What it changes; empty is nothing.
    pub(super) diff: String,
    /// Whether CoreDNS has to be told.
    pub(super) is_reloaded: bool,
}

/// Reads the Corefile and edits a copy of it; none when there is no such ConfigMap.
pub(super) async fn edit_corefile(
    installer: &mut Installer,
    edit: impl Fn(&str) -> Result<String, corefile::CorefileError>,
) -> anyhow::Result<Option<Edit>> {
    let id = named("v1", "ConfigMap", DNS_NAMESPACE, DNS_NAME);
    let Some(observed) = installer.get(&id).await.map_err(|failure| explained(&failure))? else {
        return Ok(None);
    };
    let Some(before) = observed.pointer("/data/Corefile").and_then(Value::as_str) else {
        bail!("ConfigMap {DNS_NAMESPACE}/{DNS_NAME} has no key Corefile; use --no-dns");
    };
    let after = edit(before)
        .map_err(|error| anyhow::anyhow!("ConfigMap {DNS_NAMESPACE}/{DNS_NAME}: {error}"))?;
    let diff = if after == before { String::new() } else { corefile::diff(before, &after) };
    let is_reloaded = corefile::reloads(before);
    Ok(Some(Edit { observed, after, diff, is_reloaded }))
}

/// Writes the edited Corefile, unless somebody else has changed it since.
pub(super) async fn write_corefile(installer: &mut Installer, edit: &Edit) -> anyhow::Result<()> {
    let written = installer.replace_text(&edit.observed, "Corefile", &edit.after).await;
    written.map_err(|failure| explained(&failure))?;
    if !edit.is_reloaded {
        say(&format!(
            "The Corefile has no plugin reload. To put the edit into effect:\n  kubectl -n \
             {DNS_NAMESPACE} rollout restart deployment {DNS_NAME}"
        ))?;
    }
    Ok(())
}

/// What to say where the cluster's DNS is not CoreDNS as it usually is.
pub(super) fn no_coredns(server: &str) -> String {
    format!(
        "There is no ConfigMap {DNS_NAMESPACE}/{DNS_NAME}. Make the cluster's DNS send {ZONE} to \
         {server}, and install with --no-dns"
    )
}

/// Reads a file that the command line names.
pub(super) fn read(path: &Path) -> anyhow::Result<(String, String)> {
    use anyhow::Context as _;
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    Ok((name, text))
}

const DNS_NAMESPACE: &str = "kube-system";
const DNS_NAME: &str = "coredns";
/// How often something that is waited for is looked at.
pub(super) const POLL: Duration = Duration::from_millis(500);
