//! The texts of messages.

use super::marker::mark;

/// Letters and spaces, about as often as English has them.
const LETTERS: &[u8] = b"                       eeeeeeeeeeeeettttttttttaaaaaaaaooooooooiiiiiiinnnnnnnsssssssrrrrrrhhhhhhddddllllccuuummmwwffggyyppbbvvkkjxqz";

/// A text of `size` bytes with a mark, of plain words, as people write.
pub(super) fn body(size: usize) -> String {
    const WORDS: &str = " the quick brown fox jumps over the lazy dog while nobody looks";
    let mut body = mark(0);
    body.extend(WORDS.chars().cycle().take(size.saturating_sub(body.len())));
    body
}

/// A number whose bits have nothing to do with those of the next one (the mixing of SplitMix64).
pub(super) const fn scrambled(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// Overwrites text with other text, so that what compresses finds in it no more than in what people write.
pub(super) fn vary(text: &mut [u8], seed: u64) {
    for (at, piece) in (0..).zip(text.chunks_mut(8)) {
        let bits = scrambled(seed ^ at << 40).to_le_bytes();
        for (letter, bits) in piece.iter_mut().zip(bits) {
            *letter = LETTERS[usize::from(bits) % LETTERS.len()];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_size_and_differ() {
        assert_eq!([16, 17, 100, 1000].map(|size| body(size).len()), [16, 17, 100, 1000]);
        let texts: std::collections::HashSet<Vec<u8>> = (0..1000)
            .map(|seed| {
                let mut text = vec![0; 30];
                vary(&mut text, seed);
                assert!(text.iter().all(|byte| *byte == b' ' || byte.is_ascii_lowercase()));
                text
            })
            .collect();
        assert_eq!(texts.len(), 1000);
    }
}
