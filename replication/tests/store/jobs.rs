//! What is asked of the writer's jobs: which share a commit, which wait, and which are refused.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use mychat_replication::{
    log::Version,
    store::{Batch, DiskFault, Store, StoreError},
};

use super::{dump, log_of, note, open};

/// A job that runs until it is told to go on; tells when it has begun.
fn held_up() -> (impl FnOnce(), tokio::sync::oneshot::Receiver<()>, std::sync::mpsc::Sender<()>) {
    let (begins, begun) = tokio::sync::oneshot::channel();
    let (go_on, held_up) = std::sync::mpsc::channel();
    let job = move || {
        let _ = begins.send(());
        let _ = held_up.recv();
    };
    (job, begun, go_on)
}

#[tokio::test]
async fn a_job_that_fails_writes_nothing_and_the_group_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "a.db");
    let refused = store.write(|batch| {
        batch.insert("note", vec![b"space".as_slice().into(), vec![1u8].into()], b"never".to_vec());
        Err::<(), _>(StoreError::Busy)
    });
    let panicked = store.write(|_| -> Result<(), StoreError> { panic!("a bug in a rule") });
    let fine = note(&store, 2, "kept");
    let (refused, panicked, fine) = tokio::join!(refused, panicked, fine);
    assert!(matches!(refused, Err(StoreError::Busy)));
    assert!(matches!(panicked, Err(StoreError::Job)));
    assert_eq!(fine, Version(1));
    assert_eq!(dump(&store).await.len(), 2);
}

#[tokio::test]
async fn what_a_group_had_written_is_refused_when_its_transaction_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "a.db");
    let (wait, begun, go_on) = held_up();
    let row = |id: u8| {
        move |batch: &mut Batch<'_>| {
            batch.insert("note", vec![b"space".as_slice().into(), vec![id].into()], b"text".to_vec());
            Ok::<_, StoreError>(())
        }
    };
    // As SQLite does it when the disk fails a statement that reads.
    let loses = |batch: &mut Batch<'_>| -> Result<(), StoreError> {
        Ok(batch.connection().execute_batch("ROLLBACK")?)
    };
    let held_up = store.write(move |_| {
        wait();
        Ok::<_, StoreError>(())
    });
    let group = async {
        begun.await.expect("the first job runs");
        let group = async {
            tokio::join!(store.write(row(1)), store.write(loses), store.write(row(2)), store.write(row(3)))
        };
        let go_on = async { go_on.send(()).expect("the writer waits") };
        tokio::join!(group, go_on).0
    };
    let (held_up, (before, lost, after, later)) = tokio::join!(held_up, group);
    for (name, result) in
        [("held up", held_up.map(drop)), ("before", before.map(drop)), ("lost", lost.map(drop))]
    {
        let error = result.expect_err(name);
        assert_eq!(error.disk_fault(), Some(DiskFault::Failing), "{name}: {error}");
    }
    // Those after it have another transaction.
    after.and(later).expect("the disk takes writes");
    assert_eq!(
        log_of(&store, store.site(), 0).await.iter().map(|frame| frame.changes.len()).sum::<usize>(),
        2
    );
    assert_eq!(note(&store, 1, "again").await, Version(store.vector().get(store.site()).0));
}

#[tokio::test]
async fn a_read_that_panics_leaves_no_snapshot_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "a.db");
    note(&store, 1, "first").await;
    let read = store.read(|db| -> Result<(), StoreError> {
        let notes: i64 = db.query_row("SELECT count(*) FROM note", [], |row| row.get(0))?;
        panic!("a bug in a read, with {notes} notes in sight");
    });
    assert!(matches!(read.await, Err(StoreError::Job)));
    note(&store, 2, "second").await;
    let other = rusqlite::Connection::open(folder.path().join("a.db")).expect("another connection");
    let busy: i64 =
        other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).expect("a checkpoint");
    assert_eq!(busy, 0, "the log can begin anew");
}

