//! The replication protocol as a state machine without input or output.
//!
//! [`Core`] is told what happened ([`Event`]) and at what time, and says what to do ([`Action`]). Sockets, disks,
//! clocks and randomness are the driver's: [`crate::replica`] in production, virtual time in tests.
//!
//! # The protocol
//! Each node writes a log of its own, its *site*, and holds a gapless prefix of every other (invariant I3), so its
//! whole state is a version vector. Two messages suffice:
//!
//! - **Heads** (datagram): the sender's site and vector. Sent on connecting and every [`HEADS_PERIOD`].
//! - **Follow** (the first message of a stream): "send me site S from the version after V". The answer is a stream
//!   of frames that never ends: what the upstream holds already, then each commit at once. Live is catch-up that
//!   has reached the end. One stream per site: a loss on one does not hold up another.
//!
//! A *follower* (`serve.rs`) is a peer that we send a log to. It is **live** (each commit is pushed, as long as its
//! window of unsent bytes has room), **behind** (nothing is queued for it; its position is all that is kept), or
//! **reading** (a piece of the log is being read for it). A slow peer so costs one integer, and neither the writer
//! nor another peer waits for it (I7).
//!
//! An *upstream* (`follow.rs`) is where we get a site's log from: the node that writes it, when it is connected, and
//! else any connected peer that holds more of it than we do. When it goes, the next is asked from the integer that
//! we hold. Frames are applied in order, in batches, one batch at a time.
//!
//! # Why the prefix property holds
//! A frame says which version it follows. An upstream sends frames in the order of the log, each following the
//! one before, over a reliable ordered stream. The receiver takes a frame only if it follows what it has, both
//! on receipt and once more in the transaction that applies it and moves the vector. Whatever is lost with a
//! stream, a process or a disk is asked for again from the vector on the disk.
//!
//! # One version, one content
//! Nothing is sent before it is durable. A node whose disk went back in time would reuse versions; so a node that
//! starts is **not settled**, and must not accept writes, until its peers have said how much of its log they know
//! (`settle.rs`). If they know more than it does, or nobody answers, it goes on under a new site id (I2).

mod follow;
mod serve;
mod settle;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    NodeId,
    log::{Frame, SiteId, Version, VersionVector},
};

/// How often heads are sent to each peer.
pub const HEADS_PERIOD: Duration = Duration::from_millis(200);
/// Bytes that may wait to be sent to one follower; beyond, it is behind and catches up by reading.
pub const SEND_WINDOW: usize = 1 << 20;
/// Bytes of one upstream's frames that may wait to be applied; the driver stops reading its stream beyond.
pub const RECEIVE_WINDOW: usize = 1 << 20;
/// Bytes of one read of the log.
pub const READ_SIZE: usize = 256 << 10;
/// Bytes of frames that are applied in one transaction.
pub const APPLY_SIZE: usize = 256 << 10;

/// Time since the driver started.
pub type Now = Duration;

