//! The steps of the demo, as values.

use std::time::Duration;

use super::expect::Expect;
use super::scenario::Scenario;
use super::wan::command::{Command, Cut};

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// What happens, for people.
    pub(crate) title: &'static str,
    /// What the demo does.
    pub(crate) actions: Vec<Action>,
    /// What must come of it.
    pub(crate) expect: Vec<Expect>,
    /// The time in which it must come.
    pub(crate) within: Duration,
    /// How long it must stay so before the next step.
    pub(crate) hold: Duration,
    /// Requests that may fail; `None` for any number.
    pub(crate) failures_max: Option<u64>,
}

/// What the demo does to the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Kills a cluster with SIGKILL, its applications too.
    Kill(&'static str),
    /// Makes a cluster's authority rotate its root.
    Rotate(&'static str),
    /// Starts a cluster that was killed.
    Start(&'static str),
    /// Cuts or restores a path.
    Wan(Command),
}

/// The steps, for the scenario of `examples/demo`.
pub(crate) fn steps(scenario: &Scenario) -> Vec<Step> {
    vec![
        start(scenario),
        Step {
            title: "the nearest cluster wins",
            actions: vec![],
            expect: normal(),
            within: secs(30),
            hold: secs(5),
            failures_max: Some(0),
        },
        killed(scenario),
        Step {
            title: "onprem returns: traffic comes back",
            actions: vec![Action::Start(ONPREM)],
            expect: with(normal(), vec![Expect::Ready, link(AWS, ONPREM, "quic")]),
            within: secs(60),
            hold: secs(4),
            failures_max: Some(0),
        },
        Step {
            title: "UDP is cut: the link goes on over TCP",
            actions: vec![wan(Cut::Udp)],
            expect: with(normal(), vec![link(AWS, ONPREM, "tcp")]),
            within: secs(30),
            hold: secs(4),
            failures_max: Some(0),
        },
        Step {
            title: "UDP is back: the link returns to QUIC",
            actions: vec![wan(Cut::Nothing)],
            expect: with(normal(), vec![link(AWS, ONPREM, "quic")]),
            within: secs(90),
            hold: secs(3),
            failures_max: Some(0),
        },
        rotated(),
        partitioned(),
        reunited(),
    ]
}

/// Everything comes up; what fails until then is counted and allowed.
fn start(scenario: &Scenario) -> Step {
    let mut expect = vec![Expect::Ready];
    expect.extend([(AWS, GCP), (AWS, ONPREM), (GCP, ONPREM)].map(|(a, b)| link(a, b, "quic")));
    expect.extend(scenario.flows().into_iter().map(|route| Expect::Answered { route }));
    Step {
        title: "start and link three clusters",
        actions: vec![],
        expect,
        within: secs(60),
        hold: secs(2),
        failures_max: None,
    }
}

/// The requests that the killed cluster had taken may fail, and nothing else: one second
/// of the routes that it served.
fn killed(scenario: &Scenario) -> Step {
    let second = |flow: &&super::scenario::Flow| CATALOG.contains(&flow.name.as_str());
    let rate = |flow: &super::scenario::Flow| u64::from(flow.per_second);
    Step {
        title: "onprem is killed: traffic moves to the next nearest",
        actions: vec![Action::Kill(ONPREM)],
        expect: all_served([(CART, AWS), (CATALOG, GCP)]),
        within: secs(20),
        hold: secs(4),
        failures_max: Some(scenario.traffic.iter().filter(second).map(rate).sum()),
    }
}

/// A new root is published, signs, and the old one is retired: two new bundles.
fn rotated() -> Step {
    Step {
        title: "the CA of onprem rotates its root",
        actions: vec![Action::Rotate(ONPREM)],
        expect: with(normal(), vec![Expect::Bundle { of: ONPREM.to_owned(), grown_by: 2 }]),
        within: secs(150),
        hold: secs(3),
        failures_max: Some(0),
    }
}

/// What was connected while the root was rotated is still connected under the old one. A
/// cut of the path ends that, and what comes after it is verified against the new root.
fn partitioned() -> Step {
    Step {
        title: "onprem is cut off from aws-us-east: traffic moves",
        actions: vec![wan(Cut::All)],
        expect: all_served([(CART, AWS), (CATALOG, GCP)]),
        within: secs(30),
        hold: secs(4),
        failures_max: Some(0),
    }
}

fn reunited() -> Step {
    Step {
        title: "the path is back: handshakes under the new root",
        actions: vec![wan(Cut::Nothing)],
        expect: with(normal(), vec![link(AWS, ONPREM, "quic")]),
        within: secs(90),
        hold: secs(3),
        failures_max: Some(0),
    }
}

/// Who serves what while nothing is broken: cart is in the caller's own cluster, catalog
/// in two others, of which onprem has the shorter round trip.
fn normal() -> Vec<Expect> {
    let mut expect = all_served([(CART, AWS), (CATALOG, ONPREM)]);
    expect.push(served(REVIEWS, GCP));
    expect
}

fn all_served(who: [([&str; 2], &str); 2]) -> Vec<Expect> {
    who.into_iter().flat_map(|(routes, by)| routes.map(|route| served(route, by))).collect()
}

fn served(route: &str, by: &str) -> Expect {
    Expect::Served { route: route.to_owned(), by: by.to_owned() }
}

fn link(from: &str, to: &str, transport: &'static str) -> Expect {
    Expect::Link { from: from.to_owned(), to: to.to_owned(), transport }
}

fn wan(cut: Cut) -> Action {
    Action::Wan(Command { path: "onprem-aws".to_owned(), cut })
}

fn with(mut all: Vec<Expect>, more: Vec<Expect>) -> Vec<Expect> {
    all.extend(more);
    all
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const AWS: &str = "aws-us-east";
const GCP: &str = "gcp-europe-west";
const ONPREM: &str = "onprem";
const CART: [&str; 2] = ["ingress /cart", "frontend > cart"];
const CATALOG: [&str; 2] = ["ingress /catalog", "frontend > catalog"];
const REVIEWS: &str = "ingress /reviews";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_name_only_what_the_example_has() {
        let scenario = Scenario::parse(super::super::example::FILES[0].1).unwrap();
        let flows = scenario.flows();
        let cluster = |name: &str| scenario.clusters.iter().any(|cluster| cluster.name == name);
        for step in steps(&scenario) {
            for expect in &step.expect {
                match expect {
                    Expect::Answered { route } => assert!(flows.contains(route)),
                    Expect::Bundle { of, .. } => assert!(cluster(of)),
                    Expect::Link { from, to, .. } => assert!(cluster(from) && cluster(to)),
                    Expect::Ready => {}
                    Expect::Served { route, by } => assert!(flows.contains(route) && cluster(by)),
                }
            }
            for action in &step.actions {
                match action {
                    Action::Kill(name) | Action::Rotate(name) | Action::Start(name) => {
                        assert!(cluster(name));
                    }
                    Action::Wan(command) => {
                        assert!(scenario.paths.iter().any(|path| path.name == command.path));
                    }
                }
            }
        }
        assert_eq!(killed(&scenario).failures_max, Some(40));
    }
}
