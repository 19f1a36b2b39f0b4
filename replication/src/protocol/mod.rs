//! The replication protocol as a state machine without input or output.
//!
//! [`Core`] is told what happened ([`Event`]) and at what time, and says what to do ([`Action`]). Sockets, disks,
//! clocks and randomness are the driver's: [`crate::replica`] in production, virtual time in tests.
//!
//! # The messages
//! Each node writes a log of its own, its *site*, and holds a gapless prefix of every other (invariant I3), so its
//! whole state is a version vector. Two messages suffice:
//!
//! - **Heads** (datagram): the sender's site and vector. Sent on connecting and every [`HEADS_PERIOD`], the heartbeat.
//! - **Follow** (the first message of a stream): "send me site S from the version after V". The answer is a stream
//!   of frames that never ends: what the upstream holds already, then each commit at once. Live is catch-up that
//!   has reached the end. One stream per site: a loss on one does not hold up another.
//!
//! # Followers
//! A follower (`serve.rs`) is a stream on which a peer is sent a log, of any site: its position is one integer, and
//! that is all that is kept for one that is slow (I7).
//!
//! | state | lacks something | what is queued for it | leaves by |
//! | --- | --- | --- | --- |
//! | **live** | no | up to a window ([`SEND_WINDOW`]) of pushed commits | a commit that its window has no room for, or that does not follow what it was sent: behind or reading |
//! | **reading** | yes | as before; one piece of the log ([`READ_SIZE`]) is being read for it | the piece: it is sent, and there is more (reading, behind) or not (live) |
//! | **behind** | yes | over half a window, and nothing is added | room: the transport has taken half of the window (reading) |
//!
//! So every follower that lacks something is either read for, or goes on when its window empties: neither the writer nor
//! another peer waits for it.
//!
//! # Upstreams
//! An upstream (`follow.rs`) is the stream on which a site's log comes in. Frames are applied in order, in batches, one
//! batch at a time, in which the sites take turns. Whom to ask (`choose.rs`):
//!
//! | who | when | until |
//! | --- | --- | --- |
//! | **the preferred**: the site's own writer, or the relay for it (below) | it is connected and not avoided; whether or not it holds more, so that the next commit comes at once | it is gone, or avoided |
//! | **a stand-in**: the nearest peer that holds more, first of the own region | there is no preferred one | there is one, or the stand-in has no more to give and another has |
//! | nobody | nobody holds more | somebody shows more in its heads |
//!
//! Every change of upstream goes on from the integer that is held, at the same moment when a connection or stream is
//! lost. One that stays silent is **late**: a peer has shown more for a heartbeat in which nothing came, and nothing of
//! it waits to be applied. It is left for the next, and avoided for a while; so is one that closed its stream. The
//! patience with a site's upstreams doubles each time and is the first again when one delivers, so that a slow link gets
//! a large frame across in the end. One that delivers is never late, however far behind: a log has only one order, and
//! another peer would not be ahead for long.
//!
//! # Relays
//! With more than [`Config::relay_above`] nodes connected, a frame crosses from region to region once. A node follows
//! sites of other regions through the node of its own region whose id is nearest to the site's by XOR; only that one
//! follows the site itself. The rule (`peers.rs`) is a pure function of who is connected, so nobody has to agree on
//! anything; each node relays for its share of the sites, and the choice goes on to the next nearest when it dies. It is
//! passed by while it is late, then for the site's writer itself, and while it lacks much more than the one who asks.
//! Two nodes that see different members may choose differently: a frame then crosses twice, and nothing else happens.
//! They never follow each other in a circle, since whoever is chosen is nearer to the site than the one who chooses.
//!
//! # Why the prefix property holds
//! A frame says which version it follows. An upstream sends frames in the order of the log, each following the
//! one before, over a reliable ordered stream. The receiver takes a frame only if it follows what it has, both
//! on receipt and once more in the transaction that applies it and moves the vector. Whatever is lost with a
//! stream, a process or a disk is asked for again from the vector on the disk. Nothing of this rests on who the
//! upstream is, on heads being true, or on time: these decide only whom to ask, and when to ask another. A peer can
//! serve any site's log, since what it holds of it is a prefix too, and every prefix of a log is the same (I2).
//!
//! # One version, one content
//! A version is durable at the node that wrote it before it is sent; whoever else has it passes it on as it is. A node
//! whose disk went back in time would reuse versions; so a node that starts is **not settled**, and must not accept writes, before its peers have said how much of its log they know
//! (`settle.rs`). If that is more than it does, or nobody answers, it goes on under a new site id (I2). If nothing vouches
//! for its disk, it does so whatever they say.
//!
//! # Retired sites
//! Each new site id leaves an old one behind, whose log never grows again. The first version of the new log vouches
//! for it ([`crate::log::retirement`]): whoever holds that version holds the old log up to where the row says, since a
//! frame that vouches for more than is held waits until it is (`follow.rs`), and is refused by the writer before that.
//! So heads leave such sites out (`retire.rs`), and are as long as there are sites that are written. Exceptions keep
//! this safe: a peer that has not said yet which site it writes gets everything, and later always hears of that one; it
//! may be an older copy that asks what is known of a site that was retired meanwhile. Heads that were made for another
//! site than the one that their reader writes are ignored. A node that learns that its own site is retired goes on
//! under a new one.

