//! Whole nodes in virtual time: a few seeds, as many as fit into every run of the tests. More of them:
//! `mychat sim faults --seeds 0..500`.

use std::time::Duration;

use mychat_sim::faults::{Runs, Settings};

/// What must have happened over the seeds of the first test, or they prove nothing.
const MUST_HAPPEN: &[&str] = &[
    "fault: clock set",
    "fault: connections broken",
    "fault: crash",
    "fault: full disk",
    "fault: loss, duplication, reordering",
    "fault: node joins",
    "fault: node leaves",
    "fault: node upgraded",
    "fault: older copy restored",
    "fault: partition of one from all",
    "fault: partition of two",
    "fault: partition one way",
    "fault: slow disk",
    "acknowledged version found on every node",
    "crash within a commit",
    "cursor moved to another node",
    "cursor with something in doubt",
    "datagram came twice",
    "datagram lost",
    "event from the log",
    "write acknowledged during a partition",
];

/// Seeds that once broke a rule, and how.
const ONCE_BROKEN: &[(u64, &str)] = &[
    // A copy from before a node's first write came back while nobody answered.
    (45, "I2: a node went on under a site id under which it had written"),
    // A version that no peer knew is used again after a restore, hidden from a client by its cursor: a known limit,
    // counted, and no rule broken.
    (243, "I5: a cursor names a version that was reused"),
    // A client that knew of a deletion, or of an edit by a clock that was ahead, edited at a node that did not.
    (895, "I5: what overruled a client's edit was taken for known when it came to the client's node"),
    (1131, "I5: what overruled a client's edit was taken for known when it came to the client's node"),
    // It was asked before what was on its way to it had come.
    (3306, "the judge: a client had not got a message in the end"),
    // The disk was full when the site id was to be renewed, and the simulation did not try again, as a node does.
    (4596, "the simulation: a node never settled"),
    // Both have the same first 16 bits of a mix of their ids, which was all that a cursor of nine sites had of them.
    (9990, "I5: a site that was made later was taken for one that a cursor names"),
];

fn runs(minutes: u64) -> Runs {
    Runs::new(Settings { nodes: 5, lasts: Duration::from_secs(60 * minutes), mutation: None })
        .expect("a folder for the databases")
}

#[test]
fn seeds_break_no_rule() {
    let outcomes = runs(10).all(0..16);
    assert!(outcomes.objections.is_empty(), "{:#?}", outcomes.objections);
    for what in MUST_HAPPEN {
        assert!(outcomes.counts.get(what).is_some_and(|times| *times > 0), "never happened: {what}");
    }
}

#[test]
fn seeds_that_broke_a_rule_break_none() {
    for (seed, what) in ONCE_BROKEN {
        let outcome = runs(10).seed(*seed);
        assert!(outcome.objection.is_none(), "seed {seed}, {what}: {:#?}", outcome.objection);
    }
}

/// The hash of what happens in a seed's first three minutes, by whatever machine and build. Whoever changes what nodes do,
/// or what the simulation does to them, changes this number, and puts the new one here.
const TRACE_OF_SEED_1: u64 = 0x915d_8777_9b1c_0956;

#[test]
fn a_seed_gives_the_same_run_on_every_machine() {
    let trace = runs(3).seed(1).trace;
    assert_eq!(trace, TRACE_OF_SEED_1, "is this meant? now it is {trace:#018x}");
}

#[test]
fn a_seed_always_gives_the_same_run() {
    let runs = runs(3);
    for seed in [1, 2, 3] {
        assert_eq!(runs.seed(seed).trace, runs.seed(seed).trace, "seed {seed}");
    }
    assert_ne!(runs.seed(1).trace, runs.seed(2).trace, "the seed decides");
}
