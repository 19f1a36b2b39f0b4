//! The simulated world: what happens in it beside the protocol, and the judges' books.
//!
//! Everything is decided by the seed and happens in one thread.

use std::{path::PathBuf, sync::Arc};

use mychat_replication::{
    log::{SiteId, Version},
    protocol::StreamId,
};

use super::{
    calls::Request,
    clients::{AtClient, Person},
    disk::Templates,
    node::Node,
    oracle::{Verdict, ledger::Ledger},
    plan::{Plan, What},
};
use crate::virtual_time::{
    Chance, Counts, Driver, Manner, Network, Objection, Stage, Step, Time, millis, seconds,
};

/// How often one of the databases is judged while things go wrong.
const AUDIT_EVERY: Time = seconds(61);
/// How often streams get a sign of life.
const PING: Time = seconds(15);
/// Nodes that may join during a run.
pub const SPARE: usize = 2;

/// Something that happens at a node, unless its process is gone by then.
#[derive(Debug)]
pub enum AtNode {
    Tick,
    /// The site id could not be renewed, and is to be now.
    Renew,
    ReadLog {
        name: StreamId,
        site: SiteId,
        after: Version,
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
    AtClient { client: usize, event: AtClient },
    Found,
    Restart { node: usize },
    MayLeave { node: usize },
    Ping,
    Audit,
    Heal,
    Poll,
}

/// How connections end and begin.
const MANNER: Manner = Manner { idle: seconds(3), notices: millis(800), redials: seconds(1) };

/// A run under way.
pub struct World {
    pub stage: Stage<AtNode, Happening>,
    pub plan: Plan,
    /// What disks do by chance.
    pub wear: Chance,
    /// What becomes of machines and witnesses by chance.
    pub fate: Chance,
    pub templates: Arc<Templates>,
    /// Where the databases lie.
    pub folder: PathBuf,
    pub nodes: Vec<Node>,
    pub people: Vec<Person>,
    pub spaces: Vec<mychat_node::ids::SpaceId>,
    pub ledger: Ledger,
    pub healed: Option<Time>,
    pub last_busy: Time,
    pub done: bool,
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
        let network = Network::new(plan.nodes + SPARE, &mut chance, MANNER, Chance::of(seed, 3));
        Self {
            stage: Stage::new(chance, network, verbose),
            wear: Chance::of(seed, 4),
            fate: Chance::of(seed, 5),
            templates,
            folder,
            nodes: Vec::new(),
            people: Vec::new(),
            spaces: Vec::new(),
            ledger: Ledger::default(),
            healed: None,
            last_busy: Time::ZERO,
            done: false,
            plan,
        }
    }

    /// Runs to the end, or to the first objection.
    pub fn run(mut self) -> Outcome {
        self.begin();
        while !self.done && self.stage.objection.is_none() {
            match self.stage.step() {
                Some(Step::At(number, turn)) => {
                    let node = &self.nodes[number];
                    node.machine.set(self.stage.now(), node.ahead);
                    self.turn(number, turn);
                }
                Some(Step::Own(happening)) => self.happens(happening),
                None => {}
            }
        }
        // What the databases hold by now is asked no more, so nobody has to tidy it up.
        for process in self.nodes.iter_mut().filter_map(|node| node.process.take()) {
            process.worker.kill();
        }
        let Stage { counts, trace, objection, .. } = self.stage;
        Outcome { counts, trace: trace.value(), objection }
    }

    fn begin(&mut self) {
        self.meet_people();
        for _ in 0..self.plan.nodes {
            self.add_node();
        }
        self.stage.after(seconds(2), Happening::Found);
        self.stage.after(PING, Happening::Ping);
        self.stage.after(AUDIT_EVERY, Happening::Audit);
        let planned: Vec<Time> = self.plan.items.iter().map(|item| item.at).collect();
        for (index, at) in planned.into_iter().enumerate() {
            self.stage.after(at, Happening::Planned(index));
        }
        self.stage.after(self.plan.lasts, Happening::Heal);
    }

    /// Something happens in the world.
    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Planned(index) => self.planned(index),
            Happening::AtClient { client, event } => self.at_client(client, event),
            Happening::Found => self.found(),
            Happening::Restart { node } => self.restart(node),
            Happening::MayLeave { node } => self.may_leave(node),
            Happening::Ping => {
                self.ping();
                self.stage.after(PING, Happening::Ping);
            }
            Happening::Audit => {
                let node = self.stage.chance.index(self.nodes.len());
                self.audit(node);
                self.stage.after(AUDIT_EVERY, Happening::Audit);
            }
            Happening::Heal => self.heal(),
            Happening::Poll => self.poll(),
        }
    }

    fn planned(&mut self, index: usize) {
        self.last_busy = self.stage.now();
        let what = self.plan.items[index].what;
        self.stage.say(|| format!("{what:?}"));
        match what {
            What::Fault(fault) => self.strike(fault),
            What::Deed { client, deed } => self.does(client, deed),
        }
    }

    /// Takes note of what a judge says of a node or client.
    pub fn judge(&mut self, whom: impl FnOnce() -> String, verdict: Verdict) {
        if let Err((rule, what)) = verdict {
            self.stage.object(rule, format!("{}: {what}", whom()));
        }
    }
}
