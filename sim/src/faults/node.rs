//! One node: a disk for ever, and a process now and then. In the process the store, the protocol's core and the event
//! desk are the real ones.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use mychat_node::events::Desk;
use mychat_replication::{
    NodeId,
    log::{SiteId, VersionVector},
    protocol::{Config, Core, Event, StreamId},
    store::{Commit, Store, Surroundings, Worker},
};
use tokio::sync::broadcast;

use super::{
    calls::Answer,
    disk::{self, Disk},
    oracle::{Rule, readers::Members},
    upgrade,
    world::{AtNode, Happening, Time, World, millis},
};

/// The right time at the beginning of a run, in milliseconds since 1970.
const EPOCH: u64 = 1_800_000_000_000;

/// The clock of a node's machine, and its chance.
#[derive(Debug)]
pub struct Machine {
    wall: AtomicU64,
    next: AtomicU64,
}

impl Machine {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { wall: AtomicU64::new(EPOCH), next: AtomicU64::new(seed) })
    }

    /// Sets the clock to `now`, which it shows `ahead` milliseconds wrong.
    pub fn set(&self, now: Time, ahead: i64) {
        let wall = (EPOCH + now.as_millis() as u64).saturating_add_signed(ahead);
        self.wall.store(wall, Ordering::Relaxed);
    }
}

impl Surroundings for Machine {
    fn wall_millis(&self) -> u64 {
        self.wall.load(Ordering::Relaxed)
    }

    fn random(&self) -> [u8; 16] {
        // SplitMix64: every number leads to another one.
        let half = || {
            let seed = self.next.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        let (first, second) = (half(), half());
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&first.to_be_bytes());
        bytes[8..].copy_from_slice(&second.to_be_bytes());
        bytes
    }
}

/// Notes how long the write-ahead log was when a task was told that it can go on: what the answer rests on.
#[derive(Debug)]
pub struct Answered {
    log: PathBuf,
    at: AtomicU64,
}

impl Wake for Answered {
    fn wake(self: Arc<Self>) {
        self.at.store(disk::length(&self.log), Ordering::Relaxed);
    }
}

/// What a task of the store comes to.
pub enum Done {
    Answer(Box<Answer>),
    Applied { ok: bool },
    Renewed { ok: bool },
    Retired,
}

/// Something that waits for the store.
pub struct Task {
    future: Pin<Box<dyn Future<Output = Done>>>,
    answered: Arc<Answered>,
}

/// A node while its process runs.
pub struct Process {
    pub store: Store,
    pub worker: Worker,
    pub core: Core,
    pub desk: Desk,
    pub commits: broadcast::Receiver<Arc<Commit>>,
    pub started: Time,
    /// The peers that it thinks it has a connection to, and which one.
    pub up: BTreeMap<usize, u64>,
    /// Streams on which it follows, by the core's name.
    pub upstreams: BTreeMap<StreamId, u64>,
    /// Streams on which it is followed, by the driver's name.
    pub followers: BTreeMap<StreamId, u64>,
    pub next_follower: u64,
    tasks: BTreeMap<u64, Task>,
    next_task: u64,
    /// The disk does something.
    pub working: bool,
    /// It dies within its next commit, with so much of it on the disk, and stays down for so long.
    pub dies_with: Option<(u64, Time)>,
    pub members: Members,
    /// Whether it has what clients may be served from.
    pub serves: bool,
    /// What the judge knows about its settling: whether some peer answered, and whether one knew more.
    pub answered: bool,
    pub told_more: bool,
    /// Whether it goes on under a new site id, or is about to.
    pub renews: bool,
    /// Whether it asked as it should before it took writes.
    pub asked: bool,
}

pub struct Node {
    pub id: NodeId,
    pub incarnation: u64,
    pub disk: Disk,
    pub machine: Arc<Machine>,
    /// How wrong its clock is, in milliseconds.
    pub ahead: i64,
    /// A copy of the database, and what it holds.
    pub copy: Option<(PathBuf, VersionVector)>,
    /// The next start is on the copy.
    pub restores: bool,
    /// Its disk has gone back in time, and it has not found out yet what that means.
    pub went_back: bool,
    pub upgraded: bool,
    pub leaving: bool,
    pub left: bool,
    /// What its disk holds, and the site that it writes.
    pub vector: VersionVector,
    pub site: SiteId,
    pub process: Option<Process>,
}

