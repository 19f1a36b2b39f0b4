//! Adoption step by step, and what is refused.

use super::*;
use crate::store::{Batch, DeriveNothing, Migration};

const NOTES: &[Migration] = &[Migration {
    domain: "notes",
    number: 1,
    sql: "CREATE TABLE note (id INTEGER NOT NULL PRIMARY KEY, data BLOB) STRICT; SELECT crsql_as_crr('note');",
}];

fn open(path: &Path) -> Store {
    Store::open(path, &Schema::new(&[NOTES]), Box::new(DeriveNothing)).expect("it opens")
}

async fn write(store: &Store, ids: std::ops::Range<i64>) {
    for id in ids {
        let job = move |batch: &mut Batch<'_>| {
            batch.insert("note", vec![id.into()], vec![7; 100]);
            Ok::<_, StoreError>(())
        };
        store.write(job).await.expect("written");
    }
}

async fn count(store: &Store) -> i64 {
    let read = |db: &Connection| Ok(db.query_row("SELECT count(*) FROM note", [], |row| row.get(0))?);
    store.read::<_, StoreError>(read).await.expect("read")
}

/// The files of a folder as they are, as a loss of power would leave them.
fn image(folder: &Path) -> tempfile::TempDir {
    let image = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), image.path().join(entry.file_name())).expect("copied");
    }
    image
}

/// A copy of `from`, prepared to take the place of `to`.
async fn prepared(from: &Store, to: &Store) -> Incoming {
    let path = beside(to.path(), "-incoming");
    let copied = from.copy_to(path.clone(), |_| true).await.expect("copied");
    assert_eq!(copied.vector, *from.vector());
    to.prepare(path, copied.vector).await.expect("prepared")
}

#[tokio::test]
async fn a_crash_at_any_step_leaves_the_old_or_the_new_database_whole() {
    let (there, here) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let theirs = open(&there.path().join("a.db"));
    write(&theirs, 0..50).await;
    let path = here.path().join("b.db");
    let ours = open(&path);
    let (node, old) = (ours.node(), ours.site());
    let mut images = vec![image(here.path())];
    let incoming = prepared(&theirs, &ours).await;
    images.push(image(here.path()));
    ours.close().await;
    incoming.seal(Stamp::from_u64(0)).expect("sealed");
    images.push(image(here.path()));
    let mut steps = Vec::new();
    swap(&path, incoming.path(), |step| {
        steps.push(step);
        images.push(image(here.path()));
    })
    .expect("swapped");
    assert_eq!(steps, [Step::OldIsWhole, Step::Renamed, Step::Done]);

    let mut outcomes = Vec::new();
    for image in &images {
        let store = open(&image.path().join("b.db"));
        assert_eq!(store.node(), node);
        assert_ne!(store.site(), theirs.site(), "two nodes must never write one log");
        let new = store.site() != old;
        assert_eq!((count(&store).await, store.vector().len()), if new { (50, 1) } else { (0, 0) });
        // Whichever it is, it goes on.
        write(&store, 100..103).await;
        assert_eq!(store.vector().get(store.site()).0, 3);
        outcomes.push(new);
        store.close().await;
    }
    assert_eq!(outcomes, [false, false, false, false, true, true]);
}

#[tokio::test]
async fn readers_and_writers_go_on_over_an_adoption() {
    let folder = tempfile::tempdir().expect("a folder");
    let theirs = open(&folder.path().join("a.db"));
    let ours = open(&folder.path().join("b.db"));
    write(&theirs, 0..20).await;
    let (node, old) = (ours.node(), ours.site());
    let mut commits = ours.commits();
    assert_eq!(count(&ours).await, 0);
    let incoming = prepared(&theirs, &ours).await;
    // What is copied stays as it was, whatever is written since.
    write(&theirs, 20..30).await;
    let site = ours.adopt(incoming).await.expect("adopted");
    assert_eq!((ours.node(), ours.site()), (node, site));
    assert!(site != old && site != theirs.site());
    assert_eq!(count(&ours).await, 20);
    let told = commits.recv().await.expect("the watchers are told");
    assert!(told.frames.is_empty());
    assert_eq!(*told.vector, *ours.vector());
    write(&ours, 200..205).await;
    assert_eq!(ours.vector().get(site).0, 5);
    assert!(!beside(ours.path(), "-incoming").exists());

    // The other side gets the new log, and the same again out of what is on the disk.
    let log = ours.read_log(site, crate::log::Version(0), usize::MAX).await.expect("read").frames;
    let applied = theirs.apply(log.into_iter().map(Arc::new).collect()).await.expect("applied");
    assert_eq!(applied.gaps, 0);
    assert_eq!(count(&theirs).await, 35);
    ours.close().await;
    let ours = open(&folder.path().join("b.db"));
    assert_eq!((ours.site(), count(&ours).await), (site, 25));
}

