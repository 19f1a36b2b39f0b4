//! Cursors: where a client stands, in a form that every node understands.
//!
//! A cursor is a version vector with each site shortened to the first eight bytes of its id, as base64url without
//! padding of: a format byte, the number of sites, then per site the eight bytes and the version (numbers as
//! LEB128). A version may carry several events; a client that has seen only the first of them has a cursor with a
//! rest: the place of the site in the list (its number of sites for one that is not listed, then with its eight
//! bytes), how far the version is beyond the site's, and the sequence number within it. Such rests are as many as there
//! are sites of which it has seen the beginning of a version, in the order of the sites. A node that lacks a site which
//! the cursor names is behind the cursor.
//!
//! A cursor of more than [`PLAIN_SITES`] sites has another format byte and a shorter form (`cursor/compact.rs`), in which
//! a site is a few bits of its id. Whoever knows the sites makes ids of them again: [`Cursor::read`]. A cursor of which
//! some sites are not known works all the same, by those bits.
//!
//! Retired sites do not make cursors longer: [`Cursor::write`] leaves them out of a cursor of more than [`PLAIN_SITES`]
//! (a third format; `cursor/retired.rs` has the rule), and [`Cursor::read`] puts them back. In memory a cursor is always
//! whole. A node that lacks a version which retires sites can't read such a cursor yet ([`Unreadable::Unknown`]); it
//! waits a little, and then has the client begin anew (`reset`). So does, at once, a node of a release that does not know
//! the format.
//!
//! A client that has gone on at a node which lacks some of what it has seen may have been told less than it knew. Its
//! cursor says of which versions that is so, in front of the rest (a fourth format; `cursor/doubts.rs`).

mod compact;
mod doubts;
mod retired;
#[cfg(test)]
mod tests;
mod written;

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use mychat_replication::log::{SiteId, Version, VersionVector};

use self::{
    compact::{Bits, Marked, Reader},
    doubts::{DOUBTFUL, Doubts, Site},
    retired::Short,
};
pub use self::{retired::Retired, written::Cursors};

