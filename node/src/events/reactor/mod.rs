//! The reactors: threads, one a core, that hold the streams of plain HTTP/1.1 connections.
//!
//! ```text
//! hub ─▶ an inbox a reactor (Tell) ─▶ streams.rs: who hears of it ─▶ one write a stream
//! takeover (server) ─▶ hub: settle ─▶ one of the reactors with the fewest streams
//! ```
//!
//! A stream with nothing to do costs a small record here and its socket: no task, no parser, no buffer. What the hub
//! tells goes to every reactor that has somebody for it, in the same order, the coming of a stream included, so a stream
//! hears of exactly what comes after it was settled. Of the reactors with few streams, one that has readers of the
//! stream's spaces already gets it: so a message in a small space wakes one thread, not all.

mod shard;
mod stream;
mod streams;
mod waiting;

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    io,
    num::NonZero,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use self::shard::{Command, Inbox, Shard};
pub use self::{stream::Reader, streams::Told};
use crate::ids::{AccountId, SessionId, SpaceId};

/// A ping goes to one in so many of the streams at a time.
pub const PING_SLOTS: usize = 15;
/// No more reactors than this: beyond it the system is the limit.
const MAX_REACTORS: usize = 32;
/// How many streams more than another a reactor may get for the sake of its readers' company: so many, or a 32nd of what
/// the other has.
const UNEVEN: usize = 8;
/// Of how many of a stream's spaces it is looked who has readers.
const SPACES_LOOKED_AT: usize = 16;

/// Called with the streams that have gone.
pub type Departures = Arc<dyn Fn(Vec<(AccountId, SessionId)>) + Send + Sync>;

/// What the hub tells all reactors.
#[derive(Debug, Clone)]
pub enum Tell {
    /// Something happened.
    Event(Told),
    /// Something that is not kept, for the streams in some spaces, each once.
    Ephemeral {
        /// As it goes over the wire.
        wire: Bytes,
        /// Whose followers hear of it.
        spaces: Arc<[SpaceId]>,
        /// The account that does not: it is what the event is about.
        about: AccountId,
        /// Spaces with more streams are passed over.
        most: usize,
    },
    /// An account's spaces are these now.
    Follow {
        /// Whose.
        account: AccountId,
        /// All of them.
        spaces: Arc<BTreeSet<SpaceId>>,
    },
    /// A session is over.
    Ended {
        /// Whose.
        account: AccountId,
        /// Which.
        session: SessionId,
        /// The last event.
        last: Bytes,
    },
    /// All streams end, each with one of these.
    EndAll {
        /// The last events.
        last: Arc<[Bytes]>,
    },
    /// A sign of life, for one in [`PING_SLOTS`] of the streams.
    Ping(Bytes),
}

/// A stream that moves to a reactor.
pub struct Settling {
    /// Its connection, not blocking.
    pub tcp: std::net::TcpStream,
    /// The connection's place among those that the node takes.
    pub place: OwnedSemaphorePermit,
    /// Who reads it.
    pub reader: Reader,
    /// The spaces that its account follows.
    pub spaces: BTreeSet<SpaceId>,
    /// What waits for it.
    pub first: Vec<Bytes>,
    /// Whether it ends after that.
    pub ended: bool,
}

/// The reactors, which start when the first stream comes.
pub struct Reactors {
    departures: Departures,
    room: Arc<Notify>,
    delivered: Arc<AtomicU64>,
    running: OnceLock<Vec<Reactor>>,
}

struct Reactor {
    inbox: Arc<Inbox>,
    streams: Arc<AtomicUsize>,
}

impl Drop for Reactor {
    /// Its thread would go on for ever: it holds the inbox too.
    fn drop(&mut self) {
        self.inbox.push(Command::Stop);
    }
}

impl Reactor {
    fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }
}

impl Reactors {
    /// Reactors that tell `departures` of streams that have gone.
    pub fn new(departures: Departures) -> Self {
        Self { departures, room: Arc::default(), delivered: Arc::default(), running: OnceLock::new() }
    }

