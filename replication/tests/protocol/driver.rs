//! The driver of one node: it tells the core what happens, and turns the core's actions into happenings. On the way
//! it keeps the books for the bounds (I7) and for when a node may write (I2), from actions and events alone.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use mychat_replication::{
    log::{Change, Frame, Retirement, SiteId, Version},
    protocol::{
        APPLY_SIZE, Action, Config, Core, Event, READ_SIZE, RECEIVE_WINDOW, Reading, SEND_WINDOW, StreamId,
    },
};
use rand::{RngExt, seq::SliceRandom};

use crate::{
    disk::{Outcome, change, retirement},
    history::Fresh,
    world::{AtNode, Happening, Node, Process, Time, World, millis},
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
}

impl World {
    /// Starts the process of a node on what its disk holds.
    pub fn start(&mut self, node: usize) {
        let disk = &mut self.nodes[node].disk;
        disk.open();
        let (site, held) = (disk.site, disk.vector());
        let config = Config {
            node: self.nodes[node].id,
            region: self.nodes[node].region.into(),
            relay_above: self.conditions.relay_above,
        };
        let core = Core::new(config, site, held, false);
        let process = Process {
            core,
            started: self.now,
            up: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            followers: BTreeMap::new(),
            next_follower: 0,
            operations: VecDeque::new(),
            disk_free: self.now,
            news_free: self.now,
            refuses_until: Time::ZERO,
            paused: false,
            inbox: VecDeque::new(),
            applying: false,
            reading: BTreeSet::new(),
            first_answer: None,
            told_more: false,
            renewing: false,
            renewed: false,
            settled: false,
        };
        self.nodes[node].process = Some(process);
        let retirements = self.nodes[node].disk.retirements();
        self.later(node, Time::ZERO, AtNode::Core(Event::Retired { retirements }));
        self.later(node, self.conditions.tick, AtNode::Tick);
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            let soon = self.upto(millis(300));
            self.after(soon, Happening::Dial { from: node, to: peer });
        }
    }

    /// Something happens at a node that is not paused.
    pub fn at_node(&mut self, node: usize, event: AtNode) {
        match event {
            AtNode::Core(event) => self.feed(node, event),
            AtNode::Tick => {
                self.feed(node, Event::Tick);
                self.later(node, self.conditions.tick, AtNode::Tick);
            }
            AtNode::Connected { peer, epoch } => self.connected(node, peer, epoch),
            AtNode::Disconnected { peer, epoch } => self.disconnected(node, peer, epoch),
            AtNode::Datagram { peer, epoch, site, vector, reading } => {
                let link = self.network.link(peer, node);
                if !link.up || link.epoch != epoch {
                    return;
                }
                let own = self.nodes[node].disk.site;
                let held = self.nodes[node].disk.held(own);
                let now = self.now;
                let foreign = matches!(reading, Reading::Compact { reader } if reader != own);
                if let Some(process) = self.process(node)
                    && process.up.contains_key(&peer)
                    && !foreign
                {
                    process.first_answer.get_or_insert(now);
                    process.told_more |= vector.get(own).0 > held;
                }
                let peer = self.nodes[peer].id;
                self.feed(node, Event::Heads { peer, site, vector, reading, complete: true });
            }
            AtNode::Opened { stream } => self.opened(node, stream),
            AtNode::Arrived { stream } => {
                self.arrive(stream);
                self.read(node, stream);
            }
            AtNode::Readable { stream } => self.read(node, stream),
            AtNode::Reset { stream } => {
                if let Some(stream) = self.was_reset(node, stream) {
                    self.feed(node, Event::FollowerClosed { stream });
                }
            }
            AtNode::Closed { stream } => {
                if let Some(stream) = self.was_closed(node, stream) {
                    self.feed(node, Event::UpstreamClosed { stream });
                }
            }
            AtNode::Sent { stream, bytes } => {
                let Some(found) = self.network.stream(stream) else { return };
                found.unsent = found.unsent.saturating_sub(bytes);
                if let Some(stream) = found.up {
                    self.feed(node, Event::Sent { stream, bytes });
                }
            }
            AtNode::ReadLog { name, site, after } => self.read_log(node, name, site, after),
            AtNode::Disk => self.operate(node),
        }
    }

    fn connected(&mut self, node: usize, peer: usize, epoch: u64) {
        let before = self.process(node).and_then(|process| process.up.get(&peer).copied());
        if let Some(before) = before {
            self.disconnected(node, peer, before);
        }
        let link = self.network.link(node, peer);
        if !link.up || link.epoch != epoch {
            self.after(millis(50), Happening::Dial { from: node, to: peer });
            return;
        }
        let rtt = link.latency * 2;
        if let Some(process) = self.process(node) {
            process.up.insert(peer, epoch);
        }
        let Node { id: peer, region, .. } = self.nodes[peer];
        self.feed(node, Event::PeerUp { peer, rtt, region: region.into() });
    }

    fn disconnected(&mut self, node: usize, peer: usize, epoch: u64) {
        let pause = self.upto(millis(400));
        self.after(pause, Happening::Dial { from: node, to: peer });
        let Some(process) = self.process(node).filter(|process| process.up.get(&peer) == Some(&epoch)) else {
            return;
        };
        process.up.remove(&peer);
        let streams = self.dead_upstreams(node, peer, epoch);
        let mut events = vec![Event::PeerDown { peer: self.nodes[peer].id }];
        events.extend(streams.into_iter().map(|stream| Event::UpstreamClosed { stream }));
        // The tasks of the streams and of the connection notice in any order.
        events.shuffle(&mut self.rng);
        for event in events {
            self.feed(node, event);
        }
    }

    pub fn follower_opened(
        &mut self,
        node: usize,
        stream: StreamId,
        follower: usize,
        site: SiteId,
        after: u64,
    ) {
        let disk = &self.nodes[node].disk;
        let more = site == disk.site && after > disk.held(site);
        if let Some(process) = self.process(node) {
            process.told_more |= more;
        }
        let peer = self.nodes[follower].id;
        self.feed(node, Event::FollowerOpened { stream, peer, site, after: Version(after) });
    }

    fn read(&mut self, node: usize, number: u64) {
        while let Some((stream, frame)) = self.read_frame(number) {
            let held = self.nodes[node].disk.held(frame.site);
            let found = self.network.stream(number).expect("the stream that was just read");
            let (version, size) = (frame.version.0, frame.size());
            if version > held && found.unapplied.iter().all(|(waiting, _)| *waiting < version) {
                found.unapplied.push((version, size));
                let waiting: usize = found.unapplied.iter().map(|(_, bytes)| bytes).sum();
                if waiting > RECEIVE_WINDOW + size {
                    self.objection("I7: too much waits to be applied");
                }
            }
            self.feed(node, Event::Received { stream, frame });
        }
    }

    fn read_log(&mut self, node: usize, stream: StreamId, site: SiteId, after: u64) {
        let event = if self.healed.is_none() && self.rng.random_bool(self.conditions.unreadable) {
            self.count("log unreadable");
            Event::LogUnreadable { stream }
        } else {
            let frames = self.nodes[node].disk.read(site, after, READ_SIZE);
            if frames.iter().any(|frame| frame.after.0 + 1 < frame.version.0) {
                self.count("overwritten version left out");
            }
            Event::LogRead { stream, frames }
        };
        let delay = self.upto(self.conditions.news_delay * 2);
        self.later(node, delay, AtNode::Core(event));
    }

    /// Tells the core, and does what it says.
    pub fn feed(&mut self, node: usize, event: Event) {
        self.say(|_| format!("{node} <- {}", brief(&event)));
        self.trace((node, std::mem::discriminant(&event)));
        let own = self.nodes[node].disk.site;
        let now = self.now;
        let Node { disk, process: Some(process), .. } = &mut self.nodes[node] else { return };
        match &event {
            Event::LogRead { stream, .. } | Event::LogUnreadable { stream } => {
                process.reading.remove(stream);
            }
            Event::SiteRenewed { .. } => process.renewing = false,
            Event::Applied { .. } => {
                process.applying = false;
                for number in process.upstreams.values() {
                    if let Some(stream) = self.network.streams.get_mut(number) {
                        let held = disk.held(stream.site);
                        stream.unapplied.retain(|(version, _)| *version > held);
                    }
                }
            }
            _ => {}
        }
        process.core.handle(event, now - process.started);
        let actions = process.core.actions();
        let tally = process.core.tally();
        let settled = process.core.is_settled();
        let was_settled = std::mem::replace(&mut process.settled, settled);
        let (told_more, answered, renewed) = (process.told_more, process.first_answer, process.renewed);
        if settled && told_more {
            self.objection(&format!(
                "I2: node {node} is settled though a peer knows more of its log {own:?}"
            ));
        }
        if settled && !was_settled && !renewed {
            if answered.is_none() {
                self.objection(&format!("I2: node {node} settled though nobody has answered"));
            }
            if answered.is_some_and(|first| now < first + OTHERS) {
                self.count("settled at the first answers");
            }
        }
        for what in tally.values() {
            self.count_by("push refused", what.pushes_refused);
            self.count_by("duplicate frame", what.duplicates);
        }
        for action in actions {
            self.perform(node, action);
        }
    }

    fn perform(&mut self, node: usize, action: Action) {
        self.say(|_| format!("{node} -> {}", brief(&action)));
        match action {
            Action::SendHeads { peer, site, vector, reading } => {
                self.judge_heads(node, &vector, reading);
                self.datagram(node, usize::from(peer.0[0]), (site, vector.as_ref().clone(), reading));
            }
            Action::Retire { site } => self.on_disk(node, Op::Retire { site }),
            Action::Follow { stream, peer, site, after } => {
                self.count("follow");
                let (from, to) = (node, usize::from(peer.0[0]));
                let writes = |node: &Node| node.disk.site == site;
                let writer = self.nodes.iter().find(|node| writes(node)).map(|node| node.region);
                if writer.is_some_and(|region| region != self.nodes[from].region)
                    && self.nodes[to].region == self.nodes[from].region
                {
                    self.count("followed through a relay");
                }
                self.open_stream(node, usize::from(peer.0[0]), stream, site, after.0);
            }
            Action::Unfollow { stream } => self.stop_following(node, stream),
            Action::Credit { stream, bytes } => {
                let number = self.process(node).and_then(|process| process.upstreams.get(&stream).copied());
                let Some(number) = number else { return };
                let Some(found) = self.network.stream(number) else { return };
                let Some(outstanding) = found.outstanding.checked_sub(bytes) else {
                    self.objection("I7: credit for more than was received");
                };
                found.outstanding = outstanding;
                self.later(node, Time::ZERO, AtNode::Readable { stream: number });
            }
            Action::Send { stream, frames } => self.send(node, stream, frames),
            Action::ReadLog { stream, site, after } => {
                if !self.process(node).is_none_or(|process| process.reading.insert(stream)) {
                    self.objection("I7: two reads for one follower");
                }
                self.count("log read");
                let delay = self.upto(self.conditions.disk_delay);
                self.later(node, delay, AtNode::ReadLog { name: stream, site, after: after.0 });
            }
            Action::CloseFollower { stream } => self.close_follower(node, stream),
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
            Action::RenewSite => {
                let now = self.now;
                if let Some(process) = self.process(node) {
                    let nobody = process.first_answer.is_none() && now - process.started >= PATIENCE;
                    let needed = process.told_more || nobody;
                    let told_more = process.told_more;
                    if std::mem::replace(&mut process.renewing, true) || !needed {
                        self.objection(&format!("node {node} renews its site id without need"));
                    }
                    self.count(if told_more {
                        "renewed: peer knows more"
                    } else {
                        "renewed: nobody answered"
                    });
                }
                self.on_disk(node, Op::Renew);
            }
            Action::Settled => self.count("settled"),
        }
    }

    fn send(&mut self, node: usize, name: StreamId, frames: Vec<Arc<Frame>>) {
        let number = self.process(node).and_then(|process| process.followers.get(&name).copied());
        let Some(number) = number else { return };
        let Some(stream) = self.network.stream(number) else { return };
        let largest = frames.iter().map(|frame| frame.size()).max().unwrap_or(0);
        stream.unsent += frames.iter().map(|frame| frame.size()).sum::<usize>();
        let unsent = stream.unsent;
        for frame in &frames {
            if frame.after.0 > stream.handed || frame.version.0 <= stream.handed {
                self.objection("I3: a frame is sent that does not follow the one before");
            }
            stream.handed = frame.version.0;
        }
        if unsent > SEND_WINDOW + largest {
            self.objection(&format!("I7: {unsent} bytes wait to be sent to one follower"));
        }
        if unsent > SEND_WINDOW / 2 {
            self.count("follower half a window behind");
        }
        self.judge_crossing(number, &frames);
        self.enqueue(number, frames);
    }

    fn on_disk(&mut self, node: usize, operation: Op) {
        let takes = self.upto(self.conditions.disk_delay);
        let now = self.now;
        let Some(process) = self.process(node) else { return };
        process.operations.push_back(operation);
        process.disk_free = process.disk_free.max(now) + takes;
        let delay = process.disk_free - now;
        self.later(node, delay, AtNode::Disk);
    }

    /// Tells the core of something that the disk has done; the news keep their order.
    fn news(&mut self, node: usize, event: Event) {
        let takes = self.upto(self.conditions.news_delay);
        let now = self.now;
        let Some(process) = self.process(node) else { return };
        process.news_free = process.news_free.max(now + takes);
        let delay = process.news_free - now;
        self.later(node, delay, AtNode::Core(event));
    }

    fn committed(&mut self, node: usize, mut frames: Vec<Arc<Frame>>) {
        if self.healed.is_none() && self.rng.random_bool(self.conditions.missed_news) {
            self.count("news of a commit missed");
            frames.clear();
        }
        let vector = Arc::new(self.nodes[node].disk.vector());
        self.news(node, Event::Committed { frames, vector });
    }

    /// The disk has done the next operation.
    fn operate(&mut self, node: usize) {
        let now = self.now;
        let Some(process) = self.process(node) else { return };
        let Some(operation) = process.operations.pop_front() else { return };
        let refuses = process.refuses_until > now;
        match operation {
            Op::Write { .. } if refuses => self.count("write refused"),
            Op::Write { changes } => {
                let frame = self.nodes[node].disk.write(changes);
                self.count("commit");
                self.note_version(node, &frame);
                self.committed(node, vec![frame]);
            }
            Op::Apply { .. } if refuses => {
                self.count("batch refused");
                self.news(node, Event::Applied { ok: false });
            }
            Op::Apply { frames } => self.apply(node, &frames),
            Op::Retire { .. } if refuses => {}
            Op::Retire { site } => {
                let (id, disk) = (self.nodes[node].id, &mut self.nodes[node].disk);
                let row = retirement(site, disk.held(site), disk.site, id);
                let frame = disk.write(vec![row]);
                self.count("former site retired further");
                self.note_version(node, &frame);
                self.committed(node, vec![frame]);
            }
            Op::Renew => {
                let old = self.nodes[node].disk.site;
                let new = SiteId(self.rng.random());
                self.say(|_| format!("{node} goes on as {new:?}"));
                for frame in self.nodes[node].disk.renew(new) {
                    self.count("version went over to the new site");
                    self.note_version(node, &frame);
                }
                let (id, disk) = (self.nodes[node].id, &mut self.nodes[node].disk);
                if disk.held(old) > 0 {
                    let row = retirement(old, disk.held(old), new, id);
                    let frame = disk.write(vec![row]);
                    self.note_version(node, &frame);
                    self.committed(node, vec![frame]);
                }
                self.note_lost();
                if let Some(process) = self.process(node) {
                    (process.told_more, process.renewed) = (false, true);
                }
                let vector = Arc::new(self.nodes[node].disk.vector());
                self.news(node, Event::SiteRenewed { site: new, vector });
            }
        }
    }

    /// Judges a version that a node has just written (I2).
    fn note_version(&mut self, node: usize, frame: &Frame) {
        Retirement::of(frame).for_each(|retirement| self.retired.learn(retirement));
        match self.history.written(frame) {
            Fresh::New => {}
            Fresh::ReusedUnseen => self.count("known limit: version reused that nobody had"),
            // The node was not told, or it would not be settled: see `feed`.
            Fresh::Reused => {
                if self.history.taint(frame.site) {
                    self.count("known limit: site reused unawares");
                }
            }
        }
        self.committed.insert((frame.site, frame.version.0), (self.now, node));
    }

    /// Merges frames as the real database does, with the judge looking on.
    fn apply(&mut self, node: usize, frames: &[Arc<Frame>]) {
        let mut applied = Vec::new();
        for frame in frames {
            let held = self.nodes[node].disk.held(frame.site);
            let vector = self.nodes[node].disk.vector();
            for retirement in Retirement::of(frame) {
                self.count("retirement applied");
                if !retirement.is_met(&vector) {
                    self.objection(&format!(
                        "node {node} is to apply {retirement:?} before what it vouches for"
                    ));
                }
            }
            match self.nodes[node].disk.apply(frame) {
                Outcome::Duplicate => self.count("duplicate"),
                Outcome::Gap => self.count("gap"),
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
            self.committed(node, applied);
        }
        self.news(node, Event::Applied { ok: true });
    }

    /// A node writes, if it may, and will again.
    pub fn write_now_and_then(&mut self, node: usize) {
        if self.healed.is_some() {
            return;
        }
        let next = self.upto(self.conditions.write_every * 2);
        self.after(next, Happening::Write { node });
        self.write(node);
    }

    pub fn write(&mut self, node: usize) {
        if !self.nodes[node].process.as_ref().is_some_and(|process| !process.paused && process.settled) {
            return;
        }
        let (versions, size) = if self.rng.random_bool(self.conditions.burst) {
            self.count("burst");
            (self.rng.random_range(8..40), 64 << 10)
        } else if self.rng.random_bool(self.conditions.burst / 4.0) {
            self.count("frame larger than a window");
            (1, SEND_WINDOW + (100 << 10))
        } else {
            let most = if self.conditions.stalled.is_some() { 40 << 10 } else { 600 };
            (1, self.rng.random_range(8..most))
        };
        for _ in 0..versions {
            let changes = (0..self.rng.random_range(1..=3)).map(|part| self.row(part, size)).collect();
            self.on_disk(node, Op::Write { changes });
        }
    }

    /// A change to a fresh row or to one of a few that are written over and over.
    fn row(&mut self, part: u32, size: usize) -> Change {
        self.next_content += 1;
        let content = self.next_content;
        let again = self.rng.random_bool(0.3);
        let key = if again { part * 2 + self.rng.random_range(0..2) } else { 1_000 + content as u32 };
        change(key, content, if part == 0 { size } else { 20 })
    }
}

/// The beginning of a description: frames are long.
fn brief(what: &impl std::fmt::Debug) -> String {
    format!("{what:?}").chars().take(160).collect()
}
