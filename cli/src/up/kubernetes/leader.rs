//! The connection to the API server, the Lease, and the label of the pod that leads.
//!
//! A process joins, stands by, leads and leaves. Before it contends it takes the label of a
//! leader from its own pod: a container that starts again in the same pod finds the one of
//! its former life. It puts the label on only when everything listens, and on leaving takes
//! it off before the Lease is released, so that a Service leads to a process that stands by
//! for no longer than its endpoints take to follow.

use std::time::Duration;

use anyhow::Context as _;
use isthmus_kubernetes::{
    Campaign, Client, Connection, Leadership, LeaseSettings, Mark, MarkError, Marked, connect,
};
use isthmus_model::name::SYSTEM_NAMESPACE;
use isthmus_runtime::{Stop, error_chain};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::settings::KubernetesSettings;

/// The cluster that this process controls.
pub(crate) struct Cluster {
    /// Requests to its API server.
    pub(crate) client: Client,
    /// Whether this process may write.
    pub(crate) leadership: Leadership,
    /// The address of the API server.
    pub(crate) url: String,
    /// The label of this pod.
    mark: Mark,
    /// Says that the authority's Secret has another owner.
    superseded: Option<watch::Receiver<bool>>,
    /// Contends for the Lease, on its own: it must outlive the other tasks.
    campaign: JoinSet<()>,
    /// Ends the campaign, when it is dropped too.
    end: oneshot::Sender<()>,
}

impl Cluster {
    /// Connects, and begins to contend for the Lease. An API server that does not answer is
    /// waited for: it may be starting as well.
    pub(crate) async fn join(settings: &KubernetesSettings) -> anyhow::Result<Self> {
        let connection = connection(settings).await?;
        let mark = Mark::new(connection.client.clone(), SYSTEM_NAMESPACE, &host_name());
        unmark(&mark).await;
        let identity = identity();
        let lease = LeaseSettings::new(&identity);
        let client = connection.client.clone();
        let campaign = Campaign::new(client.clone(), SYSTEM_NAMESPACE, LEASE, lease);
        let leadership = campaign.leadership();
        let (end, ended) = oneshot::channel::<()>();
        let mut contending = JoinSet::new();
        contending.spawn(async move {
            campaign
                .run(async {
                    let _ = ended.await;
                })
                .await;
        });
        let (url, version) = (connection.url, connection.version);
        tracing::info!(url, version, holder = identity, "waiting for the lease");
        Ok(Self { client, leadership, url, mark, superseded: None, campaign: contending, end })
    }

    /// Waits until this process leads.
    pub(crate) async fn elected(&mut self) {
        self.leadership.elected().await;
        tracing::info!("leading");
    }

    /// Ends the lead, too, when the value becomes true.
    pub(crate) fn follow(&mut self, superseded: watch::Receiver<bool>) {
        self.superseded = Some(superseded);
    }

    /// Returns when another leads, or is to: it holds the Lease, or has written the Secret, or
    /// the Lease could not be renewed for [`OUTAGE_MAX`].
    pub(crate) async fn lost(&mut self) {
        let mut leadership = self.leadership.clone();
        tokio::select! {
            () = leadership.taken() => {}
            () = outlasted(self.leadership.clone()) => {}
            () = is_true(&mut self.superseded) => {}
        }
    }

    /// Keeps the label on this pod, and off others, while this process leads. To be spawned
    /// when everything listens that the Service leads to.
    pub(crate) fn marking(&self, stop: Stop) -> impl Future<Output = ()> + Send + use<> {
        keep_marked(self.mark.clone(), self.leadership.clone(), stop)
    }

    /// Takes the label off and waits until the Lease is released, so that a standby need not
    /// wait for its end. Must be called when nothing of this process writes any longer.
    pub(crate) async fn released(mut self, deadline: Duration) {
        let leave = async {
            if let Err(error) = self.mark.remove().await {
                tracing::info!(error = %error_chain(&error), "the next leader takes the label off");
            }
            // The campaign may have ended by itself.
            let _ = self.end.send(());
            self.campaign.join_next().await
        };
        if tokio::time::timeout(deadline, leave).await.is_err() {
            tracing::warn!("the lease is not released in time; it runs out");
        }
    }
}

