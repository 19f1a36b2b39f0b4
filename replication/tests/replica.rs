//! Stores that replicate over real QUIC on loopback.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use mychat_replication::{
    Role,
    cluster::ClusterKey,
    log::{GroupId, Retirements, SiteId, Value, Version, VersionVector, stream},
    mesh::{Mesh, MeshConfig, MeshError, MeshEvent},
    replica::{Replica, ReplicaConfig},
    store::{DeriveNothing, Migration, Schema, Store, StoreError},
};
use tokio::time::{Instant, timeout};

const NOTES: &[Migration] = &[Migration {
    domain: "notes",
    number: 1,
    sql: "CREATE TABLE note (id BLOB NOT NULL PRIMARY KEY, data BLOB) STRICT, WITHOUT ROWID; SELECT crsql_as_crr('note');",
}];
const DEADLINE: Duration = Duration::from_secs(20);

struct Node {
    store: Store,
    mesh: Mesh,
    replica: Replica,
}

impl Node {
    async fn start(
        folder: &Path,
        name: &str,
        key: &ClusterKey,
        bind: SocketAddr,
        seeds: &[SocketAddr],
    ) -> Self {
        Self::start_with(folder, name, key, bind, seeds, ReplicaConfig::default()).await
    }

    async fn start_with(
        folder: &Path,
        name: &str,
        key: &ClusterKey,
        bind: SocketAddr,
        seeds: &[SocketAddr],
        config: ReplicaConfig,
    ) -> Self {
        let store =
            Store::open(&folder.join(name), &Schema::new(&[NOTES]), Box::new(DeriveNothing)).expect("opens");
        let mesh_config = MeshConfig {
            node: store.node(),
            role: Role::Node,
            region: name.chars().take(3).collect(),
            bind,
            advertise: None,
            seeds: seeds.iter().map(ToString::to_string).collect(),
            key: key.clone(),
            wrap_socket: None,
        };
        // The socket of a node that just crashed is closed by a task that ends a little later.
        let deadline = Instant::now() + DEADLINE;
        let (mesh, events) = loop {
            match Mesh::start(mesh_config.clone()).await {
                Err(MeshError::Bind { .. }) if Instant::now() < deadline => tokio::task::yield_now().await,
                started => break started.expect("the mesh starts"),
            }
        };
        let config = ReplicaConfig { alone: seeds.is_empty(), ..config };
        let (replica, _messages) = Replica::start(store.clone(), mesh.clone(), events, config);
        Self { store, mesh, replica }
    }

    async fn settled(&self) {
        let mut status = self.replica.status();
        timeout(DEADLINE, status.wait_for(|status| status.settled)).await.expect("in time").expect("it runs");
    }

    async fn write(&self, id: u32) -> VersionVector {
        let write = self.store.write(move |batch| {
            batch.insert("note", vec![Value::from(id.to_be_bytes())], vec![7; 100]);
            Ok::<_, StoreError>(())
        });
        write.await.expect("written").vector.as_ref().clone()
    }

    async fn holds(&self, vector: &VersionVector) {
        assert!(
            self.store.wait_for(vector, DEADLINE).await,
            "{:?} lacks some of {vector:?}",
            self.store.vector()
        );
    }

    /// Ends without a word to the others, like a crash of the process.
    async fn crash(self) {
        self.replica.stop().await;
        drop(self.mesh);
        self.store.close().await;
    }
}

