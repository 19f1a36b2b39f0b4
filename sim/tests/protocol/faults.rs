//! What goes wrong, and the end of it.

use mychat_sim::virtual_time::{Driver, Time, millis};

use crate::world::{Happening, World};

impl World {
    /// Lets something go wrong, and will again.
    pub fn fault(&mut self) {
        if self.healed.is_some() {
            return;
        }
        let next = self.stage.chance.upto(self.conditions.fault_every * 2);
        self.stage.after(next, Happening::Fault);
        let nodes = self.nodes.len();
        let node = self.stage.chance.index(nodes);
        let peer = (node + 1 + self.stage.chance.index(nodes - 1)) % nodes;
        let lasts = self.stage.chance.between(millis(50), millis(4_000));
        match self.stage.chance.below(18) {
            0 | 1 => {
                self.stage.count("partition of two");
                self.stage.block(node, peer, lasts);
                self.stage.block(peer, node, lasts);
            }
            2 => {
                self.stage.count("partition of one from all");
                self.stage.isolate(node, lasts);
            }
            3 => {
                self.stage.count("partition one way");
                self.stage.block(node, peer, lasts);
            }
            4 => {
                self.stage.count("connection of one direction down");
                self.stage.network.link(node, peer).refused_until = self.stage.now() + lasts;
                self.stage.cut(node, peer);
            }
            5 => {
                self.stage.count("streams not openable");
                self.stage.network.link(node, peer).deaf_until = self.stage.now() + lasts;
            }
            6 => {
                self.stage.count("connection broken");
                self.stage.cut(node, peer);
            }
            7 | 8 => {
                let restore = self.nodes[node].copy.is_some() && self.stage.chance.happens(0.7);
                self.crash(node, lasts / 2, restore);
            }
            9 => {
                self.stage.count("restart without anyone to ask");
                self.stage.isolate(node, millis(6_000));
                self.crash(node, millis(100), false);
            }
            10 => self.pause(node, lasts),
            11 => {
                let until = self.stage.now() + lasts / 4;
                if let Some(process) = self.process(node) {
                    process.refuses_until = until;
                    self.stage.count("disk refuses");
                }
            }
            12 => self.takes_snapshot(node, peer, lasts / 2),
            _ => {
                self.stage.count("disk copied");
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
        self.stage.after(millis(1_500), Happening::RestoreAgain { node });
    }

    fn crash(&mut self, node: usize, lasts: Time, restore: bool) {
        if self.nodes[node].process.is_none() {
            return;
        }
        self.stage.count("crash");
        if self.is_relay(node) {
            self.stage.count("crash of a relay");
        }
        self.stage.stop(node);
        self.nodes[node].process = None;
        self.stage.after(lasts, Happening::Restart { node, restore });
    }

    pub fn restart(&mut self, node: usize, restore: bool) {
        if self.nodes[node].process.is_some() {
            return;
        }
        if restore && let Some(copy) = self.nodes[node].copy.clone() {
            let sites: Vec<_> = copy.sites().map(|(site, held, _)| (site, held)).collect();
            self.nodes[node].disk = copy;
            let deceived = self.stage.chance.happens(0.4);
            self.stage.count(if deceived {
                "older copy with a false witness"
            } else {
                "older copy restored"
            });
            (self.nodes[node].in_doubt, self.nodes[node].deceived) = (!deceived, deceived);
            for (site, held) in sites {
                self.history.resurrect(site, 0, held);
            }
            self.note_lost();
        }
        self.stage.say(|| format!("{node} starts, restored: {restore}"));
        self.start(node);
    }

    /// Versions that are on no disk any more need not be anywhere in the end.
    pub fn note_lost(&mut self) {
        for site in self.history.sites() {
            let held = self.nodes.iter().map(|node| node.disk.held(site)).max().unwrap_or(0);
            let lost = self.history.lost(site, held);
            self.stage.count_by("version lost with the only disk", lost as u64);
        }
    }

    /// Whether a node passes on to its own region what comes to it from another.
    fn is_relay(&self, node: usize) -> bool {
        let here = |other: usize| self.stage.seats[other].region == self.stage.seats[node].region;
        let comes = self.stage.streams().filter(|from| from.follower == node && !here(from.upstream));
        comes.into_iter().any(|from| {
            let mut goes = self.stage.streams().filter(|to| to.upstream == node && here(to.follower));
            goes.any(|to| to.site == from.site)
        })
    }

    pub fn pause(&mut self, node: usize, lasts: Time) {
        if self.stage.process(node).is_some_and(|process| !process.paused) {
            self.stage.count("pause");
            self.stage.pause(node);
            self.stage.after(lasts, Happening::Resume { node });
        }
    }

    /// Ends all faults; what the weather does to datagrams goes on.
    pub fn heal(&mut self) {
        self.healed = Some(self.stage.now());
        self.stage.mend();
        for node in 0..self.nodes.len() {
            self.resume(node);
            self.restart(node, false);
            if let Some(process) = self.process(node) {
                process.refuses_until = Time::ZERO;
            }
        }
        self.stage.after(millis(50), Happening::Poll);
    }
}
