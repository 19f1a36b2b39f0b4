//! What was posted, and what the nodes answered: the memory that they are judged by.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// One message.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) client_id: Uuid,
    pub(super) posted: Instant,
    /// How many nodes were asked until now.
    pub(super) attempts: u32,
    pub(super) fate: Fate,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// On its way.
    Open,
    /// Answered with 201.
    Acknowledged { node: usize, id: Uuid, at: Instant },
    /// Given up; the last answer was a refusal.
    Refused(String),
    /// Given up; the last call had no answer.
    Unanswered(String),
}

/// How many messages have which fate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) posted: u64,
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    pub(super) unanswered: u64,
}

/// All messages of a scenario, by number. Clones share it.
#[derive(Clone)]
pub(super) struct Ledger {
    began: Instant,
    entries: Arc<Mutex<Vec<Entry>>>,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), entries: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        // Entries are whole whatever happened to their last writer.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a new message; its number.
    pub(super) fn post(&self, client_id: Uuid) -> usize {
        let mut entries = self.lock();
        entries.push(Entry { client_id, posted: Instant::now(), attempts: 0, fate: Fate::Open });
        entries.len() - 1
    }

    /// Notes that a node is asked to take it.
    pub(super) fn attempt(&self, number: usize) {
        self.lock()[number].attempts += 1;
    }

    pub(super) fn settle(&self, number: usize, fate: Fate) {
        self.lock()[number].fate = fate;
    }

    /// Everything as it stands.
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().iter().fold(Counts::default(), |mut counts, entry| {
            counts.posted += 1;
            match entry.fate {
                Fate::Open => {}
                Fate::Acknowledged { .. } => counts.acknowledged += 1,
                Fate::Refused(_) => counts.refused += 1,
                Fate::Unanswered(_) => counts.unanswered += 1,
            }
            counts
        })
    }

    /// How many messages a node has acknowledged since then.
    pub(super) fn acknowledged_by(&self, by: usize, since: Instant) -> usize {
        let is_it = |entry: &&Entry| matches!(entry.fate, Fate::Acknowledged { node, at, .. } if node == by && at >= since);
        self.lock().iter().rev().filter(is_it).count()
    }

    /// When something was, since the beginning.
    pub(super) fn time(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fate_is_counted() {
        let ledger = Ledger::new();
        let since = Instant::now();
        for _ in 0..5 {
            ledger.post(Uuid::nil());
        }
        let acknowledged = |node| Fate::Acknowledged { node, id: Uuid::nil(), at: Instant::now() };
        ledger.settle(0, acknowledged(1));
        ledger.settle(1, acknowledged(2));
        ledger.settle(2, Fate::Refused("no".into()));
        ledger.settle(3, Fate::Unanswered("hm".into()));
        assert_eq!(ledger.counts(), Counts { posted: 5, acknowledged: 2, refused: 1, unanswered: 1 });
        assert_eq!((ledger.acknowledged_by(1, since), ledger.acknowledged_by(1, Instant::now())), (1, 0));
    }
}
