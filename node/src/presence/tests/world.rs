//! Some nodes in virtual time, with a network between them that loses, doubles and delays datagrams.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use mychat_replication::NodeId;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use uuid::Uuid;

use super::super::{
    core::{Core, Now},
    wire::{self, Body, Message, Table},
};
use crate::ids::{AccountId, SpaceId};

/// Virtual time passes in steps of this.
const STEP: Duration = Duration::from_millis(50);
/// How long membership takes to say that a node is down, at most.
const DETECTION: Duration = Duration::from_secs(3);

pub fn account(n: u8) -> AccountId {
    AccountId(Uuid::from_bytes([n; 16]))
}

pub fn space(n: u8) -> SpaceId {
    SpaceId(Uuid::from_bytes([n; 16]))
}

fn id(node: usize) -> NodeId {
    NodeId([node as u8; 16])
}

/// One node, and what its clients have been told.
struct Node {
    core: Core,
    starts: u64,
    up: bool,
    since: Now,
    streams: BTreeMap<AccountId, u32>,
    told: HashMap<AccountId, bool>,
}

struct Flying {
    at: Now,
    from: usize,
    to: usize,
    payload: Vec<u8>,
}

pub struct World {
    pub now: Now,
    nodes: Vec<Node>,
    flying: Vec<Flying>,
    /// Who is in which spaces, as all nodes know.
    pub spaces: BTreeMap<AccountId, BTreeSet<SpaceId>>,
    random: StdRng,
    /// Of a hundred datagrams, how many are lost, and how many come twice.
    pub lost: u32,
    pub doubled: u32,
    pub sent: BTreeMap<(usize, usize), u64>,
    /// How many ids of people they named.
    pub named: BTreeMap<(usize, usize), usize>,
}

impl World {
    pub fn new(nodes: usize, seed: u64) -> Self {
        let fresh = || Node {
            core: Core::new(1),
            starts: 1,
            up: true,
            since: Now::ZERO,
            streams: BTreeMap::new(),
            told: HashMap::new(),
        };
        Self {
            now: Now::ZERO,
            nodes: (0..nodes).map(|_| fresh()).collect(),
            flying: Vec::new(),
            spaces: BTreeMap::new(),
            random: StdRng::seed_from_u64(seed),
            lost: 0,
            doubled: 0,
            sent: BTreeMap::new(),
            named: BTreeMap::new(),
        }
    }

    pub fn join(&mut self, who: AccountId, spaces: &[u8]) {
        self.spaces.insert(who, spaces.iter().map(|n| space(*n)).collect());
        self.refresh(who);
    }

    pub fn open(&mut self, node: usize, who: AccountId) {
        if self.nodes[node].up {
            *self.nodes[node].streams.entry(who).or_default() += 1;
            self.refresh(who);
        }
    }

    pub fn close(&mut self, node: usize, who: AccountId) {
        let streams = &mut self.nodes[node].streams;
        if let Some(open) = streams.get_mut(&who) {
            *open -= 1;
            if *open == 0 {
                streams.remove(&who);
                let now = self.now;
                self.nodes[node].core.here(who, None, now);
            }
        }
    }

    pub fn crash(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        (node.up, node.since) = (false, self.now);
        node.streams.clear();
        node.told.clear();
    }

    pub fn restart(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        if !node.up {
            node.starts += 1;
            (node.up, node.since, node.core) = (true, self.now, Core::new(node.starts));
        }
    }

    /// Every node hears that somebody's spaces have changed, if they have a stream there.
    fn refresh(&mut self, who: AccountId) {
        let spaces = self.spaces.get(&who).cloned().unwrap_or_default();
        for node in self.nodes.iter_mut().filter(|node| node.streams.contains_key(&who)) {
            node.core.here(who, Some(spaces.clone()), self.now);
        }
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            self.step();
        }
    }

    fn step(&mut self) {
        let (due, later) =
            std::mem::take(&mut self.flying).into_iter().partition(|flying| flying.at <= self.now);
        self.flying = later;
        // In any order.
        let mut due: Vec<Flying> = due;
        while !due.is_empty() {
            let flying = due.swap_remove(self.random.random_range(0..due.len()));
            let to = &mut self.nodes[flying.to];
            if to.up {
                let message: Message = wire::decode(&flying.payload).expect("a message");
                to.core.received(id(flying.from), message, self.now);
            }
        }
        for at in 0..self.nodes.len() {
            let seen_up: BTreeSet<NodeId> =
                (0..self.nodes.len()).filter(|other| *other != at && self.is_seen(*other)).map(id).collect();
            let node = &mut self.nodes[at];
            if !node.up {
                continue;
            }
            node.core.up(&seen_up, self.now);
            node.core.tick(self.now);
            for send in node.core.take() {
                let to = send.to.0[0] as usize;
                *self.sent.entry((at, to)).or_default() += 1;
                *self.named.entry((at, to)).or_default() += match &send.message.body {
                    Body::Change { table: Table::Online, added, removed } => added.len() + removed.len(),
                    Body::Slice { table: Table::Online, slice } => slice.keys.len(),
                    _ => 0,
                };
                let copies = match self.random.random_range(0..100) {
                    n if n < self.lost => 0,
                    n if n < self.lost + self.doubled => 2,
                    _ => 1,
                };
                for _ in 0..copies {
                    let delay = Duration::from_millis(self.random.random_range(10..400));
                    let payload = wire::encode(&send.message);
                    self.flying.push(Flying { at: self.now + delay, from: at, to, payload });
                }
            }
            for (account, online) in node.core.news(usize::MAX) {
                node.told.insert(account, online);
            }
        }
    }

    /// Whether the others take a node to be up.
    fn is_seen(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        node.up || self.now < node.since + DETECTION
    }

    pub fn is_online(&self, node: usize, who: AccountId) -> bool {
        self.nodes[node].core.is_online(who)
    }

    pub fn watchers(&self, node: usize, n: u8) -> usize {
        self.nodes[node].core.watchers(space(n)).len()
    }

    /// Checks what every node says against what is so: it must have had time to settle.
    pub fn check(&self) {
        let nobody = BTreeSet::new();
        let of = |who: &AccountId| self.spaces.get(who).unwrap_or(&nobody);
        for (at, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.up) {
            for who in self.spaces.keys() {
                let somewhere = self.nodes.iter().any(|node| node.up && node.streams.contains_key(who));
                let here = node.streams.contains_key(who);
                let shared = node.streams.keys().any(|viewer| !of(viewer).is_disjoint(of(who)));
                let known = node.core.is_online(*who);
                // Of whom nobody here shares a space with, this node need not and must not know.
                assert_eq!(known, here || (somewhere && shared), "{who} at node {at} at {:?}", self.now);
                assert_eq!(node.told.get(who).copied().unwrap_or(false), known, "{who} told at node {at}");
            }
        }
    }
}
