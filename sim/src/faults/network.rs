//! The network: each node dials each other and keeps one connection of its own to it, which carries its datagrams and
//! the streams on which it follows.
//!
//! Datagrams are lost, come twice, and overtake each other. Streams are reliable and ordered, as QUIC's are: what is
//! lost of them comes later. A connection ends when nothing passes for a while.

use super::{
    chance::Chance,
    streams::Streams,
    world::{AtNode, Happening, Time, World, millis, seconds},
};

/// How long a connection survives silence.
const IDLE: Time = seconds(3);

/// One direction between two nodes.
#[derive(Debug, Default, Clone)]
pub struct Link {
    /// The connection that `from` dialled.
    pub epoch: u64,
    pub up: bool,
    pub latency: Time,
    /// What is sent does not arrive.
    pub blocked_until: Time,
    /// Until when the wire is busy with what was sent before.
    pub free: Time,
    /// Messages of streams that wait for the block to end: the stream and what it is.
    pub stalled: Vec<AtStream>,
}

/// A message of a stream.
#[derive(Debug, Clone, Copy)]
pub enum AtStream {
    Opened(u64),
    Arrived(u64),
    Reset(u64),
    Closed(u64),
}

impl AtStream {
    pub const fn stream(self) -> u64 {
        match self {
            Self::Opened(stream) | Self::Arrived(stream) | Self::Reset(stream) | Self::Closed(stream) => {
                stream
            }
        }
    }

    pub const fn event(self) -> AtNode {
        match self {
            Self::Opened(stream) => AtNode::Opened { stream },
            Self::Arrived(stream) => AtNode::Arrived { stream },
            Self::Reset(stream) => AtNode::Reset { stream },
            Self::Closed(stream) => AtNode::Closed { stream },
        }
    }
}

/// What the network does to everything.
#[derive(Debug, Default, Clone, Copy)]
pub struct Weather {
    pub until: Time,
    pub loss: f64,
    pub duplicate: f64,
    pub jitter: Time,
}

pub struct Network {
    links: Vec<Vec<Link>>,
    pub weather: Weather,
    pub streams: Streams,
}

impl Network {
    /// A network for so many nodes, each pair with a distance of its own.
    pub fn new(nodes: usize, chance: &mut Chance) -> Self {
        let mut links = vec![vec![Link::default(); nodes]; nodes];
        for (a, b) in (0..nodes).flat_map(|b| (0..b).map(move |a| (a, b))) {
            let latency = [millis(1), millis(5), millis(40), millis(120)][chance.index(4)];
            links[a][b].latency = latency + chance.upto(millis(2));
            links[b][a].latency = latency + chance.upto(millis(2));
        }
        Self { links, weather: Weather::default(), streams: Streams::default() }
    }

    pub fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from][to]
    }
}

impl World {
    /// How long something takes from one node to another.
    pub fn delay(&mut self, from: usize, to: usize) -> Time {
        let latency = self.network.link(from, to).latency;
        let jitter =
            if self.now < self.network.weather.until { self.network.weather.jitter } else { latency / 8 };
        latency + self.weather.upto(jitter)
    }

    pub fn is_blocked(&mut self, from: usize, to: usize) -> bool {
        let now = self.now;
        self.network.link(from, to).blocked_until > now
    }

    /// `from` tries to connect, until it has a connection.
    pub fn dial(&mut self, from: usize, to: usize) {
        let gone = self.nodes[from].process.is_none() || self.nodes[to].left;
        if gone || self.network.link(from, to).up {
            return;
        }
        let reachable = !self.is_blocked(from, to) && !self.is_blocked(to, from);
        if !(reachable && self.nodes[to].process.is_some()) {
            let pause = millis(200) + self.weather.upto(millis(800));
            self.after(pause, Happening::Dial { from, to });
            return;
        }
        let link = self.network.link(from, to);
        (link.epoch, link.up) = (link.epoch + 1, true);
        let epoch = link.epoch;
        let round_trip = self.delay(from, to) + self.delay(to, from);
        self.later(from, round_trip, AtNode::Connected { peer: to, epoch });
        // The greeting of a new process tells the other side that its connection to the old one is obsolete.
        let back = self.network.link(to, from);
        if !back.up {
            let epoch = back.epoch;
            let soon = round_trip + self.weather.upto(millis(5));
            self.later(to, soon, AtNode::Disconnected { peer: from, epoch });
        }
    }

