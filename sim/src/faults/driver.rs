//! The driver of one node: it does what the core wants of the store, as `replica/task.rs` does in production, lets the
//! store work when the disk has had its time, and tells the core of what it has written.

use std::sync::Arc;

use futures_util::FutureExt;
use mychat_replication::{
    log::{VersionVector, codec},
    protocol::{Action, Event, READ_SIZE},
    store::Commit,
};

use super::{
    calls::Answer,
    node::{Done, Node},
    oracle::{
        Rule,
        ledger::{Fresh, Place},
        readers,
    },
    world::{AtNode, Happening, World},
};
use crate::virtual_time::{Driver, Process, Stage, Time, id, millis, seconds};

/// How often the core is told the time, while something goes on.
const TICK: Time = millis(100);
/// How often while nothing has happened for a while: the scheduler of a machine that sleeps.
const SLEEPY_TICK: Time = millis(1_000);
/// After how long that is.
const SLEEPY: Time = seconds(4);

impl World {
    /// How long until the core is told the time again.
    pub fn tick(&self) -> Time {
        if self.stage.now().saturating_sub(self.last_busy) > SLEEPY && self.healed.is_none() {
            SLEEPY_TICK
        } else {
            TICK
        }
    }

    fn renew(&mut self, node: usize) {
        let Some(process) = self.process(node) else { return };
        process.store.hold_writes();
        let renewed = std::mem::replace(&mut process.renews, true);
        let store = process.store.clone();
        let told_more = self.stage.process(node).is_some_and(|process| process.told_more);
        self.stage.count(match (store.was_in_doubt() && !renewed, told_more) {
            (true, _) => "new site: the disk was in doubt",
            (false, true) => "new site: a peer knew more",
            (false, false) => "new site: nobody answered",
        });
        self.try_to_renew(node);
    }

    /// As often as the disk refuses it.
    fn try_to_renew(&mut self, node: usize) {
        let Some(process) = self.process(node) else { return };
        let store = process.store.clone();
        let renew = async move { Done::Renewed { ok: store.renew_site().await.is_ok() } };
        self.ask(node, Box::pin(renew));
    }

    /// It has asked all that it should, or nobody, and takes writes.
    fn settled(&mut self, node: usize) {
        self.stage.say(|| format!("{node} is settled"));
        let went_back = std::mem::take(&mut self.nodes[node].went_back);
        let answered = self.stage.process(node).is_some_and(|process| process.answered.is_some());
        let Some(process) = self.process(node) else { return };
        process.asked = answered || process.vector_is_empty();
        process.store.release_writes();
        if went_back && !process.asked && !process.renews {
            let what = format!("node {node} accepts writes on an older disk and has asked nobody");
            self.stage.object(Rule::OneContent, what);
        }
    }

    /// A task of the store is done.
    pub fn done(&mut self, node: usize, done: Done) {
        match done {
            Done::Answer(answer) => {
                if let Answer { place: Some(place), .. } = answer.as_ref() {
                    self.ledger.acknowledge(*place);
                    self.note_write_in_partition(node);
                }
                self.answer(*answer);
            }
            Done::Applied { ok } => {
                if !ok {
                    self.stage.count("batch refused by a disk");
                }
                self.feed(node, Event::Applied { ok });
            }
            Done::Renewed { ok: false } => self.stage.later(node, seconds(1), AtNode::Renew),
            Done::Renewed { ok: true } => {
                let Some(process) = self.process(node) else { return };
                let (site, vector) = (process.store.site(), process.store.vector());
                self.stage.renewed(node);
                self.feed(node, Event::SiteRenewed { site, vector });
            }
            Done::Synced => {
                if let Some(process) = self.process(node) {
                    process.syncing = false;
                }
            }
            Done::Retired => {}
        }
    }

    fn note_write_in_partition(&mut self, node: usize) {
        let cut_off = (0..self.nodes.len()).any(|peer| {
            peer != node && self.nodes[peer].process.is_some() && self.stage.is_blocked(node, peer)
        });
        if cut_off {
            self.stage.count("write acknowledged during a partition");
        }
    }

    /// The disk has had its time: the store works, and whoever waits hears of it.
    fn disk_has_worked(&mut self, node: usize) {
        let full = self.nodes[node].disk.full_until > self.stage.now();
        let fate = self.process(node).and_then(|process| process.dies_with.take());
        if fate.is_some_and(|(torn, lasts)| self.dies(node, lasts, torn)) {
            return;
        }
        let Node { disk, process: Some(process), .. } = &mut self.nodes[node] else { return };
        process.working = false;
        disk.limit(&process.worker, full);
        process.worker.work();
        disk.note(&process.worker, &process.store);
        self.has_written(node);
        for (done, _) in self.poll_tasks(node) {
            self.done(node, done);
        }
        self.look_at_health(node);
        self.work_begins(node);
    }

