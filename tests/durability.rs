//! What a node has answered with success survives its death, and all nodes come to hold the same: invariants I1
//! (durable), I2 (one version, one content), I3 (prefix) and I4 (convergent).

mod cluster;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
};

use cluster::{Account, Answer, Call, Client, Cluster, eventually, fingerprint, text};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const REGIONS: [&str; 3] = ["fra", "iad", "syd"];
/// Lines that each node's writer has to get accepted.
const LINES: usize = 500;

/// Which nodes die when; another one is tried by the variable `MYCHAT_TEST_SEED`.
fn seed() -> u64 {
    std::env::var("MYCHAT_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x6d79_6368_6174)
}

/// Ids of the messages that some node has answered with 201.
type Accepted = Arc<Mutex<BTreeSet<String>>>;

/// Posts lines at a node until enough are accepted, also over the node's death.
async fn write(node: Client, author: Account, space: String, accepted: Accepted) {
    let (mut done, mut number) = (0, 0);
    while done < LINES {
        number += 1;
        match node.saying(&author, &space, &format!("line {number}")).try_send().await {
            Ok(answer) if answer.status == 201 => {
                accepted.lock().expect("the set").insert(text(&answer.json()["id"]));
                done += 1;
            }
            // A node that starts or stops may say so.
            Ok(answer) => assert_eq!((answer.status, answer.problem_code().as_str()), (503, "unavailable")),
            // Killed: what became of the line is unknown.
            Err(_) => node.ready().await,
        }
    }
}

/// Fails unless every node's history has all that was accepted, each once, and all histories are equal.
async fn nothing_is_lost(nodes: &[Client], reader: &Account, space: &str, accepted: &BTreeSet<String>) {
    let mut prints = Vec::new();
    for node in nodes {
        let rows = node.history(reader, space).await;
        let ids: Vec<String> = rows.iter().map(|row| text(&row["id"])).collect();
        let held: BTreeSet<String> = ids.iter().cloned().collect();
        assert_eq!(held.len(), ids.len(), "{} lists a message twice", node.url);
        let lost: Vec<_> = accepted.difference(&held).collect();
        assert!(lost.is_empty(), "{} has lost {} of {}: {lost:?}", node.url, lost.len(), accepted.len());
        assert!(ids.is_sorted(), "{} lists messages out of order", node.url);
        prints.push((node.url.clone(), rows.len(), fingerprint(&rows)));
    }
    let equal = prints.iter().all(|(_, count, print)| (count, print) == (&prints[0].1, &prints[0].2));
    assert!(equal, "the nodes differ: {prints:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_durable_i3_prefix_i4_convergent_nodes_that_are_killed_lose_nothing() {
    let seed = seed();
    let mut chance = StdRng::seed_from_u64(seed);
    eprintln!("MYCHAT_TEST_SEED={seed}");
    let mut cluster = Cluster::start(&REGIONS).await;
    let nodes = cluster.clients();
    let owner = nodes[0].sign_up("Owner").await;
    let (space, _) = nodes[0].make_space(&owner, "Lines", "private").await;
    let mut authors = Vec::new();
    for node in &nodes {
        let author = node.sign_up("Author").await;
        nodes[0].invite(&owner, &space, &author).await;
        authors.push(author);
    }
    cluster.agree().await;

    let accepted = Accepted::default();
    let mut writers = JoinSet::new();
    for (node, author) in nodes.iter().zip(authors) {
        writers.spawn(write(node.clone(), author, space.clone(), Arc::clone(&accepted)));
    }
    let count = || accepted.lock().expect("the set").len();
    // One after the other, and in the end all in the same moment, as if the power failed everywhere.
    let mut deaths: Vec<Vec<usize>> =
        (0..5).map(|_| vec![*[0, 1, 2].choose(&mut chance).expect("one of three")]).collect();
    deaths.push(vec![0, 1, 2]);
    for (round, dying) in deaths.iter().enumerate() {
        let share = 3 * LINES / (deaths.len() + 1);
        let at = share * round + chance.random_range(share / 4..share);
        eventually("the writers get on", async || (count() >= at).then_some(())).await;
        for node in dying {
            cluster.nodes[*node].kill();
        }
        for node in dying {
            cluster.nodes[*node].start();
        }
        for node in dying {
            cluster.nodes[*node].ready().await;
        }
    }
    while let Some(ended) = writers.join_next().await {
        ended.expect("the writer has got all its lines accepted");
    }
    assert_eq!(count(), 3 * LINES);
    cluster.agree().await;
    let accepted = accepted.lock().expect("the set").clone();
    nothing_is_lost(&nodes, &owner, &space, &accepted).await;
    // The same again out of what is on the disks.
    for node in &mut cluster.nodes {
        assert_eq!(node.stop().await.code, Some(0));
    }
    cluster.nodes.iter_mut().for_each(cluster::Server::start);
    for node in &mut cluster.nodes {
        node.ready().await;
    }
    nothing_is_lost(&nodes, &owner, &space, &accepted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_one_version_one_content_a_node_whose_disk_went_back_goes_on_under_a_new_site_id() {
    let mut cluster = Cluster::start(&REGIONS).await;
    let nodes = cluster.clients();
    let owner = nodes[2].sign_up("Owner").await;
    let (space, _) = nodes[2].make_space(&owner, "Restored", "private").await;
    let mut accepted = BTreeSet::new();
    let mut write = async |nodes: &[Client], what: &str, count: usize| {
        for number in 0..count {
            for node in nodes {
                accepted.insert(text(&node.say(&owner, &space, &format!("{what} {number}")).await["id"]));
            }
        }
        accepted.clone()
    };
    cluster.agree().await;
    write(&nodes, "before the copy", 20).await;
    cluster.agree().await;

    // A copy of the third node's disk, taken while the node is down.
    assert_eq!(cluster.nodes[2].stop().await.code, Some(0));
    let (data, copy) = (cluster.nodes[2].data.clone(), cluster.path("copy"));
    copy_folder(&data, &copy);
    cluster.nodes[2].restart().await;
    let id = nodes[2].node().await["id"].clone();
    write(&nodes, "after the copy", 20).await;
    cluster.agree().await;
    let before = heads(&nodes[0]).await;

    cluster.nodes[2].kill();
    std::fs::remove_dir_all(&data).expect("removed");
    copy_folder(&copy, &data);
    write(&nodes[..2], "while it was restored", 20).await;
    cluster.nodes[2].restart().await;
    assert_eq!(nodes[2].node().await["id"], id, "it is the same node");
    let accepted = write(&nodes, "with the restored disk", 20).await;
    cluster.agree().await;

    let after = heads(&nodes[2]).await;
    let new: Vec<&String> = after.keys().filter(|site| !before.contains_key(*site)).collect();
    assert_eq!(new.len(), 1, "one new site: {before:?} {after:?}");
    let kept: Vec<(&String, &Value)> =
        before.iter().filter(|(site, _)| after[*site] == before[*site]).collect();
    assert_eq!(kept.len(), 1, "the log of the old site ends where it ended: {before:?} {after:?}");
    nothing_is_lost(&nodes, &owner, &space, &accepted).await;
    // It stays that way.
    cluster.nodes[2].kill();
    cluster.nodes[2].restart().await;
    write(&nodes, "after another restart", 2).await;
    cluster.agree().await;
    assert!(heads(&nodes[0]).await.keys().eq(after.keys()), "no further site");
}

/// A message with a durability, and an id of the client's own.
fn saying(node: &Client, author: &Account, space: &str, body: &str, durability: &str) -> Call {
    let wish = json!({ "body": body, "client_id": body });
    let call = node.post(&format!("/v1/spaces/{space}/messages"), wish).by(author);
    call.header("mychat-durability", durability)
}

/// How often each text is in the history of a node.
async fn counted(node: &Client, reader: &Account, space: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for row in node.history(reader, space).await {
        *counts.entry(text(&row["body"])).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_durable_a_write_for_other_regions_is_in_them_when_it_is_answered() {
    let mut cluster = Cluster::start(&REGIONS).await;
    let [fra, iad, syd] = &cluster.clients()[..] else { panic!("three nodes") };
    let ada = fra.sign_up("Ada").await;
    let (space, cursor) = fra.make_space(&ada, "Durable", "private").await;
    cluster.agree().await;
    let regions = |answer: &Answer| answer.header("mychat-durable-regions").map(str::to_owned);

    for number in 0..20 {
        let body = format!("everywhere {number}");
        let answer = saying(fra, &ada, &space, &body, "regions=2").send().await;
        assert_eq!(regions(&answer).as_deref(), Some("fra,iad,syd"));
        let id = text(&answer.expect(201)["id"]);
        // Not in a moment: it is there.
        for node in [iad, syd] {
            let path = format!("/v1/spaces/{space}/messages/{id}");
            assert_eq!(text(&node.get(&path).by(&ada).send().await.expect(200)["body"]), body);
        }
    }
    let answer = saying(fra, &ada, &space, "in one more", "regions=1").send().await;
    let reached = regions(&answer).expect("the header");
    assert!(reached.starts_with("fra,"), "{reached}");
    let local = saying(fra, &ada, &space, "here", "local").send().await;
    assert_eq!(regions(&local), None);
    local.expect(201);

    // More regions than there are: kept as pending, and said so.
    let answer = saying(fra, &ada, &space, "too far", "regions=3").send().await;
    answer.is_problem(503, "unavailable");
    assert_eq!(regions(&answer).as_deref(), Some("fra,iad,syd"));
    assert!(text(&answer.json()["detail"]).contains("pending"));
    let seen = answer.cursor();
    // Sent again to another node, under the client's own id and for as many as there are, it is the same message.
    let again = saying(iad, &ada, &space, "too far", "regions=2").header("mychat-after", &seen).send().await;
    assert_eq!(regions(&again).as_deref(), Some("iad,fra,syd"));
    again.expect(201);

    // With a region that is dead.
    cluster.nodes[2].kill();
    let keyed = |node: &Client, after: &str| {
        let call = saying(node, &ada, &space, "to the dead", "regions=2");
        call.header("idempotency-key", "to the dead").header("mychat-after", after)
    };
    let answer = keyed(fra, &cursor).send().await;
    answer.is_problem(503, "unavailable");
    assert_eq!(regions(&answer).as_deref(), Some("fra,iad"));
    let seen = answer.cursor();
    let answer = saying(fra, &ada, &space, "to the living", "regions=1").send().await;
    assert_eq!(regions(&answer).as_deref(), Some("fra,iad"));
    answer.expect(201);
    cluster.nodes[2].restart().await;
    let answer = keyed(iad, &seen).send().await;
    assert_eq!(regions(&answer).as_deref(), Some("iad,fra,syd"));
    answer.expect(201);

    cluster.agree().await;
    let counts = counted(fra, &ada, &space).await;
    assert_eq!(counts.len(), 25, "{counts:?}");
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    for node in [iad, syd] {
        assert_eq!(counted(node, &ada, &space).await, counts);
    }
}

async fn heads(node: &Client) -> serde_json::Map<String, Value> {
    let heads = node.heads().await.expect("the node answers");
    assert_ne!(heads, json!({}));
    heads.as_object().expect("a map").clone()
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("copied");
        }
    }
}
