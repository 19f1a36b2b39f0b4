//! The streams of one reactor and what they are told, without the system: whoever drives it supplies the sockets.
//!
//! Events come one after the other and are gathered until [`Streams::pass`]. A space is a *lane*: the streams that
//! follow it, and the gathered events that are about it. To gather an event costs the same for one reader and for ten
//! thousand. A pass goes along the lanes that have something, and gives each of their streams, in one write, all that it
//! has not had: for a stream with one such lane the lane's bytes, put together once for all, else what it is to hear of
//! them in the order of the events. A socket that takes no more gets a queue of its own (`waiting.rs`), which only its
//! reader pays for.

use std::{
    collections::{BTreeSet, HashMap},
    io::{Read, Write},
};

use bytes::{Bytes, BytesMut};
use slab::Slab;

use super::stream::{Reader, Seat, Stream};
use crate::ids::{AccountId, SessionId, SpaceId};

/// Bytes of events that are gathered at most: beyond that a pass comes first, so that no stream gets a larger piece than
/// its queue has room for.
const GATHERED: usize = 256 << 10;

/// The streams of one account; nearly always one.
#[derive(Debug)]
enum Keys {
    One(u32),
    Many(Vec<u32>),
}

impl Keys {
    fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Many(keys) => keys,
        }
    }
}

/// The streams that follow a space.
#[derive(Debug)]
struct Lane {
    space: SpaceId,
    members: Vec<u32>,
    /// Which of the gathered events are about it, in order.
    fresh: Vec<u32>,
}

/// An event that is on its way to the streams.
#[derive(Debug, Clone)]
pub struct Told {
    /// As it goes over the wire.
    pub wire: Bytes,
    /// The space whose followers hear of it.
    pub space: Option<SpaceId>,
    /// The space that it is about, if any.
    pub about: Option<SpaceId>,
    /// Accounts that hear of it besides.
    pub accounts: std::sync::Arc<[AccountId]>,
    /// An account that does not: it is what the event is about.
    pub except: Option<AccountId>,
}

/// The gathered events.
#[derive(Debug, Default)]
struct Gathered {
    events: Vec<(Bytes, Option<AccountId>)>,
    bytes: usize,
    /// The number of the first.
    base: u64,
    /// The lanes that have any.
    lanes: Vec<u32>,
    /// Streams whose account is named by one.
    named: Vec<(u32, u32)>,
    /// Whether one has an exception.
    exceptions: bool,
}

/// All streams of one reactor.
#[derive(Debug)]
pub struct Streams<S> {
    streams: Slab<Stream<S>>,
    lanes: Slab<Lane>,
    lane_of: HashMap<SpaceId, u32>,
    of_account: HashMap<AccountId, Keys>,
    gathered: Gathered,
    over: Vec<u32>,
    delivered: u64,
}

impl<S> Default for Streams<S> {
    fn default() -> Self {
        Self {
            streams: Slab::new(),
            lanes: Slab::new(),
            lane_of: HashMap::new(),
            of_account: HashMap::new(),
            gathered: Gathered::default(),
            over: Vec::new(),
            delivered: 0,
        }
    }
}

