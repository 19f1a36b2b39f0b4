//! The simulated world: virtual time, one queue of what happens next, and the judges' books.
//!
//! Everything is decided by the seed and happens in the order of (time, number), in one thread.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use mychat_replication::{
    log::{SiteId, VersionVector},
    protocol::{Event, Reading, StreamId},
};

use super::{
    calls::Request,
    chance::Chance,
    clients::{AtClient, Person},
    disk::Templates,
    network::Network,
    node::Node,
    oracle::{Objection, Rule, Verdict, ledger::Ledger},
    plan::{Plan, What},
    trace::Trace,
};

/// Virtual time since the world began.
pub type Time = Duration;

pub const fn millis(millis: u64) -> Time {
    Duration::from_millis(millis)
}

pub const fn seconds(seconds: u64) -> Time {
    Duration::from_secs(seconds)
}

/// How often one of the databases is judged while things go wrong.
const AUDIT_EVERY: Time = seconds(61);
/// How often streams get a sign of life.
const PING: Time = seconds(15);
/// Nodes that may join during a run.
pub const SPARE: usize = 2;

/// Something that happens at a node, unless its process is gone by then.
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
        vector: Arc<VersionVector>,
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
    /// The transport has taken bytes.
    Sent {
        stream: u64,
        bytes: usize,
    },
    ReadLog {
        name: StreamId,
        site: SiteId,
        after: u64,
    },
    /// The disk has done the next thing.
    Disk,
    /// The disk is tried again after it refused.
    Probe,
    /// A process that was to die with its next commit dies without one.
    DiesAnyhow {
        lasts: Time,
    },
    /// A client asks for something.
    Request(Request),
}

/// Something that happens.
#[derive(Debug)]
pub enum Happening {
    Planned(usize),
    At { node: usize, incarnation: u64, event: AtNode },
    AtClient { client: usize, event: AtClient },
    Found,
    Dial { from: usize, to: usize },
    Silence { from: usize, to: usize },
    Unblock { from: usize, to: usize },
    Restart { node: usize },
    MayLeave { node: usize },
    Ping,
    Audit,
    Heal,
    Poll,
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

/// A run under way.
pub struct World {
    pub now: Time,
    pub plan: Plan,
    /// What the network does by chance, what disks do, and everything else.
    pub weather: Chance,
    pub wear: Chance,
    pub chance: Chance,
    pub templates: Arc<Templates>,
    /// Where the databases lie.
    pub folder: PathBuf,
    pub nodes: Vec<Node>,
    pub network: Network,
    pub people: Vec<Person>,
    pub spaces: Vec<mychat_node::ids::SpaceId>,
    pub ledger: Ledger,
    pub counts: Counts,
    pub healed: Option<Time>,
    pub last_busy: Time,
    /// Until then nothing else is judged: see [`World::known_limit`].
    pub limit: bool,
    pub done: bool,
    pub objection: Option<Objection>,
    pub trace: Trace,
    pub verbose: bool,
    queue: BinaryHeap<Reverse<Next>>,
    next_number: u64,
    /// Steps after which a world is taken to go round in circles.
    steps_left: u64,
}

/// What came out of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How often each thing happened.
    pub counts: Counts,
    /// A hash over everything that happened, in its order.
    pub trace: u64,
    /// What was wrong, if anything was.
    pub objection: Option<Objection>,
}

impl World {
    pub fn new(plan: Plan, templates: Arc<Templates>, folder: PathBuf, verbose: bool) -> Self {
        let seed = plan.seed;
        let mut chance = Chance::of(seed, 2);
        Self {
            now: Time::ZERO,
            weather: Chance::of(seed, 3),
            wear: Chance::of(seed, 4),
            templates,
            folder,
            nodes: Vec::new(),
            network: Network::new(plan.nodes + SPARE, &mut chance),
            people: Vec::new(),
            spaces: Vec::new(),
            ledger: Ledger::default(),
            counts: Counts::new(),
            healed: None,
            last_busy: Time::ZERO,
            limit: false,
            done: false,
            objection: None,
            trace: Trace::default(),
            verbose,
            queue: BinaryHeap::new(),
            next_number: 0,
            steps_left: 20_000_000,
            chance,
            plan,
        }
    }