    /// The connection that `from` dialled is gone; both sides notice some time later.
    pub fn cut(&mut self, from: usize, to: usize) {
        let link = self.network.link(from, to);
        if !std::mem::take(&mut link.up) {
            return;
        }
        let epoch = link.epoch;
        self.count("connection lost");
        let noticed = self.weather.upto(millis(800));
        self.later(from, noticed, AtNode::Disconnected { peer: to, epoch });
        let noticed = self.weather.upto(millis(800));
        for stream in self.network.streams.die(from, to, epoch) {
            self.later(to, noticed, AtNode::Reset { stream });
        }
    }

    /// Sends a message of a stream; frames and the end of the stream arrive in order.
    pub fn reliably(&mut self, from: usize, to: usize, delay: Time, message: AtStream) {
        if self.is_blocked(from, to) {
            self.network.link(from, to).stalled.push(message);
            return;
        }
        let mut at = self.now + delay;
        let weather = self.network.weather;
        if self.now < weather.until && self.weather.happens(weather.loss) {
            // Sent again after a while, and everything behind it waits.
            self.count("piece of a stream lost and sent again");
            at += millis(100) + self.weather.upto(millis(400));
        }
        let Some(at) = self.network.streams.arrives(message, at) else { return };
        self.later(to, at - self.now, message.event());
    }

    /// A block may have ended.
    pub fn unblock(&mut self, from: usize, to: usize) {
        if self.is_blocked(from, to) {
            return;
        }
        let stalled = std::mem::take(&mut self.network.link(from, to).stalled);
        for message in stalled {
            let latency = self.network.link(from, to).latency;
            self.reliably(from, to, latency, message);
        }
        for stream in self.network.streams.sent_by(from) {
            self.pump(stream);
        }
    }

    /// Nothing passes from one node to another for a while.
    pub fn block(&mut self, from: usize, to: usize, lasts: Time) {
        let until = self.now + lasts;
        let link = self.network.link(from, to);
        link.blocked_until = link.blocked_until.max(until);
        self.after(lasts, Happening::Unblock { from, to });
        self.after(IDLE, Happening::Silence { from, to });
    }

    /// Connections don't survive a long silence.
    pub fn silence(&mut self, from: usize, to: usize) {
        if self.is_blocked(from, to) || self.is_blocked(to, from) {
            self.cut(from, to);
            self.cut(to, from);
        }
    }

    /// Sends a datagram, which may be lost.
    pub fn datagram(&mut self, from: usize, to: usize, make: impl Fn(u64) -> AtNode) {
        let process = self.nodes[from].process.as_ref();
        let Some(epoch) = process.and_then(|process| process.up.get(&to).copied()) else { return };
        let link = self.network.link(from, to);
        let alive = link.up && link.epoch == epoch;
        if !alive || self.is_blocked(from, to) {
            return;
        }
        let weather = self.network.weather;
        let bad = self.now < weather.until;
        if bad && self.weather.happens(weather.loss) {
            self.count("datagram lost");
            return;
        }
        let times = if bad && self.weather.happens(weather.duplicate) { 2 } else { 1 };
        for time in 0..times {
            let delay = self.delay(from, to);
            if time > 0 {
                self.count("datagram came twice");
            }
            if bad && !weather.jitter.is_zero() {
                self.count("datagram may be overtaken");
            }
            self.later(to, delay, make(epoch));
        }
    }
}
