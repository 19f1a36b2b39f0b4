//! The simulated world: what a seed decides about it, the nodes, and what happens beside the protocol.
//!
//! [`crate::driver`] does what the core wants of its disk, [`crate::faults`] breaks things, and [`crate::audit`]
//! judges.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mychat_replication::{
    log::{Retirements, SiteId, Version},
    protocol::StreamId,
};
use mychat_sim::virtual_time::{Chance, Counts, Driver, Manner, Network, Stage, Step, Time, Weather, millis};

use crate::{disk::Disk, driver::Op, history::History};

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
    /// What the network does to everything, to the end.
    pub weather: Weather,
    pub manner: Manner,
    pub disk_delay: Time,
    /// How long the news of a commit takes to the core.
    pub news_delay: Time,
    pub tick: Time,
    pub unreadable: f64,
    pub missed_news: f64,
}

impl Conditions {
    fn chaotic(chance: &mut Chance, relays: bool) -> Self {
        Self {
            nodes: if relays { 4 } else { 3 } + chance.index(3),
            regions: if relays { 2 } else { 1 },
            relay_above: if relays { 3 } else { 100 },
            ideal: false,
            stalled: None,
            restored: None,
            chaos: chance.between(millis(4_000), millis(12_000)),
            fault_every: millis(chance.pick(&[300, 700, 1_500])),
            write_every: millis(chance.pick(&[40, 120, 400])),
            burst: chance.pick(&[0.0, 0.01, 0.04]),
            weather: Weather {
                until: Time::MAX,
                loss: chance.pick(&[0.0, 0.05, 0.3]),
                duplicate: chance.pick(&[0.0, 0.05]),
                jitter: millis(chance.pick(&[0, 30, 150])),
            },
            manner: Manner {
                idle: millis(chance.pick(&[800, 2_000])),
                notices: millis(chance.pick(&[50, 800, 3_000])),
                redials: millis(500),
            },
            disk_delay: millis(chance.pick(&[0, 2, 20])),
            news_delay: millis(chance.pick(&[0, 3])),
            tick: millis(chance.pick(&[20, 50, 90])),
            unreadable: chance.pick(&[0.0, 0.05]),
            missed_news: chance.pick(&[0.0, 0.1]),
        }
    }

    fn ideal(chance: &mut Chance, relays: bool) -> Self {
        Self {
            ideal: true,
            chaos: millis(6_000),
            write_every: millis(20),
            burst: 0.0,
            weather: Weather::default(),
            disk_delay: Time::ZERO,
            news_delay: Time::ZERO,
            unreadable: 0.0,
            missed_news: 0.0,
            ..Self::chaotic(chance, relays)
        }
    }

    /// The network of the seed.
    fn network(&self, chance: &mut Chance, seed: u64) -> Network {
        let mut network = Network::new(self.nodes, chance, self.manner, Chance::of(seed, 3));
        network.weather = self.weather;
        for link in network.links() {
            link.bandwidth = chance.pick(&[1, 10, 100]);
            if self.ideal {
                (link.jitter, link.bandwidth) = (Time::ZERO, u64::MAX);
            }
        }
        network
    }
}

/// Something that happens at a node.
#[derive(Debug)]
pub enum AtNode {
    Tick,
    ReadLog {
        name: StreamId,
        site: SiteId,
        after: Version,
    },
    /// The next operation of the disk is done.
    Disk,
    /// A peer is asked for a snapshot, and may have to be asked again.
    AsksForSnapshot {
        peer: usize,
        tries: u32,
        takes: Time,
    },
    HasSnapshot {
        copy: Box<Disk>,
    },
}

/// Something that happens elsewhere.
#[derive(Debug)]
pub enum Happening {
    Write { node: usize },
    Fault,
    Stall { node: usize },
    RestoreAgain { node: usize },
    Resume { node: usize },
    Restart { node: usize, restore: bool },
    Audit,
    Heal,
    Poll,
}

/// What a node does besides the protocol, while its process runs.
#[derive(Default)]
pub struct Process {
    pub operations: VecDeque<Op>,
    pub disk_free: Time,
    pub news_free: Time,
    pub refuses_until: Time,
    pub applying: bool,
    pub reading: BTreeSet<StreamId>,
    /// The judge's own lists: received of a site on a stream, and not yet on the disk.
    pub unapplied: BTreeMap<(SiteId, StreamId), Vec<(u64, usize)>>,
    /// Whether it is taking a snapshot, and so follows nothing and takes no writes.
    pub snapshot: bool,
    /// What the judge knows about its settling.
    pub renewing: bool,
    pub settled: bool,
}

