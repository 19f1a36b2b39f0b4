//! The network: each node dials each other and keeps one connection of its own to it, which carries its datagrams
//! and the streams on which it follows. Frames are sent at the link's bandwidth, into a bounded transport buffer
//! that the reader empties only while it has credit.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use mychat_replication::{
    log::{Frame, SiteId, VersionVector},
    protocol::{Event, RECEIVE_WINDOW, Reading, StreamId},
};
use rand::{RngExt, rngs::Xoshiro256PlusPlus};

use crate::world::{AtNode, Conditions, Happening, Time, World, millis};

/// Bytes of a stream that are on their way or unread at the other end.
const TRANSPORT_BUFFER: usize = 512 << 10;

/// One direction between two nodes.
#[derive(Default)]
pub struct Link {
    /// The connection that `from` dialled.
    pub epoch: u64,
    pub up: bool,
    pub latency: Time,
    jitter: Time,
    /// Bytes a second.
    bandwidth: f64,
    free: Time,
    /// What is sent does not arrive.
    pub blocked_until: Time,
    /// Dialling fails.
    pub refused_until: Time,
    /// Streams can't be opened, though the connection stands.
    pub deaf_until: Time,
    /// Reliable messages that wait for the block to end.
    stalled: Vec<AtNode>,
}

pub struct Stream {
    follower: usize,
    upstream: usize,
    epoch: u64,
    pub site: SiteId,
    after: u64,
    /// The follower's name for it; `None` once it has stopped.
    pub down: Option<StreamId>,
    /// The upstream's name for it; `None` before it has heard of it and once it has closed.
    pub up: Option<StreamId>,
    /// The connection is gone, whether or not the nodes know.
    pub dead: bool,
    reset: bool,
    queue: VecDeque<Arc<Frame>>,
    in_flight: usize,
    on_the_way: VecDeque<Arc<Frame>>,
    arrived: VecDeque<Arc<Frame>>,
    last_arrival: Time,
    /// Bytes that were handed to the core beyond the credit that it gave.
    pub outstanding: usize,
    /// The oracle's own count: handed over by `Send` and not yet reported as sent.
    pub unsent: usize,
    /// The version that what was handed over so far ends with.
    pub handed: u64,
    /// The oracle's own list: received, and not yet on the disk.
    pub unapplied: Vec<(u64, usize)>,
}

impl Stream {
    /// Who sends, and who follows.
    pub fn ends(&self) -> (usize, usize) {
        (self.upstream, self.follower)
    }
}

pub struct Network {
    links: Vec<Vec<Link>>,
    pub streams: BTreeMap<u64, Stream>,
    next_stream: u64,
}

impl Network {
    pub fn new(conditions: &Conditions, rng: &mut Xoshiro256PlusPlus) -> Self {
        let n = conditions.nodes;
        let mut links: Vec<Vec<Link>> = (0..n).map(|_| (0..n).map(|_| Link::default()).collect()).collect();
        for (a, b) in (0..n).flat_map(|b| (0..b).map(move |a| (a, b))) {
            let latency = Duration::from_micros([500, 5_000, 40_000, 150_000][rng.random_range(0..4)]);
            let bandwidth = [1e6, 10e6, 100e6][rng.random_range(0..3)];
            for (from, to) in [(a, b), (b, a)] {
                let link = &mut links[from][to];
                link.latency = latency + Duration::from_micros(rng.random_range(0..1_000));
                link.jitter = if conditions.ideal { Time::ZERO } else { latency / 4 };
                link.bandwidth = if conditions.ideal { f64::INFINITY } else { bandwidth };
            }
        }
        Self { links, streams: BTreeMap::new(), next_stream: 0 }
    }

    pub fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from][to]
    }

    /// Whether a node passes on to its own region what comes to it from another.
    pub fn is_relay(&self, node: usize, region: impl Fn(usize) -> &'static str) -> bool {
        let open = || self.streams.values().filter(|stream| stream.down.is_some() && stream.up.is_some());
        open().filter(|stream| stream.follower == node && region(stream.upstream) != region(node)).any(
            |from| {
                open().any(|to| {
                    to.upstream == node && to.site == from.site && region(to.follower) == region(node)
                })
            },
        )
    }

    pub fn stream(&mut self, stream: u64) -> Option<&mut Stream> {
        self.streams.get_mut(&stream)
    }
}

impl World {
    fn delay(&mut self, from: usize, to: usize) -> Time {
        let link = self.network.link(from, to);
        let (latency, jitter) = (link.latency, link.jitter);
        latency + self.upto(jitter)
    }

    pub fn is_blocked(&mut self, from: usize, to: usize) -> bool {
        let now = self.now;
        self.network.link(from, to).blocked_until > now
    }

    fn runs(&self, node: usize) -> bool {
        self.nodes[node].process.as_ref().is_some_and(|process| !process.paused)
    }

