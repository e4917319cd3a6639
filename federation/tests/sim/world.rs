//! Several clusters, a network, a clock, and the faults.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use isthmus_federation::proto::{Body, Entry, EntryKey, Frame, SubscribeOutcome};

use crate::hostile::anything;
use crate::network::{Address, Message, Network, millis};
use crate::node::{GRANTED_TO_HOSTILE, Node, domain, exporter_settings};
use crate::random::Random;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) clusters: usize,
    /// The last cluster says anything.
    pub(crate) hostile: bool,
}

pub(crate) struct World {
    options: Options,
    random: Random,
    start: Instant,
    now: u64,
    nodes: Vec<Node>,
    network: Network,
    sessions: u64,
    trace: u64,
}

/// Faults and changes happen until here, in milliseconds.
const CHAOS: u64 = 45_000;
/// Then everything heals, and after this much more everybody must agree. It is longer than
/// the hold-down of 120 s.
const SETTLE: u64 = 130_000;
const STEP: u64 = 40;

impl World {
    pub(crate) fn new(seed: u64, options: Options) -> Self {
        let nodes = (0..options.clusters).map(Node::new).collect();
        let start = isthmus_runtime::clock::now();
        let mut world = Self {
            options,
            random: Random::new(seed),
            start,
            now: 0,
            nodes,
            network: Network::new(),
            sessions: 0,
            trace: 0,
        };
        for index in 0..options.clusters {
            world.start(index);
        }
        world
    }

    pub(crate) fn run(&mut self) {
        while self.now < CHAOS {
            self.chaos();
            self.step();
        }
        self.calm();
        while self.now < CHAOS + SETTLE {
            // Nothing happens between two heartbeats now, so time may go faster.
            self.step();
            self.now += 9 * STEP;
        }
        self.check_agreement();
        self.check_lease_comes_and_goes();
    }

    /// A digest of everything that was delivered.
    pub(crate) fn trace(&self) -> u64 {
        self.trace
    }

    fn at(&self) -> Instant {
        self.start + millis(self.now)
    }

    fn is_hostile(&self, index: usize) -> bool {
        self.options.hostile && index + 1 == self.options.clusters
    }

    fn start(&mut self, index: usize) {
        let others: Vec<(usize, bool)> = (0..self.options.clusters)
            .filter(|other| *other != index)
            .map(|other| (other, self.is_hostile(other)))
            .collect();
        let now = self.at();
        let random = self.random.next();
        self.nodes[index].start(now, self.now / 1_000, random, &others);
        self.nodes[index].down_until = None;
    }

    fn chaos(&mut self) {
        let count = self.options.clusters as u64;
        let mut pick = || usize::try_from(self.random.below(count)).unwrap();
        let (a, b) = (pick(), pick());
        if self.random.chance(8) && self.nodes[a].down_until.is_none() {
            self.nodes[a].mutate(&mut self.random);
        }
        match self.random.below(1_000) {
            0 if a != b => {
                let one_way = self.random.chance(30);
                self.network.cut(a, b, one_way);
            }
            1 | 2 => self.network.heal(),
            3 if self.nodes[a].down_until.is_none() => {
                let until = self.now + self.random.below(8_000);
                let keep_state = self.random.chance(60);
                self.nodes[a].stop(&mut self.random, until, keep_state);
            }
            4..=7 if a != b => self.reset(a, b),
            _ => {}
        }
    }

    fn calm(&mut self) {
        self.network.heal();
        self.network.faulty = false;
        for index in 0..self.options.clusters {
            if self.nodes[index].down_until.is_some() {
                self.start(index);
            }
        }
    }

    /// Ends the session in which `reader` reads from `writer`, at both ends.
    fn reset(&mut self, reader: usize, writer: usize) {
        if let Some(side) = self.nodes[reader].peers.get_mut(&writer)
            && side.reading.take().is_some()
        {
            side.importer.handle_closed();
        }
        if let Some(side) = self.nodes[writer].peers.get_mut(&reader)
            && side.writing.take().is_some()
        {
            side.exporter.handle_closed();
        }
    }

