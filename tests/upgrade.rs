//! A roll-out: nodes of this release and of a stand-in for the next one (the feature `next`) in one cluster. Nobody's
//! messages wait for the end of it, nothing of the newer release is lost at the older, and there is no way back.

mod cluster;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use cluster::{Account, Client, Cluster, Program, eventually, text};
use serde_json::{Value, json};

const REGIONS: [&str; 3] = ["fra", "iad", "syd"];

/// The program of the next release, built once. Its dependencies are those of the program under test.
fn next() -> Program {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let program = Program::default().path;
        let target = program.ancestors().nth(2).expect("a target folder, a profile, the program");
        let folder = target.join("next");
        std::fs::create_dir_all(&folder).expect("a folder");
        let built = folder.join("mychat");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.args(["rustc", "--quiet", "-p", "mychat", "--bin", "mychat", "--features", "next", "--locked"]);
        cargo.arg("--target-dir").arg(target);
        if program.parent().is_some_and(|profile| profile.ends_with("release")) {
            cargo.arg("--release");
        }
        // Beside the program under test, not in place of it.
        cargo.arg("--").arg("--emit").arg(format!("link={}", cluster::shown(&built)));
        let built_it = cargo.status().expect("cargo runs");
        assert!(built_it.success() && built.is_file(), "the program of the next release can't be built");
        built
    };
    Program { path: BUILT.get_or_init(build).clone(), ..Program::default() }
}

/// The notes that nodes of the next release have on messages; none of this one.
async fn notes(node: &Client) -> Option<Value> {
    let answer = node.get("/v1/next/notes").send().await;
    (answer.status == 200).then(|| answer.json())
}

/// The ids and texts of a space's messages.
async fn messages(node: &Client, reader: &Account, space: &str) -> Vec<(String, String)> {
    let rows = node.history(reader, space).await;
    rows.iter().map(|row| (text(&row["id"]), text(&row["body"]))).collect()
}

/// The reactions to a message.
async fn reactions(node: &Client, reader: &Account, message: &str) -> Value {
    node.get(message).by(reader).send().await.expect(200)["reactions"].clone()
}

/// Has each node accept some messages.
async fn write(nodes: &[Client], author: &Account, space: &str, what: &str) {
    for number in 0..10 {
        for node in nodes {
            node.say(author, space, &format!("{what} {number}")).await;
        }
    }
}

/// The database file of a node, to copy: it must be down.
fn database(data: &Path) -> PathBuf {
    data.join("mychat.db")
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_two_releases_run_together_and_the_older_ones_are_upgraded_in_place() {
    let mut cluster = Cluster::prepare(&REGIONS, "info").await;
    cluster.nodes[2].program = next();
    cluster.nodes.iter_mut().for_each(cluster::Server::start);
    for node in &mut cluster.nodes {
        node.ready().await;
    }
    let nodes = cluster.clients();
    let [fra, iad, syd] = &nodes[..] else { panic!("three nodes") };
    let ada = syd.sign_up("Ada").await;
    let (space, _) = syd.make_space(&ada, "Roll-out", "private").await;
    cluster.agree().await;
    assert_eq!((notes(fra).await, notes(syd).await.is_some()), (None, true), "two releases");

    write(&nodes, &ada, &space, "together").await;
    // In a format that the older ones don't know, and in one that both know.
    let first = syd.say(&ada, &space, "the last").await;
    let message = format!("/v1/spaces/{space}/messages/{}", text(&first["id"]));
    cluster.agree().await;
    let react = async |node: &Client, emoji: &str| {
        let call = node.put(&format!("{message}/reactions/{emoji}"), json!({})).by(&ada);
        assert!(call.send().await.status < 300);
    };
    react(syd, "%F0%9F%91%8D").await;
    react(fra, "%F0%9F%8E%89").await;
    cluster.agree().await;
    let all = messages(syd, &ada, &space).await;
    assert_eq!(all.len(), 31);
    let both = reactions(syd, &ada, &message).await;
    assert_eq!(both.as_object().map(serde_json::Map::len), Some(2), "{both}");
    for (at, node) in [fra, iad].into_iter().enumerate() {
        assert_eq!(messages(node, &ada, &space).await, all, "no message waits for the roll-out");
        assert_eq!(reactions(node, &ada, &message).await.as_object().map(serde_json::Map::len), Some(1));
        assert!(node.metric("mychat_store_held_frames").await >= 11.0);
        assert_eq!(node.metric("mychat_store_quarantined").await, 0.0, "it is no fault");
        let log = cluster.nodes[at].log();
        assert_eq!(log.lines().filter(|line| line.contains("next_note")).count(), 1, "said once: {log}");
        assert!(!log.contains("ERROR"), "{log}");
    }

    // One is upgraded, another one killed and upgraded, and each catches up with what it could not place.
    for (at, what) in [(0, "after the first"), (1, "after the second")] {
        if at == 0 {
            assert_eq!(cluster.nodes[at].stop().await.code, Some(0));
        } else {
            cluster.nodes[at].kill();
        }
        cluster.nodes[at].program = next();
        cluster.nodes[at].restart().await;
        let equal = async |what: &str| {
            eventually(what, async || {
                let (theirs, ours) = (notes(syd).await?, notes(&nodes[at]).await?);
                (theirs == ours && !theirs["stored"].as_array()?.is_empty()).then_some(())
            })
            .await;
        };
        equal("the upgraded node has the notes").await;
        assert_eq!(reactions(&nodes[at], &ada, &message).await, both, "in the newer format, too");
        assert_eq!(nodes[at].metric("mychat_store_held_frames").await, 0.0);
        write(&nodes, &ada, &space, what).await;
        cluster.agree().await;
        equal("and those of what is written from then on").await;
    }
    let all = messages(syd, &ada, &space).await;
    assert_eq!(all.len(), 91);
    let of_all = notes(syd).await.expect("notes");
    // All but what the nodes of this release wrote.
    assert_eq!(of_all["stored"].as_array().map(Vec::len), Some(11 + 20 + 30));
    assert_eq!(of_all["derived"].as_array().map(Vec::len), Some(61));
    for node in &nodes {
        assert_eq!(messages(node, &ada, &space).await, all);
    }

    // There is no way back, and the refusal changes nothing.
    assert_eq!(cluster.nodes[0].stop().await.code, Some(0));
    let before = std::fs::read(database(&cluster.nodes[0].data)).expect("the database");
    cluster.nodes[0].program = Program::default();
    let exit = cluster.nodes[0].run().await;
    assert_ne!(exit.code, Some(0));
    let why: Vec<&str> = exit.stderr.lines().filter(|line| line.contains("it is older")).collect();
    assert_eq!(why.len(), 1, "one clear line: {}", exit.stderr);
    assert!(why[0].contains("migration 1 of next"), "{}", why[0]);
    assert!(std::fs::read(database(&cluster.nodes[0].data)).expect("the database") == before);
    cluster.nodes[0].program = next();
    cluster.nodes[0].restart().await;
    cluster.agree().await;
    assert_eq!(notes(fra).await, Some(of_all));
}
