//! What a client has missed: read from the sites' logs between its cursor and where the hub stands, merged in the
//! order of sending.
//!
//! Each site's log is read in pieces of [`PIECE`] bytes, so memory does not depend on how much was missed (I7).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use mychat_replication::{
    clock::Stamp,
    log::{SiteId, Version, VersionVector},
    store::{Store, StoreError, read_log},
};

use super::{
    Cursor, Event, Item,
    audience::Audience,
    cursor::prefix,
    steps::{self, Step},
};
use crate::{
    http::Problem,
    ids::{AccountId, SpaceId},
    spaces,
};

/// Bytes of one site's log that are read at a time.
const PIECE: usize = 64 << 10;
/// Versions that a client may have missed; one that lacks more is told to read the history again.
pub const MAX_MISSED: u64 = 200_000;

/// An event of one site, or the end of a version of it.
struct Missed {
    at: Stamp,
    version: Version,
    /// `None` behind the last event of a version.
    event: Option<(u32, Event)>,
}

/// The rest of one site's log.
struct SiteLog {
    read_to: Version,
    end: Version,
    waiting: VecDeque<Missed>,
    last_at: Stamp,
}

/// A merge of the logs that a client has missed a part of.
pub struct Backlog {
    store: Store,
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
        store: Store,
        account: AccountId,
        only: Option<Arc<BTreeSet<SpaceId>>>,
        cursor: Cursor,
        until: &VersionVector,
    ) -> Self {
        let sites = until
            .iter()
            .map(|(site, end)| {
                let read_to = Version(cursor.seen(prefix(site)));
                (site, SiteLog { read_to, end, waiting: VecDeque::new(), last_at: Stamp::default() })
            })
            .filter(|(_, log)| log.read_to < log.end)
            .collect();
        Self { store, account, only, cursor, sites }
    }

    /// The next event, with the cursor after it; `None` at the end.
    ///
    /// # Errors
    /// When the database can't be read: the client comes back with its cursor.
    pub async fn next(&mut self) -> Result<Option<Item>, Problem> {
        loop {
            self.refill().await?;
            let first = self
                .sites
                .iter()
                .filter_map(|(site, log)| log.waiting.front().map(|missed| (missed.at, *site)))
                .min();
            let Some((_, site)) = first else { return Ok(None) };
            let Some(missed) = self.sites.get_mut(&site).and_then(|log| log.waiting.pop_front()) else {
                continue;
            };
            let Some((sequence, event)) = missed.event else {
                self.cursor.advance(prefix(site), missed.version.0);
                continue;
            };
            if self.cursor.has_seen(prefix(site), missed.version.0, sequence) {
                continue;
            }
            // The last event of a version carries the cursor behind it.
            let next = self.sites.get(&site).and_then(|log| log.waiting.front());
            let id = if next.is_some_and(|next| next.event.is_none() && next.version == missed.version) {
                self.cursor.advance(prefix(site), missed.version.0);
                self.cursor.to_string()
            } else {
                self.cursor.clone().with_part(site, missed.version, sequence).to_string()
            };
            return Ok(Some(Item::new(Some(id), event.kind, &event.data)));
        }
    }

    /// Reads on where a site has nothing waiting, in one snapshot for all of them.
    async fn refill(&mut self) -> Result<(), Problem> {
        let empty: Vec<(SiteId, Version, Version)> = self
            .sites
            .iter()
            .filter(|(_, log)| log.waiting.is_empty() && log.read_to < log.end)
            .map(|(site, log)| (*site, log.read_to, log.end))
            .collect();
        if empty.is_empty() {
            return Ok(());
        }
        let (account, only) = (self.account, self.only.clone());
        let read = move |db: &rusqlite::Connection| {
            let spaces: BTreeSet<SpaceId> = spaces::spaces_of(db, account)?.into_iter().collect();
            let sees = |event: &Event| super::sees(event, account, &spaces, only.as_deref());
            let mut pieces = Vec::new();
            for (site, after, end) in empty {
                pieces.push((site, read_piece(db, site, after, end, &sees)?));
            }
            Ok::<_, StoreError>(pieces)
        };
        for (site, (read_to, missed)) in self.store.read(read).await? {
            let Some(log) = self.sites.get_mut(&site) else { continue };
            log.read_to = read_to;
            for mut missed in missed {
                // The order within a site stands, whatever its rows say of the time.
                missed.at = missed.at.max(log.last_at);
                log.last_at = missed.at;
                log.waiting.push_back(missed);
            }
        }
        Ok(())
    }
}

/// One piece of a site's log as events, and how far it reaches.
fn read_piece(
    db: &rusqlite::Connection,
    site: SiteId,
    after: Version,
    end: Version,
    sees: &impl Fn(&Event) -> bool,
) -> rusqlite::Result<(Version, Vec<Missed>)> {
    let mut missed = Vec::new();
    let mut reached = after;
    let nobody = Audience::default();
    for frame in read_log(db, site, after, PIECE)?.frames {
        if frame.after >= end {
            break;
        }
        reached = frame.version;
        let mut last = Stamp::default();
        for step in steps::of_frame(db, &frame, &nobody)?.steps {
            if let Step::Event { sequence, event } = step
                && sees(&event)
            {
                last = event.at;
                missed.push(Missed { at: event.at, version: frame.version, event: Some((sequence, event)) });
            }
        }
        missed.push(Missed { at: last, version: frame.version, event: None });
    }
    // Nothing more to read, whatever the end was thought to be.
    Ok((if reached == after { end } else { reached }, missed))
}
