//! A projected service-account token to the pod that holds it.
//!
//! The API server checks signature, lifetime and audience. It also checks that the pod
//! of a bound token exists, but from a cache, and a pod that is being deleted is valid
//! to it for another minute. So the pod is read here: its uid must be the token's, it
//! must use the token's service account, and it must not be terminating or ended.

use std::fmt;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};

/// Who holds a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodIdentity {
    /// The namespace of pod and service account.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub pod_uid: String,
}

/// Why a token does not identify a pod.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The token is not for us.
    #[error("the token is not for the audience {AUDIENCE:?}: project it with this audience")]
    Audience,
    /// The API server does not accept the token.
    #[error("the API server does not accept the token: {message}")]
    Refused {
        /// What it says.
        message: String,
    },
    /// The token belongs to a user or node and not to a service account.
    #[error("the token belongs to {user:?}, which is not a service account")]
    NotAServiceAccount {
        /// The user's name, cut to 120 characters.
        user: String,
    },
    /// The token is not bound to a pod.
    #[error("the token is not bound to a pod: use a projected token of the pod itself")]
    NotBound,
    /// The pod does not exist, or another one has taken its name.
    #[error("the token's pod {namespace}/{pod} does not exist any more")]
    PodGone {
        /// The namespace.
        namespace: String,
        /// The pod.
        pod: String,
    },
    /// The pod runs as another service account.
    #[error("pod {namespace}/{pod} does not run as the token's service account")]
    PodAccount {
        /// The namespace.
        namespace: String,
        /// The pod.
        pod: String,
    },
    /// The pod is ending or has ended.
    #[error("pod {namespace}/{pod} is terminating or has ended")]
    PodEnding {
        /// The namespace.
        namespace: String,
        /// The pod.
        pod: String,
    },
    /// The API server cannot be asked.
    #[error("the API server cannot be asked to {action}")]
    Request {
        /// What for.
        action: &'static str,
        /// What the client says.
        source: Box<kube::Error>,
    },
}

impl ReviewError {
    /// Whether the same token may be accepted later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Request { .. } => true,
            Self::Audience
            | Self::Refused { .. }
            | Self::NotAServiceAccount { .. }
            | Self::NotBound
            | Self::PodGone { .. }
            | Self::PodAccount { .. }
            | Self::PodEnding { .. } => false,
        }
    }
}

/// Reviews tokens of one cluster.
#[derive(Clone)]
pub struct TokenReviewer {
    client: Client,
}

impl TokenReviewer {
    /// A reviewer that asks the client's cluster.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Finds the pod that holds a token with the audience [`AUDIENCE`].
    ///
    /// # Errors
    ///
    /// [`ReviewError`] says what is wrong with the token or its pod; only
    /// [`ReviewError::Request`] may pass.
    pub async fn review(&self, token: &str) -> Result<PodIdentity, ReviewError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![AUDIENCE.to_owned()]),
                token: Some(token.to_owned()),
            },
            ..TokenReview::default()
        };
        let failed =
            |action| move |source| ReviewError::Request { action, source: Box::new(source) };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(failed("review a token"))?;
        let claimed = claim(&answer.status.unwrap_or_default())?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &claimed.namespace);
        let pod = pods.get_opt(&claimed.pod).await.map_err(failed("read the token's pod"))?;
        judge(claimed, pod.as_ref())
    }
}

impl fmt::Debug for TokenReviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReviewer").finish_non_exhaustive()
    }
}

/// Reads what the API server says of a token.
fn claim(status: &TokenReviewStatus) -> Result<PodIdentity, ReviewError> {
    if status.authenticated != Some(true) {
        let message = status.error.as_deref().unwrap_or("it is not valid");
        return Err(ReviewError::Refused { message: message.to_owned() });
    }
    // Spec: TokenReview `status.audiences`: a server that does not know audiences leaves
    // it empty, and then the token is for the server itself.
    let audiences = status.audiences.as_deref().unwrap_or_default();
    if !audiences.iter().any(|audience| audience == AUDIENCE) {
        return Err(ReviewError::Audience);
    }
    let user = status.user.clone().unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let Some((namespace, service_account)) = account else {
        return Err(ReviewError::NotAServiceAccount { user: name.chars().take(120).collect() });
    };
    let extra = user.extra.unwrap_or_default();
    let one = |key: &str| match extra.get(key).map(Vec::as_slice) {
        Some([value]) if !value.is_empty() => Ok(value.clone()),
        Some(_) | None => Err(ReviewError::NotBound),
    };
    Ok(PodIdentity {
        namespace: namespace.to_owned(),
        service_account: service_account.to_owned(),
        pod: one(POD_NAME)?,
        pod_uid: one(POD_UID)?,
    })
}

