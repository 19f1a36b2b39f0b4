//! What goes wrong, and the end of it.

use rand::RngExt;

use crate::world::{Happening, Time, World, millis};

impl World {
    /// Lets something go wrong, and will again.
    pub fn fault(&mut self) {
        if self.healed.is_some() {
            return;
        }
        let next = self.upto(self.conditions.fault_every * 2);
        self.after(next, Happening::Fault);
        let node = self.rng.random_range(0..self.nodes.len());
        let peer = (node + self.rng.random_range(1..self.nodes.len())) % self.nodes.len();
        let lasts = millis(self.rng.random_range(50..4_000));
        match self.rng.random_range(0..16) {
            0 | 1 => {
                self.count("partition of two");
                self.block(node, peer, lasts);
                self.block(peer, node, lasts);
            }
            2 => {
                self.count("partition of one from all");
                for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
                    self.block(node, peer, lasts);
                    self.block(peer, node, lasts);
                }
            }
            3 => {
                self.count("partition one way");
                self.block(node, peer, lasts);
            }
            4 => {
                self.count("connection of one direction down");
                self.network.link(node, peer).refused_until = self.now + lasts;
                self.cut(node, peer);
            }
            5 => {
                self.count("streams not openable");
                self.network.link(node, peer).deaf_until = self.now + lasts;
            }
            6 => {
                self.count("connection lost");
                self.cut(node, peer);
            }
            7 | 8 => {
                let restore = self.nodes[node].copy.is_some() && self.rng.random_bool(0.7);
                self.crash(node, lasts / 2, restore);
            }
            9 => {
                self.count("restart without anyone to ask");
                for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
                    self.block(node, peer, millis(6_000));
                    self.block(peer, node, millis(6_000));
                }
                self.crash(node, millis(100), false);
            }
            10 => self.pause(node, lasts),
            11 => {
                let until = self.now + lasts / 4;
                if let Some(process) = self.process(node) {
                    process.refuses_until = until;
                    self.count("disk refuses");
                }
            }
            _ => {
                self.count("disk copied");
                self.nodes[node].copy = Some(self.nodes[node].disk.clone());
            }
        }
    }

    /// The same copy of a disk comes back again and again.
    pub fn restore_again(&mut self, node: usize) {
        if self.healed.is_some() {
            return;
        }
        if self.nodes[node].copy.is_none() {
            self.nodes[node].copy = Some(self.nodes[node].disk.clone());
        } else {
            self.crash(node, millis(100), true);
        }
        self.after(millis(1_500), Happening::RestoreAgain { node });
    }

    fn block(&mut self, from: usize, to: usize, lasts: Time) {
        let until = self.now + lasts;
        let link = self.network.link(from, to);
        link.blocked_until = link.blocked_until.max(until);
        self.after(lasts, Happening::Unblock { from, to });
        self.after(self.conditions.idle_timeout, Happening::Silence { from, to });
    }

    /// Connections don't survive a long silence.
    pub fn silence(&mut self, from: usize, to: usize) {
        let asleep = |node: usize| self.nodes[node].process.as_ref().is_none_or(|process| process.paused);
        let asleep = asleep(from) || asleep(to);
        if asleep || self.is_blocked(from, to) || self.is_blocked(to, from) {
            self.count("connection timed out");
            self.cut(from, to);
            self.cut(to, from);
        }
    }

    fn crash(&mut self, node: usize, lasts: Time, restore: bool) {
        if self.nodes[node].process.is_none() {
            return;
        }
        self.count("crash");
        if self.network.is_relay(node, |node| self.nodes[node].region) {
            self.count("crash of a relay");
        }
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.cut(node, peer);
            self.cut(peer, node);
        }
        self.forget_streams(node);
        self.nodes[node].process = None;
        self.nodes[node].incarnation += 1;
        self.after(lasts, Happening::Restart { node, restore });
    }

    pub fn restart(&mut self, node: usize, restore: bool) {
        if self.nodes[node].process.is_some() {
            return;
        }
        if restore && let Some(copy) = self.nodes[node].copy.clone() {
            self.count("older copy restored");
            let sites: Vec<_> = copy.sites().map(|(site, held, _)| (site, held)).collect();
            self.nodes[node].disk = copy;
            for (site, held) in sites {
                self.history.resurrect(site, 0, held);
            }
            self.note_lost();
        }
        self.say(|_| format!("{node} starts, restored: {restore}"));
        self.start(node);
    }

    /// Versions that are on no disk any more need not be anywhere in the end.
    pub fn note_lost(&mut self) {
        for site in self.history.sites() {
            let held = self.nodes.iter().map(|node| node.disk.held(site)).max().unwrap_or(0);
            let lost = self.history.lost(site, held);
            self.count_by("version lost with the only disk", lost as u64);
        }
    }

    pub fn pause(&mut self, node: usize, lasts: Time) {
        let Some(process) = self.process(node).filter(|process| !process.paused) else { return };
        process.paused = true;
        self.count("pause");
        self.after(lasts, Happening::Resume { node });
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.after(self.conditions.idle_timeout, Happening::Silence { from: node, to: peer });
        }
    }

    pub fn resume(&mut self, node: usize) {
        let Some(process) = self.process(node).filter(|process| process.paused) else { return };
        process.paused = false;
        for event in std::mem::take(&mut process.inbox) {
            self.at_node(node, event);
        }
    }

    /// Ends all faults; what the weather does to datagrams goes on.
    pub fn heal(&mut self) {
        self.healed = Some(self.now);
        let nodes = self.nodes.len();
        for (from, to) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))) {
            let link = self.network.link(from, to);
            (link.blocked_until, link.refused_until, link.deaf_until) = (Time::ZERO, Time::ZERO, Time::ZERO);
            self.unblock(from, to);
        }
        for node in 0..nodes {
            self.resume(node);
            self.restart(node, false);
            if let Some(process) = self.process(node) {
                process.refuses_until = Time::ZERO;
            }
        }
        self.after(millis(50), Happening::Poll);
    }
}
