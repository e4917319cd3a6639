//! The label of the pod that leads.
//!
//! A replica that stands by is ready, so that rollouts, disruption budgets and `--wait` can
//! count it, and so readiness cannot keep a Service away from it. The Service of the
//! controller therefore selects [`LEADER_LABEL`] too, which only the leader's pod has.
//!
//! The leader puts the label on its own pod, and takes it from every other: a leader
//! before it whose node does not answer any more cannot do that itself, and its pod counts
//! as ready until the cluster has given the node up. The Lease alone decides who leads;
//! the label decides nothing, it only follows.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::apply::FIELD_MANAGER;
use crate::discovery::code;

/// The label of one pod, and of those that had it before.
#[derive(Clone)]
pub struct Mark {
    pods: Api<Pod>,
    namespace: String,
    pod: String,
}

/// Whether there was a pod to label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    /// There is no such pod: the process runs outside of one.
    Absent,
    /// The pod is as it should be.
    Done,
}

/// Why a pod is not labelled.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// The account lacks the right, so trying again does not help.
    #[error(
        "pod {namespace}/{pod} may not be labelled: its account needs `patch` on pods in \
         {namespace}, as the Role isthmus-controller gives it"
    )]
    Forbidden {
        /// Where the pod is.
        namespace: String,
        /// The pod.
        pod: String,
    },
    /// The API server refuses or does not answer.
    #[error("pod {pod} cannot be labelled")]
    Request {
        /// The pod.
        pod: String,
        /// What the client says.
        source: Box<kube::Error>,
    },
    /// The API server does not answer in time.
    #[error("pod {pod} cannot be labelled: no answer within {} s", REQUEST_MAX.as_secs())]
    Timeout {
        /// The pod.
        pod: String,
    },
}

impl Mark {
    /// Names the pod of this process; nothing is sent yet.
    pub fn new(client: Client, namespace: &str, pod: &str) -> Self {
        let pods = Api::namespaced(client, namespace);
        Self { pods, namespace: namespace.to_owned(), pod: pod.to_owned() }
    }

    /// Puts the label on the own pod.
    ///
    /// # Errors
    ///
    /// [`MarkError`]; the label may be there all the same.
    pub async fn set(&self) -> Result<Marked, MarkError> {
        self.label(&self.pod, json!(LEADER)).await
    }

    /// Takes the label from the own pod.
    ///
    /// # Errors
    ///
    /// [`MarkError`]; the label may be gone all the same.
    pub async fn remove(&self) -> Result<Marked, MarkError> {
        self.label(&self.pod, Value::Null).await
    }

    /// Takes the label from every other pod of the namespace; says from how many.
    ///
    /// # Errors
    ///
    /// [`MarkError`] of the first pod that keeps it.
    pub async fn remove_from_others(&self) -> Result<usize, MarkError> {
        let marked = ListParams::default().labels(&format!("{LEADER_LABEL}={LEADER}"));
        let found = self.asked(&self.pod, self.pods.list_metadata(&marked)).await?;
        let names = found.items.into_iter().filter_map(|pod| pod.metadata.name);
        let mut count = 0;
        for name in names.filter(|name| *name != self.pod) {
            self.label(&name, Value::Null).await?;
            count += 1;
        }
        Ok(count)
    }

    async fn label(&self, pod: &str, value: Value) -> Result<Marked, MarkError> {
        let body = json!({ "metadata": { "labels": { LEADER_LABEL: value } } });
        let parameters =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(&body);
        match self.asked(pod, self.pods.patch_metadata(pod, &parameters, &patch)).await {
            Ok(_) => Ok(Marked::Done),
            Err(MarkError::Request { source, .. }) if code(&source) == Some(404) => {
                Ok(Marked::Absent)
            }
            Err(error) => Err(error),
        }
    }

    async fn asked<T>(
        &self,
        pod: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, MarkError> {
        let pod = pod.to_owned();
        match timeout(REQUEST_MAX, request).await {
            Err(_) => Err(MarkError::Timeout { pod }),
            Ok(Err(error)) if code(&error) == Some(403) => {
                Err(MarkError::Forbidden { namespace: self.namespace.clone(), pod })
            }
            Ok(Err(error)) => Err(MarkError::Request { pod, source: Box::new(error) }),
            Ok(Ok(answer)) => Ok(answer),
        }
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mark({}/{})", self.namespace, self.pod)
    }
}

/// The label that only the leader's pod has.
pub const LEADER_LABEL: &str = "isthmus.io/leader";
/// Its value.
pub const LEADER: &str = "true";
/// How long the API server may take for one request.
const REQUEST_MAX: Duration = Duration::from_secs(2);
