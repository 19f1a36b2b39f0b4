//! Posting messages on a schedule, over some connections that are kept.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    figures::{Board, Times, times},
    mark::{self, Mark},
    target::Target,
};
use crate::bench::wire::Connection;

/// How long a message is tried again, at one server after the other.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one server may take to answer before the next one is tried.
const ANSWER: Duration = Duration::from_secs(10);
/// The pause before it is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// What became of the messages.
#[derive(Debug)]
pub(super) struct Posted {
    pub(super) accepted: u64,
    /// Those that were not accepted by anybody in time.
    pub(super) failed: u64,
    /// Those that were tried again.
    pub(super) repeated: u64,
    /// From the post to the answer.
    pub(super) answered: Times,
    /// How far behind its schedule a message was posted.
    pub(super) late: Times,
}

impl Default for Posted {
    fn default() -> Self {
        Self { accepted: 0, failed: 0, repeated: 0, answered: times(), late: times() }
    }
}

/// Posts `rate` messages a second for a time, to the spaces in turn.
pub(super) async fn run(
    target: &Arc<Target>,
    board: &Arc<Board>,
    (rate, time, size, lanes): (f64, Duration, usize, usize),
) -> anyhow::Result<Posted> {
    let count = (rate * time.as_secs_f64()).round() as u64;
    let (next, begin) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let run: u64 = rand::random();
    let mut running = JoinSet::new();
    for lane in 0..lanes {
        let mut lane = Lane {
            target: Arc::clone(target),
            board: Arc::clone(board),
            server: lane % target.servers.len(),
            connection: None,
            answer: ANSWER,
            patience: PATIENCE,
            posted: Posted::default(),
        };
        let next = Arc::clone(&next);
        running.spawn(async move {
            loop {
                let turn = next.fetch_add(1, Relaxed);
                if turn >= count {
                    return lane.posted;
                }
                let due = begin + Duration::from_secs_f64(turn as f64 / rate);
                sleep_until(due).await;
                lane.posted.late.saturating_record(micros(due.elapsed()));
                lane.post(turn, run, size).await;
            }
        });
    }
    let mut all = Posted::default();
    while let Some(ended) = running.join_next().await {
        all.add(&ended?)?;
    }
    Ok(all)
}

impl Posted {
    /// Adds what became of others.
    pub(super) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.accepted += other.accepted;
        self.failed += other.failed;
        self.repeated += other.repeated;
        self.answered.add(&other.answered)?;
        self.late.add(&other.late)?;
        Ok(())
    }
}

struct Lane {
    target: Arc<Target>,
    board: Arc<Board>,
    server: usize,
    connection: Option<Connection>,
    /// How long one server may take, and all of them.
    answer: Duration,
    patience: Duration,
    posted: Posted,
}

impl Lane {
    async fn post(&mut self, turn: u64, run: u64, size: usize) {
        let space = (turn % self.target.spaces.len() as u64) as usize;
        let number = self.board.posted[space].fetch_add(1, Relaxed);
        let text = Mark { number, posted: mark::now() }.text(size);
        let id = format!("{run:x}-{turn}");
        let began = Instant::now();
        loop {
            let answer = timeout(self.answer, self.once(space, &id, &text)).await;
            match answer.ok().flatten() {
                Some(200..300) => {
                    self.posted.accepted += 1;
                    self.posted.answered.saturating_record(micros(began.elapsed()));
                    return;
                }
                // Whether it was accepted before the answer was lost, nobody knows.
                _ if began.elapsed() > self.patience => {
                    self.posted.failed += 1;
                    let mut unsure = self.board.unsure.lock().unwrap_or_else(PoisonError::into_inner);
                    unsure.insert((space, number));
                    // An answer may still come on it.
                    self.connection = None;
                    return;
                }
                _ => {}
            }
            self.posted.repeated += 1;
            self.connection = None;
            self.server = (self.server + 1) % self.target.servers.len();
            sleep(PAUSE).await;
        }
    }

    /// The status of the answer; none when there is none.
    async fn once(&mut self, space: usize, id: &str, text: &str) -> Option<u16> {
        if self.connection.is_none() {
            self.connection = Connection::open(self.target.servers[self.server].address).await.ok();
        }
        let request = self.target.post(self.server, space, id, text);
        self.connection.as_mut()?.status_of(&request).await.ok()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::target::{Kind, Server, tests::target};

    #[tokio::test]
    async fn a_server_that_never_answers_is_given_up() {
        // It takes connections, which the system does for it, and nothing else.
        let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let servers = vec![Server { address: silent.local_addr().expect("an address") }];
        let target = Target { servers, ..target(Kind::MyChat) };
        let board = Arc::new(Board::new(1, 1));
        let mut lane = Lane {
            target: Arc::new(target),
            board: Arc::clone(&board),
            server: 0,
            connection: None,
            answer: Duration::from_millis(1),
            patience: Duration::ZERO,
            posted: Posted::default(),
        };
        lane.post(0, 0, 64).await;
        assert_eq!((lane.posted.accepted, lane.posted.failed), (0, 1));
        assert!(lane.connection.is_none(), "an answer that comes late is nobody's");
        assert!(board.unsure.lock().expect("the list").contains(&(0, 0)));
    }
}
