//! Cursors: where a client stands, in a form that every node understands.
//!
//! A cursor is a version vector with each site shortened to the first eight bytes of its id, as base64url without
//! padding of: a format byte, the number of sites, then per site the eight bytes and the version (numbers as
//! LEB128). A version may carry several events; a client that has seen only the first of them has a cursor with a
//! rest: the place of the site in the list (its number of sites for one that is not listed, then with its eight
//! bytes), how far the version is beyond the site's, and the sequence number within it. A node that lacks a site
//! which the cursor names is behind the cursor.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use mychat_replication::log::{SiteId, Version, VersionVector};

/// The format that this release writes.
const FORMAT: u8 = 1;
/// The longest cursor that is looked at: some hundred sites.
const MAX_LENGTH: usize = 8 << 10;

/// Part of a site's id, enough to tell the sites of a cluster apart.
pub type SitePrefix = [u8; 8];

/// How much of every site's log a client has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Per site the version up to which everything is seen, by site; no two with the same prefix.
    entries: Vec<(SitePrefix, u64)>,
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
            Err(at) if version > 0 => self.entries.insert(at, (site, version)),
            Err(_) => {}
        }
        if self.part.is_some_and(|part| part.site == site && part.version <= version) {
            self.part = None;
        }
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
        self.entries.binary_search_by_key(&site, |entry| entry.0).map_or(0, |index| self.entries[index].1)
    }

    /// Whether a node with this vector holds everything that the cursor has seen.
    #[must_use]
    pub fn is_covered_by(&self, vector: &VersionVector) -> bool {
        let held = Self::from(vector);
        let part = self.part.map(|part| (part.site, part.version));
        self.entries.iter().copied().chain(part).all(|(site, version)| held.seen(site) >= version)
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
        Self { entries, part: None }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        let mut cursor = Self { entries, part: None };
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

    use super::*;

    fn vectors() -> impl Strategy<Value = VersionVector> {
        prop::collection::vec((any::<[u8; 16]>(), 1u64..), 0..8).prop_map(|entries| {
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
        fn noise_is_refused_without_a_panic(noise in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(cursor) = URL_SAFE_NO_PAD.encode(noise).parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
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
