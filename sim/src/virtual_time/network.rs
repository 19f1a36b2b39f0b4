//! The network: each node dials each other and keeps one connection of its own to it, which carries its datagrams and
//! the streams on which it follows.
//!
//! Datagrams are lost, come twice, and overtake each other. Streams are reliable and ordered, as QUIC's are: what is
//! lost of them comes later. A connection ends when nothing passes for a while.

use std::sync::Arc;

use mychat_replication::{
    log::{SiteId, VersionVector},
    protocol::{Event, Reading},
};

use super::{
    Chance, Stage, Time,
    driver::Arrival,
    millis,
    stage::{Happening, id},
    streams::AtStream,
};

/// Bytes that a wire carries in a microsecond.
const BANDWIDTH: u64 = 10;

/// One direction between two nodes.
#[derive(Debug, Clone)]
pub struct Link {
    /// The connection that `from` dialled.
    pub(super) epoch: u64,
    pub(super) up: bool,
    /// How long the way takes.
    pub latency: Time,
    /// And how much longer at most.
    pub jitter: Time,
    /// Bytes that the wire carries in a microsecond.
    pub bandwidth: u64,
    /// Until when the wire is busy with what was sent before.
    pub(super) free: Time,
    /// What is sent does not arrive.
    blocked_until: Time,
    /// Dialling fails.
    pub refused_until: Time,
    /// Streams can't be opened, though the connection stands.
    pub deaf_until: Time,
    /// Messages of streams that wait for the block to end.
    stalled: Vec<AtStream>,
}

/// What the network does to everything.
#[derive(Debug, Default, Clone, Copy)]
pub struct Weather {
    /// When it is over.
    pub until: Time,
    /// The chance that something is lost.
    pub loss: f64,
    /// The chance that a datagram comes twice.
    pub duplicate: f64,
    /// How much longer the way takes at most.
    pub jitter: Time,
}

/// How connections end and begin.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// How long they survive silence.
    pub idle: Time,
    /// How long a node takes at most to notice that one is gone.
    pub notices: Time,
    /// How long it waits at most before it dials again.
    pub redials: Time,
}

/// What a node says that it holds.
#[derive(Debug, Clone)]
pub struct Heads {
    pub(super) site: SiteId,
    pub(super) vector: Arc<VersionVector>,
    pub(super) reading: Reading,
}

/// The wires between nodes.
pub struct Network {
    links: Vec<Vec<Link>>,
    manner: Manner,
    /// What it does to everything.
    pub weather: Weather,
    /// What decides that.
    pub(super) chance: Chance,
}

impl Network {
    /// A network for so many nodes, each pair with a distance of its own that `map` decides.
    #[must_use]
    pub fn new(nodes: usize, map: &mut Chance, manner: Manner, chance: Chance) -> Self {
        let link = Link {
            epoch: 0,
            up: false,
            latency: Time::ZERO,
            jitter: Time::ZERO,
            bandwidth: BANDWIDTH,
            free: Time::ZERO,
            blocked_until: Time::ZERO,
            refused_until: Time::ZERO,
            deaf_until: Time::ZERO,
            stalled: Vec::new(),
        };
        let mut links = vec![vec![link; nodes]; nodes];
        for (a, b) in (0..nodes).flat_map(|b| (0..b).map(move |a| (a, b))) {
            let latency = map.pick(&[millis(1), millis(5), millis(40), millis(120)]);
            for (from, to) in [(a, b), (b, a)] {
                let latency = latency + map.upto(millis(2));
                (links[from][to].latency, links[from][to].jitter) = (latency, latency / 8);
            }
        }
        Self { links, manner, weather: Weather::default(), chance }
    }

    /// The way from one node to another.
    pub fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from][to]
    }

    /// All ways.
    pub fn links(&mut self) -> impl Iterator<Item = &mut Link> {
        self.links.iter_mut().flatten()
    }
}

