//! Cursors: where a client stands, in a form that every node understands.
//!
//! A cursor is a version vector with each site shortened to the first eight bytes of its id, as base64url without
//! padding of: a format byte, the number of sites, then per site the eight bytes and the version (numbers as
//! LEB128). A version may carry several events; a client that has seen only the first of them has a cursor with a
//! rest: the place of the site in the list (its number of sites for one that is not listed, then with its eight
//! bytes), how far the version is beyond the site's, and the sequence number within it. A node that lacks a site
//! which the cursor names is behind the cursor.
//!
//! A cursor of more than [`PLAIN_SITES`] sites has another format byte and a shorter form (`cursor/compact.rs`), in which
//! a site is a few bits of its id. Whoever knows the sites makes ids of them again: [`Cursor::read`]. A cursor that was
//! only parsed works all the same, by those bits.

mod compact;

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use mychat_replication::log::{SiteId, Version, VersionVector};

use self::compact::{Bits, Marked, Reader};

/// The format of cursors of few sites.
const FORMAT: u8 = 1;
/// The format of cursors of many.
const COMPACT: u8 = 2;
/// So many are few.
const PLAIN_SITES: usize = 8;
/// The longest cursor that is looked at: some hundred sites.
const MAX_LENGTH: usize = 8 << 10;

/// Part of a site's id, enough to tell the sites of a cluster apart.
pub type SitePrefix = [u8; 8];

/// How much of every site's log a client has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Per site the version up to which everything is seen, by site; no two with the same prefix.
    entries: Vec<(SitePrefix, u64)>,
    /// More of them, of which only a mark is known.
    marked: Option<Box<Marked>>,
    /// A version of which only the beginning is seen.
    part: Option<Part>,
}

/// The beginning of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    site: SitePrefix,
    version: u64,
    /// The last change that is seen.
    sequence: u32,
}

/// A site's id, shortened as in cursors.
#[must_use]
pub fn prefix(site: SiteId) -> SitePrefix {
    let mut prefix = [0; 8];
    prefix.copy_from_slice(&site.0[..8]);
    prefix
}

impl Cursor {
    /// Reads a cursor that a client has brought, on a node that knows these sites.
    ///
    /// # Errors
    /// When it is no cursor, or it can't be told which sites it means.
    pub fn read(text: &str, known: &VersionVector) -> Result<Self, MalformedCursor> {
        let mut cursor: Self = text.parse()?;
        if let Some(marked) = cursor.marked.take() {
            let (found, rest) = marked.resolve(&Self::from(known).entries)?;
            (cursor.entries, cursor.marked) = (found, rest.map(Box::new));
        }
        Ok(cursor)
    }

    /// The cursor of a client that has also seen the changes of `version` up to `sequence`.
    #[must_use]
    pub fn with_part(mut self, site: SiteId, version: Version, sequence: u32) -> Self {
        self.part = Some(Part { site: prefix(site), version: version.0, sequence });
        self
    }

    /// Whether the client has seen this change.
    #[must_use]
    pub fn has_seen(&self, site: SitePrefix, version: u64, sequence: u32) -> bool {
        version <= self.seen(site)
            || self.part.is_some_and(|part| {
                part.site == site
                    && (version < part.version || (version == part.version && sequence <= part.sequence))
            })
    }

    /// Notes that everything of a site up to a version is seen.
    pub fn advance(&mut self, site: SitePrefix, version: u64) {
        match self.entries.binary_search_by_key(&site, |entry| entry.0) {
            Ok(at) => self.entries[at].1 = self.entries[at].1.max(version),
            Err(at) => {
                let version = version.max(self.unmark(site));
                if version > 0 {
                    self.entries.insert(at, (site, version));
                }
            }
        }
        if self.part.is_some_and(|part| part.site == site && part.version <= version) {
            self.part = None;
        }
    }

    /// Takes a site off the list of those of which only a mark is known.
    fn unmark(&mut self, site: SitePrefix) -> u64 {
        let version = self.marked.as_mut().and_then(|marked| marked.take(site));
        if self.marked.as_ref().is_some_and(|marked| marked.len() == 0) {
            self.marked = None;
        }
        version.unwrap_or(0)
    }

    /// Notes that everything that a node holds is seen.
    pub fn merge(&mut self, vector: &VersionVector) {
        for (site, version) in vector.iter() {
            self.advance(prefix(site), version.0);
        }
    }

