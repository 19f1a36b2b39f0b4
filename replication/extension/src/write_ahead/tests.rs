use rusqlite::Connection;

use super::{HEADER, Kept, MOST, Next};
use crate::testing::Folder;

fn header(pages_after: u32) -> Vec<u8> {
    let mut header = vec![7; HEADER];
    header[4..8].copy_from_slice(&pages_after.to_be_bytes());
    header
}

#[test]
fn a_transaction_leaves_in_one_piece() {
    let page = vec![1; 4096];
    let mut kept = Kept::default();
    // A new log's header is passed on, and with it the log's end is known.
    assert_eq!(kept.add(&[0; 32], 0), Next::Both);
    let mut at = 32;
    for number in 1..=3 {
        assert_eq!(kept.add(&header(if number == 3 { 9 } else { 0 }), at), Next::Nothing);
        at += HEADER as i64;
        let next = kept.add(&page, at);
        assert_eq!(next, if number == 3 { Next::WriteKept } else { Next::Nothing });
        at += page.len() as i64;
    }
    assert_eq!((kept.at, kept.bytes.len()), (32, 3 * (HEADER + page.len())));
}

#[test]
fn what_does_not_follow_or_is_no_frame_is_passed_on() {
    let page = vec![1; 512];
    let mut kept = Kept::default();
    assert_eq!(kept.add(&header(0), 5000), Next::Both, "where the log ends is not known");
    assert_eq!(kept.add(&page, 5024), Next::Both, "the page of a header that was passed on");
    assert_eq!(kept.add(&header(0), 5536), Next::Nothing);
    assert_eq!(kept.add(&page, 5560), Next::Nothing);
    assert_eq!(kept.add(&page, 5024), Next::Both, "a page that is written over");
    kept.forget();
    assert_eq!(kept.add(&header(4), 5000), Next::Both, "a checksum that is mended");
    assert_eq!(kept.add(&header(4), 5024), Next::Nothing);
    assert_eq!(kept.add(&header(4), 5048), Next::Both, "a header where a page should be");
}

#[test]
fn large_transactions_leave_in_pieces() {
    for size in [512, 4096, 65_536] {
        let page = vec![1; size];
        let mut kept = Kept::default();
        let (mut at, mut written) = (0, 0);
        for _ in 0..1000 {
            let _ = kept.add(&header(0), at);
            if kept.add(&page, at + HEADER as i64) == Next::WriteKept {
                assert!(kept.bytes.len() <= MOST && kept.at == written);
                written += kept.bytes.len() as i64;
                kept.forget();
            }
            at += (HEADER + page.len()) as i64;
        }
        assert!(at - written <= MOST as i64, "{size}: {written} of {at}");
    }
}

#[test]
fn after_a_part_was_lost_nothing_follows_until_the_transaction_has_ended() {
    let page = vec![1; 512];
    let mut kept = Kept::default();
    let _ = kept.add(&[0; 32], 0);
    assert_eq!(kept.add(&header(0), 32), Next::Nothing);
    assert_eq!(kept.add(&page, 56), Next::Nothing);
    kept.lose();
    assert!(kept.bytes.is_empty());
    assert_eq!(kept.add(&header(4), 568), Next::Refuse);
    assert_eq!(kept.add(&page, 592), Next::Refuse);
    kept.end();
    assert_eq!(kept.add(&header(4), 32), Next::Both, "the next transaction");
    assert_eq!(kept.add(&header(4), 56), Next::Nothing);
}

fn open(folder: &Folder, settings: &str) -> Connection {
    let db = Connection::open(folder.path().join("some.db")).expect("a database");
    db.execute_batch("PRAGMA journal_mode = WAL").expect("a log");
    db.execute_batch(settings).expect("settings");
    db
}

fn count(db: &Connection) -> i64 {
    db.query_row("SELECT count(*) FROM row", [], |row| row.get(0)).expect("a count")
}

