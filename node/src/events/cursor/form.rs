//! How cursors are written and read, as far as that does not depend on which sites a node knows.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    Cursor, Part, Retired, SitePrefix, Unreadable,
    compact::{Bits, Marked, Reader},
    doubts::{DOUBTFUL, Doubts},
    retired::Short,
};

/// The format of cursors of few sites.
const FORMAT: u8 = 1;
/// The format of cursors of many.
pub(super) const COMPACT: u8 = 2;
/// The format of cursors of many that leave out retired ones.
pub(super) const SHORT: u8 = 3;
/// So many are few.
const PLAIN_SITES: usize = 8;
/// The longest cursor that is looked at: some hundred sites.
const MAX_LENGTH: usize = 8 << 10;

impl Cursor {
    pub(super) fn encode(&self, without_doubts: Vec<u8>) -> String {
        URL_SAFE_NO_PAD.encode(self.doubts.write(without_doubts))
    }

    pub(super) fn shortened(&self, retired: &Retired) -> Option<Vec<u8>> {
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

    /// All sites, without the doubts.
    pub(super) fn whole(&self) -> Vec<u8> {
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

    pub(super) fn parse(text: &str) -> Result<(Self, Option<u32>), Unreadable> {
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

pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(super) fn take_varint(rest: &mut &[u8]) -> Result<u64, Unreadable> {
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
