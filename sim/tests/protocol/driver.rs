//! The driver of one node: it does what the core wants of its disk. On the way it keeps the books for the bounds (I7)
//! and for when a node may write (I2), from actions and events alone.

use std::sync::Arc;

use mychat_replication::{
    log::{Change, Frame, Retirement, SiteId, Version},
    protocol::{
        APPLY_SIZE, Action, Config, Core, Event, READ_SIZE, RECEIVE_WINDOW, SEND_WINDOW, Start, StreamId,
    },
};
use mychat_sim::virtual_time::{Driver, Stage, Time, id, millis, number};

use crate::{
    disk::{Disk, Outcome, change, retirement},
    history::Fresh,
    world::{AtNode, Happening, Node, Process, World},
};

/// How long a node that nobody answers waits before it goes on under a new site id.
const PATIENCE: Time = millis(5_000);
/// How long the core waits for the other peers after the first answer.
const OTHERS: Time = millis(300);

/// Work for a node's disk, done one after the other.
#[derive(Debug)]
pub enum Op {
    Write { changes: Vec<Change> },
    Apply { frames: Vec<Arc<Frame>> },
    Renew,
    Retire { site: SiteId },
    Adopt { copy: Box<Disk> },
}

impl World {
    /// Starts the process of a node on what its disk holds.
    pub fn start(&mut self, node: usize) {
        let disk = &mut self.nodes[node].disk;
        disk.open();
        let (site, held) = (disk.site, disk.vector());
        let region = self.stage.seats[node].region.into();
        let config = Config { node: id(node), region, relay_above: self.conditions.relay_above };
        let start = if self.nodes[node].in_doubt { Start::InDoubt { alone: false } } else { Start::Asking };
        self.stage.start(node, Core::new(config, site, held, start));
        let now = self.stage.now();
        self.nodes[node].process = Some(Process { disk_free: now, news_free: now, ..Process::default() });
        let retirements = self.nodes[node].disk.retirements();
        self.stage.tell(node, Time::ZERO, Event::Retired { retirements });
        self.stage.later(node, self.conditions.tick, AtNode::Tick);
        self.stage.meet(node);
    }

    fn read_log(&mut self, node: usize, stream: StreamId, site: SiteId, after: Version) {
        let event = if self.healed.is_none() && self.stage.chance.happens(self.conditions.unreadable) {
            self.stage.count("log unreadable");
            Event::LogUnreadable { stream }
        } else {
            let frames = self.nodes[node].disk.read(site, after.0, READ_SIZE);
            if frames.iter().any(|frame| frame.after.0 + 1 < frame.version.0) {
                self.stage.count("overwritten version left out");
            }
            Event::LogRead { stream, frames }
        };
        let delay = self.stage.chance.upto(self.conditions.news_delay * 2);
        self.stage.tell(node, delay, event);
    }

    /// Keeps the books of what the core is told.
    fn note(&mut self, node: usize, event: &Event) {
        let Node { disk, process: Some(process), .. } = &mut self.nodes[node] else { return };
        match event {
            Event::LogRead { stream, .. } | Event::LogUnreadable { stream } => {
                process.reading.remove(stream);
            }
            Event::SiteRenewed { .. } => process.renewing = false,
            Event::Applied { .. } => {
                process.applying = false;
                for ((site, _), waiting) in &mut process.unapplied {
                    let held = disk.held(*site);
                    waiting.retain(|(version, _)| *version > held);
                }
            }
            Event::Received { stream, frame } => {
                let (version, size) = (frame.version.0, frame.size());
                let waiting = process.unapplied.entry((frame.site, *stream)).or_default();
                if version > disk.held(frame.site) && waiting.iter().all(|(before, _)| *before < version) {
                    waiting.push((version, size));
                    if waiting.iter().map(|(_, bytes)| bytes).sum::<usize>() > RECEIVE_WINDOW + size {
                        self.objection("I7: too much waits to be applied");
                    }
                }
            }
            _ => {}
        }
    }

