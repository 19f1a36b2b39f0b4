//! The judges bite: with a deliberate mistake in the code under test, each one notices the rule that it watches over
//! being broken, within a bounded number of seeds.
//!
//! `cargo test -p mychat-sim --features mutations --test mutations`

use std::time::Duration;

use mychat_replication::mutation::Mutation;
use mychat_sim::faults::{Rule, Runs, Settings};

/// Seeds within which a mistake must be noticed.
const SEEDS: u64 = 200;

fn is_noticed(mutation: Mutation, rule: Rule) {
    let settings = Settings { nodes: 5, lasts: Duration::from_secs(600), mutation: Some(mutation) };
    let runs = Runs::new(settings).expect("a folder for the databases");
    let mut others = Vec::new();
    for seed in 0..SEEDS {
        match runs.seed(seed).objection {
            Some(objection) if objection.rule == rule => {
                println!(
                    "{mutation:?}: seed {seed} at {:?}: {} ({} others)",
                    objection.at,
                    objection.what,
                    others.len()
                );
                return;
            }
            Some(objection) => others.push(format!("{seed}: {:?}: {}", objection.rule, objection.what)),
            None => {}
        }
    }
    let first = others.iter().take(5).cloned().collect::<Vec<_>>().join("\n");
    panic!(
        "{SEEDS} seeds did not show that {mutation:?} breaks {rule:?}; {} showed something else:\n{first}",
        others.len()
    );
}

#[test]
fn i1_an_answer_before_the_commit_is_noticed() {
    is_noticed(Mutation::AnswerBeforeCommit, Rule::Durable);
}

#[test]
fn i1_a_claim_of_what_is_not_on_the_disk_is_noticed() {
    is_noticed(Mutation::ClaimUnsynced, Rule::Durable);
}

#[test]
fn i2_a_reused_version_is_noticed() {
    is_noticed(Mutation::ReuseVersion, Rule::OneContent);
}

#[test]
fn i3_a_skipped_version_is_noticed() {
    is_noticed(Mutation::SkipVersion, Rule::Prefix);
}

#[test]
fn i4_tables_that_are_derived_differently_are_noticed() {
    is_noticed(Mutation::DeriveLess, Rule::Convergent);
}

#[test]
fn i5_a_cursor_that_skips_is_noticed() {
    is_noticed(Mutation::CursorSkips, Rule::NoGap);
}

#[test]
fn i6_a_stale_membership_is_noticed() {
    is_noticed(Mutation::StaleMembership, Rule::Authorised);
}

#[test]
fn i7_a_queue_without_a_bound_is_noticed() {
    is_noticed(Mutation::UnboundedQueue, Rule::Bounded);
}
