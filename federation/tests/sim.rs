//! Deterministic simulation of a clusterset: the replication cores of several clusters
//! over a network that loses, delays, repeats and reorders frames, resets sessions and
//! splits, while clusters change, crash and come back with or without their state.
//!
//! A seed decides everything. A failure prints its seed; put it into `REGRESSIONS`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "all of it is a test, and a failed seed must be seen"
)]

#[path = "sim/hostile.rs"]
mod hostile;
#[path = "sim/network.rs"]
mod network;
#[path = "sim/node.rs"]
mod node;
#[path = "sim/random.rs"]
mod random;
#[path = "sim/world.rs"]
mod world;

use world::{Options, World};

/// Seeds that once failed.
const REGRESSIONS: &[u64] = &[];

const SEEDS: u64 = 200;

fn run(seed: u64, options: Options) {
    let outcome = std::panic::catch_unwind(|| {
        let mut world = World::new(seed, options);
        world.run();
    });
    if let Err(panic) = outcome {
        eprintln!("the simulation failed with seed {seed} and {options:?}");
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn three_clusters_agree_after_any_fault() {
    for seed in REGRESSIONS.iter().copied().chain(0..SEEDS) {
        run(seed, Options { clusters: 3, hostile: false });
    }
}

#[test]
fn a_hostile_peer_changes_nothing_for_the_others() {
    for seed in REGRESSIONS.iter().copied().chain(0..SEEDS) {
        run(seed, Options { clusters: 4, hostile: true });
    }
}

#[test]
fn seven_clusters_agree_after_any_fault() {
    for seed in REGRESSIONS.iter().copied().chain(0..SEEDS / 10) {
        run(seed, Options { clusters: 7, hostile: false });
    }
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    let trace = |seed| {
        let mut world = World::new(seed, Options { clusters: 3, hostile: true });
        world.run();
        world.trace()
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}