mod choose;
mod event;
mod follow;
mod peers;
mod retire;
mod serve;
mod settle;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    NodeId,
    log::{Frame, Retirement, Retirements, SiteId, VersionVector},
};

pub use event::{Action, Event, Reading};
pub use serve::Followers;
pub use settle::Start;

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

/// What the protocol has to know of its node.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node.
    pub node: NodeId,
    /// The region that it runs in.
    pub region: Arc<str>,
    /// With more nodes than this connected, itself among them, sites of other regions are followed through relays.
    pub relay_above: usize,
}

/// What happened with a peer since the last look, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames of it that had come in already.
    pub duplicates: u64,
    /// Commits that were not pushed to it because its window was full: it catches up by reading instead.
    pub pushes_refused: u64,
}

/// The protocol's state on one node.
#[derive(Debug)]
pub struct Core {
    site: SiteId,
    held: VersionVector,
    peers: peers::Peers,
    serving: serve::Serving,
    following: follow::Following,
    choosing: choose::Choosing,
    settling: settle::Settling,
    retired: Retirements,
    last_heads: Now,
    next_retiring: Now,
    next_stream: u64,
    tally: BTreeMap<NodeId, Tally>,
    actions: Vec<Action>,
}

impl Core {
    /// A node that starts with what its disk holds.
    #[must_use]
    pub fn new(config: Config, site: SiteId, held: VersionVector, start: Start) -> Self {
        let settling = settle::Settling::new(start);
        let mut core = Self {
            site,
            held,
            peers: peers::Peers::new(config),
            serving: serve::Serving::default(),
            following: follow::Following::default(),
            choosing: choose::Choosing::default(),
            settling,
            retired: Retirements::default(),
            last_heads: Now::ZERO,
            next_retiring: Now::ZERO,
            next_stream: 0,
            tally: BTreeMap::new(),
            actions: Vec::new(),
        };
        core.settle(Now::ZERO);
        core
    }

