//! A projected service-account token to the pod that holds it.
//!
//! The API server checks signature, lifetime and audience. It also checks that the pod
//! of a bound token exists, but from a cache, and a pod that is being deleted is valid
//! to it for another minute. So the pod is read here: its uid must be the token's, it
//! must use the token's service account, and it must not be terminating or ended.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use isthmus_certs::{ReviewError, ReviewFuture, ReviewedWorkload};
use isthmus_model::Label;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::timeout;

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
    async fn find(&self, token: String) -> Result<ReviewedWorkload, ReviewError> {
        let spec =
            TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: Some(token) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let parameters = PostParams::default();
        let answer = asked("review a token", REQUEST_MAX, api.create(&parameters, &review)).await?;
        let claimed = claim(&answer.status.unwrap_or_default())?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), claimed.namespace.as_str());
        let pod = asked("read the token's pod", REQUEST_MAX, pods.get_opt(&claimed.pod)).await?;
        judge(claimed, pod.as_ref())
    }
}

impl isthmus_certs::TokenReviewer for TokenReviewer {
    fn review(&self, token: String) -> ReviewFuture<'_> {
        Box::pin(self.find(token))
    }
}

impl fmt::Debug for TokenReviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReviewer").finish_non_exhaustive()
    }
}

/// One request to the API server, with a limit for its answer.
async fn asked<T>(
    action: &'static str,
    limit: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ReviewError> {
    let because = match timeout(limit, request).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", limit.as_secs()),
    };
    let reason = format!("the API server cannot be asked to {action}: {because}");
    Err(ReviewError::Unavailable { reason })
}

/// Reads what the API server says of a token.
fn claim(status: &TokenReviewStatus) -> Result<ReviewedWorkload, ReviewError> {
    if status.authenticated != Some(true) {
        let message = status.error.as_deref().unwrap_or("it is not valid");
        // The one reason that a caller can mend by itself, and the API server has no
        // field for it.
        if message.contains(EXPIRED) {
            return Err(ReviewError::Expired);
        }
        return Err(denied(format_args!("the API server does not accept it: {message}")));
    }
    // Spec: TokenReview `status.audiences`: a server that does not know audiences leaves
    // it empty, and then the token is for the server itself.
    let audiences = status.audiences.as_deref().unwrap_or_default();
    if !audiences.iter().any(|audience| audience == AUDIENCE) {
        let reason = "it is not for the audience";
        return Err(denied(format_args!("{reason} {AUDIENCE:?}: project it with this audience")));
    }
    let user = status.user.clone().unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let Some((namespace, service_account)) = account else {
        let user: String = name.chars().take(USER_CHARS_MAX).collect();
        return Err(denied(format_args!("it is of {user:?}, which is not a service account")));
    };
    let label = |name: &str| {
        Label::new(name).map_err(|error| {
            denied(format_args!(
                "the name {name:?} of its account cannot be in an identity: {error}"
            ))
        })
    };
    let extra = user.extra.unwrap_or_default();
    let one = |key: &str| match extra.get(key).map(Vec::as_slice) {
        Some([value]) if !value.is_empty() => Ok(value.clone()),
        Some(_) | None => {
            Err(denied("it is not bound to a pod: use a projected token of the pod itself"))
        }
    };
    Ok(ReviewedWorkload {
        namespace: label(namespace)?,
        service_account: label(service_account)?,
        pod: one(POD_NAME)?,
        pod_uid: one(POD_UID)?,
    })
}

/// Compares the claim with the pod that exists.
fn judge(claimed: ReviewedWorkload, pod: Option<&Pod>) -> Result<ReviewedWorkload, ReviewError> {
    // Another pod may have taken the name.
    let is_same = |pod: &&Pod| pod.metadata.uid.as_deref() == Some(claimed.pod_uid.as_str());
    let pod = pod.filter(is_same).ok_or(ReviewError::PodGone)?;
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    if account != Some(claimed.service_account.as_str()) {
        let (namespace, pod) = (&claimed.namespace, &claimed.pod);
        let account = "does not run as the token's service account";
        return Err(denied(format_args!("pod {namespace}/{pod} {account}")));
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Failed" | "Succeeded")) {
        return Err(ReviewError::PodGone);
    }
    Ok(claimed)
}

fn denied(reason: impl fmt::Display) -> ReviewError {
    ReviewError::Denied { reason: reason.to_string() }
}

/// The audience that a token must be projected with.
pub const AUDIENCE: &str = "isthmus";
/// What the API server says of a token that has ended: "service account token has expired",
/// and of one by an OIDC issuer "token is expired".
const EXPIRED: &str = "expired";
/// Spec: KEP-1205, bound service account tokens.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// The limit of each of the two requests of a review; together they stay below the 10 s
/// that the authority gives a pod's request.
const REQUEST_MAX: Duration = Duration::from_secs(4);
/// How much of a user's name an error repeats.
const USER_CHARS_MAX: usize = 120;

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
    fn judged(change: impl FnOnce(&mut Value)) -> Result<ReviewedWorkload, String> {
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
        let ReviewedWorkload { namespace, service_account, pod, pod_uid } = &identity;
        assert_eq!((namespace.as_str(), service_account.as_str(), &**pod, &**pod_uid), want);
    }

    #[test]
    fn a_token_that_is_not_for_us_is_refused() {
        assert!(refusal(|s| s["authenticated"] = json!(false)).contains("does not accept"));
        assert!(refusal(|s| s["audiences"] = json!(["https://api"])).contains("audience"));
        assert!(refusal(|s| s["audiences"] = json!(null)).contains("audience"));
        let user = refusal(|s| s["user"]["username"] = json!("system:node:n1"));
        assert!(user.contains("not a service account"));
        assert!(refusal(|s| s["user"]["extra"] = json!({})).contains("not bound"));
        let dotted = "system:serviceaccount:shop:web.v1";
        let account = refusal(|s| s["user"]["username"] = json!(dotted));
        assert!(account.contains("\"web.v1\""), "{account}");
    }

    #[test]
    fn a_token_that_has_ended_is_told_from_one_that_was_never_good() {
        let ended = |s: &mut Value| {
            let error = "[invalid bearer token, service account token has expired]";
            *s = json!({"authenticated": false, "error": error});
        };
        assert_eq!(claim(&status(ended)), Err(ReviewError::Expired));
    }

    #[tokio::test]
    async fn an_api_server_that_does_not_answer_is_not_waited_for() {
        let silent = std::future::pending::<kube::Result<()>>();
        let error = asked("review a token", Duration::ZERO, silent).await.unwrap_err().to_string();
        assert!(error.contains("review a token: no answer within 0 s"), "{error}");
    }

    #[test]
    fn a_pod_that_is_gone_replaced_or_ending_has_no_identity() {
        assert!(judged(|p| p["metadata"]["uid"] = json!("u2")).unwrap_err().contains("gone"));
        let ending =
            |p: &mut Value| p["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(judged(ending).unwrap_err().contains("gone"));
        assert!(judged(|p| p["status"]["phase"] = json!("Failed")).unwrap_err().contains("gone"));
        let account = |p: &mut Value| p["spec"]["serviceAccountName"] = json!("admin");
        assert!(judged(account).unwrap_err().contains("service account"));
        assert!(judge(claim(&status(|_| ())).unwrap(), None).is_err());
    }
}
