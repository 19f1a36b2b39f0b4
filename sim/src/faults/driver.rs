//! The driver of one node: it tells the core what happens, and does what the core says, as `replica/task.rs` does in
//! production; and it lets the store work when the disk has had its time.

use std::sync::Arc;

use futures_util::FutureExt;
use mychat_replication::{
    log::{Version, VersionVector},
    protocol::{Action, Event, READ_SIZE, Reading},
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
    world::{AtNode, Happening, Time, World, millis, seconds},
};

/// How often the core is told the time, while something goes on.
const TICK: Time = millis(100);
/// How often while nothing has happened for a while: the scheduler of a machine that sleeps.
const SLEEPY_TICK: Time = millis(1_000);
/// After how long that is.
const SLEEPY: Time = seconds(4);

impl World {
    /// How long until the core is told the time again.
    pub fn tick(&self) -> Time {
        if self.now.saturating_sub(self.last_busy) > SLEEPY && self.healed.is_none() {
            SLEEPY_TICK
        } else {
            TICK
        }
    }

    /// Something happens at a node.
    pub fn at_node(&mut self, number: usize, event: AtNode) {
        let now = self.now;
        let node = &mut self.nodes[number];
        node.machine.set(now, node.ahead);
        match event {
            AtNode::Core(event) => self.feed(number, event),
            AtNode::Tick => {
                self.feed(number, Event::Tick);
                let next = self.tick();
                self.later(number, next, AtNode::Tick);
            }
            AtNode::Connected { peer, epoch } => self.connected(number, peer, epoch),
            AtNode::Disconnected { peer, epoch } => self.disconnected(number, peer, epoch),
            AtNode::Datagram { peer, epoch, site, vector, reading } => {
                let link = self.network.link(peer, number);
                if !link.up || link.epoch != epoch {
                    return;
                }
                let (own, id) = (self.nodes[number].site, self.nodes[peer].id);
                let held = self.nodes[number].vector.get(own);
                let Some(process) = self.process(number) else { return };
                if !process.up.contains_key(&peer) {
                    return;
                }
                if !matches!(reading, Reading::Compact { reader } if reader != own) {
                    process.answered = true;
                    process.told_more |= vector.get(own) > held;
                }
                let vector = vector.as_ref().clone();
                self.feed(number, Event::Heads { peer: id, site, vector, reading, complete: true });
                self.look_whether_it_serves(number);
            }
            AtNode::Opened { stream } => {
                let Some((name, peer, site, after)) = self.was_opened(number, stream) else { return };
                let more = site == self.nodes[number].site && after > self.nodes[number].vector.get(site).0;
                if let Some(process) = self.process(number) {
                    process.told_more |= more;
                }
                let peer = self.nodes[peer].id;
                let after = Version(after);
                self.feed(number, Event::FollowerOpened { stream: name, peer, site, after });
            }
            AtNode::Arrived { stream } => {
                self.arrive(stream);
                self.read(number, stream);
            }
            AtNode::Readable { stream } => self.read(number, stream),
            AtNode::Reset { stream } => {
                if let Some(stream) = self.was_reset(number, stream) {
                    self.feed(number, Event::FollowerClosed { stream });
                }
            }
            AtNode::Closed { stream } => {
                if let Some(stream) = self.was_closed(number, stream) {
                    self.feed(number, Event::UpstreamClosed { stream });
                }
            }
            AtNode::Sent { stream, bytes } => {
                if let Some(stream) = self.was_sent(stream, bytes) {
                    self.feed(number, Event::Sent { stream, bytes });
                }
            }
            AtNode::ReadLog { name, site, after } => {
                let Some(process) = self.process(number) else { return };
                let read = process.store.read_log(site, Version(after), READ_SIZE).now_or_never();
                let event = match read {
                    Some(Ok(read)) => {
                        let frames = read.frames.into_iter().map(Arc::new).collect();
                        Event::LogRead { stream: name, frames }
                    }
                    _ => Event::LogUnreadable { stream: name },
                };
                self.feed(number, event);
            }
            AtNode::Disk => self.disk_has_worked(number),
            AtNode::Probe => self.probe(number),
            AtNode::DiesAnyhow { lasts } => {
                self.dies(number, lasts, 0);
            }
            AtNode::Request(request) => self.requested(number, request),
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
        let peer = self.nodes[peer].id;
        self.feed(node, Event::PeerUp { peer, rtt, region: "sim".into() });
    }

    fn disconnected(&mut self, node: usize, peer: usize, epoch: u64) {
        let pause = self.chance.upto(millis(400));
        self.after(pause, Happening::Dial { from: node, to: peer });
        let Some(process) = self.process(node).filter(|process| process.up.get(&peer) == Some(&epoch)) else {
            return;
        };
        process.up.remove(&peer);
        let streams = self.dead_upstreams(node, peer, epoch);
        let id = self.nodes[peer].id;
        self.feed(node, Event::PeerDown { peer: id });
        for stream in streams {
            self.feed(node, Event::UpstreamClosed { stream });
        }
    }

    fn read(&mut self, node: usize, number: u64) {
        while let Some((stream, frame)) = self.read_frame(number) {
            self.feed(node, Event::Received { stream, frame });
        }
    }

    /// Tells the core, and does what it says.
    pub fn feed(&mut self, node: usize, event: Event) {
        let now = self.now;
        let Some(process) = self.process(node) else { return };
        process.core.handle(event, now - process.started);
        self.act(node);
    }

    /// Does what the core of a node says.
    pub fn act(&mut self, node: usize) {
        let Some(process) = self.process(node) else { return };
        let actions = process.core.actions();
        for what in process.core.tally().values() {
            self.count_by("push refused", what.pushes_refused);
        }
        for action in actions {
            self.perform(node, action);
        }
    }

    fn perform(&mut self, node: usize, action: Action) {
        match action {
            Action::SendHeads { peer, site, vector, reading } => {
                let to = usize::from(peer.0[0]) - 1;
                self.datagram(node, to, |epoch| AtNode::Datagram {
                    peer: node,
                    epoch,
                    site,
                    vector: Arc::clone(&vector),
                    reading,
                });
            }
            Action::Follow { stream, peer, site, after } => {
                self.open_stream(node, usize::from(peer.0[0]) - 1, stream, site, after.0);
            }
            Action::Unfollow { stream } => self.stop_following(node, stream),
            Action::Credit { stream, bytes } => self.credit(node, stream, bytes),
            Action::Send { stream, frames } => self.send(node, stream, frames),
            Action::ReadLog { stream, site, after } => {
                self.count("log read for a peer");
                let delay = self.nodes[node].disk.delay(self.now, &mut self.wear);
                self.later(node, delay, AtNode::ReadLog { name: stream, site, after: after.0 });
            }
            Action::CloseFollower { stream } => self.close_follower(node, stream),
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
            Action::Settled => {
                self.say(|_| format!("{node} is settled"));
                let went_back = std::mem::take(&mut self.nodes[node].went_back);
                let Some(process) = self.process(node) else { return };
                process.asked = process.answered || process.vector_is_empty();
                process.store.release_writes();
                if went_back && !process.asked && !process.renews {
                    let what = format!("node {node} accepts writes on an older disk and has asked nobody");
                    self.object(Rule::OneContent, what);
                }
            }
        }
    }

    fn renew(&mut self, node: usize) {
        let Some(process) = self.process(node) else { return };
        process.store.hold_writes();
        process.renews = true;
        let told_more = process.told_more;
        let store = process.store.clone();
        self.count(if told_more { "new site: a peer knew more" } else { "new site: nobody answered" });
        let renew = async move { Done::Renewed { ok: store.renew_site().await.is_ok() } };
        self.ask(node, Box::pin(renew));
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
                    self.count("batch refused by a disk");
                }
                self.feed(node, Event::Applied { ok });
            }
            Done::Renewed { ok: false } => self.later(node, seconds(1), AtNode::Core(Event::Tick)),
            Done::Renewed { ok: true } => {
                let Some(process) = self.process(node) else { return };
                process.told_more = false;
                process.answered = true;
                let (site, vector) = (process.store.site(), process.store.vector());
                self.feed(node, Event::SiteRenewed { site, vector });
            }
            Done::Retired => {}
        }
    }

    fn note_write_in_partition(&mut self, node: usize) {
        let cut_off = (0..self.nodes.len())
            .any(|peer| peer != node && self.nodes[peer].process.is_some() && self.is_blocked(node, peer));
        if cut_off {
            self.count("write acknowledged during a partition");
        }
    }

    /// The disk has had its time: the store works, and whoever waits hears of it.
    fn disk_has_worked(&mut self, node: usize) {
        let full = self.nodes[node].disk.full_until > self.now;
        let fate = self.process(node).and_then(|process| process.dies_with.take());
        if fate.is_some_and(|(torn, lasts)| self.dies(node, lasts, torn)) {
            return;
        }
        let Node { disk, process: Some(process), .. } = &mut self.nodes[node] else { return };
        process.working = false;
        disk.limit(&process.worker, full);
        process.worker.work();
        disk.note(&process.worker);
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
        self.say(|_| format!("{node} goes on as {new:?}"));
        self.nodes[node].site = new;
        self.nodes[node].vector.set(old, vector.get(old));
        if moved {
            self.known_limit("known limit: writes were taken before the peer that knew better was there");
        }
    }

    fn committed(&mut self, node: usize, commit: &Commit) {
        self.last_busy = self.now;
        let site = self.nodes[node].site;
        let mut places: Vec<Place> = Vec::new();
        for frame in &commit.frames {
            self.trace.number(u64::from(frame.site.0[0]));
            self.trace.number(frame.version.0);
            let held = self.nodes[node].vector.get(frame.site).0;
            if frame.site == site {
                self.count("version written");
                match self.ledger.written(frame) {
                    Fresh::New => {}
                    Fresh::Reused => self.reused((frame.site, frame.version.0)),
                    Fresh::Clash => self.clash(node, frame.version.0),
                }
            } else {
                self.count("version merged");
                let verdict = self.ledger.merged(frame, held);
                self.judge(|| format!("node {node}"), verdict);
            }
            places.extend((held + 1..=frame.version.0).map(|version| (frame.site, version)));
            self.nodes[node].vector.advance(frame.site, frame.version);
        }
        self.say(|world| format!("{node} holds {:?}", world.nodes[node].vector));
        let missed = self.healed.is_none() && self.chance.happens(0.01);
        if missed {
            self.count("news of a commit missed");
        }
        let frames = if missed { Vec::new() } else { commit.frames.clone() };
        self.feed(node, Event::Committed { frames, vector: Arc::clone(&commit.vector) });
        self.tell_clients(node, &places, (!missed).then(|| vec![Arc::new(commit.clone())]));
    }

    /// A node wrote a version whose number was taken once, by one that is on no disk any more.
    fn reused(&mut self, (site, version): Place) {
        self.count("version reused that no node had");
        let deceived =
            self.people.iter().filter(|person| person.has_seen(site, version, &self.ledger)).count();
        self.count_by("known limit: a client's cursor named a version that was reused", deceived as u64);
    }

    /// A node wrote a version that others hold with another content.
    fn clash(&mut self, node: usize, version: u64) {
        let sound = self.process(node).is_some_and(|process| process.asked && !process.told_more);
        if sound {
            return self.known_limit("known limit: a version was reused that only absent nodes knew");
        }
        let site = self.nodes[node].site;
        self.object(
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
        let peers: Vec<_> = self.nodes.iter().map(|node| node.id).collect();
        let Some(process) = self.process(node).filter(|process| !process.serves) else { return };
        let core = &process.core;
        process.serves = core.is_settled()
            && process.answered
            && !process.vector_is_empty()
            && peers.iter().all(|peer| core.behind(*peer) == 0);
    }

    fn look_at_health(&mut self, node: usize) {
        if self.process(node).is_some_and(|process| !process.worker.is_well()) {
            self.count("disk refused a commit");
            self.later(node, seconds(1), AtNode::Probe);
        }
    }

    fn probe(&mut self, node: usize) {
        let full = self.nodes[node].disk.full_until > self.now;
        let Node { disk, process: Some(process), .. } = &mut self.nodes[node] else { return };
        if process.worker.is_well() {
            return;
        }
        disk.limit(&process.worker, full);
        process.worker.probe();
        disk.note(&process.worker);
        if !process.worker.is_well() {
            self.later(node, seconds(1), AtNode::Probe);
        }
    }
}

impl super::node::Process {
    /// Whether it holds nothing at all.
    pub fn vector_is_empty(&self) -> bool {
        *self.store.vector() == VersionVector::new()
    }
}
