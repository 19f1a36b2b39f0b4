//! What a store can't take in now: what a newer program writes, what fails, and what the disk refuses.

use std::{path::Path, sync::Arc, time::Duration};

use mychat_replication::{
    clock::Stamp,
    log::{Change, Frame, GroupId, SiteId, Value, Version, key},
    store::{Applied, Derive, DiskFault, Health, Migration, Row, Schema, Store, StoreError},
};
use rusqlite::Connection;

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(30);

const NOTES: &[Migration] = &[Migration {
    domain: "notes",
    number: 1,
    sql: "CREATE TABLE note (id BLOB NOT NULL PRIMARY KEY, data BLOB) STRICT, WITHOUT ROWID;
          SELECT crsql_as_crr('note');
          CREATE TABLE local_note (id BLOB PRIMARY KEY, length INTEGER) STRICT, WITHOUT ROWID;",
}];
/// What the next release adds.
const LATER: &[Migration] = &[Migration {
    domain: "later",
    number: 1,
    sql: "CREATE TABLE later (id BLOB NOT NULL PRIMARY KEY, data BLOB) STRICT, WITHOUT ROWID;
          SELECT crsql_as_crr('later');
          CREATE TABLE local_later (id BLOB PRIMARY KEY, length INTEGER) STRICT, WITHOUT ROWID;",
}];
/// And the one after it.
const LAST: &[Migration] = &[Migration {
    domain: "last",
    number: 1,
    sql: "CREATE TABLE last (id BLOB NOT NULL PRIMARY KEY, data BLOB) STRICT, WITHOUT ROWID;
          SELECT crsql_as_crr('last');",
}];

/// Keeps the length of each row's data after its first byte, which is a format: `formats` are those that it knows.
struct Lengths {
    formats: u8,
}

impl Derive for Lengths {
    fn derive(&mut self, db: &Connection, rows: &[Row<'_>]) -> rusqlite::Result<()> {
        for row in rows.iter().filter(|row| self.understands(row)) {
            assert_ne!(row.data, Some(&[1, b'!'][..]), "a bug that one row lays bare");
            if row.data == Some(&[1, b'?']) {
                return Err(rusqlite::Error::InvalidQuery);
            }
            let length = row.data.map(|data| data.len() as i64 - 1);
            let sql = match row.table {
                "note" => "INSERT OR REPLACE INTO local_note VALUES (?1, ?2)",
                "later" => "INSERT OR REPLACE INTO local_later VALUES (?1, ?2)",
                _ => continue,
            };
            db.prepare_cached(sql)?.execute((&row.key[0], length))?;
        }
        Ok(())
    }

    fn understands(&self, row: &Row<'_>) -> bool {
        row.data.and_then(|data| data.first()).is_none_or(|format| *format <= self.formats)
    }
}

/// A [`Lengths`] without the bugs.
struct Mended(Lengths);

impl Derive for Mended {
    fn derive(&mut self, db: &Connection, rows: &[Row<'_>]) -> rusqlite::Result<()> {
        let sound: Vec<Row<'_>> = rows
            .iter()
            .map(|row| Row {
                data: row.data.map(|data| if data.len() == 2 { &[1, 0] } else { data }),
                ..row.clone()
            })
            .collect();
        self.0.derive(db, &sound)
    }
}

fn open(folder: &Path, name: &str, schema: &[&[Migration]], formats: u8) -> Store {
    Store::open(&folder.join(name), &Schema::new(schema), Box::new(Lengths { formats })).expect("it opens")
}

async fn reopen(store: Store, folder: &Path, name: &str, schema: &[&[Migration]], formats: u8) -> Store {
    store.close().await;
    drop(store);
    open(folder, name, schema, formats)
}

/// Writes rows of one byte of key in one version.
async fn write(store: &Store, rows: &[(&'static str, u8, Option<&[u8]>)]) {
    let rows: Vec<_> = rows.iter().map(|(table, id, data)| (*table, *id, data.map(<[u8]>::to_vec))).collect();
    let written = store.write(move |batch| {
        for (table, id, data) in rows {
            batch.set(table, vec![vec![id].into()], data);
        }
        Ok::<_, StoreError>(())
    });
    written.await.expect("written");
}

async fn log_of(store: &Store, site: SiteId, after: u64) -> Vec<Arc<Frame>> {
    let read = store.read_log(site, Version(after), usize::MAX).await.expect("the log is read");
    assert!(read.complete);
    read.frames.into_iter().map(Arc::new).collect()
}

async fn dump(store: &Store, tables: &'static [&'static str]) -> Vec<String> {
    let read = store.read(move |db| {
        let mut rows = Vec::new();
        for table in tables {
            let mut statement = db.prepare(&format!("SELECT * FROM {table} ORDER BY 1"))?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                rows.push(format!("{table} {:?} {:?}", row.get::<_, Value>(0)?, row.get::<_, Value>(1)?));
            }
        }
        Ok::<_, StoreError>(rows)
    });
    read.await.expect("the tables are read")
}

async fn count(store: &Store, table: &'static str) -> i64 {
    let read = store.read(move |db| {
        Ok::<_, StoreError>(db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?)
    });
    read.await.expect("counted")
}

const ALL: &[&str] = &["note", "later", "local_note", "local_later"];

#[tokio::test]
async fn i4_convergent_what_a_newer_program_writes_waits_for_the_migration_and_then_all_is_equal() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let new = open(path, "new.db", &[NOTES, LATER], 1);
    // In one version what the old program knows and what it does not; a cell that is overwritten later; one that is
    // erased.
    write(&new, &[("note", 1, Some(&[1, 1])), ("later", 1, Some(&[1, 1])), ("note", 2, Some(&[1, 1, 1]))])
        .await;
    write(&new, &[("later", 2, Some(&[1, 2]))]).await;
    write(&new, &[("later", 3, Some(b"\x01secret")), ("note", 3, Some(&[1]))]).await;
    let early = log_of(&new, new.site(), 0).await;
    write(&new, &[("later", 1, Some(&[1, 1, 1, 1])), ("note", 1, Some(&[1, 1, 1, 1]))]).await;
    write(&new, &[("later", 3, None)]).await;
    let late = log_of(&new, new.site(), 3).await;

