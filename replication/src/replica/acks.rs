//! Acknowledgements: the writer of a log hears at once how much of it is durable here, and not with the next heads.
//!
//! An acknowledgement is a heads datagram that names this one log. Under load many commits share one, so that it costs
//! the same however many there are; when one is lost, the heads make up for it.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use crate::log::SiteId;

/// The least time between two acknowledgements.
const PAUSE: Duration = Duration::from_millis(5);

/// The logs of which something was applied since the last acknowledgement.
#[derive(Debug, Default)]
pub struct Acks {
    due: BTreeSet<SiteId>,
    not_before: Option<Instant>,
}

impl Acks {
    /// Something of this log has been applied.
    pub fn applied(&mut self, site: SiteId) {
        self.due.insert(site);
    }

    /// When to [`Acks::take`] them: at once after a pause; `None` when there are none.
    pub fn when(&self, now: Instant) -> Option<Instant> {
        (!self.due.is_empty()).then(|| self.not_before.unwrap_or(now))
    }

    /// The logs to acknowledge, if it is time.
    pub fn take(&mut self, now: Instant) -> BTreeSet<SiteId> {
        match self.when(now) {
            Some(when) if when <= now => {
                self.not_before = Some(now + PAUSE);
                std::mem::take(&mut self.due)
            }
            _ => BTreeSet::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_goes_at_once_and_those_soon_after_it_together() {
        let (a, b) = (SiteId([1; 16]), SiteId([2; 16]));
        let mut acks = Acks::default();
        let now = Instant::now();
        assert_eq!((acks.when(now), acks.take(now).len()), (None, 0));
        acks.applied(a);
        assert_eq!(acks.when(now), Some(now));
        assert_eq!(acks.take(now), [a].into());
        for site in [a, b, a] {
            acks.applied(site);
            assert!(acks.take(now + PAUSE / 2).is_empty());
        }
        assert_eq!(acks.when(now + PAUSE / 2), Some(now + PAUSE));
        assert_eq!(acks.take(now + PAUSE), [a, b].into());
        assert_eq!(acks.when(now + 2 * PAUSE), None);
    }
}
