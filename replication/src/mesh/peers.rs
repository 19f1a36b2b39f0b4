//! The table of connections, by peer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use metrics::gauge;
use quinn::Connection;

use super::event::PeerInfo;
use super::refusal::Direction;
use crate::identity::NodeId;
use crate::membership::Member;

/// A peer that believes its connection lost dials again before we notice; this many may overlap.
const MOST_INCOMING: usize = 4;

/// The greeted connections of a mesh.
#[derive(Default)]
pub(crate) struct Peers {
    table: Mutex<HashMap<NodeId, Peer>>,
    turns: Mutex<HashMap<NodeId, Arc<Turn>>>,
}

/// Held by the one connection to a peer whose ups and downs are being told.
type Turn = tokio::sync::Mutex<()>;

struct Peer {
    /// As the youngest process greeted.
    member: Member,
    outgoing: Option<Link>,
    /// The newest last.
    incoming: Vec<Link>,
}

struct Link {
    connection: Connection,
    generation: u64,
    /// Under which of our cluster keys it was made.
    era: u64,
    since: Instant,
}

/// How a connection is entered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Install {
    /// Under which of our cluster keys it was made.
    pub(crate) era: u64,
    /// It takes the place of another one to the same process.
    pub(crate) replaces: bool,
}

/// An open connection, for who looks after all.
pub(crate) struct Held {
    pub(crate) member: Member,
    pub(crate) connection: Connection,
    pub(crate) outgoing: bool,
    pub(crate) era: u64,
    pub(crate) since: Instant,
}

/// Why a greeted connection is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unwanted {
    /// There already is an outgoing connection to that peer.
    Duplicate,
    /// A younger process with the same node id is connected.
    Outdated,
}

impl Link {
    fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }
}

impl Peer {
    fn links(&self) -> impl Iterator<Item = &Link> {
        self.outgoing.iter().chain(self.incoming.iter().rev()).filter(|link| link.is_open())
    }
}

impl Peers {
    fn table(&self) -> MutexGuard<'_, HashMap<NodeId, Peer>> {
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Enters a greeted connection. Returns those that it makes obsolete, for the caller to close: those of
    /// an older process with the same node id.
    pub(crate) fn install(
        &self,
        member: &Member,
        connection: &Connection,
        direction: Direction,
        how: Install,
    ) -> Result<Vec<Connection>, Unwanted> {
        let generation = member.generation;
        let mut table = self.table();
        let peer = table.entry(member.node).or_insert_with(|| Peer {
            member: member.clone(),
            outgoing: None,
            incoming: Vec::new(),
        });
        if peer.links().any(|link| link.generation > generation) {
            return Err(Unwanted::Outdated);
        }
        let is_same = |link: &Link| link.is_open() && link.generation == generation;
        let other = peer.outgoing.as_ref().filter(|link| is_same(link)).map(|link| link.connection.clone());
        let other = other.filter(|_| matches!(direction, Direction::Outgoing));
        if other.is_some() && !how.replaces {
            return Err(Unwanted::Duplicate);
        }
        let mut obsolete: Vec<_> = peer
            .links()
            .filter(|link| link.generation < generation)
            .map(|link| link.connection.clone())
            .chain(other)
            .collect();
        peer.member = member.clone();
        let link = Link { connection: connection.clone(), generation, era: how.era, since: Instant::now() };
        match direction {
            Direction::Outgoing => peer.outgoing = Some(link),
            Direction::Incoming => {
                if peer.incoming.len() >= MOST_INCOMING {
                    obsolete.push(peer.incoming.remove(0).connection);
                }
                peer.incoming.push(link);
            }
        }
        gauge!("mychat_mesh_connections", "direction" => direction.label()).increment(1);
        Ok(obsolete)
    }

    /// Takes a closed connection out. Returns whether another one to that peer remains.
    pub(crate) fn remove(&self, node: NodeId, connection: &Connection, direction: Direction) -> bool {
        gauge!("mychat_mesh_connections", "direction" => direction.label()).decrement(1);
        let mut table = self.table();
        let Some(peer) = table.get_mut(&node) else { return false };
        let is_it = |link: &Link| link.connection.stable_id() == connection.stable_id();
        if peer.outgoing.as_ref().is_some_and(is_it) {
            peer.outgoing = None;
        }
        peer.incoming.retain(|link| !is_it(link));
        let remains = peer.links().next().is_some();
        if peer.outgoing.is_none() && peer.incoming.is_empty() {
            table.remove(&node);
        }
        remains
    }

    /// The lock that puts the reports about a peer in order.
    pub(crate) fn turn(&self, node: NodeId) -> Arc<Turn> {
        let mut turns = self.turns.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(node).or_default().clone()
    }

    /// Our connection to a peer.
    pub(crate) fn outgoing(&self, node: NodeId) -> Option<Connection> {
        let table = self.table();
        let link = table.get(&node)?.outgoing.as_ref().filter(|link| link.is_open())?;
        Some(link.connection.clone())
    }

    /// A connection with a peer, ours if there is one.
    pub(crate) fn any(&self, node: NodeId) -> Option<Connection> {
        Some(self.table().get(&node)?.links().next()?.connection.clone())
    }

    /// Our connection to a peer and the newest of its own to us.
    pub(crate) fn pair(&self, node: NodeId) -> Vec<Connection> {
        let table = self.table();
        let links = table.get(&node).into_iter().flat_map(Peer::links);
        links.take(2).map(|link| link.connection.clone()).collect()
    }

    /// Who listens at an address, of the connected peers.
    pub(crate) fn at(&self, addr: SocketAddr) -> Option<NodeId> {
        let table = self.table();
        let is_there = |peer: &&Peer| peer.member.addr == addr && peer.links().next().is_some();
        table.values().find(is_there).map(|peer| peer.member.node)
    }

    /// The peers with an open connection of either direction, as they greeted.
    pub(crate) fn members(&self) -> Vec<Member> {
        let table = self.table();
        let open = table.values().filter(|peer| peer.links().next().is_some());
        open.map(|peer| peer.member.clone()).collect()
    }

    /// The peers with an open connection of either direction, as the user sees them.
    pub(crate) fn list(&self) -> Vec<PeerInfo> {
        let table = self.table();
        let info = |peer: &Peer| {
            let outgoing = peer.outgoing.as_ref().filter(|link| link.is_open());
            PeerInfo::new(&peer.member, outgoing.map(|link| &link.connection))
        };
        table.values().filter(|peer| peer.links().next().is_some()).map(info).collect()
    }

    /// All open connections.
    pub(crate) fn held(&self) -> Vec<Held> {
        let table = self.table();
        let held = |peer: &Peer, link: &Link, outgoing| Held {
            member: peer.member.clone(),
            connection: link.connection.clone(),
            outgoing,
            era: link.era,
            since: link.since,
        };
        let links = table.values().flat_map(|peer| {
            let incoming = peer.incoming.iter().map(|link| held(peer, link, false));
            peer.outgoing.iter().map(|link| held(peer, link, true)).chain(incoming)
        });
        links.filter(|held| held.connection.close_reason().is_none()).collect()
    }

    /// One peer as the user sees it.
    pub(crate) fn info(&self, member: &Member) -> PeerInfo {
        PeerInfo::new(member, self.outgoing(member.node).as_ref())
    }
}
