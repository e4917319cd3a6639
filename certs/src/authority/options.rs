//! Settings of the authority and what they must be to each other.

use std::path::PathBuf;
use std::time::Duration;

use isthmus_model::TrustDomain;

use super::AuthorityError;

/// The settings of one authority.
#[derive(Debug, Clone)]
pub struct AuthorityOptions {
    /// The directory of keys and state; made with mode 0700.
    pub state_dir: PathBuf,
    /// The trust domain that it speaks for.
    pub trust_domain: TrustDomain,
    /// Lifetime of an SVID. Default 1 h; 5 s to 7 days.
    pub svid_lifetime: Duration,
    /// Lifetime of an intermediate, renewed at half of it. Default 7 days; at least twice
    /// the SVID's.
    pub intermediate_lifetime: Duration,
    /// Lifetime of a root, rotated at two thirds of it. Default 3650 days; at least three
    /// times the intermediate's.
    pub root_lifetime: Duration,
    /// How long a new root is published before it signs. Default 15 min, three times the
    /// refresh hint; at most a sixth of the root's lifetime.
    pub root_overlap: Duration,
    /// How often peers should look for a newer bundle. Default 5 min.
    pub refresh_hint: Duration,
    /// An intermediate that the user brings, instead of an own root.
    pub user_intermediate: Option<UserIntermediate>,
}

/// The files of an intermediate that the user brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserIntermediate {
    /// PEM: the intermediate, then those between it and the root, without the root.
    pub chain: PathBuf,
    /// PEM: the private key of the intermediate; ECDSA P-256 or P-384, Ed25519 or RSA.
    pub key: PathBuf,
    /// PEM: the roots to publish in the bundle.
    ///
    /// Where clusters share one corporate root, name the intermediate itself here: a root
    /// must not speak for two trust domains. To change the root without a failed
    /// handshake, add the new one to this file first, and switch the chain later.
    pub roots: PathBuf,
}

impl AuthorityOptions {
    /// The defaults.
    pub fn new(state_dir: PathBuf, trust_domain: TrustDomain) -> Self {
        Self {
            state_dir,
            trust_domain,
            svid_lifetime: Duration::from_secs(HOUR),
            intermediate_lifetime: Duration::from_secs(7 * DAY),
            root_lifetime: Duration::from_secs(3650 * DAY),
            root_overlap: Duration::from_secs(15 * 60),
            refresh_hint: Duration::from_secs(5 * 60),
            user_intermediate: None,
        }
    }

    pub(super) fn check(&self) -> Result<(), AuthorityError> {
        let fail = |setting, reason| Err(AuthorityError::Option { setting, reason });
        let [svid, intermediate, root, overlap] =
            [self.svid_lifetime, self.intermediate_lifetime, self.root_lifetime, self.root_overlap]
                .map(|lifetime| lifetime.as_secs());
        if !(SVID_SECONDS_MIN..=SVID_SECONDS_MAX).contains(&svid) {
            return fail("svid_lifetime", "must be 5 s to 7 days");
        }
        if self.user_intermediate.is_some() {
            return Ok(());
        }
        if intermediate < 2 * svid {
            return fail("intermediate_lifetime", "must be at least twice the lifetime of an SVID");
        }
        if root > ROOT_SECONDS_MAX || intermediate > root / 3 {
            return fail(
                "root_lifetime",
                "must be at least three times the lifetime of an intermediate, at most 100 years",
            );
        }
        if overlap > root / 6 {
            return fail("root_overlap", "must be at most a sixth of the lifetime of a root");
        }
        Ok(())
    }
}

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const SVID_SECONDS_MIN: u64 = 5;
const SVID_SECONDS_MAX: u64 = 7 * DAY;
const ROOT_SECONDS_MAX: u64 = 100 * 365 * DAY;
