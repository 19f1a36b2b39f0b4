//! What happens, one after the other, in the order of (time, number).

use std::collections::BTreeMap;

use super::{Time, Trace};

/// A queue of what happens next, and the time.
#[derive(Debug)]
pub struct Schedule<H> {
    now: Time,
    queue: BTreeMap<(Time, u64), H>,
    next_number: u64,
}

impl<H> Default for Schedule<H> {
    fn default() -> Self {
        Self { now: Time::ZERO, queue: BTreeMap::new(), next_number: 0 }
    }
}

impl<H> Schedule<H> {
    /// The time of what happened last.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// Something will happen, behind what happens at the same time anyway.
    pub fn after(&mut self, delay: Time, happening: H) {
        self.next_number += 1;
        self.queue.insert((self.now + delay, self.next_number), happening);
    }

    /// Goes on to what happens next.
    pub fn advance(&mut self, trace: &mut Trace) -> Option<H> {
        let ((at, number), happening) = self.queue.pop_first()?;
        self.now = at;
        trace.number(number);
        trace.number(at.as_micros() as u64);
        Some(happening)
    }
}
