//! When each message was due, posted, answered and seen, by one clock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The fates of messages that are posted on a schedule. Writers and readers fill it in side by side.
#[derive(Debug)]
pub(super) struct Timeline {
    start: Instant,
    rate: f64,
    begun: Vec<AtomicU64>,
    answered: Vec<AtomicU64>,
    /// One list for each reader.
    seen: Vec<Vec<AtomicU64>>,
}

/// Nanoseconds from the start; all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fate<'a> {
    pub(super) due: i64,
    pub(super) begun: i64,
    pub(super) answered: i64,
    timeline: &'a Timeline,
    number: usize,
}

impl PartialEq for Timeline {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Timeline {}

impl Fate<'_> {
    /// When a reader saw it.
    pub(super) fn seen(&self, reader: usize) -> Option<i64> {
        read(&self.timeline.seen[reader][self.number])
    }
}

impl Timeline {
    /// A schedule of `count` messages, `rate` a second, from `start` on.
    pub(super) fn new(start: Instant, rate: f64, count: usize, readers: usize) -> Self {
        let empty = || (0..count).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        Self { start, rate, begun: empty(), answered: empty(), seen: (0..readers).map(|_| empty()).collect() }
    }

    pub(super) fn len(&self) -> u64 {
        self.begun.len() as u64
    }

    /// When a message is to be posted.
    pub(super) fn due(&self, number: u64) -> Instant {
        self.start + Duration::from_secs_f64(number as f64 / self.rate)
    }

    pub(super) fn begins(&self, number: u64) {
        self.note(&self.begun, number);
    }

    pub(super) fn answered(&self, number: u64) {
        self.note(&self.answered, number);
    }

    pub(super) fn seen(&self, reader: usize, number: u64) {
        self.note(&self.seen[reader], number);
    }

    /// The first time counts: a message shows its mark more than once. Numbers of other messages are passed over.
    fn note(&self, list: &[AtomicU64], number: u64) {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
        if let Some(slot) = usize::try_from(number).ok().and_then(|number| list.get(number)) {
            let _ = slot.compare_exchange(0, now, Relaxed, Relaxed);
        }
    }

    /// How many messages have been answered.
    pub(super) fn count_answered(&self) -> u64 {
        count(&self.answered)
    }

    /// How many a reader has seen.
    pub(super) fn count_seen(&self, reader: usize) -> u64 {
        count(&self.seen[reader])
    }

    /// The messages from one number on that were answered.
    pub(super) fn fates(&self, from: u64) -> impl Iterator<Item = Fate<'_>> {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        (from..self.begun.len()).filter_map(|number| {
            let due = self.due(number as u64).duration_since(self.start);
            Some(Fate {
                due: i64::try_from(due.as_nanos()).unwrap_or(i64::MAX),
                begun: read(&self.begun[number])?,
                answered: read(&self.answered[number])?,
                timeline: self,
                number,
            })
        })
    }
}

fn count(list: &[AtomicU64]) -> u64 {
    list.iter().filter(|slot| slot.load(Relaxed) > 0).count() as u64
}

fn read(slot: &AtomicU64) -> Option<i64> {
    match slot.load(Relaxed) {
        0 => None,
        at => i64::try_from(at).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_counts_and_strangers_do_not() {
        let timeline = Timeline::new(Instant::now(), 100.0, 3, 1);
        assert_eq!(timeline.due(2), timeline.start + Duration::from_millis(20));
        timeline.begins(1);
        timeline.answered(1);
        timeline.seen(0, 1);
        let first: Vec<_> = timeline.fates(0).map(|fate| (fate.due, fate.seen(0))).collect();
        timeline.seen(0, 1);
        timeline.seen(0, 3);
        timeline.begins(2);
        let again: Vec<_> = timeline.fates(0).map(|fate| (fate.due, fate.seen(0))).collect();
        assert_eq!(first, again);
        assert_eq!((first.len(), first[0].0, first[0].1.is_some()), (1, 10_000_000, true));
        assert_eq!((timeline.count_answered(), timeline.count_seen(0)), (1, 1));
    }
}
