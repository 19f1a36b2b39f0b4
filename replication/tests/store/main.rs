//! The store alone: what the invariants of the design ask of one database and of two that exchange logs.

mod durable;
mod fresh;
mod jobs;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use mychat_replication::{
    clock::Stamp,
    log::{Change, Frame, SiteId, Value, Version},
    store::{Applied, Derive, Migration, Row, Schema, Store, StoreError},
};
use rusqlite::Connection;

const NOTES: &[Migration] = &[Migration {
    domain: "notes",
    number: 1,
    sql: "CREATE TABLE note (space BLOB NOT NULL, id BLOB NOT NULL, data BLOB, PRIMARY KEY (space, id)) STRICT, WITHOUT ROWID;
          SELECT crsql_as_crr('note');
          CREATE TABLE mark (who TEXT NOT NULL, site BLOB NOT NULL, data BLOB, PRIMARY KEY (who, site)) STRICT, WITHOUT ROWID;
          SELECT crsql_as_crr('mark');
          CREATE TABLE local_note (id BLOB PRIMARY KEY, length INTEGER) STRICT, WITHOUT ROWID;",
}];

/// Keeps the length of each note, as an application would keep its timeline.
struct Lengths;

impl Derive for Lengths {
    fn derive(&mut self, db: &Connection, rows: &[Row<'_>]) -> rusqlite::Result<()> {
        for row in rows.iter().filter(|row| row.table == "note") {
            let length = row.data.map(|data| data.len() as i64);
            db.prepare_cached("INSERT OR REPLACE INTO local_note VALUES (?1, ?2)")?
                .execute((&row.key[1], length))?;
        }
        Ok(())
    }
}

fn open(folder: &Path, name: &str) -> Store {
    Store::open(&folder.join(name), &Schema::new(&[NOTES]), Box::new(Lengths)).expect("the store opens")
}

async fn note(store: &Store, id: u8, text: &str) -> Version {
    let data = text.as_bytes().to_vec();
    let written = store
        .write(move |batch| {
            batch.insert("note", vec![b"space".as_slice().into(), vec![id].into()], data);
            Ok::<_, StoreError>(())
        })
        .await
        .expect("the note is written");
    written.vector.get(store.site())
}

async fn mark(store: &Store, who: &'static str, data: Option<&[u8]>) {
    let data = data.map(<[u8]>::to_vec);
    store
        .write(move |batch| {
            let site: Value = batch.site().0.into();
            batch.set("mark", vec![who.into(), site], data);
            Ok::<_, StoreError>(())
        })
        .await
        .expect("the mark is written");
}

async fn log_of(store: &Store, site: SiteId, after: u64) -> Vec<Arc<Frame>> {
    let mut frames = Vec::new();
    let mut after = Version(after);
    loop {
        let read = store.read_log(site, after, 1000).await.expect("the log is read");
        after = read.frames.last().map_or(after, |frame| frame.version);
        frames.extend(read.frames.into_iter().map(Arc::new));
        if read.complete {
            return frames;
        }
    }
}

/// Every application table, in order of its key.
async fn dump(store: &Store) -> Vec<String> {
    store
        .read(|db| {
            let mut rows = Vec::new();
            for table in ["note", "mark", "local_note"] {
                let mut statement = db.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2"))?;
                let columns = statement.column_count();
                let mut found = statement.query([])?;
                while let Some(row) = found.next()? {
                    let cells: Vec<Value> =
                        (0..columns).map(|at| row.get(at)).collect::<rusqlite::Result<_>>()?;
                    rows.push(format!("{table} {cells:?}"));
                }
            }
            Ok::<_, StoreError>(rows)
        })
        .await
        .expect("the tables are read")
}

/// What the extension says of a site's log: of each change all but the site.
async fn changes_by_the_extension(store: &Store, site: SiteId) -> Vec<(Version, Change)> {
    store
        .read(move |db| {
            let mut statement = db.prepare(
                "SELECT db_version, \"table\", pk, cid, val, col_version, cl, seq FROM crsql_changes WHERE site_id = ?1
                 ORDER BY db_version, seq",
            )?;
            let changes = statement.query_map([site.0], |row| {
                let change = Change {
                    table: row.get::<_, String>(1)?.into(),
                    key: row.get(2)?,
                    column: row.get::<_, String>(3)?.into(),
                    value: row.get(4)?,
                    column_version: row.get(5)?,
                    causal_length: row.get(6)?,
                    sequence: row.get(7)?,
                };
                Ok((Version(row.get::<_, i64>(0)? as u64), change))
            })?;
            Ok::<_, StoreError>(changes.collect::<rusqlite::Result<_>>()?)
        })
        .await
        .expect("the extension answers")
}

#[tokio::test]
async fn a_log_is_what_the_extension_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (open(folder.path(), "a.db"), open(folder.path(), "b.db"));
    for round in 0..4 {
        note(&a, round, "of the one").await;
        // Overwritten by the next, erased by the last.
        mark(&a, "ada", (round < 3).then_some(&[round])).await;
        mark(&a, "eve", Some(&[round, 1])).await;
        note(&b, 100 + round, "of the other").await;
        mark(&b, "ada", Some(&[round])).await;
    }
    // A row without a value from the beginning, and several tables and rows in one version.
    mark(&a, "nobody", None).await;
    a.write(|batch| {
        let site: Value = batch.site().0.into();
        for id in 0..3u8 {
            batch.insert("note", vec![b"other".as_slice().into(), vec![id].into()], vec![id]);
            batch.set("mark", vec!["all".into(), site.clone()], Some(vec![id]));
        }
        Ok::<_, StoreError>(())
    })
    .await
    .expect("written");
    b.apply(log_of(&a, a.site(), 0).await).await.expect("applied");
    for (store, site) in [(&a, a.site()), (&b, b.site()), (&b, a.site())] {
        let frames = log_of(store, site, 0).await;
        let read: Vec<(Version, Change)> = frames
            .iter()
            .flat_map(|frame| frame.changes.iter().map(|change| (frame.version, change.clone())))
            .collect();
        assert!(read.len() >= 5, "{read:?}");
        assert_eq!(read, changes_by_the_extension(store, site).await);
    }
}

