//! What all tasks of a mesh share, and how membership and directory send through it.

use std::collections::HashSet;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use metrics::counter;
use quinn::{ClientConfig, Connection, Endpoint};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::dial;
use super::event::MeshEvent;
use super::peers::{Install, Peers};
use super::refusal::Refusals;
use super::renewal::Trust;
use crate::directory::{self, Directory};
use crate::identity::NodeId;
use crate::membership::{self, Member, Membership};

/// Directory messages too large for a datagram that may be under way at once; more are dropped.
pub(crate) const LARGE_MESSAGES: usize = 64;
/// How long one of them may take.
const LARGE_MESSAGE_TIME: Duration = Duration::from_secs(3);

pub(crate) struct Shared {
    pub(crate) me: Member,
    /// The bound address.
    pub(crate) local: SocketAddr,
    pub(crate) endpoint: Endpoint,
    pub(crate) trust: Trust,
    pub(crate) peers: Peers,
    pub(crate) membership: Membership,
    pub(crate) directory: Directory,
    pub(crate) events: mpsc::Sender<MeshEvent>,
    pub(crate) refusals: Refusals,
    /// The members for which a task keeps a connection up.
    pub(crate) dialing: Mutex<HashSet<NodeId>>,
    pub(crate) large: Arc<Semaphore>,
    pub(crate) cancel: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

pub(crate) fn large_messages() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(LARGE_MESSAGES))
}

impl Shared {
    /// Runs a task until it ends or the mesh does.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Hands an event to the user, and waits while the channel is full. Without a user it is dropped.
    pub(crate) async fn emit(&self, event: MeshEvent) {
        let _ = self.events.send(event).await;
    }

    /// What to dial with, and under which of our cluster keys that is.
    pub(crate) fn client_config(&self) -> (ClientConfig, u64) {
        self.trust.client()
    }

    /// How an incoming connection is entered.
    pub(crate) fn install(&self) -> Install {
        Install { era: self.trust.client().1, replaces: false }
    }
}

fn framed(kind: u8, payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(1 + payload.len());
    bytes.put_u8(kind);
    bytes.put(payload);
    bytes.freeze()
}

fn dropped(stage: &'static str) {
    counter!("mychat_mesh_datagrams_dropped_total", "stage" => stage).increment(1);
}

impl membership::Carrier for Arc<Shared> {
    /// Sends on both connections of the pair, if there are two: QUIC does not repeat a lost datagram, and
    /// a lost probe makes a member look dead. Receiving one twice does no harm.
    fn carry(&self, to: &Member, packet: Bytes) {
        let connections = self.peers.pair(to.node);
        if connections.is_empty() {
            dial::keep(self, to.node);
            return;
        }
        let datagram = framed(membership::KIND, &packet);
        for connection in connections {
            if connection.send_datagram(datagram.clone()).is_err() {
                dropped("send");
            }
        }
    }

    fn reaches(&self, node: NodeId) -> bool {
        self.peers.any(node).is_some()
    }

    fn reached(&self) -> Vec<Member> {
        self.peers.members()
    }

    fn up(&self, member: &Member) {
        dial::keep(self, member.node);
    }
}

impl directory::Carrier for Arc<Shared> {
    fn carry(&self, to: SocketAddr, message: Bytes) {
        let Some(connection) = self.peers.at(to).and_then(|node| self.peers.any(node)) else { return };
        let message = framed(directory::KIND, &message);
        if connection.max_datagram_size().is_some_and(|most| message.len() <= most) {
            if connection.send_datagram(message).is_err() {
                dropped("send");
            }
            return;
        }
        let Ok(permit) = self.large.clone().try_acquire_owned() else { return dropped("large") };
        self.spawn(async move {
            if !matches!(timeout(LARGE_MESSAGE_TIME, send_large(&connection, &message)).await, Ok(Some(()))) {
                dropped("large");
            }
            drop(permit);
        });
    }

    fn reached(&self) -> Vec<SocketAddr> {
        self.peers.members().into_iter().map(|member| member.addr).collect()
    }
}

async fn send_large(connection: &Connection, message: &[u8]) -> Option<()> {
    let mut send = connection.open_uni().await.ok()?;
    send.write_all(message).await.ok()?;
    send.finish().ok()
}