    /// The commits of a node go out: to the judges, the core, the clients.
    pub fn has_written(&mut self, node: usize) {
        let before = self.nodes[node].site;
        self.look_at_site(node);
        loop {
            let Some(process) = &mut self.nodes[node].process else { return };
            let Ok(commit) = process.commits.try_recv() else { break };
            self.committed(node, &commit);
        }
        if before != self.nodes[node].site {
            // What went over from the old site is no commit.
            let vector = self.process(node).map(|process| process.store.vector());
            if let Some(vector) = vector {
                self.nodes[node].vector = vector.as_ref().clone();
            }
        }
    }

    /// Whether the node goes on under a new site id; what it wrote since it started went over.
    fn look_at_site(&mut self, node: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        let (old, new) = (self.nodes[node].site, process.store.site());
        if old == new {
            return;
        }
        let vector = process.store.vector();
        let moved = vector.get(old) < self.nodes[node].vector.get(old);
        self.stage.say(|| format!("{node} goes on as {new:?}"));
        self.nodes[node].site = new;
        self.nodes[node].vector.set(old, vector.get(old));
        if moved {
            let what = format!("node {node} had taken writes under {old:?}, of which others knew more");
            self.stage.object(Rule::OneContent, what);
        }
    }

    fn committed(&mut self, node: usize, commit: &Commit) {
        self.last_busy = self.stage.now();
        let site = self.nodes[node].site;
        let mut places: Vec<Place> = Vec::new();
        for frame in &commit.frames {
            self.stage.trace.number(u64::from(frame.site.0[0]));
            self.stage.trace.number(frame.version.0);
            let held = self.nodes[node].vector.get(frame.site).0;
            if frame.site == site {
                self.stage.count("version written");
                match self.ledger.written(frame) {
                    Fresh::New => {}
                    Fresh::Reused => self.reused((frame.site, frame.version.0)),
                    Fresh::Clash => self.clash(node, frame.version.0),
                }
            } else {
                self.stage.count("version merged");
                let verdict = self.ledger.merged(frame, held);
                self.judge(|| format!("node {node}"), verdict);
            }
            places.extend((held + 1..=frame.version.0).map(|version| (frame.site, version)));
            self.nodes[node].vector.advance(frame.site, frame.version);
        }
        self.stage.say(|| format!("{node} holds {:?}", self.nodes[node].vector));
        let missed = self.healed.is_none() && self.stage.chance.happens(0.01);
        if missed {
            self.stage.count("news of a commit missed");
        }
        let frames = if missed { Vec::new() } else { commit.frames.clone() };
        self.feed(node, Event::Committed { frames, vector: Arc::clone(&commit.vector), local: commit.local });
        self.tell_clients(node, &places, (!missed).then(|| vec![Arc::new(commit.clone())]));
    }

    /// A node wrote a version whose number was taken once, by one that is on no disk any more.
    fn reused(&mut self, (site, version): Place) {
        self.stage.count("version reused that no node had");
        if self.people.iter().any(|person| person.has_seen(site, version, &self.ledger)) {
            let what = format!("version {version} of {site:?}, of which a client knew, was written again");
            self.stage.object(Rule::OneContent, what);
        }
    }

    /// A node wrote a version that others hold with another content.
    fn clash(&mut self, node: usize, version: u64) {
        let site = self.nodes[node].site;
        self.stage.object(
            Rule::OneContent,
            format!(
                "node {node} wrote version {version} of {site:?}, which others hold with another content"
            ),
        );
    }

    /// The streams at a node are told of what it has just taken.
    fn tell_clients(&mut self, node: usize, places: &[Place], commits: Option<Vec<Arc<Commit>>>) {
        let Some(process) = &mut self.nodes[node].process else { return };
        let here = self.people.iter_mut().filter(|person| person.is_reading_at(node));
        readers::told(places, &self.ledger, &mut process.members, here.map(|person| &mut person.judge));
        process.desk.tell(commits);
        self.read_at(node);
    }

    /// A node that joined serves nobody before it holds what its peers hold.
    fn look_whether_it_serves(&mut self, node: usize) {
        let nodes = self.nodes.len();
        let Some(process) = self.nodes[node].process.as_mut().filter(|process| !process.serves) else {
            return;
        };
        let Some(Process { core, answered, .. }) = self.stage.process(node) else { return };
        process.serves = core.is_settled()
            && answered.is_some()
            && !process.vector_is_empty()
            && (0..nodes).all(|peer| core.behind(id(peer)) == 0);
    }