/// The format of cursors of few sites.
const FORMAT: u8 = 1;
/// The format of cursors of many.
const COMPACT: u8 = 2;
/// The format of cursors of many that leave out retired ones.
const SHORT: u8 = 3;
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
    /// Versions of which only the beginning is seen, by site; at most one of each.
    parts: Vec<Part>,
    /// What of it is in doubt.
    doubts: Doubts,
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
    /// Reads a cursor that a client has brought, on a node that holds `vector`. `retired` must have all retirements of
    /// that, and may have more.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub fn read(text: &str, vector: &VersionVector, retired: &Retired) -> Result<Self, Unreadable> {
        let (mut cursor, check) = Self::parse(text)?;
        if let Some(marked) = cursor.marked.take() {
            cursor.name(*marked, check, vector, retired)?;
        }
        // A doubt of what is not seen is none.
        let mut doubts = std::mem::take(&mut cursor.doubts);
        cursor.entries.iter().for_each(|(site, _)| doubts.name(*site));
        doubts.keep(|site| match site {
            Site::Known(site) => cursor.reach(site),
            Site::Marked(bits, mark) => {
                cursor.marked.as_ref().and_then(|rest| rest.version_at(bits, mark)).unwrap_or(0)
            }
        });
        cursor.doubts = doubts;
        Ok(cursor)
    }

    /// Puts ids for the marks of sites that are known, and what was left out.
    fn name(
        &mut self,
        marked: Marked,
        check: Option<u32>,
        vector: &VersionVector,
        retired: &Retired,
    ) -> Result<(), Unreadable> {
        let held = Self::from(vector);
        let (listed, rest) = marked.resolve(&held.entries)?;
        self.entries = match check {
            None => listed.iter().map(|entry| (entry.site, entry.version)).collect(),
            Some(check) => {
                let knows_rows = listed.iter().all(|entry| held.seen(entry.site) >= entry.at)
                    && rest.as_ref().is_none_or(Marked::retires_none);
                if !knows_rows {
                    return Err(Unreadable::Unknown);
                }
                retired.put_back(&Short { listed, check })?
            }
        };
        self.marked = rest.map(Box::new);
        Ok(())
    }

    /// The cursor as a client keeps it, without the sites that other nodes put back.
    #[must_use]
    pub fn write(&self, retired: &Retired) -> String {
        self.encode(self.shortened(retired).unwrap_or_else(|| self.whole()))
    }

    fn encode(&self, without_doubts: Vec<u8>) -> String {
        URL_SAFE_NO_PAD.encode(self.doubts.write(without_doubts))
    }

    fn shortened(&self, retired: &Retired) -> Option<Vec<u8>> {
        let rest = self.marked.as_deref();
        if self.entries.len() + rest.map_or(0, Marked::len) <= PLAIN_SITES {
            return None;
        }
        let Short { listed, check } = retired.leave_out(&self.entries)?;
        let marked = Marked::among(&listed, rest, retired.sites())?;
        let mut bits = Bits::default();
        bits.put(SHORT.into(), 8);
        marked.write(&mut bits);
        marked.write_last(&mut bits);
        bits.put(check.into(), 32);
        self.write_parts(&mut bits);
        Some(bits.bytes)
    }

    /// The cursor of a client that has also seen the changes of `version` up to `sequence`.
    #[must_use]
    pub fn with_part(mut self, site: SiteId, version: Version, sequence: u32) -> Self {
        let site = prefix(site);
        if version.0 <= self.seen(site) {
            return self;
        }
        let part = Part { site, version: version.0, sequence };
        match self.parts.binary_search_by_key(&site, |part| part.site) {
            Ok(at) => self.parts[at] = part,
            Err(at) => self.parts.insert(at, part),
        }
        self
    }

    /// The version of a site of which only the beginning is seen.
    fn part(&self, site: SitePrefix) -> Option<&Part> {
        self.parts.binary_search_by_key(&site, |part| part.site).ok().map(|at| &self.parts[at])
    }

    /// What is seen of each site, be it only the beginning of a version.
    fn reaches(&self) -> impl Iterator<Item = (SitePrefix, u64)> {
        self.entries.iter().copied().chain(self.parts.iter().map(|part| (part.site, part.version)))
    }

    /// Whether the client has seen this change.
    #[must_use]
    pub fn has_seen(&self, site: SitePrefix, version: u64, sequence: u32) -> bool {
        version <= self.seen(site)
            || self.part(site).is_some_and(|part| {
                version < part.version || (version == part.version && sequence <= part.sequence)
            })
    }

    /// Notes that everything of a site up to a version is seen, and has been told again where it was in doubt.
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
        self.parts.retain(|part| part.site != site || part.version > version);
        if !self.doubts.is_empty() {
            let reach = self.reach(site);
            self.doubts.raise(site, version, reach);
        }
    }

    /// Takes a site off the list of those of which only a mark is known.
    fn unmark(&mut self, site: SitePrefix) -> u64 {
        let version = self.marked.as_mut().and_then(|marked| marked.take(site));
        if version.is_some() {
            self.doubts.name(site);
        }
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

    /// The last version of a site of which the client has seen anything.
    fn reach(&self, site: SitePrefix) -> u64 {
        let begun = self.part(site).map_or(0, |part| part.version);
        self.seen(site).max(begun)
    }

    /// The version of a site up to which there is nothing to tell the client, neither for the first time nor once more.
    #[must_use]
    pub fn told(&self, site: SitePrefix) -> u64 {
        let seen = self.seen(site);
        self.doubts.after(site).map_or(seen, |after| after.min(seen))
    }

    /// Whether what the client has seen of a version is in doubt: it is told once more how things are by that.
    #[must_use]
    pub fn doubts(&self, site: SitePrefix, version: u64) -> bool {
        self.doubts.after(site).is_some_and(|after| version > after)
    }

    /// The client goes on at a node which has told its streams all that is in `held`. If there is something of it to tell
    /// the client, what it has seen beyond that is in doubt from now on.
    pub fn comes_to(&mut self, held: &VersionVector) {
        if held.iter().any(|(site, version)| self.told(prefix(site)) < version.0) {
            self.doubt_beyond(held);
        }
    }

    /// The client is told something by a node that holds no more than this.
    pub fn doubt_beyond(&mut self, held: &VersionVector) {
        let held = Self::from(held);
        let reaches: Vec<_> = self.reaches().filter(|(site, version)| *version > held.seen(*site)).collect();
        for (site, _) in reaches {
            self.doubts.lower(Site::Known(site), held.seen(site));
        }
        if let Some(marked) = &self.marked {
            for (bits, mark, version) in marked.not_covered_by(&held.entries) {
                self.doubts.lower(Site::Marked(bits, mark), version);
            }
        }
    }

    /// Whether a node with this vector holds everything that the cursor has seen.
    #[must_use]
    pub fn is_covered_by(&self, vector: &VersionVector) -> bool {
        let held = Self::from(vector);
        self.reaches().all(|(site, version)| held.seen(site) >= version)
            && self.marked.as_ref().is_none_or(|marked| marked.not_covered_by(&held.entries).next().is_none())
    }

    /// All sites, without the doubts.
    fn whole(&self) -> Vec<u8> {
        if self.marked.is_some() || self.entries.len() > PLAIN_SITES { self.compact() } else { self.plain() }
    }

    fn plain(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + self.entries.len() * 12);
        bytes.push(FORMAT);
        put_varint(&mut bytes, self.entries.len() as u64);
        for (site, version) in &self.entries {
            bytes.extend_from_slice(site);
            put_varint(&mut bytes, *version);
        }
        for part in &self.parts {
            let at = self.entries.iter().position(|(site, _)| *site == part.site);
            put_varint(&mut bytes, at.unwrap_or(self.entries.len()) as u64);
            if at.is_none() {
                bytes.extend_from_slice(&part.site);
            }
            put_varint(&mut bytes, part.version.saturating_sub(self.seen(part.site)));
            put_varint(&mut bytes, u64::from(part.sequence));
        }
        bytes
    }

    /// The short form.
    fn compact(&self) -> Vec<u8> {
        let mut bits = Bits::default();
        bits.put(COMPACT.into(), 8);
        Marked::of(&self.entries, self.marked.as_deref()).write(&mut bits);
        self.write_parts(&mut bits);
        bits.bytes
    }

    fn write_parts(&self, bits: &mut Bits) {
        for part in &self.parts {
            bits.put(1, 1);
            bits.put(u64::from_be_bytes(part.site), 64);
            bits.gamma(part.version);
            bits.gamma(part.sequence.into());
        }
        bits.put(0, 1);
    }

    /// Of many sites. For a list without the retired ones, also the check over these.
    fn parse_marked(bytes: &[u8], format: u8) -> Result<(Self, Option<u32>), Unreadable> {
        let mut bits = Reader::new(bytes);
        let mut marked = Marked::read(&mut bits)?;
        let check = if format == SHORT {
            marked.read_last(&mut bits)?;
            Some(bits.take(32)? as u32)
        } else {
            None
        };
        let mut parts = Vec::new();
        while bits.take(1)? == 1 {
            let site = bits.take(64)?.to_be_bytes();
            let version = bits.gamma()?;
            let sequence = u32::try_from(bits.gamma()?).map_err(|_| Unreadable::Malformed)?;
            put_part(&mut parts, Part { site, version, sequence })?;
        }
        bits.end()?;
        let marked = Some(Box::new(marked)).filter(|marked| marked.len() > 0);
        Ok((Self { marked, parts, ..Self::default() }, check))
    }

    fn parse(text: &str) -> Result<(Self, Option<u32>), Unreadable> {
        if text.len() > MAX_LENGTH {
            return Err(Unreadable::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Unreadable::Malformed)?;
        let mut rest = bytes.as_slice();
        let mut doubts = Doubts::default();
        if let Some((&DOUBTFUL, tail)) = rest.split_first() {
            rest = tail;
            doubts = Doubts::read(&mut rest)?;
        }
        let (cursor, check) = match rest.split_first() {
            Some((&FORMAT, rest)) => (Self::parse_plain(rest)?, None),
            Some((&format @ (COMPACT | SHORT), rest)) => Self::parse_marked(rest, format)?,
            _ => return Err(Unreadable::Malformed),
        };
        Ok((Self { doubts, ..cursor }, check))
    }

    fn parse_plain(mut rest: &[u8]) -> Result<Self, Unreadable> {
        let count = take_varint(&mut rest)?;
        let mut entries: Vec<(SitePrefix, u64)> = Vec::new();
        for _ in 0..count {
            let (site, tail) = rest.split_first_chunk::<8>().ok_or(Unreadable::Malformed)?;
            rest = tail;
            let version = take_varint(&mut rest)?;
            if entries.last().is_some_and(|last| last.0 >= *site) {
                return Err(Unreadable::Malformed);
            }
            entries.push((*site, version));
        }
        let mut cursor = Self { entries, ..Self::default() };
        while !rest.is_empty() {
            let part = take_part(&mut rest, &cursor)?;
            put_part(&mut cursor.parts, part)?;
        }
        Ok(cursor)
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
        Self { entries, ..Self::default() }
    }
}

