//! How gateways speak TLS to the backends of a service.

use serde::{Deserialize, Serialize};

use crate::name::ServiceKey;

/// One BackendTLSPolicy on one of its targets.
///
/// Spec: Gateway API v1 BackendTLSPolicy. Of two policies for the same target the older
/// is translated; one for a port goes before one for the whole service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendTls {
    /// `<namespace>/<name>` of the policy, for logs and `explain`.
    pub policy: String,
    /// The service.
    pub service: ServiceKey,
    /// One port of it; `None` is every port without a policy of its own.
    #[serde(default)]
    pub port: Option<u16>,
    /// The server name that is sent, and that the certificate must have when
    /// [`BackendTls::names`] is empty.
    pub hostname: String,
    /// When not empty, the certificate must have one of these instead.
    #[serde(default)]
    pub names: Vec<SubjectName>,
    /// Whom to trust.
    pub roots: BackendRoots,
}

/// A subject alternative name of a backend's certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SubjectName {
    /// A DNS name, which may begin with the label `*`.
    Dns(String),
    /// A URI, compared byte by byte: `spiffe://domain/ns/a/sa/b`.
    Uri(String),
}

/// The certificates that a backend's chain must end in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendRoots {
    /// The policy cannot be used: requests are answered with 500, never in clear text.
    Invalid {
        /// Why, for logs and `explain`.
        reason: String,
    },
    /// These certificates, PEM.
    Pem(String),
    /// Those of the system that the gateway runs on.
    System,
}
