//! The short form of a cursor of many sites: 30 of them, at millions of versions each, in under 200 characters.
//!
//! A site is a *mark*: the first bits of a mix of its id's first eight bytes, as many as tell the listed sites apart (16
//! at least, and up to 32 where few sites leave room: a site that is made later may share a short mark). The marks are
//! sorted, and written as the gaps between them (Rice code); the versions follow, all in as many bits as the largest needs
//! or each with its own length, whichever is shorter. A check over the whole list tells a node that knows all marks
//! whether it has taken them for the right sites.
//!
//! Of a list from which retired sites are left out (`retired.rs`), the marks also tell its sites apart from all others that
//! the writer knows, and the versions are followed by those in which each site last retired others.

use super::{SitePrefix, Unreadable, retired::Listed};

/// The fewest bits of a mark.
const MARK_BITS: u32 = 16;
/// How many bits a mark grows by.
const MARK_STEP: u32 = 4;
/// Bits of a version's length.
const LENGTH_BITS: u32 = 6;
/// No more sites than this.
const MAX_SITES: u64 = 4096;
/// The check of a list whose sites are not all known to its writer.
const UNCHECKED: u16 = 0;

/// The sites of a list that are known, by id, and those that are not.
type Resolved = (Vec<Listed>, Option<Marked>);

/// Sites by their marks, with their versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// Bits of a mark.
    bits: u32,
    check: u16,
    /// By mark; no two the same.
    entries: Vec<Entry>,
}

/// What is known of a site that is listed by its mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    mark: u64,
    version: u64,
    /// As in [`Listed`].
    at: u64,
}