    let old = open(path, "old.db", &[NOTES], 1);
    let outcome = old.apply(early.clone()).await.expect("applied");
    assert_eq!(outcome, Applied { applied: 3, held: 3, ..Applied::default() });
    assert_eq!(old.vector(), Arc::new([(new.site(), Version(3))].into_iter().collect()));
    assert_eq!(count(&old, "note").await, 3, "what it knows is there at once");
    assert_eq!(count(&old, "local_note").await, 3);
    // It serves the log as it came.
    let changes = |log: &[Arc<Frame>]| log.iter().map(|frame| frame.changes.clone()).collect::<Vec<_>>();
    assert_eq!(changes(&log_of(&old, new.site(), 0).await), changes(&early));
    old.apply(late).await.expect("applied");
    assert_eq!(old.vector(), new.vector());

    // Another new one gets everything from the old one alone.
    let third = open(path, "third.db", &[NOTES, LATER], 1);
    third.apply(log_of(&old, new.site(), 0).await).await.expect("applied");
    assert_eq!(dump(&third, ALL).await, dump(&new, ALL).await);

    // The old one writes on, is upgraded, and equals the new one.
    write(&old, &[("note", 9, Some(&[1, 9]))]).await;
    new.apply(log_of(&old, old.site(), 0).await).await.expect("applied");
    let upgraded = reopen(old, path, "old.db", &[NOTES, LATER], 1).await;
    assert_eq!(dump(&upgraded, ALL).await, dump(&new, ALL).await);
    assert_eq!(count(&upgraded, "replication_held").await, 0);
    // And goes on as one.
    write(&upgraded, &[("later", 2, Some(&[1, 2, 2]))]).await;
    new.apply(log_of(&upgraded, upgraded.site(), 1).await).await.expect("applied");
    assert_eq!(dump(&upgraded, ALL).await, dump(&new, ALL).await);
    assert_eq!(upgraded.vector(), new.vector());
}

#[tokio::test]
async fn what_waits_for_two_migrations_finds_its_place_after_each() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let new = open(path, "new.db", &[NOTES, LATER, LAST], 1);
    write(&new, &[("last", 1, Some(&[1])), ("later", 1, Some(&[1])), ("note", 1, Some(&[1]))]).await;
    let log = log_of(&new, new.site(), 0).await;

