//! Snapshots as the core's task sees them: it feeds the planner with what the peers say, does what the planner wants,
//! and keeps the core from following logs meanwhile.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{CoreTask, Report, Reports};
use crate::{
    NodeId,
    log::VersionVector,
    mesh::Mesh,
    protocol::{Core, Event, Now},
    snapshot::{
        Action, Failure, Fetch, Files, Peer, Planner, Shelf, SnapshotConfig, Stage, Standing, SyncState,
        SyncStatus, Transfer,
    },
    store::{AdoptError, Incoming, Store},
};

/// What became of the work on a snapshot.
pub(in crate::replica) enum Outcome {
    /// It is here and checked.
    Fetched(Incoming),
    /// It is the database now.
    Adopted,
    /// It came to nothing.
    Failed(Failure),
}

pub(super) struct Snapshots {
    planner: Planner,
    standing: Standing,
    files: Files,
    shelf: Arc<Shelf>,
    transfer: Arc<Transfer>,
    incoming: Option<Incoming>,
}

impl Snapshots {
    pub fn new(store: &Store, config: SnapshotConfig, alone: bool, stop: CancellationToken) -> Self {
        let files = Files::of(store.path());
        files.clean();
        let preferred = files.received().map(|(note, _)| note.peer);
        Self {
            planner: Planner::new(config.above, preferred),
            standing: Standing::new(alone),
            shelf: Arc::new(Shelf::new(store.clone(), files.clone(), config, stop)),
            files,
            transfer: Arc::default(),
            incoming: None,
        }
    }

    /// Whether a snapshot is under way.
    pub fn hold(&self) -> bool {
        self.planner.holds()
    }

    /// Whether the node has what clients look for.
    pub fn is_ready(&self) -> bool {
        !self.hold() && self.standing.is_ready()
    }

    /// How far the node has got.
    pub fn status(&self) -> SyncStatus {
        if !self.hold() {
            return self.standing.status();
        }
        SyncStatus {
            state: SyncState::Snapshot,
            percent: Some(self.transfer.percent()),
            from: self.planner.source(),
        }
    }
}

/// The peers that have said what they hold.
fn peers(core: &Core, connected: &[NodeId], store: &Store, mesh: &Mesh) -> Vec<Peer> {
    let held = store.vector();
    let known = mesh.peers();
    connected
        .iter()
        .filter_map(|node| {
            let heads = core.heads(*node).filter(|heads| !heads.is_empty())?;
            let rtt = known.iter().find(|peer| peer.node == *node).map(|peer| peer.rtt).unwrap_or_default();
            Some(Peer { node: *node, rtt, behind: core.behind(*node), covers: heads.covers(&held) })
        })
        .collect()
}

impl CoreTask {
    /// Looks whether a snapshot is called for. Comes right after the core has heard of a peer's heads: what it wants to
    /// follow then is taken back before anything has come of it.
    pub(super) fn look_for_snapshot(&mut self, now: Now) {
        let peers = peers(&self.core, &self.connected, &self.store, &self.mesh);
        let theirs = || {
            let mut all = VersionVector::new();
            for peer in &peers {
                self.core.heads(peer.node).into_iter().for_each(|heads| all.merge(heads));
            }
            all
        };
        self.snapshots.standing.look(&peers, theirs, &self.store.vector(), now);
        let caught_up = self.snapshots.standing.caught_up();
        let was_over = self.snapshots.planner.is_over();
        let action = self.snapshots.planner.look(&peers, caught_up, now);
        if !was_over && self.snapshots.planner.is_over() {
            self.snapshots.files.discard();
        }
        self.snapshot_action(action, now);
        self.snapshots.shelf.sweep();
    }

    /// Whether looking on each word of a peer is worth while, rather than a few times a second.
    pub(super) fn may_take_snapshot(&self) -> bool {
        !self.snapshots.planner.is_over()
    }

