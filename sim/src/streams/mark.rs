//! What each message carries in its text: which one it is of its space, and when it was posted.

use std::time::{SystemTime, UNIX_EPOCH};

use memchr::memmem;

const PREFIX: &[u8] = b"load-";
/// `load-`, the number in 10 digits, `-`, the time in 16.
const LENGTH: usize = PREFIX.len() + 10 + 1 + 16;

/// A message of a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Messages of a space are counted from 0.
    pub(super) number: u32,
    /// When it was posted, in microseconds since 1970: clients in other processes can tell how long it took.
    pub(super) posted: u64,
}

impl Mark {
    /// A text of `size` bytes with this mark.
    pub(super) fn text(self, size: usize) -> String {
        const WORDS: &str = " the quick brown fox jumps over the lazy dog while nobody looks";
        let mut text = format!("load-{:010}-{:016}", self.number, self.posted);
        text.extend(WORDS.chars().cycle().take(size.saturating_sub(text.len())));
        text
    }

    /// The first mark in some bytes.
    pub(super) fn find(bytes: &[u8]) -> Option<Self> {
        memmem::find_iter(bytes, PREFIX).find_map(|at| {
            let mark = bytes.get(at + PREFIX.len()..at + LENGTH)?;
            let (number, posted) = (mark.get(..10)?, mark.get(11..)?);
            Some(Self { number: u32::try_from(digits(number)?).ok()?, posted: digits(posted)? })
        })
    }
}

/// Now, in microseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn digits(bytes: &[u8]) -> Option<u64> {
    bytes
        .iter()
        .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_in_its_text() {
        let mark = Mark { number: 4_294_967_295, posted: 1_790_000_000_000_000 };
        let text = mark.text(200);
        assert_eq!(text.len(), 200);
        assert_eq!(Mark::find(format!("load-1 {{\"body\":\"{text}\"}}").as_bytes()), Some(mark));
        assert_eq!(Mark::find(&text.as_bytes()[..LENGTH - 1]), None);
    }
}