    /// Judges whether a node may be settled (I2).
    fn judge_settling(&mut self, node: usize) {
        let (own, now) = (self.nodes[node].disk.site, self.stage.now());
        let Some(running) = self.stage.process(node) else { return };
        let (settled, told_more, answered) = (running.core.is_settled(), running.told_more, running.answered);
        let Some(process) = self.process(node) else { return };
        let was_settled = std::mem::replace(&mut process.settled, settled);
        if settled && told_more {
            self.objection(&format!(
                "I2: node {node} is settled though a peer knows more of its log {own:?}"
            ));
        }
        if settled && !was_settled {
            match answered {
                None => self.objection(&format!("I2: node {node} settled though nobody has answered")),
                Some(first) if now < first + OTHERS => self.stage.count("settled at the first answers"),
                Some(_) => {}
            }
        }
    }

    fn follows(&mut self, from: usize, to: usize, site: SiteId) {
        self.stage.count("follow");
        let region = |node: usize| self.stage.seats[node].region;
        let writer = (0..self.nodes.len()).find(|node| self.nodes[*node].disk.site == site);
        if writer.is_some_and(|writer| region(writer) != region(from)) && region(to) == region(from) {
            self.stage.count("followed through a relay");
        }
    }

    fn renews(&mut self, node: usize) {
        let now = self.stage.now();
        let Some(running) = self.stage.process(node) else { return };
        let nobody = running.answered.is_none() && now - running.started >= PATIENCE;
        let told_more = running.told_more;
        let in_doubt = self.nodes[node].in_doubt;
        let again = self.process(node).is_some_and(|process| std::mem::replace(&mut process.renewing, true));
        if again || !(told_more || nobody || in_doubt) {
            self.objection(&format!("node {node} renews its site id without need"));
        }
        self.stage.count(match (in_doubt, told_more) {
            (true, _) => "renewed: the disk is in doubt",
            (false, true) => "renewed: peer knows more",
            (false, false) => "renewed: nobody answered",
        });
        self.on_disk(node, Op::Renew);
    }

    pub fn on_disk(&mut self, node: usize, operation: Op) {
        let takes = self.stage.chance.upto(self.conditions.disk_delay);
        let now = self.stage.now();
        let Some(process) = self.process(node) else { return };
        process.operations.push_back(operation);
        process.disk_free = process.disk_free.max(now) + takes;
        let delay = process.disk_free - now;
        self.stage.later(node, delay, AtNode::Disk);
    }

    /// Tells the core of something that the disk has done; the news keep their order.
    pub fn news(&mut self, node: usize, event: Event) {
        let takes = self.stage.chance.upto(self.conditions.news_delay);
        let now = self.stage.now();
        let Some(process) = self.process(node) else { return };
        process.news_free = process.news_free.max(now + takes);
        let delay = process.news_free - now;
        self.stage.tell(node, delay, event);
    }

    pub fn committed(&mut self, node: usize, mut frames: Vec<Arc<Frame>>, local: bool) {
        if self.healed.is_none() && self.stage.chance.happens(self.conditions.missed_news) {
            self.stage.count("news of a commit missed");
            frames.clear();
        }
        let vector = Arc::new(self.nodes[node].disk.vector());
        self.news(node, Event::Committed { frames, vector, local });
    }

    /// The disk has done the next operation.
    fn operate(&mut self, node: usize) {
        let now = self.stage.now();
        let Some(process) = self.process(node) else { return };
        let Some(operation) = process.operations.pop_front() else { return };
        let refuses = process.refuses_until > now;
        match operation {
            Op::Write { .. } if refuses => self.stage.count("write refused"),
            Op::Write { changes } => {
                let frame = self.nodes[node].disk.write(changes);
                self.stage.count("commit");
                self.note_version(node, &frame);
                self.committed(node, vec![frame], true);
            }
            Op::Apply { .. } if refuses => {
                self.stage.count("batch refused");
                self.news(node, Event::Applied { ok: false });
            }
            Op::Apply { frames } => self.apply(node, &frames),
            Op::Retire { .. } if refuses => {}
            Op::Retire { site } => {
                let disk = &mut self.nodes[node].disk;
                let row = retirement(site, disk.held(site), disk.site, id(node));
                let frame = disk.write(vec![row]);
                self.stage.count("former site retired further");
                self.note_version(node, &frame);
                self.committed(node, vec![frame], true);
            }
            Op::Renew => {
                let old = self.nodes[node].disk.site;
                let new = SiteId(self.stage.chance.bytes());
                self.stage.say(|| format!("{node} goes on as {new:?}"));
                for frame in self.nodes[node].disk.renew(new) {
                    self.stage.count("version went over to the new site");
                    self.note_version(node, &frame);
                }
                self.goes_on(node, old);
            }
            Op::Adopt { copy } => self.adopts(node, *copy),
        }
    }

