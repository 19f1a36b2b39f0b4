//! The driver of the protocol: a [`Store`] that takes part in a [`Mesh`].
//!
//! One task owns the protocol's [`Core`](crate::protocol::Core) and is told everything in turn: what the mesh reports, what the store
//! commits, what the tasks around the streams read and write. It never waits for any of them. Its answers go to
//!
//! - a writing task for each follower (`streams.rs`), whose queue the core bounds by its window,
//! - a reading task for each upstream, which takes no more than the credit that the core gives,
//! - short tasks for reads of the log and for applying a batch.
//!
//! Datagrams and streams of kinds that are not replication's are handed on to the application.

mod streams;
mod task;
pub(crate) mod wire;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    NodeId,
    log::VersionVector,
    mesh::{Mesh, MeshEvent},
    snapshot::{SnapshotConfig, SyncStatus},
    store::Store,
};

/// Kinds of streams and datagrams from this one on are the application's.
pub const APPLICATION_KINDS: u8 = 32;
/// Datagrams of the application that wait to be taken; more are dropped, as datagrams may be.
const APPLICATION_QUEUE: usize = 1024;
/// Reports of the tasks that wait for the core's task; the reporting task waits beyond.
const REPORTS: usize = 1024;

/// How replication stands.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Whether writes may be accepted (see [`crate::protocol`]): not before the peers had their say.
    pub settled: bool,
    /// Whether this node also holds what its peers held a moment ago: clients may be sent here. Once that has lasted, it
    /// stays so when the node falls behind later on, unless it takes a snapshot.
    pub ready: bool,
    /// What the node does about what it lacks.
    pub sync: SyncStatus,
    /// The peers that hold data, as far as they are connected.
    pub peers: BTreeMap<NodeId, PeerStatus>,
}

/// How a peer stands.
#[derive(Debug, Clone, Default)]
pub struct PeerStatus {
    /// What it said it holds; at most a heartbeat old.
    pub heads: VersionVector,
    /// Versions that this node lacks of it.
    pub behind: u64,
}

/// A datagram of the application's.
#[derive(Debug, Clone)]
pub struct Message {
    /// Who sent it.
    pub from: NodeId,
    /// Its kind, [`APPLICATION_KINDS`] or above.
    pub kind: u8,
    /// What it says.
    pub payload: Bytes,
}

/// A replicated store at work. Dropping it, or [`Replica::stop`], ends its tasks; store and mesh stay.
#[derive(Debug)]
pub struct Replica {
    store: Store,
    status: watch::Receiver<Status>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Replica {
    /// Joins `store` to the mesh. `alone` says that no seed was configured: there is nobody whose word to wait for.
    /// The receiver gives the application's datagrams.
    #[must_use]
    pub fn start(
        store: Store,
        mesh: Mesh,
        events: mpsc::Receiver<MeshEvent>,
        alone: bool,
    ) -> (Self, mpsc::Receiver<Message>) {
        Self::start_with(store, mesh, events, alone, SnapshotConfig::default())
    }

    /// The same with other settings for snapshots.
    #[must_use]
    pub fn start_with(
        store: Store,
        mesh: Mesh,
        events: mpsc::Receiver<MeshEvent>,
        alone: bool,
        config: SnapshotConfig,
    ) -> (Self, mpsc::Receiver<Message>) {
        let status = Status { settled: alone, ready: alone, ..Status::default() };
        let (status, watching) = watch::channel(status);
        let (messages, receiver) = mpsc::channel(APPLICATION_QUEUE);
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let commits = store.commits();
        if !alone {
            store.hold_writes();
        }
        let settings = task::Settings { alone, snapshots: config };
        let task =
            task::CoreTask::new(store.clone(), mesh, tasks.clone(), stop.clone(), status, messages, settings);
        tasks.spawn({
            let stop = stop.clone();
            async move {
                stop.run_until_cancelled(task.run(events, commits)).await;
            }
        });
        (Self { store, status: watching, stop, tasks }, receiver)
    }

    /// How replication stands; changes are told within a heartbeat.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Waits until every connected peer holds all that this node wrote; `false` when that took too long.
    pub async fn flush(&self, timeout: Duration) -> bool {
        let wrote: VersionVector =
            std::iter::once((self.store.site(), self.store.vector().get(self.store.site()))).collect();
        let mut status = self.status.clone();
        let flushed = status.wait_for(|status| status.peers.values().all(|peer| peer.heads.covers(&wrote)));
        matches!(tokio::time::timeout(timeout, flushed).await, Ok(Ok(_)))
    }

    /// Ends all tasks.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What the core's task is told by the tasks around it.
enum Report {
    /// An event for the core as it is.
    Event(crate::protocol::Event),
    /// The work on a snapshot went on.
    Snapshot(task::Outcome),
    /// A peer asked for a log; its answers go to the stream.
    Follower { peer: NodeId, request: wire::FollowRequest, send: quinn::SendStream },
}

type Reports = mpsc::Sender<Report>;

/// What of [`Arc`]ed frames is sent in one piece.
type Frames = Vec<Arc<crate::log::Frame>>;
