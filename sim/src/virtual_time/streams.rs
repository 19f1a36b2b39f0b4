//! Streams of frames between nodes. Frames go into a bounded transport buffer at the pace of the wire; the reader
//! empties it only while it has credit.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use mychat_replication::{
    log::{Frame, SiteId, Version},
    protocol::{Event, RECEIVE_WINDOW, SEND_WINDOW, StreamId},
};

use super::{Rule, Stage, Time, driver::Arrival, millis, stage::id};

/// Bytes of a stream that are on their way or unread at the other end.
const TRANSPORT_BUFFER: usize = 512 << 10;

/// A message of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) enum AtStream {
    Opened(u64),
    Frame(u64),
    Reset(u64),
    Closed(u64),
}

impl AtStream {
    const fn stream(self) -> u64 {
        match self {
            Self::Opened(stream) | Self::Frame(stream) | Self::Reset(stream) | Self::Closed(stream) => stream,
        }
    }

    pub(super) const fn arrival(self) -> Arrival {
        match self {
            Self::Opened(stream) => Arrival::Opened { stream },
            Self::Frame(stream) => Arrival::Frame { stream },
            Self::Reset(stream) => Arrival::Reset { stream },
            Self::Closed(stream) => Arrival::Closed { stream },
        }
    }
}

/// A stream on which one node follows another.
#[derive(Debug)]
pub struct Stream {
    /// Who follows.
    pub follower: usize,
    /// Who sends.
    pub upstream: usize,
    epoch: u64,
    /// Whose log it is.
    pub site: SiteId,
    after: Version,
    /// The follower's name for it; `None` once it has stopped.
    down: Option<StreamId>,
    /// The upstream's name for it; `None` before it has heard of it and once it has closed.
    up: Option<StreamId>,
    /// The connection is gone, whether or not the nodes know.
    dead: bool,
    reset: bool,
    queue: VecDeque<Arc<Frame>>,
    in_flight: usize,
    on_the_way: VecDeque<Arc<Frame>>,
    arrived: VecDeque<Arc<Frame>>,
    last_arrival: Time,
    /// Bytes that were handed to the core beyond the credit that it gave.
    outstanding: usize,
    /// The judge's own count: handed over by `Send` and not yet reported as sent.
    unsent: usize,
    /// The version that what was handed over so far ends with.
    handed: Version,
}

/// All streams that somebody knows of.
#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: BTreeMap<u64, Stream>,
    next: u64,
}

impl Streams {
    /// The streams of a connection die with it.
    pub(super) fn die(&mut self, follower: usize, upstream: usize, epoch: u64) -> Vec<u64> {
        let mut resets = Vec::new();
        for (number, stream) in &mut self.streams {
            if (stream.follower, stream.upstream, stream.epoch) == (follower, upstream, epoch) {
                stream.dead = true;
                stream.queue.clear();
                stream.on_the_way.clear();
                stream.arrived.clear();
                resets.push(*number);
            }
        }
        resets
    }

    /// When a message that would arrive at `at` does, behind what was sent before; `None` when the stream is dead.
    pub(super) fn arrives(&mut self, message: AtStream, at: Time) -> Option<Time> {
        let stream = self.streams.get_mut(&message.stream()).filter(|stream| !stream.dead)?;
        if let AtStream::Frame(_) | AtStream::Closed(_) = message {
            stream.last_arrival = stream.last_arrival.max(at);
            return Some(stream.last_arrival);
        }
        Some(at)
    }

    /// The streams on which a node sends.
    pub(super) fn sent_by(&self, upstream: usize) -> Vec<u64> {
        let of_it = self.streams.iter().filter(|(_, stream)| stream.upstream == upstream);
        of_it.map(|(number, _)| *number).collect()
    }

    fn get(&mut self, number: u64) -> Option<&mut Stream> {
        self.streams.get_mut(&number)
    }

    /// A process is gone, and with it its ends of all streams.
    pub(super) fn forget(&mut self, node: usize) {
        for stream in self.streams.values_mut() {
            if stream.follower == node {
                stream.down = None;
            }
            if stream.upstream == node {
                (stream.up, stream.reset) = (None, true);
            }
        }
    }

    /// Nobody knows of it any more.
    fn tidy(&mut self) {
        self.streams.retain(|_, stream| {
            stream.down.is_some() || stream.up.is_some() || !(stream.dead || stream.reset)
        });
    }
}

