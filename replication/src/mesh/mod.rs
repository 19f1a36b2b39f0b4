//! The mesh: a QUIC connection from every member to every other, with mutual TLS from the cluster key.
//!
//! ```text
//!  seeds, members that are up ──▶ dial ──┐                        ┌──▶ PeerUp, PeerDown ──▶
//!                                        ├─▶ greeting ─▶ peers ───┤                        events
//!  incoming connections ──▶ accept ──────┘       │                └──▶ Stream, Datagram ──▶
//!                                                ▼
//!                               membership (who is alive), directory (what they say)
//! ```
//!
//! - Each member dials each other member and keeps one outgoing connection to it. A pair thus has two
//!   connections, one of each direction, and needs no rule for which of two to keep.
//! - [`Mesh::open`] opens a stream on the outgoing connection, so a connection carries the requests of
//!   its dialer. Streams and datagrams begin with a kind byte; kinds below [`FIRST_FREE_KIND`] belong to the
//!   mesh itself.
//! - [`MeshEvent`]s arrive in a bounded channel. When it is full, streams wait (the peer feels it through
//!   QUIC's flow control), and datagrams are dropped and counted. [`MeshEvent::PeerUp`] and
//!   [`MeshEvent::PeerDown`] are never lost and alternate for each peer.
//! - A member that does not hold the cluster key does not get past TLS; both sides log why.

mod accept;
mod backoff;
mod congestion;
mod dial;
mod endpoint;
mod error;
mod event;
mod greeting;
mod links;
mod measure;
mod peers;
mod refusal;
mod renewal;
mod shared;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use metrics::counter;
use quinn::{AsyncUdpSocket, RecvStream, SendDatagramError, SendStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::cluster::ClusterKey;
use crate::directory::{self, Directory};
use crate::identity::{NodeId, Role};
pub use crate::membership::Standing;
use crate::membership::{self, Member};
pub use error::MeshError;
pub use event::{MemberInfo, MeshEvent, PeerInfo};
use links::Goodbye;
use renewal::Trust;
use shared::Shared;

/// The first kind of stream or datagram that users of the mesh may take.
pub const FIRST_FREE_KIND: u8 = 16;
/// Events that wait to be taken.
const EVENTS: usize = 1024;
/// The longest name of a region, in bytes: it travels in every membership packet.
const LONGEST_REGION: usize = 32;
/// How long leaving waits for each of its steps.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long a new stream waits while the peer has as many as it takes.
const OPENING_PATIENCE: Duration = Duration::from_secs(10);

/// Puts something between QUIC and the socket, for example an emulated wide-area network.
pub type WrapSocket = Arc<dyn Fn(Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket> + Send + Sync>;

/// What a mesh needs to know to start.
#[derive(Clone)]
pub struct MeshConfig {
    /// This member.
    pub node: NodeId,
    /// What this member does.
    pub role: Role,
    /// The region it runs in: 1 to 32 bytes.
    pub region: String,
    /// The address to bind, UDP. Port 0 takes any free one.
    pub bind: SocketAddr,
    /// The address under which the others reach this member; `None` takes the bound one, or finds one
    /// when all addresses are bound.
    pub advertise: Option<SocketAddr>,
    /// Members to join through, as `host:port`; resolved at every attempt, and tried for ever. The first
    /// member of a cluster needs none.
    pub seeds: Vec<String>,
    /// The key that all members hold.
    pub key: ClusterKey,
    /// Puts something between QUIC and the socket.
    pub wrap_socket: Option<WrapSocket>,
}

impl fmt::Debug for MeshConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshConfig")
            .field("node", &self.node)
            .field("role", &self.role)
            .field("region", &self.region)
            .field("bind", &self.bind)
            .field("advertise", &self.advertise)
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}

/// A handle to a running mesh; clones share it. When the last one is dropped, the mesh stops without a
/// word to the others, who notice as they would notice a crash. [`Mesh::leave`] is the polite way.
#[derive(Clone)]
pub struct Mesh {
    shared: Arc<Shared>,
    directory: Directory,
    _stop: Arc<StopOnDrop>,
}

/// Ends the tasks of a mesh when its last handle is gone.
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.cancel.cancel();
        Goodbye::Stopped.close_endpoint(&self.0.endpoint);
    }
}

