//! The way from a command line to a cluster's API server.

use std::io::{self, Write as _};

use isthmus_kubernetes::{Connection, Failure, connect};

use super::install::args::AccessArgs;

/// Runs a command's requests on a small runtime of its own.
///
/// # Errors
///
/// That of the future, or there is no runtime.
pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(future)
}

/// Connects by the kubeconfig and the context that were named.
///
/// # Errors
///
/// What is wrong with file, context, credentials or server.
pub(crate) async fn reach(access: &AccessArgs) -> anyhow::Result<Connection> {
    Ok(connect(&access.to_access()).await?)
}

/// What a person calls the cluster that an access leads to.
pub(crate) fn label(access: &AccessArgs) -> String {
    access.context.clone().unwrap_or_else(|| "the current context".to_owned())
}

/// A line of progress. Standard output is for what was asked for.
///
/// # Errors
///
/// Standard error cannot be written.
pub(crate) fn say(line: &str) -> io::Result<()> {
    writeln!(io::stderr().lock(), "{}", super::output::clean(line))
}

/// What a failed request means for the person who has sent it.
pub(crate) fn explained(failure: &Failure) -> anyhow::Error {
    anyhow::anyhow!("{}: {}", failure.id, failure.message)
}
