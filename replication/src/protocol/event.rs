//! What the core is told, and what it wants done.

use std::{sync::Arc, time::Duration};

use super::StreamId;
use crate::{
    NodeId,
    log::{Frame, Retirement, SiteId, Version, VersionVector},
};

/// How the vector of heads is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// As it is, by a peer of an older release, which knows of no other reading.
    Old,
    /// As it is. The sender would understand [`Reading::Compact`].
    Whole,
    /// Retired sites are left out ([`Retirements::expand`](crate::log::Retirements::expand)), except the site that its
    /// reader writes. A reader that writes another one by now must not take it for an answer to what is known of its log.
    Compact {
        /// The site that the reader writes.
        reader: SiteId,
    },
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A connection to a peer that holds data stands.
    PeerUp {
        /// The peer.
        peer: NodeId,
        /// Its round trip time: the nearer of two upstreams is chosen.
        rtt: Duration,
        /// The region that it runs in: see [`Config::relay_above`](super::Config::relay_above).
        region: Arc<str>,
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
        /// How the vector is to be read.
        reading: Reading,
        /// Whether it is all, together with what came before: large vectors come in parts.
        complete: bool,
    },
    /// Retirements that the database holds at the start; later ones come with their frames.
    Retired {
        /// All of them.
        retirements: Vec<Retirement>,
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
    /// Something was committed here, by this node's jobs, and is durable then, or by [`Action::Apply`].
    Committed {
        /// The frames; empty when the driver missed some, and only the vector is certain.
        frames: Vec<Arc<Frame>>,
        /// What is held now.
        vector: Arc<VersionVector>,
        /// Whether this node's jobs wrote it: then it says nothing that the node did not know.
        local: bool,
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
    /// Time went on; to be told a few times per [`HEADS_PERIOD`](super::HEADS_PERIOD).
    Tick,
}

/// Something to do.
#[derive(Debug, Clone)]
pub enum Action {
    /// Tell a peer our site and vector, by datagram.
    SendHeads {
        /// The peer.
        peer: NodeId,
        /// The site that this node writes.
        site: SiteId,
        /// What it holds.
        vector: Arc<VersionVector>,
        /// How the vector is to be read.
        reading: Reading,
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
    /// Read a part of a log, about [`READ_SIZE`](super::READ_SIZE) bytes of it; answer with [`Event::LogRead`].
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
    /// Write the row that retires a site in this node's own log (see [`Retirement::row`]), vouching for all that is held
    /// of it.
    Retire {
        /// A site that this node wrote before.
        site: SiteId,
    },
    /// Go on under a new site id, and retire the old one in the first version of the new log, so that no peer holds
    /// anything of the new log without knowing what it follows. Answer with [`Event::SiteRenewed`].
    RenewSite,
    /// From now on writes may be accepted.
    Settled,
}
