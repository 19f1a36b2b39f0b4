//! Rows that are new to a node are written without the extension's triggers and merge: whatever is written here, or comes
//! from others in whatever order, the tables must be those that the extension makes of the same.

use std::sync::Arc;

use mychat_replication::{
    log::Frame,
    store::{Store, StoreError},
};
use proptest::prelude::*;
use rusqlite::{Connection, types::Value};

use super::{NOTES, log_of, mark, note, open};

/// What one of two nodes writes.
#[derive(Debug, Clone)]
enum Write {
    Note(u8),
    Erase(u8),
    Mark(u8),
}

fn writes() -> impl Strategy<Value = Vec<(bool, Write)>> {
    // Few names, so that both write the same rows, and the same one more than once.
    let write = prop_oneof![
        (0u8..6).prop_map(Write::Note),
        (0u8..6).prop_map(Write::Erase),
        any::<u8>().prop_map(Write::Mark)
    ];
    prop::collection::vec((any::<bool>(), write), 1..24)
}

async fn erase(store: &Store, id: u8) {
    store
        .write(move |batch| {
            batch.set("note", vec![b"space".as_slice().into(), vec![id].into()], None);
            Ok::<_, StoreError>(())
        })
        .await
        .expect("the note is erased");
}

const TEXTS: [&str; 2] = ["of the one", "of the other"];

/// The logs of two nodes that wrote so, whose tables are as the extension would have written them.
async fn logs(writes: &[(bool, Write)]) -> [Vec<Arc<Frame>>; 2] {
    let folder = tempfile::tempdir().expect("a folder");
    let nodes = [open(folder.path(), "a.db"), open(folder.path(), "b.db")];
    for (at, write) in writes {
        let store = &nodes[usize::from(*at)];
        match write {
            Write::Note(id) => drop(note(store, *id, TEXTS[usize::from(*at)]).await),
            Write::Erase(id) => erase(store, *id).await,
            Write::Mark(read) => mark(store, "somebody", Some(&[*read])).await,
        }
    }
    for (at, store) in nodes.iter().enumerate() {
        let own = writes.iter().filter(|(of, _)| usize::from(*of) == at).map(|(_, write)| write);
        let written = store.read(|db| Ok::<_, StoreError>(dump(db)?)).await.expect("the tables are read");
        let expected = written_by_the_extension(own, TEXTS[at], store.site().0);
        assert_eq!(written, expected.expect("the extension writes"));
    }
    let [a, b] = &nodes;
    [log_of(a, a.site(), 0).await, log_of(b, b.site(), 0).await]
}

/// A database without anything of ours.
fn with_the_extension() -> rusqlite::Result<Connection> {
    let db = Connection::open_in_memory()?;
    mychat_crsqlite::load(&db).expect("the extension loads");
    db.query_row("SELECT crsql_config_set('merge-equal-values', 1)", [], |_| Ok(()))?;
    db.execute_batch(NOTES[0].sql)?;
    Ok(db)
}

/// What its triggers make of writes.
fn written_by_the_extension<'a>(
    writes: impl Iterator<Item = &'a Write>,
    text: &str,
    site: [u8; 16],
) -> rusqlite::Result<Vec<String>> {
    let db = with_the_extension()?;
    let over = "ON CONFLICT DO UPDATE SET data = excluded.data WHERE data IS NOT excluded.data";
    for write in writes {
        db.execute_batch("BEGIN; SELECT crsql_set_ts('0')")?;
        match write {
            Write::Note(id) => db.execute(
                "INSERT INTO note VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                (b"space", [*id], text.as_bytes()),
            )?,
            Write::Erase(id) => {
                db.execute(&format!("INSERT INTO note VALUES (?1, ?2, NULL) {over}"), (b"space", [*id]))?
            }
            Write::Mark(read) => db.execute(
                &format!("INSERT INTO mark VALUES (?1, ?2, ?3) {over}"),
                ("somebody", site, [*read]),
            )?,
        };
        db.execute_batch("COMMIT")?;
    }
    let dump = dump(&db)?;
    mychat_crsqlite::finalize(&db)?;
    Ok(dump)
}

/// What its merge makes of frames.
fn merged_by_the_extension(frames: &[Arc<Frame>]) -> rusqlite::Result<Vec<String>> {
    let db = with_the_extension()?;
    for frame in frames {
        db.execute_batch("BEGIN")?;
        for change in &frame.changes {
            db.execute(
                "INSERT INTO crsql_changes (\"table\", pk, cid, val, col_version, db_version, site_id, cl, seq, ts)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, '0')",
                (
                    &*change.table,
                    &change.key,
                    &*change.column,
                    &change.value,
                    change.column_version,
                    frame.version.0 as i64,
                    frame.site.0,
                    change.causal_length,
                    change.sequence,
                ),
            )?;
        }
        db.execute_batch("COMMIT")?;
    }
    let dump = dump(&db)?;
    mychat_crsqlite::finalize(&db)?;
    Ok(dump)
}

/// All that there is of the two tables, and what the extension keeps of other sites.
fn dump(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut lines = Vec::new();
    for (table, filter) in [
        ("note", ""),
        ("note__crsql_pks", ""),
        ("note__crsql_clock", ""),
        ("mark", ""),
        ("mark__crsql_pks", ""),
        ("mark__crsql_clock", ""),
        ("crsql_site_id", "WHERE ordinal <> 0"),
        ("crsql_db_versions", "WHERE site_id IN (SELECT site_id FROM crsql_site_id WHERE ordinal <> 0)"),
    ] {
        let mut rows = db.prepare(&format!("SELECT * FROM {table} {filter} ORDER BY 1, 2"))?;
        let columns = rows.column_count();
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let cells: Vec<Value> = (0..columns).map(|at| row.get(at)).collect::<rusqlite::Result<_>>()?;
            lines.push(format!("{table} {cells:?}"));
        }
    }
    Ok(lines)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn new_rows_are_written_as_the_extension_writes_them(
        writes in writes(),
        order in prop::collection::vec(any::<bool>(), 64),
        together in 1usize..5,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let [a, b] = logs(&writes).await;
            let (mut a, mut b) = (a.into_iter(), b.into_iter());
            let turns = order.into_iter().filter_map(|turn| if turn { a.next() } else { b.next() });
            let mut frames: Vec<_> = turns.collect();
            frames.extend(a.chain(b));
            let folder = tempfile::tempdir().expect("a folder");
            let store = open(folder.path(), "c.db");
            for some in frames.chunks(together) {
                let applied = store.apply(some.to_vec()).await.expect("the frames are merged");
                assert_eq!(applied.applied, some.len());
            }
            let merged = store.read(|db| Ok::<_, StoreError>(dump(db)?)).await.expect("the tables are read");
            assert_eq!(merged, merged_by_the_extension(&frames).expect("the extension merges"));
            // A row that this node overwrites after a merge is in its log as such: the triggers look again.
            mark(&store, "myself", Some(&[1])).await;
            let other = open(folder.path(), "d.db");
            for id in [200, 201] {
                note(&other, id, "of a third").await;
            }
            store.apply(log_of(&other, other.site(), 0).await).await.expect("the frames are merged");
            mark(&store, "myself", Some(&[2])).await;
            let own = log_of(&store, store.site(), 0).await;
            assert_eq!(own.iter().map(|frame| frame.version.0).collect::<Vec<_>>(), [2]);
            assert_eq!(own[0].changes[0].column_version, 2);
        });
    }
}