#[tokio::test]
async fn i1_durable_what_was_answered_is_there_after_reopening() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "a.db");
    let (site, node) = (store.site(), store.node());
    assert_eq!(note(&store, 1, "one").await, Version(1));
    assert_eq!(note(&store, 2, "two").await, Version(2));
    let before = dump(&store).await;
    store.close().await;
    drop(store);

    let store = open(folder.path(), "a.db");
    assert_eq!((store.site(), store.node()), (site, node));
    assert_eq!(store.vector().get(site), Version(2));
    assert_eq!(dump(&store).await, before);
    assert_eq!(note(&store, 3, "three").await, Version(3));
}

#[tokio::test]
async fn i2_one_version_one_content_the_frame_in_hand_is_what_the_log_serves() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "a.db");
    let mut commits = store.commits();
    let mut sent = Vec::new();
    for round in 0..4u8 {
        note(&store, round, "text").await;
        mark(&store, "someone", Some(&[round])).await;
    }
    mark(&store, "someone", None).await;
    while let Ok(commit) = commits.try_recv() {
        sent.extend(commit.frames.iter().cloned());
    }
    assert_eq!(sent.len(), 9);
    // What was overwritten since is left out of the log; what it still has is the same as what was sent.
    for frame in log_of(&store, store.site(), 0).await.iter().filter(|frame| !frame.changes.is_empty()) {
        let live = sent.iter().find(|sent| sent.version == frame.version).expect("it was sent");
        assert_eq!(frame.changes, live.changes);
    }
}

#[tokio::test]
async fn i3_prefix_a_frame_that_does_not_follow_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (open(folder.path(), "a.db"), open(folder.path(), "b.db"));
    for id in 0..5 {
        note(&a, id, "text").await;
    }
    let log = log_of(&a, a.site(), 0).await;
    let ahead = b.apply(vec![log[2].clone()]).await.expect("the store works");
    assert_eq!(ahead, Applied { gaps: 1, ..Applied::default() });
    assert!(b.vector().is_empty());
    let outcome =
        b.apply(vec![log[0].clone(), log[2].clone(), log[1].clone(), log[0].clone()]).await.expect("works");
    assert_eq!(outcome, Applied { applied: 2, gaps: 1, duplicates: 1, ..Applied::default() });
    assert_eq!(b.vector().get(a.site()), Version(2));
}

