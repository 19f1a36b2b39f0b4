//! What other nodes wrote is seen before it is on the disk, and said to be there only after.

use mychat_replication::store::Store;
use tempfile::TempDir;

use super::{log_of, note, open};

/// A node that wrote a note, and another one that has merged it.
async fn two() -> (TempDir, Store, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (open(folder.path(), "a.db"), open(folder.path(), "b.db"));
    note(&a, 1, "of the one").await;
    b.apply(log_of(&a, a.site(), 0).await).await.expect("the frame is merged");
    (folder, a, b)
}

/// Whether commits of the connection that writes would wait for the disk can't be asked from outside; what is known to be
/// durable can.
fn has_synced(store: &Store) -> bool {
    store.durable().covers(&store.vector())
}

#[tokio::test]
async fn a_frame_is_durable_after_a_sync() {
    let (_folder, a, b) = two().await;
    assert!(b.vector().covers(&a.vector()), "readers see it");
    assert_eq!(b.durable().get(a.site()).0, 0);
    b.sync().await.expect("the disk works");
    assert!(b.durable().covers(&a.vector()));
    let version = b.vector().get(b.site());
    b.sync().await.expect("there is nothing to do");
    assert_eq!(b.vector().get(b.site()), version, "a sync is no version");
}

#[tokio::test]
async fn a_local_commit_takes_along_what_was_merged_before_it() {
    let (_folder, a, b) = two().await;
    assert!(has_synced(&a) && !has_synced(&b));
    note(&b, 2, "of the other").await;
    assert!(has_synced(&b));
}

#[tokio::test]
async fn a_job_that_finds_its_work_done_is_answered_when_that_is_durable() {
    let (_folder, a, b) = two().await;
    // The same note, which is there already.
    note(&b, 1, "of the one").await;
    assert_eq!(b.vector().get(b.site()).0, 0, "nothing was written");
    assert!(b.durable().covers(&a.vector()));
}

#[tokio::test]
async fn a_start_brings_to_the_disk_what_the_process_before_it_left() {
    let (folder, a, b) = two().await;
    b.close().await;
    drop(b);
    let b = open(folder.path(), "b.db");
    assert!(b.durable().covers(&a.vector()));
}