    /// Runs to the end, or to the first objection.
    pub fn run(mut self) -> Outcome {
        self.begin();
        while !self.done && self.objection.is_none() && !self.limit {
            self.step();
        }
        Outcome { counts: self.counts, trace: self.trace.value(), objection: self.objection }
    }

    fn begin(&mut self) {
        self.meet_people();
        for _ in 0..self.plan.nodes {
            self.add_node();
        }
        self.after(seconds(2), Happening::Found);
        self.after(PING, Happening::Ping);
        self.after(AUDIT_EVERY, Happening::Audit);
        let planned: Vec<Time> = self.plan.items.iter().map(|item| item.at).collect();
        for (index, at) in planned.into_iter().enumerate() {
            self.after(at, Happening::Planned(index));
        }
        self.after(self.plan.lasts, Happening::Heal);
    }

    fn step(&mut self) {
        // Ticks go on for ever, so there is always something to come.
        let Some(Reverse(next)) = self.queue.pop() else { return };
        self.now = next.at;
        if self.steps_left == 0 {
            self.object(Rule::Level, "something goes round in circles");
            return;
        }
        self.steps_left -= 1;
        self.trace.number(next.number);
        self.trace.number(next.at.as_micros() as u64);
        match next.happening {
            Happening::Planned(index) => self.planned(index),
            Happening::At { node, incarnation, event } => {
                if self.nodes[node].incarnation == incarnation && self.nodes[node].process.is_some() {
                    self.at_node(node, event);
                }
            }
            Happening::AtClient { client, event } => self.at_client(client, event),
            Happening::Found => self.found(),
            Happening::Dial { from, to } => self.dial(from, to),
            Happening::Silence { from, to } => self.silence(from, to),
            Happening::Unblock { from, to } => self.unblock(from, to),
            Happening::Restart { node } => self.restart(node),
            Happening::MayLeave { node } => self.may_leave(node),
            Happening::Ping => {
                self.ping();
                self.after(PING, Happening::Ping);
            }
            Happening::Audit => {
                let node = self.chance.index(self.nodes.len());
                self.audit(node);
                self.after(AUDIT_EVERY, Happening::Audit);
            }
            Happening::Heal => self.heal(),
            Happening::Poll => self.poll(),
        }
    }

    fn planned(&mut self, index: usize) {
        self.last_busy = self.now;
        let what = self.plan.items[index].what;
        self.say(|_| format!("{what:?}"));
        match what {
            What::Fault(fault) => self.strike(fault),
            What::Deed { client, deed } => self.does(client, deed),
        }
    }

    pub fn after(&mut self, delay: Time, happening: Happening) {
        self.next_number += 1;
        self.queue.push(Reverse(Next { at: self.now + delay, number: self.next_number, happening }));
    }

    /// Something will happen at a node, if its process is still the same.
    pub fn later(&mut self, node: usize, delay: Time, event: AtNode) {
        let incarnation = self.nodes[node].incarnation;
        self.after(delay, Happening::At { node, incarnation, event });
    }

    pub fn count(&mut self, what: &'static str) {
        self.count_by(what, 1);
    }

    pub fn count_by(&mut self, what: &'static str, by: u64) {
        *self.counts.entry(what).or_default() += by;
    }

    pub fn say(&self, what: impl FnOnce(&Self) -> String) {
        if self.verbose {
            println!("{:>12.6} {}", self.now.as_secs_f64(), what(self));
        }
    }

    /// A rule is broken; the first one counts.
    pub fn object(&mut self, rule: Rule, what: impl Into<String>) {
        if self.objection.is_none() {
            let what = what.into();
            self.say(|_| format!("OBJECTION {}: {what}", rule.name()));
            self.objection = Some(Objection { rule, at: self.now, what });
        }
    }

    /// Takes note of what a judge says of a node or client.
    pub fn judge(&mut self, whom: impl FnOnce() -> String, verdict: Verdict) {
        if let Err((rule, what)) = verdict {
            self.object(rule, format!("{}: {what}", whom()));
        }
    }

    /// The run came to a known limit of the protocol, beyond which nothing can be judged.
    pub fn known_limit(&mut self, what: &'static str) {
        self.say(|_| what.to_owned());
        self.count(what);
        self.limit = true;
    }
}
