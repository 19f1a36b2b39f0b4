//! The judge: what must hold at any time, and what must hold once everything is healed.

use std::fmt::Write;

use mychat_sim::virtual_time::{Time, millis};

use crate::world::{Happening, World};

/// How long after healing all nodes must be equal: patience with absent peers, pauses, and the slowest link.
const LEVEL_WITHIN: Time = millis(120_000);

impl World {
    /// Judges the content of a node's disk (I4). When all disks are `complete`, equal vectors must mean equal rows.
    pub fn audit(&mut self, node: usize, complete: bool) {
        let mut excused = 0;
        for (site, held, rows) in self.nodes[node].disk.sites() {
            if held > self.history.head(site) && !self.history.is_tainted(site) {
                self.objection(&format!("node {node} holds {held} of {site:?}, more than was written"));
            }
            match self.history.judge(site, held, &rows, complete) {
                Ok(rows) => excused += rows,
                Err(what) => self.objection(&format!("at node {node}: {what}")),
            }
        }
        self.stage.count_by("known limit: row overwritten by a lost version", excused as u64);
    }

    /// After healing: looks whether all nodes are level; then each writes once more, and they must be level again.
    pub fn poll(&mut self) {
        let healed = self.healed.unwrap_or_default();
        if self.stage.now() > healed + LEVEL_WITHIN {
            let told: Vec<usize> = self.nodes.iter().map(|node| node.told).collect();
            self.stage.say(|| format!("heads have {told:?} entries"));
            self.objection("liveness: the nodes are not level long after everything was healed");
        }
        let first = self.nodes[0].disk.vector();
        let level = self.nodes.iter().all(|node| {
            let idle = |process: &crate::world::Process| {
                process.settled && !process.snapshot && process.operations.is_empty()
            };
            node.process.as_ref().is_some_and(idle) && node.disk.vector() == first
        });
        // Every former site is retired by and by, so that heads name the sites that are written and no others.
        let bounded = self.nodes.iter().all(|node| node.told <= self.nodes.len());
        if level && self.epilogue && (bounded || self.conditions.restored.is_none()) {
            self.conclude();
            return;
        }
        if level {
            self.level_after = self.stage.now() - healed;
            self.epilogue = true;
            for node in 0..self.nodes.len() {
                self.write(node);
            }
        }
        self.stage.after(millis(50), Happening::Poll);
    }

    /// All vectors are equal: so must be what is on the disks, and it must be all that was acknowledged.
    fn conclude(&mut self) {
        for node in 0..self.nodes.len() {
            self.audit(node, true);
        }
        for site in self.history.sites() {
            let (held, head) = (self.nodes[0].disk.held(site), self.history.head(site));
            if held < head && !self.history.is_tainted(site) {
                self.objection(&format!(
                    "{site:?} ends at {held}, but {head} was acknowledged and never lost"
                ));
            }
        }
        let contents: Vec<Vec<_>> = self
            .nodes
            .iter()
            .map(|node| node.disk.sites().filter(|(site, ..)| self.history.is_whole(*site)).collect())
            .collect();
        if contents.iter().any(|content| *content != contents[0]) {
            self.objection("I4: equal vectors, but the disks differ");
        }
        self.stage.count_by("site held at the end", self.nodes[0].disk.vector().len() as u64);
        self.stage.count_by("node", self.nodes.len() as u64);
        self.done = true;
    }

    /// The state of all nodes, for whoever looks into a failure.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let _ = writeln!(text, "node {number}, site {:?}: {:?}", node.disk.site, node.disk.vector());
            if let Some(process) = &self.stage.seats[number].process {
                let core: String = format!("{:?}", process.core).chars().take(4_000).collect();
                let _ = writeln!(text, "  up {:?} paused {} core {core}", process.up, process.paused);
            }
        }
        text
    }
}
