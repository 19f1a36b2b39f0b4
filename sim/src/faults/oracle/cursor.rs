//! Cursors, read by hand: a format byte, the number of sites, then of each the beginning of its id and a version;
//! perhaps a version of which only the beginning was seen.

use std::collections::BTreeMap;

use mychat_replication::log::SiteId;

/// The beginning of a site's id.
type Site = [u8; 8];

/// What a cursor says was seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    sites: BTreeMap<Site, u64>,
    part: Option<(Site, u64, u64)>,
}

impl Seen {
    /// Reads a cursor.
    pub fn read(text: &str) -> Option<Self> {
        let bytes = base64(text)?;
        let (format, mut rest) = bytes.split_first()?;
        if *format != 1 {
            return None;
        }
        let mut seen = Self::default();
        let mut order = Vec::new();
        for _ in 0..number(&mut rest)? {
            let (site, tail) = rest.split_first_chunk()?;
            rest = tail;
            order.push(*site);
            seen.sites.insert(*site, number(&mut rest)?);
        }
        if !rest.is_empty() {
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
            seen.part = Some((site, version, number(&mut rest)?));
        }
        Some(seen)
    }

    /// Whether it covers a change of a version.
    pub fn covers(&self, site: SiteId, version: u64, sequence: u32) -> bool {
        let Some(site) = site.0.first_chunk::<8>() else { return false };
        let whole = self.sites.get(site).is_some_and(|seen| *seen >= version);
        whole
            || self.part.is_some_and(|(part, begun, upto)| {
                part == *site && (version < begun || (version == begun && u64::from(sequence) <= upto))
            })
    }
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
    use mychat_node::events::Cursor;
    use mychat_replication::log::{Version, VersionVector};

    use super::*;

    #[test]
    fn what_a_node_writes_is_read_as_the_same() {
        let (a, b) = (SiteId([7; 16]), SiteId([9; 16]));
        let vector: VersionVector = [(a, Version(300)), (b, Version(1))].into_iter().collect();
        let cursor = Cursor::from(&vector).with_part(b, Version(5), 2);
        let seen = Seen::read(&cursor.to_string()).expect("a cursor");
        assert!(seen.covers(a, 300, 9) && !seen.covers(a, 301, 0));
        assert!(seen.covers(b, 4, 9) && seen.covers(b, 5, 2) && !seen.covers(b, 5, 3));
        assert!(!seen.covers(SiteId([8; 16]), 1, 0));
        assert!(Seen::read("?").is_none() && Seen::read("").is_none());
    }
}
