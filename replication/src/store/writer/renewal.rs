//! Going on under a new site id, and the witness that makes it needless.

use std::{collections::VecDeque, time::Instant};

use super::{
    super::{
        StoreError,
        connection::Synchronous,
        queue::{Job, Queue, Queued},
        retired, site,
    },
    Writer,
};
use crate::log::SiteId;

impl Writer {
    /// Has the witness note how far the own log is durable; while the disk is in doubt, it keeps what it says.
    pub(super) fn note_head(&mut self) {
        if !self.in_doubt {
            let site = *self.site.borrow();
            self.witness.note(site, self.held.get(site));
        }
    }

    /// See [`site::renew`]; the connection is opened anew, since the extension caches the site id.
    pub(super) fn renew(&mut self) -> Result<SiteId, StoreError> {
        let old = *self.site.borrow();
        self.wait_with_commits(Synchronous::Full)?;
        let new = site::renew(self.db()?, self.opened_at, SiteId(self.surroundings.random()))?;
        // Before anything can fail: the old id is not this database's any more.
        self.site.send_replace(new);
        self.reopen()?;
        self.opened_at = self.held.get(new);
        self.in_doubt = false;
        self.note_head();
        tracing::warn!(%old, %new, "this node goes on under a new site id: others may know more of its old log than it does");
        metrics::counter!("mychat_store_site_renewals_total").increment(1);
        self.retire(old);
        Ok(new)
    }

    /// Begins a new log by retiring the one before it: see [`crate::log::retirement`].
    pub(super) fn retire(&mut self, old: SiteId) {
        let node = self.node;
        let job: Job = Box::new(move |batch| {
            let written = retired::write(batch, node, old);
            Box::new(move |outcome| {
                if let Err(error) = written.and(outcome.map(|_| ())) {
                    tracing::error!(%old, %error, "the old site can't be retired: vectors go on naming it");
                }
            })
        });
        self.run_jobs(VecDeque::from([Queued { job, bytes: 0, since: Instant::now() }]), &Queue::default());
    }
}
