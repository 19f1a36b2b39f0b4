//! Streams of frames between nodes. Frames go into a bounded transport buffer at the pace of the wire; the reader
//! empties it only while it has credit.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use mychat_replication::{
    log::{Frame, SiteId, codec},
    protocol::{RECEIVE_WINDOW, SEND_WINDOW, StreamId},
};

use super::{
    network::AtStream,
    oracle::Rule,
    world::{AtNode, Time, World},
};

/// Bytes of a stream that are on their way or unread at the other end.
const TRANSPORT_BUFFER: usize = 512 << 10;
/// Bytes that a wire carries in a microsecond.
const BANDWIDTH: u64 = 10;

#[derive(Debug)]
pub struct Stream {
    pub follower: usize,
    pub upstream: usize,
    epoch: u64,
    pub site: SiteId,
    pub after: u64,
    /// The follower's name for it; `None` once it has stopped.
    down: Option<StreamId>,
    /// The upstream's name for it; `None` before it has heard of it and once it has closed.
    up: Option<StreamId>,
    /// The connection is gone, whether or not the nodes know.
    dead: bool,
    reset: bool,
    queue: VecDeque<Arc<Frame>>,
    in_flight: usize,
    on_the_way: VecDeque<Vec<u8>>,
    arrived: VecDeque<Vec<u8>>,
    last_arrival: Time,
    /// Bytes that were handed to the core beyond the credit that it gave.
    outstanding: usize,
    /// The judge's own count: handed over by `Send` and not yet reported as sent.
    unsent: usize,
    /// The version that what was handed over so far ends with.
    handed: u64,
}

#[derive(Debug, Default)]
pub struct Streams {
    streams: BTreeMap<u64, Stream>,
    next: u64,
}

impl Streams {
    /// The streams of a connection die with it.
    pub fn die(&mut self, follower: usize, upstream: usize, epoch: u64) -> Vec<u64> {
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
    pub fn arrives(&mut self, message: AtStream, at: Time) -> Option<Time> {
        let stream = self.streams.get_mut(&message.stream()).filter(|stream| !stream.dead)?;
        if let AtStream::Arrived(_) | AtStream::Closed(_) = message {
            stream.last_arrival = stream.last_arrival.max(at);
            return Some(stream.last_arrival);
        }
        Some(at)
    }

    /// The streams on which a node sends.
    pub fn sent_by(&self, upstream: usize) -> Vec<u64> {
        let of_it = self.streams.iter().filter(|(_, stream)| stream.upstream == upstream);
        of_it.map(|(number, _)| *number).collect()
    }

    pub fn get(&mut self, number: u64) -> Option<&mut Stream> {
        self.streams.get_mut(&number)
    }

    /// Nobody knows of it any more.
    fn tidy(&mut self) {
        self.streams.retain(|_, stream| {
            stream.down.is_some() || stream.up.is_some() || !(stream.dead || stream.reset)
        });
    }
}

impl World {
    /// `from` asks `to` for a log.
    pub fn open_stream(&mut self, from: usize, to: usize, name: StreamId, site: SiteId, after: u64) {
        self.network.streams.tidy();
        let Some(process) = &mut self.nodes[from].process else { return };
        let epoch = process.up.get(&to).copied();
        let link = self.network.link(from, to);
        let dead = epoch.is_none_or(|epoch| !link.up || link.epoch != epoch);
        let streams = &mut self.network.streams;
        streams.next += 1;
        let number = streams.next;
        let stream = Stream {
            follower: from,
            upstream: to,
            epoch: epoch.unwrap_or_default(),
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
        };
        streams.streams.insert(number, stream);
        process.upstreams.insert(name, number);
        let delay = self.delay(from, to);
        self.reliably(from, to, delay, AtStream::Opened(number));
    }

    /// The upstream hears that a stream was opened; gives its name for it, who follows, and what is asked for.
    pub fn was_opened(&mut self, node: usize, number: u64) -> Option<(StreamId, usize, SiteId, u64)> {
        let stream = self.network.streams.get(number).filter(|stream| !stream.reset && !stream.dead)?;
        let process = self.nodes[node].process.as_mut()?;
        process.next_follower += 1;
        let name = StreamId(process.next_follower);
        process.followers.insert(name, number);
        stream.up = Some(name);
        Some((name, stream.follower, stream.site, stream.after))
    }

    /// The follower stops reading.
    pub fn stop_following(&mut self, node: usize, name: StreamId) {
        let process = self.nodes[node].process.as_mut();
        let Some(number) = process.and_then(|process| process.upstreams.remove(&name)) else { return };
        let Some(stream) = self.network.streams.get(number) else { return };
        stream.down = None;
        stream.arrived.clear();
        let upstream = stream.upstream;
        let delay = self.delay(node, upstream);
        self.reliably(node, upstream, delay, AtStream::Reset(number));
    }

    /// The upstream closes.
    pub fn close_follower(&mut self, node: usize, name: StreamId) {
        let process = self.nodes[node].process.as_mut();
        let Some(number) = process.and_then(|process| process.followers.remove(&name)) else { return };
        let Some(stream) = self.network.streams.get(number) else { return };
        stream.up = None;
        stream.queue.clear();
        let follower = stream.follower;
        let delay = self.delay(node, follower);
        self.reliably(node, follower, delay, AtStream::Closed(number));
    }

    /// The upstream hears that the follower has gone. Gives its name for the stream if it still had it open.
    pub fn was_reset(&mut self, node: usize, number: u64) -> Option<StreamId> {
        let stream = self.network.streams.get(number)?;
        stream.reset = true;
        stream.queue.clear();
        let name = stream.up.take()?;
        self.nodes[node].process.as_mut()?.followers.remove(&name);
        Some(name)
    }