    fn look_at_health(&mut self, node: usize) {
        if self.process(node).is_some_and(|process| !process.worker.is_well()) {
            self.stage.count("disk refused a commit");
            self.stage.later(node, seconds(1), AtNode::Probe);
        }
    }

    /// What of a node's vector is on its disk; the rest is brought there, which takes a while.
    fn sync(&mut self, node: usize) -> Option<Arc<VersionVector>> {
        let process = self.process(node)?;
        let (store, durable) = (process.store.clone(), process.store.durable());
        if !durable.covers(&store.vector()) && !std::mem::replace(&mut process.syncing, true) {
            let sync = async move {
                // The next heads try it again.
                let _ = store.sync().await;
                Done::Synced
            };
            self.ask(node, Box::pin(sync));
        }
        Some(durable)
    }

    fn probe(&mut self, node: usize) {
        let full = self.nodes[node].disk.full_until > self.stage.now();
        let Node { disk, process: Some(process), .. } = &mut self.nodes[node] else { return };
        if process.worker.is_well() {
            return;
        }
        disk.limit(&process.worker, full);
        process.worker.probe();
        disk.note(&process.worker, &process.store);
        if !process.worker.is_well() {
            self.stage.later(node, seconds(1), AtNode::Probe);
        }
    }
}

impl super::node::Process {
    /// Whether it holds nothing at all.
    pub fn vector_is_empty(&self) -> bool {
        *self.store.vector() == VersionVector::new()
    }
}

impl Driver for World {
    type AtNode = AtNode;
    type Happening = Happening;

    fn stage(&mut self) -> &mut Stage<AtNode, Happening> {
        &mut self.stage
    }

    fn feed(&mut self, node: usize, event: Event) {
        let told = matches!(event, Event::Heads { .. });
        let event = match over_the_wire(event) {
            Ok(event) => event,
            Err(error) => return self.stage.object(Rule::Panic, format!("a frame can't be coded: {error}")),
        };
        let Node { site, vector, .. } = &self.nodes[node];
        self.stage.feed(node, event, *site, vector.get(*site));
        self.act(node);
        if told {
            self.look_whether_it_serves(node);
        }
    }

    fn perform(&mut self, node: usize, action: Action) {
        match action {
            Action::ReadLog { stream, site, after } => {
                self.stage.count("log read for a peer");
                let delay = self.nodes[node].disk.delay(self.stage.now(), &mut self.wear);
                self.stage.later(node, delay, AtNode::ReadLog { name: stream, site, after });
            }
            Action::Apply { frames } => {
                let Some(store) = self.process(node).map(|process| process.store.clone()) else { return };
                let apply = async move { Done::Applied { ok: store.apply(frames).await.is_ok() } };
                self.ask(node, Box::pin(apply));
            }
            Action::Retire { site } => {
                let Some(store) = self.process(node).map(|process| process.store.clone()) else { return };
                let retire = async move {
                    let _ = store.retire(site).await;
                    Done::Retired
                };
                self.ask(node, Box::pin(retire));
            }
            Action::RenewSite => self.renew(node),
            Action::Settled => self.settled(node),
            Action::SendHeads { peer, site, vector, reading } => {
                let Some(durable) = self.sync(node) else { return };
                let vector = Arc::new(vector.meet(&durable));
                self.nodes[node].told.merge(&vector);
                self.stage.carry(node, Action::SendHeads { peer, site, vector, reading });
            }
            carried => self.stage.carry(node, carried),
        }
    }

    fn at_node(&mut self, node: usize, event: AtNode) {
        match event {
            AtNode::Tick => {
                self.feed(node, Event::Tick);
                self.stage.later(node, self.tick(), AtNode::Tick);
            }
            AtNode::ReadLog { name: stream, site, after } => {
                let Some(process) = self.process(node) else { return };
                let event = match process.store.read_log(site, after, READ_SIZE).now_or_never() {
                    Some(Ok(read)) => {
                        Event::LogRead { stream, frames: read.frames.into_iter().map(Arc::new).collect() }
                    }
                    _ => Event::LogUnreadable { stream },
                };
                self.feed(node, event);
            }
            AtNode::Renew => self.try_to_renew(node),
            AtNode::Disk => self.disk_has_worked(node),
            AtNode::Probe => self.probe(node),
            AtNode::DiesAnyhow { lasts } => {
                self.dies(node, lasts, 0);
            }
            AtNode::Request(request) => self.requested(node, request),
        }
    }
}

/// Frames come in the form that they have on the wire.
fn over_the_wire(event: Event) -> Result<Event, codec::Error> {
    let Event::Received { stream, frame } = event else { return Ok(event) };
    let frame = Arc::new(codec::decode(&codec::encode(&frame)?)?);
    Ok(Event::Received { stream, frame })
}