impl<S: Write> Streams<S> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// The spaces that they follow.
    pub fn spaces(&self) -> impl ExactSizeIterator<Item = SpaceId> {
        self.lane_of.keys().copied()
    }

    /// Events that were given to streams since the last call.
    pub fn take_delivered(&mut self) -> u64 {
        std::mem::take(&mut self.delivered)
    }

    /// Streams whose sockets take no more at the moment, and the bytes that wait for them.
    pub fn waiting(&self) -> (usize, usize) {
        self.streams
            .iter()
            .filter_map(|(_, stream)| stream.waiting_bytes())
            .fold((0, 0), |(streams, bytes), waiting| (streams + 1, bytes + waiting))
    }

    /// Takes a stream in, which hears of what is told from now on; `first` waits for it already, and it ends after that
    /// if it has `ended`. Its key is the lowest free one.
    pub fn add(
        &mut self,
        socket: S,
        reader: Reader,
        spaces: &BTreeSet<SpaceId>,
        first: &[Bytes],
        ended: bool,
    ) -> u32 {
        let next = self.gathered.base + self.gathered.events.len() as u64;
        let account = reader.account;
        let key = self.streams.insert(Stream::new(socket, reader, next)) as u32;
        match self.of_account.get_mut(&account) {
            None => {
                self.of_account.insert(account, Keys::One(key));
            }
            Some(Keys::Many(keys)) => keys.push(key),
            Some(keys) => *keys = Keys::Many([keys.as_slice(), &[key]].concat()),
        }
        for space in spaces {
            self.join(key, *space);
        }
        let stream = &mut self.streams[key as usize];
        stream.give_all(first);
        if ended {
            stream.end();
        }
        self.note(key);
        key
    }

    /// The stream's socket, if there is such a stream.
    pub fn socket(&mut self, key: u32) -> Option<&mut S> {
        self.streams.get_mut(key as usize).map(|stream| &mut stream.socket)
    }

    /// Gathers an event for those who may hear of it by what they follow now.
    pub fn tell(&mut self, event: &Told) {
        if self.gathered.bytes + event.wire.len() > GATHERED {
            self.pass();
        }
        let index = self.gathered.events.len() as u32;
        let mut heard = false;
        if let Some(lane) = event.space.and_then(|space| self.lane_of.get(&space)) {
            let fresh = &mut self.lanes[*lane as usize].fresh;
            if fresh.is_empty() {
                self.gathered.lanes.push(*lane);
            }
            fresh.push(index);
            heard = true;
        }
        for account in &*event.accounts {
            let keys = self.of_account.get(account).map_or(&[][..], Keys::as_slice);
            for key in keys {
                let stream = &mut self.streams[*key as usize];
                if event.about.is_none_or(|space| stream.reader.wants(space)) {
                    stream.named = true;
                    self.gathered.named.push((*key, index));
                    heard = true;
                }
            }
        }
        if heard {
            self.gathered.bytes += event.wire.len();
            self.gathered.exceptions |= event.except.is_some();
            self.gathered.events.push((event.wire.clone(), event.except));
        }
    }

    /// Gathers an event that is not kept, for those in some spaces but the account it is about, each stream once. Spaces
    /// with more than `most` streams are passed over.
    pub fn tell_some(&mut self, wire: &Bytes, spaces: &[SpaceId], about: AccountId, most: usize) {
        let mut keys = Vec::new();
        for space in spaces {
            let Some(lane) = self.lane_of.get(space) else { continue };
            let members = &self.lanes[*lane as usize].members;
            if members.len() <= most {
                let hears = |key: &&u32| {
                    let reader = &self.streams[**key as usize].reader;
                    reader.account != about && reader.wants(*space)
                };
                keys.extend(members.iter().filter(hears));
            }
        }
        if keys.is_empty() {
            return;
        }
        if self.gathered.bytes + wire.len() > GATHERED {
            self.pass();
        }
        keys.sort_unstable();
        keys.dedup();
        let index = self.gathered.events.len() as u32;
        for key in keys {
            self.streams[key as usize].named = true;
            self.gathered.named.push((key, index));
        }
        self.gathered.bytes += wire.len();
        self.gathered.events.push((wire.clone(), None));
    }

    /// Gives every stream what was gathered for it.
    pub fn pass(&mut self) {
        if self.gathered.events.is_empty() {
            return;
        }
        let end = self.gathered.base + self.gathered.events.len() as u64;
        let lanes = std::mem::take(&mut self.gathered.lanes);
        self.gathered.named.sort_unstable();
        for lane in &lanes {
            self.pass_lane(*lane, lanes.len() == 1, end);
        }
        let named = std::mem::take(&mut self.gathered.named);
        for (key, _) in &named {
            let stream = &mut self.streams[*key as usize];
            stream.named = false;
            if stream.next < end {
                // Its lanes, if they had anything, have been passed: it is in none of them.
                let pieces = pieces(*key, stream, &self.lanes, &self.gathered, &named);
                self.give(*key, &pieces, pieces.len() as u64, end);
            }
        }
        for lane in &lanes {
            self.lanes[*lane as usize].fresh.clear();
        }
        self.gathered = Gathered { base: end, lanes, named, ..Gathered::default() };
        self.gathered.lanes.clear();
        self.gathered.named.clear();
    }

    fn pass_lane(&mut self, lane: u32, alone: bool, end: u64) {
        let fresh = &self.lanes[lane as usize].fresh;
        let whole = match &fresh[..] {
            [only] => self.gathered.events[*only as usize].0.clone(),
            several => {
                let mut whole = BytesMut::new();
                for index in several {
                    whole.extend_from_slice(&self.gathered.events[*index as usize].0);
                }
                whole.freeze()
            }
        };
        let count = fresh.len() as u64;
        let exceptions: BTreeSet<AccountId> = if self.gathered.exceptions {
            fresh.iter().filter_map(|index| self.gathered.events[*index as usize].1).collect()
        } else {
            BTreeSet::new()
        };
        for at in 0..self.lanes[lane as usize].members.len() {
            let key = self.lanes[lane as usize].members[at];
            let stream = &mut self.streams[key as usize];
            if stream.next >= end {
                continue;
            }
            let simple = !stream.named
                && stream.next <= self.gathered.base
                && (alone || !hears_of_others(stream, lane, &self.lanes))
                && !exceptions.contains(&stream.reader.account);
            if simple {
                self.give(key, std::slice::from_ref(&whole), count, end);
            } else {
                let pieces = pieces(key, stream, &self.lanes, &self.gathered, &self.gathered.named);
                self.give(key, &pieces, pieces.len() as u64, end);
            }
        }
    }

    fn give(&mut self, key: u32, pieces: &[Bytes], events: u64, end: u64) {
        let stream = &mut self.streams[key as usize];
        stream.next = end;
        if stream.give_all(pieces) {
            self.delivered += events;
        } else if stream.over {
            self.over.push(key);
        }
    }

    /// An account follows these spaces now.
    pub fn follow(&mut self, account: AccountId, spaces: &BTreeSet<SpaceId>) {
        self.pass();
        for key in self.keys_of(account) {
            let stream = &self.streams[key as usize];
            let left: Vec<Seat> = stream
                .seats
                .iter()
                .filter(|seat| !spaces.contains(&self.lanes[seat.lane as usize].space))
                .copied()
                .collect();
            for seat in left {
                self.leave(key, seat.lane);
            }
            for space in spaces {
                self.join(key, *space);
            }
        }
    }

    /// Ends the streams of a session.
    pub fn end_session(&mut self, account: AccountId, session: SessionId, last: &Bytes) {
        self.pass();
        for key in self.keys_of(account) {
            let stream = &mut self.streams[key as usize];
            if stream.reader.session == session {
                stream.end_with(last);
                self.note(key);
            }
        }
    }

    /// Ends all streams, each with one of these last words in turn.
    pub fn end_all(&mut self, last: &[Bytes]) {
        self.pass();
        for (key, stream) in &mut self.streams {
            if let Some(last) = last.get(key % last.len().max(1)) {
                stream.end_with(last);
            }
            stream.end();
            if stream.over {
                self.over.push(key as u32);
            }
        }
    }

    /// Drops a stream with what waits for it.
    pub fn cut(&mut self, key: u32) {
        if let Some(stream) = self.streams.get_mut(key as usize) {
            stream.over = true;
            self.over.push(key);
        }
    }

    /// Drops all streams with what waits for them.
    pub fn cut_all(&mut self) {
        for (key, stream) in &mut self.streams {
            stream.over = true;
            self.over.push(key as u32);
        }
    }

    /// Gives a sign of life to one in `slots` of the streams.
    pub fn ping(&mut self, slot: usize, slots: usize, ping: &Bytes) {
        self.pass();
        for key in (slot..self.streams.capacity()).step_by(slots.max(1)) {
            if let Some(stream) = self.streams.get_mut(key)
                && !stream.give(ping)
                && stream.over
            {
                self.over.push(key as u32);
            }
        }
    }

    /// The socket takes more.
    pub fn write(&mut self, key: u32) {
        if let Some(stream) = self.streams.get_mut(key as usize) {
            stream.write();
            self.note(key);
        }
    }

    /// Forgets the streams that are over, and gives their sockets.
    pub fn reap(&mut self) -> Vec<(S, Reader)> {
        self.pass();
        let mut over = std::mem::take(&mut self.over);
        over.sort_unstable();
        over.dedup();
        over.into_iter().filter_map(|key| self.remove(key)).collect()
    }

    /// Notes whether a stream is over.
    fn note(&mut self, key: u32) {
        if self.streams.get(key as usize).is_some_and(|stream| stream.over) {
            self.over.push(key);
        }
    }

    fn keys_of(&self, account: AccountId) -> Vec<u32> {
        self.of_account.get(&account).map(|keys| keys.as_slice().to_vec()).unwrap_or_default()
    }

    fn join(&mut self, key: u32, space: SpaceId) {
        let stream = &mut self.streams[key as usize];
        if !stream.reader.wants(space) {
            return;
        }
        let lane = *self.lane_of.entry(space).or_insert_with(|| {
            self.lanes.insert(Lane { space, members: Vec::new(), fresh: Vec::new() }) as u32
        });
        if stream.seats.iter().any(|seat| seat.lane == lane) {
            return;
        }
        let members = &mut self.lanes[lane as usize].members;
        stream.seats.push(Seat { lane, at: members.len() as u32 });
        members.push(key);
    }

    /// Takes a stream out of a lane. Nothing may be gathered meanwhile that it still has to get.
    fn leave(&mut self, key: u32, lane: u32) {
        let seats = &mut self.streams[key as usize].seats;
        let Some(at) = seats.iter().position(|seat| seat.lane == lane) else { return };
        let seat = seats.swap_remove(at);
        let members = &mut self.lanes[lane as usize].members;
        members.swap_remove(seat.at as usize);
        if let Some(moved) = members.get(seat.at as usize).copied() {
            let theirs = self.streams[moved as usize].seats.iter_mut().find(|other| other.lane == lane);
            if let Some(theirs) = theirs {
                theirs.at = seat.at;
            }
        }
        if self.lanes[lane as usize].members.is_empty() {
            let lane = self.lanes.remove(lane as usize);
            self.lane_of.remove(&lane.space);
        }
    }

    fn remove(&mut self, key: u32) -> Option<(S, Reader)> {
        let stream = self.streams.get(key as usize)?;
        let account = stream.reader.account;
        for seat in stream.seats.clone() {
            self.leave(key, seat.lane);
        }
        match self.of_account.get_mut(&account) {
            Some(Keys::Many(keys)) => {
                keys.retain(|other| *other != key);
                if let [last] = keys[..] {
                    self.of_account.insert(account, Keys::One(last));
                }
            }
            _ => {
                self.of_account.remove(&account);
            }
        }
        let stream = self.streams.remove(key as usize);
        Some((stream.socket, stream.reader))
    }
}