    /// A disk that was written under the site id `old` is written under another one from now on.
    pub fn goes_on(&mut self, node: usize, old: SiteId) {
        let disk = &mut self.nodes[node].disk;
        let new = disk.site;
        if disk.held(old) > 0 {
            let row = retirement(old, disk.held(old), new, id(node));
            let frame = disk.write(vec![row]);
            self.note_version(node, &frame);
            self.committed(node, vec![frame], true);
        }
        self.note_lost();
        (self.nodes[node].in_doubt, self.nodes[node].deceived) = (false, false);
        self.stage.renewed(node);
        let vector = Arc::new(self.nodes[node].disk.vector());
        self.news(node, Event::SiteRenewed { site: new, vector });
    }

    /// Judges a version that a node has just written (I2).
    fn note_version(&mut self, node: usize, frame: &Frame) {
        Retirement::of(frame).for_each(|retirement| self.retired.learn(retirement));
        match self.history.written(frame) {
            Fresh::New => {}
            Fresh::ReusedUnseen | Fresh::Reused if !self.nodes[node].deceived => {
                let (site, version) = (frame.site, frame.version);
                self.objection(&format!("I2: node {node} writes version {version} of {site:?} again"));
            }
            Fresh::ReusedUnseen => self.stage.count("known limit: version reused that nobody had"),
            // The node was not told, or it would not be settled: see `feed`.
            Fresh::Reused => {
                if self.history.taint(frame.site) {
                    self.stage.count("known limit: site reused unawares");
                }
            }
        }
        self.committed.insert((frame.site, frame.version.0), (self.stage.now(), node));
    }

    /// Merges frames as the real database does, with the judge looking on.
    fn apply(&mut self, node: usize, frames: &[Arc<Frame>]) {
        let mut applied = Vec::new();
        for frame in frames {
            let held = self.nodes[node].disk.held(frame.site);
            let vector = self.nodes[node].disk.vector();
            for retirement in Retirement::of(frame) {
                self.stage.count("retirement applied");
                if !retirement.is_met(&vector) {
                    self.objection(&format!(
                        "node {node} is to apply {retirement:?} before what it vouches for"
                    ));
                }
            }
            match self.nodes[node].disk.apply(frame) {
                Outcome::Duplicate => self.stage.count("duplicate"),
                Outcome::Gap => self.stage.count("gap"),
                Outcome::Applied => {
                    if let Err(what) = self.history.applied(frame, held) {
                        self.objection(&format!("at node {node}: {what}"));
                    }
                    self.judge_latency(node, frame);
                    applied.push(Arc::clone(frame));
                }
            }
        }
        if !applied.is_empty() {
            self.committed(node, applied, false);
        }
        self.news(node, Event::Applied { ok: true });
    }

    /// A node writes, if it may, and will again.
    pub fn write_now_and_then(&mut self, node: usize) {
        if self.healed.is_some() {
            return;
        }
        let next = self.stage.chance.upto(self.conditions.write_every * 2);
        self.stage.after(next, Happening::Write { node });
        self.write(node);
    }

