//! Snapshots between stores over real QUIC on loopback: who takes one, and what becomes of it when something breaks.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use mychat_replication::{
    NodeId, Role,
    cluster::ClusterKey,
    log::{Value, VersionVector},
    mesh::{Mesh, MeshConfig, MeshError},
    replica::{Replica, ReplicaConfig, Status},
    snapshot::{SnapshotConfig, SyncState},
    store::{DeriveNothing, Migration, Schema, Store, StoreError},
};
use tokio::time::{Instant, sleep, timeout};

const NOTES: &[Migration] = &[Migration {
    domain: "notes",
    number: 1,
    sql: "CREATE TABLE note (id BLOB NOT NULL PRIMARY KEY, data BLOB) STRICT, WITHOUT ROWID; SELECT crsql_as_crr('note');",
}];
const NEWER: &[Migration] = &[Migration {
    domain: "newer",
    number: 1,
    sql: "CREATE TABLE newer (id BLOB NOT NULL PRIMARY KEY, data BLOB) STRICT, WITHOUT ROWID; SELECT crsql_as_crr('newer');",
}];
const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);
/// A node that lacks more versions takes a snapshot.
const ABOVE: u64 = 100;
/// Bytes a second at which a transfer lasts long enough to be disturbed.
const SLOWLY: u64 = 400 << 10;

struct Node {
    store: Store,
    mesh: Mesh,
    replica: Replica,
    path: PathBuf,
}

struct Place<'a> {
    folder: &'a Path,
    key: ClusterKey,
    rate: u64,
    schema: Schema,
}

impl<'a> Place<'a> {
    fn new(folder: &'a Path, rate: u64) -> Self {
        Self { folder, key: ClusterKey::generate(), rate, schema: Schema::new(&[NOTES]) }
    }

    async fn start(&self, name: &str, seeds: &[SocketAddr]) -> Node {
        self.start_with(name, seeds, &self.schema).await
    }

    async fn start_with(&self, name: &str, seeds: &[SocketAddr], schema: &Schema) -> Node {
        let path = self.folder.join(name);
        let store = Store::open(&path, schema, Box::new(DeriveNothing)).expect("opens");
        let config = MeshConfig {
            node: store.node(),
            role: Role::Node,
            region: name.chars().take(3).collect(),
            bind: "127.0.0.1:0".parse().expect("an address"),
            advertise: None,
            seeds: seeds.iter().map(ToString::to_string).collect(),
            key: self.key.clone(),
            wrap_socket: None,
        };
        let (mesh, events) = loop {
            match Mesh::start(config.clone()).await {
                Err(MeshError::Bind { .. }) => tokio::task::yield_now().await,
                started => break started.expect("the mesh starts"),
            }
        };
        let config = ReplicaConfig {
            alone: seeds.is_empty(),
            snapshots: SnapshotConfig { above: ABOVE, rate: self.rate },
            ..ReplicaConfig::default()
        };
        let (replica, _messages) = Replica::start(store.clone(), mesh.clone(), events, config);
        Node { store, mesh, replica, path }
    }
}

impl Node {
    fn at(&self) -> SocketAddr {
        self.mesh.local_addr()
    }

    /// Waits until the status is such.
    async fn until(&self, what: &str, is_so: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.replica.status();
        // Cloned at once: a second look while the first is held would wait for ever, should the core's task be about to
        // tell the next status.
        let found =
            timeout(DEADLINE, status.wait_for(is_so)).await.map(|found| found.expect("it runs").clone());
        found.unwrap_or_else(|_| panic!("in vain: {what}; {:?}", self.replica.status().borrow().clone()))
    }

    async fn ready(&self) {
        self.until("ready", |status| status.ready && status.settled).await;
    }

    /// Writes notes, each in a version of its own, of bytes that no compression makes smaller.
    async fn write(&self, ids: std::ops::Range<u32>) -> VersionVector {
        let mut vector = VersionVector::new();
        for id in ids {
            let write = self.store.write(move |batch| {
                let data: Vec<u8> = std::iter::repeat_with(rand::random).take(3000).collect();
                batch.insert("note", vec![Value::from(id.to_be_bytes())], data);
                Ok::<_, StoreError>(())
            });
            vector = write.await.expect("written").vector.as_ref().clone();
        }
        vector
    }

    async fn holds(&self, vector: &VersionVector) {
        assert!(
            self.store.wait_for(vector, DEADLINE).await,
            "{:?} lacks some of {vector:?}",
            self.store.vector()
        );
    }

    async fn notes(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.store
            .read(|db| {
                let mut statement = db.prepare("SELECT id, data FROM note")?;
                let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok::<_, StoreError>(rows.collect::<rusqlite::Result<_>>()?)
            })
            .await
            .expect("read")
    }