    let old = open(path, "old.db", &[NOTES], 1);
    old.apply(log.clone()).await.expect("applied");
    let old = reopen(old, path, "old.db", &[NOTES, LATER], 1).await;
    assert_eq!((count(&old, "later").await, count(&old, "replication_held").await), (1, 1));
    assert_eq!(log_of(&old, new.site(), 0).await[0].changes, log[0].changes);
    let old = reopen(old, path, "old.db", &[NOTES, LATER, LAST], 1).await;
    assert_eq!((count(&old, "last").await, count(&old, "replication_held").await), (1, 0));
    // A held frame comes again to whoever lost it with its disk, and changes nothing.
    assert_eq!(old.apply(log).await.expect("works").duplicates, 1);
}

#[tokio::test]
async fn a_row_in_an_unknown_format_is_kept_and_derived_from_by_the_program_that_knows_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let new = open(path, "new.db", &[NOTES], 2);
    write(
        &new,
        &[
            ("note", 1, Some(&[2, 1, 1])),
            ("note", 2, Some(&[1])),
            ("note", 3, Some(&[2])),
            ("note", 4, Some(&[3])),
        ],
    )
    .await;
    let old = open(path, "old.db", &[NOTES], 1);
    let outcome = old.apply(log_of(&new, new.site(), 0).await).await.expect("applied");
    assert_eq!(outcome, Applied { applied: 1, ..Applied::default() });
    assert_eq!(dump(&old, &["note"]).await, dump(&new, &["note"]).await, "kept as it is");
    assert_eq!((count(&old, "local_note").await, count(&old, "replication_underived").await), (1, 3));
    // One of them is overwritten meanwhile by what the old one knows.
    write(&old, &[("note", 3, Some(&[1, 3, 3, 3]))]).await;
    new.apply(log_of(&old, old.site(), 0).await).await.expect("applied");

    let old = reopen(old, path, "old.db", &[NOTES], 1).await;
    assert_eq!(count(&old, "local_note").await, 2, "still not understood");
    let upgraded = reopen(old, path, "old.db", &[NOTES], 2).await;
    assert_eq!(dump(&upgraded, &["note", "local_note"]).await, dump(&new, &["note", "local_note"]).await);
    // One that neither knows stays noted.
    assert_eq!(count(&upgraded, "replication_underived").await, 1);
}

#[tokio::test]
async fn a_frame_that_fails_is_quarantined_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let writer = Store::open(
        &path.join("writer.db"),
        &Schema::new(&[NOTES, LATER]),
        Box::new(Mended(Lengths { formats: 1 })),
    )
    .expect("it opens");
    write(&writer, &[("note", 1, Some(&[1]))]).await;
    write(&writer, &[("note", 2, Some(b"\x01?")), ("note", 3, Some(&[1])), ("later", 1, Some(&[1]))]).await;
    write(&writer, &[("note", 4, Some(b"\x01!"))]).await;
    write(&writer, &[("note", 5, Some(&[1, 5, 5]))]).await;
    let log = log_of(&writer, writer.site(), 0).await;

    let store = open(path, "a.db", &[NOTES], 1);
    let outcome = store.apply(log.clone()).await.expect("the store works");
    assert_eq!(outcome, Applied { applied: 4, held: 1, quarantined: 2, ..Applied::default() });
    assert_eq!(store.vector(), writer.vector());
    assert_eq!(
        (count(&store, "note").await, count(&store, "local_note").await),
        (2, 2),
        "all of a frame or nothing"
    );
    write(&store, &[("note", 6, Some(&[1]))]).await;
    // It is in the log that others get.
    let served = log_of(&store, writer.site(), 0).await;
    assert!(
        served.iter().map(|frame| &frame.changes).eq(log.iter().map(|frame| &frame.changes)),
        "{served:?}"
    );

    // It stays aside as long as it fails, and is merged by a program that has been mended.
    let store = reopen(store, path, "a.db", &[NOTES, LATER], 1).await;
    assert_eq!((count(&store, "replication_quarantine").await, count(&store, "later").await), (2, 1));
    store.close().await;
    drop(store);
    let schema = Schema::new(&[NOTES, LATER]);
    let store =
        Store::open(&path.join("a.db"), &schema, Box::new(Mended(Lengths { formats: 1 }))).expect("opens");
    assert_eq!(count(&store, "replication_quarantine").await, 0);
    writer.apply(log_of(&store, store.site(), 0).await).await.expect("applied");
    assert_eq!(dump(&store, ALL).await, dump(&writer, ALL).await);
}

