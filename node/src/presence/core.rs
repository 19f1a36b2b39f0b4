//! The state machine: who is online, here and elsewhere, and who has to hear of it. It is told what happens and what
//! time it is, and says what to send and whom to tell of; input and output are its driver's.
//!
//! A node keeps two sets for each other one (`set.rs` says how they are kept alike over lossy datagrams):
//!
//! - **watched**: the spaces of the people who have streams here, the same for all nodes;
//! - **online**: those of its people who are in a space that the other node watches.
//!
//! So presence goes only to nodes where somebody in a shared space is online, and a node holds of the others' people
//! only those whom somebody here may see.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use mychat_replication::NodeId;

use super::{
    peer::{Peer, Pending},
    set::{Changes, Key, KeySet, MAX_KEYS},
    wire::{self, Body, Message, Table},
};
use crate::ids::{AccountId, SpaceId};

/// The time since the machine was started.
pub type Now = Duration;

/// For how long somebody whose last stream has ended still counts as online: clients come back after half a second to
/// two and a half, here or at another node, and that is no news.
pub const LINGER: Duration = Duration::from_secs(4);
/// How often a node says that it is there, and what its sets sum up to.
pub const BEAT: Duration = Duration::from_secs(2);
/// For how long what a node said holds after it was last heard. Membership says within 3 s that a node has crashed; the
/// lease ends what a node said that is alive and can't be heard.
pub const LEASE: Duration = Duration::from_secs(7);
/// The most slices that answer one question; the next summary brings the rest.
const SLICES: usize = 256;

/// Something to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// To whom.
    pub to: NodeId,
    /// What.
    pub message: Message,
}

/// Somebody who has, or had a moment ago, streams here.
#[derive(Debug, Default)]
struct Person {
    spaces: BTreeSet<SpaceId>,
    /// When they stop counting as online; none while a stream is open.
    until: Option<Now>,
}

/// See the module.
#[derive(Debug)]
pub struct Core {
    incarnation: u64,
    sequence: u64,
    people: HashMap<AccountId, Person>,
    /// The people here by their spaces.
    spaces: HashMap<SpaceId, HashSet<AccountId>>,
    /// The keys of `spaces`, as the others know them.
    watched: KeySet,
    /// There are more spaces than a set may have keys: this node wants to hear of everybody.
    everything: bool,
    pending: Pending,
    /// When people stop counting as online.
    ends: BTreeSet<(Now, AccountId)>,
    peers: BTreeMap<NodeId, Peer>,
    /// At how many nodes somebody is online.
    held: HashMap<AccountId, u32>,
    /// Whose presence may have changed since it was last told, and what it was.
    changed: BTreeMap<AccountId, bool>,
    outbox: Vec<Send>,
}

