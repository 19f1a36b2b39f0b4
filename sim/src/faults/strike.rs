//! What goes wrong, and what operators do.

use super::{
    node::{Done, Process},
    oracle::Rule,
    plan::Fault,
    world::{AtNode, Happening, SPARE, World},
};
use crate::virtual_time::{Time, Weather, millis, seconds};

/// Nodes that must stay, or there is nobody to be apart from.
const LEAST: usize = 3;

impl World {
    /// Lets something go wrong.
    pub fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Partition { a, b, lasts } => {
                self.stage.count("fault: partition of two");
                self.stage.block(a, b, lasts);
                self.stage.block(b, a, lasts);
            }
            Fault::Isolate { node, lasts } => {
                self.stage.count("fault: partition of one from all");
                self.stage.isolate(node, lasts);
            }
            Fault::OneWay { from, to, lasts } => {
                self.stage.count("fault: partition one way");
                self.stage.block(from, to, lasts);
            }
            Fault::Cut { a, b } => {
                self.stage.count("fault: connections broken");
                self.stage.cut(a, b);
                self.stage.cut(b, a);
            }
            Fault::Weather { loss, duplicate, jitter, lasts } => {
                self.stage.count("fault: loss, duplication, reordering");
                self.stage.network.weather =
                    Weather { until: self.stage.now() + lasts, loss, duplicate, jitter };
            }
            Fault::Crash { node, lasts, torn } => {
                let Some(process) = self.process(node) else { return };
                if torn > 0 && !process.working {
                    // With its next commit, if there is one soon.
                    process.dies_with = Some((torn, lasts));
                    return self.stage.later(node, seconds(3), AtNode::DiesAnyhow { lasts });
                }
                self.dies(node, lasts, torn);
            }
            Fault::Copy { node } => self.copy(node),
            Fault::Restore { node, lasts } => {
                if self.nodes[node].copy.is_some() && self.crash(node, 0) {
                    self.nodes[node].restores = true;
                    self.stage.after(lasts, Happening::Restart { node });
                }
            }
            Fault::SlowDisk { node, takes, lasts } => {
                self.stage.count("fault: slow disk");
                self.nodes[node].disk.slow = (takes, self.stage.now() + lasts);
            }
            Fault::FullDisk { node, lasts } => {
                self.stage.count("fault: full disk");
                self.nodes[node].disk.full_until = self.stage.now() + lasts;
            }
            Fault::Clock { node, ahead } => {
                self.stage.count("fault: clock set");
                self.nodes[node].ahead = ahead;
            }
            Fault::Join => {
                if self.nodes.len() < self.plan.nodes + SPARE {
                    self.stage.count("fault: node joins");
                    self.add_node();
                }
            }
            Fault::Leave { node } => self.leave(node),
            Fault::Upgrade { node } => {
                if !self.nodes[node].upgraded && self.crash(node, 0) {
                    self.stage.count("fault: node upgraded");
                    self.nodes[node].upgraded = true;
                    self.stage.after(millis(500), Happening::Restart { node });
                }
            }
        }
    }

    /// A process dies and is started again later; not one that is about to leave.
    pub fn dies(&mut self, node: usize, lasts: Time, torn: u64) -> bool {
        let dies = self.crash(node, torn);
        if dies {
            self.stage.count("fault: crash");
            self.stage.after(lasts, Happening::Restart { node });
        }
        dies
    }

    fn copy(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if node.process.is_none() {
            return;
        }
        match node.disk.back_up() {
            Ok(copy) => node.copy = Some((copy, node.vector.clone())),
            Err(error) => return self.stage.object(Rule::Panic, format!("no copy: {error}")),
        }
        self.stage.count("fault: database copied");
    }

    /// A process dies. Of a commit that the disk is about to make, `torn` (of a thousand) parts are in the log by then.
    fn crash(&mut self, number: usize, torn: u64) -> bool {
        if self.nodes[number].process.is_none() || self.nodes[number].leaving {
            return false;
        }
        let before = self.nodes[number].disk.written();
        let mut kept = before;
        let working = self.process(number).is_some_and(|process| process.working);
        if torn > 0 && working {
            kept = self.dies_in_a_commit(number, before, torn);
        }
        self.leave_alone(number);
        self.stage.stop(number);
        let machine_too = self.fate.happens(0.5);
        self.stage.count(if machine_too { "crash of a machine" } else { "crash of a process" });
        let node = &mut self.nodes[number];
        if machine_too {
            node.machine.vouch(None);
            if kept == before {
                // What waited for no disk may be in the memory alone.
                let unsynced = before.saturating_sub(node.disk.durable());
                kept = before - self.fate.below(unsynced + 1);
                self.stage.count_by("crash that loses what was not synced", u64::from(kept < before));
            }
        }
        if let Some(process) = node.process.take() {
            process.worker.kill();
        }
        let crashed = node.disk.crash(kept);
        self.stage.say(|| format!("{number} dies; {kept} bytes of the log are kept"));
        if let Err(error) = crashed {
            self.stage.object(Rule::Panic, format!("no crash: {error}"));
        }
        true
    }

    /// The process dies while the disk makes a commit. What was answered up to there had been answered.
    fn dies_in_a_commit(&mut self, number: usize, before: u64, torn: u64) -> u64 {
        let node = &mut self.nodes[number];
        let Some(process) = &mut node.process else { return before };
        let noted = node.machine.noted();
        process.worker.work();
        let after = node.disk.written();
        if after < before {
            // The log began anew, so all of it is in the database.
            return after;
        }
        let kept = before + (after - before) * torn / 1_000;
        if kept < after {
            // It has not come to that.
            node.machine.vouch(noted);
        }
        self.stage.count(if kept == after {
            "crash after a commit, unannounced"
        } else {
            "crash within a commit"
        });
        let site = self.nodes[number].site;
        while let Some(process) = self.process(number)
            && let Ok(commit) = process.commits.try_recv()
        {
            // Nobody hears of them; but should the disk have kept them, they are what was written.
            for frame in commit.frames.iter().filter(|frame| frame.site == site) {
                self.ledger.written(frame);
            }
        }
        for (done, log) in self.poll_tasks(number) {
            if let Done::Answer(answer) = done
                && let Some(place) = answer.place
                && log <= kept
            {
                self.stage.count("write answered just before a crash");
                self.ledger.acknowledge(place);
            }
        }
        kept
    }

    /// A node that is down starts again.
    pub fn restart(&mut self, number: usize) {
        if self.nodes[number].process.is_some() || self.stage.seats[number].left {
            return;
        }
        self.last_busy = self.stage.now();
        let node = &mut self.nodes[number];
        let restored = std::mem::take(&mut node.restores);
        if restored && let Some((copy, vector)) = &node.copy {
            if let Err(error) = node.disk.restore(copy) {
                return self.stage.object(Rule::Panic, format!("no copy to restore: {error}"));
            }
            (node.vector, node.went_back) = (vector.clone(), true);
            self.stage.count("fault: older copy restored");
            if self.fate.happens(0.5) {
                // The whole folder is the copy; else the database alone was put back.
                node.machine.vouch(None);
            }
            self.forget_lost("version lost with the only disk");
        }
        self.start(number);
        self.has_kept_what_was_answered(number, restored);
        self.forget_lost("version lost unannounced");
    }

    /// Judges what is left after a crash (I1).
    fn has_kept_what_was_answered(&mut self, number: usize, restored: bool) {
        let site = self.nodes[number].site;
        let vector = self.nodes[number].vector.get(site).0;
        let answered = self.ledger.acknowledged_head(site);
        if !self.nodes[number].went_back && vector < answered {
            self.stage.object(
                Rule::Durable,
                format!(
                    "node {number} has {vector} versions of {site:?} after a crash, and had answered for {answered}"
                ),
            );
        }
        let node = &mut self.nodes[number];
        if restored {
            node.told = node.vector.clone();
        } else if !node.vector.covers(&node.told) {
            let what = format!(
                "node {number} has {:?} after a crash, and had told others that {:?} was on its disk",
                node.vector, node.told
            );
            self.stage.object(Rule::Durable, what);
        }
        if !restored {
            self.audit(number);
        }
    }

    /// What no disk holds any more need not be anywhere.
    fn forget_lost(&mut self, what: &'static str) {
        let disks: Vec<_> = self.nodes.iter().map(|node| &node.vector).collect();
        let lost = self.ledger.lose(&disks);
        self.stage.count_by(what, lost as u64);
    }

    /// A node leaves for good once the others have all that it wrote.
    fn leave(&mut self, node: usize) {
        let staying = self.nodes.iter().filter(|node| !node.leaving).count();
        if staying > LEAST && !self.nodes[node].leaving && self.nodes[node].process.is_some() {
            self.stage.count("fault: node leaves");
            self.nodes[node].leaving = true;
            self.leave_alone(node);
            self.stage.after(millis(500), Happening::MayLeave { node });
        }
    }

    /// Whether the others have what a leaving node wrote.
    pub fn may_leave(&mut self, number: usize) {
        if !self.nodes[number].leaving || self.stage.seats[number].left {
            return;
        }
        if self.nodes[number].process.is_none() {
            return self.stage.after(millis(500), Happening::MayLeave { node: number });
        }
        let vector = &self.nodes[number].vector;
        let have = |(at, node): (usize, &super::node::Node)| {
            let has = |process: &Process| process.store.durable().covers(vector);
            at == number || self.stage.seats[at].left || node.process.as_ref().is_some_and(has)
        };
        if self.is_waiting(number) || !self.nodes.iter().enumerate().all(have) {
            return self.stage.after(millis(500), Happening::MayLeave { node: number });
        }
        self.nodes[number].leaving = false;
        self.crash(number, 0);
        (self.stage.seats[number].left, self.nodes[number].leaving) = (true, true);
        self.stage.count("node left");
    }

    /// In the end everybody runs the newest release.
    pub fn upgrade_last(&mut self, node: usize) {
        self.nodes[node].upgraded = true;
        self.crash(node, 0);
        self.restart(node);
    }

    /// Ends all faults.
    pub fn heal(&mut self) {
        self.healed = Some(self.stage.now());
        self.last_busy = self.stage.now();
        self.stage.say(|| "everything is mended".into());
        self.stage.network.weather = Weather::default();
        self.stage.mend();
        for number in 0..self.nodes.len() {
            let node = &mut self.nodes[number];
            (node.disk.slow.1, node.disk.full_until) = (Time::ZERO, Time::ZERO);
            node.leaving &= self.stage.seats[number].left;
            self.restart(number);
        }
        for client in 0..self.people.len() {
            self.wake(client);
        }
        self.stage.after(millis(500), Happening::Poll);
    }
}
