//! Validated BackendTLSPolicy.

use isthmus_model::{Label, ObjectName, SubjectName};

use super::CaRef;
use crate::kind::ObjectKey;

/// A BackendTLSPolicy: how gateways speak TLS to the backends of Services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendTlsPolicy {
    /// Namespace and name; its targets are in the same namespace.
    pub key: ObjectKey,
    /// What it applies to; never empty.
    pub targets: Vec<PolicyTarget>,
    /// The server name that is sent, and authenticated when there are no other names.
    pub hostname: String,
    /// When not empty, the certificate must have one of these instead.
    pub names: Vec<SubjectName>,
    /// Whom to trust.
    pub roots: BackendTlsRoots,
    /// Seconds since 1970.
    pub created: i64,
}

/// One target of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTarget {
    /// The object.
    pub target: PolicyTargetRef,
    /// The name of one port of a Service; `None` is every port.
    pub section: Option<ObjectName>,
}

/// What a policy applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyTargetRef {
    /// A Service of the policy's namespace.
    Service(Label),
    /// Another kind: `group/kind name`.
    Unsupported(String),
}

/// Whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendTlsRoots {
    /// The certificates of these objects; never empty.
    References(Vec<CaRef>),
    /// Those of the system that the gateway runs on.
    System,
}