#[tokio::test]
async fn what_is_written_after_a_change_that_can_not_be_merged_is_in_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "a.db", &[NOTES], 1);
    let change = |key: Vec<u8>, value: Value| Change {
        table: "note".into(),
        key,
        column: "data".into(),
        value,
        column_version: 1,
        causal_length: 1,
        sequence: 0,
    };
    // A key that is none, a value of a type that the table refuses, a key of another shape.
    for (version, broken) in [
        change(vec![1, 0x0c, 9, 9], vec![1].into()),
        change(key::pack(&[vec![1].into()]), 5.into()),
        change(key::pack(&[1.into(), 2.into()]), vec![1].into()),
    ]
    .into_iter()
    .enumerate()
    {
        let after = Version(version as u64);
        let frame = Frame {
            group: GroupId::GLOBAL,
            site: SiteId([7; 16]),
            after,
            version: Version(after.0 + 1),
            stamp: Stamp::default(),
            changes: vec![broken],
        };
        let outcome = store.apply(vec![Arc::new(frame)]).await.expect("the store works");
        assert_eq!(outcome, Applied { applied: 1, quarantined: 1, ..Applied::default() });
        write(&store, &[("note", 10 + version as u8, Some(&[1]))]).await;
    }
    let log = log_of(&store, store.site(), 0).await;
    assert_eq!(log.iter().map(|frame| frame.changes.len()).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(log_of(&store, SiteId([7; 16]), 0).await.len(), 3, "the broken ones are passed on");
}

/// Lets the database grow by a few pages at the most, until a commit has failed.
async fn confine(store: &Store, pages: i64) {
    let set = store.write(move |batch| {
        let now: i64 = batch.connection().query_row("PRAGMA page_count", [], |row| row.get(0))?;
        let most = format!("PRAGMA max_page_count = {}", now + pages);
        batch.connection().query_row(&most, [], |_| Ok(()))?;
        Ok::<_, StoreError>(())
    });
    set.await.expect("nothing is written");
}

#[tokio::test]
async fn i2_after_a_commit_that_the_disk_refuses_the_vector_is_read_anew_and_writing_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let (store, peer) = (open(path, "a.db", &[NOTES], 1), open(path, "peer.db", &[NOTES], 1));
    let large = vec![1; 60_000];
    write(&peer, &[("note", 100, Some(&large))]).await;
    write(&peer, &[("note", 101, Some(&[1]))]).await;
    let remote = log_of(&peer, peer.site(), 0).await;
    write(&store, &[("note", 1, Some(&[1]))]).await;
    let mut health = store.health();
    assert_eq!(*health.borrow_and_update(), Health::Well);

    confine(&store, 2).await;
    let before = store.vector();
    let refused = store.write({
        let large = large.clone();
        move |batch| {
            batch.set("note", vec![vec![2u8].into()], Some(large));
            Ok::<_, StoreError>(())
        }
    });
    let error = refused.await.expect_err("there is no room");
    assert_eq!(error.disk_fault(), Some(DiskFault::Full), "{error}");
    assert!(health.has_changed().expect("it lives"));
    // The limit was that of a connection, which has been opened anew.
    confine(&store, 2).await;
    let error = store.apply(remote.clone()).await.expect_err("there is no room");
    assert_eq!(error.disk_fault(), Some(DiskFault::Full), "{error}");
    assert_eq!((store.vector(), count(&store, "note").await), (before, 1), "nothing half-written");
    // The writer finds out by itself that the disk takes small commits again.
    let well = tokio::time::timeout(PATIENCE, health.wait_for(|health| *health == Health::Well));
    well.await.expect("in time").expect("it lives");

    write(&store, &[("note", 3, Some(&[1, 3]))]).await;
    let applied = store.apply(remote).await.expect("there is room");
    assert_eq!(applied, Applied { applied: 2, ..Applied::default() });
    // No version is burnt: the log has no gap, and the others take it.
    assert_eq!(store.vector().get(store.site()), Version(2));
    peer.apply(log_of(&store, store.site(), 0).await).await.expect("applied");
    assert_eq!(peer.vector(), store.vector());
    assert_eq!(dump(&peer, &["note"]).await, dump(&store, &["note"]).await);
}