#[tokio::test]
async fn i4_convergent_equal_vectors_mean_equal_tables() {
    let folder = tempfile::tempdir().expect("a folder");
    let stores = [open(folder.path(), "a.db"), open(folder.path(), "b.db"), open(folder.path(), "c.db")];
    for (at, store) in stores.iter().enumerate() {
        for id in 0..20u8 {
            note(store, id * 3 + at as u8, &format!("note {id} of {at}")).await;
            mark(store, "reader", Some(&[id])).await;
        }
    }
    // The same row from two sites, and one erased by a site that did not write it.
    for store in &stores[..2] {
        note(store, 200, "the same everywhere").await;
    }
    stores[2]
        .write(|batch| {
            batch.set("note", vec![b"space".as_slice().into(), vec![2u8].into()], None);
            Ok::<_, StoreError>(())
        })
        .await
        .expect("erased");
    // Each takes the others' logs in another order and in other pieces, a part of them twice.
    for (at, store) in stores.iter().enumerate() {
        for step in 1..3 {
            let other = &stores[(at + step) % 3];
            let log = log_of(other, other.site(), 0).await;
            for piece in log.chunks(1 + at * 7) {
                store.apply(piece.to_vec()).await.expect("applied");
                store.apply(piece[..1].to_vec()).await.expect("applied");
            }
        }
    }
    let expected = dump(&stores[0]).await;
    assert_eq!(expected.iter().filter(|row| row.starts_with("note")).count(), 61);
    for store in &stores[1..] {
        assert_eq!(store.vector(), stores[0].vector());
        assert_eq!(dump(store).await, expected);
    }
    // A third site's log can be had from any that holds it.
    let fourth = open(folder.path(), "d.db");
    for store in &stores {
        fourth.apply(log_of(&stores[0], store.site(), 0).await).await.expect("applied");
    }
    assert_eq!(dump(&fourth).await, expected);
}

/// The same cell written with the same value at two sites belongs to one of the two logs only: it has to be the same
/// one everywhere, or a node that gets each log from the other's writer gets the row from neither.
#[tokio::test]
async fn i4_convergent_what_two_sites_write_alike_is_in_one_of_their_logs() {
    // Which of the two site ids is the larger is up to chance.
    for _ in 0..8 {
        let folder = tempfile::tempdir().expect("a folder");
        let (a, b, c) =
            (open(folder.path(), "a.db"), open(folder.path(), "b.db"), open(folder.path(), "c.db"));
        note(&a, 1, "the same").await;
        note(&b, 1, "the same").await;
        a.apply(log_of(&b, b.site(), 0).await).await.expect("applied");
        b.apply(log_of(&a, a.site(), 0).await).await.expect("applied");
        c.apply(log_of(&b, a.site(), 0).await).await.expect("applied");
        c.apply(log_of(&a, b.site(), 0).await).await.expect("applied");
        assert_eq!((a.vector(), a.vector()), (b.vector(), c.vector()));
        assert_eq!(dump(&c).await, dump(&a).await);
        assert_eq!(dump(&b).await, dump(&a).await);
    }
}

#[tokio::test]
async fn an_erased_row_stays_erased_when_its_original_comes_late() {
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b, c) = (open(folder.path(), "a.db"), open(folder.path(), "b.db"), open(folder.path(), "c.db"));
    note(&a, 7, "secret").await;
    b.apply(log_of(&a, a.site(), 0).await).await.expect("applied");
    b.write(|batch| {
        batch.set("note", vec![b"space".as_slice().into(), vec![7u8].into()], None);
        Ok::<_, StoreError>(())
    })
    .await
    .expect("erased");
    c.apply(log_of(&b, b.site(), 0).await).await.expect("applied");
    c.apply(log_of(&a, a.site(), 0).await).await.expect("applied");
    a.apply(log_of(&b, b.site(), 0).await).await.expect("applied");
    b.apply(log_of(&c, c.site(), 0).await).await.expect("applied");
    let dumps = [dump(&a).await, dump(&b).await, dump(&c).await];
    assert!(
        dumps.iter().all(|dump| dump == &dumps[0] && !dump.concat().contains("115, 101, 99")),
        "{dumps:?}"
    );
}

#[tokio::test]
async fn a_large_job_is_split_into_versions() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "a.db");
    let written = store
        .write(|batch| {
            for id in 0..1000u32 {
                batch.insert("note", vec![id.to_be_bytes().into(), vec![0].into()], vec![1; 30]);
            }
            Ok::<_, StoreError>(())
        })
        .await
        .expect("written");
    assert_eq!(written.vector.get(store.site()), Version(4));
}

