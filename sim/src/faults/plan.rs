//! What is going to happen in a run, as a list: the faults, and what the clients do. A seed makes the list; whoever
//! looks for the shortest history that still fails leaves parts of it out.

use crate::virtual_time::{Chance, Time, millis, seconds};

/// Clients of a run.
pub const CLIENTS: usize = 6;
/// Spaces of a run.
pub const SPACES: usize = 3;
/// How long everything is left alone at the beginning: nodes find each other, spaces are founded.
const QUIET: Time = seconds(8);

/// The list of one run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where chance begins.
    pub seed: u64,
    /// Nodes at the start.
    pub nodes: usize,
    /// How long things happen; then everything is mended.
    pub lasts: Time,
    /// In the order of time.
    pub items: Vec<Item>,
}

/// Something that happens at a time.
#[derive(Debug, Clone, Copy)]
pub struct Item {
    /// Its number in the seed's whole list.
    pub number: usize,
    pub at: Time,
    pub what: What,
}

#[derive(Debug, Clone, Copy)]
pub enum What {
    Fault(Fault),
    Deed { client: usize, deed: Deed },
}

/// What goes wrong, or is done by an operator.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Nothing passes between two nodes.
    Partition { a: usize, b: usize, lasts: Time },
    /// Nothing passes between a node and all others.
    Isolate { node: usize, lasts: Time },
    /// Nothing passes from one node to another; the other way it does.
    OneWay { from: usize, to: usize, lasts: Time },
    /// The connections between two nodes break; they may be made anew at once.
    Cut { a: usize, b: usize },
    /// Datagrams are lost, come twice and overtake each other, streams stumble, everywhere.
    Weather { loss: f64, duplicate: f64, jitter: Time, lasts: Time },
    /// A process dies at once. Of a commit that is under way at that moment, `torn` (of a thousand) parts of what it
    /// writes reach the disk.
    Crash { node: usize, lasts: Time, torn: u64 },
    /// A copy of the database is taken.
    Copy { node: usize },
    /// A process dies and starts on the copy that was taken last.
    Restore { node: usize, lasts: Time },
    /// Whatever a disk does takes so long.
    SlowDisk { node: usize, takes: Time, lasts: Time },
    /// A disk has no room.
    FullDisk { node: usize, lasts: Time },
    /// A clock is set, this many milliseconds from the right time.
    Clock { node: usize, ahead: i64 },
    /// A node with an empty database joins.
    Join,
    /// A node leaves for good, once the others have what it wrote.
    Leave { node: usize },
    /// A node is stopped and started with the next release, which has one table more.
    Upgrade { node: usize },
}

/// What a client does. `pick` chooses among what it knows by then.
#[derive(Debug, Clone, Copy)]
pub enum Deed {
    Post {
        space: usize,
    },
    Edit {
        pick: u64,
    },
    Delete {
        pick: u64,
    },
    React {
        pick: u64,
    },
    Enter {
        space: usize,
    },
    Leave {
        space: usize,
    },
    /// Goes on at another node with its cursor.
    Move {
        node: usize,
    },
    /// Reads nothing for a while.
    Doze {
        lasts: Time,
    },
    /// Posts many long messages in a row.
    Flood {
        space: usize,
    },
}

impl Plan {
    /// The list of a seed.
    pub fn of(seed: u64, nodes: usize, lasts: Time) -> Self {
        let mut planning = Planning { chance: Chance::of(seed, 1), nodes, items: Vec::new() };
        let mut at = QUIET;
        while at < lasts {
            planning.episode(at);
            at += planning.chance.between(seconds(10), seconds(40));
        }
        planning.everyday(lasts);
        let mut items = planning.items;
        items.retain(|(at, _)| *at < lasts);
        items.sort_by_key(|(at, _)| *at);
        let items =
            items.into_iter().enumerate().map(|(number, (at, what))| Item { number, at, what }).collect();
        Self { seed, nodes, lasts, items }
    }

    /// The same with these items alone, by their numbers.
    pub fn only(&self, numbers: &[usize]) -> Self {
        let items = self.items.iter().filter(|item| numbers.contains(&item.number)).copied().collect();
        Self { items, ..self.clone() }
    }