    /// Answers a peer that asks for a snapshot.
    pub(super) fn serve_snapshot(&self, peer: NodeId, send: quinn::SendStream, recv: quinn::RecvStream) {
        self.spawn(Arc::clone(&self.snapshots.shelf).serve(peer, send, recv));
    }

    /// Goes on after a piece of work.
    pub(super) fn snapshot_outcome(&mut self, outcome: Outcome) {
        let now = self.started.elapsed();
        let action = match outcome {
            Outcome::Fetched(incoming) => {
                self.snapshots.incoming = Some(incoming);
                self.snapshots.planner.fetched()
            }
            Outcome::Adopted => {
                self.tell(Event::SiteRenewed { site: self.store.site(), vector: self.store.vector() });
                // The database is another one, and may know of other retired sites.
                self.read_retirements();
                self.snapshots.planner.adopted()
            }
            Outcome::Failed(failure) => self.snapshots.planner.failed(failure, now),
        };
        if self.snapshots.planner.is_over() {
            self.snapshots.files.discard();
        }
        self.snapshot_action(action, now);
        self.act();
        self.publish();
    }

    fn snapshot_action(&mut self, action: Option<Action>, now: Now) {
        let Some(action) = action else { return };
        match action {
            Action::Hold => {
                tracing::info!("this node lacks so much that it takes a snapshot of a peer's database");
                self.snapshots.transfer.set(Stage::Choosing, 0, 0);
                self.store.hold_writes();
                self.core.handle(Event::HoldFollowing { hold: true }, now);
            }
            Action::Fetch(peer) => {
                let fetch = Fetch {
                    mesh: self.mesh.clone(),
                    peer,
                    store: self.store.clone(),
                    files: self.snapshots.files.clone(),
                    transfer: Arc::clone(&self.snapshots.transfer),
                };
                self.spawn(run(fetch, self.reports.clone()));
            }
            Action::Adopt => {
                // There is one whenever the planner asks for it.
                if let Some(incoming) = self.snapshots.incoming.take() {
                    let files = self.snapshots.files.clone();
                    self.spawn(adopt(self.store.clone(), incoming, files, self.reports.clone()));
                }
            }
            Action::Release => {
                self.core.handle(Event::HoldFollowing { hold: false }, now);
                self.gate_writes();
            }
        }
    }

    /// Accepts writes if neither the core nor a snapshot speaks against it.
    pub(super) fn gate_writes(&self) {
        if self.core.is_settled() && !self.snapshots.hold() {
            self.store.release_writes();
        }
    }
}

async fn run(fetch: Fetch, reports: Reports) {
    let peer = fetch.peer;
    let outcome = match fetch.run().await {
        Ok(incoming) => Outcome::Fetched(incoming),
        Err((error, progressed)) => {
            let failure = error.failure(progressed);
            if failure == Failure::Unfit {
                tracing::warn!(%peer, %error, "the snapshot of a peer is of no use");
            } else {
                tracing::info!(%peer, %error, "a snapshot did not come");
            }
            Outcome::Failed(failure)
        }
    };
    let _ = reports.send(Report::Snapshot(outcome)).await;
}

async fn adopt(store: Store, incoming: Incoming, files: Files, reports: Reports) {
    let old = store.site();
    let outcome = match store.adopt(incoming).await {
        Ok(site) => {
            tracing::info!(%old, %site, versions = store.vector().len(), "the snapshot is the database now, under a new site id");
            metrics::counter!("mychat_snapshot_adopted_total").increment(1);
            Outcome::Adopted
        }
        Err(error) => {
            tracing::warn!(%error, "a snapshot can't take the place of the database, which stays");
            Files::remove_database(&files.incoming());
            files.discard();
            // One that lacks something was made too early: the next one has it.
            let lacks = matches!(error, AdoptError::Lacks);
            Outcome::Failed(if lacks { Failure::Broken { progressed: false } } else { Failure::Unfit })
        }
    };
    let _ = reports.send(Report::Snapshot(outcome)).await;
}