impl World {
    /// A new node with an empty database starts.
    pub fn add_node(&mut self) {
        let number = self.nodes.len();
        let (id, site) = (NodeId([number as u8 + 1; 16]), SiteId(self.chance.bytes()));
        let home = self.folder.join(format!("n{number}"));
        let disk = match Disk::new(home, &self.templates, id, site) {
            Ok(disk) => disk,
            Err(error) => return self.object(Rule::Panic, format!("no disk: {error:#}")),
        };
        self.nodes.push(Node {
            id,
            incarnation: 0,
            disk,
            machine: Machine::new(self.plan.seed.wrapping_mul(31).wrapping_add(number as u64) << 8),
            ahead: 0,
            copy: None,
            restores: false,
            went_back: false,
            upgraded: false,
            leaving: false,
            left: false,
            vector: VersionVector::new(),
            site,
            process: None,
        });
        self.start(number);
    }

    /// The process of a node starts on what its disk holds.
    pub fn start(&mut self, number: usize) {
        let now = self.now;
        let node = &mut self.nodes[number];
        node.machine.set(now, node.ahead);
        let machine: Arc<dyn Surroundings> = Arc::<Machine>::clone(&node.machine);
        let database = node.disk.database();
        let opened = Store::open_inline(
            &database,
            &upgrade::schema(node.upgraded),
            upgrade::derive(node.upgraded),
            machine,
        );
        let (store, worker) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.object(Rule::Durable, format!("node {number} can't start: {error}")),
        };
        node.disk.begin();
        let (site, held) = (store.site(), store.vector().as_ref().clone());
        (node.site, node.vector) = (site, held.clone());
        store.hold_writes();
        let config = Config { node: node.id, region: "sim".into(), relay_above: 100 };
        let process = Process {
            core: Core::new(config, site, held.clone(), false),
            desk: Desk::new(store.clone()),
            commits: store.commits(),
            members: Members::of(&self.ledger, &held),
            serves: !held.is_empty(),
            store,
            worker,
            started: now,
            up: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            followers: BTreeMap::new(),
            next_follower: 0,
            tasks: BTreeMap::new(),
            next_task: 0,
            working: false,
            dies_with: None,
            answered: false,
            told_more: false,
            renews: false,
            asked: false,
        };
        node.process = Some(process);
        self.count("start of a node");
        self.say(|_| format!("{number} starts as {site:?} with {held:?}"));
        self.act(number);
        let retirements = self.process(number).map(|process| process.store.clone());
        if let Some(store) = retirements
            && let Some(Ok(retirements)) = futures_util::FutureExt::now_or_never(store.retirements())
        {
            self.later(number, Time::ZERO, AtNode::Core(Event::Retired { retirements }));
        }
        self.later(number, self.tick(), AtNode::Tick);
        for peer in (0..self.nodes.len()).filter(|peer| *peer != number) {
            let soon = self.chance.upto(millis(300));
            self.after(soon, Happening::Dial { from: number, to: peer });
            let soon = self.chance.upto(millis(300));
            self.after(soon, Happening::Dial { from: peer, to: number });
        }
    }

    pub fn process(&mut self, node: usize) -> Option<&mut Process> {
        self.nodes[node].process.as_mut()
    }

    /// Something is asked of a node's store; the disk begins with it, unless it is busy.
    pub fn ask(&mut self, node: usize, future: Pin<Box<dyn Future<Output = Done>>>) {
        let log = self.nodes[node].disk.log();
        let Some(process) = self.process(node) else { return };
        let answered = Arc::new(Answered { log, at: AtomicU64::new(0) });
        process.tasks.insert(process.next_task, Task { future, answered });
        process.next_task += 1;
        for (done, _) in self.poll_tasks(node) {
            self.done(node, done);
        }
        self.work_begins(node);
    }

    /// The disk takes up what waits.
    pub fn work_begins(&mut self, node: usize) {
        let delay = self.nodes[node].disk.delay(self.now, &mut self.wear);
        let Some(process) = self.process(node) else { return };
        if process.worker.has_work() && !std::mem::replace(&mut process.working, true) {
            self.later(node, delay, AtNode::Disk);
        }
    }

    /// The tasks that are done by now, with the length of the log that their answers rest on.
    pub fn poll_tasks(&mut self, node: usize) -> Vec<(Done, u64)> {
        let Some(process) = self.process(node) else { return Vec::new() };
        let mut done = Vec::new();
        for (name, mut task) in std::mem::take(&mut process.tasks) {
            let waker = Waker::from(Arc::clone(&task.answered));
            match task.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(what) => done.push((what, task.answered.at.load(Ordering::Relaxed))),
                Poll::Pending => {
                    process.tasks.insert(name, task);
                }
            }
        }
        done
    }

    /// Whether something waits for a node's store.
    pub fn is_waiting(&self, node: usize) -> bool {
        self.nodes[node].process.as_ref().is_some_and(|process| !process.tasks.is_empty())
    }
}