#[tokio::test]
async fn a_copy_that_lacks_what_is_held_here_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let theirs = open(&folder.path().join("a.db"));
    let ours = open(&folder.path().join("b.db"));
    write(&theirs, 0..20).await;
    write(&ours, 100..101).await;
    let (site, vector) = (ours.site(), ours.vector());
    let incoming = prepared(&theirs, &ours).await;
    assert!(matches!(ours.adopt(incoming).await, Err(AdoptError::Lacks)));
    assert_eq!((ours.site(), ours.vector()), (site, vector));
    write(&ours, 101..103).await;
    assert_eq!(count(&ours).await, 3);
}

#[tokio::test]
async fn a_file_that_is_not_what_was_announced_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let theirs = open(&folder.path().join("a.db"));
    let ours = open(&folder.path().join("b.db"));
    write(&theirs, 0..200).await;
    let path = beside(ours.path(), "-incoming");
    let copied = theirs.copy_to(path.clone(), |_| true).await.expect("copied");
    let whole = std::fs::read(&path).expect("read");
    let mut holed = whole.clone();
    let middle = holed.len() / 2 / 4096 * 4096;
    holed[middle..middle + 4096].fill(0xaa);
    for (what, bytes) in [
        ("noise", vec![1; 9000]),
        ("empty", Vec::new()),
        ("cut off", whole[..whole.len() / 2].to_vec()),
        ("a hole", holed),
    ] {
        std::fs::write(&path, bytes).expect("written");
        let refused = ours.prepare(path.clone(), copied.vector.clone()).await;
        assert!(matches!(refused, Err(AdoptError::Damaged(_))), "{what}: {refused:?}");
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(beside(&path, suffix));
        }
    }
    std::fs::write(&path, &whole).expect("written");
    let other = VersionVector::new();
    assert!(matches!(ours.prepare(path.clone(), other).await, Err(AdoptError::Damaged(_))));
}

#[tokio::test]
async fn an_older_copy_is_migrated_and_a_newer_one_refused() {
    const MORE: &[Migration] = &[Migration {
        domain: "more",
        number: 1,
        sql: "CREATE TABLE more (id INTEGER NOT NULL PRIMARY KEY, data BLOB) STRICT; SELECT crsql_as_crr('more');",
    }];
    let folder = tempfile::tempdir().expect("a folder");
    let old = open(&folder.path().join("old.db"));
    let newer = Schema::new(&[NOTES, MORE]);
    let new = Store::open(&folder.path().join("new.db"), &newer, Box::new(DeriveNothing)).expect("it opens");
    write(&old, 0..5).await;
    let incoming = prepared(&old, &new).await;
    new.adopt(incoming).await.expect("adopted");
    let more = |batch: &mut Batch<'_>| {
        batch.insert("more", vec![1.into()], vec![1]);
        Ok::<_, StoreError>(())
    };
    new.write(more).await.expect("the newer table is there");
    assert!(!old.knows_migration("more", 1) && new.knows_migration("more", 1));

    let path = beside(old.path(), "-incoming");
    let copied = new.copy_to(path.clone(), |_| true).await.expect("copied");
    let refused = old.prepare(path, copied.vector).await;
    assert!(matches!(refused, Err(AdoptError::Unfit(OpenError::Newer { .. }))), "{refused:?}");
}

#[tokio::test]
async fn the_hybrid_time_does_not_go_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let theirs = open(&folder.path().join("a.db"));
    let ours = open(&folder.path().join("b.db"));
    write(&theirs, 0..1).await;
    let incoming = prepared(&theirs, &ours).await;
    // A job may take a stamp and write nothing that the others get to know of.
    let taken = ours.write(|batch| Ok::<_, StoreError>(batch.stamp())).await.expect("taken").value;
    ours.adopt(incoming).await.expect("adopted");
    assert!(ours.stamp_on_disk().await >= taken);
    ours.close().await;
    let ours = open(&folder.path().join("b.db"));
    let next = ours.write(|batch| Ok::<_, StoreError>(batch.stamp())).await.expect("taken").value;
    assert!(next > taken);
}

impl Store {
    /// The stamp that a restart would go on from.
    async fn stamp_on_disk(&self) -> Stamp {
        let read =
            |db: &Connection| Ok(db.query_row("SELECT stamp FROM replication_node", [], |row| row.get(0))?);
        let stamp: i64 = self.read::<_, StoreError>(read).await.expect("read");
        Stamp::from_u64(stamp.cast_unsigned())
    }
}
