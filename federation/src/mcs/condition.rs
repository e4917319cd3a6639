//! Conditions of ServiceExport and ServiceImport.
//!
//! Spec: KEP-1645 `ServiceExportConditionType` and `ServiceExportConditionReason`,
//! v1beta1.

use super::merge::Conflict;

/// One condition of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The type.
    pub kind: &'static str,
    /// The status.
    pub status: ConditionStatus,
    /// The reason; several conflict reasons are joined by commas.
    pub reason: String,
    /// What a person reads.
    pub message: String,
}

/// The status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionStatus {
    /// It does not hold.
    False,
    /// It holds.
    True,
    /// It is not known yet.
    Unknown,
}

/// Why the exports of a service contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConflictReason {
    /// `exportedAnnotations` differ.
    Annotations,
    /// `internalTrafficPolicy` differs.
    InternalTrafficPolicy,
    /// `exportedLabels` differ.
    Labels,
    /// The ports differ.
    Port,
    /// `sessionAffinity` differs.
    SessionAffinity,
    /// `sessionAffinityConfig` differs.
    SessionAffinityConfig,
    /// `trafficDistribution` differs.
    TrafficDistribution,
    /// Some are headless.
    Type,
}

impl ConflictReason {
    /// The reason as the API spells it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Annotations => "AnnotationsConflict",
            Self::InternalTrafficPolicy => "InternalTrafficPolicyConflict",
            Self::Labels => "LabelsConflict",
            Self::Port => "PortConflict",
            Self::SessionAffinity => "SessionAffinityConflict",
            Self::SessionAffinityConfig => "SessionAffinityConfigConflict",
            Self::TrafficDistribution => "TrafficDistributionConflict",
            Self::Type => "TypeConflict",
        }
    }

    /// The field as a person calls it.
    pub fn field(self) -> &'static str {
        match self {
            Self::Annotations => "exportedAnnotations",
            Self::InternalTrafficPolicy => "internalTrafficPolicy",
            Self::Labels => "exportedLabels",
            Self::Port => "ports",
            Self::SessionAffinity => "sessionAffinity",
            Self::SessionAffinityConfig => "sessionAffinityConfig",
            Self::TrafficDistribution => "trafficDistribution",
            Self::Type => "type (headless or not)",
        }
    }
}

impl Condition {
    /// `Valid=True`.
    pub fn valid() -> Self {
        Self::of("Valid", ConditionStatus::True, "Valid", "the Service is exported")
    }

    /// `Valid=False`: there is no Service of this name.
    pub fn no_service() -> Self {
        let message = "there is no Service of this name in the namespace";
        Self::of("Valid", ConditionStatus::False, "NoService", message)
    }

    /// `Valid=False`: the Service is of a type that cannot be exported.
    pub fn invalid_service_type() -> Self {
        let message = "a Service of type ExternalName cannot be exported";
        Self::of("Valid", ConditionStatus::False, "InvalidServiceType", message)
    }

    /// `Ready` of an export that peers pull.
    pub fn export_ready(peers: usize) -> Self {
        let message = format!("offered to {peers} linked clusters");
        Self::of("Ready", ConditionStatus::True, "Ready", &message)
    }

    /// `Ready=False`: the export is not valid.
    pub fn export_failed() -> Self {
        Self::of("Ready", ConditionStatus::False, "Failed", "the export is not valid")
    }

    /// `Ready=True` of an import.
    pub fn import_ready() -> Self {
        Self::of("Ready", ConditionStatus::True, "Ready", "the import is published")
    }

    /// `Ready=False` of an import that waits for an address.
    pub fn import_pending() -> Self {
        let message = "no ClusterSetIP is free in the range of this cluster";
        Self::of("Ready", ConditionStatus::False, "Pending", message)
    }

    /// `Ready=False` of an import that waits for an address from outside.
    pub fn import_waiting() -> Self {
        let message = "the derived Service of the import has no address yet";
        Self::of("Ready", ConditionStatus::False, "Pending", message)
    }

    /// `Conflict` of an export.
    pub fn conflict(conflict: Option<&Conflict>) -> Self {
        match conflict {
            Some(conflict) => {
                let reasons: Vec<_> = conflict.reasons.iter().map(|r| r.0.label()).collect();
                let reason = reasons.join(",");
                Self::of("Conflict", ConditionStatus::True, &reason, &conflict.message())
            }
            None => {
                let message = "all exports of the service agree";
                Self::of("Conflict", ConditionStatus::False, "NoConflicts", message)
            }
        }
    }

    fn of(kind: &'static str, status: ConditionStatus, reason: &str, message: &str) -> Self {
        Self { kind, status, reason: reason.to_owned(), message: message.to_owned() }
    }
}
