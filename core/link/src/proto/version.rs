//! Protocol versions: each end offers a range, the highest common one is used.
//!
//! A build speaks its own version and the two before it (N-2), so a clusterset can be
//! upgraded one cluster at a time in any order.

/// A range of protocol versions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    /// The oldest version.
    pub min: u16,
    /// The newest version.
    pub max: u16,
}

impl VersionRange {
    /// What this build speaks.
    pub const CURRENT: Self = Self::newest(VERSION);

    /// What a build whose newest version is `newest` speaks: that one and the two before.
    pub const fn newest(newest: u16) -> Self {
        let oldest = newest.saturating_sub(VERSION_SKEW);
        Self { min: if oldest == 0 { 1 } else { oldest }, max: newest }
    }

    /// The version that both ends use, or `None` when they have none in common.
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.max.min(other.max);
        let oldest = self.min.max(other.min);
        (newest >= oldest).then_some(newest)
    }
}

/// The newest protocol version of this build.
pub const VERSION: u16 = 1;
/// How many versions back a build still speaks.
pub const VERSION_SKEW: u16 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_up_to_two_apart_talk_and_others_do_not() {
        let check = |a: u16, b: u16, want: Option<u16>| {
            let (a, b) = (VersionRange::newest(a), VersionRange::newest(b));
            assert_eq!(a.common(b), want, "{a:?} {b:?}");
            assert_eq!(b.common(a), want, "{b:?} {a:?}");
        };
        check(1, 1, Some(1));
        check(1, 2, Some(1));
        check(1, 3, Some(1));
        check(1, 4, None);
        check(5, 7, Some(5));
        check(5, 8, None);
        assert_eq!(VersionRange::CURRENT, VersionRange { min: 1, max: 1 });
    }

    #[test]
    fn a_reversed_range_has_nothing_in_common() {
        let reversed = VersionRange { min: 9, max: 1 };
        assert_eq!(VersionRange::CURRENT.common(reversed), None);
    }
}
