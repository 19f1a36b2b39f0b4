//! A disk that is full, read-only or broken: writes are refused with a reason, reads and streams go on, what others
//! write waits, and all goes on by itself once the disk takes writes again.

mod cluster;

use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use cluster::{Account, Client, Cluster, Events, eventually, fingerprint, shown, text};
use serde_json::json;

/// A small file system of a node's own, in memory.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts one at this path.
    fn mount(at: PathBuf) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test fills a file system of its own, and only root may mount one: run it as root"
        );
        std::fs::create_dir_all(&at).expect("a folder");
        run("mount", &["-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", &shown(&at)]);
        Self { at }
    }

    /// Mounts it anew, read-only or not; no process may have it open.
    fn remount(&self, how: &str) {
        run("mount", &["-o", &format!("remount,{how}"), &shown(&self.at)]);
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }

    /// Leaves no room.
    fn fill(&self) {
        let mut ballast =
            std::fs::File::options().create(true).append(true).open(self.ballast()).expect("a file");
        for size in [64 << 10, 4 << 10, 1] {
            while ballast.write_all(&vec![7; size]).is_ok() {}
        }
    }

    /// Makes room again.
    fn empty(&self) {
        std::fs::remove_file(self.ballast()).expect("the ballast was there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A node may still run on it; it goes away with the last who has it open.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn run(program: &str, args: &[&str]) {
    let status =
        Command::new(program).args(args).status().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(status.success(), "{program} {args:?}: {status}");
}

/// Messages that a node has accepted.
#[derive(Default)]
struct Accepted(BTreeSet<String>);

impl Accepted {
    /// Posts until the node refuses, for want of a disk.
    async fn write_until_refused(&mut self, node: &Client, author: &Account, space: &str, why: &str) {
        eventually("the node refuses", async || {
            let answer = node.saying(author, space, &"x".repeat(2000)).send().await;
            if answer.status == 201 {
                self.0.insert(text(&answer.json()["id"]));
                return None;
            }
            answer.is_problem(503, "unavailable");
            let detail = text(&answer.json()["detail"]);
            assert!(detail.contains(why), "{detail}");
            assert!(answer.header("retry-after").is_some());
            Some(())
        })
        .await;
    }

    async fn write(&mut self, node: &Client, author: &Account, space: &str, count: usize) {
        for number in 0..count {
            self.0.insert(text(&node.say(author, space, &format!("line {number}")).await["id"]));
        }
    }

    /// Fails unless each node has all of them, each once, and the nodes are equal.
    async fn are_everywhere(&self, nodes: &[Client], reader: &Account, space: &str) {
        let mut prints = BTreeSet::new();
        for node in nodes {
            let rows = node.history(reader, space).await;
            let ids: BTreeSet<String> = rows.iter().map(|row| text(&row["id"])).collect();
            assert_eq!(ids.len(), rows.len(), "{} lists a message twice", node.url);
            let lost: Vec<_> = self.0.difference(&ids).collect();
            assert!(lost.is_empty(), "{} has lost {lost:?}", node.url);
            prints.insert(fingerprint(&rows));
        }
        assert_eq!(prints.len(), 1, "the nodes differ");
    }
}

/// Waits until a node says that clients should not be sent to it, and why.
async fn unready(node: &Client, why: &str) {
    eventually(&format!("not ready for {why:?}"), async || {
        let answer = node.get("/readyz").send().await;
        (answer.status == 503 && text(&answer.json()["detail"]).contains(why)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_durable_a_node_with_a_full_disk_serves_reads_and_recovers_by_itself() {
    let mut cluster = Cluster::prepare(&["fra", "syd"], "info").await;
    let disk = SmallDisk::mount(cluster.nodes[1].data.clone());
    cluster.nodes.iter_mut().for_each(cluster::Server::start);
    for node in &mut cluster.nodes {
        node.ready().await;
    }
    let nodes = cluster.clients();
    let [fra, syd] = &nodes[..] else { panic!("two nodes") };
    let ada = fra.sign_up("Ada").await;
    let bob = fra.sign_up("Bob").await;
    let (space, _) = fra.make_space(&ada, "Full", "private").await;
    fra.invite(&ada, &space, &bob).await;
    cluster.agree().await;
    let mut accepted = Accepted::default();
    accepted.write(syd, &ada, &space, 5).await;
    cluster.agree().await;
    let mut stream = Events::open(syd, &ada, None).await;

    disk.fill();
    accepted.write_until_refused(syd, &ada, &space, "the disk is full").await;
    unready(syd, "the disk is full").await;
    let held = syd.heads().await.expect("heads");
    // What others write waits; reads and streams go on.
    let path = format!("/v1/spaces/{space}/messages?limit=1");
    accepted.write(fra, &ada, &space, 20).await;
    let typing = fra.post(&format!("/v1/spaces/{space}/typing"), json!({})).by(&bob);
    assert!(typing.send().await.status < 300);
    assert_eq!(stream.until("typing").await.data["account"], json!(bob.id));
    assert_eq!(syd.get(&path).by(&ada).send().await.status, 200);
    syd.get("/livez").send().await.expect_text("ok\n");
    assert!(syd.metric("mychat_store_disk_refuses").await > 0.0);
    let cursor = stream.cursor.clone();

    // Killed and started on the full disk, it reads what it has.
    cluster.nodes[1].kill();
    cluster.nodes[1].start();
    eventually("it answers again", async || {
        let answer = syd.get(&path).by(&ada).try_send().await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    unready(syd, "the disk is full").await;
    let answer = syd.saying(&ada, &space, &"y".repeat(2000)).send().await;
    answer.is_problem(503, "unavailable");
    let now = syd.heads().await.expect("heads");
    for (site, version) in held.as_object().expect("a map") {
        assert!(now[site].as_u64() >= version.as_u64(), "it holds what it held: {held} {now}");
    }

    disk.empty();
    cluster.nodes[1].ready().await;
    cluster.agree().await;
    accepted.write(syd, &ada, &space, 5).await;
    cluster.agree().await;
    accepted.are_everywhere(&nodes, &ada, &space).await;
    // The stream resumes without a gap (I5).
    let mut stream = Events::open(syd, &ada, Some(&cursor)).await;
    let mut heard = BTreeSet::new();
    while heard.len() < 25 {
        let event = stream.until("message.created").await;
        let id = text(&event.data["id"]);
        assert!(accepted.0.contains(&id) && heard.insert(id), "{event:?}");
    }

    // A file system that is read-only when the node starts: it says so, and nothing is lost.
    assert_eq!(cluster.nodes[1].stop().await.code, Some(0));
    disk.remount("ro");
    let exit = cluster.nodes[1].run().await;
    assert_ne!(exit.code, Some(0));
    assert!(exit.stderr.to_lowercase().contains("read-only"), "{}", exit.stderr);
    disk.remount("rw");
    cluster.nodes[1].restart().await;
    cluster.agree().await;
    accepted.are_everywhere(&nodes, &ada, &space).await;
}

/// The library that lets a disk fail.
fn faults(folder: &Path) -> PathBuf {
    let library = folder.join("faults.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/disk/faults.c");
    run("cc", &["-shared", "-fPIC", "-O1", "-o", &shown(&library), &shown(&source), "-ldl"]);
    library
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_durable_a_disk_that_fails_and_works_again_costs_no_message() {
    let mut cluster = Cluster::prepare(&["fra", "syd"], "info").await;
    let (library, faulty) = (faults(&cluster.path("")), cluster.path("faults"));
    cluster.nodes[1].program.variables =
        vec![("LD_PRELOAD".into(), shown(&library)), ("MYCHAT_TEST_FAULTS".into(), shown(&faulty))];
    cluster.nodes.iter_mut().for_each(cluster::Server::start);
    for node in &mut cluster.nodes {
        node.ready().await;
    }
    let nodes = cluster.clients();
    let [fra, syd] = &nodes[..] else { panic!("two nodes") };
    let ada = fra.sign_up("Ada").await;
    let (space, _) = fra.make_space(&ada, "Broken", "private").await;
    cluster.agree().await;
    let mut accepted = Accepted::default();
    let io = rustix::io::Errno::IO.raw_os_error();
    let read_only = rustix::io::Errno::ROFS.raw_os_error();
    let full = rustix::io::Errno::NOSPC.raw_os_error();
    let path = format!("/v1/spaces/{space}/messages?limit=1");
    for (fault, why) in [
        (format!("write {io}"), "the disk fails"),
        (format!("write {read_only}"), "the disk fails"),
        (format!("sync {io}"), "the disk fails"),
        (format!("write {full}"), "the disk is full"),
    ] {
        accepted.write(syd, &ada, &space, 3).await;
        std::fs::write(&faulty, &fault).expect("written");
        accepted.write_until_refused(syd, &ada, &space, why).await;
        unready(syd, why).await;
        accepted.write(fra, &ada, &space, 3).await;
        assert_eq!(syd.get(&path).by(&ada).send().await.status, 200, "{fault}");
        std::fs::remove_file(&faulty).expect("removed");
        cluster.nodes[1].ready().await;
        // Also before the next write: what was refused has left no version behind that nobody can get.
        cluster.agree().await;
        accepted.write(syd, &ada, &space, 3).await;
        cluster.agree().await;
        accepted.are_everywhere(&nodes, &ada, &space).await;
    }
    // And it is on the disk.
    cluster.nodes[1].kill();
    cluster.nodes[1].restart().await;
    cluster.agree().await;
    accepted.are_everywhere(&nodes, &ada, &space).await;
}