    pub fn write(&mut self, node: usize) {
        let takes_snapshot = self.process(node).is_some_and(|process| process.snapshot);
        let may = |process: &mychat_sim::virtual_time::Process<AtNode>| {
            !process.paused && process.core.is_settled() && !takes_snapshot
        };
        if !self.stage.process(node).is_some_and(|process| may(process)) {
            return;
        }
        let (versions, size) = if self.stage.chance.happens(self.conditions.burst) {
            self.stage.count("burst");
            (8 + self.stage.chance.below(32), 64 << 10)
        } else if self.stage.chance.happens(self.conditions.burst / 4.0) {
            self.stage.count("frame larger than a window");
            (1, SEND_WINDOW + (100 << 10))
        } else {
            let most = if self.conditions.stalled.is_some() { 40 << 10 } else { 600 };
            (1, 8 + self.stage.chance.index(most))
        };
        for _ in 0..versions {
            let changes = (0..=self.stage.chance.below(3) as u32).map(|part| self.row(part, size)).collect();
            self.on_disk(node, Op::Write { changes });
        }
    }

    /// A change to a fresh row or to one of a few that are written over and over.
    fn row(&mut self, part: u32, size: usize) -> Change {
        self.next_content += 1;
        let content = self.next_content;
        let again = self.stage.chance.happens(0.3);
        let key = if again { part * 2 + self.stage.chance.below(2) as u32 } else { 1_000 + content as u32 };
        change(key, content, if part == 0 { size } else { 20 })
    }
}

impl Driver for World {
    type AtNode = AtNode;
    type Happening = Happening;

    fn stage(&mut self) -> &mut Stage<AtNode, Happening> {
        &mut self.stage
    }

    fn feed(&mut self, node: usize, event: Event) {
        self.stage.say(|| format!("{node} <- {}", brief(&event)));
        self.stage.trace.number(node as u64);
        self.note(node, &event);
        let disk = &self.nodes[node].disk;
        self.stage.feed(node, event, disk.site, Version(disk.held(disk.site)));
        self.judge_settling(node);
        self.act(node);
    }

    fn perform(&mut self, node: usize, action: Action) {
        self.stage.say(|| format!("{node} -> {}", brief(&action)));
        match &action {
            Action::SendHeads { vector, reading, .. } => self.judge_heads(node, vector, *reading),
            Action::Follow { peer, site, .. } => self.follows(node, number(*peer), *site),
            Action::Send { stream, frames } => self.judge_crossing(node, *stream, frames),
            _ => {}
        }
        match action {
            Action::ReadLog { stream, site, after } => {
                if !self.process(node).is_none_or(|process| process.reading.insert(stream)) {
                    self.objection("I7: two reads for one follower");
                }
                self.stage.count("log read");
                let delay = self.stage.chance.upto(self.conditions.disk_delay);
                self.stage.later(node, delay, AtNode::ReadLog { name: stream, site, after });
            }
            Action::Apply { frames } => {
                let bytes: usize = frames.iter().map(|frame| frame.size()).sum();
                if bytes > APPLY_SIZE && frames.len() > 1 {
                    self.objection("I7: too much in one transaction");
                }
                if self.process(node).is_some_and(|process| std::mem::replace(&mut process.applying, true)) {
                    self.objection("two batches are applied at once");
                }
                self.on_disk(node, Op::Apply { frames });
            }
            Action::Retire { site } => self.on_disk(node, Op::Retire { site }),
            Action::RenewSite => self.renews(node),
            Action::Settled => self.stage.count("settled"),
            carried => self.stage.carry(node, carried),
        }
    }

    fn at_node(&mut self, node: usize, event: AtNode) {
        match event {
            AtNode::Tick => {
                self.feed(node, Event::Tick);
                self.stage.later(node, self.conditions.tick, AtNode::Tick);
            }
            AtNode::ReadLog { name, site, after } => self.read_log(node, name, site, after),
            AtNode::Disk => self.operate(node),
            AtNode::AsksForSnapshot { peer, tries, takes } => {
                self.asks_for_snapshot(node, peer, tries, takes)
            }
            AtNode::HasSnapshot { copy } => self.has_snapshot(node, copy),
        }
    }

    /// The tasks of the streams and of the connection notice in any order.
    fn disconnected(&mut self, node: usize, peer: usize, epoch: u64) {
        let mut events = self.stage.disconnected(node, peer, epoch);
        self.stage.chance.shuffle(&mut events);
        for event in events {
            self.feed(node, event);
        }
    }
}

/// The beginning of a description: frames are long.
fn brief(what: &impl std::fmt::Debug) -> String {
    format!("{what:?}").chars().take(160).collect()
}