impl Mesh {
    /// Binds the address and starts to connect to the others, in the background.
    pub async fn start(config: MeshConfig) -> Result<(Self, mpsc::Receiver<MeshEvent>), MeshError> {
        Self::start_as(config, now_millis()).await
    }

    /// The same for a member that keeps count of its starts: of two processes of a member the one with the larger
    /// `generation` counts, and the other is given up. The clock is a poor count: it may have been set back.
    pub async fn start_as(
        config: MeshConfig,
        generation: u64,
    ) -> Result<(Self, mpsc::Receiver<MeshEvent>), MeshError> {
        Self::start_with(config, generation, tls::Lifetimes::default()).await
    }

    async fn start_with(
        config: MeshConfig,
        generation: u64,
        lifetimes: tls::Lifetimes,
    ) -> Result<(Self, mpsc::Receiver<MeshEvent>), MeshError> {
        check(&config)?;
        let (trust, server) = Trust::new(&config.key, (config.node, config.role), lifetimes)?;
        let endpoint =
            endpoint::open(config.bind, config.node, &config.key, server, config.wrap_socket.as_ref())?;
        let local = endpoint.local_addr().map_err(|source| MeshError::Bind { addr: config.bind, source })?;
        let advertised = endpoint::advertised(config.advertise, local, &config.seeds).await;
        let me = Member::new(config.node, config.role, config.region, advertised, generation);
        info!(node = %me.node, role = %me.role, region = %me.region, %local, %advertised, "mesh started");

        let (events, receiver) = mpsc::channel(EVENTS);
        let (membership, driver) = membership::new(&me);
        let (directory, keeper) = directory::new(&me, membership.clone());
        let shared = Arc::new(Shared {
            me,
            local,
            trust,
            endpoint,
            peers: peers::Peers::default(),
            membership,
            directory: directory.clone(),
            events,
            refusals: refusal::Refusals::default(),
            dialing: std::sync::Mutex::default(),
            large: shared::large_messages(),
            cancel: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let mesh = Self { shared: shared.clone(), directory, _stop: Arc::new(StopOnDrop(shared.clone())) };
        let keeper = keeper.start(shared.clone()).await?;
        shared.tasks.spawn(keeper.run(shared.cancel.clone()));
        shared.tasks.spawn(driver.run(shared.clone(), shared.cancel.clone()));
        shared.spawn(accept::run(shared.clone()));
        shared.spawn(shared.clone().keep_fresh());
        shared.spawn(shared.clone().measure());
        for seed in config.seeds {
            shared.spawn(dial::seed(shared.clone(), seed));
        }
        Ok((mesh, receiver))
    }

    /// This member's id.
    pub fn node(&self) -> NodeId {
        self.shared.me.node
    }

    /// The region that this member runs in.
    pub fn region(&self) -> &str {
        &self.shared.me.region
    }

    /// The members that are connected or up, other than this one.
    pub fn peers(&self) -> Vec<PeerInfo> {
        let mut peers = self.shared.peers.list();
        for member in self.shared.membership.up() {
            if peers.iter().all(|peer| peer.node != member.node) {
                peers.push(PeerInfo::new(&member, None));
            }
        }
        peers.sort_by_key(|peer| peer.node);
        peers
    }

    /// What members say of themselves.
    pub fn directory(&self) -> Directory {
        self.directory.clone()
    }

    /// Takes another value of the cluster's key: the next step of its rotation ([`crate::cluster`]). Connections are
    /// made anew with the key that is in use now; those of peers whose key is not accepted any more are closed after
    /// some seconds.
    pub fn rekey(&self, key: &ClusterKey) -> Result<(), MeshError> {
        self.shared.rekey(key)
    }

    /// What is known of all other members, those included that are down and not forgotten yet.
    pub fn members(&self) -> Vec<MemberInfo> {
        let mut known = self.shared.membership.known();
        known.sort_by_key(|known| known.member.node);
        known.into_iter().map(MemberInfo::from).collect()
    }

    /// The address that is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local
    }

    /// The address under which the others reach this member.
    pub fn advertised_addr(&self) -> SocketAddr {
        self.shared.me.addr
    }

    /// Opens a stream to a connected member; it arrives there as [`MeshEvent::Stream`] with this kind. Waits
    /// for up to 10 s while that member has 256 streams of ours open.
    pub async fn open(&self, node: NodeId, kind: u8) -> Result<(SendStream, RecvStream), MeshError> {
        check_kind(kind)?;
        let connection = self.shared.peers.outgoing(node).ok_or(MeshError::NotConnected(node))?;
        let broken = |reason: String| MeshError::Broken { node, reason };
        let opened = timeout(OPENING_PATIENCE, connection.open_bi()).await;
        let opened =
            opened.map_err(|_| broken("it has as many streams of ours open as it takes".to_owned()))?;
        let (mut send, recv) = opened.map_err(|error| broken(error.to_string()))?;
        send.write_all(&[kind]).await.map_err(|error| broken(error.to_string()))?;
        Ok((send, recv))
    }

    /// Sends a datagram, which may be lost, to a connected member. It must fit a packet: about 1,150 bytes
    /// always do.
    pub fn datagram(&self, node: NodeId, kind: u8, payload: Bytes) -> Result<(), MeshError> {
        check_kind(kind)?;
        let connection = self.shared.peers.any(node).ok_or(MeshError::NotConnected(node))?;
        let size = payload.len();
        let mut datagram = BytesMut::with_capacity(1 + size);
        datagram.put_u8(kind);
        datagram.put(payload);
        connection.send_datagram(datagram.freeze()).map_err(|error| {
            counter!("mychat_mesh_datagrams_dropped_total", "stage" => "send").increment(1);
            match error {
                SendDatagramError::TooLarge => MeshError::DatagramTooLarge {
                    size,
                    most: connection.max_datagram_size().unwrap_or(0).saturating_sub(1),
                },
                error => MeshError::Broken { node, reason: error.to_string() },
            }
        })
    }

    /// Tells the others that this member leaves, closes all connections and ends all tasks. The handles
    /// that remain are of no use. Takes a few seconds at most.
    pub async fn leave(&self) {
        let shared = &self.shared;
        let _ = timeout(FAREWELL, shared.membership.leave()).await;
        Goodbye::Leaving.close_endpoint(&shared.endpoint);
        shared.cancel.cancel();
        shared.tasks.close();
        let _ = timeout(FAREWELL, shared.tasks.wait()).await;
        let _ = timeout(FAREWELL, shared.endpoint.wait_idle()).await;
    }
}

fn check(config: &MeshConfig) -> Result<(), MeshError> {
    if config.region.is_empty() || config.region.len() > LONGEST_REGION {
        return Err(MeshError::Settings(format!(
            "the region must be 1 to {LONGEST_REGION} bytes long, not {}",
            config.region.len()
        )));
    }
    if let Some(addr) = config.advertise
        && (addr.ip().is_unspecified() || addr.port() == 0)
    {
        return Err(MeshError::Settings(format!("nobody can reach the advertised address {addr}")));
    }
    let bad = |seed: &&String| {
        !seed.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    match config.seeds.iter().find(bad) {
        Some(seed) => Err(MeshError::Settings(format!("`{seed}` is not of the form host:port"))),
        None => Ok(()),
    }
}

fn check_kind(kind: u8) -> Result<(), MeshError> {
    if kind < FIRST_FREE_KIND { Err(MeshError::ReservedKind(kind)) } else { Ok(()) }
}

/// The clock counts milliseconds since 1970; one that is set before that counts as standing at 1970.
fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
