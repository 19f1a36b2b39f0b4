//! The writer's two queues: local jobs and remote frames, taken in turns.
//!
//! A priority for either side starves the other: under a flood of local writes remote rows would never be seen,
//! and a node that catches up would not answer its clients. So the writer alternates between the two whenever
//! both wait. Whoever waits for the disk alone comes when neither does, or after a few turns. Local jobs are bounded by
//! the permits that [`super::Store::write`] takes; remote work by the protocol, which has at most one apply under way,
//! and syncs by the acknowledgements, of which there is one round at a time.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{Applied, Batch, StoreError, adopt::Adoption};
use crate::log::{Frame, SiteId, VersionVector};

/// What is left of a job once it ran: it is told how the commit went.
pub type Finish = Box<dyn FnOnce(Result<Arc<VersionVector>, StoreError>) + Send>;

/// A local write: fills the batch, or discards it.
pub type Job = Box<dyn FnOnce(&mut Batch<'_>) -> Finish + Send>;

/// Who waits for the disk.
pub type Synced = oneshot::Sender<Result<(), StoreError>>;

/// A job, the bytes that it holds, and since when it waits.
pub struct Queued {
    pub job: Job,
    pub bytes: usize,
    pub since: Instant,
}

/// Frames to merge.
pub struct Remote {
    pub frames: Vec<Arc<Frame>>,
    pub answer: oneshot::Sender<Result<Applied, StoreError>>,
}

/// Frames are merged first where a sync waits as well, since readers wait for them; but only so often.
const MAX_PUT_OFF: u32 = 8;

/// What the writer does next.
pub enum Work {
    Jobs(VecDeque<Queued>),
    Remote(Remote),
    Renew(oneshot::Sender<Result<SiteId, StoreError>>),
    /// Bring to the disk what is not there yet, for all who wait for it.
    Sync(Vec<Synced>),
    /// Nothing came for as long as the writer wanted to wait.
    Idle,
    Adopt(Box<Adoption>),
    Stop,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Queued>,
    remote: VecDeque<Remote>,
    renewal: Option<oneshot::Sender<Result<SiteId, StoreError>>>,
    adoption: Option<Box<Adoption>>,
    syncs: Vec<Synced>,
    /// How often others were let before them.
    syncs_put_off: u32,
    remote_next: bool,
    closed: bool,
}

impl Waiting {
    /// Whether there is something to write.
    fn has_rows(&self) -> bool {
        !self.jobs.is_empty() || !self.remote.is_empty()
    }

    /// What is to be done next.
    fn take(&mut self) -> Option<Work> {
        if let Some(answer) = self.renewal.take() {
            return Some(Work::Renew(answer));
        }
        if let Some(adoption) = self.adoption.take() {
            return Some(Work::Adopt(adoption));
        }
        if !self.syncs.is_empty() && (self.syncs_put_off >= MAX_PUT_OFF || !self.has_rows()) {
            self.syncs_put_off = 0;
            return Some(Work::Sync(std::mem::take(&mut self.syncs)));
        }
        self.syncs_put_off += u32::from(!self.syncs.is_empty());
        let remote_turn = self.remote_next || self.jobs.is_empty();
        if remote_turn && let Some(remote) = self.remote.pop_front() {
            self.remote_next = false;
            return Some(Work::Remote(remote));
        }
        if self.jobs.is_empty() {
            return None;
        }
        self.remote_next = true;
        Some(Work::Jobs(std::mem::take(&mut self.jobs)))
    }
}

#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Queue {
    pub fn push_job(&self, job: Job, bytes: usize) -> bool {
        self.push(|waiting| waiting.jobs.push_back(Queued { job, bytes, since: Instant::now() }))
    }

    /// How many jobs wait, and the bytes that they hold.
    pub fn depth(&self) -> (usize, usize) {
        let waiting = self.lock();
        (waiting.jobs.len(), waiting.jobs.iter().map(|queued| queued.bytes).sum())
    }

    pub fn push_remote(&self, remote: Remote) -> bool {
        self.push(|waiting| waiting.remote.push_back(remote))
    }

    pub fn push_sync(&self, answer: Synced) -> bool {
        self.push(|waiting| waiting.syncs.push(answer))
    }

    pub fn push_renewal(&self, answer: oneshot::Sender<Result<SiteId, StoreError>>) -> bool {
        self.push(|waiting| waiting.renewal = Some(answer))
    }

    pub fn push_adoption(&self, adoption: Adoption) -> bool {
        self.push(|waiting| waiting.adoption = Some(Box::new(adoption)))
    }

    /// What is queued is still done; nothing new is taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Blocks until there is something to do, or for `patience`. All waiting jobs come at once: they share a commit.
    pub fn next(&self, patience: Option<Duration>) -> Work {
        let mut waiting = self.lock();
        let deadline = patience.map(|patience| Instant::now() + patience);
        loop {
            if let Some(work) = waiting.take() {
                return work;
            }
            if waiting.closed {
                return Work::Stop;
            }
            waiting = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return Work::Idle,
                Some(left) => {
                    self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Jobs that wait, up to `most`, whatever else does.
    pub fn take_jobs(&self, most: usize) -> VecDeque<Queued> {
        let mut waiting = self.lock();
        let count = most.min(waiting.jobs.len());
        waiting.jobs.drain(..count).collect()
    }

    /// The next thing, if there is something to do.
    pub fn take(&self) -> Option<Work> {
        self.lock().take()
    }

    /// Whether there is something to do.
    pub fn has_work(&self) -> bool {
        let waiting = self.lock();
        let writes = waiting.has_rows() || !waiting.syncs.is_empty();
        writes || waiting.renewal.is_some() || waiting.adoption.is_some()
    }

    fn push(&self, add: impl FnOnce(&mut Waiting)) -> bool {
        let mut waiting = self.lock();
        if waiting.closed {
            return false;
        }
        add(&mut waiting);
        drop(waiting);
        self.changed.notify_one();
        true
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
