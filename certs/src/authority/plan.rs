//! The phases of a root's rotation and what is due; pure.

use serde::{Deserialize, Serialize};

use super::mint::Validity;

/// Where the rotation of the root is. Numbers name generations of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub(crate) enum RootPhase {
    /// One root, which signs.
    Steady {
        /// The root.
        active: u64,
    },
    /// A new root is in the bundle and does not sign yet.
    Published {
        /// The root that signs.
        active: u64,
        /// The root that will.
        next: u64,
        /// When, in unix seconds.
        activate_at: u64,
    },
    /// The new root signs; certificates of the former are still alive.
    Retiring {
        /// The root that signs.
        active: u64,
        /// The root that did.
        former: u64,
        /// When it leaves the bundle, in unix seconds.
        retire_at: u64,
    },
}

impl RootPhase {
    /// The root that signs intermediates.
    pub(crate) fn active(&self) -> u64 {
        match self {
            Self::Steady { active } | Self::Published { active, .. } => *active,
            Self::Retiring { active, .. } => *active,
        }
    }

    /// The roots in the bundle.
    pub(crate) fn generations(&self) -> Vec<u64> {
        match self {
            Self::Steady { active } => vec![*active],
            Self::Published { active, next, .. } => vec![*active, *next],
            Self::Retiring { active, former, .. } => vec![*active, *former],
        }
    }
}

/// One step of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotationStep {
    /// The new root begins to sign.
    ActivateRoot,
    /// A new root goes into the bundle.
    PublishRoot,
    /// The former root leaves the bundle.
    RetireRoot,
    /// A root that the user replaced leaves the bundle.
    RetireUserRoot,
    /// A new intermediate signs.
    RotateIntermediate,
}

impl RotationStep {
    /// The label for logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::ActivateRoot => "activate_root",
            Self::PublishRoot => "publish_root",
            Self::RetireRoot => "retire_root",
            Self::RetireUserRoot => "retire_user_root",
            Self::RotateIntermediate => "rotate_intermediate",
        }
    }
}

/// What decides about the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    Own { phase: RootPhase, root: Validity, intermediate: Validity },
    User { retire_at: Option<u64> },
}

impl Plan {
    /// The step that is due, the most urgent first.
    pub(crate) fn due(&self, now: u64) -> Option<RotationStep> {
        self.times().into_iter().find(|(at, _)| *at <= now).map(|(_, step)| step)
    }

    /// When the next step is due, in unix seconds.
    pub(crate) fn next_due(&self) -> u64 {
        self.times().into_iter().map(|(at, _)| at).min().unwrap_or(u64::MAX)
    }

    fn times(&self) -> Vec<(u64, RotationStep)> {
        match self {
            Self::User { retire_at } => {
                retire_at.iter().map(|at| (*at, RotationStep::RetireUserRoot)).collect()
            }
            Self::Own { phase, root, intermediate } => {
                let root_step = match phase {
                    RootPhase::Steady { .. } => (root.begin_plus(2, 3), RotationStep::PublishRoot),
                    // With an old root that has ended there is nobody to wait for.
                    RootPhase::Published { activate_at, .. } => {
                        ((*activate_at).min(root.not_after), RotationStep::ActivateRoot)
                    }
                    RootPhase::Retiring { retire_at, .. } => (*retire_at, RotationStep::RetireRoot),
                };
                let renew = (intermediate.begin_plus(1, 2), RotationStep::RotateIntermediate);
                // A root that has ended cannot give an intermediate any time to live.
                if root.not_after <= intermediate.begin_plus(1, 2) {
                    return vec![root_step];
                }
                vec![root_step, renew]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A CA certificate made at `begin`.
    fn made(begin: u64, end: u64) -> Validity {
        Validity::of_ca(begin, end - begin)
    }

    fn own(phase: RootPhase, intermediate: Validity) -> Plan {
        Plan::Own { phase, root: made(10_000, 13_000), intermediate }
    }

    #[test]
    fn an_intermediate_is_renewed_at_half_life() {
        let plan = own(RootPhase::Steady { active: 1 }, made(10_000, 10_600));
        assert_eq!((plan.next_due(), plan.due(10_299)), (10_300, None));
        assert_eq!(plan.due(10_300), Some(RotationStep::RotateIntermediate));
    }

    #[test]
    fn a_root_is_replaced_at_two_thirds_of_its_life() {
        let plan = own(RootPhase::Steady { active: 1 }, made(11_900, 12_900));
        assert_eq!(plan.due(11_999), None);
        assert_eq!(plan.due(12_000), Some(RotationStep::PublishRoot));
    }

    #[test]
    fn a_published_root_waits_for_its_overlap() {
        let phase = RootPhase::Published { active: 1, next: 3, activate_at: 10_100 };
        let plan = own(phase, made(10_000, 10_600));
        let activate = Some(RotationStep::ActivateRoot);
        assert_eq!((plan.due(10_099), plan.due(10_100)), (None, activate));
    }

    #[test]
    fn a_former_root_stays_until_its_certificates_are_dead() {
        let phase = RootPhase::Retiring { active: 3, former: 1, retire_at: 10_200 };
        let plan = own(phase, made(10_000, 10_600));
        let retire = Some(RotationStep::RetireRoot);
        assert_eq!((plan.due(10_199), plan.due(10_200)), (None, retire));
    }

    #[test]
    fn a_root_that_ended_is_replaced_at_once() {
        let phase = RootPhase::Published { active: 1, next: 3, activate_at: 90_000 };
        let plan = own(phase, made(12_000, 13_000));
        assert_eq!(plan.due(13_000), Some(RotationStep::ActivateRoot));
    }
}
