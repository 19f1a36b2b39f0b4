//! How a replicated row's `data` column is packed: one byte that names the format, then postcard.
//!
//! Rows live for ever and come from nodes of any release, so whoever reads one must be ready for a format that it
//! does not know: the row then counts as absent, and stays in the database for a release that knows it.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Serialize, de::DeserializeOwned};

/// The format that this release writes. A new variant of an enumeration is a new format too.
const FORMAT: u8 = 1;
/// A format of a release to come: the value and one byte more.
#[cfg(feature = "next")]
const NEXT: u8 = 2;

/// Packs a value for a `data` column.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![FORMAT]).expect("postcard has no way to fail on a growing buffer")
}

/// Packs a value in the format of a release to come.
#[cfg(feature = "next")]
#[must_use]
pub fn encode_next<T: Serialize>(value: &T) -> Vec<u8> {
    let mut packed = encode(value);
    packed[0] = NEXT;
    packed.push(0);
    packed
}

/// Whether a `data` column has a format that this release reads.
#[must_use]
pub fn is_known(data: &[u8]) -> bool {
    match data.first() {
        Some(&FORMAT) => true,
        #[cfg(feature = "next")]
        Some(&NEXT) => true,
        _ => false,
    }
}

/// The value in a `data` column; `None` for a format that this release does not know, or for damaged data.
#[must_use]
pub fn decode<T: DeserializeOwned>(data: &[u8]) -> Option<T> {
    static WARNED: AtomicBool = AtomicBool::new(false);
    let value = match data.split_first() {
        Some((&FORMAT, rest)) => postcard::from_bytes(rest).ok(),
        #[cfg(feature = "next")]
        Some((&NEXT, [rest @ .., _])) => postcard::from_bytes(rest).ok(),
        _ => None,
    };
    if value.is_none() && !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            format = data.first(),
            "a row has a format that this release does not read; it is kept and left out (said once)"
        );
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_can_be_read_and_the_unknown_is_absent() {
        let packed = encode(&("text".to_owned(), 7u64));
        assert_eq!(decode::<(String, u64)>(&packed), Some(("text".to_owned(), 7)));
        assert_eq!(decode::<(String, u64)>(&[9, 1, 2]), None);
        assert_eq!(decode::<(String, u64)>(&[]), None);
        assert_eq!(decode::<(String, u64)>(&packed[..2]), None);
        assert!(is_known(&packed) && !is_known(&[9, 1, 2]) && !is_known(&[]));
    }
}
