//! The protocol core in virtual time: thousands of little clusters whose network, disks and processes fail in every
//! way that the generator of a seed thinks of, judged by oracles that share no code with the core, but
//! for the reading of vectors that leave retired sites out (`Retirements::expand`).
//!
//! ```text
//! protocol/world.rs    what a seed decides, the nodes  protocol/history.rs   what was written: judges I2, I3, I4
//! protocol/driver.rs   the core's driver, judges I7    protocol/audit.rs     judges the end: level, equal, complete
//! protocol/faults.rs   what goes wrong                 protocol/oracles.rs   judges single messages
//! protocol/disk.rs     a toy database                  protocol/directed.rs, upstreams.rs, relays.rs,
//!                                                      retired.rs            single rules, without a world
//! ```
//!
//! Time, the network and what else is no matter of this simulation alone: [`mychat_sim::virtual_time`].
//!
//! A failure names its seed. `MYCHAT_SEED=7 cargo test -p mychat-sim --test protocol chaos -- --nocapture` runs that
//! one alone and prints what happens; `MYCHAT_SEEDS=5000` runs more than the usual number.

#[path = "protocol/audit.rs"]
mod audit;
#[path = "protocol/directed.rs"]
mod directed;
#[path = "protocol/disk.rs"]
mod disk;
#[path = "protocol/driver.rs"]
mod driver;
#[path = "protocol/faults.rs"]
mod faults;
#[path = "protocol/history.rs"]
mod history;
#[path = "protocol/oracles.rs"]
mod oracles;
#[path = "protocol/relays.rs"]
mod relays;
#[path = "protocol/retired.rs"]
mod retired;
#[path = "protocol/snapshots.rs"]
mod snapshots;
#[path = "protocol/upstreams.rs"]
mod upstreams;
#[path = "protocol/world.rs"]
mod world;

use std::{ops::ControlFlow, panic::catch_unwind, sync::Mutex};

use mychat_sim::virtual_time::{Counts, Time, seeds};
use world::{Outcome, Scenario};

/// Seeds that a run without settings tries.
const SEEDS: u64 = 300;

/// What must have happened over all seeds, or the simulation proves nothing.
const MUST_HAPPEN: &[&str] = &[
    "batch refused",
    "burst",
    "commit",
    "connection broken",
    "connection lost",
    "connection of one direction down",
    "connection timed out",
    "crash",
    "datagram came twice",
    "datagram lost",
    "datagram may be overtaken",
    "disk refuses",
    "follower half a window behind",
    "frame larger than a window",
    "log read",
    "log unreadable",
    "news of a commit missed",
    "older copy restored",
    "older copy with a false witness",
    "overwritten version left out",
    "partition of one from all",
    "partition of two",
    "partition one way",
    "pause",
    "piece of a stream lost and sent again",
    "reader out of credit",
    "renewed: nobody answered",
    "renewed: the disk is in doubt",
    "renewed: peer knows more",
    "snapshot adopted",
    "snapshot begun",
    "snapshot given up",
    "stream not opened",
    "write refused",
];

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// Runs the seeds on all processors. Says what happened, and fails with the first seed that did.
fn run_all(test: &str, seeds: u64, scenario: Scenario) -> Counts {
    if let Some(seed) = setting("MYCHAT_SEED") {
        return world::run(seed, scenario, true).counts;
    }
    let (failed, totals) = (Mutex::new(Vec::new()), Mutex::new((Counts::new(), Time::ZERO)));
    seeds::each(0..seeds, |seed| {
        if let Ok(outcome) = catch_unwind(|| world::run(seed, scenario, false)) {
            let mut totals = totals.lock().expect("no panic while locked");
            for (what, times) in outcome.counts {
                *totals.0.entry(what).or_default() += times;
            }
            totals.1 = totals.1.max(outcome.level_after);
        } else {
            failed.lock().expect("no panic while locked").push(seed);
        }
        ControlFlow::Continue(())
    });
    let (counts, slowest) = totals.into_inner().expect("no panic while locked");
    println!("{seeds} seeds, level at most {slowest:?} after healing: {counts:#?}");
    let mut failed = failed.into_inner().expect("no panic while locked");
    failed.sort_unstable();
    let first = failed.first().copied().unwrap_or_default();
    let again = format!("MYCHAT_SEED={first} cargo test -p mychat-sim --test protocol {test} -- --nocapture");
    assert!(failed.is_empty(), "{} seeds failed: {failed:?}; for the first again: {again}", failed.len());
    counts
}

/// Fails for what did not happen in a run over all seeds.
fn expect(counts: &Counts, what: &[&str]) {
    if setting("MYCHAT_SEED").is_none() {
        for what in what {
            assert!(counts.get(what).is_some_and(|times| *times > 0), "never happened: {what}");
        }
    }
}

#[test]
fn chaos_ends_with_equal_and_complete_disks() {
    let counts = run_all("chaos_ends", setting("MYCHAT_SEEDS").unwrap_or(SEEDS), Scenario::default());
    expect(&counts, MUST_HAPPEN);
}

#[test]
fn chaos_with_relays_ends_with_equal_and_complete_disks() {
    let scenario = Scenario { relays: true, ..Scenario::default() };
    let counts = run_all("chaos_with_relays", setting("MYCHAT_SEEDS").unwrap_or(SEEDS) / 2, scenario);
    expect(&counts, &["crash of a relay", "followed through a relay"]);
}

#[test]
fn without_faults_a_commit_is_everywhere_after_one_network_delay() {
    let counts = run_all("without_faults", 10, Scenario { ideal: true, ..Scenario::default() });
    assert!(counts["latency judged"] >= 2 * counts["commit"], "each commit goes to two peers at least");
}

#[test]
fn through_relays_each_frame_crosses_between_two_regions_only_once() {
    let counts = run_all("through_relays", 20, Scenario { ideal: true, relays: true, ..Scenario::default() });
    assert_eq!(counts["frame to another region"], counts["commit"], "there is one other region");
    assert!(counts["latency through a relay"] > 0);
}

#[test]
fn restores_in_a_loop_leave_heads_that_name_no_more_than_the_sites_that_are_written() {
    let counts = run_all("restores_in_a_loop", 60, Scenario { restores: true, ..Scenario::default() });
    expect(
        &counts,
        &["retirement applied", "former site retired further", "heads that leave out retired sites"],
    );
    assert!(counts["site held at the end"] >= 2 * counts["node"], "many sites are left behind");
}

#[test]
fn a_stalled_node_delays_no_other_by_a_moment() {
    let counts =
        run_all("a_stalled_node", 20, Scenario { ideal: true, stalled: true, ..Scenario::default() });
    expect(&counts, &["pause", "push refused", "latency judged"]);
}

#[test]
fn a_seed_always_gives_the_same_run() {
    let chaos = Scenario::default();
    for seed in [1, 2, 3] {
        let (first, second): (Outcome, Outcome) =
            (world::run(seed, chaos, false), world::run(seed, chaos, false));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_eq!(first.counts, second.counts, "seed {seed}");
    }
    assert_ne!(world::run(1, chaos, false).trace, world::run(2, chaos, false).trace, "the seed decides");
}