/// A stream of frames, in either direction; the driver's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A connection to a peer that holds data stands.
    PeerUp {
        /// The peer.
        peer: NodeId,
        /// Its round trip time: the nearer of two upstreams is chosen.
        rtt: Duration,
    },
    /// The connection is gone.
    PeerDown {
        /// The peer.
        peer: NodeId,
    },
    /// A peer said what it holds.
    Heads {
        /// The peer.
        peer: NodeId,
        /// The site that it writes.
        site: SiteId,
        /// What it holds.
        vector: VersionVector,
    },
    /// A peer asks for a log.
    FollowerOpened {
        /// The stream to answer on.
        stream: StreamId,
        /// Who asks.
        peer: NodeId,
        /// Whose log.
        site: SiteId,
        /// What the peer has of it.
        after: Version,
    },
    /// The stream to a follower is gone.
    FollowerClosed {
        /// The stream.
        stream: StreamId,
    },
    /// Bytes handed over by [`Action::Send`] have been taken by the transport.
    Sent {
        /// The stream.
        stream: StreamId,
        /// [`Frame::size`] of what was sent.
        bytes: usize,
    },
    /// What [`Action::ReadLog`] asked for.
    LogRead {
        /// For which follower.
        stream: StreamId,
        /// Consecutive frames from its position on.
        frames: Vec<Arc<Frame>>,
    },
    /// A read of the log failed: the follower is closed, and asks again.
    LogUnreadable {
        /// For which follower.
        stream: StreamId,
    },
    /// The stream from an upstream ended or could not be opened.
    UpstreamClosed {
        /// The stream.
        stream: StreamId,
    },
    /// A frame came in.
    Received {
        /// On which stream.
        stream: StreamId,
        /// The frame.
        frame: Arc<Frame>,
    },
    /// Something became durable here, by this node's jobs or by [`Action::Apply`].
    Committed {
        /// The frames; empty when the driver missed some, and only the vector is certain.
        frames: Vec<Arc<Frame>>,
        /// What is held now.
        vector: Arc<VersionVector>,
    },
    /// The batch of [`Action::Apply`] is done with.
    Applied {
        /// `false` when the database refused: it is tried again later.
        ok: bool,
    },
    /// The node writes under this site id now.
    SiteRenewed {
        /// The new site id.
        site: SiteId,
        /// What is held.
        vector: Arc<VersionVector>,
    },
    /// Follow no log, and give up those that are followed, or follow them again: while the driver gets another
    /// database in place of this one, frames would be applied to one that is about to go.
    HoldFollowing {
        /// Whether to hold.
        hold: bool,
    },
    /// Time went on; to be told a few times per [`HEADS_PERIOD`].
    Tick,
}

/// Something to do.
#[derive(Debug, Clone)]
pub enum Action {
    /// Tell a peer our site and vector, by datagram.
    SendHeads {
        /// The peer.
        peer: NodeId,
    },
    /// Open a stream and ask for a log.
    Follow {
        /// The name that the core gave the stream.
        stream: StreamId,
        /// Whom to ask.
        peer: NodeId,
        /// Whose log.
        site: SiteId,
        /// From the version after this one.
        after: Version,
    },
    /// Stop reading an upstream's stream.
    Unfollow {
        /// The stream.
        stream: StreamId,
    },
    /// More may be read from an upstream's stream.
    Credit {
        /// The stream.
        stream: StreamId,
        /// Bytes ([`Frame::size`]) that have been applied.
        bytes: usize,
    },
    /// Send frames to a follower, in order.
    Send {
        /// The stream.
        stream: StreamId,
        /// The frames.
        frames: Vec<Arc<Frame>>,
    },
    /// Read a part of a log, about [`READ_SIZE`] bytes of it; answer with [`Event::LogRead`].
    ReadLog {
        /// For which follower.
        stream: StreamId,
        /// Whose log.
        site: SiteId,
        /// From the version after this one.
        after: Version,
    },
    /// Close a follower's stream.
    CloseFollower {
        /// The stream.
        stream: StreamId,
    },
    /// Merge these frames into the database; answer with [`Event::Applied`] after [`Event::Committed`].
    Apply {
        /// In this order.
        frames: Vec<Arc<Frame>>,
    },
    /// Go on under a new site id; answer with [`Event::SiteRenewed`].
    RenewSite,
    /// From now on writes may be accepted.
    Settled,
}

/// What a peer told of itself.
#[derive(Debug, Clone)]
struct Peer {
    rtt: Duration,
    /// `None` until it sent its heads.
    site: Option<SiteId>,
    heads: VersionVector,
}

/// The protocol's state on one node.
#[derive(Debug)]
pub struct Core {
    site: SiteId,
    held: VersionVector,
    peers: BTreeMap<NodeId, Peer>,
    serving: serve::Serving,
    following: follow::Following,
    settling: settle::Settling,
    last_heads: Now,
    next_stream: u64,
    actions: Vec<Action>,
}

