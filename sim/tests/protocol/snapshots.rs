//! Snapshots, as far as they touch the protocol: a node that takes one follows no log and takes no write meanwhile, and then
//! has another disk and site. How the bytes come over is `mychat_replication::snapshot`'s matter.

use mychat_replication::{log::SiteId, protocol::Event};
use mychat_sim::virtual_time::{Driver, Time, millis};

use crate::{
    disk::Disk,
    driver::Op,
    world::{AtNode, World},
};

/// How often a peer is asked whether it holds what the node does.
const ASKS_EVERY: Time = millis(100);
/// How many times.
const TRIES: u32 = 20;

impl World {
    /// A node begins to take a snapshot of `peer`, which takes so long.
    pub fn takes_snapshot(&mut self, node: usize, peer: usize, takes: Time) {
        let ready =
            |process: &crate::world::Process| process.settled && !process.renewing && !process.snapshot;
        if !self.nodes[node].process.as_ref().is_some_and(ready) {
            return;
        }
        self.stage.count("snapshot begun");
        if let Some(process) = self.process(node) {
            process.snapshot = true;
        }
        self.feed(node, Event::HoldFollowing { hold: true });
        self.stage.later(node, ASKS_EVERY, AtNode::AsksForSnapshot { peer, tries: TRIES, takes });
    }

    /// The peer makes a copy of its disk once it holds what the node does.
    pub fn asks_for_snapshot(&mut self, node: usize, peer: usize, tries: u32, takes: Time) {
        let (theirs, own) = (&self.nodes[peer], &self.nodes[node].disk);
        if theirs.process.is_some() && theirs.disk.vector().covers(&own.vector()) {
            let copy = Box::new(theirs.disk.clone());
            self.stage.later(node, takes, AtNode::HasSnapshot { copy });
        } else if tries > 0 {
            let again = AtNode::AsksForSnapshot { peer, tries: tries - 1, takes };
            self.stage.later(node, ASKS_EVERY, again);
        } else {
            self.stage.count("snapshot given up");
            self.snapshot_is_over(node);
        }
    }

    /// It has come.
    pub fn has_snapshot(&mut self, node: usize, copy: Box<Disk>) {
        self.on_disk(node, Op::Adopt { copy });
    }

    /// The copy takes the place of the disk, unless that holds something which it lacks.
    pub fn adopts(&mut self, node: usize, copy: Disk) {
        let disk = &self.nodes[node].disk;
        if !copy.vector().covers(&disk.vector()) {
            self.stage.count("snapshot lacks something");
            return self.snapshot_is_over(node);
        }
        self.stage.count("snapshot adopted");
        let old = disk.site;
        let new = SiteId(self.stage.chance.bytes());
        self.stage.say(|| format!("{node} has a snapshot, and goes on as {new:?}"));
        for (site, held, _) in copy.sites() {
            self.history.resurrect(site, 0, held);
        }
        self.nodes[node].disk = copy.written_by(new);
        self.committed(node, Vec::new(), false);
        self.goes_on(node, old);
        self.snapshot_is_over(node);
    }

    fn snapshot_is_over(&mut self, node: usize) {
        if let Some(process) = self.process(node) {
            process.snapshot = false;
        }
        self.news(node, Event::HoldFollowing { hold: false });
    }
}
