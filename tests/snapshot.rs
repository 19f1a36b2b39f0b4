//! A node that joins late gets a snapshot of another node's database, also when it is killed meanwhile; it says that it
//! is not ready until it has everything.

mod cluster;

use std::{collections::BTreeSet, path::Path};

use cluster::{Account, Client, Cluster, Process, Server, agree, eventually, fingerprint, text};
use rand::RngExt;
use serde_json::Value;

const REGIONS: [&str; 3] = ["fra", "iad", "syd"];
/// Messages before the third node joins: more versions than it follows logs for.
const MESSAGES: usize = 240;
/// Bytes a second at which the snapshot lasts long enough to be watched.
const SLOWLY: &str = "60000";

/// A text that no compression makes much smaller.
fn noise() -> String {
    rand::rng().sample_iter(rand::distr::Alphanumeric).take(3000).map(char::from).collect()
}

async fn talk(node: &Client, author: &Account, space: &str, count: usize) {
    for number in 0..count {
        node.say(author, space, &format!("{number} {}", noise())).await;
    }
}

async fn sites(node: &Client) -> BTreeSet<String> {
    let heads = node.heads().await.expect("the node answers");
    heads.as_object().expect("a map").keys().cloned().collect()
}

/// The bytes of a snapshot that a node has received so far.
fn received(data: &Path) -> u64 {
    std::fs::metadata(data.join("mychat.db-snapshot.partial")).map_or(0, |file| file.len())
}

/// What a node says while it gets a snapshot; fails when it says that it is ready.
async fn in_a_snapshot(server: &Server) -> Value {
    eventually("it gets a snapshot", async || {
        let node = server.client.get("/v1/node").try_send().await.ok()?.expect(200);
        assert_eq!(node["ready"], false, "{node}");
        (node["sync"]["state"] == "snapshot" && node["sync"]["from"].is_string())
            .then(|| node["sync"].clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_late_takes_a_snapshot_also_over_its_own_death() {
    let mut cluster = Cluster::prepare(&REGIONS, "info").await;
    let flags = ["--snapshot-above", "60", "--snapshot-rate", SLOWLY];
    cluster.nodes = cluster.nodes.into_iter().map(|node| node.with(&flags)).collect();
    for at in [0, 1] {
        cluster.nodes[at].start();
    }
    for at in [0, 1] {
        cluster.nodes[at].ready().await;
    }
    let [a, b, c] = &cluster.clients()[..] else { panic!("three nodes") };
    let ada = a.sign_up("Ada").await;
    let (space, _) = a.make_space(&ada, "Long ago", "private").await;
    agree(&[a.clone(), b.clone()]).await;
    for _ in 0..6 {
        // In parts, so that neither of the two lacks much at a time.
        talk(a, &ada, &space, MESSAGES / 12).await;
        talk(b, &ada, &space, MESSAGES / 12).await;
        agree(&[a.clone(), b.clone()]).await;
    }
    let before = sites(a).await;

    cluster.nodes[2].start();
    let sync = in_a_snapshot(&cluster.nodes[2]).await;
    let from = text(&sync["from"]);
    assert!([a.node().await["id"].clone(), b.node().await["id"].clone()].contains(&sync["from"]), "{from}");
    c.get("/readyz").send().await.is_problem(503, "unavailable");
    c.get(&format!("/v1/spaces/{space}/messages")).by(&ada).send().await.is_problem(503, "unavailable");
    c.saying(&ada, &space, "too early").send().await.is_problem(503, "unavailable");
    let members = Process::run(["cluster", "members", "--node", &c.url]).await;
    assert!(members.stdout.contains("snapshot"), "{}", members.stdout);
    let data = cluster.nodes[2].data.clone();
    eventually("a part is there", async || (received(&data) > 100_000).then_some(())).await;
    let id = c.node().await["id"].clone();

    cluster.nodes[2].kill();
    let kept = received(&data);
    assert!(kept > 0);
    talk(a, &ada, &space, 5).await;
    cluster.nodes[2].start();
    in_a_snapshot(&cluster.nodes[2]).await;
    let resumed = cluster.nodes[2].process().logs(&["receiving a snapshot"]).await;
    assert!(resumed.contains(&format!("offset={kept} ")), "{kept}: {resumed}");
    cluster.nodes[2].ready().await;
    cluster.nodes[2].process().logs(&["the snapshot is the database now"]).await;
    cluster.agree().await;

    let node = c.node().await;
    assert_eq!((&node["sync"]["state"], &node["ready"], &node["id"]), (&"live".into(), &true.into(), &id));
    assert_eq!(sites(c).await, before, "it has not written yet");
    let rows = c.history(&ada, &space).await;
    assert_eq!(rows.len(), MESSAGES + 5);
    assert_eq!(fingerprint(&rows), fingerprint(&a.history(&ada, &space).await));

    // It writes a log of its own, which the others follow, as it follows theirs.
    talk(c, &ada, &space, 5).await;
    talk(b, &ada, &space, 5).await;
    cluster.agree().await;
    let after = sites(a).await;
    assert_eq!(after.difference(&before).count(), 1, "{before:?} {after:?}");
    for node in [a, b, c] {
        assert_eq!(node.history(&ada, &space).await.len(), MESSAGES + 15);
    }
    // It stays so.
    cluster.nodes[2].kill();
    cluster.nodes[2].restart().await;
    cluster.agree().await;
    assert_eq!(sites(c).await, after);
    assert_eq!(c.history(&ada, &space).await.len(), MESSAGES + 15);
}