impl Core {
    /// A node that starts with what its disk holds. `alone` says that it was given nobody to ask.
    #[must_use]
    pub fn new(site: SiteId, held: VersionVector, alone: bool) -> Self {
        let settling = settle::Settling::new(alone);
        let mut core = Self {
            site,
            held,
            peers: BTreeMap::new(),
            serving: serve::Serving::default(),
            following: follow::Following::default(),
            settling,
            last_heads: Now::ZERO,
            next_stream: 0,
            actions: Vec::new(),
        };
        core.settle(Now::ZERO);
        core
    }

    /// Takes note of an event at time `now`; the answers are in [`Core::actions`].
    pub fn handle(&mut self, event: Event, now: Now) {
        match event {
            Event::PeerUp { peer, rtt } => {
                self.peers.entry(peer).or_insert(Peer { rtt, site: None, heads: VersionVector::new() }).rtt =
                    rtt;
                self.actions.push(Action::SendHeads { peer });
            }
            Event::PeerDown { peer } => {
                self.peers.remove(&peer);
                self.upstream_lost(peer);
                self.choose_upstreams(now);
            }
            Event::Heads { peer, site, vector } => {
                let Some(known) = self.peers.get_mut(&peer) else { return };
                if known.site.replace(site) == Some(site) {
                    // Large vectors come in parts, and datagrams overtake each other.
                    known.heads.merge(&vector);
                } else {
                    known.heads = vector;
                }
                self.settle(now);
                self.choose_upstreams(now);
            }
            Event::FollowerOpened { stream, peer, site, after } => {
                self.open_follower(stream, peer, site, after)
            }
            Event::FollowerClosed { stream } => self.serving.remove(stream),
            Event::Sent { stream, bytes } => self.sent(stream, bytes),
            Event::LogRead { stream, frames } => self.log_read(stream, frames),
            Event::LogUnreadable { stream } => {
                self.serving.remove(stream);
                self.actions.push(Action::CloseFollower { stream });
            }
            Event::UpstreamClosed { stream } => self.upstream_closed(stream, now),
            Event::Received { stream, frame } => self.received(stream, frame, now),
            Event::Committed { frames, vector } => self.committed(&frames, &vector),
            Event::Applied { ok } => self.applied(ok, now),
            Event::SiteRenewed { site, vector } => {
                self.site = site;
                self.held = vector.as_ref().clone();
                self.settled_anew();
                self.send_heads(now);
                self.choose_upstreams(now);
            }
            Event::HoldFollowing { hold } => self.hold_following(hold, now),
            Event::Tick => {
                if now.saturating_sub(self.last_heads) >= HEADS_PERIOD {
                    self.send_heads(now);
                }
                self.settle(now);
                self.choose_upstreams(now);
            }
        }
    }

    /// What to do, in this order; empties the list.
    pub fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Whether writes may be accepted.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settling.is_over()
    }

    /// Versions that this node lacks of what `peer` holds.
    #[must_use]
    pub fn behind(&self, peer: NodeId) -> u64 {
        let lacks = |(site, version): (SiteId, Version)| version.0.saturating_sub(self.held.get(site).0);
        self.peers.get(&peer).map_or(0, |peer| peer.heads.iter().map(lacks).sum())
    }

    /// What `peer` said it holds.
    #[must_use]
    pub fn heads(&self, peer: NodeId) -> Option<&VersionVector> {
        self.peers.get(&peer).map(|peer| &peer.heads)
    }

    fn send_heads(&mut self, now: Now) {
        self.last_heads = now;
        self.actions.extend(self.peers.keys().map(|peer| Action::SendHeads { peer: *peer }));
    }

    fn new_stream(&mut self) -> StreamId {
        self.next_stream += 1;
        StreamId(self.next_stream)
    }

    fn committed(&mut self, frames: &[Arc<Frame>], vector: &Arc<VersionVector>) {
        self.held.merge(vector);
        self.following.held(&self.held);
        for frame in frames {
            self.push(frame);
        }
        // Whoever had no room, and everyone when the driver missed the frames.
        self.catch_up_followers();
    }
}
