//! The connection to an API server.
//!
//! Inside a cluster the service account's files are used; outside, a kubeconfig and one
//! of its contexts. The server is asked for its version before the connection is handed
//! out, so that a wrong address, a wrong certificate or a refused login is said here and
//! not by the first of twenty watchers.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// Where the address and the credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// The service account of the pod.
    InCluster,
    /// A kubeconfig.
    Kubeconfig {
        /// The file; without one, the files that `kubectl` would read.
        path: Option<PathBuf>,
        /// The context; without one, the file's current context.
        context: Option<String>,
    },
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InCluster => f.write_str("the pod's service account"),
            Self::Kubeconfig { path, context } => {
                match path {
                    Some(path) => write!(f, "kubeconfig {}", path.display())?,
                    None => f.write_str("the default kubeconfig")?,
                }
                match context {
                    Some(context) => write!(f, ", context {context}"),
                    None => f.write_str(", current context"),
                }
            }
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings do not make a client: a certificate or a login program is broken.
    #[error("{access} does not make a client: check its certificates and its login program")]
    Client {
        /// What was read.
        access: Access,
        /// What the client says.
        source: Box<kube::Error>,
    },
    /// The kubeconfig has no such context.
    #[error("{access}: there is no such context; there are: {known}")]
    Context {
        /// What was read.
        access: Access,
        /// The contexts of the file.
        known: String,
    },
    /// This process does not run in a pod with a service account.
    #[error(
        "this process is not in a pod with a service account token: name a kubeconfig, or \
         set automountServiceAccountToken"
    )]
    InCluster(#[source] InClusterError),
    /// The kubeconfig cannot be read, or a file that it names.
    #[error("{access} cannot be used")]
    Kubeconfig {
        /// What was read.
        access: Access,
        /// What is wrong.
        source: Box<KubeconfigError>,
    },
    /// The server does not answer, or refuses.
    #[error("the API server at {url} ({access}) does not answer as it should")]
    Server {
        /// What was read.
        access: Access,
        /// The server's address.
        url: String,
        /// What the client says.
        source: Box<kube::Error>,
    },
}

/// A client that has reached its server once.
#[derive(Clone)]
pub struct Connection {
    /// The client; clones share connections.
    pub client: Client,
    /// The server's address.
    pub url: String,
    /// The namespace of the pod or of the context.
    pub namespace: String,
    /// The server's version, as in `v1.36.0`.
    pub version: String,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({}, {})", self.url, self.version)
    }
}

/// Connects and asks the server for its version.
///
/// # Errors
///
/// [`ConnectError`] says which of file, context, credentials and server is at fault.
pub async fn connect(access: &Access) -> Result<Connection, ConnectError> {
    let mut config = match access {
        Access::InCluster => Config::incluster().map_err(ConnectError::InCluster)?,
        Access::Kubeconfig { path, context } => {
            kubeconfig(access, path.clone(), context.clone()).await?
        }
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    let url = config.cluster_url.to_string();
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|source| ConnectError::Client {
        access: access.clone(),
        source: Box::new(source),
    })?;
    let version = client.apiserver_version().await.map_err(|source| ConnectError::Server {
        access: access.clone(),
        url: url.clone(),
        source: Box::new(source),
    })?;
    Ok(Connection { client, url, namespace, version: version.git_version })
}

async fn kubeconfig(
    access: &Access,
    path: Option<PathBuf>,
    context: Option<String>,
) -> Result<Config, ConnectError> {
    let broken =
        |source| ConnectError::Kubeconfig { access: access.clone(), source: Box::new(source) };
    // Files are read and merged by blocking calls; they are small and local.
    let file = match path {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let file = file.map_err(broken)?;
    if let Some(name) = &context
        && !file.contexts.iter().any(|known| known.name == *name)
    {
        let known: Vec<&str> = file.contexts.iter().map(|known| known.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(ConnectError::Context { access: access.clone(), known });
    }
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(file, &options).await.map_err(broken)
}

/// Time to connect to the API server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may bring nothing: more than the minute of a quiet watch, so that
/// only one whose server has gone without a word is given up.
const READ_TIMEOUT: Duration = Duration::from_secs(75);

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use isthmus_runtime::error_chain;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    async fn error(path: PathBuf, context: Option<&str>) -> String {
        let context = context.map(str::to_owned);
        error_chain(&connect(&Access::Kubeconfig { path: Some(path), context }).await.unwrap_err())
    }

    const CONFIG: &str = "
apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1'}}]
users: [{name: u, user: {token: t}}]
contexts:
- {name: east, context: {cluster: a, user: u}}
- {name: west, context: {cluster: a, user: u}}
";

    #[tokio::test]
    async fn a_context_that_is_absent_names_those_that_exist() {
        let file = file(CONFIG);
        let error = error(file.path().to_owned(), Some("north")).await;
        assert!(error.contains("context north: there is no such context; there are: east, west"));
    }

    #[tokio::test]
    async fn a_file_that_is_absent_is_named() {
        let error = error(PathBuf::from("/nonexistent/config"), None).await;
        assert!(error.starts_with("kubeconfig /nonexistent/config, current context"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_named_by_its_address() {
        let file = file(CONFIG);
        let error = error(file.path().to_owned(), Some("east")).await;
        assert!(error.contains("the API server at https://127.0.0.1:1/"), "{error}");
        assert!(error.contains("refused"), "{error}");
    }
}
