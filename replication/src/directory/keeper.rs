//! The task between the directory's handles and `chitchat`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, spawn_chitchat,
};
use rand::seq::IteratorRandom;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::transport::MeshTransport;
use super::{Carrier, Entry, Inner, OWN};
use crate::identity::{NodeId, Role};
use crate::mesh::MeshError;

/// How often three random members are gossiped with.
const GOSSIP: Duration = Duration::from_millis(300);
/// Members that a new fact is offered to at once; the others get it by the rounds.
const PROMPT: usize = 16;
/// The pause between such offers, so that a fact that changes all the time costs no more than the rounds.
const PROMPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the view is taken anew even if no fact changed, to drop members that were forgotten.
const REVIEW: Duration = Duration::from_secs(1);
/// How long a member that went silent is remembered.
const MEMORY: Duration = Duration::from_secs(3600);
/// Foreign clusters cannot connect, so the name that `chitchat` tells clusters apart by says nothing.
const CLUSTER: &str = "mychat";
const ROLE: &str = "~role";
const REGION: &str = "~region";

/// The keeper before `chitchat` runs.
pub(crate) struct Keeper {
    inner: Arc<Inner>,
    messages: mpsc::Receiver<(SocketAddr, Bytes)>,
    newcomers: mpsc::Receiver<SocketAddr>,
}

/// The keeper with `chitchat`.
pub(crate) struct RunningKeeper<C> {
    inner: Arc<Inner>,
    carrier: C,
    newcomers: mpsc::Receiver<SocketAddr>,
    chitchat: ChitchatHandle,
    changed: Arc<Notify>,
}

impl Keeper {
    pub(super) fn new(
        inner: Arc<Inner>,
        messages: mpsc::Receiver<(SocketAddr, Bytes)>,
        newcomers: mpsc::Receiver<SocketAddr>,
    ) -> Self {
        Self { inner, messages, newcomers }
    }

    /// Starts `chitchat`.
    pub(crate) async fn start<C: Carrier>(self, carrier: C) -> Result<RunningKeeper<C>, MeshError> {
        let me = &self.inner.me;
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(me.node.to_string(), me.generation, me.addr),
            cluster_id: CLUSTER.to_owned(),
            gossip_interval: GOSSIP,
            listen_addr: me.addr,
            // Members get to know each other by their connections.
            seed_nodes: Vec::new(),
            failure_detector_config: FailureDetectorConfig {
                initial_interval: GOSSIP * 4,
                dead_node_grace_period: MEMORY,
                ..FailureDetectorConfig::default()
            },
            marked_for_deletion_grace_period: MEMORY,
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        let own = vec![(ROLE.to_owned(), me.role.to_string()), (REGION.to_owned(), me.region.clone())];
        let transport = MeshTransport::new(carrier.clone(), self.messages);
        let chitchat = spawn_chitchat(config, own, &transport)
            .await
            .map_err(|error| MeshError::Directory(error.to_string()))?;
        let changed = Arc::new(Notify::new());
        let notice = changed.clone();
        chitchat
            .with_chitchat(|state| {
                let notice = notice.clone();
                state.subscribe_event("", move |_| notice.notify_one()).forever();
            })
            .await;
        Ok(RunningKeeper { inner: self.inner, carrier, newcomers: self.newcomers, chitchat, changed })
    }
}

impl<C: Carrier> RunningKeeper<C> {
    /// Runs until cancelled.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let mut review = interval(REVIEW);
        review.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_offer = Instant::now();
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                () = self.inner.published.notified() => {
                    // What is published meanwhile goes along.
                    sleep_until(next_offer).await;
                    next_offer = Instant::now() + PROMPT_PAUSE;
                    self.offer().await;
                }
                Some(addr) = self.newcomers.recv() => self.gossip(addr),
                () = self.changed.notified() => self.look().await,
                _ = review.tick() => self.look().await,
            }
        }
        if let Err(error) = self.chitchat.shutdown().await {
            debug!(%error, "the directory did not stop cleanly");
        }
    }

    /// Hands this member's facts to `chitchat` and offers them around.
    async fn offer(&self) {
        let wanted = self.inner.wanted().clone();
        self.chitchat
            .with_chitchat(|state| {
                for (key, value) in &wanted {
                    state.self_node_state().set(key, value);
                }
            })
            .await;
        for addr in self.carrier.reached().into_iter().sample(&mut rand::rng(), PROMPT) {
            self.gossip(addr);
        }
    }

    fn gossip(&self, addr: SocketAddr) {
        if let Err(error) = self.chitchat.gossip(addr) {
            debug!(%addr, %error, "cannot gossip");
        }
    }

    /// Takes the view anew.
    async fn look(&self) {
        let view = self.chitchat.with_chitchat(|state| view(state.node_states())).await;
        *self.inner.view.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = view;
    }
}

/// The youngest process of each member.
fn view(states: &BTreeMap<ChitchatId, NodeState>) -> BTreeMap<NodeId, Entry> {
    let mut view = BTreeMap::new();
    // Ordered by node id and then by generation, so that the youngest is the last.
    for (id, state) in states {
        if let Some(entry) = entry(id, state) {
            view.insert(entry.node, entry);
        }
    }
    view
}

/// A member whose own facts have arrived; before them the state is empty.
fn entry(id: &ChitchatId, state: &NodeState) -> Option<Entry> {
    let facts = state.key_values().filter(|(key, _)| !key.starts_with(OWN));
    Some(Entry {
        node: id.node_id.parse().ok()?,
        role: Role::from_name(state.get(ROLE)?)?,
        region: state.get(REGION)?.to_owned(),
        mesh: id.gossip_advertise_addr,
        alive: false,
        facts: facts.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
    })
}
