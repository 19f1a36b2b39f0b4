//! Cursors, read by hand: a format byte, the number of sites, then of each the beginning of its id and a version;
//! perhaps versions of which only the beginning was seen. Of many sites there are only the first bits of a mix of each
//! id, in order, as the differences between them. Such a list may also leave out retired sites: then it says of each of its
//! sites the version in which it last retired another, and what all these retire is seen as far as they say.
//!
//! In front of all that may be a list of sites, by the beginnings of ids or the first bits of mixes, each with a version:
//! what was seen of the site beyond that is in doubt.

use std::collections::BTreeMap;

use mychat_replication::log::SiteId;

use super::ledger::{Ledger, Place};

/// The beginning of a site's id.
type Site = [u8; 8];

/// What a cursor says was seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    sites: BTreeMap<Site, u64>,
    parts: Vec<(Site, u64, u64)>,
    /// Whether it left sites out that are put back here.
    short: bool,
    /// How many bits there are of each mix, and the versions by these bits.
    mixes: Option<(u32, BTreeMap<u64, u64>)>,
    /// Of which sites that which was seen after a version is in doubt.
    doubts: Doubts,
}

/// Sites with the versions after which what was seen of them is in doubt.
type Doubts = Vec<(Doubted, u64)>;

/// A site in doubt.
#[derive(Debug, Clone)]
enum Doubted {
    Site(Site),
    /// So many bits of the mix of its id.
    Mixed(u32, u64),
}

impl Seen {
    /// Reads a cursor.
    pub fn read(text: &str, ledger: &Ledger) -> Option<Self> {
        let bytes = base64(text)?;
        let (doubts, rest) = doubts(&bytes)?;
        Some(Self { doubts, ..Self::without_doubts(rest, ledger)? })
    }

    fn without_doubts(bytes: &[u8], ledger: &Ledger) -> Option<Self> {
        let (format, mut rest) = bytes.split_first()?;
        match format {
            1 => {}
            2 => return Self::of_many(rest, None),
            3 => return Self::of_many(rest, Some(ledger)),
            _ => return None,
        }
        let mut seen = Self::default();
        let mut order = Vec::new();
        for _ in 0..number(&mut rest)? {
            let (site, tail) = rest.split_first_chunk()?;
            rest = tail;
            order.push(*site);
            seen.sites.insert(*site, number(&mut rest)?);
        }
        while !rest.is_empty() {
            let at = number(&mut rest)? as usize;
            let site = match order.get(at) {
                Some(site) => *site,
                None => {
                    let (site, tail) = rest.split_first_chunk()?;
                    rest = tail;
                    *site
                }
            };
            let version = seen.sites.get(&site).copied().unwrap_or(0) + number(&mut rest)?;
            seen.parts.push((site, version, number(&mut rest)?));
        }
        Some(seen)
    }