/// Takes the label from the own pod, however long the API server takes. A refusal is said
/// and no more: a controller without the right still does everything else.
async fn unmark(mark: &Mark) {
    let mut pause = PAUSE_MIN;
    loop {
        match mark.remove().await {
            Ok(Marked::Absent | Marked::Done) => return,
            Err(error @ MarkError::Forbidden { .. }) => {
                tracing::error!(%error, "no Service can find this process when it leads");
                return;
            }
            Err(error @ (MarkError::Request { .. } | MarkError::Timeout { .. })) => {
                tracing::warn!(error = %error_chain(&error), "waiting for the API server");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Returns when the Lease could not be renewed for [`OUTAGE_MAX`]. An API server that is away
/// for less costs nothing but writes: this process goes on giving gateways and linked clusters
/// what it knows, which nobody else could, and leads again when the server is back.
async fn outlasted(mut leadership: Leadership) {
    loop {
        leadership.lost().await;
        tracing::warn!("the lease cannot be renewed: nothing is written, the rest goes on");
        if tokio::time::timeout(OUTAGE_MAX, leadership.elected()).await.is_err() {
            return;
        }
        tracing::info!("leading again");
    }
}

async fn keep_marked(mark: Mark, mut leadership: Leadership, mut stop: Stop) {
    let mut pause = PAUSE_MIN;
    loop {
        tokio::select! {
            () = stop.draining() => return,
            () = leadership.elected() => {}
        }
        let marked = async {
            // The own pod first: for a moment with two, one of them answers.
            let own = mark.set().await?;
            Ok::<_, MarkError>((own, mark.remove_from_others().await?))
        };
        let marked = tokio::select! {
            // A process that ends takes the label off: it must not come back.
            () = stop.draining() => return,
            marked = marked => marked,
        };
        let wait = match marked {
            Ok((_, others)) => {
                if others > 0 {
                    tracing::info!(others, "took the leader's label from other pods");
                }
                pause = PAUSE_MIN;
                MARK_INTERVAL
            }
            Err(error) => {
                tracing::warn!(error = %error_chain(&error), "the leader's pod has no label yet");
                let now = pause;
                pause = (pause * 2).min(PAUSE_MAX);
                now
            }
        };
        tokio::select! {
            () = stop.draining() => return,
            () = leadership.lost() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Returns when the value becomes true; never where there is none.
async fn is_true(value: &mut Option<watch::Receiver<bool>>) {
    if let Some(value) = value
        && value.wait_for(|is_true| *is_true).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

async fn connection(settings: &KubernetesSettings) -> anyhow::Result<Connection> {
    let access = settings.access();
    let mut pause = PAUSE_MIN;
    loop {
        match connect(&access).await {
            Ok(connection) => return Ok(connection),
            Err(error @ isthmus_kubernetes::ConnectError::Server { .. }) => {
                tracing::warn!(error = %error_chain(&error), "waiting for the API server");
            }
            Err(error) => return Err(error).context("kubernetes"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// A name that no other process has: the pod's, and a random part for its next life.
fn identity() -> String {
    format!("{}_{:08x}", host_name(), crate::up::seed() & 0xffff_ffff)
}

/// The name of the host, which is the pod's in a pod.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The Lease of the controller.
const LEASE: &str = "isthmus-controller";
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a leader that cannot renew the Lease goes on serving what it knows. If only it is
/// cut off, another leads meanwhile: gateways that are connected here learn of no change, and
/// linked clusters hear two controllers with one identity.
const OUTAGE_MAX: Duration = Duration::from_secs(60);
/// How often the labels are compared; somebody may have edited them.
const MARK_INTERVAL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use isthmus_runtime::Drain;
    use serde_json::json;

    use super::*;
    use crate::up::kubernetes::stub::Stub;

    #[tokio::test]
    async fn the_label_is_the_leaders_alone_and_goes_before_the_lease() {
        let folder = tempfile::tempdir().unwrap();
        let own = host_name();
        let marked = json!({ "isthmus.io/leader": "true", "app": "x" });
        let pods = [(own.as_str(), marked.clone()), ("a-former-leader", marked)];
        let stub = Stub::with_pods(folder.path(), &pods).await;
        let kubeconfig = Some(folder.path().join("kubeconfig"));
        let settings = KubernetesSettings { kubeconfig, ..KubernetesSettings::default() };
        let mut cluster = Cluster::join(&settings).await.unwrap();
        // A container that starts again finds the label of its former life.
        stub.is_marked(&own, false).await;
        cluster.elected().await;
        let (drain, mut tasks) = (Drain::new(), JoinSet::new());
        tasks.spawn(cluster.marking(drain.stop()));
        stub.is_marked(&own, true).await;
        stub.is_marked("a-former-leader", false).await;
        drain.run(Duration::ZERO).await;
        tasks.join_next().await.unwrap().unwrap();
        cluster.released(Duration::from_secs(60)).await;
        stub.is_marked(&own, false).await;
        let lease = stub.object("leases/isthmus-controller").unwrap();
        assert_eq!(lease["spec"]["holderIdentity"], "", "{lease}");
        assert_eq!(stub.object(&format!("pods/{own}")).unwrap()["metadata"]["labels"]["app"], "x");
    }

    #[tokio::test]
    async fn a_process_outside_of_a_pod_leads_without_a_label() {
        let folder = tempfile::tempdir().unwrap();
        let _stub = Stub::with_pods(folder.path(), &[]).await;
        let kubeconfig = Some(folder.path().join("kubeconfig"));
        let settings = KubernetesSettings { kubeconfig, ..KubernetesSettings::default() };
        let mut cluster = Cluster::join(&settings).await.unwrap();
        cluster.elected().await;
        let superseded = watch::Sender::new(false);
        cluster.follow(superseded.subscribe());
        superseded.send_replace(true);
        cluster.lost().await;
        cluster.released(Duration::from_secs(60)).await;
    }
}
