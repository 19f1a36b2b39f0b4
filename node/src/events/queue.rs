//! What waits for one stream: encoded events, bounded in bytes.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use mychat_replication::mutation::{self, Mutation};

/// Bytes that may wait for one stream. A reader that is slower gets what is queued, to the last whole event, and then
/// the end of the stream; it comes back with its cursor and has lost nothing.
pub const QUEUE_BYTES: usize = 1 << 20;

/// Bytes that may wait before an event that is not kept is left out.
const EPHEMERAL_BYTES: usize = QUEUE_BYTES / 4;

/// An encoded event. Streams that get the same event share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The cursor after it; none for an ephemeral event.
    pub id: Option<String>,
    /// The type.
    pub kind: &'static str,
    /// The data, JSON in one line.
    pub data: String,
    /// All of it as it goes over the wire.
    pub wire: Bytes,
}

impl Item {
    /// Encodes an event (WHATWG HTML, "Server-sent events").
    #[must_use]
    pub fn new(id: Option<String>, kind: &'static str, data: &serde_json::Value) -> Self {
        Self::from_json(id, kind, data.to_string())
    }

    /// The same from data that is JSON text already, without line breaks.
    #[must_use]
    pub fn from_json(id: Option<String>, kind: &'static str, data: String) -> Self {
        let id_line = id.as_ref().map(|id| format!("id: {id}\n")).unwrap_or_default();
        let wire = Bytes::from(format!("{id_line}event: {kind}\ndata: {data}\n\n"));
        Self { id, kind, data, wire }
    }
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Arc<Item>>,
    bytes: usize,
    ended: bool,
    /// The last event of a reader who may hear nothing more.
    revoked: Option<Arc<Item>>,
    nudged: bool,
    reader: Option<Waker>,
}

/// The queue between the hub and one stream.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
}

impl Queue {
    /// Adds an event; `false` when there is no room, or nobody to read it: then the stream ends after what is queued.
    pub fn push(&self, item: &Arc<Item>) -> bool {
        let mut state = self.lock();
        if state.ended {
            return false;
        }
        let full = !state.items.is_empty() && state.bytes + item.wire.len() > QUEUE_BYTES;
        if full && !mutation::is_on(Mutation::UnboundedQueue) {
            metrics::counter!("mychat_events_slow_readers_total").increment(1);
            end(&mut state);
            return false;
        }
        state.bytes += item.wire.len();
        state.items.push_back(Arc::clone(item));
        wake(&mut state);
        true
    }

    /// Adds an event that may as well get lost: a reader who is slow does without it, and `false` says so.
    pub fn offer(&self, item: &Arc<Item>) -> bool {
        let mut state = self.lock();
        let room = !state.ended && state.bytes + item.wire.len() <= EPHEMERAL_BYTES;
        if room {
            state.bytes += item.wire.len();
            state.items.push_back(Arc::clone(item));
            wake(&mut state);
        } else {
            metrics::counter!("mychat_events_ephemeral_dropped_total").increment(1);
        }
        room
    }

    /// Ends the stream after what is queued.
    pub fn end(&self) {
        end(&mut self.lock());
    }

    /// Ends the stream, since its reader may hear nothing more, with this event after what is queued.
    pub fn revoke(&self, last: &Arc<Item>) {
        self.push(last);
        let mut state = self.lock();
        state.revoked = Some(Arc::clone(last));
        end(&mut state);
    }

    /// The last event of a reader who may hear nothing more, and is told it now: what is queued is dropped. For one who has
    /// not been told yet what came before that.
    pub fn revoked(&self) -> Option<Arc<Item>> {
        let mut state = self.lock();
        let last = state.revoked.take()?;
        state.items.clear();
        state.bytes = 0;
        Some(last)
    }

    /// Wakes the reader, which gets what waits, be it nothing.
    pub fn nudge(&self) {
        let mut state = self.lock();
        state.nudged = true;
        wake(&mut state);
    }

    /// Takes what waits, without waiting for it, and whether that was all and the stream has ended.
    pub fn take(&self) -> (VecDeque<Arc<Item>>, bool) {
        let mut state = self.lock();
        state.bytes = 0;
        (std::mem::take(&mut state.items), state.ended)
    }

    /// Takes everything that waits; `None` after the end.
    pub fn poll_take(&self, cx: &Context<'_>) -> Poll<Option<VecDeque<Arc<Item>>>> {
        let mut state = self.lock();
        if std::mem::take(&mut state.nudged) || !state.items.is_empty() {
            state.bytes = 0;
            return Poll::Ready(Some(std::mem::take(&mut state.items)));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end(state: &mut State) {
    state.ended = true;
    wake(state);
}

fn wake(state: &mut State) {
    if let Some(reader) = state.reader.take() {
        reader.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(size: usize) -> Arc<Item> {
        Arc::new(Item::from_json(None, "typing", "x".repeat(size)))
    }

    fn take(queue: &Queue) -> Poll<Option<usize>> {
        queue.poll_take(&Context::from_waker(Waker::noop())).map(|items| items.map(|items| items.len()))
    }

    #[test]
    fn an_event_is_encoded_in_one_piece_on_single_lines() {
        let item = Item::new(Some("AQA".into()), "message.created", &serde_json::json!({ "body": "a\nb" }));
        assert_eq!(item.wire, "id: AQA\nevent: message.created\ndata: {\"body\":\"a\\nb\"}\n\n");
    }

    #[test]
    fn what_waits_together_is_taken_together() {
        let queue = Queue::default();
        assert_eq!(take(&queue), Poll::Pending);
        assert!(queue.push(&item(10)) && queue.push(&item(10)));
        assert_eq!(take(&queue), Poll::Ready(Some(2)));
        assert_eq!(take(&queue), Poll::Pending);
    }

    #[test]
    fn i7_bounded_a_slow_reader_is_ended_after_the_last_whole_event() {
        let queue = Queue::default();
        let mut pushed = 0;
        while queue.push(&item(1000)) {
            pushed += 1;
        }
        assert!(pushed * 1000 <= QUEUE_BYTES && pushed > 900);
        assert!(!queue.push(&item(1)), "nothing comes after the end");
        assert_eq!(take(&queue), Poll::Ready(Some(pushed)));
        assert_eq!(take(&queue), Poll::Ready(None));
    }

    #[test]
    fn a_slow_reader_does_without_what_is_not_kept() {
        let queue = Queue::default();
        let mut offered = 0;
        while queue.offer(&item(1000)) {
            offered += 1;
        }
        assert!(offered * 1000 <= EPHEMERAL_BYTES);
        assert!(queue.push(&item(1000)), "there is room for what must not get lost");
        assert_eq!(take(&queue), Poll::Ready(Some(offered + 1)));
        queue.end();
        assert!(!queue.offer(&item(1)), "nothing comes after the end");
    }

    #[test]
    fn an_event_larger_than_the_bound_still_passes() {
        let queue = Queue::default();
        assert!(queue.push(&item(2 * QUEUE_BYTES)));
        assert!(!queue.push(&item(1)));
        assert_eq!(take(&queue), Poll::Ready(Some(1)));
    }
}
