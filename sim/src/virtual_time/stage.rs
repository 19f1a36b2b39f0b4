//! The stage of a world: time, the nodes' cores, the network between them, and the books of what happened.

use std::collections::{BTreeMap, VecDeque};

use mychat_replication::{
    NodeId,
    log::{Retirement, SiteId, Version},
    protocol::{Action, Core, Event, Reading, StreamId},
};

use super::{
    Chance, Network, Objection, Rule, Time, Trace, Turn, driver::Arrival, millis, network::Heads,
    schedule::Schedule, streams::Streams,
};

/// Steps after which a world is taken to go round in circles.
const STEPS: u64 = 20_000_000;

/// How often each kind of thing happened.
pub type Counts = BTreeMap<&'static str, u64>;

/// The id of a node.
#[must_use]
pub const fn id(node: usize) -> NodeId {
    NodeId([node as u8 + 1; 16])
}

/// Something that happens: at a node, unless its process is gone by then; in the network; or elsewhere in the world.
#[derive(Debug)]
pub(super) enum Happening<A, W> {
    At { node: usize, incarnation: u64, turn: Turn<A> },
    Dial { from: usize, to: usize },
    Silence { from: usize, to: usize },
    Unblock { from: usize, to: usize },
    Own(W),
}

/// What happened that is not the network's own matter.
#[derive(Debug)]
pub enum Step<A, W> {
    /// At a node.
    At(usize, Turn<A>),
    /// In the world.
    Own(W),
}

/// A place for a node, whether or not its process runs.
#[derive(Debug)]
pub struct Seat<A> {
    /// Counts its processes.
    incarnation: u64,
    /// The region that it runs in.
    pub region: &'static str,
    /// It will not come back.
    pub left: bool,
    /// What runs.
    pub process: Option<Process<A>>,
}

/// A node's core and connections while its process runs.
#[derive(Debug)]
pub struct Process<A> {
    /// The protocol.
    pub core: Core,
    /// Since when it runs.
    pub started: Time,
    /// The peers that it thinks it has a connection to, and which one.
    pub up: BTreeMap<usize, u64>,
    /// Streams on which it follows, by the core's name.
    pub upstreams: BTreeMap<StreamId, u64>,
    /// Streams on which it is followed, by the driver's name. Both kinds of names overlap.
    pub followers: BTreeMap<StreamId, u64>,
    /// The last name of a follower.
    pub(super) next_follower: u64,
    /// What judges know about its settling: when the first peer said what it knows of this node's log.
    pub answered: Option<Time>,
    /// And whether one knows more of it than the disk has.
    pub told_more: bool,
    /// It stands still, as by SIGSTOP, while things wait.
    pub paused: bool,
    inbox: VecDeque<Turn<A>>,
}

/// Time, the cores, and the network. At nodes also happens `A`, elsewhere in the world `W`.
pub struct Stage<A, W> {
    pub(super) schedule: Schedule<Happening<A, W>>,
    steps_left: u64,
    /// What decides by chance, except what the network does.
    pub chance: Chance,
    /// The network.
    pub network: Network,
    pub(super) streams: Streams,
    /// The nodes.
    pub seats: Vec<Seat<A>>,
    /// What happened so far.
    pub counts: Counts,
    /// The hash over everything that happened.
    pub trace: Trace,
    /// The first rule that was broken.
    pub objection: Option<Objection>,
    verbose: bool,
}

impl<A, W> Stage<A, W> {
    /// An empty stage. Prints what happens if it is to be `verbose`.
    #[must_use]
    pub fn new(chance: Chance, network: Network, verbose: bool) -> Self {
        Self {
            schedule: Schedule::default(),
            steps_left: STEPS,
            chance,
            network,
            streams: Streams::default(),
            seats: Vec::new(),
            counts: Counts::new(),
            trace: Trace::default(),
            objection: None,
            verbose,
        }
    }

    /// Lets the next thing happen, and says what it is unless it is the network's own matter.
    pub fn step(&mut self) -> Option<Step<A, W>> {
        let happening = self.schedule.advance(&mut self.trace)?;
        if self.steps_left == 0 {
            self.object(Rule::Level, "something goes round in circles");
            return None;
        }
        self.steps_left -= 1;
        match happening {
            Happening::At { node, incarnation, turn } => {
                let seat = &mut self.seats[node];
                let process = seat.process.as_mut().filter(|_| seat.incarnation == incarnation)?;
                if !process.paused {
                    return Some(Step::At(node, turn));
                }
                process.inbox.push_back(turn);
            }
            Happening::Dial { from, to } => self.dial(from, to),
            Happening::Silence { from, to } => self.silence(from, to),
            Happening::Unblock { from, to } => self.unblock(from, to),
            Happening::Own(happening) => return Some(Step::Own(happening)),
        }
        None
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.schedule.now()
    }

    /// Something will happen in the world.
    pub fn after(&mut self, delay: Time, happening: W) {
        self.schedule.after(delay, Happening::Own(happening));
    }

    /// Something will happen at a node, if its process is still the same.
    pub fn later(&mut self, node: usize, delay: Time, event: A) {
        self.turn(node, delay, Turn::Own(event));
    }

    /// A node's core will be told of something, if the process is still the same.
    pub fn tell(&mut self, node: usize, delay: Time, event: Event) {
        self.turn(node, delay, Turn::Core(event));
    }

    pub(super) fn arrives(&mut self, node: usize, delay: Time, arrival: Arrival) {
        self.turn(node, delay, Turn::Network(arrival));
    }