impl<A, W> Stage<A, W> {
    /// How long something takes from one node to another.
    pub(super) fn delay(&mut self, from: usize, to: usize) -> Time {
        let now = self.now();
        let Network { links, weather, chance, .. } = &mut self.network;
        let Link { latency, jitter, .. } = links[from][to];
        latency + chance.upto(if now < weather.until { weather.jitter } else { jitter })
    }

    /// Whether nothing passes from one node to another.
    #[must_use]
    pub fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.network.links[from][to].blocked_until > self.now()
    }

    fn runs(&self, node: usize) -> bool {
        self.seats[node].process.as_ref().is_some_and(|process| !process.paused)
    }

    /// `from` tries to connect, until it has a connection.
    pub(super) fn dial(&mut self, from: usize, to: usize) {
        let gone = self.seats[from].process.is_none() || self.seats[to].left;
        if gone || self.network.link(from, to).up {
            return;
        }
        let refused = self.network.links[from][to].refused_until > self.now();
        let reachable = !self.is_blocked(from, to) && !self.is_blocked(to, from) && !refused;
        if !(reachable && self.runs(from) && self.runs(to)) {
            let most = self.network.manner.redials;
            let pause = self.network.chance.between(most / 5, most);
            self.schedule.after(pause, Happening::Dial { from, to });
            return;
        }
        let link = self.network.link(from, to);
        (link.epoch, link.up) = (link.epoch + 1, true);
        let epoch = link.epoch;
        let round_trip = self.delay(from, to) + self.delay(to, from);
        self.arrives(from, round_trip, Arrival::Connected { peer: to, epoch });
        // The greeting of a new process tells the other side that its connection to the old one is obsolete.
        let back = self.network.link(to, from);
        if !back.up {
            let epoch = back.epoch;
            let soon = round_trip + self.network.chance.upto(millis(5));
            self.arrives(to, soon, Arrival::Disconnected { peer: from, epoch });
        }
    }

    /// The connection that a node thinks it has to a peer.
    pub fn connection(&mut self, node: usize, peer: usize) -> Option<u64> {
        self.process(node)?.up.get(&peer).copied()
    }

    /// The connection that a node dialled stands, unless it has gone meanwhile.
    pub(super) fn connected(&mut self, node: usize, peer: usize, epoch: u64) -> Option<Event> {
        let link = self.network.link(node, peer);
        if !link.up || link.epoch != epoch {
            self.schedule.after(millis(50), Happening::Dial { from: node, to: peer });
            return None;
        }
        let rtt = link.latency * 2;
        self.process(node)?.up.insert(peer, epoch);
        Some(Event::PeerUp { peer: id(peer), rtt, region: self.seats[peer].region.into() })
    }

    /// A node notices that a connection is gone, and the streams on which it followed over that.
    pub fn disconnected(&mut self, node: usize, peer: usize, epoch: u64) -> Vec<Event> {
        let pause = self.chance.upto(millis(400));
        self.schedule.after(pause, Happening::Dial { from: node, to: peer });
        let process = self.process(node).filter(|process| process.up.get(&peer) == Some(&epoch));
        let Some(process) = process else { return Vec::new() };
        process.up.remove(&peer);
        let streams = self.dead_upstreams(node, peer, epoch);
        let closed = streams.into_iter().map(|stream| Event::UpstreamClosed { stream });
        std::iter::once(Event::PeerDown { peer: id(peer) }).chain(closed).collect()
    }

    /// The connection that `from` dialled is gone, if there was one; both sides notice some time later.
    pub fn cut(&mut self, from: usize, to: usize) -> bool {
        let link = self.network.link(from, to);
        if !std::mem::take(&mut link.up) {
            return false;
        }
        let epoch = link.epoch;
        self.count("connection lost");
        let most = self.network.manner.notices;
        let noticed = self.network.chance.upto(most);
        self.arrives(from, noticed, Arrival::Disconnected { peer: to, epoch });
        let noticed = self.network.chance.upto(most);
        for stream in self.streams.die(from, to, epoch) {
            self.arrives(to, noticed, Arrival::Reset { stream });
        }
        true
    }

    /// Sends a message of a stream; frames and the end of the stream arrive in order.
    pub(super) fn reliably(&mut self, from: usize, to: usize, delay: Time, message: AtStream) {
        if self.is_blocked(from, to) {
            self.network.link(from, to).stalled.push(message);
            return;
        }
        let now = self.now();
        let mut at = now + delay;
        let Network { weather, chance, .. } = &mut self.network;
        if now < weather.until && chance.happens(weather.loss) {
            // Sent again after a while, and everything behind it waits.
            at += millis(100) + chance.upto(millis(400));
            self.count("piece of a stream lost and sent again");
        }
        let Some(at) = self.streams.arrives(message, at) else { return };
        self.arrives(to, at - now, message.arrival());
    }

    /// A block may have ended.
    pub(super) fn unblock(&mut self, from: usize, to: usize) {
        if self.is_blocked(from, to) {
            return;
        }
        let stalled = std::mem::take(&mut self.network.link(from, to).stalled);
        for message in stalled {
            let latency = self.network.link(from, to).latency;
            self.reliably(from, to, latency, message);
        }
        for stream in self.streams.sent_by(from) {
            self.pump(stream);
        }
    }

    /// Nothing passes from one node to another for a while.
    pub fn block(&mut self, from: usize, to: usize, lasts: Time) {
        let until = self.now() + lasts;
        let link = self.network.link(from, to);
        link.blocked_until = link.blocked_until.max(until);
        self.schedule.after(lasts, Happening::Unblock { from, to });
        self.will_be_silent(from, to);
    }

    /// Nothing passes between a node and all others for a while.
    pub fn isolate(&mut self, node: usize, lasts: Time) {
        for peer in self.peers_of(node) {
            self.block(node, peer, lasts);
            self.block(peer, node, lasts);
        }
    }

    pub(super) fn will_be_silent(&mut self, from: usize, to: usize) {
        self.schedule.after(self.network.manner.idle, Happening::Silence { from, to });
    }

    /// Connections don't survive a long silence.
    pub(super) fn silence(&mut self, from: usize, to: usize) {
        let asleep = |node: usize| self.seats[node].process.as_ref().is_some_and(|process| process.paused);
        let silent = asleep(from) || asleep(to) || self.is_blocked(from, to) || self.is_blocked(to, from);
        // Both, not one of them.
        if silent && (self.cut(from, to) | self.cut(to, from)) {
            self.count("connection timed out");
        }
    }

    /// Everything passes again.
    pub fn mend(&mut self) {
        let nodes = self.seats.len();
        for (from, to) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))) {
            let link = self.network.link(from, to);
            (link.blocked_until, link.refused_until, link.deaf_until) = (Time::ZERO, Time::ZERO, Time::ZERO);
            self.unblock(from, to);
        }
    }

    /// Sends a datagram, which may be lost.
    pub(super) fn datagram(&mut self, from: usize, to: usize, heads: Heads) {
        let Some(epoch) = self.connection(from, to) else { return };
        let link = self.network.link(from, to);
        let alive = link.up && link.epoch == epoch;
        if !alive || self.is_blocked(from, to) {
            return;
        }
        let weather = self.network.weather;
        let bad = self.now() < weather.until;
        if bad && self.network.chance.happens(weather.loss) {
            self.count("datagram lost");
            return;
        }
        let times = if bad && self.network.chance.happens(weather.duplicate) { 2 } else { 1 };
        for time in 0..times {
            let delay = self.delay(from, to);
            if time > 0 {
                self.count("datagram came twice");
            }
            if bad && !weather.jitter.is_zero() {
                self.count("datagram may be overtaken");
            }
            self.arrives(to, delay, Arrival::Datagram { peer: from, epoch, heads: heads.clone() });
        }
    }

    /// A datagram arrives, unless its connection is gone.
    pub(super) fn heard(&mut self, node: usize, peer: usize, epoch: u64, heads: Heads) -> Option<Event> {
        let link = self.network.link(peer, node);
        let Heads { site, vector, reading } = heads;
        let vector = vector.as_ref().clone();
        let event = Event::Heads { peer: id(peer), site, vector, reading, complete: true };
        (link.up && link.epoch == epoch).then_some(event)
    }
}