    fn of_many(bytes: &[u8], ledger: Option<&Ledger>) -> Option<Self> {
        let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1 == 1));
        let bits = &mut bits;
        let _check = binary(bits, 16)?;
        let width = binary(bits, 5)? as u32 * 4;
        let count = unary_and_binary(bits)?;
        // About as many low bits of a difference as an average one has.
        let low = (width + 1).saturating_sub(64 - count.max(1).leading_zeros());
        let mut mixes = Vec::new();
        let mut mix = 0;
        for _ in 0..count {
            let high = bits.by_ref().take_while(|bit| *bit).count() as u64;
            mix += (high << low) + binary(bits, low)?;
            mixes.push(mix);
        }
        let each_its_own_length = bits.next()?;
        let same_length = if each_its_own_length { 0 } else { binary(bits, 7)? as u32 };
        let mut versions = BTreeMap::new();
        for mix in &mixes {
            let version = match each_its_own_length {
                false => binary(bits, same_length)?,
                true => match binary(bits, 6)? as u32 {
                    0 => binary(bits, 1)?,
                    more => 1 << more | binary(bits, more)?,
                },
            };
            versions.insert(*mix, version);
        }
        let mut retiring = BTreeMap::new();
        if ledger.is_some() {
            for mix in mixes {
                retiring.insert(mix, unary_and_binary(bits)?);
            }
            let _check = binary(bits, 32)?;
        }
        let mut parts = Vec::new();
        while bits.next()? {
            let site = binary(bits, 64)?.to_be_bytes();
            parts.push((site, unary_and_binary(bits)?, unary_and_binary(bits)?));
        }
        let short = ledger.is_some();
        let mut seen = Self { parts, short, mixes: Some((width, versions)), ..Self::default() };
        if let Some(ledger) = ledger {
            let rows: Vec<Row> = ledger.retirements().filter_map(row).collect();
            for row in &rows {
                let upto = seen.put_back(&rows, &retiring, &row.site, rows.len())?;
                seen.sites.insert(row.site, upto);
            }
        }
        Some(seen)
    }

    /// Up to which version a site was seen that may have been left out. `None` when sites retire each other in a circle,
    /// which takes more steps than there are rows.
    fn put_back(
        &self,
        rows: &[Row],
        retiring: &BTreeMap<u64, u64>,
        site: &Site,
        steps: usize,
    ) -> Option<u64> {
        if let Some(listed) = self.listed(site) {
            return Some(listed);
        }
        let mut upto = 0;
        for row in rows.iter().filter(|row| row.site == *site) {
            let reached =
                match self.mixes.as_ref().and_then(|(width, _)| retiring.get(&mixed(&row.by, *width))) {
                    Some(last) => *last,
                    None => self.put_back(rows, retiring, &row.by, steps.checked_sub(1)?)?,
                };
            if row.at <= reached {
                upto = upto.max(row.upto);
            }
        }
        Some(upto)
    }

    /// What the list says of a site.
    fn listed(&self, site: &Site) -> Option<u64> {
        self.mixes.as_ref().and_then(|(width, versions)| versions.get(&mixed(site, *width)).copied())
    }

    /// Whether it leaves out retired sites.
    pub const fn is_short(&self) -> bool {
        self.short
    }

    /// Whether it has anything in doubt.
    pub const fn is_doubtful(&self) -> bool {
        !self.doubts.is_empty()
    }

    /// Whether what it covers of a version is in doubt.
    pub fn doubts(&self, site: SiteId, version: u64) -> bool {
        let Some(site) = site.0.first_chunk::<8>() else { return false };
        self.doubts.iter().any(|(doubted, after)| {
            version > *after
                && match doubted {
                    Doubted::Site(doubted) => doubted == site,
                    Doubted::Mixed(width, mix) => mixed(site, *width) == *mix,
                }
        })
    }

    /// Up to which version it has a site.
    fn upto(&self, site: &Site) -> u64 {
        self.sites.get(site).copied().or_else(|| self.listed(site)).unwrap_or(0)
    }

    /// Whether it covers a change of a version.
    pub fn covers(&self, site: SiteId, version: u64, sequence: u32) -> bool {
        let Some(site) = site.0.first_chunk::<8>() else { return false };
        self.upto(site) >= version
            || self.parts.iter().any(|(part, begun, upto)| {
                part == site && (version < *begun || (version == *begun && u64::from(sequence) <= *upto))
            })
    }
}

/// What is in doubt, and the rest of the cursor.
fn doubts(bytes: &[u8]) -> Option<(Doubts, &[u8])> {
    let (4, mut rest) = bytes.split_first()? else { return Some((Vec::new(), bytes)) };
    let mut doubts = Vec::new();
    for _ in 0..number(&mut rest)? {
        let (quarter, tail) = rest.split_first()?;
        rest = tail;
        let doubted = if *quarter == 0 {
            let (site, tail) = rest.split_first_chunk()?;
            rest = tail;
            Doubted::Site(*site)
        } else {
            Doubted::Mixed(u32::from(*quarter) * 4, number(&mut rest)?)
        };
        doubts.push((doubted, number(&mut rest)?));
    }
    Some((doubts, rest))
}

/// Version `at` of `by` says that `site` is held up to `upto`.
struct Row {
    by: Site,
    at: u64,
    site: Site,
    upto: u64,
}

fn row(((by, at), (site, upto)): (Place, (SiteId, u64))) -> Option<Row> {
    Some(Row { by: *by.0.first_chunk()?, at, site: *site.0.first_chunk()?, upto })
}

