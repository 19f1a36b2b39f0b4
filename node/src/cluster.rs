//! The node's place in the cluster: its store replicates, and the others learn what it says of itself.

use std::{sync::Arc, time::Duration};

use mychat_replication::{
    NodeId, Role,
    log::VersionVector,
    mesh::{Mesh, MeshConfig, MeshError},
    replica::{Message, Replica, ReplicaConfig, Status},
    store::Store,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::MissedTickBehavior,
};

use crate::app::{App, Heads};

/// How often the figures that a node publishes are looked at; readiness is published at once.
const PUBLISHING: Duration = Duration::from_millis(500);
/// How long leaving waits for the others to have everything.
const FLUSH: Duration = Duration::from_secs(3);

/// A started mesh that the store has not joined yet.
pub struct Joining {
    mesh: Mesh,
    events: mpsc::Receiver<mychat_replication::mesh::MeshEvent>,
    alone: bool,
}

impl Joining {
    /// Starts the mesh for the node of this store.
    ///
    /// # Errors
    /// When the address can't be bound or a setting is wrong.
    pub async fn start(mut config: MeshConfig, store: &Store) -> Result<Self, MeshError> {
        config.node = store.node();
        config.role = Role::Node;
        let alone = config.seeds.is_empty();
        let (mesh, events) = Mesh::start_as(config, store.generation()).await?;
        Ok(Self { mesh, events, alone })
    }

    /// The mesh, for the handlers.
    pub fn mesh(&self) -> Mesh {
        self.mesh.clone()
    }

    /// Lets the store replicate, and publishes what others have to know.
    pub fn join(self, app: &App) -> Cluster {
        let config = ReplicaConfig {
            alone: self.alone,
            relay_above: app.config.relay_above,
            snapshots: app.config.snapshots,
        };
        let (replica, messages) = Replica::start(app.store.clone(), self.mesh.clone(), self.events, config);
        let status = replica.status();
        app.set_heads(Arc::new(PeerHeads::watch(status.clone())));
        let mut tasks = JoinSet::new();
        tasks.spawn(publish(app.clone(), self.mesh.clone(), status));
        tasks.spawn(pass_on(app.clone(), messages));
        Cluster { mesh: self.mesh, replica, tasks }
    }
}

/// The running parts.
pub struct Cluster {
    mesh: Mesh,
    replica: Replica,
    tasks: JoinSet<()>,
}

impl Cluster {
    /// Leaves: after the others have all that was written here, if they can be reached.
    pub async fn leave(mut self) {
        if !self.replica.flush(FLUSH).await {
            tracing::warn!("not every peer has all of this node's writes; they get them when it is back");
        }
        self.tasks.shutdown().await;
        self.replica.stop().await;
        self.mesh.leave().await;
    }
}

/// Says whether the node serves, and how much, until the node stops.
async fn publish(app: App, mesh: Mesh, mut status: watch::Receiver<Status>) {
    let directory = mesh.directory();
    directory.publish("url", &app.config.public_url);
    directory.publish("version", env!("CARGO_PKG_VERSION"));
    let mut ticks = tokio::time::interval(PUBLISHING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut health = app.store.health();
    loop {
        let (ready, sync) = {
            let status = status.borrow_and_update();
            (status.ready, status.sync)
        };
        app.condition.set_sync(sync);
        app.condition.set_ready(ready);
        let open = app.condition.open_streams();
        directory.publish("ready", if app.condition.is_ready() { "true" } else { "false" });
        directory.publish("draining", if app.condition.is_draining() { "true" } else { "false" });
        directory.publish("streams_open", &open.to_string());
        let figures = app.capacity.figures();
        directory.publish("streams_capacity", &rounded(figures.capacity).to_string());
        directory.publish("load", &format!("{:.2}", figures.load));
        tokio::select! {
            _ = ticks.tick() => {}
            changed = health.changed() => if changed.is_err() {
                return;
            },
            changed = status.wait_for(|status| status.ready != app.condition.has_caught_up()) => if changed.is_err() {
                return;
            },
        }
    }
}

/// Two digits of a number: the third changes all the time, and what changes is sent to everybody.
fn rounded(number: usize) -> usize {
    let step = 10usize.pow(number.checked_ilog10().unwrap_or_default().saturating_sub(1));
    number / step * step
}

/// Hands what other nodes pass on to the streams here.
async fn pass_on(app: App, mut messages: mpsc::Receiver<Message>) {
    while let Some(message) = messages.recv().await {
        app.presence.receive(message.from, message.kind, &message.payload);
    }
}

/// What replication knows of the others, as the handlers ask for it.
struct PeerHeads {
    status: watch::Receiver<Status>,
    changes: watch::Receiver<u64>,
    _counting: tokio::task::AbortHandle,
}

impl PeerHeads {
    fn watch(status: watch::Receiver<Status>) -> Self {
        let (count, changes) = watch::channel(0u64);
        let mut watched = status.clone();
        let counting = tokio::spawn(async move {
            while watched.changed().await.is_ok() {
                count.send_modify(|count| *count += 1);
            }
        });
        Self { status, changes, _counting: counting.abort_handle() }
    }
}

impl Heads for PeerHeads {
    fn of(&self, node: NodeId) -> Option<VersionVector> {
        self.status.borrow().peers.get(&node).map(|peer| peer.heads.clone())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}
