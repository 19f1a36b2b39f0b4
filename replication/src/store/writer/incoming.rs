//! What comes from other nodes: frames to merge, and whole databases to go on with.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::{
    super::{
        Applied, StoreError,
        adopt::{self, AdoptError, Incoming},
        connection::{self, Synchronous},
        later::Later,
        merge::Merging,
        tables::Tables,
    },
    Writer, write_vector,
};
use crate::{
    log::{Frame, Retirement, SiteId, Version},
    mutation::{self, Mutation},
};

impl Writer {
    /// Merges frames in one transaction.
    pub(super) fn apply(&mut self, frames: &[Arc<Frame>]) -> Result<Applied, StoreError> {
        match self.apply_by(frames, Merging::Plain) {
            // A frame that can't be merged is rare, and a savepoint around each dear: the pages that it changes are
            // copied first. So they are used only once a batch is known to have such a frame.
            Err(StoreError::Sql(_)) => {
                self.roll_back();
                self.apply_by(frames, Merging::Guarded)
            }
            result => result,
        }
    }

    fn apply_by(&mut self, frames: &[Arc<Frame>], merging: Merging) -> Result<Applied, StoreError> {
        let started = Instant::now();
        let mut outcome = Applied::default();
        let mut vector = self.held.clone();
        let mut applied = Vec::new();
        self.begin_transaction(Synchronous::Normal)?;
        let db = self.db.as_ref().ok_or(StoreError::Closed)?;
        for frame in frames {
            let held = vector.get(frame.site);
            if frame.version <= held {
                outcome.duplicates += 1;
                continue;
            }
            if frame.after > held || !Retirement::all_met(frame, &vector) {
                outcome.gaps += 1;
                continue;
            }
            if mutation::is_on(Mutation::SkipVersion) && applied.len() == 1 {
                vector.advance(frame.site, frame.version);
                applied.push(Arc::clone(frame));
                continue;
            }
            let kept = self.later.merge(db, &self.tables, self.derive.as_mut(), frame, merging)?;
            outcome.held += usize::from(kept.held);
            outcome.quarantined += usize::from(kept.quarantined);
            vector.advance(frame.site, frame.version);
            self.clock.observe(frame.stamp, self.surroundings.wall_millis());
            outcome.applied += 1;
            applied.push(Arc::clone(frame));
        }
        for (site, version) in vector.iter().filter(|(site, version)| self.held.get(*site) < *version) {
            write_vector(db, site, version)?;
        }
        db.prepare_cached("COMMIT")?.raw_execute()?;
        if !applied.is_empty() {
            metrics::histogram!("mychat_store_apply_seconds").record(started.elapsed().as_secs_f64());
            metrics::histogram!("mychat_store_apply_frames").record(applied.len() as f64);
            let rows: usize = applied.iter().map(|frame| frame.changes.len()).sum();
            metrics::histogram!("mychat_store_apply_rows").record(rows as f64);
            self.held = vector;
            self.later.committed(outcome.held, outcome.quarantined);
            self.health.succeeded();
            self.announce(applied, BTreeMap::new(), false);
        }
        Ok(outcome)
    }

    /// Goes on with another database file, which holds all that this one does; see [`adopt`].
    pub(super) fn adopt(&mut self, incoming: &Incoming) -> Result<SiteId, AdoptError> {
        self.db()?;
        if !incoming.vector().covers(&self.held) {
            return Err(AdoptError::Lacks);
        }
        let old = *self.site.borrow();
        self.clock.observe(incoming.stamp(), self.surroundings.wall_millis());
        incoming.seal(self.clock.last())?;
        self.reserved = self.clock.last();
        if let Some(db) = self.db.take() {
            connection::close(db);
        }
        let swapped = adopt::swap(&self.path, incoming.path(), |_| {});
        // Whichever file is in place now.
        self.reopen().inspect_err(|error| self.broken = Some(error.clone()))?;
        swapped.map_err(AdoptError::File)?;
        // There is no way back from here, so what fails now is only told.
        if let Some(db) = &self.db {
            match Tables::read(db) {
                Ok(tables) => self.tables = tables,
                Err(error) => tracing::error!(%error, "the tables of the new database can't be read"),
            }
            match Later::open(db, &self.tables, self.derive.as_mut(), self.node) {
                Ok(later) => self.later = later,
                Err(error) => tracing::error!(%error, "what the new database keeps for later can't be read"),
            }
        }
        let site = *self.site.borrow();
        // It was synced before it was put in place.
        self.durability.reached(&Arc::new(self.held.clone()));
        self.opened_at = self.held.get(site);
        self.in_doubt &= old == site;
        self.note_head();
        self.announce(Vec::new(), BTreeMap::new(), false);
        if old != site && self.held.get(old) > Version(0) {
            self.retire(old);
        }
        Ok(site)
    }
}
