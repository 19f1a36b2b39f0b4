//! What a client has missed: the sites' logs between its cursor and where the hub stands, merged in the order of sending.
//!
//! Each site's log comes in pieces (`recent.rs`), so memory does not depend on how much was missed (I7).

use std::{collections::BTreeSet, sync::Arc};

use mychat_replication::{
    clock::Stamp,
    log::{SiteId, Version, VersionVector},
};

use super::{
    Cursor, Cursors, Item, Only,
    cursor::prefix,
    recent::{Past, PastVersion, Piece, Recent},
    told_as,
};
use crate::{
    http::Problem,
    ids::{AccountId, SpaceId},
};

/// Versions that a client may have missed; one that lacks more is told to read the history again.
const MAX_MISSED: u64 = 200_000;

/// The rest of one site's log.
struct SiteLog {
    site: SiteId,
    read_to: Version,
    end: Version,
    piece: Option<Arc<Piece>>,
    /// The next version of the piece, and the next event of that.
    next: (usize, usize),
    last_at: Stamp,
    /// When the next event that the client hears of happened, once that is known.
    head: Option<Stamp>,
}

/// A merge of the logs that a client has missed a part of.
pub struct Backlog {
    recent: Arc<Recent>,
    cursors: Cursors,
    account: AccountId,
    only: Option<Only>,
    cursor: Cursor,
    sites: Vec<SiteLog>,
}

/// Whether there are too many versions of `vector` in which a client with this cursor may be told something, be it for the
/// first time or once more.
pub fn is_too_far_behind(cursor: &Cursor, vector: &VersionVector) -> bool {
    let missed = vector.iter().map(|(site, version)| version.0.saturating_sub(cursor.told(prefix(site))));
    missed.fold(0, u64::saturating_add) > MAX_MISSED
}

impl Backlog {
    /// The backlog from `cursor` to `until`, of what `account` may see of the spaces `only` (all, if none is named).
    pub fn new(
        recent: Arc<Recent>,
        cursors: Cursors,
        account: AccountId,
        only: Option<Only>,
        mut cursor: Cursor,
        until: &VersionVector,
    ) -> Self {
        cursor.comes_to(until);
        let sites = until.iter().map(|(site, end)| {
            let read_to = Version(cursor.told(prefix(site)));
            SiteLog { site, read_to, end, piece: None, next: (0, 0), last_at: Stamp::default(), head: None }
        });
        let sites = sites.filter(|log| log.read_to < log.end).collect();
        Self { recent, cursors, account, only, cursor, sites }
    }

    /// What the client follows may have changed.
    pub fn look_again(&mut self) {
        for log in &mut self.sites {
            log.head = None;
        }
    }

    /// The next event for a client that follows `spaces`, with the cursor after it; `None` at the end.
    ///
    /// # Errors
    /// When the database can't be read: the client comes back with its cursor.
    pub async fn next(&mut self, spaces: &BTreeSet<SpaceId>) -> Result<Option<Item>, Problem> {
        for at in (0..self.sites.len()).rev() {
            if self.sites[at].head.is_none() {
                self.sites[at].head = self.head(at, spaces).await?;
                if self.sites[at].head.is_none() {
                    self.sites.swap_remove(at);
                }
            }
        }
        let first = (0..self.sites.len()).min_by_key(|at| (self.sites[*at].head, self.sites[*at].site));
        let Some(at) = first else { return Ok(None) };
        let log = &mut self.sites[at];
        let (site, head) = (log.site, log.head.take());
        let Some((version, past)) = log.at_next() else { return Ok(None) };
        let place = (site, version.version.0, past.sequence);
        let Some(kind) = told_as(&past.event, &self.cursor, place) else { return Ok(None) };
        let (version, told, json) = (version.version, past.told, past.json.clone());
        log.last_at = head.unwrap_or(log.last_at);
        log.next.1 += 1;
        // The last event of a version that the client hears of carries the cursor behind it.
        let id = if self.skip_unseen(at, spaces) {
            let cursor = self.cursor.clone();
            self.cursors.write(&match told {
                Some(told) => cursor.with_part(site, version, told),
                None => cursor,
            })
        } else {
            self.cursor.advance(prefix(site), version.0);
            self.cursors.write(&self.cursor)
        };
        Ok(Some(Item::from_json(Some(id), kind, json)))
    }

    /// When the next event of a site happened that the client hears of; `None` when there is no more.
    async fn head(&mut self, at: usize, spaces: &BTreeSet<SpaceId>) -> Result<Option<Stamp>, Problem> {
        loop {
            let log = &mut self.sites[at];
            let Some(piece) = &log.piece else {
                if log.read_to >= log.end {
                    return Ok(None);
                }
                let piece = self.recent.after(log.site, log.read_to).await?;
                if piece.upto <= log.read_to {
                    // Nothing more to read, whatever the end was thought to be.
                    log.read_to = log.end;
                } else {
                    let first = piece.versions.partition_point(|version| version.version <= log.read_to);
                    (log.next, log.piece) = ((first, 0), Some(piece));
                }
                continue;
            };
            match piece.versions.get(log.next.0) {
                Some(version) if version.after < log.end => {
                    let (site, version) = (log.site, version.version);
                    if self.skip_unseen(at, spaces) {
                        let log = &self.sites[at];
                        return Ok(log.at_next().map(|(_, past)| past.event.at.max(log.last_at)));
                    }
                    self.cursor.advance(prefix(site), version.0);
                    let next = &mut self.sites[at].next;
                    *next = (next.0 + 1, 0);
                }
                Some(_) => return Ok(None),
                None => (log.read_to, log.piece) = (piece.upto, None),
            }
        }
    }

    /// Passes over the events of a site's version at hand that are not for this client; says whether there is one left.
    fn skip_unseen(&mut self, at: usize, spaces: &BTreeSet<SpaceId>) -> bool {
        let log = &mut self.sites[at];
        while let Some((version, past)) = log.at_next() {
            let sees = super::sees(&past.event, self.account, spaces, self.only.as_deref());
            let place = (log.site, version.version.0, past.sequence);
            if sees && told_as(&past.event, &self.cursor, place).is_some() {
                return true;
            }
            log.next.1 += 1;
        }
        false
    }
}

impl SiteLog {
    /// The event that comes next in the version at hand.
    fn at_next(&self) -> Option<(&PastVersion, &Past)> {
        let version = self.piece.as_ref()?.versions.get(self.next.0)?;
        Some((version, version.events.get(self.next.1)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i7_bounded_what_is_told_once_more_counts_for_how_far_behind_a_client_is() {
        let vector = |versions: [u64; 2]| -> VersionVector {
            versions
                .into_iter()
                .zip(1..)
                .map(|(version, site)| (SiteId([site; 16]), Version(version)))
                .collect()
        };
        let held = vector([MAX_MISSED + 1, 5]);
        assert!(is_too_far_behind(&Cursor::from(&vector([0, 5])), &held));
        assert!(!is_too_far_behind(&Cursor::from(&vector([1, 5])), &held));
        // It has seen all, and was then told something by a node that had nothing of the first site.
        let mut cursor = Cursor::from(&held);
        assert!(!is_too_far_behind(&cursor, &held));
        cursor.comes_to(&vector([0, 6]));
        assert!(is_too_far_behind(&cursor, &held));
        cursor.advance(prefix(SiteId([1; 16])), 1);
        assert!(!is_too_far_behind(&cursor, &held));
        assert!(is_too_far_behind(&cursor, &vector([MAX_MISSED + 1, 6])), "and what is new besides");
    }
}
