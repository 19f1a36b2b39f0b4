//! The simulated world: virtual time, one queue of what happens next, and the nodes.
//!
//! Everything is decided by one seeded generator and happens in the order of (time, number), so a seed always gives
//! the same run. [`crate::driver`] turns the core's actions into happenings, [`crate::network`] carries them between
//! nodes, [`crate::faults`] breaks things, and [`crate::audit`] judges.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use mychat_replication::{
    NodeId,
    log::{Retirements, SiteId, VersionVector},
    protocol::{Core, Event, Reading, StreamId},
};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use crate::{disk::Disk, driver::Op, history::History, network::Network};

/// Virtual time since the world began.
pub type Time = Duration;

pub const fn millis(millis: u64) -> Time {
    Duration::from_millis(millis)
}

/// Regions, of which a world has as many as its conditions say.
const REGIONS: &[&str] = &["fra", "iad"];
/// How often one of the disks is judged while things go wrong.
const AUDIT_EVERY: Time = millis(1_000);

/// What kind of world a seed makes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scenario {
    /// Nothing fails.
    pub ideal: bool,
    /// Two regions, and relays between them.
    pub relays: bool,
    /// The first node stops for a while, as by SIGSTOP.
    pub stalled: bool,
    /// The first node is restored from the same copy again and again; nothing else fails.
    pub restores: bool,
}

/// What the seed decided about a world.
#[derive(Debug)]
pub struct Conditions {
    pub nodes: usize,
    pub regions: usize,
    /// With more nodes than this there are relays.
    pub relay_above: usize,
    /// Nothing fails and nothing takes time except the way from one node to another.
    pub ideal: bool,
    /// A node that stops for a while though nothing else fails.
    pub stalled: Option<usize>,
    /// A node that is restored from the same copy again and again, while nothing else fails.
    pub restored: Option<usize>,
    /// How long things go wrong; then everything is healed.
    pub chaos: Time,
    pub fault_every: Time,
    pub write_every: Time,
    pub burst: f64,
    /// The chance that a datagram is lost.
    pub loss: f64,
    pub disk_delay: Time,
    /// How long the news of a commit takes to the core.
    pub news_delay: Time,
    pub tick: Time,
    pub unreadable: f64,
    pub missed_news: f64,
    /// How long a connection survives silence.
    pub idle_timeout: Time,
    /// How long a node takes at the most to notice that a connection is gone.
    pub detection: Time,
}

impl Conditions {
    fn chaotic(rng: &mut Xoshiro256PlusPlus, relays: bool) -> Self {
        fn pick<T: Copy>(rng: &mut Xoshiro256PlusPlus, from: &[T]) -> T {
            from[rng.random_range(0..from.len())]
        }
        Self {
            nodes: if relays { rng.random_range(4..=6) } else { rng.random_range(3..=5) },
            regions: if relays { 2 } else { 1 },
            relay_above: if relays { 3 } else { 100 },
            ideal: false,
            stalled: None,
            restored: None,
            chaos: millis(rng.random_range(4_000..12_000)),
            fault_every: millis(pick(rng, &[300, 700, 1_500])),
            write_every: millis(pick(rng, &[40, 120, 400])),
            burst: pick(rng, &[0.0, 0.01, 0.04]),
            loss: pick(rng, &[0.0, 0.05, 0.3]),
            disk_delay: millis(pick(rng, &[0, 2, 20])),
            news_delay: millis(pick(rng, &[0, 3])),
            tick: millis(pick(rng, &[20, 50, 90])),
            unreadable: pick(rng, &[0.0, 0.05]),
            missed_news: pick(rng, &[0.0, 0.1]),
            idle_timeout: millis(pick(rng, &[800, 2_000])),
            detection: millis(pick(rng, &[50, 800, 3_000])),
        }
    }

    fn ideal(rng: &mut Xoshiro256PlusPlus, relays: bool) -> Self {
        Self {
            ideal: true,
            chaos: millis(6_000),
            write_every: millis(20),
            burst: 0.0,
            loss: 0.0,
            disk_delay: Time::ZERO,
            news_delay: Time::ZERO,
            unreadable: 0.0,
            missed_news: 0.0,
            ..Self::chaotic(rng, relays)
        }
    }
}

