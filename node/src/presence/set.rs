//! A set of ids that another node holds a copy of, kept alike over datagrams that may be lost, doubled or overtaken.
//!
//! The owner tells each change as it happens, and now and then a [`Summary`] of the whole set. A holder whose copy sums
//! up to something else sends the digests of its [`BUCKETS`], and gets those [`Slice`]s of the set in which they differ.
//! So a loss costs one round of summaries, and what is sent is proportional to what was lost.
//!
//! A slice says everything about a range of keys, so slices need no assembling: each is applied by itself. What must
//! not happen is that an older message undoes a younger one: the copy knows for each bucket the number of the last
//! message that touched it, and leaves alone what comes with a smaller number.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Parts of the key space whose digests are compared.
pub const BUCKETS: usize = 256;
/// Keys in one message: it must fit a datagram, of which 1,150 bytes are always there.
pub const KEYS_AT_ONCE: usize = 60;
/// The most keys of a set.
pub const MAX_KEYS: usize = 1 << 16;

/// An id as a number whose top byte is random, as the last byte of the ids of accounts and spaces is: so the buckets
/// are filled evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u128);

impl Key {
    /// The least key.
    pub const MIN: Self = Self(0);
    /// The greatest key.
    pub const MAX: Self = Self(u128::MAX);

    /// The key of an id.
    pub const fn of(id: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(id))
    }

    /// The id that it is the key of.
    pub const fn id(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    const fn bucket(self) -> usize {
        (self.0 >> 120) as usize
    }

    const fn first_of(bucket: usize) -> Self {
        Self((bucket as u128) << 120)
    }

    /// SplitMix64's finaliser over both halves: the same on every node and in every release.
    const fn hash(self) -> u64 {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        const fn mix(mut x: u64) -> u64 {
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        }
        mix(mix((self.0 as u64).wrapping_add(GOLDEN)).wrapping_add((self.0 >> 64) as u64))
    }
}

/// Sixteen bytes: a number of that size would take up to nineteen.
impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.id().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <[u8; 16]>::deserialize(deserializer).map(Self::of)
    }
}

/// What a set sums up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    keys: u32,
    digest: u64,
}

/// The digest of each bucket.
pub type Digests = [u32; BUCKETS];

/// All keys of a set between two, these included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// The first key that it speaks of.
    pub from: Key,
    /// The last.
    pub to: Key,
    /// Those of the set.
    pub keys: Vec<Key>,
}

/// A set with its digests.
#[derive(Debug, Clone)]
pub struct KeySet {
    keys: BTreeSet<Key>,
    digests: Box<Digests>,
    digest: u64,
}

impl Default for KeySet {
    fn default() -> Self {
        Self { keys: BTreeSet::new(), digests: Box::new([0; BUCKETS]), digest: 0 }
    }
}

impl KeySet {
    /// Adds a key; `false` when it is there already, or the set is full.
    pub fn insert(&mut self, key: Key) -> bool {
        let added = self.keys.len() < MAX_KEYS && self.keys.insert(key);
        if added {
            self.toggle(key);
        }
        added
    }

    /// Takes a key out; `false` when it is not there.
    pub fn remove(&mut self, key: Key) -> bool {
        let removed = self.keys.remove(&key);
        if removed {
            self.toggle(key);
        }
        removed
    }

    fn toggle(&mut self, key: Key) {
        let hash = key.hash();
        self.digest ^= hash;
        self.digests[key.bucket()] ^= hash as u32;
    }

    pub fn contains(&self, key: Key) -> bool {
        self.keys.contains(&key)
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = Key> {
        self.keys.iter().copied()
    }

    pub fn summary(&self) -> Summary {
        Summary { keys: u32::try_from(self.keys.len()).unwrap_or(u32::MAX), digest: self.digest }
    }

    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    /// What a copy with these digests lacks or has too much, in up to `most` slices.
    pub fn slices(&self, theirs: &Digests, most: usize) -> Vec<Slice> {
        let mut slices = Vec::new();
        let mut at = Key::MIN;
        while slices.len() < most {
            let Some(bucket) = (at.bucket()..BUCKETS).find(|bucket| self.digests[*bucket] != theirs[*bucket])
            else {
                break;
            };
            let from = at.max(Key::first_of(bucket));
            let mut following = self.keys.range(from..).copied();
            let keys: Vec<Key> = following.by_ref().take(KEYS_AT_ONCE).collect();
            // A slice reaches as far as it has room for: few keys are all told in one, whatever their buckets.
            let to = following.next().map_or(Key::MAX, |next| Key(next.0 - 1));
            slices.push(Slice { from, to, keys });
            match to.0.checked_add(1) {
                Some(next) => at = Key(next),
                None => break,
            }
        }
        slices
    }
}

/// What a message did to a copy.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: Vec<Key>,
    pub removed: Vec<Key>,
}