fn fill(db: &Connection, rows: i64) {
    db.execute(
        "WITH RECURSIVE n(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n LIMIT ?1)
         INSERT INTO row SELECT random(), randomblob(300) FROM n",
        [rows],
    )
    .expect("filled");
}

fn is_sound(db: &Connection) -> bool {
    db.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).expect("a check") == "ok"
}

/// Also where a commit waits for no sync, which would have written what is kept.
#[test]
fn others_see_each_commit_at_once() {
    for synchronous in ["FULL", "NORMAL", "OFF"] {
        let folder = Folder::new(&format!("commit-{synchronous}"));
        let writer = open(&folder, &format!("PRAGMA synchronous = {synchronous}"));
        writer.execute_batch("CREATE TABLE row (key INTEGER PRIMARY KEY, text BLOB)").expect("a table");
        let reader = open(&folder, "");
        for turn in 1..=50 {
            fill(&writer, 3);
            assert_eq!(count(&reader), turn * 3, "{synchronous}");
            if turn % 20 == 0 {
                reader.execute_batch("PRAGMA wal_checkpoint(RESTART)").expect("a checkpoint");
            }
        }
        // What a process that ends here leaves behind.
        let copy = Folder::new(&format!("copy-{synchronous}"));
        for file in ["some.db", "some.db-wal"] {
            std::fs::copy(folder.path().join(file), copy.path().join(file)).expect("a copy");
        }
        let copy = open(&copy, "");
        assert!(count(&copy) == 150 && is_sound(&copy), "{synchronous}");
    }
}

/// With next to no memory pages are put into the log within a transaction, read from there and written over.
#[test]
fn transactions_that_overflow_their_memory() {
    let folder = Folder::new("overflow");
    let db = open(&folder, "PRAGMA cache_size = 10; CREATE TABLE row (key INTEGER PRIMARY KEY, text BLOB)");
    let reader = open(&folder, "");
    let mut expected = 0;
    for turn in 0..20 {
        db.execute_batch("BEGIN").expect("begun");
        fill(&db, 200);
        db.execute_batch("SAVEPOINT part").expect("a part");
        fill(&db, 200);
        if turn % 3 == 0 {
            db.execute_batch("ROLLBACK TO part").expect("a part taken back");
        }
        db.execute_batch("UPDATE row SET text = randomblob(310) WHERE key % 7 = 0").expect("changed");
        assert_eq!(count(&reader), expected);
        if turn % 5 == 4 {
            db.execute_batch("ROLLBACK").expect("taken back");
        } else {
            db.execute_batch("COMMIT").expect("committed");
            expected += if turn % 3 == 0 { 200 } else { 400 };
        }
        assert_eq!((count(&reader), count(&db)), (expected, expected));
    }
    assert!(is_sound(&db) && is_sound(&reader));
}

/// What one connection took back, with pages of it kept, is not written over what another committed meanwhile.
#[test]
fn what_was_taken_back_stays_unwritten() {
    let folder = Folder::new("taken-back");
    let one = open(&folder, "PRAGMA cache_size = 10; CREATE TABLE row (key INTEGER PRIMARY KEY, text BLOB)");
    let other = open(&folder, "");
    for turn in 1..=20 {
        one.execute_batch("BEGIN").expect("begun");
        // In the order of their keys: new pages at the end, of which none is read again.
        one.execute_batch(
            "WITH RECURSIVE n(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n LIMIT 3000)
             INSERT INTO row SELECT (SELECT coalesce(max(key), 0) FROM row) + n, randomblob(300) FROM n",
        )
        .expect("filled");
        one.execute_batch("ROLLBACK").expect("taken back");
        other
            .execute_batch(
                "WITH RECURSIVE n(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n LIMIT 5000)
                 INSERT INTO row SELECT (SELECT coalesce(max(key), 0) FROM row) + n, randomblob(300) FROM n",
            )
            .expect("filled");
        assert_eq!((count(&one), count(&other)), (turn * 5000, turn * 5000));
    }
    drop(one);
    assert!(is_sound(&other) && is_sound(&open(&folder, "")));
}