    fn connect(&mut self, reader: usize, writer: usize) {
        let cut = self.network.is_cut(reader, writer) || self.network.is_cut(writer, reader);
        if cut || self.nodes[writer].down_until.is_some() {
            return;
        }
        let now = self.at();
        self.sessions += 1;
        let session = Some(self.sessions);
        if let Some(side) = self.nodes[reader].peers.get_mut(&writer) {
            side.reading = session;
            side.importer.handle_connected(now);
        }
        if let Some(side) = self.nodes[writer].peers.get_mut(&reader) {
            side.writing = session;
            side.exporter.handle_connected(now);
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        for index in 0..self.options.clusters {
            if self.nodes[index].down_until.is_some_and(|until| until <= self.now) {
                self.start(index);
            }
        }
        while let Some((address, message)) = self.network.receive(self.now) {
            self.deliver(address, message);
        }
        for index in 0..self.options.clusters {
            let peers: Vec<usize> = self.nodes[index].peers.keys().copied().collect();
            for peer in peers {
                self.turn(index, peer);
            }
        }
        assert!(self.network.len() < 5_000, "the network fills up");
    }

    fn deliver(&mut self, address: Address, message: Message) {
        let now = self.at();
        let Some(side) = self.nodes[address.to].peers.get_mut(&address.from) else { return };
        let session = Some(address.session);
        match message {
            Message::Frame(frame) if side.reading == session => {
                self.trace = fold(self.trace, &frame, self.now);
                if side.importer.handle_frame(now, frame).is_err() {
                    self.reset(address.to, address.from);
                }
            }
            Message::Request(request) if side.writing == session => {
                let outcome = side.exporter.handle_request(now, request);
                if let Some(SubscribeOutcome::Superseded { epoch }) = outcome {
                    side.exporter.adopt_epoch(epoch + 1);
                }
            }
            Message::Frame(_) | Message::Request(_) => {}
        }
    }

    fn turn(&mut self, index: usize, peer: usize) {
        let now = self.at();
        let hostile = self.is_hostile(index);
        let Some(side) = self.nodes[index].peers.get_mut(&peer) else { return };
        side.importer.handle_timeout(now);
        if side.importer.poll_close(now).is_some() {
            side.reading = None;
            side.importer.handle_closed();
        }
        if side.exporter.is_silent(now) {
            side.writing = None;
            side.exporter.handle_closed();
        }
        let mut out = Vec::new();
        if let Some(session) = side.reading {
            while let Some(request) = side.importer.poll_request(now) {
                out.push((session, Message::Request(request)));
            }
        }
        if let Some(session) = side.writing {
            while let Some(frame) = side.exporter.poll_frame(now) {
                out.push((session, Message::Frame(frame)));
            }
            if hostile && self.random.chance(20) {
                let frame = anything(&mut self.random, index);
                out.push((session, Message::Frame(frame)));
            }
        }
        let connect = side.reading.is_none();
        for (session, message) in out {
            let address = Address { from: index, to: peer, session };
            self.network.send(&mut self.random, self.now, address, message);
        }
        if connect && (!self.network.faulty || self.random.chance(3)) {
            self.connect(index, peer);
        }
    }

    fn check_agreement(&self) {
        let honest: Vec<usize> =
            (0..self.options.clusters).filter(|index| !self.is_hostile(*index)).collect();
        let liar = self.options.hostile.then_some(self.options.clusters - 1);
        for reader in &honest {
            for (writer, side) in &self.nodes[*reader].peers {
                self.check_bounds(*writer, side.exporter.len());
                if Some(*writer) == liar {
                    check_contained(side.importer.entries(), *writer);
                } else {
                    let want = &self.nodes[*writer].entries;
                    let wrong = differences(side.importer.entries(), want);
                    let (has, is) = (
                        side.importer.position(),
                        self.nodes[*writer].peers[reader].exporter.position(),
                    );
                    assert!(
                        wrong.is_empty(),
                        "{reader} has {has:?} of {writer}, which is at {is:?}; {wrong:?} differ, held: {}",
                        side.importer.is_holding()
                    );
                    assert!(side.importer.lease().is_valid(self.at()), "{reader} {writer}");
                    assert!(!side.importer.is_holding());
                }
            }
        }
        let first = self.nodes[honest[0]].imports(liar);
        for index in honest {
            assert_eq!(self.nodes[index].imports(liar), first, "cluster {index} differs");
        }
    }

    fn check_bounds(&self, _writer: usize, (_, tombstones): (usize, usize)) {
        assert!(tombstones <= exporter_settings().tombstones_max);
    }

    /// Cuts one cluster off: its leases end everywhere and its state stays; then heals.
    fn check_lease_comes_and_goes(&mut self) {
        for other in 1..self.options.clusters {
            self.network.cut(0, other, false);
        }
        let before = self.nodes[1].peers[&0].importer.entries().clone();
        self.pass(30_000);
        let importer = &self.nodes[1].peers[&0].importer;
        assert!(!importer.lease().is_valid(self.at()), "the lease of a cut peer is valid");
        assert_eq!(*importer.entries(), before, "a cut peer's state is gone");
        self.network.heal();
        self.pass(10_000);
        let importer = &self.nodes[1].peers[&0].importer;
        assert!(importer.lease().is_valid(self.at()), "the lease did not come back");
    }

    fn pass(&mut self, duration: u64) {
        let end = self.now + duration;
        while self.now < end {
            self.step();
        }
    }
}

/// What the hostile cluster got in must be its own and granted.
fn check_contained(entries: &BTreeMap<EntryKey, Arc<Entry>>, writer: usize) {
    for (key, entry) in entries {
        if let Some(service) = key.service() {
            assert_eq!(service.namespace.as_str(), GRANTED_TO_HOSTILE, "{key}");
        }
        if let Entry::Endpoints(summary) = entry.as_ref() {
            let own = domain(writer);
            let ids: BTreeSet<_> = summary.endpoints.iter().map(|e| &e.id).collect();
            assert_eq!(ids.len(), summary.endpoints.len());
            assert!(summary.endpoints.iter().all(|e| *e.identity.trust_domain() == own));
            assert!(summary.endpoints.iter().all(|e| e.weight > 0));
        }
    }
}

fn fold(trace: u64, frame: &Frame, now: u64) -> u64 {
    let what = match &frame.body {
        Body::Delta { version, changes, .. } => version * 3 + changes.len() as u64,
        Body::Full { version, index, .. } => version * 5 + u64::from(*index),
        Body::Heartbeat { sequence, .. } => *sequence,
    };
    [now, frame.epoch, what]
        .into_iter()
        .fold(trace, |hash, word| (hash ^ word).wrapping_mul(0x100_0000_01b3).rotate_left(17))
}

fn differences(
    a: &BTreeMap<EntryKey, Arc<Entry>>,
    b: &BTreeMap<EntryKey, Arc<Entry>>,
) -> Vec<String> {
    let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    keys.into_iter().filter(|key| a.get(*key) != b.get(*key)).map(ToString::to_string).collect()
}