    /// The numbers of its items.
    pub fn numbers(&self) -> Vec<usize> {
        self.items.iter().map(|item| item.number).collect()
    }
}

struct Planning {
    chance: Chance,
    nodes: usize,
    items: Vec<(Time, What)>,
}

impl Planning {
    /// Some faults close together, and clients that are busy meanwhile.
    fn episode(&mut self, at: Time) {
        let faults = 1 + self.chance.below(3);
        for _ in 0..faults {
            let fault = self.fault();
            let at = at + self.chance.upto(seconds(8));
            self.items.push((at, What::Fault(fault)));
            // An older copy is worth something only when it is used.
            if let Fault::Copy { node } = fault {
                let later = at + self.chance.between(seconds(3), seconds(20));
                let lasts = self.chance.between(millis(200), seconds(6));
                self.items.push((later, What::Fault(Fault::Restore { node, lasts })));
            }
        }
        for _ in 0..4 + self.chance.below(10) {
            let at = at + self.chance.upto(seconds(14));
            self.deed(at);
        }
    }

    fn fault(&mut self) -> Fault {
        let node = self.chance.index(self.nodes);
        let other = (node + 1 + self.chance.index(self.nodes.max(2) - 1)) % self.nodes;
        let lasts = self.chance.between(millis(300), seconds(25));
        match self.chance.below(26) {
            0..=2 => Fault::Partition { a: node, b: other, lasts },
            3..=5 => Fault::Isolate { node, lasts },
            6 | 7 => Fault::OneWay { from: node, to: other, lasts },
            8 => Fault::Cut { a: node, b: other },
            9 | 10 => Fault::Weather {
                loss: [0.05, 0.3, 0.7][self.chance.index(3)],
                duplicate: [0.0, 0.2][self.chance.index(2)],
                jitter: [millis(20), millis(400)][self.chance.index(2)],
                lasts,
            },
            11..=15 => Fault::Crash { node, lasts: lasts / 3, torn: self.torn() },
            16 | 17 => Fault::Copy { node },
            18 | 19 => Fault::SlowDisk { node, takes: self.chance.between(millis(20), millis(1_500)), lasts },
            20 => Fault::FullDisk { node, lasts },
            21 | 22 => {
                let ahead = [-600_000, -5_000, 0, 800, 30_000, 600_000][self.chance.index(6)];
                Fault::Clock { node, ahead }
            }
            23 => Fault::Join,
            24 => Fault::Leave { node },
            _ => Fault::Upgrade { node },
        }
    }

    /// Every other crash happens within a commit; some of these after its last byte.
    fn torn(&mut self) -> u64 {
        match self.chance.below(6) {
            0..=2 => 0,
            3 => 1_000,
            _ => 1 + self.chance.below(999),
        }
    }

    /// What clients do between the faults.
    fn everyday(&mut self, lasts: Time) {
        let mut at = seconds(4);
        while at < lasts {
            self.deed(at);
            at += self.chance.between(millis(500), seconds(7));
        }
        if self.chance.below(10) == 0 {
            let at = self.chance.between(QUIET, lasts.max(QUIET));
            let client = self.chance.index(CLIENTS);
            let dozes = (client + 1 + self.chance.index(CLIENTS - 1)) % CLIENTS;
            let doze = Deed::Doze { lasts: seconds(25) };
            self.items.push((at, What::Deed { client: dozes, deed: doze }));
            let space = self.chance.index(SPACES);
            self.items.push((at + seconds(1), What::Deed { client, deed: Deed::Flood { space } }));
        }
    }

    fn deed(&mut self, at: Time) {
        let client = self.chance.index(CLIENTS);
        let space = self.chance.index(SPACES);
        let pick = self.chance.number();
        let deed = match self.chance.below(40) {
            0..=21 => Deed::Post { space },
            22..=25 => Deed::Edit { pick },
            26 | 27 => Deed::Delete { pick },
            28..=31 => Deed::React { pick },
            32 => Deed::Leave { space },
            33..=35 => Deed::Enter { space },
            36..=38 => Deed::Move { node: self.chance.index(self.nodes + 2) },
            _ => Deed::Doze { lasts: self.chance.between(seconds(1), seconds(10)) },
        };
        self.items.push((at, What::Deed { client, deed }));
    }
}
