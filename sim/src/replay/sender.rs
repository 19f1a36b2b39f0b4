//! Posting the lines at their rate.
//!
//! The load is open: each line has its moment, and is posted then whether or not earlier ones have been answered, as
//! independent people would. Only when very many are unanswered at once does the schedule wait, and the report says
//! by how much.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use reqwest::Method;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use uuid::Uuid;

use super::api::{Api, Call, CallError};
use super::people::Account;
use super::script::ScriptLine;

/// The pause after every node has failed, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How lines are posted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Lines a second.
    pub(super) rate: f64,
    /// Lines without an answer at which the schedule waits.
    pub(super) in_flight: usize,
    /// How long a line is offered to the nodes.
    pub(super) patience: Duration,
}

/// What became of one line.
#[derive(Debug, Clone)]
pub(super) struct Posted {
    /// Its position in the script.
    pub(super) line: usize,
    /// Under which it was posted.
    pub(super) client_id: Uuid,
    /// When the first request for it began.
    pub(super) started: Instant,
    /// How long after its moment that was.
    pub(super) late: Duration,
    /// How many requests it took.
    pub(super) attempts: u32,
    pub(super) outcome: Outcome,
}

#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// Answered with success by this node.
    Accepted { id: Uuid, node: usize, answered: Instant },
    /// Refused for what it is.
    Refused(CallError),
    /// No node has answered in time.
    Unanswered(CallError),
}

/// Posts all lines and returns what became of each, in no particular order.
pub(super) async fn post_all(
    api: &Arc<Api>,
    space: Uuid,
    speakers: &[Arc<Account>],
    lines: Vec<ScriptLine>,
    pace: Pace,
    progress: &ProgressBar,
) -> Vec<Posted> {
    let slots = Arc::new(Semaphore::new(pace.in_flight));
    let mut under_way = JoinSet::new();
    let mut posted = Vec::with_capacity(lines.len());
    let beginning = Instant::now();
    for (number, line) in lines.into_iter().enumerate() {
        let moment = beginning + Duration::from_secs_f64(number as f64 / pace.rate);
        tokio::time::sleep_until(moment.into()).await;
        // The semaphore is never closed.
        let slot = slots.clone().acquire_owned().await.ok();
        let Some(author) = speakers.get(line.speaker).cloned() else { continue };
        let (api, progress) = (api.clone(), progress.clone());
        under_way.spawn(async move {
            let posted = post(&api, space, &author, number, line.body, moment, pace.patience).await;
            progress.inc(1);
            drop(slot);
            posted
        });
        while let Some(done) = under_way.try_join_next() {
            posted.push(unwound(done));
        }
    }
    while let Some(done) = under_way.join_next().await {
        posted.push(unwound(done));
    }
    posted
}

/// The result of a task; its panic goes on here, since a line that nobody counts would look like no line.
fn unwound(done: Result<Posted, JoinError>) -> Posted {
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Posts one line under one client id, at the author's node and, when that fails, at the next ones.
async fn post(
    api: &Api,
    space: Uuid,
    author: &Account,
    line: usize,
    body: String,
    moment: Instant,
    patience: Duration,
) -> Posted {
    let deadline = Instant::now() + patience;
    let path = format!("/v1/spaces/{space}/messages");
    let client_id = Uuid::now_v7();
    let body = json!({ "body": body, "client_id": client_id });
    let mut posted = Posted {
        line,
        client_id,
        started: Instant::now(),
        late: moment.elapsed(),
        attempts: 0,
        outcome: Outcome::Unanswered(CallError::Unreachable("no node was asked".to_owned())),
    };
    let mut token = match author.token(api, deadline).await {
        Ok(token) => token,
        Err(error) => return Posted { outcome: Outcome::Unanswered(error), ..posted },
    };
    // The clock starts with the request: renewing a token every 15 minutes is not part of sending.
    posted.started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let mut wait = pause;
        for node in api.order(author.home) {
            posted.attempts += 1;
            match api.call(node, Call::send(&Method::POST, &path, &body).token(&token)).await {
                Ok(answer) => {
                    posted.outcome = accepted(&answer.body, answer.node);
                    return posted;
                }
                Err(error @ CallError::Refused { status: 401, .. }) => {
                    posted.outcome = Outcome::Unanswered(error);
                    match author.another_token(api, &token, deadline).await {
                        Ok(another) => token = another,
                        Err(error) => return Posted { outcome: Outcome::Unanswered(error), ..posted },
                    }
                }
                // Behind: the node has not heard of the member or the space.
                Err(error @ CallError::Refused { status: 403 | 404, .. }) => {
                    posted.outcome = Outcome::Unanswered(error);
                }
                Err(error @ CallError::Refused { .. }) => {
                    return Posted { outcome: Outcome::Refused(error), ..posted };
                }
                Err(error) => {
                    if let CallError::Busy(after) = error {
                        wait = wait.max(after);
                    }
                    posted.outcome = Outcome::Unanswered(error);
                }
            }
        }
        if Instant::now() + wait >= deadline {
            return posted;
        }
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn accepted(message: &serde_json::Value, node: usize) -> Outcome {
    match message["id"].as_str().and_then(|id| id.parse().ok()) {
        Some(id) => Outcome::Accepted { id, node, answered: Instant::now() },
        None => Outcome::Unanswered(CallError::Unreachable("the answer has no message id".to_owned())),
    }
}
