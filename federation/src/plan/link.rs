//! Measured links, without their noise.
//!
//! Gateways report often, and each report differs a little. What is published changes only
//! when the transport changes or the round-trip time has moved by a fifth, and then in
//! coarse steps, so that noise neither reorders clusters nor wakes proxies.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use isthmus_model::{ClusterId, LinkState};

/// How long reports count, and how many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkTableLimits {
    /// A gateway that has said nothing for this long is gone.
    pub report_ttl: Duration,
    /// Gateways that may report.
    pub nodes_max: usize,
}

impl Default for LinkTableLimits {
    fn default() -> Self {
        Self { report_ttl: Duration::from_secs(15), nodes_max: 64 }
    }
}

/// What this cluster's gateways say about the links.
#[derive(Debug)]
pub struct LinkTable {
    limits: LinkTableLimits,
    nodes: BTreeMap<String, NodeLinks>,
    published: BTreeMap<ClusterId, LinkState>,
}

#[derive(Debug)]
struct NodeLinks {
    links: BTreeMap<ClusterId, LinkState>,
    until: Instant,
}

impl LinkTable {
    /// A table that begins with what was published before a restart.
    ///
    /// The old states hold for one report's lifetime, so that a restart withdraws nothing.
    pub fn new(
        now: Instant,
        limits: LinkTableLimits,
        before: BTreeMap<ClusterId, LinkState>,
    ) -> Self {
        let mut table = Self { limits, nodes: BTreeMap::new(), published: BTreeMap::new() };
        if !before.is_empty() {
            // No gateway has an empty name, so a report never replaces this one.
            table.handle_report(now, String::new(), before);
        }
        table
    }

    /// A gateway reports; returns whether what is published changed.
    pub fn handle_report(
        &mut self,
        now: Instant,
        node: String,
        links: BTreeMap<ClusterId, LinkState>,
    ) -> bool {
        let room = self.nodes.len() < self.limits.nodes_max || self.nodes.contains_key(&node);
        if !node.is_empty() {
            // The first real report is better than what was saved.
            self.nodes.remove("");
        }
        if room {
            let until = now + self.limits.report_ttl;
            self.nodes.insert(node, NodeLinks { links, until });
        }
        self.update()
    }

    /// Time has passed; returns whether what is published changed.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let before = self.nodes.len();
        self.nodes.retain(|_, node| now < node.until);
        before != self.nodes.len() && self.update()
    }

    /// When a report ends to count.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.nodes.values().map(|node| node.until).min()
    }

    /// What a link looks like.
    pub fn state(&self, cluster: &ClusterId) -> LinkState {
        self.published.get(cluster).copied().unwrap_or_default()
    }

    /// What all links look like.
    pub fn states(&self) -> &BTreeMap<ClusterId, LinkState> {
        &self.published
    }

    fn update(&mut self) -> bool {
        let mut best: BTreeMap<ClusterId, LinkState> = BTreeMap::new();
        for (cluster, link) in self.nodes.values().flat_map(|node| &node.links) {
            let state = best.entry(cluster.clone()).or_default();
            *state = better(*state, *link);
        }
        let mut next = BTreeMap::new();
        for (cluster, link) in best {
            let former = self.published.get(&cluster).copied().unwrap_or_default();
            next.insert(cluster, damp(former, link));
        }
        let changed = next != self.published;
        self.published = next;
        changed
    }
}

/// Of two gateways' views, the one that a stream would have.
fn better(a: LinkState, b: LinkState) -> LinkState {
    match (a.transport, b.transport) {
        (None, _) => b,
        (Some(_), None) => a,
        (Some(_), Some(_)) => {
            let rtt = |state: LinkState| state.rtt_micros.unwrap_or(u64::MAX);
            if rtt(b) < rtt(a) { b } else { a }
        }
    }
}

fn damp(former: LinkState, new: LinkState) -> LinkState {
    let rtt_micros = match (former.rtt_micros, new.rtt_micros) {
        // A measurement outlives the connection it was made on.
        (former, None) => former,
        (None, Some(rtt)) => Some(coarse(rtt)),
        (Some(former), Some(rtt)) => {
            let moved = rtt.abs_diff(former).saturating_mul(PERCENT)
                >= former.saturating_mul(RTT_CHANGE_PERCENT);
            Some(if moved { coarse(rtt) } else { former })
        }
    };
    LinkState { transport: new.transport, rtt_micros }
}

/// The nearest of eight steps in each doubling.
fn coarse(rtt_micros: u64) -> u64 {
    let bits = u64::BITS - rtt_micros.leading_zeros();
    let shift = bits.saturating_sub(STEP_BITS);
    let half = (1_u64 << shift) >> 1;
    (rtt_micros.saturating_add(half) >> shift) << shift
}

const PERCENT: u64 = 100;
const RTT_CHANGE_PERCENT: u64 = 20;
/// Bits that are kept of a round-trip time.
const STEP_BITS: u32 = 4;

#[cfg(test)]
mod tests {
    use isthmus_model::LinkTransport;
    use isthmus_runtime::clock;

    use super::*;

    fn up(rtt: u64) -> BTreeMap<ClusterId, LinkState> {
        let state = LinkState { transport: Some(LinkTransport::Quic), rtt_micros: Some(rtt) };
        BTreeMap::from([(peer(), state)])
    }

    fn peer() -> ClusterId {
        ClusterId::new("b").unwrap()
    }

    #[test]
    fn noise_is_not_published_and_a_real_change_is() {
        let now = clock::now();
        let mut table = LinkTable::new(now, LinkTableLimits::default(), BTreeMap::new());
        assert!(table.handle_report(now, "gw".into(), up(10_000)));
        let first = table.state(&peer()).rtt_micros.unwrap();
        assert!(first.abs_diff(10_000) < 700, "{first}");
        for rtt in [9_000, 11_500, 10_300] {
            assert!(!table.handle_report(now, "gw".into(), up(rtt)), "{rtt}");
        }
        assert!(table.handle_report(now, "gw".into(), up(20_000)));
    }

    #[test]
    fn a_gateway_that_is_silent_is_gone_and_another_one_counts() {
        let start = clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut table = LinkTable::new(start, LinkTableLimits::default(), up(5_000));
        assert!(table.state(&peer()).transport.is_some());
        table.handle_report(at(1), "one".into(), up(9_000));
        table.handle_report(at(9), "two".into(), up(30_000));
        assert_eq!(table.next_timeout(), Some(at(16)));
        assert!(table.handle_timeout(at(16)));
        assert!(table.state(&peer()).rtt_micros.unwrap() > 20_000);
        assert!(table.handle_timeout(at(24)));
        assert_eq!(table.state(&peer()).transport, None);
    }

    #[test]
    fn a_flood_of_gateways_is_bounded() {
        let now = clock::now();
        let limits = LinkTableLimits { nodes_max: 2, ..LinkTableLimits::default() };
        let mut table = LinkTable::new(now, limits, BTreeMap::new());
        for n in 0..10 {
            table.handle_report(now, format!("gw{n}"), up(1_000));
        }
        assert_eq!(table.nodes.len(), 2);
    }
}
