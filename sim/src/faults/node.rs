//! One node: a disk for ever, and a process now and then. In the process the store, the protocol's core and the event
//! desk are the real ones.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use mychat_node::events::Desk;
use mychat_replication::{
    log::{SiteId, Version, VersionVector},
    protocol::{Config, Core, Event, Start},
    store::{Commit, Store, Surroundings, Witness, Worker},
};
use tokio::sync::broadcast;

use super::{
    calls::Answer,
    disk::{self, Backup, Disk},
    oracle::{Rule, readers::Members},
    upgrade,
    world::{AtNode, World},
};
use crate::virtual_time::{Driver, Time, id};

/// The right time at the beginning of a run, in milliseconds since 1970.
const EPOCH: u64 = 1_800_000_000_000;

/// The clock of a node's machine, its chance, and what it can vouch for.
#[derive(Debug)]
pub struct Machine {
    wall: AtomicU64,
    next: AtomicU64,
    noted: Noted,
}

/// What the witness beside a node's database says.
type Noted = Arc<Mutex<Option<(SiteId, Version)>>>;

/// The witness of the disk: it outlives the process, but not the machine.
struct Beside(Noted);

impl Witness for Beside {
    fn testimony(&self) -> Option<(SiteId, Version)> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&mut self, site: SiteId, head: Version) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((site, head));
    }
}

impl Machine {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { wall: AtomicU64::new(EPOCH), next: AtomicU64::new(seed), noted: Noted::default() })
    }

    /// What the witness says.
    pub fn noted(&self) -> Option<(SiteId, Version)> {
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the witness says this: nothing, after the machine has started anew.
    pub fn vouch(&self, noted: Option<(SiteId, Version)>) {
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner) = noted;
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

    fn witness(&self, _: &Path) -> Box<dyn Witness> {
        Box::new(Beside(Arc::clone(&self.noted)))
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
    Synced,
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
    pub desk: Desk,
    pub commits: broadcast::Receiver<Arc<Commit>>,
    tasks: BTreeMap<u64, Task>,
    next_task: u64,
    /// The disk does something.
    pub working: bool,
    /// A sync is asked for.
    pub syncing: bool,
    /// It dies within its next commit, with so much of it on the disk, and stays down for so long.
    pub dies_with: Option<(u64, Time)>,
    pub members: Members,
    /// Whether it has what clients may be served from.
    pub serves: bool,
    /// Whether it goes on under a new site id, or is about to.
    pub renews: bool,
    /// Whether it asked as it should before it took writes.
    pub asked: bool,
}

pub struct Node {
    pub disk: Disk,
    pub machine: Arc<Machine>,
    /// How wrong its clock is, in milliseconds.
    pub ahead: i64,
    /// A copy of the database, and what it holds.
    pub copy: Option<(Backup, VersionVector)>,
    /// The next start is on the copy.
    pub restores: bool,
    /// Its disk has gone back in time, and it has not found out yet what that means.
    pub went_back: bool,
    pub upgraded: bool,
    pub leaving: bool,
    /// What its disk holds, and the site that it writes.
    pub vector: VersionVector,
    /// What it told others that its disk holds.
    pub told: VersionVector,
    pub site: SiteId,
    pub process: Option<Process>,
}

impl World {
    /// A new node with an empty database starts.
    pub fn add_node(&mut self) {
        let number = self.nodes.len();
        let site = SiteId(self.stage.chance.bytes());
        let home = self.folder.join(format!("n{number}"));
        let disk = match Disk::new(home, &self.templates, id(number), site) {
            Ok(disk) => disk,
            Err(error) => return self.stage.object(Rule::Panic, format!("no disk: {error:#}")),
        };
        let machine = Machine::new(self.plan.seed.wrapping_mul(31).wrapping_add(number as u64) << 8);
        machine.vouch(Some((site, Version(0))));
        self.nodes.push(Node {
            disk,
            machine,
            ahead: 0,
            copy: None,
            restores: false,
            went_back: false,
            upgraded: false,
            leaving: false,
            vector: VersionVector::new(),
            told: VersionVector::new(),
            site,
            process: None,
        });
        self.stage.add("sim");
        self.start(number);
    }

    /// The process of a node starts on what its disk holds.
    pub fn start(&mut self, number: usize) {
        let now = self.stage.now();
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
            Err(error) => {
                return self.stage.object(Rule::Durable, format!("node {number} can't start: {error}"));
            }
        };
        node.disk.begin();
        let (site, held) = (store.site(), store.vector().as_ref().clone());
        (node.site, node.vector) = (site, held.clone());
        store.hold_writes();
        let config = Config { node: id(number), region: "sim".into(), relay_above: 100 };
        let start = if store.was_in_doubt() { Start::InDoubt { alone: false } } else { Start::Asking };
        self.stage.start(number, Core::new(config, site, held.clone(), start));
        let process = Process {
            desk: Desk::new(store.clone()),
            commits: store.commits(),
            members: Members::of(&self.ledger, &held),
            serves: !held.is_empty(),
            store,
            worker,
            tasks: BTreeMap::new(),
            next_task: 0,
            working: false,
            syncing: false,
            dies_with: None,
            renews: false,
            asked: false,
        };
        node.process = Some(process);
        self.stage.count("start of a node");
        self.stage.say(|| format!("{number} starts as {site:?} with {held:?}"));
        self.act(number);
        let retirements = self.process(number).map(|process| process.store.clone());
        if let Some(store) = retirements
            && let Some(Ok(retirements)) = futures_util::FutureExt::now_or_never(store.retirements())
        {
            self.stage.tell(number, Time::ZERO, Event::Retired { retirements });
        }
        self.stage.later(number, self.tick(), AtNode::Tick);
        self.stage.meet(number);
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
        let delay = self.nodes[node].disk.delay(self.stage.now(), &mut self.wear);
        let Some(process) = self.process(node) else { return };
        if process.worker.has_work() && !std::mem::replace(&mut process.working, true) {
            self.stage.later(node, delay, AtNode::Disk);
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
