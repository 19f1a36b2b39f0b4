//! What a client has seen and may not show any more.
//!
//! An edit that the client knows may overrule one that it is told of by a node which lacks the first. Then it shows the
//! older one until the other has been told **once more**, by whichever node it is at when that one has both. So a client
//! that is told anything, or passes over anything, at a node that lacks versions which it has seen holds these **in
//! doubt** from then on: of each such site, what comes after the version that the node held. They stay seen: what was
//! created in them is not told again. But what says how something is now is, from the log or as it arrives, and the doubt
//! ends where that has got to.
//!
//! A cursor with doubts is: a format byte, their number, of each the site and the version after which its versions are in
//! doubt, and then the cursor as it would be without them. A site is a zero and the first eight bytes of its id; one of
//! which only a mark is known (`compact.rs`) is a fourth of the mark's bits and the mark.

use super::{
    SitePrefix, Unreadable, compact,
    form::{put_varint, take_varint},
};

/// The format of cursors with doubts.
pub const DOUBTFUL: u8 = 4;
/// Bits of a mark, in these steps.
const MARK_STEP: u32 = 4;

/// A site whose versions may be in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// By the beginning of its id.
    Known(SitePrefix),
    /// By the first so many bits of the mix of that.
    Marked(u32, u64),
}

impl Site {
    fn is(self, site: SitePrefix) -> bool {
        match self {
            Self::Known(known) => known == site,
            Self::Marked(bits, mark) => compact::mark(site, bits) == mark,
        }
    }
}

/// The sites of which the client has seen versions that are in doubt, by site; each with the version before those.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubts(Vec<(Site, u64)>);

impl Doubts {
    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// After which version of a site they begin.
    pub fn after(&self, site: SitePrefix) -> Option<u64> {
        self.0.iter().filter(|(doubted, _)| doubted.is(site)).map(|(_, after)| *after).min()
    }

    /// They begin right after this version, if they did not before it.
    pub fn lower(&mut self, site: Site, after: u64) {
        match self.0.binary_search_by_key(&site, |entry| entry.0) {
            Ok(at) => self.0[at].1 = after.min(self.0[at].1),
            Err(at) => self.0.insert(at, (site, after)),
        }
    }

    /// There are none up to this version of a site, of which `seen` is the last that the client has seen anything of.
    pub fn raise(&mut self, site: SitePrefix, upto: u64, seen: u64) {
        self.0.retain_mut(|(doubted, after)| {
            if !doubted.is(site) {
                return true;
            }
            *after = upto.max(*after);
            *after < seen
        });
    }

    /// A site is known by its id from now on.
    pub fn name(&mut self, site: SitePrefix) {
        if let Some(after) = self.after(site) {
            self.0.retain(|(doubted, _)| !doubted.is(site));
            self.lower(Site::Known(site), after);
        }
    }

    /// Only those of sites of which the client has seen more than the version before them.
    pub fn keep(&mut self, seen: impl Fn(Site) -> u64) {
        self.0.retain(|(site, after)| *after < seen(*site));
    }

    /// The form of a cursor with them, from the one without.
    pub fn write(&self, cursor: Vec<u8>) -> Vec<u8> {
        if self.is_empty() {
            return cursor;
        }
        let mut bytes = vec![DOUBTFUL];
        put_varint(&mut bytes, self.0.len() as u64);
        for (site, after) in &self.0 {
            match site {
                Site::Known(site) => {
                    bytes.push(0);
                    bytes.extend_from_slice(site);
                }
                Site::Marked(bits, mark) => {
                    bytes.push((bits / MARK_STEP) as u8);
                    put_varint(&mut bytes, *mark);
                }
            }
            put_varint(&mut bytes, *after);
        }
        bytes.extend(cursor);
        bytes
    }

    /// Reads what comes after the format byte, up to the cursor without them.
    ///
    /// # Errors
    /// When it is not what [`Doubts::write`] writes.
    pub fn read(rest: &mut &[u8]) -> Result<Self, Unreadable> {
        let count = take_varint(rest)?;
        let mut doubts = Vec::new();
        for _ in 0..count {
            let (&form, tail) = rest.split_first().ok_or(Unreadable::Malformed)?;
            *rest = tail;
            let site = if form == 0 {
                let (site, tail) = rest.split_first_chunk().ok_or(Unreadable::Malformed)?;
                *rest = tail;
                Site::Known(*site)
            } else {
                let bits = u32::from(form) * MARK_STEP;
                let mark = take_varint(rest)?;
                if bits > u64::BITS || mark.checked_shr(bits).unwrap_or(0) != 0 {
                    return Err(Unreadable::Malformed);
                }
                Site::Marked(bits, mark)
            };
            if doubts.last().is_some_and(|(last, _)| *last >= site) {
                return Err(Unreadable::Malformed);
            }
            doubts.push((site, take_varint(rest)?));
        }
        if doubts.is_empty() { Err(Unreadable::Malformed) } else { Ok(Self(doubts)) }
    }
}
