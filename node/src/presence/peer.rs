//! What a node knows of another one, and what it has told it.

use std::collections::BTreeMap;

use super::{
    core::Now,
    set::{Changes, KEYS_AT_ONCE, Key, KeySet, Mirror, Slice},
    wire::{Body, Table},
};

/// Another node.
#[derive(Debug)]
pub struct Peer {
    /// Of which of its lives the sets are; none until it has said something, as one of an older release never does.
    pub incarnation: Option<u64>,
    /// When it was last heard.
    pub heard: Now,
    /// When it is to hear of us again.
    pub next_beat: Now,
    /// The spaces that its people are in.
    pub watched: Mirror,
    /// It wants to hear of everybody.
    pub everything: bool,
    /// Its people who are of concern here.
    pub online: Mirror,
    /// The people here who are of concern to it.
    pub told: KeySet,
    /// What has changed in `told` and was not sent yet.
    pub pending: Pending,
}

impl Peer {
    /// One that has just come up.
    pub fn new(now: Now) -> Self {
        Self {
            incarnation: None,
            heard: now,
            next_beat: now,
            watched: Mirror::default(),
            everything: false,
            online: Mirror::default(),
            told: KeySet::default(),
            pending: Pending::default(),
        }
    }

    /// Whether it wants to hear what happens in a space.
    pub fn watches(&self, space: Key) -> bool {
        self.everything || self.watched.set().contains(space)
    }

    /// Forgets what it said, and returns who was online there.
    pub fn forget(&mut self) -> Vec<Key> {
        self.watched.clear();
        self.everything = false;
        self.online.clear()
    }

    /// Takes a change to one of its sets.
    pub fn change(&mut self, table: Table, sequence: u64, added: &[Key], removed: &[Key]) -> Changes {
        self.mirror(table).change(sequence, added, removed)
    }

    /// Takes a part of one of its sets.
    pub fn replace(&mut self, table: Table, sequence: u64, slice: &Slice) -> Changes {
        self.mirror(table).replace(sequence, slice)
    }

    fn mirror(&mut self, table: Table) -> &mut Mirror {
        match table {
            Table::Watched => &mut self.watched,
            Table::Online => &mut self.online,
        }
    }

    /// Whether somebody here is of concern to it (no more).
    pub fn tell(&mut self, account: Key, concerned: bool) {
        let changed = if concerned { self.told.insert(account) } else { self.told.remove(account) };
        if changed {
            self.pending.note(account, concerned);
        }
    }
}

/// Changes of a set that wait to be sent: of several to one key the last.
#[derive(Debug, Default)]
pub struct Pending(BTreeMap<Key, bool>);

impl Pending {
    /// A key was added, or taken out.
    pub fn note(&mut self, key: Key, added: bool) {
        self.0.insert(key, added);
    }

    /// The messages that tell them.
    pub fn take(&mut self, table: Table) -> Vec<Body> {
        let changes: Vec<(Key, bool)> = std::mem::take(&mut self.0).into_iter().collect();
        changes
            .chunks(KEYS_AT_ONCE)
            .map(|piece| {
                let of = |wanted: bool| {
                    piece.iter().filter(|(_, added)| *added == wanted).map(|(key, _)| *key).collect()
                };
                Body::Change { table, added: of(true), removed: of(false) }
            })
            .collect()
    }
}
