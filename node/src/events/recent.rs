//! Pieces of the logs as events, read once for all clients that have missed them.
//!
//! When a node dies, its clients come to the others within seconds, and have missed the same. So what is read for one of
//! them is kept for a moment, encoded, and the rest share it; few reads run at a time, and whoever waits for one finds
//! what the one before has read. It is good until the next commit only: an event shows the rows as they are, and a commit
//! may change what an older event says, or whether it is told at all. So there are at most as many reads as commits.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mychat_replication::{
    clock::Stamp,
    log::{SiteId, Version, VersionVector},
    store::{LogReader, Store, StoreError},
};
use tokio::sync::Semaphore;

use super::{
    Event,
    audience::Audience,
    steps::{self, Step},
};

/// Bytes of one site's log that are read at a time.
const PIECE: usize = 64 << 10;
/// Bytes of events that are kept.
const KEPT: usize = 16 << 20;
/// Reads at a time.
const READS: usize = 2;

/// An event of the log, encoded.
#[derive(Debug)]
pub struct Past {
    /// The place of its row in the version.
    pub sequence: u32,
    /// The last place of which everything is told with it; `None` for none.
    pub told: Option<u32>,
    /// What and for whom, without the data.
    pub event: Event,
    /// The data as JSON.
    pub json: String,
}

/// A version of the log.
#[derive(Debug)]
pub struct PastVersion {
    /// The version before it, as far as the log still has them.
    pub after: Version,
    /// Its number.
    pub version: Version,
    /// Its events.
    pub events: Vec<Past>,
}

/// A part of one site's log.
#[derive(Debug)]
pub struct Piece {
    /// Where it begins: the version before the first.
    pub after: Version,
    /// The last version that it covers; `after`, when the log has no more.
    pub upto: Version,
    /// The versions, in order.
    pub versions: Vec<PastVersion>,
    bytes: usize,
    /// What the node held when it was read.
    held: Arc<VersionVector>,
}

#[derive(Default)]
struct Kept {
    sites: HashMap<SiteId, BTreeMap<Version, Arc<Piece>>>,
    bytes: usize,
}

/// What has been read lately.
pub struct Recent {
    store: Store,
    kept: Mutex<Kept>,
    reads: Semaphore,
}

impl Recent {
    /// Reads from this store.
    pub fn new(store: Store) -> Self {
        Self { store, kept: Mutex::default(), reads: Semaphore::new(READS) }
    }

    /// A piece of a site's log that covers what comes right after a version.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn after(&self, site: SiteId, after: Version) -> Result<Arc<Piece>, StoreError> {
        if let Some(piece) = self.kept(site, after) {
            return Ok(piece);
        }
        let _turn = self.reads.acquire().await.map_err(|_| StoreError::Closed)?;
        // The one before may have read it.
        if let Some(piece) = self.kept(site, after) {
            return Ok(piece);
        }
        let (held, logs) = (self.store.vector(), self.store.logs());
        let piece = Arc::new(self.store.read(move |db| read(db, &logs, site, after, held)).await?);
        self.keep(site, &piece);
        Ok(piece)
    }

    fn kept(&self, site: SiteId, after: Version) -> Option<Arc<Piece>> {
        let kept = self.lock();
        let (_, piece) = kept.sites.get(&site)?.range(..=after).next_back()?;
        (piece.upto > after && *piece.held == *self.store.vector()).then(|| Arc::clone(piece))
    }

    fn keep(&self, site: SiteId, piece: &Arc<Piece>) {
        if piece.upto == piece.after {
            return;
        }
        metrics::counter!("mychat_events_backlog_read_bytes_total").increment(piece.bytes as u64);
        let now = self.store.vector();
        let mut kept = self.lock();
        let all = kept.bytes + piece.bytes;
        let mut left = 0;
        kept.sites.retain(|_, pieces| {
            // What is too much is rather read again than sorted.
            pieces.retain(|_, piece| all <= KEPT && *piece.held == *now);
            left += pieces.values().map(|piece| piece.bytes).sum::<usize>();
            !pieces.is_empty()
        });
        let before = kept.sites.entry(site).or_default().insert(piece.after, Arc::clone(piece));
        kept.bytes = left + piece.bytes - before.map_or(0, |before| before.bytes);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(
    db: &rusqlite::Connection,
    logs: &LogReader,
    site: SiteId,
    after: Version,
    held: Arc<VersionVector>,
) -> Result<Piece, StoreError> {
    let nobody = Audience::default();
    let (mut versions, mut bytes, mut upto) = (Vec::new(), 0, after);
    let mut last = Stamp::default();
    for frame in logs.read(db, site, after, PIECE)?.frames {
        let mut events = Vec::new();
        for step in steps::of_frame(db, &frame, &nobody)?.steps {
            let Step::Event { sequence, told, mut event } = step else { continue };
            let json = std::mem::take(&mut event.data).to_string();
            // The order within a site stands, whatever its rows say of the time.
            last = last.max(event.at);
            event.at = last;
            bytes += json.len() + size_of::<Past>();
            events.push(Past { sequence, told, event, json });
        }
        bytes += size_of::<PastVersion>();
        upto = frame.version;
        versions.push(PastVersion { after: frame.after, version: frame.version, events });
    }
    Ok(Piece { after, upto, versions, bytes, held })
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use serde_json::json;

    use super::*;
    use crate::testing::TestNode;

    #[tokio::test]
    async fn what_many_have_missed_is_read_once() {
        let node = TestNode::start();
        let ada = node.sign_up("Ada").await;
        let space = node.post("/v1/spaces", &ada.token, json!({ "name": "room" })).await.expect(201);
        let path = format!("/v1/spaces/{}/messages", space["id"].as_str().expect("an id"));
        for number in 0..10 {
            node.post(&path, &ada.token, json!({ "body": number.to_string() })).await.expect(201);
        }
        let (store, site) = (node.app.store.clone(), node.app.store.site());
        let recent = Recent::new(store.clone());
        let end = store.vector().get(site);
        let pieces = join_all((0..20).map(|_| recent.after(site, Version(2)))).await;
        let pieces: Vec<Arc<Piece>> = pieces.into_iter().map(|piece| piece.expect("a piece")).collect();
        // As many reads at most as run at a time; all that come later share one.
        let mut different: Vec<*const Piece> = pieces.iter().map(Arc::as_ptr).collect();
        different.sort_unstable();
        different.dedup();
        assert!(different.len() <= READS, "{} reads", different.len());
        let last = recent.after(site, Version(end.0 - 1)).await.expect("a piece");
        assert!(
            pieces.iter().any(|piece| Arc::ptr_eq(piece, &last)),
            "it begins within a piece that is kept"
        );
        assert_eq!((last.after, last.upto), (Version(2), end));
        let earlier = recent.after(site, Version(0)).await.expect("a piece");
        assert_eq!((earlier.after, earlier.upto), (Version(0), end));
        let none = recent.after(site, end).await.expect("a piece");
        assert_eq!((none.upto, none.versions.len()), (end, 0));
        // What has come since is not hidden by what is kept.
        node.post(&path, &ada.token, json!({ "body": "new" })).await.expect(201);
        let new = recent.after(site, end).await.expect("a piece");
        assert_eq!((new.after <= end, new.upto), (true, store.vector().get(site)));
        let kept = recent.lock();
        let bytes: usize = kept.sites.values().flatten().map(|(_, piece)| piece.bytes).sum();
        assert_eq!(kept.bytes, bytes);
    }
}