/// The whole of it, whatever is retired.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.encode(self.whole()))
    }
}

/// Why a string can't be read as a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is no cursor, or it can't be told which sites it means.
    #[error("the cursor is malformed")]
    Malformed,
    /// It leaves out retired sites, and this node does not hold so far what retires them.
    #[error("the cursor leaves out sites that this node does not know to be retired")]
    Unknown,
}

fn take_part(rest: &mut &[u8], whole: &Cursor) -> Result<Part, Unreadable> {
    let at = usize::try_from(take_varint(rest)?).map_err(|_| Unreadable::Malformed)?;
    let site = match whole.entries.get(at) {
        Some((site, _)) => *site,
        None if at == whole.entries.len() => {
            let (site, tail) = rest.split_first_chunk::<8>().ok_or(Unreadable::Malformed)?;
            *rest = tail;
            if whole.entries.iter().any(|(listed, _)| listed == site) {
                return Err(Unreadable::Malformed);
            }
            *site
        }
        None => return Err(Unreadable::Malformed),
    };
    let version = whole.seen(site).checked_add(take_varint(rest)?).ok_or(Unreadable::Malformed)?;
    let sequence = u32::try_from(take_varint(rest)?).map_err(|_| Unreadable::Malformed)?;
    Ok(Part { site, version, sequence })
}

/// Parts are in the order of their sites.
fn put_part(parts: &mut Vec<Part>, part: Part) -> Result<(), Unreadable> {
    if parts.last().is_some_and(|last| last.site >= part.site) {
        return Err(Unreadable::Malformed);
    }
    parts.push(part);
    Ok(())
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, Unreadable> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(Unreadable::Malformed)?;
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(Unreadable::Malformed);
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Unreadable::Malformed)
}
