//! What the threads share while they run, and what each of them has found in the end.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;

/// The longest time that is told apart, in microseconds.
const LONGEST: u64 = 600_000_000;

/// Times in microseconds.
pub(super) type Times = Histogram<u64>;

/// An empty collection of times.
pub(super) fn times() -> Times {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are in order and the precision is possible")
}

/// What the threads share.
#[derive(Debug)]
pub(super) struct Board {
    /// Streams that are there.
    pub(super) live: AtomicU64,
    /// Messages that came to a client.
    pub(super) delivered: AtomicU64,
    /// By thread: from the post of a message until a client had it, since somebody took it.
    pub(super) latency: Vec<Mutex<Times>>,
    /// Messages posted from this moment on are measured; at first that is never.
    pub(super) measures_from: AtomicU64,
    /// When a server was killed, in microseconds since 1970; 0 before.
    pub(super) killed: AtomicU64,
    /// Bytes of an event as it comes over the wire; 0 until one has come.
    pub(super) event_bytes: AtomicU64,
    /// How many messages of each space have been given numbers.
    pub(super) posted: Vec<AtomicU32>,
    /// Messages, by space and number, that nobody knows of whether they were accepted.
    pub(super) unsure: Mutex<HashSet<(usize, u32)>>,
    /// Nothing more is posted.
    pub(super) ends: AtomicBool,
    /// By thread: clients that have not got everything.
    pub(super) behind: Vec<AtomicU64>,
    /// It is over.
    pub(super) stop: AtomicBool,
}

impl Board {
    pub(super) fn new(spaces: usize, threads: usize) -> Self {
        Self {
            live: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            latency: (0..threads).map(|_| Mutex::new(times())).collect(),
            measures_from: AtomicU64::new(u64::MAX),
            killed: AtomicU64::new(0),
            event_bytes: AtomicU64::new(0),
            posted: (0..spaces).map(|_| AtomicU32::new(0)).collect(),
            unsure: Mutex::default(),
            ends: AtomicBool::new(false),
            behind: (0..threads).map(|_| AtomicU64::new(u64::MAX)).collect(),
            stop: AtomicBool::new(false),
        }
    }
}

impl Board {
    /// How long messages took since this was last asked.
    pub(super) fn take_latency(&self) -> Times {
        let mut all = times();
        for one in &self.latency {
            let mut one = one.lock().unwrap_or_else(PoisonError::into_inner);
            all.add(&*one).expect("all have the same bounds");
            one.reset();
        }
        all
    }

    /// How many clients have not got everything; meaningless until messages have ended.
    pub(super) fn behind(&self) -> u64 {
        self.behind.iter().map(|behind| behind.load(Relaxed)).fold(0, u64::saturating_add)
    }

    /// Says whether more messages are posted. The threads count who is behind only when there are none.
    pub(super) fn set_ended(&self, ended: bool) {
        for behind in &self.behind {
            behind.store(u64::MAX, Relaxed);
        }
        self.ends.store(ended, Relaxed);
    }
}

/// What a thread has found.
#[derive(Debug)]
pub(super) struct Reading {
    /// From the beginning of a first connection until its stream was there.
    pub(super) connected: Times,
    /// From the loss of a stream until the next one was there.
    pub(super) resumed: Times,
    /// The same for streams that were closed on purpose.
    pub(super) returned: Times,
    /// From the death of a server until a client that it took with it had its next stream.
    pub(super) survived: Times,
    /// Streams that were lost.
    pub(super) lost: u64,
    /// Connections that did not come to a stream.
    pub(super) failed: u64,
    /// Answers other than 200.
    pub(super) refused: BTreeMap<u16, u64>,
    pub(super) goodbyes: u64,
    pub(super) resets: u64,
    /// Messages that came to a client twice.
    pub(super) doubles: u64,
    /// Messages that did not come to a client.
    pub(super) gaps: u64,
    pub(super) clients_with_gaps: u64,
    /// When the last message came.
    pub(super) last: u64,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            connected: times(),
            resumed: times(),
            returned: times(),
            survived: times(),
            lost: 0,
            failed: 0,
            refused: BTreeMap::new(),
            goodbyes: 0,
            resets: 0,
            doubles: 0,
            gaps: 0,
            clients_with_gaps: 0,
            last: 0,
        }
    }
}

impl Reading {
    /// Adds what another thread has found.
    pub(super) fn add(&mut self, other: Self) {
        let pairs = [
            (&mut self.survived, &other.survived),
            (&mut self.connected, &other.connected),
            (&mut self.resumed, &other.resumed),
            (&mut self.returned, &other.returned),
        ];
        for (mine, theirs) in pairs {
            mine.add(theirs).expect("all have the same bounds");
        }
        for (status, count) in other.refused {
            *self.refused.entry(status).or_default() += count;
        }
        let counts = [
            (&mut self.lost, other.lost),
            (&mut self.failed, other.failed),
            (&mut self.goodbyes, other.goodbyes),
            (&mut self.resets, other.resets),
            (&mut self.doubles, other.doubles),
            (&mut self.gaps, other.gaps),
            (&mut self.clients_with_gaps, other.clients_with_gaps),
        ];
        for (mine, theirs) in counts {
            *mine += theirs;
        }
        self.last = self.last.max(other.last);
    }
}