    /// Takes note of an event at time `now`; the answers are in [`Core::actions`].
    pub fn handle(&mut self, event: Event, now: Now) {
        match event {
            Event::PeerUp { peer, rtt, region } => self.peer_up(peer, rtt, region, now),
            Event::PeerDown { peer } => self.peer_down(peer, now),
            Event::Heads { peer, site, vector, reading, complete } => {
                if let Some(vector) = self.read_heads(vector, reading) {
                    self.told(peer, site, &vector, (reading, complete), now);
                }
            }
            Event::Retired { retirements } => {
                retirements.into_iter().for_each(|retirement| self.learn(retirement));
            }
            Event::HoldFollowing { hold } => self.hold_following(hold, now),
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
            Event::Committed { frames, vector, local } => self.committed(&frames, &vector, local),
            Event::Applied { ok } => self.applied(ok, now),
            Event::SiteRenewed { site, vector } => self.renewed(site, &vector, now),
            Event::Tick => {
                if now.saturating_sub(self.last_heads) >= HEADS_PERIOD {
                    self.send_heads(now);
                }
                self.settle(now);
                self.review_upstreams(now);
                self.retire_former(now);
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
        self.peers.behind(peer, &self.held)
    }

    /// For how long this node has lacked something that `peer` holds: since its heads showed it. Under load it starts
    /// anew whenever everything is held that was shown at the start.
    #[must_use]
    pub fn lag(&self, peer: NodeId, now: Now) -> Duration {
        self.peers.lag(peer, &self.held, now)
    }

    /// What `peer` said it holds.
    #[must_use]
    pub fn heads(&self, peer: NodeId) -> Option<&VersionVector> {
        self.peers.get(peer).map(|peer| &peer.heads)
    }

    /// The connected peer that writes `site`.
    #[must_use]
    pub fn writer_of(&self, site: SiteId) -> Option<NodeId> {
        self.peers.writer(site)
    }

    /// How the streams on which peers follow stand, by peer.
    #[must_use]
    pub fn followers(&self) -> BTreeMap<NodeId, Followers> {
        self.serving.by_peer()
    }

    /// What happened since the last look, by peer.
    pub fn tally(&mut self) -> BTreeMap<NodeId, Tally> {
        std::mem::take(&mut self.tally)
    }

    fn peer_up(&mut self, peer: NodeId, rtt: Duration, region: Arc<str>, now: Now) {
        let relays = self.peers.relays();
        self.peers.up(peer, rtt, region);
        let whole = Arc::new(self.held.clone());
        self.send_heads_to(peer, &whole, None);
        self.members_changed(relays, now);
    }

    fn peer_down(&mut self, peer: NodeId, now: Now) {
        let relays = self.peers.relays();
        let wrote = self.peers.get(peer).and_then(|peer| peer.site);
        self.peers.down(peer);
        self.upstream_lost(peer);
        wrote.into_iter().for_each(|site| self.choosing.mark(site));
        self.members_changed(relays, now);
    }

    /// Who relays for whom rests on the members, if there are or were relays.
    fn members_changed(&mut self, relays: bool, now: Now) {
        if relays || self.peers.relays() {
            self.mark_all();
        }
        self.choose_upstreams(now);
    }

    fn told(&mut self, peer: NodeId, site: SiteId, vector: &VersionVector, how: (Reading, bool), now: Now) {
        let known_before = self.peers.get(peer).and_then(|peer| peer.site);
        let before = self.peers.writes(peer, site);
        let relayed = self.peers.relays() && self.peers.is_neighbour(peer);
        let Some(known) = self.peers.get_mut(peer) else { return };
        if known_before != Some(site) {
            // Another process: what the one before it held says nothing.
            (known.heads, known.answered) = (VersionVector::new(), false);
            self.choosing.mark(site);
            before.into_iter().for_each(|before| self.choosing.mark(before));
            self.following
                .sites()
                .filter(|site| self.following.peer(*site) == Some(peer))
                .for_each(|site| self.choosing.mark(site));
        }
        known.reads_compact = how.0 != Reading::Old;
        known.answered |= how.1;
        // Large vectors come in parts, and datagrams overtake each other.
        for (site, version) in vector.iter() {
            if known.heads.advance(site, version) && (relayed || version > self.held.get(site)) {
                self.choosing.mark(site);
            }
            self.following.shown(site, version, now);
        }
        let knows_more = known.heads.get(self.site) > self.held.get(self.site);
        self.peers.note_lag(peer, &self.held, now);
        if knows_more {
            self.lost_tail();
        }
        self.settle(now);
        self.choose_upstreams(now);
    }

    fn renewed(&mut self, site: SiteId, vector: &VersionVector, now: Now) {
        self.choosing.mark(std::mem::replace(&mut self.site, site));
        self.choosing.mark(site);
        self.held = vector.clone();
        self.mark_all_shown();
        self.settled_anew(now);
        self.send_heads(now);
        self.catch_up_followers();
        self.choose_upstreams(now);
    }

    fn new_stream(&mut self) -> StreamId {
        self.next_stream += 1;
        StreamId(self.next_stream)
    }

    /// News of what is held. Frames say it all; without them only the vector is certain.
    fn committed(&mut self, frames: &[Arc<Frame>], vector: &VersionVector, local: bool) {
        for frame in frames {
            self.held.advance(frame.site, frame.version);
            self.following.held(frame.site, frame.version);
            for retirement in Retirement::of(frame) {
                if local {
                    // Its own site, too: there is another one already, of which it will hear next.
                    self.retired.learn(retirement);
                } else {
                    self.learn(retirement);
                }
            }
            self.push(frame);
        }
        if frames.is_empty() {
            for (site, version) in vector.iter() {
                self.held.advance(site, version);
                self.following.held(site, version);
            }
            self.catch_up_followers();
        }
    }
}
