//! What a client has missed: the sites' logs between its cursor and where the hub stands, merged in the order of sending.
//!
//! Each site's log comes in pieces (`recent.rs`), so memory does not depend on how much was missed (I7).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mychat_replication::{
    clock::Stamp,
    log::{SiteId, Version, VersionVector},
};

use super::{
    Cursor, Item,
    cursor::prefix,
    recent::{Past, PastVersion, Piece, Recent},
};
use crate::{
    http::Problem,
    ids::{AccountId, SpaceId},
};

/// Versions that a client may have missed; one that lacks more is told to read the history again.
pub const MAX_MISSED: u64 = 200_000;

/// The rest of one site's log.
struct SiteLog {
    read_to: Version,
    end: Version,
    piece: Option<Arc<Piece>>,
    /// The next version of the piece, and the next event of that.
    next: (usize, usize),
    last_at: Stamp,
}

/// A merge of the logs that a client has missed a part of.
pub struct Backlog {
    recent: Arc<Recent>,
    account: AccountId,
    only: Option<Arc<BTreeSet<SpaceId>>>,
    cursor: Cursor,
    sites: BTreeMap<SiteId, SiteLog>,
}

/// How many versions of `vector` a client with this cursor lacks.
pub fn missed(cursor: &Cursor, vector: &VersionVector) -> u64 {
    vector.iter().map(|(site, version)| version.0.saturating_sub(cursor.seen(prefix(site)))).sum()
}

impl Backlog {
    /// The backlog from `cursor` to `until`, of what `account` may see of the spaces `only` (all, if none is named).
    pub fn new(
        recent: Arc<Recent>,
        account: AccountId,
        only: Option<Arc<BTreeSet<SpaceId>>>,
        cursor: Cursor,
        until: &VersionVector,
    ) -> Self {
        let sites = until
            .iter()
            .map(|(site, end)| {
                let read_to = Version(cursor.seen(prefix(site)));
                (site, SiteLog { read_to, end, piece: None, next: (0, 0), last_at: Stamp::default() })
            })
            .filter(|(_, log)| log.read_to < log.end)
            .collect();
        Self { recent, account, only, cursor, sites }
    }

    /// The next event for a client that follows `spaces`, with the cursor after it; `None` at the end.
    ///
    /// # Errors
    /// When the database can't be read: the client comes back with its cursor.
    pub async fn next(&mut self, spaces: &BTreeSet<SpaceId>) -> Result<Option<Item>, Problem> {
        let mut first: Option<(Stamp, SiteId)> = None;
        let sites: Vec<SiteId> = self.sites.keys().copied().collect();
        for site in sites {
            match self.head(site, spaces).await? {
                Some(at) => first = Some(first.map_or((at, site), |first| first.min((at, site)))),
                None => {
                    self.sites.remove(&site);
                }
            }
        }
        let Some((_, site)) = first else { return Ok(None) };
        let Some(log) = self.sites.get_mut(&site) else { return Ok(None) };
        let Some((version, past)) = log.at_next() else { return Ok(None) };
        let (version, kind, json) = (version.version, past.event.kind, past.json.clone());
        let sequence = past.sequence;
        log.last_at = log.last_at.max(past.event.at);
        log.next.1 += 1;
        // The last event of a version that the client hears of carries the cursor behind it.
        let id = if self.skip_unseen(site, spaces) {
            self.cursor.clone().with_part(site, version, sequence).to_string()
        } else {
            self.cursor.advance(prefix(site), version.0);
            self.cursor.to_string()
        };
        Ok(Some(Item::from_json(Some(id), kind, json)))
    }

    /// When the next event of a site happened that the client hears of; `None` when there is no more.
    async fn head(&mut self, site: SiteId, spaces: &BTreeSet<SpaceId>) -> Result<Option<Stamp>, Problem> {
        loop {
            let Some(log) = self.sites.get(&site) else { return Ok(None) };
            let Some(piece) = &log.piece else {
                if log.read_to >= log.end {
                    return Ok(None);
                }
                let piece = self.recent.after(site, log.read_to).await?;
                let Some(log) = self.sites.get_mut(&site) else { return Ok(None) };
                // Nothing more to read, whatever the end was thought to be.
                if piece.upto <= log.read_to {
                    log.read_to = log.end;
                    continue;
                }
                let first = piece.versions.partition_point(|version| version.version <= log.read_to);
                log.next = (first, 0);
                log.piece = Some(piece);
                continue;
            };
            match piece.versions.get(log.next.0) {
                Some(version) if version.after < log.end => {
                    let version = version.version;
                    if self.skip_unseen(site, spaces) {
                        let log = self.sites.get(&site);
                        return Ok(log.and_then(|log| Some(log.at_next()?.1.event.at.max(log.last_at))));
                    }
                    self.cursor.advance(prefix(site), version.0);
                    if let Some(log) = self.sites.get_mut(&site) {
                        log.next = (log.next.0 + 1, 0);
                    }
                }
                Some(_) => return Ok(None),
                None => {
                    let upto = piece.upto;
                    if let Some(log) = self.sites.get_mut(&site) {
                        (log.read_to, log.piece) = (upto, None);
                    }
                }
            }
        }
    }

    /// Passes over the events of a site's version at hand that are not for this client; says whether there is one left.
    fn skip_unseen(&mut self, site: SiteId, spaces: &BTreeSet<SpaceId>) -> bool {
        let Some(log) = self.sites.get_mut(&site) else { return false };
        while let Some((version, past)) = log.at_next() {
            let sees = super::sees(&past.event, self.account, spaces, self.only.as_deref());
            if sees && !self.cursor.has_seen(prefix(site), version.version.0, past.sequence) {
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