impl Core {
    /// A node that knows of nobody. `incarnation` grows with each start of the process.
    pub fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            sequence: 0,
            people: HashMap::new(),
            spaces: HashMap::new(),
            watched: KeySet::default(),
            everything: false,
            pending: Pending::default(),
            ends: BTreeSet::new(),
            peers: BTreeMap::new(),
            held: HashMap::new(),
            changed: BTreeMap::new(),
            outbox: Vec::new(),
        }
    }

    /// Somebody has streams here and is in these spaces, or (`None`) has no stream here.
    pub fn here(&mut self, account: AccountId, spaces: Option<BTreeSet<SpaceId>>, now: Now) {
        let Some(spaces) = spaces else {
            let Some(person) = self.people.get_mut(&account).filter(|person| person.until.is_none()) else {
                return;
            };
            person.until = Some(now + LINGER);
            self.ends.insert((now + LINGER, account));
            return;
        };
        let known = self.people.contains_key(&account);
        if !known {
            self.hold(account);
        }
        let person = self.people.entry(account).or_default();
        if let Some(until) = person.until.take() {
            self.ends.remove(&(until, account));
        }
        let before = std::mem::replace(&mut person.spaces, spaces.clone());
        for space in spaces.difference(&before) {
            self.enter(*space, account);
        }
        for space in before.difference(&spaces) {
            self.leave(*space, account);
        }
        if !known || before != spaces {
            self.concern(account);
        }
    }

    /// The nodes that are up. What the others said is over.
    pub fn up(&mut self, nodes: &BTreeSet<NodeId>, now: Now) {
        let gone: Vec<NodeId> = self.peers.keys().filter(|node| !nodes.contains(node)).copied().collect();
        for node in gone {
            self.forget(node);
            self.peers.remove(&node);
        }
        for node in nodes {
            if self.peers.contains_key(node) {
                continue;
            }
            self.peers.insert(*node, Peer::new(now));
        }
    }

    /// What another node says. One that is not up is not listened to: it will say it again.
    pub fn received(&mut self, from: NodeId, message: Message, now: Now) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        match peer.incarnation {
            Some(known) if known > message.incarnation => return,
            Some(known) if known == message.incarnation => {}
            _ => {
                peer.incarnation = Some(message.incarnation);
                self.forget(from);
            }
        }
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.heard = now;
        match message.body {
            Body::Beat { watched, everything, online } => {
                let flipped = peer.everything != everything;
                peer.everything = everything;
                let tables =
                    [(Table::Watched, watched, &peer.watched), (Table::Online, online, &peer.online)];
                let asks: Vec<Body> = tables
                    .into_iter()
                    .filter(|(table, ..)| !(everything && *table == Table::Watched))
                    .filter(|(_, summary, mirror)| mirror.set().summary() != *summary)
                    .map(|(table, _, mirror)| Body::ask(table, mirror.set().digests()))
                    .collect();
                for ask in asks {
                    self.send(from, ask);
                }
                if flipped {
                    for account in self.people.keys().copied().collect::<Vec<_>>() {
                        self.concern(account);
                    }
                }
            }
            Body::Change { table, added, removed } => {
                let changes = peer.change(table, message.sequence, &added, &removed);
                self.follow(from, table, &changes);
            }
            Body::Slice { table, slice } => {
                let changes = peer.replace(table, message.sequence, &slice);
                self.follow(from, table, &changes);
            }
            Body::Ask { table, digests } => {
                let Some(theirs) = wire::digests(&digests) else { return };
                let set = match table {
                    Table::Watched => &self.watched,
                    Table::Online => &peer.told,
                };
                for slice in set.slices(&theirs, SLICES) {
                    self.send(from, Body::Slice { table, slice });
                }
            }
        }
    }

    /// Time passes: people's time is up, leases end, it is time to be heard.
    pub fn tick(&mut self, now: Now) {
        while let Some((until, account)) = self.ends.first().copied().filter(|(until, _)| *until <= now) {
            self.ends.remove(&(until, account));
            let Some(person) = self.people.remove(&account) else { continue };
            for space in person.spaces {
                self.leave(space, account);
            }
            for peer in self.peers.values_mut() {
                peer.tell(key(account), false);
            }
            self.release(account);
        }
        let silent = |peer: &Peer| peer.incarnation.is_some() && now.saturating_sub(peer.heard) > LEASE;
        let ended: Vec<NodeId> =
            self.peers.iter().filter(|(_, peer)| silent(peer)).map(|(node, _)| *node).collect();
        for node in ended {
            self.forget(node);
        }
        let due: Vec<NodeId> =
            self.peers.iter().filter(|(_, peer)| peer.next_beat <= now).map(|(node, _)| *node).collect();
        // Changes go first, so that the summaries are of what the others have been told.
        self.flush();
        for node in due {
            let Some(peer) = self.peers.get_mut(&node) else { continue };
            peer.next_beat = now + BEAT;
            let (everything, online) = (self.everything, peer.told.summary());
            self.send(node, Body::Beat { watched: self.watched.summary(), everything, online });
        }
    }

    /// What is to be sent.
    pub fn take(&mut self) -> Vec<Send> {
        self.flush();
        std::mem::take(&mut self.outbox)
    }

    /// Up to `most` people whose presence is another than was told last, and what it is.
    pub fn news(&mut self, most: usize) -> Vec<(AccountId, bool)> {
        let mut news = Vec::new();
        while news.len() < most
            && let Some((account, was)) = self.changed.pop_first()
        {
            let is = self.is_online(account);
            if is != was {
                news.push((account, is));
            }
        }
        news
    }

    /// What was taken and could not be told is news still.
    pub fn untold(&mut self, news: impl IntoIterator<Item = (AccountId, bool)>) {
        self.changed.extend(news.into_iter().map(|(account, is)| (account, !is)));
    }

    /// Whether there are people whose presence has changed.
    pub fn has_news(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Whether any node is known to hold a stream of somebody's.
    pub fn is_online(&self, account: AccountId) -> bool {
        self.held.contains_key(&account)
    }

    /// Whether this node hears of who is online in a space.
    pub fn watches(&self, space: SpaceId) -> bool {
        self.peers.is_empty() || self.spaces.contains_key(&space)
    }

    /// The nodes where somebody who is in a space is online, and those that don't say.
    pub fn watchers(&self, space: SpaceId) -> Vec<NodeId> {
        let watches = |peer: &Peer| peer.incarnation.is_none() || peer.watches(space_key(space));
        self.peers.iter().filter(|(_, peer)| watches(peer)).map(|(node, _)| *node).collect()
    }

    /// How many people are online here, how many anywhere, and how many spaces are watched.
    pub fn figures(&self) -> (usize, usize, usize) {
        (self.people.len(), self.held.len(), self.spaces.len())
    }

    fn enter(&mut self, space: SpaceId, account: AccountId) {
        let people = self.spaces.entry(space).or_default();
        people.insert(account);
        if people.len() > 1 || self.everything {
            return;
        }
        if self.watched.len() >= MAX_KEYS {
            self.everything = true;
            self.watched = KeySet::default();
            self.pending = Pending::default();
        } else if self.watched.insert(space_key(space)) {
            self.pending.note(space_key(space), true);
        }
    }

    fn leave(&mut self, space: SpaceId, account: AccountId) {
        let Some(people) = self.spaces.get_mut(&space) else { return };
        people.remove(&account);
        if !people.is_empty() {
            return;
        }
        self.spaces.remove(&space);
        if self.watched.remove(space_key(space)) {
            self.pending.note(space_key(space), false);
        }
        // With room to spare, or it would change its mind all the time. The others ask for the set at the next beat.
        if self.everything && self.spaces.len() <= MAX_KEYS / 2 {
            self.everything = false;
            for space in self.spaces.keys() {
                self.watched.insert(space_key(*space));
            }
        }
    }

    /// Looks for whom somebody here is of concern.
    fn concern(&mut self, account: AccountId) {
        let Some(person) = self.people.get(&account) else { return };
        for peer in self.peers.values_mut() {
            let concerned = person.spaces.iter().any(|space| peer.watches(space_key(*space)));
            peer.tell(key(account), concerned);
        }
    }

    /// Does what follows from a change of another node's set.
    fn follow(&mut self, from: NodeId, table: Table, changes: &Changes) {
        match table {
            Table::Online => {
                for added in &changes.added {
                    self.hold(account(*added));
                }
                for removed in &changes.removed {
                    self.release(account(*removed));
                }
            }
            Table::Watched => {
                let spaces = changes.added.iter().chain(&changes.removed);
                let concerned: BTreeSet<AccountId> =
                    spaces.filter_map(|key| self.spaces.get(&space(*key))).flatten().copied().collect();
                let Some(peer) = self.peers.get_mut(&from) else { return };
                for account in concerned {
                    let Some(person) = self.people.get(&account) else { continue };
                    let concerned = person.spaces.iter().any(|space| peer.watches(space_key(*space)));
                    peer.tell(key(account), concerned);
                }
            }
        }
    }

    /// What a node said is over.
    fn forget(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let gone = peer.forget();
        for told in peer.told.iter().collect::<Vec<_>>() {
            peer.tell(told, false);
        }
        for key in gone {
            self.release(account(key));
        }
    }

    fn hold(&mut self, account: AccountId) {
        let held = self.held.entry(account).or_default();
        *held += 1;
        if *held == 1 {
            self.changed.entry(account).or_insert(false);
        }
    }

    fn release(&mut self, account: AccountId) {
        let Some(held) = self.held.get_mut(&account) else { return };
        *held -= 1;
        if *held == 0 {
            self.held.remove(&account);
            self.changed.entry(account).or_insert(true);
        }
    }

    fn flush(&mut self) {
        let watched = self.pending.take(Table::Watched);
        let nodes: Vec<NodeId> = self.peers.keys().copied().collect();
        for node in nodes {
            for body in &watched {
                self.send(node, body.clone());
            }
            let online = self.peers.get_mut(&node).map(|peer| peer.pending.take(Table::Online));
            for body in online.into_iter().flatten() {
                self.send(node, body);
            }
        }
    }

    fn send(&mut self, to: NodeId, body: Body) {
        self.sequence += 1;
        let message = Message { incarnation: self.incarnation, sequence: self.sequence, body };
        self.outbox.push(Send { to, message });
    }
}

fn key(account: AccountId) -> Key {
    Key::of(account.bytes())
}

fn account(key: Key) -> AccountId {
    AccountId(uuid::Uuid::from_bytes(key.id()))
}

fn space_key(space: SpaceId) -> Key {
    Key::of(space.bytes())
}

fn space(key: Key) -> SpaceId {
    SpaceId(uuid::Uuid::from_bytes(key.id()))
}
