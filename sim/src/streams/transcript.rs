//! What the readers of one space at one node are told: the same bytes, so that a client has to understand only what the
//! first of them got.
//!
//! The load generator shares the machine with the server, and may take no more time than the comparison of what came
//! with what was expected.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::mark::Mark;

/// Events of which the bytes are kept; who is further behind understands them without help.
pub(super) const KEPT: usize = 1024;

/// An event as it came.
#[derive(Debug)]
pub(super) struct Entry {
    /// All of it, with the empty line at its end.
    pub(super) bytes: Box<[u8]>,
    /// Which message it brings.
    pub(super) mark: Mark,
}

/// The events of messages of one space, in the order in which a node sends them.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    entries: VecDeque<Arc<Entry>>,
    /// How many are gone from the front.
    base: u32,
    /// The ids of all of them, for those who come back with the one of long ago.
    ids: Vec<Option<Box<str>>>,
    /// Where the message of a number is.
    places: HashMap<u32, u32>,
}

impl Transcript {
    /// The event at a place.
    pub(super) fn get(&self, at: u32) -> Option<&Arc<Entry>> {
        self.entries.get(at.checked_sub(self.base)? as usize)
    }

    /// The id of the event at a place.
    pub(super) fn id(&self, at: u32) -> Option<&str> {
        self.ids.get(at as usize)?.as_deref()
    }

    /// Where the next new event will be.
    pub(super) fn end(&self) -> u32 {
        self.base + self.entries.len() as u32
    }

    /// Bytes of the latest event; 0 without one.
    pub(super) fn event_bytes(&self) -> u64 {
        self.entries.back().map_or(0, |entry| entry.bytes.len() as u64)
    }

    /// Notes an event, unless it is known, and gives the place that follows it.
    pub(super) fn note(&mut self, bytes: &[u8], mark: Mark) -> u32 {
        if let Some(place) = self.places.get(&mark.number) {
            return place + 1;
        }
        self.places.insert(mark.number, self.end());
        self.ids.push(id_of(bytes).map(Into::into));
        self.entries.push_back(Arc::new(Entry { bytes: bytes.into(), mark }));
        if self.entries.len() > KEPT {
            self.entries.pop_front();
            self.base += 1;
        }
        self.end()
    }
}

fn id_of(event: &[u8]) -> Option<&str> {
    let id = event.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"id: "))?;
    std::str::from_utf8(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_places_and_of_old_ones_only_the_id_is_kept() {
        let mut transcript = Transcript::default();
        for number in 0..2 * KEPT as u32 {
            let event = format!("id: {number}\ndata: x\n\n");
            assert_eq!(transcript.note(event.as_bytes(), Mark { number, posted: 0 }), number + 1);
        }
        let last = transcript.end() - 1;
        assert_eq!(transcript.get(last).map(|entry| entry.mark.number), Some(last));
        assert!(transcript.get(0).is_none() && transcript.get(last + 1).is_none());
        assert_eq!(transcript.entries.len(), KEPT);
        for known in [last, 0] {
            assert_eq!(transcript.note(b"y", Mark { number: known, posted: 0 }), known + 1, "it is known");
            assert_eq!(transcript.id(known), Some(known.to_string().as_str()));
        }
        assert_eq!(transcript.end(), last + 1);
    }
}
