//! Governance deletion: everything that was said in a range of time goes, on every node.
//!
//! A fact for the range is stated; from then on each node hides what is in it, also what arrives later from a node that
//! was cut off. The messages are overwritten with their tombstones after that ([`crate::erasure`]), a bounded number at
//! a time, so that other writes get their turn.

use std::sync::Arc;

use mychat_replication::{
    log::SiteId,
    store::{Batch, Store, StoreError},
};
use rusqlite::{Connection, params};

use super::{
    facts::{self, PRESENT_SQL, Purge, PurgeFact},
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
        match spaces::require_role(db, self.space, self.by)? {
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

/// The spaces of which a range was ever deleted.
pub(super) fn spaces(db: &Connection) -> rusqlite::Result<Vec<SpaceId>> {
    db.prepare_cached("SELECT DISTINCT space FROM message_purge")?.query_map([], |row| row.get(0))?.collect()
}

/// Those of them where that was stated in the log of `site`.
///
/// # Errors
/// What SQLite says.
pub fn purged_by(db: &Connection, site: SiteId) -> rusqlite::Result<Vec<SpaceId>> {
    db.prepare_cached("SELECT DISTINCT space FROM message_purge WHERE substr(stamp, 9) = ?1")?
        .query_map([site.0.as_slice()], |row| row.get(0))?
        .collect()
}

/// Overwrites what the purges of a space cover and still has its text; says how many messages that were.
///
/// # Errors
/// What the store says.
pub async fn overwrite_purged(store: &Store, space: SpaceId) -> Result<usize, StoreError> {
    let purges: Arc<[PurgeFact]> =
        store.read(move |db| Ok::<_, StoreError>(store::purges(db, space)?)).await?.into();
    let mut overwritten = 0;
    for mut span in Span::joined(purges.iter().map(PurgeFact::span)) {
        loop {
            let found = store.read(move |db| Ok::<_, StoreError>(present(db, space, span)?)).await?;
            let (count, last) = (found.len(), found.last().copied());
            if count > 0 {
                let purges = Arc::clone(&purges);
                let job =
                    move |batch: &mut Batch<'_>| Ok::<_, StoreError>(delete(batch, space, &found, &purges)?);
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
    purges: &[PurgeFact],
) -> rusqlite::Result<usize> {
    let mut deleted = 0;
    for id in messages {
        let sent = store::row(batch.connection(), space, *id)?.filter(|sent| !sent.erased);
        let fact = purges.iter().find(|fact| fact.covers(*id));
        if let (Some(sent), Some(fact)) = (sent, fact) {
            facts::delete(batch, space, *id, &sent, fact.purge.by)?;
            deleted += 1;
        }
    }
    Ok(deleted)
}