pub struct Node {
    pub disk: Disk,
    pub copy: Option<Disk>,
    /// The disk went back in time, and its witness shows it: always, where nothing has got hold of the witness too.
    pub in_doubt: bool,
    /// The disk went back in time, and its witness vouches for it all the same.
    pub deceived: bool,
    /// Entries of the last heads that it sent.
    pub told: usize,
    pub process: Option<Process>,
}

pub struct World {
    pub stage: Stage<AtNode, Happening>,
    pub conditions: Conditions,
    pub nodes: Vec<Node>,
    pub history: History,
    /// All that was ever retired.
    pub retired: Retirements,
    /// When and by whom a version was committed.
    pub committed: BTreeMap<(SiteId, u64), (Time, usize)>,
    /// How often a version went over to a region, where that is judged.
    pub crossings: BTreeMap<(SiteId, u64, &'static str), u32>,
    pub next_content: u64,
    pub healed: Option<Time>,
    pub epilogue: bool,
    pub level_after: Time,
    pub done: bool,
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
    let mut chance = Chance::of(seed, 2);
    let conditions =
        if ideal { Conditions::ideal(&mut chance, relays) } else { Conditions::chaotic(&mut chance, relays) };
    let conditions =
        Conditions { stalled: stalled.then_some(0), restored: restores.then_some(0), ..conditions };
    let chaos = if restores { millis(20_000) } else { conditions.chaos };
    let conditions = Conditions { chaos, ..conditions };
    let network = conditions.network(&mut chance, seed);
    let mut world = World {
        stage: Stage::new(chance, network, verbose),
        nodes: Vec::new(),
        conditions,
        history: History::default(),
        retired: Retirements::default(),
        committed: BTreeMap::new(),
        crossings: BTreeMap::new(),
        next_content: 0,
        healed: None,
        epilogue: false,
        level_after: Time::ZERO,
        done: false,
    };
    world.stage.say(|| format!("{:?}", world.conditions));
    world.begin();
    while !world.done {
        match world.stage.step() {
            Some(Step::At(node, turn)) => world.turn(node, turn),
            Some(Step::Own(happening)) => world.happens(happening),
            None => {}
        }
        if let Some(objection) = world.stage.objection.take() {
            world.objection(&objection.what);
        }
    }
    let Stage { counts, trace, .. } = world.stage;
    Outcome { counts, level_after: world.level_after, trace: trace.value() }
}

impl World {
    fn begin(&mut self) {
        for node in 0..self.conditions.nodes {
            let disk = Disk::new(SiteId(self.stage.chance.bytes()));
            self.nodes.push(Node {
                disk,
                copy: None,
                in_doubt: false,
                deceived: false,
                told: 0,
                process: None,
            });
            self.stage.add(REGIONS[node % self.conditions.regions]);
        }
        for node in 0..self.nodes.len() {
            self.start(node);
            let warm_up = if self.conditions.ideal { millis(2_000) } else { Time::ZERO };
            let first = warm_up + self.stage.chance.upto(self.conditions.write_every * 2);
            self.stage.after(first, Happening::Write { node });
        }
        if let Some(node) = self.conditions.restored {
            self.stage.after(millis(1_500), Happening::RestoreAgain { node });
        } else if !self.conditions.ideal {
            self.stage.after(self.conditions.fault_every, Happening::Fault);
        }
        if let Some(node) = self.conditions.stalled {
            self.stage.after(millis(2_500), Happening::Stall { node });
        }
        self.stage.after(AUDIT_EVERY, Happening::Audit);
        self.stage.after(self.conditions.chaos, Happening::Heal);
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Write { node } => self.write_now_and_then(node),
            Happening::Fault => self.fault(),
            Happening::Stall { node } => self.pause(node, millis(3_000)),
            Happening::RestoreAgain { node } => self.restore_again(node),
            Happening::Resume { node } => self.resume(node),
            Happening::Restart { node, restore } => self.restart(node, restore),
            Happening::Audit => {
                let node = self.stage.chance.index(self.nodes.len());
                self.audit(node, false);
                self.stage.after(AUDIT_EVERY, Happening::Audit);
            }
            Happening::Heal => self.heal(),
            Happening::Poll => self.poll(),
        }
    }

    pub fn process(&mut self, node: usize) -> Option<&mut Process> {
        self.nodes[node].process.as_mut()
    }

    /// An invariant is broken.
    pub fn objection(&self, what: &str) -> ! {
        panic!("at {:.6} s: {what}\n{}", self.stage.now().as_secs_f64(), self.describe());
    }
}