#[tokio::test]
async fn i2_a_copy_from_the_past_goes_on_under_a_new_site_and_gets_its_lost_log_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let peer = open(folder.path(), "peer.db");
    let store = open(folder.path(), "a.db");
    note(&store, 1, "kept").await;
    let old_site = store.site();
    store.close().await;
    drop(store);
    for file in ["a.db", "a.db-wal"] {
        let _ = std::fs::copy(folder.path().join(file), folder.path().join(format!("backup-{file}")));
    }
    let store = open(folder.path(), "a.db");
    note(&store, 2, "written after the backup").await;
    peer.apply(log_of(&store, old_site, 0).await).await.expect("applied");
    store.close().await;
    drop(store);
    std::fs::copy(folder.path().join("backup-a.db"), folder.path().join("a.db")).expect("restored");
    let _ = std::fs::remove_file(folder.path().join("a.db-wal"));

    let restored = open(folder.path(), "a.db");
    assert_eq!(restored.site(), old_site);
    assert_eq!(restored.vector().get(old_site), Version(1));
    let new_site = restored.renew_site().await.expect("renewed");
    assert_ne!(new_site, old_site);
    assert_eq!(restored.vector().get(new_site), Version(1), "its first version retires the old site");
    assert_eq!(note(&restored, 3, "under the new name").await, Version(2));
    restored.apply(log_of(&peer, old_site, 1).await).await.expect("applied");
    peer.apply(log_of(&restored, new_site, 0).await).await.expect("applied");
    assert_eq!(restored.vector(), peer.vector());
    assert_eq!(dump(&restored).await, dump(&peer).await);
    assert_eq!(dump(&peer).await.iter().filter(|row| row.starts_with("note")).count(), 3);
    restored.close().await;
    drop(restored);
    let again = open(folder.path(), "a.db");
    assert_eq!((again.site(), again.vector()), (new_site, peer.vector()));
}

#[tokio::test]
async fn i2_only_the_disk_that_was_written_last_is_beyond_doubt() {
    let folder = tempfile::tempdir().expect("a folder");
    let (home, copy) = (folder.path().join("home"), folder.path().join("copy"));
    let store = open(&home, "a.db");
    assert!(!store.was_in_doubt(), "it has just been made");
    note(&store, 1, "one").await;
    store.close().await;
    std::fs::create_dir(&copy).expect("a folder");
    for file in ["a.db", "a.witness"] {
        std::fs::copy(home.join(file), copy.join(file)).expect("a copy");
    }
    assert!(open(&copy, "a.db").was_in_doubt(), "somebody may write to the original");

    for id in 2..4 {
        let store = open(&home, "a.db");
        assert!(!store.was_in_doubt(), "it is where it was, and as it was");
        note(&store, id, "more").await;
        store.close().await;
    }
    // In place, with the witness that was there.
    std::fs::copy(copy.join("a.db"), home.join("a.db")).expect("a copy");
    for _ in 0..2 {
        let store = open(&home, "a.db");
        assert!(store.was_in_doubt(), "it stays so until there is a new site");
        store.close().await;
    }
    let store = open(&home, "a.db");
    let old = store.site();
    let new = store.renew_site().await.expect("a new site");
    assert_ne!(old, new);
    note(&store, 9, "new").await;
    store.close().await;
    let store = open(&home, "a.db");
    assert!(!store.was_in_doubt());
    assert_eq!(store.site(), new);
    store.close().await;
    std::fs::remove_file(home.join("a.witness")).expect("removed");
    assert!(open(&home, "a.db").was_in_doubt());
}

