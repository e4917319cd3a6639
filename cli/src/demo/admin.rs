//! What the demo asks the admin endpoint of a cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::Client;
use super::scenario::Cluster;

/// The status of each cluster by name; `None` while it does not answer.
pub(crate) type Statuses = BTreeMap<String, Option<Arc<Status>>>;

/// The part of `/status` that the demo looks at.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    /// The links to its peers.
    pub(crate) peers: Vec<Peer>,
    /// The services it knows; `None` while it starts.
    pub(crate) services: Option<Vec<serde_json::Value>>,
    /// Objects that it refuses; `None` while it starts.
    pub(crate) config_errors: Option<Vec<serde_json::Value>>,
    /// The sequence number of its own trust bundle, which `/ca/bundle` gives.
    #[serde(skip)]
    pub(crate) bundle_sequence: Option<u64>,
}

/// A link as one of its ends sees it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Peer {
    /// The other cluster.
    pub(crate) cluster: String,
    /// `up`, `down` or `draining`.
    pub(crate) state: Option<String>,
    /// `quic` or `tcp` while the link is up.
    pub(crate) transport: Option<String>,
    /// The measured round trip, in microseconds.
    pub(crate) rtt_micros: Option<u64>,
    /// The measured loss, in thousandths.
    pub(crate) loss_permille: Option<f64>,
}

impl Status {
    /// The link to a cluster.
    pub(crate) fn peer(&self, cluster: &str) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.cluster == cluster)
    }
}

impl Peer {
    /// Whether streams can be opened.
    pub(crate) fn is_up(&self) -> bool {
        self.state.as_deref() == Some("up")
    }
}

/// Asks every cluster for its status again and again.
#[derive(Debug)]
pub(crate) struct Observer {
    statuses: watch::Receiver<Statuses>,
    _tasks: JoinSet<()>,
}

impl Observer {
    /// Begins to ask.
    pub(crate) fn start(clusters: &[Cluster]) -> Self {
        let none: Statuses = clusters.iter().map(|cluster| (cluster.name.clone(), None)).collect();
        let (sender, statuses) = watch::channel(none);
        let mut tasks = JoinSet::new();
        for cluster in clusters {
            let (name, sender) = (cluster.name.clone(), sender.clone());
            let client = Client::new(cluster.admin);
            tasks.spawn(async move {
                loop {
                    let status = status(&client).await.ok().map(Arc::new);
                    sender.send_modify(|statuses| {
                        statuses.insert(name.clone(), status);
                    });
                    tokio::time::sleep(ASK_EVERY).await;
                }
            });
        }
        Self { statuses, _tasks: tasks }
    }

    /// What was last heard.
    pub(crate) fn statuses(&self) -> watch::Receiver<Statuses> {
        self.statuses.clone()
    }
}

async fn status(client: &Client) -> Result<Status> {
    let mut status: Status = serde_json::from_slice(&get(client, "/status").await?)?;
    let answer: BundleAnswer = serde_json::from_slice(&get(client, "/ca/bundle").await?)?;
    status.bundle_sequence = answer.sequence();
    Ok(status)
}

async fn get(client: &Client, path: &str) -> Result<Bytes> {
    let response = client.send(request(Method::GET, path)?, ANSWER_WITHIN).await?;
    if !response.status.is_success() {
        bail!("GET {path}: {}", response.status);
    }
    Ok(response.body)
}

/// The answer of `/ca/bundle`: a SPIFFE bundle document as text.
#[derive(Debug, Deserialize)]
struct BundleAnswer {
    bundle: String,
}

impl BundleAnswer {
    fn sequence(&self) -> Option<u64> {
        let document: serde_json::Value = serde_json::from_str(&self.bundle).ok()?;
        document.get("spiffe_sequence")?.as_u64()
    }
}

/// Makes the authority of a cluster rotate its root.
pub(crate) async fn rotate(admin: SocketAddr) -> Result<()> {
    let request = request(Method::POST, "/ca/rotate")?;
    let response = Client::new(admin).send(request, ANSWER_WITHIN).await;
    let response = response.context("POST /ca/rotate")?;
    if !response.status.is_success() {
        let body = String::from_utf8_lossy(&response.body);
        bail!("POST /ca/rotate: {} {}", response.status, body.trim());
    }
    Ok(())
}

fn request(method: Method, path: &str) -> Result<Request<Full<Bytes>>> {
    let request = Request::builder().method(method).uri(path);
    let request = request.header(http::header::HOST, "localhost").header("x-isthmus-admin", "1");
    Ok(request.body(Full::default())?)
}

const ASK_EVERY: Duration = Duration::from_millis(250);
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_starts_has_a_status_too() {
        let status: Status = serde_json::from_str(
            r#"{"services": null, "configErrors": null, "peers": [{"cluster": "b",
                "state": "up", "transport": "quic", "rttMicros": 5, "lossPermille": 0.0,
                "unknown": 1}, {"cluster": "c", "transport": null}]}"#,
        )
        .unwrap();
        assert!(status.peer("b").unwrap().is_up());
        assert!(!status.peer("c").unwrap().is_up());
        assert_eq!(status.peer("d"), None);
    }

    #[test]
    fn the_sequence_is_read_from_the_bundle_document() {
        let answer = |bundle: &str| BundleAnswer { bundle: bundle.to_owned() }.sequence();
        assert_eq!(answer(r#"{"keys": [], "spiffe_sequence": 7}"#), Some(7));
        assert_eq!(answer(r#"{"keys": []}"#), None);
        assert_eq!(answer("no"), None);
    }
}
