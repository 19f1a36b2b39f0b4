//! What must hold of single messages: how long they take, how often they cross, and that heads say what is so.

use std::sync::Arc;

use mychat_replication::{
    log::{Frame, SiteId, VersionVector},
    protocol::{Reading, StreamId},
};
use mychat_sim::virtual_time::id;

use crate::world::World;

impl World {
    /// Where nothing else takes time, a commit is elsewhere exactly one way later.
    pub fn judge_latency(&mut self, node: usize, frame: &Frame) {
        let (at, writer) = self.committed[&(frame.site, frame.version.0)];
        if !self.conditions.ideal || [Some(node), Some(writer)].contains(&self.conditions.stalled) {
            return;
        }
        self.stage.count("latency judged");
        let mut way = self.stage.network.link(writer, node).latency;
        if let Some(relay) = self.relay(writer, node, frame.site) {
            self.stage.count("latency through a relay");
            way =
                self.stage.network.link(writer, relay).latency + self.stage.network.link(relay, node).latency;
        }
        if self.stage.now() != at + way {
            let took = self.stage.now() - at;
            self.objection(&format!("{took:?} from {writer} to {node}, which are {way:?} apart"));
        }
    }

    /// Through whom a site comes to a node in another region, when all are there: the rule, told once more.
    fn relay(&self, writer: usize, node: usize, site: SiteId) -> Option<usize> {
        let region = self.stage.seats[node].region;
        if self.nodes.len() <= self.conditions.relay_above || self.stage.seats[writer].region == region {
            return None;
        }
        let distance = |number: &usize| -> Vec<u8> {
            id(*number).0.iter().zip(site.0).map(|(node, site)| node ^ site).collect()
        };
        let there = (0..self.nodes.len()).filter(|number| self.stage.seats[*number].region == region);
        there.min_by_key(distance).filter(|relay| *relay != node)
    }

    /// Heads must say nothing that is not on the disk, however they are read. How compact ones are read is the one thing
    /// that is taken from the crate: its own property tests judge that.
    pub fn judge_heads(&mut self, node: usize, vector: &VersionVector, reading: Reading) {
        let disk = &self.nodes[node].disk;
        let read = match reading {
            Reading::Compact { .. } => self.retired.expand(vector),
            Reading::Old | Reading::Whole => vector.clone(),
        };
        let held = disk.vector();
        if let Some((site, version)) = read.iter().find(|(site, version)| held.get(*site) < *version)
            && !self.history.is_anything_tainted()
        {
            self.objection(&format!("node {node} says that it holds {version} of {site:?}"));
        }
        if matches!(reading, Reading::Compact { .. }) {
            self.stage.count("heads that leave out retired sites");
        }
        self.nodes[node].told = vector.len();
    }

    /// Where nothing fails, nothing goes to another region twice.
    pub fn judge_crossing(&mut self, node: usize, stream: StreamId, frames: &[Arc<Frame>]) {
        let Some(follower) = self.stage.follower(node, stream) else { return };
        let region = self.stage.seats[follower].region;
        if !self.conditions.ideal || self.stage.seats[node].region == region {
            return;
        }
        for frame in frames {
            self.stage.count("frame to another region");
            let times = self.crossings.entry((frame.site, frame.version.0, region)).or_default();
            *times += 1;
            if *times > 1 && self.conditions.relay_above < self.nodes.len() {
                self.objection("a frame crosses between two regions twice");
            }
        }
    }
}
