//! Acknowledgements: the writer of a log hears soon how much of it is durable here, and not with the next heads.
//!
//! What is applied is on this node's disk only after a sync, which makes up a **round** with all that was applied before
//! it began: sync, then tell. Under load many commits share a round, so that it costs the same however many there are. An
//! acknowledgement is a heads datagram that names the one log; when it is lost, the heads make up for it.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use crate::log::SiteId;

/// The least time between the beginnings of two rounds. A disk that takes longer for a sync has as long between two.
const PAUSE: Duration = Duration::from_millis(10);

/// The logs of which something was applied since the last round began, and when the next may.
#[derive(Debug, Default)]
pub struct Acks {
    due: BTreeSet<SiteId>,
    /// What the round under way is about, and since when it is.
    round: Option<(BTreeSet<SiteId>, Instant)>,
    not_before: Option<Instant>,
}

impl Acks {
    /// Something of this log has been applied.
    pub fn applied(&mut self, site: SiteId) {
        self.due.insert(site);
    }

    /// When to [`Acks::begin`] a round: at once after a pause; `None` when there is nothing to tell, or while one is
    /// under way.
    pub fn when(&self, now: Instant) -> Option<Instant> {
        (!self.due.is_empty() && self.round.is_none()).then(|| self.not_before.unwrap_or(now))
    }

    /// Begins a round, if it is time: says whether to sync.
    pub fn begin(&mut self, now: Instant) -> bool {
        let begins = self.when(now).is_some_and(|when| when <= now);
        if begins {
            self.round = Some((std::mem::take(&mut self.due), now));
        }
        begins
    }

    /// The sync of the round has ended: the logs to acknowledge, as far as they are durable now.
    pub fn end(&mut self, now: Instant) -> BTreeSet<SiteId> {
        let Some((sites, began)) = self.round.take() else { return BTreeSet::new() };
        let took = now.duration_since(began);
        self.not_before = Some(now + PAUSE.saturating_sub(took).max(took));
        sites
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_round_begins_at_once_and_what_comes_during_it_makes_up_the_next() {
        let (a, b) = (SiteId([1; 16]), SiteId([2; 16]));
        let mut acks = Acks::default();
        let now = Instant::now();
        assert_eq!((acks.when(now), acks.begin(now)), (None, false), "nothing was applied");
        acks.applied(a);
        assert!(acks.when(now) == Some(now) && acks.begin(now));
        for site in [b, a, b] {
            acks.applied(site);
            assert!(acks.when(now).is_none() && !acks.begin(now), "one is under way");
        }
        let synced = now + PAUSE / 5;
        assert_eq!(acks.end(synced), [a].into());
        assert_eq!(acks.when(synced), Some(now + PAUSE));
        assert!(!acks.begin(now + PAUSE / 2));
        assert!(acks.begin(now + PAUSE));
        assert_eq!(acks.end(now + PAUSE), [a, b].into());
        assert_eq!(acks.when(now + 2 * PAUSE), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_disk_has_as_long_between_two_syncs_as_one_takes() {
        let site = SiteId([1; 16]);
        let mut acks = Acks::default();
        let now = Instant::now();
        acks.applied(site);
        assert!(acks.begin(now));
        acks.applied(site);
        let synced = now + 10 * PAUSE;
        acks.end(synced);
        assert_eq!(acks.when(synced), Some(synced + 10 * PAUSE));
    }
}