    /// The follower hears that the upstream has closed.
    pub fn was_closed(&mut self, node: usize, number: u64) -> Option<StreamId> {
        let name = self.network.streams.get(number)?.down.take()?;
        self.nodes[node].process.as_mut()?.upstreams.remove(&name);
        Some(name)
    }

    /// The names of the streams on which `node` follows `peer` over a connection that it now knows to be gone.
    pub fn dead_upstreams(&mut self, node: usize, peer: usize, epoch: u64) -> Vec<StreamId> {
        let mut names = Vec::new();
        for stream in self.network.streams.streams.values_mut() {
            if (stream.follower, stream.upstream, stream.epoch) == (node, peer, epoch) {
                stream.dead = true;
                names.extend(stream.down.take());
            }
        }
        if let Some(process) = &mut self.nodes[node].process {
            process.upstreams.retain(|name, _| !names.contains(name));
        }
        names
    }

    /// The process of `node` is gone, and with it its ends of all streams.
    pub fn forget_streams(&mut self, node: usize) {
        for stream in self.network.streams.streams.values_mut() {
            if stream.follower == node {
                stream.down = None;
            }
            if stream.upstream == node {
                (stream.up, stream.reset) = (None, true);
            }
        }
    }

    /// The core hands frames over; judged by the bound of what may wait (I7) and the order (I3).
    pub fn send(&mut self, node: usize, name: StreamId, frames: Vec<Arc<Frame>>) {
        let process = self.nodes[node].process.as_ref();
        let Some(number) = process.and_then(|process| process.followers.get(&name).copied()) else { return };
        let Some(stream) = self.network.streams.get(number) else { return };
        let largest = frames.iter().map(|frame| frame.size()).max().unwrap_or(0);
        stream.unsent += frames.iter().map(|frame| frame.size()).sum::<usize>();
        let unsent = stream.unsent;
        let mut follows = true;
        for frame in &frames {
            follows &= frame.after.0 <= stream.handed && frame.version.0 > stream.handed;
            stream.handed = frame.version.0;
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
        self.pump(number);
    }

    /// Puts frames on the wire as long as the transport takes them.
    pub fn pump(&mut self, number: u64) {
        let now = self.now;
        let Some(stream) = self.network.streams.get(number) else { return };
        let (from, to) = (stream.upstream, stream.follower);
        if stream.dead || self.is_blocked(from, to) {
            return;
        }
        loop {
            let Some(stream) =
                self.network.streams.get(number).filter(|stream| stream.in_flight < TRANSPORT_BUFFER)
            else {
                return;
            };
            let Some(frame) = stream.queue.pop_front() else { return };
            let bytes = frame.size();
            stream.in_flight += bytes;
            match codec::encode(&frame) {
                Ok(encoded) => stream.on_the_way.push_back(encoded),
                Err(error) => return self.object(Rule::Panic, format!("a frame can't be encoded: {error}")),
            }
            let link = self.network.link(from, to);
            link.free = link.free.max(now) + Time::from_micros(bytes as u64 / BANDWIDTH);
            let sent = link.free - now;
            self.later(from, sent, AtNode::Sent { stream: number, bytes });
            let delay = sent + self.delay(from, to);
            self.reliably(from, to, delay, AtStream::Arrived(number));
        }
    }

    /// The transport has taken bytes; gives the upstream's name for the stream.
    pub fn was_sent(&mut self, number: u64, bytes: usize) -> Option<StreamId> {
        let stream = self.network.streams.get(number)?;
        stream.unsent = stream.unsent.saturating_sub(bytes);
        stream.up
    }

    /// Moves a frame into the receive buffer.
    pub fn arrive(&mut self, number: u64) {
        if let Some(stream) = self.network.streams.get(number)
            && let Some(encoded) = stream.on_the_way.pop_front()
            && stream.down.is_some()
        {
            stream.arrived.push_back(encoded);
        }
    }

    /// The next frame that the follower may read by the credit it has, if there is one.
    pub fn read_frame(&mut self, number: u64) -> Option<(StreamId, Arc<Frame>)> {
        let stream = self.network.streams.get(number)?;
        let name = stream.down?;
        if stream.outstanding >= RECEIVE_WINDOW {
            if !stream.arrived.is_empty() {
                self.count("reader out of credit");
            }
            return None;
        }
        let encoded = stream.arrived.pop_front()?;
        let frame = match codec::decode(&encoded) {
            Ok(frame) => Arc::new(frame),
            Err(error) => {
                self.object(Rule::Panic, format!("a frame can't be decoded: {error}"));
                return None;
            }
        };
        stream.outstanding += frame.size();
        stream.in_flight = stream.in_flight.saturating_sub(frame.size());
        self.pump(number);
        Some((name, frame))
    }

    /// The core gives credit.
    pub fn credit(&mut self, node: usize, name: StreamId, bytes: usize) {
        let process = self.nodes[node].process.as_ref();
        let Some(number) = process.and_then(|process| process.upstreams.get(&name).copied()) else { return };
        let Some(stream) = self.network.streams.get(number) else { return };
        match stream.outstanding.checked_sub(bytes) {
            Some(outstanding) => stream.outstanding = outstanding,
            None => {
                return self
                    .object(Rule::Bounded, format!("node {node} gives credit for more than it received"));
            }
        }
        self.later(node, Time::ZERO, AtNode::Readable { stream: number });
    }
}