    /// The sites and versions.
    #[must_use]
    pub fn entries(&self) -> &[(SitePrefix, u64)] {
        &self.entries
    }

    /// The version that the cursor has of a site.
    #[must_use]
    pub fn seen(&self, site: SitePrefix) -> u64 {
        match self.entries.binary_search_by_key(&site, |entry| entry.0) {
            Ok(index) => self.entries[index].1,
            Err(_) => self.marked.as_ref().and_then(|marked| marked.version(site)).unwrap_or(0),
        }
    }

    /// Whether a node with this vector holds everything that the cursor has seen.
    #[must_use]
    pub fn is_covered_by(&self, vector: &VersionVector) -> bool {
        let held = Self::from(vector);
        let part = self.part.map(|part| (part.site, part.version));
        self.entries.iter().copied().chain(part).all(|(site, version)| held.seen(site) >= version)
            && self.marked.as_ref().is_none_or(|marked| marked.covered_by(&held.entries))
    }

    /// The short form.
    fn compact(&self) -> Vec<u8> {
        let mut bits = Bits::default();
        bits.put(COMPACT.into(), 8);
        Marked::of(&self.entries, self.marked.as_deref()).write(&mut bits);
        bits.put(self.part.is_some().into(), 1);
        if let Some(part) = self.part {
            bits.put(u64::from_be_bytes(part.site), 64);
            bits.gamma(part.version);
            bits.gamma(part.sequence.into());
        }
        bits.bytes
    }

    fn read_compact(bytes: &[u8]) -> Result<Self, MalformedCursor> {
        let mut bits = Reader::new(bytes);
        let marked = Marked::read(&mut bits)?;
        let mut part = None;
        if bits.take(1)? == 1 {
            let site = bits.take(64)?.to_be_bytes();
            let version = bits.gamma()?;
            let sequence = u32::try_from(bits.gamma()?).map_err(|_| MalformedCursor)?;
            part = Some(Part { site, version, sequence });
        }
        bits.end()?;
        let marked = Some(Box::new(marked)).filter(|marked| marked.len() > 0);
        Ok(Self { entries: Vec::new(), marked, part })
    }
}

impl From<&VersionVector> for Cursor {
    fn from(vector: &VersionVector) -> Self {
        let mut entries: Vec<(SitePrefix, u64)> =
            vector.iter().map(|(site, version)| (prefix(site), version.0)).collect();
        // The vector is in the order of the whole ids, so of two equal prefixes the larger version is kept by hand.
        entries.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same {
                first.1 = first.1.max(later.1);
            }
            same
        });
        Self { entries, marked: None, part: None }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.marked.is_some() || self.entries.len() > PLAIN_SITES {
            return f.write_str(&URL_SAFE_NO_PAD.encode(self.compact()));
        }
        let mut bytes = Vec::with_capacity(4 + self.entries.len() * 12);
        bytes.push(FORMAT);
        put_varint(&mut bytes, self.entries.len() as u64);
        for (site, version) in &self.entries {
            bytes.extend_from_slice(site);
            put_varint(&mut bytes, *version);
        }
        if let Some(part) = self.part {
            let at = self.entries.iter().position(|(site, _)| *site == part.site);
            put_varint(&mut bytes, at.unwrap_or(self.entries.len()) as u64);
            if at.is_none() {
                bytes.extend_from_slice(&part.site);
            }
            put_varint(&mut bytes, part.version.saturating_sub(self.seen(part.site)));
            put_varint(&mut bytes, u64::from(part.sequence));
        }
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// A string that is not a cursor of this format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is malformed")]
pub struct MalformedCursor;

impl FromStr for Cursor {
    type Err = MalformedCursor;