/// Something that happens at a node; it waits while the node is paused.
#[derive(Debug)]
pub enum AtNode {
    Core(Event),
    Tick,
    Connected {
        peer: usize,
        epoch: u64,
    },
    Disconnected {
        peer: usize,
        epoch: u64,
    },
    Datagram {
        peer: usize,
        epoch: u64,
        site: SiteId,
        vector: VersionVector,
        reading: Reading,
    },
    /// A peer opened a stream.
    Opened {
        stream: u64,
    },
    /// A frame is in the receive buffer.
    Arrived {
        stream: u64,
    },
    /// The reader has credit again.
    Readable {
        stream: u64,
    },
    /// The peer, which follows, has gone.
    Reset {
        stream: u64,
    },
    /// The peer, which is followed, has closed.
    Closed {
        stream: u64,
    },
    Sent {
        stream: u64,
        bytes: usize,
    },
    ReadLog {
        name: StreamId,
        site: SiteId,
        after: u64,
    },
    /// The next operation of the disk is done.
    Disk,
}

/// Something that happens.
#[derive(Debug)]
pub enum Happening {
    At { node: usize, incarnation: u64, event: AtNode },
    Write { node: usize },
    Dial { from: usize, to: usize },
    Fault,
    Silence { from: usize, to: usize },
    Unblock { from: usize, to: usize },
    Stall { node: usize },
    RestoreAgain { node: usize },
    Resume { node: usize },
    Restart { node: usize, restore: bool },
    Audit,
    Heal,
    Poll,
}

/// A node while its process runs.
pub struct Process {
    pub core: Core,
    pub started: Time,
    /// The peers that it thinks it has a connection to, and which one.
    pub up: BTreeMap<usize, u64>,
    /// Streams on which it follows, by the core's name.
    pub upstreams: BTreeMap<StreamId, u64>,
    /// Streams on which it is followed, by the driver's name. Both kinds of names overlap.
    pub followers: BTreeMap<StreamId, u64>,
    pub next_follower: u64,
    pub operations: VecDeque<Op>,
    pub disk_free: Time,
    pub news_free: Time,
    pub refuses_until: Time,
    pub paused: bool,
    pub inbox: VecDeque<AtNode>,
    pub applying: bool,
    pub reading: BTreeSet<StreamId>,
    /// What the judge knows about its settling.
    pub first_answer: Option<Time>,
    /// A peer told that it holds more of this node's log than its disk.
    pub told_more: bool,
    pub renewing: bool,
    pub renewed: bool,
    pub settled: bool,
}

pub struct Node {
    pub id: NodeId,
    pub region: &'static str,
    pub incarnation: u64,
    pub disk: Disk,
    pub copy: Option<Disk>,
    /// Entries of the last heads that it sent.
    pub told: usize,
    pub process: Option<Process>,
}

struct Next {
    at: Time,
    number: u64,
    happening: Happening,
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Next {}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// How often each kind of thing happened.
pub type Counts = BTreeMap<&'static str, u64>;

pub struct World {
    pub now: Time,
    pub rng: Xoshiro256PlusPlus,
    pub conditions: Conditions,
    pub nodes: Vec<Node>,
    pub network: Network,
    pub history: History,
    /// All that was ever retired.
    pub retired: Retirements,
    pub counts: Counts,
    /// When and by whom a version was committed.
    pub committed: BTreeMap<(SiteId, u64), (Time, usize)>,
    /// How often a version went over to a region, where that is judged.
    pub crossings: BTreeMap<(SiteId, u64, &'static str), u32>,
    pub next_content: u64,
    pub healed: Option<Time>,
    pub epilogue: bool,
    pub level_after: Time,
    pub done: bool,
    queue: BinaryHeap<Reverse<Next>>,
    next_number: u64,
    /// Steps after which a world is taken to go round in circles.
    steps_left: u64,
    trace: DefaultHasher,
    verbose: bool,
}

/// What came out of a run.
pub struct Outcome {
    pub counts: Counts,
    /// How long after everything was healed all nodes were equal.
    pub level_after: Time,
    /// A hash over everything that happened, in its order.
    pub trace: u64,
}

/// Runs the world of a seed to its end; panics when an oracle objects.
pub fn run(seed: u64, Scenario { ideal, relays, stalled, restores }: Scenario, verbose: bool) -> Outcome {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let conditions =
        if ideal { Conditions::ideal(&mut rng, relays) } else { Conditions::chaotic(&mut rng, relays) };
    let conditions =
        Conditions { stalled: stalled.then_some(0), restored: restores.then_some(0), ..conditions };
    let chaos = if restores { millis(20_000) } else { conditions.chaos };
    let conditions = Conditions { chaos, ..conditions };
    let network = Network::new(&conditions, &mut rng);
    let node = |number: usize, rng: &mut Xoshiro256PlusPlus| Node {
        id: NodeId([number as u8; 16]),
        region: REGIONS[number % conditions.regions],
        incarnation: 0,
        disk: Disk::new(SiteId(rng.random())),
        copy: None,
        told: 0,
        process: None,
    };
    let mut world = World {
        now: Time::ZERO,
        nodes: (0..conditions.nodes).map(|number| node(number, &mut rng)).collect(),
        rng,
        conditions,
        network,
        history: History::default(),
        retired: Retirements::default(),
        counts: Counts::new(),
        committed: BTreeMap::new(),
        crossings: BTreeMap::new(),
        next_content: 0,
        healed: None,
        epilogue: false,
        level_after: Time::ZERO,
        done: false,
        queue: BinaryHeap::new(),
        next_number: 0,
        steps_left: 3_000_000,
        trace: DefaultHasher::new(),
        verbose,
    };
    world.say(|world| format!("{:?}", world.conditions));
    world.begin();
    while !world.done {
        world.step();
    }
    Outcome { counts: world.counts, level_after: world.level_after, trace: world.trace.finish() }
}

impl World {
    fn begin(&mut self) {
        for node in 0..self.nodes.len() {
            self.start(node);
            let warm_up = if self.conditions.ideal { millis(2_000) } else { Time::ZERO };
            let first = warm_up + self.upto(self.conditions.write_every * 2);
            self.after(first, Happening::Write { node });
        }
        if let Some(node) = self.conditions.restored {
            self.after(millis(1_500), Happening::RestoreAgain { node });
        } else if !self.conditions.ideal {
            self.after(self.conditions.fault_every, Happening::Fault);
        }
        if let Some(node) = self.conditions.stalled {
            self.after(millis(2_500), Happening::Stall { node });
        }
        self.after(AUDIT_EVERY, Happening::Audit);
        self.after(self.conditions.chaos, Happening::Heal);
    }

