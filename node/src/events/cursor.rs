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
//! A cursor of more than eight sites has another format byte and a shorter form (`cursor/compact.rs`), in which
//! a site is a few bits of its id. Whoever knows the sites makes ids of them again: [`Cursor::read`]. A cursor of which
//! some sites are not known works all the same, by those bits.
//!
//! Retired sites do not make cursors longer: [`Cursor::write`] leaves them out of a cursor of more than eight
//! (a third format; `cursor/retired.rs` has the rule), and [`Cursor::read`] puts them back. In memory a cursor is always
//! whole. A node that lacks a version which retires sites can't read such a cursor yet ([`Unreadable::Unknown`]); it
//! waits a little, and then has the client begin anew (`reset`). So does, at once, a node of a release that does not know
//! the format.
//!
//! A client that has gone on at a node which lacks some of what it has seen may have been told less than it knew. Its
//! cursor says of which versions that is so, in front of the rest (a fourth format; `cursor/doubts.rs`).

mod compact;
mod doubts;
mod form;
mod retired;
#[cfg(test)]
mod tests;
mod written;

use std::fmt;

use mychat_replication::log::{SiteId, Version, VersionVector};

use self::{
    compact::Marked,
    doubts::{Doubts, Site},
    retired::Short,
};
pub use self::{retired::Retired, written::Cursors};

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
