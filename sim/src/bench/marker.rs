//! The number that each message carries in its text, by which it is known again wherever it shows.
//!
//! It has a fixed length, so that a request is built once and only its digits are replaced, and a stream of events is
//! searched for it without being parsed.

use super::text::vary;

/// What comes before the digits.
const PREFIX: &[u8] = b"bench-";
/// How many digits there are.
const DIGITS: usize = 10;
/// The length of a whole mark.
const LENGTH: usize = PREFIX.len() + DIGITS;

/// The mark of a message, as it stands in its text.
pub(super) fn mark(number: u64) -> String {
    format!("{}{number:010}", String::from_utf8_lossy(PREFIX))
}

/// Bytes in which every mark can be set to another number.
#[derive(Debug, Clone)]
pub(super) struct Template {
    bytes: Vec<u8>,
    /// Where digits begin.
    places: Vec<usize>,
}

impl Template {
    /// Finds the marks in `bytes`.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        let mut places = Vec::new();
        find(&bytes, |at, _| places.push(at + PREFIX.len()));
        Self { bytes, places }
    }

    /// The bytes with this number, and with text of their own behind the mark.
    pub(super) fn varied(&mut self, number: u64) -> Vec<u8> {
        let mut bytes = self.numbered(number).to_vec();
        if let Some(text) = self.text() {
            vary(&mut bytes[text], number);
        }
        bytes
    }

    /// Where the text stands that follows the first mark: letters and spaces only.
    fn text(&self) -> Option<std::ops::Range<usize>> {
        let start = self.places.first()? + DIGITS;
        let length =
            self.bytes[start..].iter().take_while(|byte| **byte == b' ' || byte.is_ascii_lowercase()).count();
        Some(start..start + length)
    }

    /// The bytes with this number in every mark.
    pub(super) fn numbered(&mut self, number: u64) -> &[u8] {
        for place in &self.places {
            let mut rest = number;
            for digit in self.bytes[*place..place + DIGITS].iter_mut().rev() {
                // A remainder of ten fits.
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        &self.bytes
    }
}

/// Finds marks in bytes that come in pieces.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// The end of what came before, too short for a mark.
    pending: Vec<u8>,
}

impl Scanner {
    /// Takes the next piece, and names each mark that it completes.
    pub(super) fn scan(&mut self, piece: &[u8], mut found: impl FnMut(u64)) {
        self.pending.extend_from_slice(piece);
        find(&self.pending, |_, number| found(number));
        let done = self.pending.len().saturating_sub(LENGTH - 1);
        self.pending.drain(..done);
    }
}

fn find(bytes: &[u8], mut found: impl FnMut(usize, u64)) {
    let mut at = 0;
    while at + LENGTH <= bytes.len() {
        // The last byte of the prefix is rare in what surrounds it, so most steps look at one byte only.
        if bytes[at + PREFIX.len() - 1] == PREFIX[PREFIX.len() - 1]
            && bytes[at..].starts_with(PREFIX)
            && let Some(number) = digits(&bytes[at + PREFIX.len()..at + LENGTH])
        {
            found(at, number);
            at += LENGTH;
        } else {
            at += 1;
        }
    }
}

fn digits(bytes: &[u8]) -> Option<u64> {
    bytes
        .iter()
        .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_template_takes_numbers_everywhere() {
        let text = format!("{{\"id\":\"{0}\",\"body\":\"{0} bench-12 words\"}}", mark(0));
        let mut template = Template::new(text.clone().into_bytes());
        let numbered = String::from_utf8(template.numbered(9_876_543_210).to_vec()).unwrap();
        assert_eq!(numbered, text.replace("0000000000", "9876543210"));
        assert_eq!(template.numbered(0), text.as_bytes());
        let template = Template::new(format!("x{} some words\"}}", mark(7)).into_bytes());
        assert_eq!(template.text().map(|range| &template.bytes[range]), Some(&b" some words"[..]));
    }

    proptest! {
        #[test]
        fn marks_are_found_in_whatever_pieces_they_come(
            numbers in prop::collection::vec(0_u64..10_000_000_000, 0..8),
            between in prop::collection::vec("(bench-|[a-z0-9-]){0,6}", 9),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut text = between[0].clone();
            for (number, between) in numbers.iter().zip(&between[1..]) {
                text += &format!("|{}|{between}", mark(*number));
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let (mut scanner, mut found) = (Scanner::default(), Vec::new());
            for pair in cuts.windows(2) {
                scanner.scan(&text.as_bytes()[pair[0]..pair[1]], |number| found.push(number));
            }
            prop_assert_eq!(found, numbers);
        }
    }
}