    fn step(&mut self) {
        let Reverse(next) = self.queue.pop().expect("a world never runs out of happenings");
        self.now = next.at;
        if self.steps_left == 0 {
            self.objection("something goes round in circles");
        }
        self.steps_left -= 1;
        (next.at, next.number, std::mem::discriminant(&next.happening)).hash(&mut self.trace);
        match next.happening {
            Happening::At { node, incarnation, event } => {
                if self.nodes[node].incarnation != incarnation {
                    return;
                }
                let Some(process) = &mut self.nodes[node].process else { return };
                if process.paused {
                    process.inbox.push_back(event);
                } else {
                    self.at_node(node, event);
                }
            }
            Happening::Write { node } => self.write_now_and_then(node),
            Happening::Dial { from, to } => self.dial(from, to),
            Happening::Fault => self.fault(),
            Happening::Silence { from, to } => self.silence(from, to),
            Happening::Unblock { from, to } => self.unblock(from, to),
            Happening::Stall { node } => self.pause(node, millis(3_000)),
            Happening::RestoreAgain { node } => self.restore_again(node),
            Happening::Resume { node } => self.resume(node),
            Happening::Restart { node, restore } => self.restart(node, restore),
            Happening::Audit => {
                let node = self.rng.random_range(0..self.nodes.len());
                self.audit(node, false);
                self.after(AUDIT_EVERY, Happening::Audit);
            }
            Happening::Heal => self.heal(),
            Happening::Poll => self.poll(),
        }
    }

    pub fn after(&mut self, delay: Time, happening: Happening) {
        self.next_number += 1;
        self.queue.push(Reverse(Next { at: self.now + delay, number: self.next_number, happening }));
    }

    pub fn later(&mut self, node: usize, delay: Time, event: AtNode) {
        let incarnation = self.nodes[node].incarnation;
        self.after(delay, Happening::At { node, incarnation, event });
    }

    pub fn process(&mut self, node: usize) -> Option<&mut Process> {
        self.nodes[node].process.as_mut()
    }

    /// A random time up to `most`.
    pub fn upto(&mut self, most: Time) -> Time {
        if most.is_zero() {
            most
        } else {
            Duration::from_nanos(self.rng.random_range(0..=most.as_nanos() as u64))
        }
    }

    pub fn count(&mut self, what: &'static str) {
        self.count_by(what, 1);
    }

    pub fn count_by(&mut self, what: &'static str, by: u64) {
        *self.counts.entry(what).or_default() += by;
    }

    /// Takes note of a detail for the hash of the trace.
    pub fn trace(&mut self, detail: impl Hash) {
        detail.hash(&mut self.trace);
    }

    pub fn say(&self, what: impl FnOnce(&Self) -> String) {
        if self.verbose {
            println!("{:>12.6} {}", self.now.as_secs_f64(), what(self));
        }
    }

    /// An invariant is broken.
    pub fn objection(&self, what: &str) -> ! {
        panic!("at {:.6} s: {what}\n{}", self.now.as_secs_f64(), self.describe());
    }
}
