//! The format of frames that stand alone: a format byte, then postcard. On streams a shorter one is spoken
//! ([`stream`]).
//!
//! Names of tables and columns repeat in every change of a frame, so they go once into a small dictionary in
//! front. A format that this program does not know is an [`Error::Format`], never a misread frame: the sender of
//! a newer format speaks an older one to a peer whose request says that it reads no newer one.

pub mod stream;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Stamp;

use crate::log::{Change, Frame, GroupId, SiteId, Value, Version};

/// The format that this program writes.
pub const FORMAT: u8 = 1;

/// The largest encoded frame that is accepted, in bytes. A group commit is bounded far below it.
pub const MAX_FRAME: usize = 4 << 20;

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Written by a program that is newer than this one.
    #[error("frame format {0} is not known here (this program reads up to {FORMAT})")]
    Format(u8),
    /// Not well formed.
    #[error("malformed frame: {0}")]
    Malformed(String),
}

#[derive(Serialize, Deserialize)]
struct WireFrame<'a> {
    group: GroupId,
    site: SiteId,
    after: Version,
    /// How far `version` is beyond `after`: nearly always 1.
    step: u64,
    stamp: Stamp,
    #[serde(borrow)]
    names: Vec<&'a str>,
    changes: Vec<WireChange<'a>>,
}

#[derive(Serialize, Deserialize)]
struct WireChange<'a> {
    table: u8,
    column: u8,
    #[serde(borrow)]
    key: &'a [u8],
    #[serde(borrow)]
    value: WireValue<'a>,
    column_version: i64,
    causal_length: i64,
    sequence: u32,
}

/// A [`Value`] that borrows.
#[derive(Serialize, Deserialize)]
enum WireValue<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(&'a str),
    Blob(&'a [u8]),
}

impl<'a> From<&'a Value> for WireValue<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Integer(number) => Self::Integer(*number),
            Value::Real(number) => Self::Real(*number),
            Value::Text(text) => Self::Text(text),
            Value::Blob(bytes) => Self::Blob(bytes),
        }
    }
}

impl From<WireValue<'_>> for Value {
    fn from(value: WireValue<'_>) -> Self {
        match value {
            WireValue::Null => Self::Null,
            WireValue::Integer(number) => Self::Integer(number),
            WireValue::Real(number) => Self::Real(number),
            WireValue::Text(text) => Self::Text(text.to_owned()),
            WireValue::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }
}

/// Encodes a frame.
///
/// # Errors
/// [`Error::Malformed`] when the frame names more than 256 tables and columns.
pub fn encode(frame: &Frame) -> Result<Vec<u8>, Error> {
    let mut names: Vec<&str> = Vec::new();
    let mut index = |name| -> Result<u8, Error> {
        let at = names.iter().position(|known| *known == name).unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        });
        u8::try_from(at).map_err(|_| Error::Malformed("too many names".into()))
    };
    let changes = frame
        .changes
        .iter()
        .map(|change| {
            Ok(WireChange {
                table: index(&change.table)?,
                column: index(&change.column)?,
                key: &change.key,
                value: (&change.value).into(),
                column_version: change.column_version,
                causal_length: change.causal_length,
                sequence: change.sequence,
            })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let wire = WireFrame {
        group: frame.group,
        site: frame.site,
        after: frame.after,
        step: frame.version.0.saturating_sub(frame.after.0),
        stamp: frame.stamp,
        names,
        changes,
    };
    let mut out = Vec::with_capacity(frame.size());
    out.push(FORMAT);
    postcard::to_extend(&wire, out).map_err(|e| Error::Malformed(e.to_string()))
}

/// Decodes what [`encode`] wrote.
///
/// # Errors
/// [`Error::Format`] for a newer format, [`Error::Malformed`] for anything else that is not a frame.
pub fn decode(bytes: &[u8]) -> Result<Frame, Error> {
    let malformed = |what: &str| Error::Malformed(what.to_owned());
    let (format, rest) = bytes.split_first().ok_or_else(|| malformed("empty"))?;
    if *format != FORMAT {
        return Err(Error::Format(*format));
    }
    let (wire, rest): (WireFrame<'_>, _) =
        postcard::take_from_bytes(rest).map_err(|e| Error::Malformed(e.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed("bytes after the end"));
    }
    let names: Vec<Arc<str>> = wire.names.iter().map(|name| Arc::from(*name)).collect();
    let name =
        |index: u8| names.get(usize::from(index)).cloned().ok_or_else(|| malformed("a name is missing"));
    let changes = wire
        .changes
        .into_iter()
        .map(|change| {
            Ok(Change {
                table: name(change.table)?,
                key: change.key.to_vec(),
                column: name(change.column)?,
                value: change.value.into(),
                column_version: change.column_version,
                causal_length: change.causal_length,
                sequence: change.sequence,
            })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let version =
        wire.after.0.checked_add(wire.step).map(Version).ok_or_else(|| malformed("a version overflows"))?;
    Ok(Frame { group: wire.group, site: wire.site, after: wire.after, version, stamp: wire.stamp, changes })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any frame.
    pub fn frames() -> impl Strategy<Value = Frame> {
        let value = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            ".{0,40}".prop_map(Value::Text),
            prop::collection::vec(any::<u8>(), 0..200).prop_map(Value::Blob),
        ];
        let change =
            ("[a-c]", prop::collection::vec(any::<u8>(), 0..40), "[x-z]", value, 1i64..9, 1i64..4, 0u32..300)
                .prop_map(|(table, key, column, value, column_version, causal_length, sequence)| Change {
                    table: table.into(),
                    key,
                    column: column.into(),
                    value,
                    column_version,
                    causal_length,
                    sequence,
                });
        (any::<[u8; 16]>(), 0u64..1 << 40, 0u64..9, 0u64..1 << 60, prop::collection::vec(change, 0..12))
            .prop_map(|(site, after, step, stamp, changes)| Frame {
                group: GroupId::GLOBAL,
                site: SiteId(site),
                after: Version(after),
                version: Version(after + step),
                stamp: Stamp::from_u64(stamp),
                changes,
            })
    }

    proptest! {
        #[test]
        fn a_frame_survives_the_wire(frame in frames()) {
            let bytes = encode(&frame).expect("few names");
            prop_assert_eq!(decode(&bytes), Ok(frame));
        }

        #[test]
        fn noise_is_never_a_panic(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&noise);
        }

        #[test]
        fn a_cut_frame_is_refused(frame in frames(), cut in 0usize..100) {
            let bytes = encode(&frame).expect("few names");
            if cut < bytes.len() {
                prop_assert!(decode(&bytes[..cut]).is_err());
            }
        }
    }
}
