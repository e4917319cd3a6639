//! Whether a bundle that arrived may replace the one in use; pure.
//!
//! A bundle is the most dangerous thing a peer can send: whoever sets it decides who may
//! speak for a trust domain. So the sequence never goes back, the same number never means
//! two things, nothing unusable replaces something usable, and no key speaks for two
//! domains.

use std::collections::BTreeMap;
use std::time::SystemTime;

use isthmus_model::TrustDomain;

use super::Bundle;

/// What became of a bundle that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// It is in use and will survive a restart.
    Accepted,
    /// It is in use, but could not be written to disk.
    AcceptedInMemory,
    /// It is the one in use already.
    Unchanged,
}

/// A bundle that did not replace the one in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleRefused {
    /// The same sequence with other content.
    #[error("the bundle of {domain} has sequence {sequence}, which is in use with other content")]
    ContentChanged {
        /// Whose bundle.
        domain: TrustDomain,
        /// The number in both.
        sequence: u64,
    },
    /// The sequence jumps further than any honest authority counts.
    #[error(
        "the bundle of {domain} jumps from sequence {current} to {offered}; an operator must accept it"
    )]
    Jump {
        /// Whose bundle.
        domain: TrustDomain,
        /// The number in use.
        current: u64,
        /// The number offered.
        offered: u64,
    },
    /// The sequence is lower.
    #[error("the bundle of {domain} has sequence {offered}, which is older than {current}")]
    Older {
        /// Whose bundle.
        domain: TrustDomain,
        /// The number in use.
        current: u64,
        /// The number offered.
        offered: u64,
    },
    /// A peer offered a bundle for this cluster's own trust domain.
    #[error("{domain} is the own trust domain; no peer may set its bundle")]
    OwnDomain {
        /// The own trust domain.
        domain: TrustDomain,
    },
    /// There was a sequence and now there is none.
    #[error("the bundle of {domain} has no sequence, the one in use has {current}")]
    SequenceMissing {
        /// Whose bundle.
        domain: TrustDomain,
        /// The number in use.
        current: u64,
    },
    /// A root is one of another trust domain, or passes for one of ours.
    #[error("the bundle of {domain} has a root certificate that belongs to {other}")]
    SharedAuthority {
        /// Whose bundle.
        domain: TrustDomain,
        /// Who has the root already.
        other: TrustDomain,
    },
    /// More domains than the store holds.
    #[error("the bundle of {domain} is one too many, at most {limit} trust domains are kept")]
    TooMany {
        /// Whose bundle.
        domain: TrustDomain,
        /// Domains kept.
        limit: usize,
    },
    /// No root in it is valid now.
    #[error("the bundle of {domain} has no root certificate that is valid now")]
    Unusable {
        /// Whose bundle.
        domain: TrustDomain,
    },
    /// The bundle is not of the trust domain of the channel that it came through.
    #[error("the bundle of {domain} came through the channel of {channel}")]
    WrongChannel {
        /// Whose bundle.
        domain: TrustDomain,
        /// Whose channel.
        channel: TrustDomain,
    },
}

impl BundleRefused {
    /// The metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::ContentChanged { .. } => "content_changed",
            Self::Jump { .. } => "jump",
            Self::Older { .. } => "older",
            Self::OwnDomain { .. } => "own_domain",
            Self::SequenceMissing { .. } => "sequence_missing",
            Self::SharedAuthority { .. } => "shared_authority",
            Self::TooMany { .. } => "too_many",
            Self::Unusable { .. } => "unusable",
            Self::WrongChannel { .. } => "wrong_channel",
        }
    }
}

/// Whether the new bundle differs, given that it may replace the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Replace,
    Same,
}

/// Decides by the sequence and the content.
pub(crate) fn check_sequence(current: &Bundle, new: &Bundle) -> Result<Verdict, BundleRefused> {
    let domain = || new.trust_domain().clone();
    match (current.sequence(), new.sequence()) {
        (Some(current), None) => Err(BundleRefused::SequenceMissing { domain: domain(), current }),
        (Some(current), Some(offered)) if offered < current => {
            Err(BundleRefused::Older { domain: domain(), current, offered })
        }
        (Some(current), Some(offered)) if offered - current > SEQUENCE_JUMP_MAX => {
            Err(BundleRefused::Jump { domain: domain(), current, offered })
        }
        (Some(sequence), Some(offered)) if offered == sequence && current != new => {
            Err(BundleRefused::ContentChanged { domain: domain(), sequence })
        }
        // Without any sequence there is no order; a publisher that never had one is
        // believed as it is, because its channel is authenticated.
        _ if current == new => Ok(Verdict::Same),
        _ => Ok(Verdict::Replace),
    }
}

/// Decides by what is in the bundle, whatever its sequence.
pub(crate) fn check_content(
    now: SystemTime,
    own: &TrustDomain,
    all: &BTreeMap<TrustDomain, Bundle>,
    new: &Bundle,
) -> Result<(), BundleRefused> {
    let domain = new.trust_domain();
    if !new.is_usable_at(now) {
        return Err(BundleRefused::Unusable { domain: domain.clone() });
    }
    for (other, bundle) in all.iter().filter(|(other, _)| *other != domain) {
        let involves_own = other == own || domain == own;
        let shared = new.authorities().iter().any(|new| {
            bundle.authorities().iter().any(|theirs| {
                // Between two peers a common subject is clumsy; one that looks like ours
                // is an attack or a mistake that would be taken for one.
                let same_key = new.key_info() == theirs.key_info();
                same_key || (involves_own && new.resembles(theirs))
            })
        });
        if shared {
            let (domain, other) = (domain.clone(), other.clone());
            return Err(BundleRefused::SharedAuthority { domain, other });
        }
    }
    Ok(())
}

/// An authority that counts one change a second needs 136 years to get there.
const SEQUENCE_JUMP_MAX: u64 = 1 << 32;
