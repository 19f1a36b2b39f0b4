//! Readers of the events: each follows by its cursor, at its own node while that is there and elsewhere while it is
//! not. One has no home and moves about.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rand::{RngExt, rngs::StdRng};
use serde::Deserialize;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::client::{Client, Failure};
use crate::sse::{Event, Parser};

/// The pause after a node gave no stream.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a reader that is away asks whether its own node is back.
const HOME_POLL: Duration = Duration::from_millis(500);
/// How long the one without a home stays anywhere.
const STAY: std::ops::Range<u64> = 500..4_000;

/// A message that came.
#[derive(Debug, Clone)]
pub(super) struct Sighting {
    pub(super) id: Uuid,
    pub(super) at: Instant,
    /// Where it was read.
    pub(super) node: usize,
    /// In which of the reader's streams.
    stream: u64,
}

/// What a reader has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The first sighting by client id.
    pub(super) first: HashMap<Uuid, Sighting>,
    /// What came again that the cursor had covered, or that the same stream should have named as replaced.
    pub(super) repeated: Vec<String>,
    /// Messages that two nodes took and that came once from each, on two streams: before they know of each other, only
    /// the client id shows that they are one.
    pub(super) twins: u64,
    /// Nodes that could not serve the cursor.
    pub(super) resets: Vec<usize>,
    /// Streams that were opened.
    pub(super) streams: u64,
}

#[derive(Deserialize)]
struct Message {
    id: Uuid,
    space: Uuid,
    client_id: Option<Uuid>,
    #[serde(default)]
    replaces: Vec<Uuid>,
}

impl Seen {
    fn note(&mut self, message: Message, at: Instant, node: usize) {
        let Some(client_id) = message.client_id else { return };
        let sighting = Sighting { id: message.id, at, node, stream: self.streams };
        let Some(known) = self.first.get_mut(&client_id) else {
            self.first.insert(client_id, sighting);
            return;
        };
        if known.id != message.id && message.replaces.contains(&known.id) {
            // Two nodes took it; this is the one that counts.
        } else if known.id != message.id && known.stream != sighting.stream {
            self.twins += 1;
        } else {
            let again = format!("{client_id} as {} after {} (read at node {node})", message.id, known.id);
            self.repeated.push(again);
        }
        // As a client does that has both.
        known.id = known.id.min(message.id);
    }
}

/// A reader at work. Dropping it ends its stream.
pub(super) struct Reader {
    pub(super) name: String,
    /// None for the one that moves about.
    pub(super) home: Option<usize>,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reader {
    pub(super) fn start(
        name: String,
        home: Option<usize>,
        client: Arc<Client>,
        space: Uuid,
        chance: StdRng,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let at = home.unwrap_or(0);
        let reading = Reading { at, home, client, space, seen: seen.clone(), cursor: None, chance };
        Self { name, home, seen, task: tokio::spawn(reading.run()) }
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    // Lists and maps stay usable whatever happened to their last writer.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Reading {
    at: usize,
    home: Option<usize>,
    client: Arc<Client>,
    space: Uuid,
    seen: Arc<Mutex<Seen>>,
    cursor: Option<String>,
    chance: StdRng,
}

impl Reading {
    async fn run(mut self) {
        loop {
            let next = match self.read_once().await {
                Ok(next) => next,
                Err(failure) => {
                    tracing::debug!(node = self.at, %failure, "no event stream");
                    tokio::time::sleep(PAUSE).await;
                    None
                }
            };
            self.at = next.unwrap_or((self.at + 1) % self.client.urls.len());
        }
    }

    /// Reads a stream until it ends or it is time to move; the node to go on at, if it matters.
    async fn read_once(&mut self) -> Result<Option<usize>, Failure> {
        let response = self.client.events(self.at, self.cursor.as_deref()).await?;
        lock(&self.seen).streams += 1;
        let mut bytes = response.bytes_stream();
        let mut parser = Parser::new();
        let mut moving = std::pin::pin!(self.time_to_move());
        loop {
            let part = tokio::select! {
                part = bytes.next() => part,
                to = &mut moving => return Ok(Some(to)),
            };
            let Some(Ok(part)) = part else { return Ok(None) };
            let arrived = Instant::now();
            if parser.push(&part).is_err() {
                return Ok(None);
            }
            while let Some(event) = parser.next_event() {
                if !self.take(event, arrived) {
                    return Ok(None);
                }
            }
        }
    }

    /// Waits until the reader should be elsewhere, and says where.
    fn time_to_move(&mut self) -> impl Future<Output = usize> + use<> {
        let (client, at, home) = (self.client.clone(), self.at, self.home);
        let stay = Duration::from_millis(self.chance.random_range(STAY));
        let elsewhere = self.chance.random_range(0..client.urls.len());
        async move {
            match home {
                Some(home) if home == at => std::future::pending().await,
                Some(home) => loop {
                    tokio::time::sleep(HOME_POLL).await;
                    if client.is_ready(home).await {
                        return home;
                    }
                },
                None => {
                    tokio::time::sleep(stay).await;
                    elsewhere
                }
            }
        }
    }

    /// Notes an event; false when the node says goodbye.
    fn take(&mut self, event: Event, arrived: Instant) -> bool {
        match event.kind.as_str() {
            // Names where the stream starts, which counts until an event has an id of its own.
            "ready" if self.cursor.is_none() => {
                let ready: serde_json::Value = serde_json::from_str(&event.data).unwrap_or_default();
                self.cursor = ready["cursor"].as_str().map(str::to_owned);
            }
            "message.created" => match serde_json::from_str::<Message>(&event.data) {
                Ok(message) if message.space == self.space => {
                    lock(&self.seen).note(message, arrived, self.at);
                }
                _ => {}
            },
            "reset" => lock(&self.seen).resets.push(self.at),
            "goodbye" => return false,
            _ => {}
        }
        // After the event is noted, so that a resumed stream begins behind it.
        if !event.id.is_empty() {
            self.cursor = Some(event.id);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_replaces_a_duplicate_is_no_repetition() {
        let (client_id, space) = (Some(Uuid::from_u128(1)), Uuid::nil());
        let message = |id, replaces: &[u128]| {
            let replaces = replaces.iter().copied().map(Uuid::from_u128).collect();
            Message { id: Uuid::from_u128(id), space, client_id, replaces }
        };
        let mut seen = Seen { streams: 1, ..Seen::default() };
        seen.note(message(7, &[]), Instant::now(), 0);
        seen.note(message(6, &[7]), Instant::now(), 0);
        assert_eq!((seen.repeated.len(), seen.twins), (0, 0));
        seen.note(message(5, &[]), Instant::now(), 0);
        assert_eq!((seen.repeated.len(), seen.twins), (1, 0), "the stream should have named it");
        seen.streams += 1;
        seen.note(message(4, &[]), Instant::now(), 1);
        assert_eq!((seen.repeated.len(), seen.twins), (1, 1));
        seen.note(message(4, &[]), Instant::now(), 1);
        assert_eq!((seen.repeated.len(), seen.twins), (2, 1), "the cursor had it");
        assert_eq!((seen.first.len(), seen.first[&Uuid::from_u128(1)].node), (1, 0));
    }
}
