//! Plain counters that the caller exports under the names it likes.
//!
//! Counters are relaxed atomics: each is exact, and two of them read together may be a
//! few queries apart.

use std::sync::atomic::{AtomicU64, Ordering};

use hickory_proto::op::ResponseCode;

use crate::answer::ZoneKind;

macro_rules! counts {
    ($($(#[$doc:meta])* $variant:ident => $family:literal, $label:literal;)*) => {
        /// What is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Count {
            $($(#[$doc])* $variant,)*
        }

        impl Count {
            /// Every counter, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The family that the counter belongs to, for example `responses`.
            pub fn family(self) -> &'static str {
                match self { $(Self::$variant => $family,)* }
            }

            /// What tells the counter from the others of its family.
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

counts! {
    /// Queries over TCP.
    QueriesTcp => "queries", "tcp";
    /// Queries over UDP.
    QueriesUdp => "queries", "udp";
    /// Questions about `cluster.local`.
    ZoneCluster => "questions", "cluster";
    /// Questions about `clusterset.local`.
    ZoneClusterSet => "questions", "clusterset";
    /// Questions about other names.
    ZoneOther => "questions", "other";
    /// Answers with BADVERS.
    CodeBadVers => "responses", "badvers";
    /// Answers with FORMERR.
    CodeFormErr => "responses", "formerr";
    /// Answers with NOERROR.
    CodeNoError => "responses", "noerror";
    /// Answers with NOTIMP.
    CodeNotImp => "responses", "notimp";
    /// Answers with NXDOMAIN.
    CodeNxDomain => "responses", "nxdomain";
    /// Answers with another code.
    CodeOther => "responses", "other";
    /// Answers with REFUSED.
    CodeRefused => "responses", "refused";
    /// Answers with SERVFAIL.
    CodeServFail => "responses", "servfail";
    /// Answers cut because they were too large for UDP.
    Truncated => "truncated", "size";
    /// Truncated answers sent to a source over its rate.
    TruncatedByRate => "truncated", "rate";
    /// Datagrams and connections dropped because too much was in flight.
    DroppedOverload => "dropped", "overload";
    /// Queries dropped because answering them panicked.
    DroppedPanic => "dropped", "panic";
    /// Datagrams dropped because their source was over its rate.
    DroppedRate => "dropped", "rate";
    /// Responses sent to us, dropped.
    DroppedResponse => "dropped", "response";
    /// Packets without a header, dropped.
    DroppedShort => "dropped", "short";
    /// Forwarded questions answered from the cache.
    ForwardCached => "forwarded", "cached";
    /// Forwarded questions that no upstream answered.
    ForwardFailed => "forwarded", "failed";
    /// Forwarded questions that waited for the same question of another client.
    ForwardShared => "forwarded", "shared";
    /// Forwarded questions answered from the cache after their time, because no upstream
    /// answered.
    ForwardStale => "forwarded", "stale";
    /// Forwarded questions answered by an upstream.
    ForwardUpstream => "forwarded", "upstream";
    /// Packets from upstreams with a wrong id or question, ignored.
    UpstreamMismatch => "upstream_rejected", "mismatch";
    /// Upstream answers thrown away because they lead into our zones.
    UpstreamPoison => "upstream_rejected", "poison";
    /// Single records removed from upstream answers, because nobody asked for them.
    UpstreamRecords => "upstream_rejected", "records";
}

/// The counters of one DNS server.
#[derive(Debug, Default)]
pub struct Metrics {
    values: [AtomicU64; Count::ALL.len()],
}

impl Metrics {
    /// Adds one.
    pub(crate) fn add(&self, count: Count) {
        self.add_many(count, 1);
    }

    pub(crate) fn add_many(&self, count: Count, by: u64) {
        if let Some(value) = self.values.get(count as usize) {
            value.fetch_add(by, Ordering::Relaxed);
        }
    }

    pub(crate) fn add_code(&self, code: ResponseCode) {
        let known = [
            (ResponseCode::BADVERS, Count::CodeBadVers),
            (ResponseCode::FormErr, Count::CodeFormErr),
            (ResponseCode::NoError, Count::CodeNoError),
            (ResponseCode::NotImp, Count::CodeNotImp),
            (ResponseCode::NXDomain, Count::CodeNxDomain),
            (ResponseCode::Refused, Count::CodeRefused),
            (ResponseCode::ServFail, Count::CodeServFail),
        ];
        let found = known.into_iter().find(|(known, _)| *known == code);
        self.add(found.map_or(Count::CodeOther, |(_, count)| count));
    }

    pub(crate) fn add_zone(&self, zone: ZoneKind) {
        self.add(match zone {
            ZoneKind::Cluster => Count::ZoneCluster,
            ZoneKind::ClusterSet => Count::ZoneClusterSet,
            ZoneKind::Other => Count::ZoneOther,
        });
    }

    /// The value of one counter.
    pub fn value(&self, count: Count) -> u64 {
        self.values.get(count as usize).map_or(0, |value| value.load(Ordering::Relaxed))
    }

    /// The values of all counters, in order.
    pub fn snapshot(&self) -> Vec<(Count, u64)> {
        Count::ALL.iter().map(|count| (*count, self.value(*count))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_its_own_cell_and_name() {
        let metrics = Metrics::default();
        for (count, by) in Count::ALL.iter().zip(1..) {
            metrics.add_many(*count, by);
        }
        let snapshot = metrics.snapshot();
        assert!(snapshot.iter().zip(1..).all(|((_, value), by)| *value == by));
        let mut names: Vec<_> = Count::ALL.iter().map(|c| (c.family(), c.label())).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Count::ALL.len());
    }
}
