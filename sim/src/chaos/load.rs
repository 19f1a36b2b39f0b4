//! The load: messages posted at a steady rate, spread over the nodes, each tried until a node takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use super::client::{Client, Failure};
use super::ledger::{Fate, Ledger};

/// How long a message is tried, node after node, under the same client id.
const PATIENCE: Duration = Duration::from_secs(15);
/// The pause before the next node is asked, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Messages on their way; the next waits beyond.
const IN_FLIGHT: usize = 2_000;

/// The body of a message, which says its number.
pub(super) fn body(number: usize) -> String {
    format!("message {number}: as long as what people write to each other, more or less, on an average day")
}

/// Which nodes the load spares.
#[derive(Default)]
pub(super) struct Spared(Vec<AtomicBool>);

impl Spared {
    fn is(&self, node: usize) -> bool {
        self.0[node].load(Ordering::Relaxed)
    }
}

/// Who posts. Dropping it ends the posting at once; [`Load::stop`] is the way to wait for what is on its way.
pub(super) struct Load {
    stopping: Arc<AtomicBool>,
    spared: Arc<Spared>,
    task: JoinHandle<()>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Load {
    pub(super) fn start(client: Arc<Client>, space: Uuid, ledger: Ledger, rate: f64) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let spared = Arc::new(Spared(client.urls.iter().map(|_| AtomicBool::new(false)).collect()));
        let poster =
            Poster { client, path: format!("/v1/spaces/{space}/messages"), ledger, spared: spared.clone() };
        let task = tokio::spawn(run(Arc::new(poster), rate, stopping.clone()));
        Self { stopping, spared, task }
    }

    /// Posts nothing at this node, or does so again.
    pub(super) fn spare(&self, node: usize, spared: bool) {
        self.spared.0[node].store(spared, Ordering::Relaxed);
    }

    /// Posts nothing new, and waits for what is on its way.
    pub(super) async fn stop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = (&mut self.task).await;
    }
}

async fn run(poster: Arc<Poster>, rate: f64, stopping: Arc<AtomicBool>) {
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut posts = JoinSet::new();
    while !stopping.load(Ordering::Relaxed) {
        ticks.tick().await;
        // Closed by nobody.
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let poster = poster.clone();
        let client_id = Uuid::now_v7();
        let number = poster.ledger.post(client_id);
        posts.spawn(async move {
            let fate = poster.post(number, client_id).await;
            poster.ledger.settle(number, fate);
            drop(place);
        });
        while posts.try_join_next().is_some() {}
    }
    while posts.join_next().await.is_some() {}
}

struct Poster {
    client: Arc<Client>,
    path: String,
    ledger: Ledger,
    spared: Arc<Spared>,
}

impl Poster {
    async fn post(&self, number: usize, client_id: Uuid) -> Fate {
        let message = json!({ "body": body(number), "client_id": client_id.to_string() });
        let deadline = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        let mut last = Fate::Refused("every node is spared".into());
        for step in number.. {
            let node = step % self.client.urls.len();
            if !self.spared.is(node) {
                self.ledger.attempt(number);
                last = match self.client.call(node, Method::POST, &self.path, Some(&message)).await {
                    Ok(answer) => {
                        let id = answer["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_default();
                        return Fate::Acknowledged { node, id, at: Instant::now() };
                    }
                    Err(refusal @ Failure::Refused { .. }) => Fate::Refused(refusal.to_string()),
                    Err(silence @ Failure::Silent(_)) => Fate::Unanswered(silence.to_string()),
                };
            }
            if Instant::now() + pause >= deadline {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        last
    }
}