/// A copy of another node's set.
#[derive(Debug, Clone)]
pub struct Mirror {
    set: KeySet,
    /// For each bucket, the number of the last message that touched it.
    last: Box<[u64; BUCKETS]>,
}

impl Default for Mirror {
    fn default() -> Self {
        Self { set: KeySet::default(), last: Box::new([0; BUCKETS]) }
    }
}

impl Mirror {
    pub const fn set(&self) -> &KeySet {
        &self.set
    }

    /// The owner's changes of message number `sequence`.
    pub fn change(&mut self, sequence: u64, added: &[Key], removed: &[Key]) -> Changes {
        let mut changes = Changes::default();
        for key in added {
            if self.touch(key.bucket(), sequence) && self.set.insert(*key) {
                changes.added.push(*key);
            }
        }
        for key in removed {
            if self.touch(key.bucket(), sequence) && self.set.remove(*key) {
                changes.removed.push(*key);
            }
        }
        changes
    }

    /// What the owner's message number `sequence` says of a range.
    pub fn replace(&mut self, sequence: u64, slice: &Slice) -> Changes {
        let mut changes = Changes::default();
        if slice.from > slice.to {
            return changes;
        }
        let fresh: Vec<bool> = (0..BUCKETS)
            .map(|bucket| {
                (slice.from.bucket()..=slice.to.bucket()).contains(&bucket) && self.touch(bucket, sequence)
            })
            .collect();
        let said: BTreeSet<Key> =
            slice.keys.iter().copied().filter(|key| (slice.from..=slice.to).contains(key)).collect();
        let gone: Vec<Key> = self
            .set
            .keys
            .range(slice.from..=slice.to)
            .copied()
            .filter(|key| fresh[key.bucket()] && !said.contains(key))
            .collect();
        changes.removed.extend(gone.into_iter().filter(|key| self.set.remove(*key)));
        changes
            .added
            .extend(said.into_iter().filter(|key| fresh[key.bucket()]).filter(|key| self.set.insert(*key)));
        changes
    }

    /// Forgets everything, also which messages have come.
    pub fn clear(&mut self) -> Vec<Key> {
        std::mem::take(self).set.keys.into_iter().collect()
    }

    /// Whether a message is not older than the last one that touched the bucket; if so, it is the last one now.
    fn touch(&mut self, bucket: usize, sequence: u64) -> bool {
        let last = &mut self.last[bucket];
        let fresh = sequence >= *last;
        *last = sequence.max(*last);
        fresh
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(keys: impl IntoIterator<Item = u128>) -> KeySet {
        let mut set = KeySet::default();
        for key in keys {
            set.insert(Key(key));
        }
        set
    }

    #[test]
    fn few_keys_are_told_in_one_slice() {
        let mine = set((0..KEYS_AT_ONCE as u128).map(|n| n << 120 | n));
        let slices = mine.slices(&[0; BUCKETS], 10);
        assert_eq!((slices.len(), slices[0].keys.len()), (1, KEYS_AT_ONCE));
        assert!(mine.slices(mine.digests(), 10).is_empty());
    }

    #[test]
    fn i7_bounded_a_full_set_takes_no_more() {
        let mut full = set((0..MAX_KEYS as u128).map(|n| n << 100));
        assert!(!full.insert(Key::MAX));
        assert!(full.remove(Key::MIN) && full.insert(Key::MAX));
    }

    proptest! {
        /// Whatever the copy holds, the slices for its digests make it the same as the set.
        #[test]
        fn slices_bring_a_copy_level(
            mine in prop::collection::btree_set(any::<u128>(), 0..900),
            theirs in prop::collection::btree_set(any::<u128>(), 0..300),
            shared in prop::collection::btree_set(any::<u128>(), 0..300),
        ) {
            let owner = set(mine.into_iter().chain(shared.iter().copied()));
            let mut copy = Mirror { set: set(theirs.into_iter().chain(shared)), ..Mirror::default() };
            for (sequence, slice) in owner.slices(&copy.set.digests.clone(), usize::MAX).iter().enumerate() {
                prop_assert!(slice.keys.len() <= KEYS_AT_ONCE);
                copy.replace(sequence as u64, slice);
            }
            prop_assert_eq!(&copy.set.keys, &owner.keys);
            prop_assert_eq!(copy.set.summary(), owner.summary());
        }

        /// An older message does not undo a younger one, in whatever order they come, and as often as they come.
        #[test]
        fn the_last_word_on_a_key_holds(order in prop::collection::vec(0u64..20, 20..60), key in any::<u128>()) {
            let mut copy = Mirror::default();
            for sequence in &order {
                let key = [Key(key)];
                let (added, removed): (&[Key], &[Key]) = if sequence % 2 == 0 { (&key, &[]) } else { (&[], &key) };
                copy.change(*sequence, added, removed);
            }
            let last = order.iter().max().expect("some");
            prop_assert_eq!(copy.set.contains(Key(key)), last % 2 == 0);
        }
    }
}
