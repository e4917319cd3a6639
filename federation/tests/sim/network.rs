//! Messages under way, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use isthmus_federation::proto::{Frame, Request};

use crate::random::Random;

/// What goes from one cluster to another.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    Frame(Frame),
    Request(Request),
}

/// Names a session: who reads, who writes, and which of their sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) session: u64,
}

pub(crate) struct Network {
    /// By time of arrival in milliseconds, and order of sending.
    under_way: BTreeMap<(u64, u64), (Address, Message)>,
    cut: BTreeSet<(usize, usize)>,
    sent: u64,
    pub(crate) faulty: bool,
}

impl Network {
    pub(crate) fn new() -> Self {
        Self { under_way: BTreeMap::new(), cut: BTreeSet::new(), sent: 0, faulty: true }
    }

    pub(crate) fn send(
        &mut self,
        random: &mut Random,
        now: u64,
        address: Address,
        message: Message,
    ) {
        if self.is_cut(address.from, address.to) || (self.faulty && random.chance(4)) {
            return;
        }
        let copies = if self.faulty && random.chance(3) { 2 } else { 1 };
        for _ in 0..copies {
            // A healthy network keeps the order, as the real transport does.
            let delay = if self.faulty && random.chance(10) { 5 + random.below(900) } else { 20 };
            self.sent += 1;
            self.under_way.insert((now + delay, self.sent), (address, message.clone()));
        }
    }

    pub(crate) fn receive(&mut self, now: u64) -> Option<(Address, Message)> {
        let (time, _) = *self.under_way.keys().next()?;
        if time > now {
            return None;
        }
        self.under_way.pop_first().map(|(_, arrived)| arrived)
    }

    pub(crate) fn cut(&mut self, a: usize, b: usize, one_way: bool) {
        self.cut.insert((a, b));
        if !one_way {
            self.cut.insert((b, a));
        }
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.under_way.len()
    }
}

pub(crate) fn millis(value: u64) -> Duration {
    Duration::from_millis(value)
}