/// Spreads a site's id over all bits: ids may begin alike. No two get the same (the finalizer of SplitMix64).
pub fn mix(site: u64) -> u64 {
    let mut mixed = site.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The first bits of the mix of a site's id.
pub fn mark(site: SitePrefix, bits: u32) -> u64 {
    mix(u64::from_be_bytes(site)) >> (u64::BITS - bits)
}

/// A check over sites in the order of their ids.
fn check(sites: impl Iterator<Item = SitePrefix>) -> u16 {
    let sum = sites.fold(0, |sum, site| mix(sum ^ u64::from_be_bytes(site)));
    ((sum >> 48) as u16).max(UNCHECKED + 1)
}

/// The entries of a list, by mark.
fn entries(listed: &[Listed], bits: u32) -> Vec<Entry> {
    let entry =
        |listed: &Listed| Entry { mark: mark(listed.site, bits), version: listed.version, at: listed.at };
    let mut entries: Vec<Entry> = listed.iter().map(entry).collect();
    entries.sort_unstable();
    entries
}

impl Marked {
    /// The short form of a list of sites, by id; `rest` are those that are known by their marks only.
    pub fn of(sites: &[(SitePrefix, u64)], rest: Option<&Self>) -> Self {
        let listed: Vec<Listed> =
            sites.iter().map(|(site, version)| Listed { site: *site, version: *version, at: 0 }).collect();
        match rest {
            Some(rest) => Self::beside(&listed, rest),
            None => Self::apart(&listed, &[]),
        }
    }

    /// The short form of a list from which retired sites are left out. `others` are sites, by id, that must not be taken
    /// for those of the list. `None` when the marks of `rest` are too short for that.
    pub fn among(listed: &[Listed], rest: Option<&Self>, others: &[SitePrefix]) -> Option<Self> {
        let Some(rest) = rest else { return Some(Self::apart(listed, others)) };
        let marked = Self::beside(listed, rest);
        let is_listed = |site: &SitePrefix| listed.binary_search_by_key(site, |entry| entry.site).is_ok();
        let clear = marked.len() == listed.len() + rest.len()
            && others.iter().all(|site| is_listed(site) || marked.version(*site).is_none());
        clear.then_some(marked)
    }

    /// With marks as long as it takes to tell the listed sites from each other and all of them from `others`, which are
    /// sorted and may be listed as well.
    fn apart(listed: &[Listed], others: &[SitePrefix]) -> Self {
        let check = check(listed.iter().map(|entry| entry.site));
        let is_listed = |site: &SitePrefix| listed.binary_search_by_key(site, |entry| entry.site).is_ok();
        let others: Vec<SitePrefix> = others.iter().copied().filter(|site| !is_listed(site)).collect();
        let mut bits = match listed.len() {
            0..=12 => 2 * MARK_BITS,
            13..=16 => MARK_BITS + 2 * MARK_STEP,
            17..=20 => MARK_BITS + MARK_STEP,
            _ => MARK_BITS,
        };
        loop {
            let marked = Self { bits, check, entries: entries(listed, bits) };
            let apart = || {
                marked.entries.windows(2).all(|pair| pair[0].mark != pair[1].mark)
                    && others.iter().all(|site| marked.version(*site).is_none())
            };
            if bits == u64::BITS || apart() {
                return marked;
            }
            bits += MARK_STEP;
        }
    }

    /// With the marks that the rest has.
    fn beside(listed: &[Listed], rest: &Self) -> Self {
        let mut marked = rest.clone();
        for entry in entries(listed, rest.bits) {
            // Two that can't be told apart are as good as not seen: their events come again, and none is missed.
            match marked.entries.binary_search_by_key(&entry.mark, |other| other.mark) {
                Ok(same) => marked.entries[same].version = marked.entries[same].version.min(entry.version),
                Err(at) => marked.entries.insert(at, entry),
            }
        }
        marked.check = if listed.is_empty() { rest.check } else { UNCHECKED };
        marked
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// The version of a site, if its mark is listed.
    pub fn version(&self, site: SitePrefix) -> Option<u64> {
        self.place(site).map(|at| self.entries[at].version)
    }

    /// Takes a site out, if its mark is listed.
    pub fn take(&mut self, site: SitePrefix) -> Option<u64> {
        self.place(site).map(|at| self.entries.remove(at).version)
    }

    fn place(&self, site: SitePrefix) -> Option<usize> {
        self.entries.binary_search_by_key(&mark(site, self.bits), |entry| entry.mark).ok()
    }

    /// The version of a site that is listed by this mark of so many bits.
    pub fn version_at(&self, bits: u32, mark: u64) -> Option<u64> {
        let at = self.entries.binary_search_by_key(&mark, |entry| entry.mark).ok()?;
        (bits == self.bits).then_some(self.entries[at].version)
    }

    /// The listed sites of which a node that holds these lacks something: the bits of the mark, the mark, and what it holds.
    pub fn not_covered_by(&self, held: &[(SitePrefix, u64)]) -> impl Iterator<Item = (u32, u64, u64)> {
        self.entries.iter().filter_map(move |wanted| {
            let same = held.iter().filter(|(site, _)| mark(*site, self.bits) == wanted.mark);
            let held = same.map(|(_, version)| *version).max().unwrap_or(0);
            (held < wanted.version).then_some((self.bits, wanted.mark, held))
        })
    }

    /// The listed sites among those that are known, and the rest.
    ///
    /// # Errors
    /// When a mark may be that of several, or all are found and they are not those of the list.
    pub fn resolve(mut self, known: &[(SitePrefix, u64)]) -> Result<Resolved, Unreadable> {
        let before = self.len();
        let mut found = Vec::new();
        for (site, _) in known {
            if let Some(at) = self.place(*site) {
                let Entry { version, at, .. } = self.entries[at];
                found.push(Listed { site: *site, version, at });
            }
        }
        found.sort_unstable();
        found.dedup();
        for entry in &found {
            self.take(entry.site).ok_or(Unreadable::Malformed)?;
        }
        if self.entries.is_empty() {
            let right = self.check == UNCHECKED || self.check == check(found.iter().map(|entry| entry.site));
            return if right { Ok((found, None)) } else { Err(Unreadable::Malformed) };
        }
        if self.len() < before {
            self.check = UNCHECKED;
        }
        Ok((found, Some(self)))
    }

    /// Writes it.
    pub fn write(&self, out: &mut Bits) {
        let count = self.entries.len() as u64;
        let rice = self.rice();
        out.put(u64::from(self.check), 16);
        out.put((self.bits / MARK_STEP).into(), 5);
        out.gamma(count);
        let mut last = 0;
        for Entry { mark, .. } in &self.entries {
            let gap = mark - last;
            // All 64 bits of it when there is only one, and its mark is as long as can be.
            for _ in 0..gap.checked_shr(rice).unwrap_or(0) {
                out.put(1, 1);
            }
            out.put(0, 1);
            out.put(gap, rice);
            last = *mark;
        }
        let length = |version: u64| u64::BITS - version.leading_zeros();
        let largest = self.entries.iter().map(|entry| length(entry.version)).max().unwrap_or(0);
        let apart: u64 = self
            .entries
            .iter()
            .map(|entry| u64::from(LENGTH_BITS + length(entry.version).saturating_sub(1)))
            .sum();
        // 63 for the length stands for "each its own": no version is 63 bits long and all are not.
        let own = apart < u64::from(largest) * count;
        out.put(u64::from(own), 1);
        if !own {
            out.put(u64::from(largest), 7);
        }
        for Entry { version, .. } in &self.entries {
            if own {
                let length = length(*version).max(1);
                out.put(u64::from(length - 1), LENGTH_BITS);
                // The first bit of a number is 1, unless it is the only one.
                if length == 1 {
                    out.put(*version, 1);
                } else {
                    out.put(*version, length - 1);
                }
            } else {
                out.put(*version, largest);
            }
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it is not what [`Marked::write`] writes.
    pub fn read(bits: &mut Reader<'_>) -> Result<Self, Unreadable> {
        let check = bits.take(16)? as u16;
        let width = bits.take(5)? as u32 * MARK_STEP;
        let count = bits.gamma()?;
        if !(MARK_BITS..=u64::BITS).contains(&width) || count > MAX_SITES {
            return Err(Unreadable::Malformed);
        }
        let mut marked =
            Self { bits: width, check, entries: vec![Entry { mark: 0, version: 0, at: 0 }; count as usize] };
        let rice = marked.rice();
        let mut last = 0u64;
        for at in 0..marked.entries.len() {
            let mut high = 0u64;
            while bits.take(1)? == 1 {
                high += 1;
            }
            let low = bits.take(rice)?;
            let gap = if rice == u64::BITS {
                low
            } else {
                high.checked_mul(1 << rice).ok_or(Unreadable::Malformed)? | low
            };
            last = last.checked_add(gap).ok_or(Unreadable::Malformed)?;
            if (at > 0 && gap == 0) || (width < u64::BITS && last >> width != 0) {
                return Err(Unreadable::Malformed);
            }
            marked.entries[at].mark = last;
        }
        let own = bits.take(1)? == 1;
        let largest = if own { 0 } else { bits.take(7)? as u32 };
        for entry in &mut marked.entries {
            entry.version = match own {
                true => match bits.take(LENGTH_BITS)? as u32 {
                    0 => bits.take(1)?,
                    rest => bits.take(rest)? | 1 << rest,
                },
                false => bits.take(largest)?,
            };
        }
        Ok(marked)
    }

    /// Writes in which of their versions the listed sites last retired others.
    pub fn write_last(&self, out: &mut Bits) {
        self.entries.iter().for_each(|entry| out.gamma(entry.at));
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it is not what [`Marked::write_last`] writes.
    pub fn read_last(&mut self, bits: &mut Reader<'_>) -> Result<(), Unreadable> {
        for entry in &mut self.entries {
            entry.at = bits.gamma()?;
            // No cursor reaches a later version than its own.
            if entry.at > entry.version {
                return Err(Unreadable::Malformed);
            }
        }
        Ok(())
    }

    /// Whether none of the sites retires others.
    pub fn retires_none(&self) -> bool {
        self.entries.iter().all(|entry| entry.at == 0)
    }

    /// The bits of a gap that are written as they are: about as many as an average gap has.
    fn rice(&self) -> u32 {
        let count = u64::BITS - (self.entries.len().max(1) as u64).leading_zeros();
        (self.bits + 1).saturating_sub(count)
    }
}

/// Bits that are written one after the other.
#[derive(Default)]
pub struct Bits {
    /// The bytes so far; the last one may be filled with zeros.
    pub bytes: Vec<u8>,
    free: u32,
}

impl Bits {
    /// Appends the last `count` bits of a number.
    pub fn put(&mut self, number: u64, count: u32) {
        for at in (0..count).rev() {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            self.free -= 1;
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((number >> at & 1) as u8) << self.free;
            }
        }
    }

    /// Appends a number of any size: its length in ones, and it (Elias gamma of one more).
    pub fn gamma(&mut self, number: u64) {
        let number = u128::from(number) + 1;
        let length = number.ilog2();
        for _ in 0..length {
            self.put(1, 1);
        }
        self.put(0, 1);
        self.put((number - (1 << length)) as u64, length);
    }
}

/// Bits that are read one after the other.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads these bytes.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next bits as a number.
    ///
    /// # Errors
    /// When there are not as many.
    pub fn take(&mut self, count: u32) -> Result<u64, Unreadable> {
        if count > u64::BITS {
            return Err(Unreadable::Malformed);
        }
        let mut number = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8).ok_or(Unreadable::Malformed)?;
            number = number << 1 | u64::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Ok(number)
    }

    /// A number of any size.
    ///
    /// # Errors
    /// When there is none.
    pub fn gamma(&mut self) -> Result<u64, Unreadable> {
        let mut length = 0;
        while self.take(1)? == 1 {
            length += 1;
        }
        let number = u128::from(self.take(length)?) + (1u128 << length) - 1;
        u64::try_from(number).map_err(|_| Unreadable::Malformed)
    }

    /// Nothing may follow but the zeros that fill the last byte.
    ///
    /// # Errors
    /// When something does.
    pub fn end(mut self) -> Result<(), Unreadable> {
        let rest = (self.bytes.len() * 8).saturating_sub(self.at);
        if rest < 8 && self.take(rest as u32)? == 0 { Ok(()) } else { Err(Unreadable::Malformed) }
    }
}