impl<A, W> Stage<A, W> {
    /// The streams that both ends know of.
    pub fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.streams.streams.values().filter(|stream| stream.down.is_some() && stream.up.is_some())
    }

    /// Who follows on a stream of a node.
    #[must_use]
    pub fn follower(&self, node: usize, name: StreamId) -> Option<usize> {
        let number = self.seats[node].process.as_ref()?.followers.get(&name)?;
        self.streams.streams.get(number).map(|stream| stream.follower)
    }

    /// `from` asks `to` for a log.
    pub(super) fn open_stream(
        &mut self,
        from: usize,
        to: usize,
        name: StreamId,
        site: SiteId,
        after: Version,
    ) {
        self.streams.tidy();
        let (now, link) = (self.now(), self.network.link(from, to));
        let (up, open, deaf) = (link.up, link.epoch, link.deaf_until > now);
        let Some(epoch) = self.connection(from, to).filter(|_| !deaf) else {
            self.count("stream not opened");
            let soon = self.network.chance.upto(millis(20));
            return self.tell(from, soon, Event::UpstreamClosed { stream: name });
        };
        self.streams.next += 1;
        let number = self.streams.next;
        let stream = Stream {
            follower: from,
            upstream: to,
            epoch,
            site,
            after,
            down: Some(name),
            up: None,
            dead: !up || open != epoch,
            reset: false,
            queue: VecDeque::new(),
            in_flight: 0,
            on_the_way: VecDeque::new(),
            arrived: VecDeque::new(),
            last_arrival: now,
            outstanding: 0,
            unsent: 0,
            handed: after,
        };
        self.streams.streams.insert(number, stream);
        if let Some(process) = self.process(from) {
            process.upstreams.insert(name, number);
        }
        let delay = self.delay(from, to);
        self.reliably(from, to, delay, AtStream::Opened(number));
    }

    /// The upstream hears that a stream was opened.
    pub(super) fn was_opened(&mut self, node: usize, number: u64) -> Option<Event> {
        let stream = self.streams.get(number).filter(|stream| !stream.reset && !stream.dead)?;
        let process = self.seats[node].process.as_mut()?;
        process.next_follower += 1;
        let name = StreamId(process.next_follower);
        process.followers.insert(name, number);
        stream.up = Some(name);
        let Stream { follower, site, after, .. } = *stream;
        Some(Event::FollowerOpened { stream: name, peer: id(follower), site, after })
    }

    /// The follower stops reading.
    pub(super) fn stop_following(&mut self, node: usize, name: StreamId) {
        let process = self.seats[node].process.as_mut();
        let Some(number) = process.and_then(|process| process.upstreams.remove(&name)) else { return };
        let Some(stream) = self.streams.get(number) else { return };
        stream.down = None;
        stream.arrived.clear();
        let upstream = stream.upstream;
        let delay = self.delay(node, upstream);
        self.reliably(node, upstream, delay, AtStream::Reset(number));
    }

    /// The upstream closes.
    pub(super) fn close_follower(&mut self, node: usize, name: StreamId) {
        let process = self.seats[node].process.as_mut();
        let Some(number) = process.and_then(|process| process.followers.remove(&name)) else { return };
        let Some(stream) = self.streams.get(number) else { return };
        stream.up = None;
        stream.queue.clear();
        let follower = stream.follower;
        let delay = self.delay(node, follower);
        self.reliably(node, follower, delay, AtStream::Closed(number));
    }

    /// The upstream, if it still had the stream open, hears that the follower has gone.
    pub(super) fn was_reset(&mut self, node: usize, number: u64) -> Option<Event> {
        let stream = self.streams.get(number)?;
        stream.reset = true;
        stream.queue.clear();
        let name = stream.up.take()?;
        self.process(node)?.followers.remove(&name);
        Some(Event::FollowerClosed { stream: name })
    }

    /// The follower hears that the upstream has closed.
    pub(super) fn was_closed(&mut self, node: usize, number: u64) -> Option<Event> {
        let name = self.streams.get(number)?.down.take()?;
        self.process(node)?.upstreams.remove(&name);
        Some(Event::UpstreamClosed { stream: name })
    }

    /// The names of the streams on which `node` follows `peer` over a connection that it now knows to be gone.
    pub(super) fn dead_upstreams(&mut self, node: usize, peer: usize, epoch: u64) -> Vec<StreamId> {
        let mut names = Vec::new();
        for stream in self.streams.streams.values_mut() {
            if (stream.follower, stream.upstream, stream.epoch) == (node, peer, epoch) {
                stream.dead = true;
                names.extend(stream.down.take());
            }
        }
        if let Some(process) = &mut self.seats[node].process {
            process.upstreams.retain(|name, _| !names.contains(name));
        }
        names
    }

    /// The core hands frames over; judged by the bound of what may wait (I7) and the order (I3).
    pub(super) fn send(&mut self, node: usize, name: StreamId, frames: Vec<Arc<Frame>>) {
        let process = self.seats[node].process.as_ref();
        let Some(number) = process.and_then(|process| process.followers.get(&name).copied()) else { return };
        let Some(stream) = self.streams.get(number) else { return };
        let largest = frames.iter().map(|frame| frame.size()).max().unwrap_or(0);
        stream.unsent += frames.iter().map(|frame| frame.size()).sum::<usize>();
        let unsent = stream.unsent;
        let mut follows = true;
        for frame in &frames {
            follows &= frame.after <= stream.handed && frame.version > stream.handed;
            stream.handed = frame.version;
        }
        if !stream.dead && !stream.reset {
            stream.queue.extend(frames);
        }
        if !follows {
            self.object(
                Rule::Prefix,
                format!("node {node} sends a frame that does not follow the one before"),
            );
        }
        if unsent > SEND_WINDOW + largest {
            self.object(
                Rule::Bounded,
                format!("{unsent} bytes wait at node {node} to be sent to one follower"),
            );
        }
        if unsent > SEND_WINDOW / 2 {
            self.count("follower half a window behind");
        }
        self.pump(number);
    }

    /// Puts frames on the wire as long as the transport takes them.
    pub(super) fn pump(&mut self, number: u64) {
        let now = self.now();
        let Some(stream) = self.streams.get(number) else { return };
        let (from, to) = (stream.upstream, stream.follower);
        if stream.dead || self.is_blocked(from, to) {
            return;
        }
        loop {
            let Some(stream) = self.streams.get(number).filter(|stream| stream.in_flight < TRANSPORT_BUFFER)
            else {
                return;
            };
            let Some(frame) = stream.queue.pop_front() else { return };
            let bytes = frame.size();
            stream.in_flight += bytes;
            stream.on_the_way.push_back(frame);
            let link = self.network.link(from, to);
            link.free = link.free.max(now) + Time::from_micros(bytes as u64 / link.bandwidth);
            let sent = link.free - now;
            self.arrives(from, sent, Arrival::Sent { stream: number, bytes });
            let delay = sent + self.delay(from, to);
            self.reliably(from, to, delay, AtStream::Frame(number));
        }
    }

    /// The transport has taken bytes of an upstream.
    pub(super) fn was_sent(&mut self, number: u64, bytes: usize) -> Option<Event> {
        let stream = self.streams.get(number)?;
        stream.unsent = stream.unsent.saturating_sub(bytes);
        stream.up.map(|stream| Event::Sent { stream, bytes })
    }

    /// Moves a frame into the receive buffer.
    pub(super) fn arrive(&mut self, number: u64) {
        if let Some(stream) = self.streams.get(number)
            && let Some(frame) = stream.on_the_way.pop_front()
            && stream.down.is_some()
        {
            stream.arrived.push_back(frame);
        }
    }

    /// The next frame that the follower may read by the credit it has, if there is one.
    pub(super) fn read_frame(&mut self, number: u64) -> Option<Event> {
        let stream = self.streams.get(number)?;
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
        Some(Event::Received { stream: name, frame })
    }

    /// The core gives credit.
    pub(super) fn credit(&mut self, node: usize, name: StreamId, bytes: usize) {
        let process = self.seats[node].process.as_ref();
        let Some(number) = process.and_then(|process| process.upstreams.get(&name).copied()) else { return };
        let Some(stream) = self.streams.get(number) else { return };
        match stream.outstanding.checked_sub(bytes) {
            Some(outstanding) => stream.outstanding = outstanding,
            None => {
                return self
                    .object(Rule::Bounded, format!("node {node} gives credit for more than it received"));
            }
        }
        self.arrives(node, Time::ZERO, Arrival::Readable { stream: number });
    }
}
