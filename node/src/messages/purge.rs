//! Governance deletion: everything that was said in a range of time goes, on every node.
//!
//! A fact for the range is stated first; from then on each node hides what is in it, also what arrives later from a
//! node that was cut off. Then the messages are overwritten with their tombstones, a bounded number at a time, so
//! that other writes get their turn.

use mychat_replication::store::{Batch, Store};
use rusqlite::params;

use super::{
    facts::{self, PRESENT_SQL, Purge, Sent},
    history::{Order, Span},
};
use crate::{
    http::Problem,
    ids::{AccountId, MessageId, SpaceId},
    packed,
};

/// Messages that are overwritten in one transaction.
const CHUNK: usize = 100;

/// Deletes what was sent from `since` on and before `until` (or now), in milliseconds since 1970, and gives the
/// number of messages. `check` says whether it may be done.
pub(super) async fn run(
    store: &Store,
    space: SpaceId,
    by: AccountId,
    since: u64,
    until: Option<u64>,
    check: impl FnOnce(&Batch<'_>) -> Result<(), Problem> + Send + 'static,
) -> Result<u64, Problem> {
    let until = store
        .write(move |batch| {
            check(batch)?;
            // What is sent from now on is not meant.
            let now = batch.stamp().millis() + 1;
            let until = until.map_or(now, |until| until.min(now));
            if since < until {
                facts::purge(batch, space, Purge { by, since, until });
            }
            Ok::<_, Problem>(until)
        })
        .await?
        .value;
    let mut span = Span::of(Some(since), Some(until));
    let mut count = 0;
    loop {
        let (deleted, last) = store
            .write(move |batch| {
                let found = present(batch, space, span)?;
                for (id, sent) in &found {
                    facts::delete(batch, space, *id, sent, by)?;
                }
                Ok::<_, Problem>((found.len(), found.last().map(|(id, _)| *id)))
            })
            .await?
            .value;
        count += deleted as u64;
        match last {
            Some(last) if deleted == CHUNK => span = span.behind(last, Order::Asc),
            _ => return Ok(count),
        }
    }
}

/// The first messages of the span that still have their text, duplicates too.
fn present(batch: &Batch<'_>, space: SpaceId, span: Span) -> rusqlite::Result<Vec<(MessageId, Sent)>> {
    let mut found = Vec::new();
    let mut rows = batch.connection().prepare_cached(&format!(
        "SELECT id, data FROM message WHERE space = ?1 AND id >= ?2 AND id < ?3 AND {PRESENT_SQL}
         ORDER BY id LIMIT ?4"
    ))?;
    let mut rows = rows.query(params![space, span.lower(), span.upper(), CHUNK as i64])?;
    while let Some(row) = rows.next()? {
        let data: Vec<u8> = row.get(1)?;
        if let Some(sent) = packed::decode(&data) {
            found.push((row.get(0)?, sent));
        }
    }
    Ok(found)
}
