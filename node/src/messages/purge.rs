//! Governance deletion: everything that was said in a range of time goes, on every node.
//!
//! A fact for the range is stated first; from then on each node hides what is in it, also what arrives later from a
//! node that was cut off. Then the messages are overwritten with their tombstones, a bounded number at a time, so
//! that other writes get their turn.

use mychat_replication::store::{Batch, Store, StoreError};
use rusqlite::{Connection, params};

use super::{
    facts::{self, PRESENT_SQL, Purge},
    history::{Order, Span},
    store,
};
use crate::{
    http::Problem,
    ids::{AccountId, MessageId, SpaceId},
    spaces::{self, Role},
};

/// Messages that are overwritten in one transaction.
const CHUNK: usize = 100;

/// What an owner wants to be gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub space: SpaceId,
    pub by: AccountId,
    /// From when on, in milliseconds since 1970.
    pub since: u64,
    /// Before when; up to now where there is nothing.
    pub until: Option<u64>,
}

impl Range {
    /// Whether it may be done.
    pub fn check(&self, db: &Connection) -> Result<(), Problem> {
        match spaces::require_member(db, self.space, self.by)? {
            Role::Owner => Ok(()),
            _ => Err(Problem::forbidden("only an owner of the space may delete its history")),
        }
    }

    /// How many messages it has that still have their text. It reads them all: not for the writer's turn.
    pub fn count(&self, db: &Connection) -> rusqlite::Result<i64> {
        let span = Span::of(Some(self.since), self.until);
        db.prepare_cached(&format!(
            "SELECT count(*) FROM message WHERE space = ?1 AND id >= ?2 AND id < ?3 AND {PRESENT_SQL}"
        ))?
        .query_row(params![self.space, span.lower(), span.upper()], |row| row.get(0))
    }

    /// States that it is deleted.
    pub fn state(&self, batch: &mut Batch<'_>) {
        // Of this millisecond, what comes before the fact.
        let now = batch.stamp().millis() + 1;
        let until = self.until.map_or(now, |until| until.min(now));
        if self.since < until {
            facts::purge(batch, self.space, Purge { by: self.by, since: self.since, until });
        }
    }
}

/// Overwrites what the purges of a space cover and still has its text; says how many messages that were.
pub(super) async fn overwrite(store: &Store, space: SpaceId) -> Result<usize, StoreError> {
    let purges = store.read(move |db| Ok::<_, StoreError>(store::purges(db, space)?)).await?;
    let mut overwritten = 0;
    for fact in purges {
        let (mut span, by) = (fact.span(), fact.purge.by);
        loop {
            let found = store.read(move |db| Ok::<_, StoreError>(present(db, space, span)?)).await?;
            let (count, last) = (found.len(), found.last().copied());
            if count > 0 {
                let job = move |batch: &mut Batch<'_>| Ok::<_, StoreError>(delete(batch, space, &found, by)?);
                overwritten += store.write(job).await?.value;
            }
            match last {
                Some(last) if count == CHUNK => span = span.behind(last, Order::Asc),
                _ => break,
            }
        }
    }
    Ok(overwritten)
}

/// The first messages of the span that still have their text, duplicates too.
fn present(db: &Connection, space: SpaceId, span: Span) -> rusqlite::Result<Vec<MessageId>> {
    db.prepare_cached(&format!(
        "SELECT id FROM message WHERE space = ?1 AND id >= ?2 AND id < ?3 AND {PRESENT_SQL} ORDER BY id LIMIT ?4"
    ))?
    .query_map(params![space, span.lower(), span.upper(), CHUNK as i64], |row| row.get(0))?
    .collect()
}

/// Deletes those of the messages that nobody has deleted meanwhile.
fn delete(
    batch: &mut Batch<'_>,
    space: SpaceId,
    messages: &[MessageId],
    by: AccountId,
) -> rusqlite::Result<usize> {
    let mut deleted = 0;
    for id in messages {
        if let Some(sent) = store::row(batch.connection(), space, *id)?.filter(|sent| !sent.erased) {
            facts::delete(batch, space, *id, &sent, by)?;
            deleted += 1;
        }
    }
    Ok(deleted)
}