/// The first bits of a mix of a site's id.
fn mixed(site: &Site, width: u32) -> u64 {
    let mut mix = u64::from_be_bytes(*site).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mix = (mix ^ mix >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mix = (mix ^ mix >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mix ^ mix >> 31) >> (64 - width)
}

/// So many bits as a number.
fn binary(bits: &mut impl Iterator<Item = bool>, count: u32) -> Option<u64> {
    (0..count).try_fold(0, |number, _| Some(number << 1 | u64::from(bits.next()?)))
}

/// A number whose length comes first, in ones.
fn unary_and_binary(bits: &mut impl Iterator<Item = bool>) -> Option<u64> {
    let length = bits.by_ref().take_while(|bit| *bit).count() as u32;
    Some((1 << length) + binary(bits, length)? - 1)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Base64 for URLs, without padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for letter in text.bytes() {
        let six = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use mychat_node::events::{Cursor, Retired};
    use mychat_replication::{
        NodeId,
        clock::Stamp,
        log::{Change, Frame, GroupId, Retirement, Retirements, Value, Version, VersionVector, key},
    };

    use super::*;

    #[test]
    fn what_a_node_writes_is_read_as_the_same() {
        let (a, b) = (SiteId([7; 16]), SiteId([9; 16]));
        let vector: VersionVector = [(a, Version(300)), (b, Version(1))].into_iter().collect();
        // With many more sites it has another form, whether their versions are alike or not.
        let many = |version: fn(u8) -> u64| {
            let others = (20..60).map(|site| (SiteId([site; 16]), Version(version(site))));
            vector.iter().chain(others).collect::<VersionVector>()
        };
        for vector in [vector.clone(), many(|_| 300), many(|site| 1 << (site / 2))] {
            let cursor = Cursor::from(&vector).with_part(b, Version(5), 2);
            let seen = Seen::read(&cursor.to_string(), &Ledger::default()).expect("a cursor");
            assert!(seen.covers(a, 300, 9) && !seen.covers(a, 301, 0));
            assert!(seen.covers(b, 4, 9) && seen.covers(b, 5, 2) && !seen.covers(b, 5, 3));
            assert!(!seen.covers(SiteId([8; 16]), 1, 0));
            for (site, version) in vector.iter().filter(|(site, _)| *site != b) {
                assert!(seen.covers(site, version.0, 0) && !seen.covers(site, version.0 + 1, 0), "{site}");
            }
        }
        assert!(["?", ""].iter().all(|text| Seen::read(text, &Ledger::default()).is_none()));
    }

    #[test]
    fn what_a_node_puts_in_doubt_is_read_as_the_same() {
        let site = |number: u8| SiteId([number; 16]);
        for sites in [3, 30] {
            let seen: VersionVector = (0..sites).map(|number| (site(number), Version(300))).collect();
            // A node that lacks a site and some versions of another, and has one of which the client knows nothing.
            let mut held: VersionVector = (1..sites).map(|number| (site(number), Version(300))).collect();
            held.set(site(1), Version(200));
            held.set(site(99), Version(1));
            // Of many sites, it knows the one that it lacks by a mark only.
            let mut cursor =
                Cursor::read(&Cursor::from(&seen).to_string(), &held, &Retired::default()).expect("a cursor");
            cursor.comes_to(&held);
            let read = Seen::read(&cursor.to_string(), &Ledger::default()).expect("a cursor");
            assert!(read.is_doubtful());
            assert!(read.doubts(site(0), 1) && read.covers(site(0), 300, 0) && !read.covers(site(0), 301, 0));
            assert!(read.doubts(site(1), 201) && !read.doubts(site(1), 200) && read.covers(site(1), 300, 0));
            assert!((2..sites).all(|number| !read.doubts(site(number), 300)));
            cursor.merge(&seen);
            let read = Seen::read(&cursor.to_string(), &Ledger::default()).expect("a cursor");
            assert!(!read.is_doubtful() && read.covers(site(1), 300, 0));
        }
    }

    #[test]
    fn retired_sites_that_a_node_leaves_out_are_put_back() {
        // Four logs of each of ten nodes, each of which begins with the retirement of the one before.
        let site = |node: u8, log: u8| SiteId([log * 16 + node + 1; 16]);
        let (mut ledger, mut known, mut vector) =
            (Ledger::default(), Retirements::default(), VersionVector::new());
        for (node, log) in (0..10).flat_map(|node| (0..4).map(move |log| (node, log))) {
            let by = site(node, log);
            vector.set(by, Version(u64::from(node) + 300));
            let Some(before) = log.checked_sub(1).map(|log| site(node, log)) else { continue };
            let (key, data) = Retirement::row(before, vector.get(before), by, NodeId([node; 16]));
            let change = Change {
                table: "replication_retired".into(),
                key: key::pack(&key),
                column: "data".into(),
                value: Value::Blob(data),
                column_version: 1,
                causal_length: 1,
                sequence: 0,
            };
            let frame = Frame {
                group: GroupId::GLOBAL,
                site: by,
                after: Version(0),
                version: Version(1),
                stamp: Stamp::default(),
                changes: vec![change],
            };
            Retirement::of(&frame).for_each(|retirement| known.learn(retirement));
            ledger.written(&frame);
        }
        let begun = site(3, 3);
        let cursor = Cursor::from(&vector).with_part(begun, Version(400), 2);
        let text = cursor.write(&Retired::of(&known));
        assert!(text.len() < cursor.to_string().len() * 2 / 3, "{text}");
        let seen = Seen::read(&text, &ledger).expect("a cursor");
        for (site, version) in vector.iter() {
            assert!(seen.covers(site, version.0, 0), "{site}");
            assert_eq!(seen.covers(site, version.0 + 1, 0), site == begun, "{site}");
        }
    }
}