/// Compares the claim with the pod that exists.
fn judge(claimed: PodIdentity, pod: Option<&Pod>) -> Result<PodIdentity, ReviewError> {
    let place = || (claimed.namespace.clone(), claimed.pod.clone());
    let is_same = |pod: &&Pod| pod.metadata.uid.as_deref() == Some(claimed.pod_uid.as_str());
    let Some(pod) = pod.filter(is_same) else {
        let (namespace, pod) = place();
        return Err(ReviewError::PodGone { namespace, pod });
    };
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    if account != Some(claimed.service_account.as_str()) {
        let (namespace, pod) = place();
        return Err(ReviewError::PodAccount { namespace, pod });
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Failed" | "Succeeded")) {
        let (namespace, pod) = place();
        return Err(ReviewError::PodEnding { namespace, pod });
    }
    Ok(claimed)
}

/// The audience that a token must be projected with.
pub const AUDIENCE: &str = "isthmus";
/// Spec: KEP-1205, bound service account tokens.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(change: impl FnOnce(&mut Value)) -> TokenReviewStatus {
        let mut status = json!({
            "authenticated": true,
            "audiences": ["isthmus"],
            "user": {
                "username": "system:serviceaccount:shop:web",
                "extra": {POD_NAME: ["web-1"], POD_UID: ["u1"]},
            },
        });
        change(&mut status);
        serde_json::from_value(status).unwrap()
    }

    fn refusal(change: impl FnOnce(&mut Value)) -> String {
        claim(&status(change)).unwrap_err().to_string()
    }

    #[expect(clippy::unwrap_in_result, reason = "the pod of the test is well-formed")]
    fn judged(change: impl FnOnce(&mut Value)) -> Result<PodIdentity, String> {
        let mut pod = json!({
            "metadata": {"name": "web-1", "uid": "u1"},
            "spec": {"serviceAccountName": "web", "containers": []},
            "status": {"phase": "Running"},
        });
        change(&mut pod);
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let claimed = claim(&status(|_| ())).unwrap();
        judge(claimed, Some(&pod)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_bound_token_names_its_pod() {
        let identity = judged(|_| ()).unwrap();
        let want = ("shop", "web", "web-1", "u1");
        let PodIdentity { namespace, service_account, pod, pod_uid } = &identity;
        assert_eq!((&**namespace, &**service_account, &**pod, &**pod_uid), want);
    }

    #[test]
    fn a_token_that_is_not_for_us_is_refused() {
        assert!(refusal(|s| s["authenticated"] = json!(false)).contains("does not accept"));
        assert!(refusal(|s| s["audiences"] = json!(["https://api"])).contains("audience"));
        assert!(refusal(|s| s["audiences"] = json!(null)).contains("audience"));
        let user = refusal(|s| s["user"]["username"] = json!("system:node:n1"));
        assert!(user.contains("not a service account"));
        assert!(refusal(|s| s["user"]["extra"] = json!({})).contains("not bound"));
    }

    #[test]
    fn a_pod_that_is_gone_replaced_or_ending_has_no_identity() {
        assert!(judged(|p| p["metadata"]["uid"] = json!("u2")).unwrap_err().contains("any more"));
        let ending =
            |p: &mut Value| p["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(judged(ending).unwrap_err().contains("terminating"));
        assert!(judged(|p| p["status"]["phase"] = json!("Failed")).unwrap_err().contains("ended"));
        let account = |p: &mut Value| p["spec"]["serviceAccountName"] = json!("admin");
        assert!(judged(account).unwrap_err().contains("service account"));
        assert!(judge(claim(&status(|_| ())).unwrap(), None).is_err());
    }
}
