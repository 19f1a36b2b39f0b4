//! Somebody who reads along at a node, and reads on elsewhere when that node goes away.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde::Deserialize;
use tokio::sync::watch;
use uuid::Uuid;

use super::api::{Api, CallError};
use super::people::Account;
use crate::sse::{Event, Parser};

/// The pause after every node has failed, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often an observer that is away asks whether its own node is back.
const HOME_POLL: Duration = Duration::from_millis(500);
/// How long a token may take to come.
const TOKEN: Duration = Duration::from_secs(30);

/// What an observer has seen so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Each message once, in order of arrival.
    pub(super) messages: Vec<Sighting>,
    pub(super) ids: HashSet<Uuid>,
    /// The client ids of the messages.
    pub(super) client_ids: HashSet<Uuid>,
    /// How often a message came that had come before.
    pub(super) doubled: u64,
    /// How often a stream was opened after the first.
    pub(super) reconnects: u64,
    /// How often a node said that it can't serve the cursor.
    pub(super) resets: u64,
}

impl Seen {
    /// Whether it has seen the line that was answered with this id.
    ///
    /// A node that dies before its answer has sent may have kept the line, which the next node then takes too. The
    /// nodes make one message of the two, under either id.
    pub(super) fn has(&self, id: &Uuid, client_id: &Uuid) -> bool {
        self.ids.contains(id) || self.client_ids.contains(client_id)
    }
}

/// One message at one observer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sighting {
    pub(super) id: Uuid,
    /// The node that the observer was reading at.
    pub(super) node: usize,
    pub(super) at: Instant,
    /// When that stream was opened: what was sent before is the backlog.
    pub(super) stream_since: Instant,
}

/// An observer at work. Dropping it ends its stream.
pub(super) struct Observer {
    seen: Arc<Mutex<Seen>>,
    reading: watch::Receiver<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Observer {
    pub(super) fn start(api: Arc<Api>, account: Arc<Account>, space: Uuid) -> Observer {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (reading, is_reading) = watch::channel(false);
        let reader = Reader {
            at: account.home,
            api,
            account,
            space,
            seen: seen.clone(),
            reading,
            cursor: None,
            connected_before: false,
        };
        Observer { seen, reading: is_reading, task: tokio::spawn(reader.run()) }
    }

    /// Waits until the first stream has begun; false when it has not within the time.
    pub(super) async fn is_reading(&self, within: Duration) -> bool {
        let mut reading = self.reading.clone();
        tokio::time::timeout(within, reading.wait_for(|reading| *reading))
            .await
            .is_ok_and(|seen| seen.is_ok())
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    // Counters and sets stay usable whatever happened to their last writer.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a stream ended.
enum End {
    /// Broken off, silent or closed by the node: the next node is asked.
    Lost,
    /// The observer's own node is ready again.
    Home,
}

struct Reader {
    api: Arc<Api>,
    account: Arc<Account>,
    space: Uuid,
    seen: Arc<Mutex<Seen>>,
    reading: watch::Sender<bool>,
    /// The node to read at.
    at: usize,
    cursor: Option<String>,
    connected_before: bool,
}

/// What is read of a message.
#[derive(Deserialize)]
struct Message {
    id: Uuid,
    space: Uuid,
    client_id: Option<String>,
}

impl Reader {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        let mut failures = 0;
        loop {
            match self.read_once().await {
                Ok(End::Home) => {
                    self.at = self.account.home;
                    continue;
                }
                Ok(End::Lost) => {
                    (failures, pause) = (0, FIRST_PAUSE);
                }
                Err(error) => {
                    tracing::debug!(node = self.api.nodes[self.at].url, %error, "no event stream");
                    failures += 1;
                }
            }
            self.at = (self.at + 1) % self.api.nodes.len();
            if failures >= self.api.nodes.len() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                failures = 0;
            }
        }
    }

    /// Reads one stream to its end; an error means that there was none.
    async fn read_once(&mut self) -> Result<End, CallError> {
        let response = self.open().await?;
        if std::mem::replace(&mut self.connected_before, true) {
            lock(&self.seen).reconnects += 1;
        }
        let since = Instant::now();
        let (api, node, home) = (self.api.clone(), self.at, self.account.home);
        let mut home_is_back = std::pin::pin!(async move {
            match node == home {
                true => std::future::pending().await,
                false => wait_until_ready(&api, home).await,
            }
        });
        let mut bytes = response.bytes_stream();
        let mut parser = Parser::new();
        loop {
            let part = tokio::select! {
                part = bytes.next() => part,
                () = &mut home_is_back => return Ok(End::Home),
            };
            let Some(Ok(part)) = part else { return Ok(End::Lost) };
            let arrived = Instant::now();
            if parser.push(&part).is_err() {
                return Ok(End::Lost);
            }
            while let Some(event) = parser.next_event() {
                if !self.take(event, arrived, since) {
                    return Ok(End::Lost);
                }
            }
        }
    }

    async fn open(&self) -> Result<reqwest::Response, CallError> {
        let deadline = Instant::now() + TOKEN;
        let token = self.account.token(&self.api, deadline).await?;
        match self.api.events(self.at, &token, self.cursor.as_deref()).await {
            Err(CallError::Refused { status: 401, .. }) => {
                let token = self.account.another_token(&self.api, &token, deadline).await?;
                self.api.events(self.at, &token, self.cursor.as_deref()).await
            }
            other => other,
        }
    }

    /// Notes an event; false when the node says goodbye.
    fn take(&mut self, event: Event, arrived: Instant, since: Instant) -> bool {
        match event.kind.as_str() {
            "ready" => self.begin(&event.data),
            "message.created" => {
                if let Ok(message) = serde_json::from_str::<Message>(&event.data)
                    && message.space == self.space
                {
                    self.note(&message, arrived, since);
                }
            }
            "reset" => lock(&self.seen).resets += 1,
            "goodbye" => return false,
            _ => {}
        }
        // After the event is noted, so that a resumed stream begins behind it.
        if !event.id.is_empty() {
            self.cursor = Some(event.id);
        }
        true
    }

    /// The first event of a stream names where it starts, which counts until an event has an id of its own.
    fn begin(&mut self, data: &str) {
        if self.cursor.is_none() {
            let ready: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
            self.cursor = ready["cursor"].as_str().map(str::to_owned);
        }
        self.reading.send_replace(true);
    }

    fn note(&self, message: &Message, at: Instant, stream_since: Instant) {
        let mut seen = lock(&self.seen);
        seen.client_ids.extend(message.client_id.as_deref().and_then(|id| id.parse::<Uuid>().ok()));
        match seen.ids.insert(message.id) {
            true => seen.messages.push(Sighting { id: message.id, node: self.at, at, stream_since }),
            false => seen.doubled += 1,
        }
    }
}

async fn wait_until_ready(api: &Api, node: usize) {
    loop {
        tokio::time::sleep(HOME_POLL).await;
        if api.is_ready(node).await {
            return;
        }
    }
}