#[tokio::test]
async fn i2_what_was_written_before_the_loss_was_noticed_goes_over_to_the_new_site() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, peer) = (open(folder.path(), "a.db"), open(folder.path(), "peer.db"));
    note(&store, 1, "kept").await;
    let old_site = store.site();
    store.close().await;
    drop(store);
    std::fs::copy(folder.path().join("a.db"), folder.path().join("backup.db")).expect("a backup");
    let store = open(folder.path(), "a.db");
    note(&store, 2, "lost here").await;
    peer.apply(log_of(&store, old_site, 0).await).await.expect("applied");
    store.close().await;
    drop(store);
    std::fs::copy(folder.path().join("backup.db"), folder.path().join("a.db")).expect("restored");
    let _ = std::fs::remove_file(folder.path().join("a.db-wal"));

    let restored = open(folder.path(), "a.db");
    assert_eq!(note(&restored, 3, "written too early").await, Version(2));
    let new_site = restored.renew_site().await.expect("renewed");
    assert_eq!(restored.vector().get(old_site), Version(1));
    assert_eq!(
        restored.vector().get(new_site),
        Version(3),
        "what went over, then the row that retires the old site"
    );
    assert_eq!(note(&restored, 4, "written after").await, Version(4));
    restored.apply(log_of(&peer, old_site, 1).await).await.expect("applied");
    peer.apply(log_of(&restored, new_site, 0).await).await.expect("applied");
    assert_eq!(restored.vector(), peer.vector());
    assert_eq!(dump(&restored).await, dump(&peer).await);
    assert_eq!(dump(&peer).await.iter().filter(|row| row.starts_with("note")).count(), 4);
}

#[tokio::test]
async fn a_second_writer_on_the_same_file_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let _first = open(folder.path(), "a.db");
    let second = Store::open(&folder.path().join("a.db"), &Schema::new(&[NOTES]), Box::new(Lengths));
    assert!(second.err().is_some_and(|error| error.to_string().contains("in use")));
}

#[tokio::test]
async fn waiting_for_a_vector_ends_when_it_is_reached_or_in_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (open(folder.path(), "a.db"), open(folder.path(), "b.db"));
    note(&a, 1, "one").await;
    let wanted = a.vector();
    assert!(!b.wait_for(&wanted, Duration::from_millis(20)).await);
    let waiting = b.wait_for(&wanted, Duration::from_secs(10));
    let log = log_of(&a, a.site(), 0).await;
    let (reached, _) = tokio::join!(waiting, b.apply(log));
    assert!(reached);
}

/// The others take the process with the larger generation for the living one.
#[tokio::test]
async fn a_node_whose_clock_was_set_back_still_starts_as_a_younger_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), "a.db");
    let first = store.generation();
    store.close().await;
    drop(store);

    // The clock was ten minutes ahead when the node ran last.
    let ahead = first + 600_000;
    let db = Connection::open(folder.path().join("a.db")).unwrap();
    let kept = mychat_replication::clock::Stamp::from_millis(ahead).to_u64().cast_signed();
    db.execute("UPDATE replication_node SET stamp = ?1", [kept]).unwrap();
    drop(db);
    let mut last = ahead;
    for _ in 0..2 {
        let store = open(folder.path(), "a.db");
        assert!(store.generation() > last, "{} after {last}", store.generation());
        last = store.generation();
        store.close().await;
    }
}

/// Stamps are reserved ahead: a node that was killed must not give one out again, and one that was stopped need not keep
/// clear of those that it never gave out.
#[tokio::test]
async fn stamps_after_a_restart_are_later_than_all_before() {
    async fn stamp(store: &Store) -> Stamp {
        let mark = Arc::new(Mutex::new(None));
        let given = Arc::clone(&mark);
        let written = store.write(move |batch| {
            let stamp = batch.stamp();
            *given.lock().expect("nobody panics") = Some(stamp);
            let key = vec!["who".into(), batch.site().0.into()];
            batch.set("mark", key, Some(stamp.to_u64().to_be_bytes().into()));
            Ok::<_, StoreError>(())
        });
        written.await.expect("it is written");
        mark.lock().expect("nobody panics").expect("a stamp was given out")
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), "a.db");
    let mut last = Stamp::default();
    for _ in 0..20 {
        last = stamp(&store).await;
    }
    // What a process leaves that is killed now.
    for (from, to) in [("a.db", "killed.db"), ("a.db-wal", "killed.db-wal")] {
        std::fs::copy(folder.path().join(from), folder.path().join(to)).unwrap();
    }
    let killed = open(folder.path(), "killed.db");
    assert_eq!(killed.vector(), store.vector(), "the own head is in the database");
    assert!(stamp(&killed).await > last);

    let last = stamp(&store).await;
    store.close().await;
    drop(store);
    let db = Connection::open(folder.path().join("a.db")).unwrap();
    let kept: i64 = db.query_row("SELECT stamp FROM replication_node", [], |row| row.get(0)).unwrap();
    assert!(Stamp::from_u64(kept.cast_unsigned()) >= last);
    assert_eq!(Stamp::from_u64(kept.cast_unsigned()).millis(), last.millis(), "nothing is reserved any more");
}