#[tokio::test(start_paused = true)]
async fn jobs_wait_for_places_by_what_they_hold_and_are_refused_in_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "a.db");
    let (wait, _begun, go_on) = held_up();
    let slow = store.write(move |_| {
        wait();
        Ok::<_, StoreError>(())
    });
    let whole_queue = || store.write_sized(usize::MAX, |_| Ok::<_, StoreError>(()));
    let small = store.write(|_| Ok::<_, StoreError>(()));
    let refused = async {
        let refused = whole_queue().await;
        go_on.send(()).expect("the writer waits");
        refused
    };
    let (slow, small, refused) = tokio::join!(slow, small, refused);
    slow.and(small).expect("there was room for both");
    assert!(matches!(refused, Err(StoreError::Busy)), "there was not room for all");
    whole_queue().await.expect("there is now");
}

#[tokio::test]
async fn a_job_that_comes_while_another_runs_shares_its_commit() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "a.db");
    let (wait, begun, go_on) = held_up();
    let first = store.write(move |batch| {
        batch.insert("note", vec![b"space".as_slice().into(), vec![1u8].into()], b"first".to_vec());
        wait();
        Ok::<_, StoreError>(())
    });
    let late = async {
        begun.await.expect("it runs");
        let mut late = Box::pin(note(&store, 2, "late"));
        // It is in the queue once it has been asked for.
        assert!(std::future::poll_fn(|cx| Poll::Ready(late.as_mut().poll(cx).is_pending())).await);
        go_on.send(()).expect("the writer waits");
        late.await
    };
    let (first, late) = tokio::join!(first, late);
    assert_eq!(first.expect("written").end, Some((store.site(), late)), "one commit for both");
}

/// Asks a store for a job, when it runs for another one, and so on until `enough` have run.
fn ask_again_and_again(store: &Store, runtime: tokio::runtime::Handle, ran: Arc<AtomicU32>, enough: u32) {
    let again = store.clone();
    let mut asked = Box::pin(store.write(move |_| {
        if ran.fetch_add(1, Relaxed) < enough {
            let _inside = runtime.enter();
            ask_again_and_again(&again, runtime.clone(), ran, enough);
        }
        Ok::<_, StoreError>(())
    }));
    // That is enough for it to be in the queue.
    let _ = asked.as_mut().poll(&mut Context::from_waker(Waker::noop()));
}

#[tokio::test]
async fn jobs_without_end_do_not_keep_what_peers_sent_waiting() {
    // The places of the queue would end it, too, but later.
    const ENOUGH: u32 = 2000;
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (open(folder.path(), "a.db"), open(folder.path(), "b.db"));
    note(&b, 1, "from afar").await;
    let frames = log_of(&b, b.site(), 0).await;
    let ran = Arc::new(AtomicU32::new(0));
    let (wait, begun, go_on) = held_up();
    let first = a.write(move |_| {
        wait();
        Ok::<_, StoreError>(())
    });
    let others = async {
        begun.await.expect("it runs");
        ask_again_and_again(&a, tokio::runtime::Handle::current(), Arc::clone(&ran), ENOUGH);
        let mut apply = Box::pin(a.apply(frames));
        assert!(std::future::poll_fn(|cx| Poll::Ready(apply.as_mut().poll(cx).is_pending())).await);
        go_on.send(()).expect("the writer waits");
        apply.await.expect("applied").applied
    };
    let (first, applied) = tokio::join!(first, others);
    first.expect("done");
    assert_eq!(applied, 1);
    assert!(ran.swap(ENOUGH, Relaxed) < ENOUGH, "there were jobs all the while");
}

#[tokio::test]
async fn concurrent_jobs_share_versions_within_the_bound() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "a.db");
    let mut commits = store.commits();
    let mut tasks = tokio::task::JoinSet::new();
    for id in 0..600u32 {
        let store = store.clone();
        tasks.spawn(async move {
            store
                .write(move |batch| {
                    batch.insert("note", vec![id.to_be_bytes().into(), vec![0].into()], vec![1; 300]);
                    Ok::<_, StoreError>(())
                })
                .await
                .expect("written")
        });
    }
    while tasks.join_next().await.is_some() {}
    let mut rows = 0;
    while let Ok(commit) = commits.try_recv() {
        for frame in &commit.frames {
            assert!(frame.changes.len() <= 256 && frame.size() <= (64 << 10) + 1000);
            rows += frame.changes.len();
        }
    }
    assert_eq!(rows, 600);
    assert!(store.vector().get(store.site()).0 < 600, "nothing was grouped");
}
