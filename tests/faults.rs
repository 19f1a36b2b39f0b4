//! Faults on real processes, in short: `mychat sim chaos` breaks three nodes under load and finds everything in its
//! place afterwards. It is the program that judges; see its own documentation for what.

mod cluster;

use cluster::Process;

/// Runs some scenarios from a fixed seed and shows the report.
async fn survives(scenarios: &[&str], rounds: u32, seconds: u32) {
    let (rounds, seconds) = (rounds.to_string(), seconds.to_string());
    let flags = ["--rounds", &rounds, "--seconds", &seconds, "--rate", "40", "--seed", "6", "--log", "warn"];
    let ran = Process::run(["sim", "chaos"].iter().chain(scenarios).chain(&flags)).await;
    println!("{}\n{}", ran.stdout, ran.stderr);
    assert_eq!(ran.code, Some(0), "something is wrong; the report is above");
    assert!(ran.stdout.contains("Nothing was lost or doubled, and all nodes hold the same"), "no verdict");
    for scenario in scenarios {
        let row = ran.stdout.lines().find(|line| line.split_whitespace().next() == Some(scenario));
        let row: Vec<&str> = row.expect("a row for each scenario").split_whitespace().collect();
        assert_eq!(row[1], rounds, "all rounds were carried out: {row:?}");
        assert!(row[3].parse::<u32>().expect("a number") > 20, "there was a load: {row:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_durable_i3_prefix_nodes_that_are_killed_at_random_lose_nothing() {
    survives(&["kill"], 6, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_convergent_nodes_that_were_cut_off_come_together() {
    survives(&["partition", "loss"], 1, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_convergent_nodes_that_were_heard_one_way_only_come_together() {
    survives(&["one-way"], 3, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_one_version_one_content_restored_and_frozen_nodes_come_back() {
    survives(&["restore", "stall"], 2, 2).await;
}
