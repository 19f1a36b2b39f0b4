//! What nodes tell each other of who is there, and who types: datagrams, each with a byte for its format in front.

use serde::{Deserialize, Serialize};

use super::set::{BUCKETS, Digests, Key, Slice, Summary};
use crate::ids::{AccountId, SpaceId};

/// The kind of the datagrams that carry typing.
pub const TYPING_KIND: u8 = 32;
/// The kind of the datagrams that carry presence.
pub const PRESENCE_KIND: u8 = 33;

/// The format of both.
const FORMAT: u8 = 1;

/// Somebody types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typing {
    /// Where.
    pub space: SpaceId,
    /// Who.
    pub account: AccountId,
}

/// One of the two sets that a node keeps for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Table {
    /// The spaces of the people who are at the sender: of these it wants to hear.
    Watched,
    /// The people at the sender who are of concern to the receiver.
    Online,
}

/// A message about presence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// How often the sender has been started: what an earlier process said is of no interest.
    pub incarnation: u64,
    /// Grows with each message of the sender.
    pub sequence: u64,
    /// What it says.
    pub body: Body,
}

/// What a message says. New variants go to the end; who does not know one ignores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// "I am there, and these are my sets." The leases of both are good from here on for their time.
    Beat {
        watched: Summary,
        /// The sender has people in more spaces than it names: it wants to hear of everybody.
        everything: bool,
        online: Summary,
    },
    /// A set has changed.
    Change { table: Table, added: Vec<Key>, removed: Vec<Key> },
    /// "My copy of your set does not sum up to what you say; it has these digests." Four bytes each.
    Ask { table: Table, digests: Vec<u8> },
    /// The answer: a part of the set.
    Slice { table: Table, slice: Slice },
}

impl Body {
    /// Asks for what differs from these digests.
    pub fn ask(table: Table, digests: &Digests) -> Self {
        Self::Ask { table, digests: digests.iter().flat_map(|digest| digest.to_le_bytes()).collect() }
    }
}

/// Reads the digests of an [`Body::Ask`].
pub fn digests(bytes: &[u8]) -> Option<Box<Digests>> {
    let (words, []) = bytes.as_chunks::<4>() else { return None };
    let digests: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    <[u32; BUCKETS]>::try_from(digests).ok().map(Box::new)
}

/// A datagram's payload.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![FORMAT]).expect("postcard has no way to fail on a growing buffer")
}

/// What a datagram says; `None` if this release can't read it.
pub fn decode<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Option<T> {
    match payload.split_first() {
        Some((&FORMAT, rest)) => postcard::from_bytes(rest).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::set::KEYS_AT_ONCE, *};

    fn fits(body: Body) {
        let message = Message { incarnation: u64::MAX, sequence: u64::MAX, body };
        let payload = encode(&message);
        assert!(payload.len() <= 1150, "{} bytes", payload.len());
        assert_eq!(decode::<Message>(&payload), Some(message));
    }

    #[test]
    fn every_message_fits_a_datagram_and_can_be_read() {
        let keys = vec![Key::MAX; KEYS_AT_ONCE];
        fits(Body::Beat { watched: Summary::default(), everything: true, online: Summary::default() });
        fits(Body::Change { table: Table::Online, added: keys.clone(), removed: Vec::new() });
        let (all, mine) = ([u32::MAX; BUCKETS], Body::ask(Table::Watched, &[u32::MAX; BUCKETS]));
        fits(mine.clone());
        let Body::Ask { digests: bytes, .. } = mine else { unreachable!("it was made as one") };
        assert_eq!(digests(&bytes), Some(Box::new(all)));
        fits(Body::Slice { table: Table::Online, slice: Slice { from: Key::MIN, to: Key::MAX, keys } });
    }

    #[test]
    fn typing_is_read_as_releases_before_presence_wrote_it() {
        let typing =
            Typing { space: SpaceId(uuid::Uuid::from_u128(1)), account: AccountId(uuid::Uuid::from_u128(2)) };
        let mut payload = vec![1];
        for id in [1u128, 2] {
            payload.push(16);
            payload.extend(id.to_be_bytes());
        }
        assert_eq!(decode::<Typing>(&payload), Some(typing));
        assert_eq!(encode(&typing), payload);
    }

    proptest! {
        #[test]
        fn noise_is_never_a_panic(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (decode::<Message>(&noise), decode::<Typing>(&noise), digests(&noise));
        }
    }
}