    fn from_str(text: &str) -> Result<Self, MalformedCursor> {
        if text.len() > MAX_LENGTH {
            return Err(MalformedCursor);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| MalformedCursor)?;
        let mut rest = match bytes.split_first() {
            Some((&FORMAT, rest)) => rest,
            Some((&COMPACT, rest)) => return Self::read_compact(rest),
            _ => return Err(MalformedCursor),
        };
        let count = take_varint(&mut rest)?;
        let mut entries: Vec<(SitePrefix, u64)> = Vec::new();
        for _ in 0..count {
            let (site, tail) = rest.split_first_chunk::<8>().ok_or(MalformedCursor)?;
            rest = tail;
            let version = take_varint(&mut rest)?;
            if entries.last().is_some_and(|last| last.0 >= *site) {
                return Err(MalformedCursor);
            }
            entries.push((*site, version));
        }
        let mut cursor = Self { entries, marked: None, part: None };
        if !rest.is_empty() {
            cursor.part = Some(take_part(&mut rest, &cursor)?);
        }
        if rest.is_empty() { Ok(cursor) } else { Err(MalformedCursor) }
    }
}

fn take_part(rest: &mut &[u8], whole: &Cursor) -> Result<Part, MalformedCursor> {
    let at = usize::try_from(take_varint(rest)?).map_err(|_| MalformedCursor)?;
    let site = match whole.entries.get(at) {
        Some((site, _)) => *site,
        None if at == whole.entries.len() => {
            let (site, tail) = rest.split_first_chunk::<8>().ok_or(MalformedCursor)?;
            *rest = tail;
            if whole.entries.iter().any(|(listed, _)| listed == site) {
                return Err(MalformedCursor);
            }
            *site
        }
        None => return Err(MalformedCursor),
    };
    let version = whole.seen(site).checked_add(take_varint(rest)?).ok_or(MalformedCursor)?;
    let sequence = u32::try_from(take_varint(rest)?).map_err(|_| MalformedCursor)?;
    Ok(Part { site, version, sequence })
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, MalformedCursor> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(MalformedCursor)?;
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(MalformedCursor);
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(MalformedCursor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    fn vectors() -> impl Strategy<Value = VersionVector> {
        vectors_of(0..8)
    }

    fn vectors_of(sites: std::ops::Range<usize>) -> impl Strategy<Value = VersionVector> {
        prop::collection::vec((any::<[u8; 16]>(), 1u64..), sites).prop_map(|entries| {
            entries.into_iter().map(|(site, version)| (SiteId(site), Version(version))).collect()
        })
    }

    proptest! {
        #[test]
        fn a_cursor_reads_back(vector in vectors()) {
            let cursor = Cursor::from(&vector);
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor.clone()));
            prop_assert!(cursor.is_covered_by(&vector));
        }

        #[test]
        fn a_cursor_is_ahead_of_a_node_that_lacks_a_version(vector in vectors()) {
            let cursor = Cursor::from(&vector);
            for (site, version) in vector.iter() {
                let mut behind = vector.clone();
                behind.set(site, Version(version.0 - 1));
                prop_assert!(!cursor.is_covered_by(&behind));
            }
        }

        #[test]
        fn a_cursor_with_a_part_reads_back(vector in vectors(), site in any::<[u8; 16]>(), listed in any::<bool>(), beyond in 1u64..1 << 40, sequence in 0u32..300) {
            let site = if listed { vector.iter().next().map_or(SiteId(site), |(site, _)| site) } else { SiteId(site) };
            let version = vector.get(site).0.saturating_add(beyond);
            let cursor = Cursor::from(&vector).with_part(site, Version(version), sequence);
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor.clone()));
            prop_assert!(cursor.has_seen(prefix(site), version, sequence));
            prop_assert!(!cursor.has_seen(prefix(site), version, sequence + 1));
            let mut whole = cursor;
            whole.advance(prefix(site), version);
            prop_assert_eq!(whole.part, None);
        }

        #[test]
        fn a_cursor_of_many_sites_reads_back_where_they_are_known(
            vector in vectors_of(9..60), others in vectors_of(0..9), site in any::<[u8; 16]>(),
            part in prop::option::of((1u64..1 << 40, 0u32..300))
        ) {
            let mut cursor = Cursor::from(&vector);
            if let Some((beyond, sequence)) = part {
                let version = vector.get(SiteId(site)).0.saturating_add(beyond);
                cursor = cursor.with_part(SiteId(site), Version(version), sequence);
            }
            let text = cursor.to_string();
            let marked = Marked::of(&cursor.entries, None);
            prop_assume!(cursor.entries.len() == vector.iter().count());
            prop_assume!(others.iter().all(|(site, _)| marked.version(prefix(site)).is_none()));
            // A node that knows these and others, one that knows some, and whoever only parses it.
            let mut all = others.clone();
            all.merge(&vector);
            prop_assert_eq!(Cursor::read(&text, &all), Ok(cursor.clone()));
            let few: VersionVector = vector.iter().step_by(2).collect();
            let mut some = Cursor::read(&text, &few).expect("nothing is ambiguous");
            let parsed: Cursor = text.parse().expect("a cursor");
            for (site, version) in vector.iter() {
                prop_assert_eq!(some.seen(prefix(site)), version.0);
                prop_assert_eq!(parsed.seen(prefix(site)), version.0);
            }
            prop_assert!(some.is_covered_by(&all) == part.is_none() && parsed.is_covered_by(&all) == part.is_none());
            prop_assert!(!some.is_covered_by(&few) && !parsed.is_covered_by(&few));
            // As it is passed on by a node that learns the rest meanwhile.
            let again = Cursor::read(&some.to_string(), &all).expect("a cursor");
            prop_assert_eq!(&again, &cursor);
            some.merge(&vector);
            prop_assert_eq!(&some, &cursor);
        }

        #[test]
        fn noise_is_refused_without_a_panic(mut noise in prop::collection::vec(any::<u8>(), 0..64), format in 1u8..4) {
            if let Some(first) = noise.first_mut() {
                *first = format;
            }
            if let Ok(cursor) = URL_SAFE_NO_PAD.encode(noise).parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
            }
        }
    }

    /// Another site with the same 16-bit mark.
    fn twin(site: SiteId) -> SiteId {
        let marked = Marked::of(&[(prefix(site), 1)], None);
        let mut twin = site;
        (0u64..)
            .map(|number| {
                twin.0[..8].copy_from_slice(&number.to_be_bytes());
                twin
            })
            .find(|twin| prefix(*twin) != prefix(site) && marked.version(prefix(*twin)).is_some())
            .expect("one in 65,536")
    }

    #[test]
    fn one_site_with_the_longest_mark_is_written_as_it_was_read() {
        let mut bits = Bits::default();
        bits.put(COMPACT.into(), 8);
        bits.put(1, 16);
        bits.put(16, 5);
        bits.gamma(1);
        // The mark in one piece, and a version of one bit.
        bits.put(0, 1);
        bits.put(u64::MAX, 64);
        bits.put(0, 1);
        bits.put(1, 7);
        bits.put(1, 1);
        bits.put(0, 1);
        let text = URL_SAFE_NO_PAD.encode(&bits.bytes);
        assert_eq!(text.parse::<Cursor>().expect("a cursor").to_string(), text);
    }

    #[test]
    fn a_list_that_may_be_of_other_sites_is_refused() {
        let mut rng = StdRng::seed_from_u64(9);
        let vector: VersionVector = (1..12).map(|version| (SiteId(rng.random()), Version(version))).collect();
        let text = Cursor::from(&vector).to_string();
        // Of every site the node knows another one with the same mark.
        let twins: VersionVector = vector.iter().map(|(site, version)| (twin(site), version)).collect();
        assert_eq!(Cursor::read(&text, &twins), Err(MalformedCursor));
        let mut both = vector.clone();
        both.merge(&twins);
        assert_eq!(Cursor::read(&text, &both), Err(MalformedCursor));
        // A writer that knows both tells them apart.
        let cursor = Cursor::from(&both);
        assert_eq!(Cursor::read(&cursor.to_string(), &both), Ok(cursor));
    }

    #[test]
    fn a_cursor_of_thirty_sites_is_short() {
        let mut rng = StdRng::seed_from_u64(30);
        for largest in [1u64, 1000, 1 << 20, (1 << 24) - 1] {
            for _ in 0..50 {
                let vector: VersionVector = (0..30)
                    .map(|_| (SiteId(rng.random()), Version(rng.random_range(largest.div_ceil(2)..=largest))))
                    .collect();
                let text = Cursor::from(&vector).to_string();
                assert!(text.len() < 200, "{} characters", text.len());
            }
        }
    }

    #[test]
    fn what_is_no_cursor_is_an_error() {
        for bad in ["", "!", "AA", "Ag", "AQE", "AQEAAAAAAAAAAA", "AQAA"] {
            assert_eq!(bad.parse::<Cursor>(), Err(MalformedCursor), "{bad}");
        }
        assert_eq!("AQA".parse(), Ok(Cursor::default()));
    }
}