async fn notes(node: &Node) -> BTreeMap<Vec<u8>, Vec<u8>> {
    node.store
        .read(|db| {
            let mut statement = db.prepare("SELECT id, data FROM note")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok::<_, StoreError>(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
        .expect("read")
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_writes_all_have_also_after_one_was_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = ClusterKey::generate();
    let a = Node::start(folder.path(), "fra.db", &key, any(), &[]).await;
    let seed = a.mesh.local_addr();
    let b = Node::start(folder.path(), "iad.db", &key, any(), &[seed]).await;
    let c = Node::start(folder.path(), "syd.db", &key, any(), &[seed]).await;
    for node in [&a, &b, &c] {
        node.settled().await;
    }
    let mut all = VersionVector::new();
    for id in 0..50 {
        all.merge(&a.write(id).await);
        all.merge(&b.write(1000 + id).await);
        all.merge(&c.write(2000 + id).await);
    }
    for node in [&a, &b, &c] {
        node.holds(&all).await;
    }
    assert_eq!(notes(&a).await.len(), 150);
    assert_eq!(notes(&a).await, notes(&b).await);
    assert_eq!(notes(&a).await, notes(&c).await);

    // One crashes, the others go on, and it gets what it missed from the integers that it holds.
    let (addr, site) = (b.mesh.local_addr(), b.store.site());
    b.crash().await;
    for id in 50..400 {
        all.merge(&a.write(id).await);
        all.merge(&c.write(2000 + id).await);
    }
    a.holds(&all).await;
    let b = Node::start(folder.path(), "iad.db", &key, addr, &[seed]).await;
    b.settled().await;
    assert_eq!(b.store.site(), site, "a disk that lost nothing keeps its site");
    b.holds(&all).await;
    all.merge(&b.write(9000).await);
    for node in [&a, &b, &c] {
        node.holds(&all).await;
        assert_eq!(node.store.vector().as_ref(), &all);
    }
    assert_eq!(notes(&a).await, notes(&b).await);
    assert!(b.replica.flush(DEADLINE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_sites_log_comes_from_whoever_holds_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = ClusterKey::generate();
    let a = Node::start(folder.path(), "fra.db", &key, any(), &[]).await;
    let seed = a.mesh.local_addr();
    let b = Node::start(folder.path(), "iad.db", &key, any(), &[seed]).await;
    b.settled().await;
    let mut all = VersionVector::new();
    for id in 0..300 {
        all.merge(&b.write(id).await);
    }
    a.holds(&all).await;
    b.crash().await;
    let c = Node::start(folder.path(), "syd.db", &key, any(), &[seed]).await;
    c.settled().await;
    c.holds(&all).await;
    assert_eq!(notes(&c).await.len(), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_a_restored_disk_does_not_reuse_versions() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = ClusterKey::generate();
    let a = Node::start(folder.path(), "fra.db", &key, any(), &[]).await;
    let seed = a.mesh.local_addr();
    let b = Node::start(folder.path(), "iad.db", &key, any(), &[seed]).await;
    b.settled().await;
    let (mut all, addr, site) = (b.write(1).await, b.mesh.local_addr(), b.store.site());
    b.crash().await;
    let backup = folder.path().join("backup");
    std::fs::copy(folder.path().join("iad.db"), &backup).expect("a copy");
    let b = Node::start(folder.path(), "iad.db", &key, addr, &[seed]).await;
    b.settled().await;
    all.merge(&b.write(2).await);
    a.holds(&all).await;
    b.crash().await;
    std::fs::copy(&backup, folder.path().join("iad.db")).expect("restored");
    let _ = std::fs::remove_file(folder.path().join("iad.db-wal"));

    let b = Node::start(folder.path(), "iad.db", &key, addr, &[seed]).await;
    b.settled().await;
    assert_ne!(b.store.site(), site);
    all.merge(&b.write(3).await);
    for node in [&a, &b] {
        node.holds(&all).await;
    }
    assert_eq!(notes(&a).await, notes(&b).await);
    assert_eq!(notes(&b).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_a_disk_in_doubt_is_written_under_a_new_site_also_where_nobody_knows_of_a_loss() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = ClusterKey::generate();
    let alone = Node::start(folder.path(), "fra.db", &key, any(), &[]).await;
    alone.settled().await;
    alone.write(1).await;
    let (site, addr) = (alone.store.site(), alone.mesh.local_addr());
    alone.crash().await;
    let again = Node::start(folder.path(), "fra.db", &key, addr, &[]).await;
    let mut status = again.replica.status();
    assert!(status.borrow_and_update().ready, "nothing is in doubt and nobody has to be asked");
    for _ in 0..3 {
        timeout(DEADLINE, status.changed()).await.expect("in time").expect("it runs");
        assert!(status.borrow_and_update().ready, "and it stays so");
    }
    assert_eq!(again.store.site(), site);
    again.crash().await;

    std::fs::remove_file(folder.path().join("fra.witness")).expect("removed");
    let restored = Node::start(folder.path(), "fra.db", &key, addr, &[]).await;
    let mut status = restored.replica.status();
    timeout(DEADLINE, status.wait_for(|status| status.ready)).await.expect("in time").expect("it runs");
    assert_ne!(restored.store.site(), site);
    let vector = restored.write(2).await;
    assert_eq!(vector.get(site), Version(1), "what it had stays where it was");
    assert!(vector.get(restored.store.site()) > Version(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_relays_all_have_everything_also_when_one_of_them_dies() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = ClusterKey::generate();
    let config = ReplicaConfig { relay_above: 3, ..ReplicaConfig::default() };
    let mut nodes: Vec<Node> = Vec::new();
    for name in ["fra1.db", "fra2.db", "iad1.db", "iad2.db"] {
        let seeds: Vec<SocketAddr> = nodes.first().map(|node| node.mesh.local_addr()).into_iter().collect();
        nodes.push(Node::start_with(folder.path(), name, &key, any(), &seeds, config).await);
    }
    let mut all = VersionVector::new();
    for node in &nodes {
        node.settled().await;
    }
    for id in 0..50 {
        for (number, node) in (0..).zip(&nodes) {
            all.merge(&node.write(number * 1000 + id).await);
        }
    }
    for node in &nodes {
        node.holds(&all).await;
    }
    // Each of the two relays for some sites; the other one follows those itself then.
    nodes.remove(1).crash().await;
    for id in 50..100 {
        for (number, node) in (0..).zip(&nodes) {
            all.merge(&node.write(number * 10_000 + id).await);
        }
    }
    for node in &nodes {
        node.holds(&all).await;
    }
}

/// A disk that is restored again and again leaves a site each time; vectors need not name them all for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sites_that_restores_leave_behind_are_retired_and_applied_only_in_their_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = ClusterKey::generate();
    let a = Node::start(folder.path(), "fra.db", &key, any(), &[]).await;
    let seed = a.mesh.local_addr();
    let b = Node::start(folder.path(), "iad.db", &key, any(), &[seed]).await;
    b.settled().await;
    let (mut all, addr, site) = (b.write(1).await, b.mesh.local_addr(), b.store.site());
    b.crash().await;
    let backup = folder.path().join("backup");
    std::fs::copy(folder.path().join("iad.db"), &backup).expect("a copy");
    for id in 2..5 {
        let b = Node::start(folder.path(), "iad.db", &key, addr, &[seed]).await;
        b.settled().await;
        all.merge(&b.write(id).await);
        a.holds(&all).await;
        b.crash().await;
        std::fs::copy(&backup, folder.path().join("iad.db")).expect("restored");
        let _ = std::fs::remove_file(folder.path().join("iad.db-wal"));
    }
    let b = Node::start(folder.path(), "iad.db", &key, addr, &[seed]).await;
    b.settled().await;
    all.merge(&b.write(9).await);
    b.holds(&all).await;

    // Retired further, once all is held again: every former site can be left out.
    let compact = async |node: &Node| {
        let mut known = Retirements::default();
        node.store.retirements().await.expect("read").into_iter().for_each(|row| known.learn(row));
        known.compact(&node.store.vector()).map_or(usize::MAX, |compact| compact.len())
    };
    for node in [&a, &b] {
        let mut commits = node.store.commits();
        while compact(node).await > 1 {
            timeout(DEADLINE, commits.recv()).await.expect("in time").expect("it runs");
        }
    }
    assert!(b.store.vector().len() >= 4, "many sites were left behind: {:?}", b.store.vector());
    // What the heads leave out is understood.
    let wanted = b.store.vector();
    let mut status = a.replica.status();
    let node = b.store.node();
    let told =
        status.wait_for(|status| status.peers.get(&node).is_some_and(|peer| peer.heads.covers(&wanted)));
    timeout(DEADLINE, told).await.expect("in time").expect("it runs");

    // A fresh database takes the log only after what it vouches for.
    let fresh = Store::open(&folder.path().join("new.db"), &Schema::new(&[NOTES]), Box::new(DeriveNothing))
        .expect("opens");
    let log = async |site| {
        let read = b.store.read_log(site, Version(0), 1 << 20).await.expect("read");
        read.frames.into_iter().map(Arc::new).collect::<Vec<_>>()
    };
    let newest = log(b.store.site()).await;
    let outcome = fresh.apply(newest.clone()).await.expect("asked");
    assert_eq!((outcome.applied, outcome.gaps), (0, newest.len()));
    fresh.apply(log(site).await).await.expect("asked");
    assert!(fresh.vector().get(site) > Version(0), "the first one follows nothing");
    for _ in 0..b.store.vector().len() {
        for (site, _) in b.store.vector().iter() {
            fresh.apply(log(site).await).await.expect("asked");
        }
    }
    assert_eq!(fresh.vector(), b.store.vector());
}

/// Not a benchmark: shows that a commit travels without waiting for any timer (the heartbeat is 200 ms).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_no_longer_follows_a_quiet_log_is_forgotten() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = ClusterKey::generate();
    let a = Node::start(folder.path(), "ams", &key, any(), &[]).await;
    let seeds = [a.mesh.local_addr()];
    let written = a.write(1).await;
    let b = Node::start(folder.path(), "ber", &key, any(), &seeds).await;
    b.holds(&written).await;
    let live = |wanted: usize| {
        let (mut status, b) = (a.replica.status(), b.mesh.node());
        async move {
            let is_wanted = |status: &mychat_replication::replica::Status| {
                status.peers.get(&b).is_some_and(|peer| peer.followers.live == wanted)
            };
            timeout(DEADLINE, status.wait_for(is_wanted)).await.expect("in time").expect("it runs");
        }
    };
    live(1).await;
    // It goes on as a member of the mesh, and nobody writes anything that it could refuse.
    b.replica.stop().await;
    live(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_do_not_wait_for_the_heartbeat() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = ClusterKey::generate();
    let a = Node::start(folder.path(), "fra.db", &key, any(), &[]).await;
    let b = Node::start(folder.path(), "iad.db", &key, any(), &[a.mesh.local_addr()]).await;
    b.settled().await;
    let warm = a.write(0).await;
    b.holds(&warm).await;
    let started = Instant::now();
    for id in 1..101 {
        let wrote = a.write(id).await;
        b.holds(&wrote).await;
    }
    assert!(started.elapsed() < Duration::from_secs(10), "100 round trips took {:?}", started.elapsed());
    println!("100 writes, each seen on the other node before the next: {:?}", started.elapsed());
}

/// A peer of a release to come answers in a format of frames that this one does not read, until it finds out: nothing
/// is lost, and nothing else stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_in_an_unknown_format_is_asked_for_again_until_it_can_be_read() {
    const KIND: u8 = 16;
    const FRAMES: u8 = 1;
    let folder = tempfile::tempdir().expect("a folder");
    let key = ClusterKey::generate();
    let a = Node::start(folder.path(), "fra.db", &key, any(), &[]).await;
    let b = Node::start(folder.path(), "iad.db", &key, any(), &[a.mesh.local_addr()]).await;
    b.settled().await;
    // Its log, as its own store has it.
    let other = Store::open(&folder.path().join("other.db"), &Schema::new(&[NOTES]), Box::new(DeriveNothing))
        .expect("opens");
    let write = other.write(|batch| {
        batch.insert("note", vec![Value::from([9, 9, 9, 9])], vec![7; 100]);
        Ok::<_, StoreError>(())
    });
    let theirs = write.await.expect("written").vector;
    let frame = &other.read_log(other.site(), Version(0), 1 << 20).await.expect("the log").frames[0];
    let message = stream::Writer::new(Version(0)).append(Vec::new(), frame).expect("a frame");
    // The format, then the length of the frame and the frame.
    let answer = |format: u8| [&[format][..], &(message.len() as u32).to_le_bytes(), &message].concat();
    let (readable, unreadable) = (answer(FRAMES), answer(FRAMES + 1));

    let config = MeshConfig {
        node: other.node(),
        role: Role::Node,
        region: "syd".into(),
        bind: any(),
        advertise: None,
        seeds: vec![a.mesh.local_addr().to_string()],
        key,
        wrap_socket: None,
    };
    let (mesh, mut events) = Mesh::start(config).await.expect("the mesh starts");
    let heads = postcard::to_extend(&(GroupId::GLOBAL, other.site(), &*theirs), vec![1]).expect("heads");
    let (mut asked, mut open) = (0, Vec::new());
    while asked < 3 {
        match timeout(DEADLINE, events.recv()).await.expect("it is asked again").expect("the mesh lives") {
            // Heads for heads: one that is lost, or comes too early, is made up for.
            MeshEvent::Datagram { peer, kind: KIND, .. } if peer == a.store.node() => {
                let _ = mesh.datagram(peer, KIND, heads.clone().into());
            }
            MeshEvent::Stream { peer, kind: KIND, mut send, mut recv } if peer.node == a.store.node() => {
                let mut length = [0; 4];
                recv.read_exact(&mut length).await.expect("a length");
                let mut request = vec![0; u32::from_le_bytes(length) as usize];
                recv.read_exact(&mut request).await.expect("a request");
                let (_, site, after, reads): (GroupId, SiteId, Version, u8) =
                    postcard::from_bytes(&request[1..]).expect("a request");
                assert_eq!((site, after, reads), (other.site(), Version(0), FRAMES));
                let answer = if asked < 2 { &unreadable } else { &readable };
                asked += 1;
                send.write_all(answer).await.expect("sent");
                open.push((send, recv));
                // What others write goes on.
                let wrote = b.write(asked).await;
                a.holds(&wrote).await;
            }
            _ => {}
        }
    }
    a.holds(&theirs).await;
    assert_eq!(notes(&a).await.len(), 4);
}