impl<S: Read + Write> Streams<S> {
    /// The client has sent something, or has gone.
    pub fn read(&mut self, key: u32, scratch: &mut [u8]) {
        if let Some(stream) = self.streams.get_mut(key as usize) {
            stream.read(scratch);
            self.note(key);
        }
    }
}

/// Whether the stream is in another lane that has gathered events.
fn hears_of_others<S>(stream: &Stream<S>, lane: u32, lanes: &Slab<Lane>) -> bool {
    stream.seats.iter().any(|seat| seat.lane != lane && !lanes[seat.lane as usize].fresh.is_empty())
}

/// What a stream is to hear of the gathered events, in their order.
fn pieces<S>(
    key: u32,
    stream: &Stream<S>,
    lanes: &Slab<Lane>,
    gathered: &Gathered,
    named: &[(u32, u32)],
) -> Vec<Bytes> {
    let mut heard: Vec<u32> = Vec::new();
    for seat in &stream.seats {
        heard.extend_from_slice(&lanes[seat.lane as usize].fresh);
    }
    let first = named.partition_point(|(other, _)| *other < key);
    heard.extend(named[first..].iter().take_while(|(other, _)| *other == key).map(|(_, index)| *index));
    heard.sort_unstable();
    heard.dedup();
    let skipped = stream.next.saturating_sub(gathered.base);
    heard
        .into_iter()
        .filter(|index| u64::from(*index) >= skipped)
        .filter_map(|index| gathered.events.get(index as usize))
        .filter(|(_, except)| *except != Some(stream.reader.account))
        .map(|(wire, _)| wire.clone())
        .collect()
}
