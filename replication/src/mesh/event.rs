//! What a mesh tells its user.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};

use crate::identity::{NodeId, Role};
use crate::membership::{Known, Member, Standing};

/// A member as this one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Who it is.
    pub node: NodeId,
    /// What it does.
    pub role: Role,
    /// The region it runs in.
    pub region: String,
    /// Where it listens, as it advertises.
    pub addr: SocketAddr,
    /// The time of a round trip to it as QUIC estimates it; zero while there is no connection.
    pub rtt: Duration,
    /// Whether our outgoing connection to it is open.
    pub connected: bool,
}

impl PeerInfo {
    pub(super) fn new(member: &Member, outgoing: Option<&Connection>) -> Self {
        Self {
            node: member.node,
            role: member.role,
            region: member.region.clone(),
            addr: member.addr,
            rtt: outgoing.map(Connection::rtt).unwrap_or_default(),
            connected: outgoing.is_some(),
        }
    }
}

/// A member and what the cluster says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Who it is.
    pub node: NodeId,
    /// What it does.
    pub role: Role,
    /// The region it runs in.
    pub region: String,
    /// Whether it takes part.
    pub standing: Standing,
    /// How long ago this member heard from it; none if it never did.
    pub heard: Option<Duration>,
}

impl From<Known> for MemberInfo {
    fn from(known: Known) -> Self {
        let Member { node, role, region, .. } = known.member;
        Self { node, role, region, standing: known.standing, heard: known.heard }
    }
}

/// Something that happened in the mesh.
pub enum MeshEvent {
    /// Our outgoing connection to this member is open: streams to it can be opened.
    PeerUp(PeerInfo),
    /// Our outgoing connection to this member is lost. Comes once after each [`MeshEvent::PeerUp`].
    PeerDown(NodeId),
    /// A peer opened a stream. It may come before our own connection to that peer is up.
    Stream {
        /// Who opened it.
        peer: PeerInfo,
        /// What for.
        kind: u8,
        /// Towards the peer.
        send: SendStream,
        /// From the peer, past the kind byte.
        recv: RecvStream,
    },
    /// A peer sent a datagram.
    Datagram {
        /// Who sent it.
        peer: NodeId,
        /// What for.
        kind: u8,
        /// What follows the kind byte.
        payload: Bytes,
    },
}

impl fmt::Debug for MeshEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerUp(peer) => f.debug_tuple("PeerUp").field(peer).finish(),
            Self::PeerDown(node) => f.debug_tuple("PeerDown").field(node).finish(),
            Self::Stream { peer, kind, .. } => {
                f.debug_struct("Stream").field("peer", &peer.node).field("kind", kind).finish_non_exhaustive()
            }
            Self::Datagram { peer, kind, payload } => f
                .debug_struct("Datagram")
                .field("peer", peer)
                .field("kind", kind)
                .field("bytes", &payload.len())
                .finish(),
        }
    }
}
