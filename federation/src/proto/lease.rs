//! How long a peer's word holds.
//!
//! ```text
//! Never ──renew──▶ Valid ──time──▶ Expired ──renew──▶ Valid
//! ```
//!
//! While a lease is not valid the peer's endpoints are chosen only where no other cluster has
//! any (`isthmus_model::locality`); what it exported is kept. A lease is renewed only by a heartbeat with a higher sequence, so a replayed
//! one renews nothing.

use std::time::{Duration, Instant};

/// The lease of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// It ended, and nothing has been heard since.
    Expired {
        /// When it ended.
        since: Instant,
    },
    /// Nothing has been heard from the peer yet.
    Never,
    /// The peer's word holds.
    Valid {
        /// Until then, unless it is renewed.
        until: Instant,
    },
}

/// What happened to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseChange {
    /// It has ended now.
    Expired,
    /// It is valid now and was not before.
    Granted,
    /// Nothing that matters to others.
    Same,
}

impl Lease {
    /// Extends the lease. The duration is the peer's wish, held between
    /// [`LEASE_MIN`] and [`LEASE_MAX`].
    pub fn renew(&mut self, now: Instant, duration: Duration) -> LeaseChange {
        let was_valid = self.is_valid(now);
        *self = Self::Valid { until: now + duration.clamp(LEASE_MIN, LEASE_MAX) };
        if was_valid { LeaseChange::Same } else { LeaseChange::Granted }
    }

    /// Ends the lease if its time has come.
    pub fn handle_timeout(&mut self, now: Instant) -> LeaseChange {
        match *self {
            Self::Valid { until } if until <= now => {
                *self = Self::Expired { since: until };
                LeaseChange::Expired
            }
            Self::Valid { .. } | Self::Expired { .. } | Self::Never => LeaseChange::Same,
        }
    }

    /// Whether the peer's word holds.
    pub fn is_valid(&self, now: Instant) -> bool {
        matches!(*self, Self::Valid { until } if now < until)
    }

    /// When the lease ends.
    pub fn next_timeout(&self) -> Option<Instant> {
        match *self {
            Self::Valid { until } => Some(until),
            Self::Expired { .. } | Self::Never => None,
        }
    }
}

/// A shorter lease would end between two heartbeats.
pub const LEASE_MIN: Duration = Duration::from_secs(5);
/// A longer lease would keep a dead peer in selection for too long.
pub const LEASE_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_at_its_time_and_comes_back_with_the_next_renewal() {
        let start = isthmus_runtime::clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lease = Lease::Never;
        assert_eq!(lease.renew(start, Duration::from_secs(10)), LeaseChange::Granted);
        assert_eq!(lease.renew(at(5), Duration::from_secs(10)), LeaseChange::Same);
        assert_eq!(lease.handle_timeout(at(14)), LeaseChange::Same);
        assert!(!lease.is_valid(at(15)));
        assert_eq!(lease.handle_timeout(at(15)), LeaseChange::Expired);
        assert_eq!(lease.handle_timeout(at(16)), LeaseChange::Same);
        assert_eq!(lease.renew(at(20), Duration::from_secs(10)), LeaseChange::Granted);
    }

    #[test]
    fn a_peer_cannot_grant_itself_a_lease_for_ever() {
        let now = isthmus_runtime::clock::now();
        let mut lease = Lease::Never;
        lease.renew(now, Duration::MAX);
        assert_eq!(lease, Lease::Valid { until: now + LEASE_MAX });
    }
}
