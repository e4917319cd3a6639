use super::*;

/// A server with one lease.
#[derive(Default)]
struct Server {
    record: Option<Record>,
    writes: u32,
}

impl Server {
    fn write(&mut self, record: Record) -> Option<Record> {
        let version = self.record.as_ref().map(|record| record.version.clone()).unwrap_or_default();
        if version != record.version {
            return None;
        }
        self.writes += 1;
        let record = Record { version: self.writes.to_string(), ..record };
        self.record = Some(record.clone());
        Some(record)
    }
}

/// A contender whose clock starts elsewhere and runs at another rate.
struct Contender {
    election: Election,
    origin: Instant,
    percent: u32,
    reachable: bool,
}

impl Contender {
    fn new(identity: &str, offset_hours: u64, percent: u32) -> Self {
        let settings = LeaseSettings::new(identity);
        let origin = isthmus_runtime::clock::now() + Duration::from_secs(offset_hours * 3600);
        Self { election: Election::new(settings), origin, percent, reachable: true }
    }

    fn clock(&self, true_millis: u64) -> Instant {
        self.origin + Duration::from_millis(true_millis) * self.percent / 100
    }

    /// One turn of the shell; a request's answer takes `delay` milliseconds.
    fn turn(&mut self, server: &mut Server, at: u64, delay: u64) {
        let (sent, answered) = (self.clock(at), self.clock(at + delay));
        match self.election.poll_step(sent) {
            Step::Wait(_) => {}
            _ if !self.reachable => self.election.on_failed(answered),
            Step::Read => self.election.on_read(answered, server.record.clone()),
            Step::Write(record) => match server.write(record) {
                Some(record) => self.election.on_written(sent, record),
                None => self.election.on_failed(answered),
            },
        }
    }

    fn leads(&self, at: u64) -> bool {
        self.election.leads_until().is_some_and(|until| self.clock(at) < until)
    }
}

#[test]
fn the_first_contender_leads_and_the_second_waits() {
    let mut server = Server::default();
    let (mut a, mut b) = (Contender::new("a", 0, 100), Contender::new("b", 0, 100));
    for at in (0..60_000).step_by(100) {
        a.turn(&mut server, at, 20);
        b.turn(&mut server, at, 20);
        assert!(!b.leads(at));
    }
    assert!(a.leads(60_000));
    assert_eq!(server.record.unwrap().transitions, 1);
}

#[test]
fn a_leader_that_is_cut_off_stops_before_another_starts_whatever_the_clocks_say() {
    for (offset, percent_a, percent_b) in [(0, 100, 100), (9, 100, 100), (3, 90, 120), (0, 120, 90)]
    {
        let mut server = Server::default();
        let mut a = Contender::new("a", 0, percent_a);
        let mut b = Contender::new("b", offset, percent_b);
        let mut both = 0;
        let mut changes = Vec::new();
        for at in (0..120_000).step_by(50) {
            a.reachable = !(20_000..70_000).contains(&at);
            a.turn(&mut server, at, 30);
            b.turn(&mut server, at, 30);
            both += u32::from(a.leads(at) && b.leads(at));
            let leader = match (a.leads(at), b.leads(at)) {
                (true, _) => "a",
                (false, true) => "b",
                (false, false) => "none",
            };
            if changes.last() != Some(&leader) {
                changes.push(leader);
            }
        }
        assert_eq!(both, 0, "clocks {offset} h, {percent_a} %, {percent_b} %");
        assert_eq!(&changes[changes.len() - 3..], ["a", "none", "b"], "{changes:?}");
    }
}

#[test]
fn a_released_lease_is_taken_at_the_next_look() {
    let mut server = Server::default();
    let (mut a, mut b) = (Contender::new("a", 0, 100), Contender::new("b", 0, 100));
    for at in (0..5000).step_by(100) {
        a.turn(&mut server, at, 10);
        b.turn(&mut server, at, 10);
    }
    let release = a.election.on_release().unwrap();
    assert!(!a.leads(5000), "the leadership ends before the release is written");
    server.write(release).unwrap();
    for at in (5000..8000).step_by(100) {
        b.turn(&mut server, at, 10);
    }
    assert!(b.leads(8000));
    assert_eq!(b.election.clone().on_release().unwrap().holder, "");
    assert_eq!(a.election.on_release(), None);
}

#[test]
fn of_two_writes_at_the_same_time_one_wins() {
    let mut server = Server::default();
    let (mut a, mut b) = (Contender::new("a", 0, 100), Contender::new("b", 0, 100));
    for contender in [&mut a, &mut b] {
        contender.turn(&mut server, 0, 0);
    }
    a.turn(&mut server, 1, 0);
    b.turn(&mut server, 1, 0);
    assert!(a.leads(2) && !b.leads(2));
}

#[test]
fn a_write_whose_answer_is_lost_does_not_count() {
    let mut server = Server::default();
    let mut a = Contender::new("a", 0, 100);
    a.turn(&mut server, 0, 0);
    let Step::Write(record) = a.election.poll_step(a.clock(1)) else { panic!() };
    server.write(record).unwrap();
    a.election.on_failed(a.clock(2));
    assert!(!a.leads(3));
    // The next look finds its own name, and the lease is renewed at once.
    for at in (2000..5000).step_by(100) {
        a.turn(&mut server, at, 0);
    }
    assert!(a.leads(5000));
    assert_eq!(server.record.unwrap().transitions, 1);
}

#[test]
fn a_leader_that_was_cut_off_leads_again_if_nobody_else_has() {
    let mut server = Server::default();
    let mut a = Contender::new("a", 0, 100);
    for at in (0..5_000).step_by(100) {
        a.turn(&mut server, at, 20);
    }
    a.reachable = false;
    for at in (5_000..45_000).step_by(100) {
        a.turn(&mut server, at, 20);
    }
    assert!(!a.leads(45_000));
    assert!(!a.election.is_taken());
    a.reachable = true;
    for at in (45_000..49_000).step_by(100) {
        a.turn(&mut server, at, 20);
    }
    assert!(a.leads(49_000));
    assert_eq!(server.record.unwrap().transitions, 1);
}

#[test]
fn a_leader_that_was_cut_off_sees_that_another_leads() {
    let mut server = Server::default();
    let (mut a, mut b) = (Contender::new("a", 0, 100), Contender::new("b", 0, 100));
    for at in (0..60_000).step_by(100) {
        a.reachable = !(5_000..40_000).contains(&at);
        a.turn(&mut server, at, 20);
        b.turn(&mut server, at, 20);
        assert!(!(a.leads(at) && b.leads(at)));
    }
    assert!(a.election.is_taken());
    assert!(b.leads(60_000));
}

#[test]
fn a_lease_that_somebody_deletes_or_empties_is_taken_again_and_not_lost() {
    for left in [None, Some(String::new())] {
        let mut server = Server::default();
        let mut a = Contender::new("a", 0, 100);
        for at in (0..20_000).step_by(100) {
            if at == 5_000 {
                server.writes += 1;
                let version = server.writes.to_string();
                server.record = left.clone().map(|holder| Record {
                    holder,
                    version,
                    ..server.record.clone().unwrap()
                });
            }
            a.turn(&mut server, at, 20);
            assert!(!a.election.is_taken());
        }
        assert!(a.leads(20_000));
    }
}
