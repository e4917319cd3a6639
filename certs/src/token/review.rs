//! Who a token is of.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use isthmus_model::Label;

/// The workload that a token was given to, while its pod exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewedWorkload {
    /// The namespace.
    pub namespace: Label,
    /// The service account.
    pub service_account: Label,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid, which no later pod of the name has.
    pub pod_uid: String,
}

/// A token that opens nothing, or that nobody could judge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// The token is not one of this cluster, not for this audience, or not of a pod.
    #[error("the token is not accepted: {reason}")]
    Denied {
        /// Why; goes to the caller.
        reason: String,
    },
    /// The token has ended.
    #[error("the token has expired")]
    Expired,
    /// The pod that the token is bound to is no more.
    #[error("the pod of the token is gone")]
    PodGone,
    /// The reviewer could not be asked; a later try may succeed.
    #[error("the token could not be reviewed: {reason}")]
    Unavailable {
        /// Why; goes to the log only.
        reason: String,
    },
}

/// The answer of a review, awaited.
pub type ReviewFuture<'a> =
    Pin<Box<dyn Future<Output = Result<ReviewedWorkload, ReviewError>> + Send + 'a>>;

/// Says who a token is of.
///
/// An implementation must demand the audience of this service, so that a token for another
/// one opens nothing here, and that the token is bound to a pod that exists.
pub trait TokenReviewer: Send + Sync + fmt::Debug {
    /// Reviews a token of at most 16 KiB. Never log it.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped.
    fn review(&self, token: String) -> ReviewFuture<'_>;
}