    /// What came of a snapshot so far, in bytes.
    fn received(&self) -> u64 {
        std::fs::metadata(beside(&self.path, "-snapshot.partial")).map_or(0, |file| file.len())
    }

    /// Waits until this much of a snapshot is on the disk, and who sends it.
    async fn receives(&self, bytes: u64) -> NodeId {
        let deadline = Instant::now() + DEADLINE;
        while self.received() < bytes {
            assert!(Instant::now() < deadline, "{:?}", self.replica.status().borrow().sync);
            sleep(POLL).await;
        }
        self.until("a source", |status| status.sync.from.is_some()).await.sync.from.expect("a source")
    }

    /// Ends without a word to the others, like a crash of the process.
    async fn crash(self) {
        self.replica.stop().await;
        drop(self.mesh);
        self.store.close().await;
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn flip_a_byte(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("read");
    bytes[at] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

/// All hold `all`, and the same.
async fn agree(nodes: &[&Node], all: &VersionVector) {
    for node in nodes {
        node.holds(all).await;
    }
    let notes = nodes[0].notes().await;
    for node in &nodes[1..] {
        assert_eq!(node.store.vector(), nodes[0].store.vector());
        assert!(node.notes().await == notes, "different notes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_node_takes_a_snapshot_and_goes_on_under_a_new_site_id() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), u64::MAX);
    let a = place.start("fra.db", &[]).await;
    let b = place.start("iad.db", &[a.at()]).await;
    b.ready().await;
    let mut all = a.write(0..200).await;
    all.merge(&b.write(1000..1050).await);
    agree(&[&a, &b], &all).await;

    let store =
        Store::open(&folder.path().join("syd.db"), &place.schema, Box::new(DeriveNothing)).expect("opens");
    let (node, first) = (store.node(), store.site());
    store.close().await;
    let c = place.start("syd.db", &[a.at(), b.at()]).await;
    let mut status = c.replica.status();
    let mut states = Vec::new();
    while !status.borrow_and_update().ready {
        let sync = status.borrow().sync;
        if states.last() != Some(&sync.state) {
            states.push(sync.state);
        }
        timeout(DEADLINE, status.changed()).await.expect("in time").expect("it runs");
    }
    assert!(states.contains(&SyncState::Snapshot), "{states:?}");
    assert_eq!(c.store.node(), node, "it is the same node");
    for other in [first, a.store.site(), b.store.site()] {
        assert_ne!(c.store.site(), other);
    }
    agree(&[&a, &b, &c], &all).await;
    // Everybody's logs go on from there.
    all.merge(&a.write(200..210).await);
    all.merge(&c.write(2000..2010).await);
    all.merge(&b.write(1050..1060).await);
    agree(&[&a, &b, &c], &all).await;
    assert_eq!(c.store.vector().len(), 3, "no more sites than nodes");
    // Nothing is left over.
    let mut left: Vec<_> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .filter(|name| name.starts_with("syd.db") && !name.ends_with("-wal") && !name.ends_with("-shm"))
        .collect();
    left.sort();
    assert_eq!(left, ["syd.db"]);
    // And the same again from the disk.
    let site = c.store.site();
    c.crash().await;
    let c = place.start("syd.db", &[a.at()]).await;
    c.ready().await;
    assert_eq!((c.store.site(), c.store.node()), (site, node));
    agree(&[&a, &b, &c], &all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lacks_little_follows_the_logs_and_keeps_its_site() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), u64::MAX);
    let a = place.start("fra.db", &[]).await;
    let all = a.write(0..u32::try_from(ABOVE).expect("few")).await;
    let c = place.start("syd.db", &[a.at()]).await;
    let site = c.store.site();
    agree(&[&a, &c], &all).await;
    c.ready().await;
    assert_eq!(c.store.site(), site);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_transfer_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), SLOWLY);
    let a = place.start("fra.db", &[]).await;
    let mut all = a.write(0..300).await;
    let c = place.start("syd.db", &[a.at()]).await;
    c.receives(200 << 10).await;
    assert!(!c.replica.status().borrow().ready, "it is not ready meanwhile");
    assert!(c.store.vector().is_empty(), "and follows no log");
    let write = c.store.write(|_| Ok::<_, StoreError>(())).await;
    assert!(matches!(write, Err(StoreError::Unsettled)), "and accepts no write: {write:?}");
    c.crash().await;
    // What is written meanwhile comes by the log.
    all.merge(&a.write(300..320).await);
    let c = place.start("syd.db", &[a.at()]).await;
    let had = c.received();
    assert!(had > 100 << 10, "{had} bytes were kept");
    let note = beside(&c.path, "-snapshot.note");
    let which = std::fs::read(&note).expect("a note");
    let deadline = Instant::now() + DEADLINE;
    while let Ok(file) = std::fs::metadata(beside(&c.path, "-snapshot.partial")) {
        assert!(file.len() >= had, "it has begun anew");
        assert!(std::fs::read(&note).map_or(true, |now| now == which), "it is another snapshot");
        assert!(Instant::now() < deadline);
        sleep(POLL).await;
    }
    c.ready().await;
    agree(&[&a, &c], &all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_peer_goes_on_for_one_that_dies() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), SLOWLY);
    let a = place.start("fra.db", &[]).await;
    let b = place.start("iad.db", &[a.at()]).await;
    b.ready().await;
    // As little at a time as the logs bring.
    let mut all = VersionVector::new();
    for from in [0, 80, 160, 240] {
        all = a.write(from..from + 80).await;
        b.holds(&all).await;
    }
    let c = place.start("syd.db", &[a.at(), b.at()]).await;
    let source = c.receives(200 << 10).await;
    let (dying, left) = if source == a.store.node() { (a, b) } else { (b, a) };
    let other = left.store.node();
    dying.crash().await;
    c.until("another source", |status| status.sync.from == Some(other)).await;
    c.ready().await;
    agree(&[&left, &c], &all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_was_damaged_on_the_disk_is_fetched_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), SLOWLY);
    let a = place.start("fra.db", &[]).await;
    let all = a.write(0..200).await;
    let c = place.start("syd.db", &[a.at()]).await;
    c.receives(100 << 10).await;
    let (path, first) = (c.path.clone(), c.store.site());
    c.crash().await;
    flip_a_byte(&beside(&path, "-snapshot.partial"), 50 << 10);
    let c = place.start("syd.db", &[a.at()]).await;
    c.ready().await;
    agree(&[&a, &c], &all).await;
    assert_ne!(c.store.site(), first, "it did take a snapshot in the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_refused_and_the_logs_are_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), SLOWLY);
    let a = place.start("fra.db", &[]).await;
    let all = a.write(0..200).await;
    let c = place.start("syd.db", &[a.at()]).await;
    let site = c.store.site();
    c.receives(50 << 10).await;
    let packed = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "zst"))
        .expect("what is served");
    let file = std::fs::metadata(&packed).expect("it is there");
    flip_a_byte(&packed, usize::try_from(file.len()).expect("little") - 1000);
    c.ready().await;
    agree(&[&a, &c], &all).await;
    assert_eq!(c.store.site(), site, "the database is the old one");
    assert!(!beside(&c.path, "-snapshot.partial").exists());
    assert!(!beside(&c.path, "-incoming").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_this_node_holds_is_with_the_others_before_it_takes_a_snapshot() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), u64::MAX);
    let alone = place.start("syd.db", &[]).await;
    let own = alone.write(9000..9005).await;
    let first = alone.store.site();
    alone.crash().await;
    let a = place.start("fra.db", &[]).await;
    let mut all = a.write(0..200).await;
    all.merge(&own);
    let c = place.start("syd.db", &[a.at()]).await;
    c.ready().await;
    agree(&[&a, &c], &all).await;
    assert_ne!(c.store.site(), first, "it took a snapshot");
    assert_eq!(c.store.retired().iter().count(), 1, "one new site id was enough");
    assert_eq!(c.notes().await.len(), 205);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_a_newer_program_is_refused_and_one_of_an_older_is_migrated() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), u64::MAX);
    let newer = Schema::new(&[NOTES, NEWER]);
    let a = place.start_with("fra.db", &[], &newer).await;
    let all = a.write(0..200).await;
    let c = place.start("syd.db", &[a.at()]).await;
    let site = c.store.site();
    c.ready().await;
    agree(&[&a, &c], &all).await;
    assert_eq!(c.store.site(), site, "the logs do it");
    a.crash().await;

    let d = place.start_with("sin.db", &[c.at()], &newer).await;
    let site = d.store.site();
    d.ready().await;
    agree(&[&c, &d], &all).await;
    assert_ne!(d.store.site(), site, "a snapshot did it");
    let write = d.store.write(|batch| {
        batch.insert("newer", vec![Value::from([1])], vec![1]);
        Ok::<_, StoreError>(())
    });
    write.await.expect("the newer table is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_while_a_snapshot_is_made_and_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), u64::MAX);
    let a = place.start("fra.db", &[]).await;
    a.write(0..150).await;
    let c = place.start("syd.db", &[a.at()]).await;
    let mut all = VersionVector::new();
    let mut id = 150;
    while !c.replica.status().borrow().ready {
        all = a.write(id..id + 1).await;
        id += 1;
    }
    all.merge(&a.write(id..id + 10).await);
    agree(&[&a, &c], &all).await;
    assert_eq!(c.notes().await.len(), usize::try_from(id).expect("few") + 10);
}