    fn all(&self) -> &[Reactor] {
        self.running.get().map_or(&[], Vec::as_slice)
    }

    /// Makes sure that they run.
    ///
    /// # Errors
    /// When the system lacks descriptors or threads.
    pub fn start(&self) -> io::Result<()> {
        if self.running.get().is_some() {
            return Ok(());
        }
        let count = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_REACTORS);
        self.start_each(count, |number| self.start_one(number))
    }

    /// Starts `count` of them, or none.
    fn start_each(&self, count: usize, start: impl FnMut(usize) -> io::Result<Reactor>) -> io::Result<()> {
        let reactors = (0..count).map(start).collect::<io::Result<_>>()?;
        // If somebody else was faster, these are dropped, and end.
        let _ = self.running.set(reactors);
        Ok(())
    }

    fn start_one(&self, number: usize) -> io::Result<Reactor> {
        let streams = Arc::<AtomicUsize>::default();
        let (counted, departures) = (Arc::clone(&streams), Arc::clone(&self.departures));
        let departures: Departures = Arc::new(move |gone: Vec<_>| {
            counted.fetch_sub(gone.len(), Ordering::Relaxed);
            departures(gone);
        });
        let (room, delivered) = (Arc::clone(&self.room), Arc::clone(&self.delivered));
        let (shard, inbox) = Shard::new(number.to_string(), room, departures, delivered)?;
        thread::Builder::new().name(format!("streams-{number}")).spawn(move || shard.run())?;
        Ok(Reactor { inbox, streams })
    }

    /// Gives a stream to a reactor that has few, with readers of the same spaces if possible; `false` when there is none
    /// left.
    pub fn add(&self, settling: Settling) -> bool {
        let living = || self.all().iter().filter(|reactor| !reactor.inbox.is_dead());
        let Some(fewest) = living().map(Reactor::streams).min() else { return false };
        let limit = fewest + UNEVEN.max(fewest / 32);
        let company = |reactor: &Reactor| {
            let shared = reactor.inbox.follows(settling.spaces.iter().take(SPACES_LOOKED_AT));
            (shared, Reverse(reactor.streams()))
        };
        let few = living().filter(|reactor| reactor.streams() <= limit);
        let Some(reactor) = few.max_by_key(|reactor| company(reactor)) else { return false };
        reactor.streams.fetch_add(1, Ordering::Relaxed);
        reactor.inbox.push(Command::Add(Box::new(settling)));
        true
    }

    /// Whether a settled stream follows the space, perhaps.
    pub fn follow(&self, space: SpaceId) -> bool {
        self.all().iter().any(|reactor| reactor.inbox.follows([&space]) > 0)
    }

    /// How many events they have given to streams so far.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Tells all.
    pub fn tell(&self, tell: &Tell) {
        self.each(|| Command::Tell(tell.clone()));
    }

    /// Cuts all streams off.
    pub fn cut(&self) {
        self.each(|| Command::Cut);
    }

    fn each(&self, command: impl Fn() -> Command) {
        for reactor in self.all() {
            reactor.inbox.push(command());
        }
    }

    /// Whether one is so far behind that there should be nothing more for it now.
    pub fn is_full(&self) -> bool {
        self.all().iter().any(|reactor| reactor.inbox.is_full())
    }

    /// Rings when a reactor that was full is not any more.
    pub fn room(&self) -> Arc<Notify> {
        Arc::clone(&self.room)
    }
}

#[cfg(test)]
impl Reactors {
    /// A single one, and its thread, which does not run yet.
    pub fn held_up() -> (Self, impl FnOnce()) {
        let reactors = Self::new(Arc::new(|_| {}));
        let (room, delivered) = (Arc::clone(&reactors.room), Arc::clone(&reactors.delivered));
        let (shard, inbox) = Shard::new("test".into(), room, Arc::new(|_| {}), delivered).expect("a reactor");
        assert!(reactors.running.set(vec![Reactor { inbox, streams: Arc::default() }]).is_ok());
        (reactors, || shard.run())
    }
}