    fn turn(&mut self, node: usize, delay: Time, turn: Turn<A>) {
        let incarnation = self.seats[node].incarnation;
        self.schedule.after(delay, Happening::At { node, incarnation, turn });
    }

    /// Something happened.
    pub fn count(&mut self, what: &'static str) {
        self.count_by(what, 1);
    }

    /// Something happened so many times.
    pub fn count_by(&mut self, what: &'static str, by: u64) {
        *self.counts.entry(what).or_default() += by;
    }

    /// Prints what happens, for somebody who watches.
    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>12.6} {}", self.now().as_secs_f64(), what());
        }
    }

    /// A rule is broken; the first one counts.
    pub fn object(&mut self, rule: Rule, what: impl Into<String>) {
        if self.objection.is_none() {
            let what = what.into();
            self.say(|| format!("OBJECTION {}: {what}", rule.name()));
            self.objection = Some(Objection { rule, at: self.now(), what });
        }
    }

    /// A place for one more node.
    pub fn add(&mut self, region: &'static str) {
        self.seats.push(Seat { incarnation: 0, region, left: false, process: None });
    }

    /// All nodes but one.
    pub fn peers_of(&self, node: usize) -> impl Iterator<Item = usize> + use<A, W> {
        (0..self.seats.len()).filter(move |peer| *peer != node)
    }

    /// The process of a node, if it runs.
    pub fn process(&mut self, node: usize) -> Option<&mut Process<A>> {
        self.seats[node].process.as_mut()
    }

    /// The process of a node starts.
    pub fn start(&mut self, node: usize, core: Core) {
        self.seats[node].process = Some(Process {
            core,
            started: self.now(),
            up: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            followers: BTreeMap::new(),
            next_follower: 0,
            answered: None,
            told_more: false,
            paused: false,
            inbox: VecDeque::new(),
        });
    }

    /// It looks for its peers, and they for it.
    pub fn meet(&mut self, node: usize) {
        for peer in self.peers_of(node) {
            for (from, to) in [(node, peer), (peer, node)] {
                let soon = self.chance.upto(millis(300));
                self.schedule.after(soon, Happening::Dial { from, to });
            }
        }
    }

    /// The process of a node is gone, and its connections with it.
    pub fn stop(&mut self, node: usize) {
        for peer in self.peers_of(node) {
            self.cut(node, peer);
            self.cut(peer, node);
        }
        self.streams.forget(node);
        self.seats[node].incarnation += 1;
        self.seats[node].process = None;
    }

    /// The process of a node stands still.
    pub fn pause(&mut self, node: usize) {
        if let Some(process) = self.process(node) {
            process.paused = true;
        }
        for peer in self.peers_of(node) {
            self.will_be_silent(node, peer);
        }
    }

    /// It goes on, with what has waited.
    pub(super) fn resume(&mut self, node: usize) -> VecDeque<Turn<A>> {
        let Some(process) = self.process(node) else { return VecDeque::new() };
        process.paused = false;
        std::mem::take(&mut process.inbox)
    }

    /// A node goes on under another site id: nobody has to be asked what is known of its log.
    pub fn renewed(&mut self, node: usize) {
        let now = self.now();
        if let Some(process) = self.process(node) {
            process.told_more = false;
            process.answered.get_or_insert(now);
        }
    }

    /// Tells a core of something, and takes note of what it learned of its own log, of which it has `held`.
    pub fn feed(&mut self, node: usize, event: Event, own: SiteId, held: Version) {
        let now = self.now();
        let Some(process) = self.process(node) else { return };
        match &event {
            Event::FollowerOpened { site, after, .. } => process.told_more |= *site == own && *after > held,
            // A later process of the node has gone on under another site id, of which this disk does not know.
            Event::Received { frame, .. } => {
                process.told_more |= Retirement::of(frame).any(|retirement| retirement.site == own);
            }
            Event::Heads { peer, vector, reading, .. } => {
                let foreign = matches!(reading, Reading::Compact { reader } if *reader != own);
                if !foreign && process.up.contains_key(&number(*peer)) {
                    process.answered.get_or_insert(now);
                    process.told_more |= vector.get(own) > held;
                }
            }
            _ => {}
        }
        process.core.handle(event, now - process.started);
    }

    /// What a core wants done.
    pub fn actions(&mut self, node: usize) -> Vec<Action> {
        let Some(process) = self.process(node) else { return Vec::new() };
        let actions = process.core.actions();
        for what in process.core.tally().values() {
            self.count_by("push refused", what.pushes_refused);
            self.count_by("duplicate frame", what.duplicates);
        }
        actions
    }

    /// Does what a core wants of the network; what it wants of its disk is the world's matter.
    pub fn carry(&mut self, node: usize, action: Action) {
        match action {
            Action::SendHeads { peer, site, vector, reading } => {
                self.datagram(node, number(peer), Heads { site, vector, reading });
            }
            Action::Follow { stream, peer, site, after } => {
                self.open_stream(node, number(peer), stream, site, after);
            }
            Action::Unfollow { stream } => self.stop_following(node, stream),
            Action::Credit { stream, bytes } => self.credit(node, stream, bytes),
            Action::Send { stream, frames } => self.send(node, stream, frames),
            Action::CloseFollower { stream } => self.close_follower(node, stream),
            Action::ReadLog { .. }
            | Action::Apply { .. }
            | Action::Retire { .. }
            | Action::RenewSite
            | Action::Settled => {}
        }
    }
}

/// The number of a node.
#[must_use]
pub const fn number(id: NodeId) -> usize {
    id.0[0] as usize - 1
}