    /// `from` tries to connect, until it has a connection.
    pub fn dial(&mut self, from: usize, to: usize) {
        if self.nodes[from].process.is_none() || self.network.link(from, to).up {
            return;
        }
        let refused = self.network.link(from, to).refused_until > self.now;
        let reachable = !self.is_blocked(from, to) && !self.is_blocked(to, from) && !refused;
        if !(reachable && self.runs(from) && self.runs(to)) {
            let pause = millis(50) + self.upto(millis(450));
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
            let soon = round_trip + self.upto(millis(5));
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
        let noticed = self.upto(self.conditions.detection);
        self.later(from, noticed, AtNode::Disconnected { peer: to, epoch });
        let noticed = self.upto(self.conditions.detection);
        let of_it = |stream: &Stream| (stream.follower, stream.upstream, stream.epoch) == (from, to, epoch);
        let mut resets = Vec::new();
        for (number, stream) in self.network.streams.iter_mut().filter(|(_, stream)| of_it(stream)) {
            stream.dead = true;
            stream.queue.clear();
            stream.on_the_way.clear();
            stream.arrived.clear();
            resets.push(*number);
        }
        for stream in resets {
            self.later(to, noticed, AtNode::Reset { stream });
        }
    }

    /// Sends a message of a stream; frames and the end of the stream arrive in order.
    fn reliably(&mut self, from: usize, to: usize, stream: u64, delay: Time, event: AtNode) {
        if self.is_blocked(from, to) {
            self.network.link(from, to).stalled.push(event);
            return;
        }
        let mut at = self.now + delay;
        let Some(found) = self.network.stream(stream).filter(|stream| !stream.dead) else { return };
        if let AtNode::Arrived { .. } | AtNode::Closed { .. } = event {
            at = at.max(found.last_arrival);
            found.last_arrival = at;
        }
        self.later(to, at - self.now, event);
    }

    pub fn unblock(&mut self, from: usize, to: usize) {
        if self.is_blocked(from, to) {
            return;
        }
        let stalled = std::mem::take(&mut self.network.link(from, to).stalled);
        for event in stalled {
            let (AtNode::Opened { stream }
            | AtNode::Arrived { stream }
            | AtNode::Reset { stream }
            | AtNode::Closed { stream }) = event
            else {
                continue;
            };
            let latency = self.network.link(from, to).latency;
            self.reliably(from, to, stream, latency, event);
        }
        let sending: Vec<u64> = self
            .network
            .streams
            .iter()
            .filter(|(_, stream)| stream.upstream == from)
            .map(|(number, _)| *number)
            .collect();
        for stream in sending {
            self.pump(stream);
        }
    }

    pub fn datagram(&mut self, from: usize, to: usize, heads: (SiteId, VersionVector, Reading)) {
        let Some(epoch) = self.process(from).and_then(|process| process.up.get(&to).copied()) else { return };
        let link = self.network.link(from, to);
        let alive = link.up && link.epoch == epoch;
        if !alive || self.is_blocked(from, to) {
            return;
        }
        if self.rng.random_bool(self.conditions.loss) {
            self.count("datagram lost");
            return;
        }
        // Up to twice the way: datagrams overtake each other.
        let delay = self.delay(from, to);
        let delay = if self.conditions.ideal { delay } else { delay + self.upto(delay) };
        let (site, vector, reading) = heads;
        self.later(to, delay, AtNode::Datagram { peer: from, epoch, site, vector, reading });
    }

    /// `from` asks `to` for a log.
    pub fn open_stream(&mut self, from: usize, to: usize, name: StreamId, site: SiteId, after: u64) {
        let epoch = self.process(from).and_then(|process| process.up.get(&to).copied());
        let link = self.network.link(from, to);
        let deaf = link.deaf_until;
        if epoch.is_none() || deaf > self.now {
            self.count("stream not opened");
            let soon = self.upto(millis(20));
            self.later(from, soon, AtNode::Core(Event::UpstreamClosed { stream: name }));
            return;
        }
        let epoch = epoch.unwrap_or_default();
        let dead = !link.up || link.epoch != epoch;
        self.network.next_stream += 1;
        let number = self.network.next_stream;
        let stream = Stream {
            follower: from,
            upstream: to,
            epoch,
            site,
            after,
            down: Some(name),
            up: None,
            dead,
            reset: false,
            queue: VecDeque::new(),
            in_flight: 0,
            on_the_way: VecDeque::new(),
            arrived: VecDeque::new(),
            last_arrival: self.now,
            outstanding: 0,
            unsent: 0,
            handed: after,
            unapplied: Vec::new(),
        };
        self.network.streams.insert(number, stream);
        if let Some(process) = self.process(from) {
            process.upstreams.insert(name, number);
        }
        let delay = self.delay(from, to);
        self.reliably(from, to, number, delay, AtNode::Opened { stream: number });
    }

    pub fn opened(&mut self, node: usize, number: u64) {
        let Some(stream) = self.network.streams.get_mut(&number).filter(|stream| !stream.reset) else {
            return;
        };
        let Some(process) = &mut self.nodes[node].process else { return };
        process.next_follower += 1;
        let name = StreamId(process.next_follower);
        process.followers.insert(name, number);
        stream.up = Some(name);
        let (follower, site, after) = (stream.follower, stream.site, stream.after);
        self.follower_opened(node, name, follower, site, after);
    }

    /// The follower stops reading.
    pub fn stop_following(&mut self, node: usize, name: StreamId) {
        let Some(number) = self.process(node).and_then(|process| process.upstreams.remove(&name)) else {
            return;
        };
        let Some(stream) = self.network.stream(number) else { return };
        stream.down = None;
        stream.arrived.clear();
        let upstream = stream.upstream;
        let delay = self.delay(node, upstream);
        self.reliably(node, upstream, number, delay, AtNode::Reset { stream: number });
    }

    /// The upstream closes.
    pub fn close_follower(&mut self, node: usize, name: StreamId) {
        let Some(number) = self.process(node).and_then(|process| process.followers.remove(&name)) else {
            return;
        };
        let Some(stream) = self.network.stream(number) else { return };
        stream.up = None;
        stream.queue.clear();
        let follower = stream.follower;
        let delay = self.delay(node, follower);
        self.reliably(node, follower, number, delay, AtNode::Closed { stream: number });
    }

    /// The upstream hears that the follower has gone. Returns its name for the stream if it still had it open.
    pub fn was_reset(&mut self, node: usize, number: u64) -> Option<StreamId> {
        let stream = self.network.stream(number)?;
        stream.reset = true;
        stream.queue.clear();
        let name = stream.up.take()?;
        self.process(node)?.followers.remove(&name);
        Some(name)
    }

    /// The follower hears that the upstream has closed.
    pub fn was_closed(&mut self, node: usize, number: u64) -> Option<StreamId> {
        let name = self.network.stream(number)?.down.take()?;
        self.process(node)?.upstreams.remove(&name);
        Some(name)
    }

    /// The names of the streams on which `node` follows `peer` over a connection that it now knows to be gone.
    pub fn dead_upstreams(&mut self, node: usize, peer: usize, epoch: u64) -> Vec<StreamId> {
        let of_it = |stream: &Stream| (stream.follower, stream.upstream, stream.epoch) == (node, peer, epoch);
        let mut names = Vec::new();
        for stream in self.network.streams.values_mut().filter(|stream| of_it(stream)) {
            stream.dead = true;
            names.extend(stream.down.take());
        }
        if let Some(process) = self.process(node) {
            process.upstreams.retain(|name, _| !names.contains(name));
        }
        names
    }

    /// The process of `node` is gone, and with it its ends of all streams.
    pub fn forget_streams(&mut self, node: usize) {
        for stream in self.network.streams.values_mut() {
            if stream.follower == node {
                stream.down = None;
            }
            if stream.upstream == node {
                (stream.up, stream.reset) = (None, true);
            }
        }
    }

    pub fn enqueue(&mut self, number: u64, frames: Vec<Arc<Frame>>) {
        if let Some(stream) = self.network.stream(number).filter(|stream| !stream.dead && !stream.reset) {
            stream.queue.extend(frames);
            self.pump(number);
        }
    }

    /// Puts frames on the wire as long as the transport takes them.
    fn pump(&mut self, number: u64) {
        let now = self.now;
        let Some(stream) = self.network.streams.get(&number) else { return };
        let (from, to) = (stream.upstream, stream.follower);
        if stream.dead || self.is_blocked(from, to) {
            return;
        }
        loop {
            let Some(stream) =
                self.network.stream(number).filter(|stream| stream.in_flight < TRANSPORT_BUFFER)
            else {
                return;
            };
            let Some(frame) = stream.queue.pop_front() else { return };
            let bytes = frame.size();
            stream.in_flight += bytes;
            stream.on_the_way.push_back(frame);
            let link = self.network.link(from, to);
            link.free = link.free.max(now) + Duration::from_secs_f64(bytes as f64 / link.bandwidth);
            let sent = link.free - now;
            self.later(from, sent, AtNode::Sent { stream: number, bytes });
            let delay = sent + self.delay(from, to);
            self.reliably(from, to, number, delay, AtNode::Arrived { stream: number });
        }
    }

    /// Moves a frame into the receive buffer.
    pub fn arrive(&mut self, number: u64) {
        if let Some(stream) = self.network.stream(number)
            && let Some(frame) = stream.on_the_way.pop_front()
        {
            if stream.down.is_some() {
                stream.arrived.push_back(frame);
            } else {
                stream.in_flight = stream.in_flight.saturating_sub(frame.size());
            }
        }
    }

    /// The next frame that the follower may read by the credit it has, if there is one.
    pub fn read_frame(&mut self, number: u64) -> Option<(StreamId, Arc<Frame>)> {
        let stream = self.network.stream(number)?;
        let name = stream.down?;
        if stream.outstanding >= RECEIVE_WINDOW {
            if !stream.arrived.is_empty() {
                self.count("reader out of credit");
            }
            return None;
        }
        let frame = stream.arrived.pop_front()?;
        stream.outstanding += frame.size();
        stream.in_flight = stream.in_flight.saturating_sub(frame.size());
        self.pump(number);
        Some((name, frame))
    }
}
