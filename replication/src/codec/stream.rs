//! The wire format of frames on a stream: what both ends know from the frames before is not sent again.
//!
//! A frame that stands alone ([`super::encode`]) names its group, site, tables and columns, 60 bytes of them; a message
//! of a chat has a hundred. On a stream all frames are of one site and follow each other, so a [`Writer`] and a
//! [`Reader`] keep the same state: the version reached, the last stamp, the names seen so far, and the last key, with
//! which the next one often begins. A stream that breaks off takes that state with it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Error, WireValue};
use crate::{
    clock::Stamp,
    log::{Change, Frame, GroupId, SiteId, Version},
};

/// Names that one stream may speak of: a schema has some tens.
const MAX_NAMES: usize = 256;

#[derive(Serialize, Deserialize)]
struct WireFrame<'a> {
    /// Where the frame begins, from where the one before ended: nearly always 0.
    gap: i64,
    /// How far it takes its receiver: nearly always 1.
    step: u64,
    /// From the last stamp; 0 stands for none.
    stamp: i64,
    /// Tables and columns that had no number yet.
    #[serde(borrow)]
    names: Vec<&'a str>,
    #[serde(borrow)]
    changes: Vec<WireChange<'a>>,
}

#[derive(Serialize, Deserialize)]
struct WireChange<'a> {
    table: u8,
    column: u8,
    /// Bytes that the key has in common with the key before it.
    shared: u16,
    #[serde(borrow)]
    key: &'a [u8],
    #[serde(borrow)]
    value: WireValue<'a>,
    column_version: i64,
    causal_length: i64,
    sequence: u32,
}

/// What both ends know.
#[derive(Debug)]
struct Context {
    at: Version,
    stamp: u64,
    names: Vec<Arc<str>>,
    key: Vec<u8>,
}

impl Context {
    fn new(after: Version) -> Self {
        Self { at: after, stamp: 0, names: Vec::new(), key: Vec::new() }
    }
}

/// The sending end.
#[derive(Debug)]
pub struct Writer(Context);

impl Writer {
    /// For a stream that starts behind `after`.
    #[must_use]
    pub fn new(after: Version) -> Self {
        Self(Context::new(after))
    }

    /// Appends the next frame of the stream's site.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the stream speaks of more than 256 tables and columns; the stream must be closed then.
    pub fn append(&mut self, out: Vec<u8>, frame: &Frame) -> Result<Vec<u8>, Error> {
        let context = &mut self.0;
        let known = context.names.len();
        let mut changes = Vec::with_capacity(frame.changes.len());
        for change in &frame.changes {
            let shared = shared(&context.key, &change.key);
            changes.push(WireChange {
                table: number(&mut context.names, &change.table)?,
                column: number(&mut context.names, &change.column)?,
                shared,
                key: &change.key[usize::from(shared)..],
                value: (&change.value).into(),
                column_version: change.column_version,
                causal_length: change.causal_length,
                sequence: change.sequence,
            });
            context.key.clone_from(&change.key);
        }
        let wire = WireFrame {
            gap: frame.after.0.wrapping_sub(context.at.0).cast_signed(),
            step: frame.version.0.saturating_sub(frame.after.0),
            stamp: match frame.stamp.to_u64() {
                0 => 0,
                stamp => stamp.wrapping_sub(context.stamp).cast_signed(),
            },
            names: context.names[known..].iter().map(|name| &**name).collect(),
            changes,
        };
        let out = postcard::to_extend(&wire, out).map_err(|e| Error::Malformed(e.to_string()))?;
        context.reach(frame);
        Ok(out)
    }
}

impl Context {
    fn reach(&mut self, frame: &Frame) {
        self.at = frame.version;
        // A stamp that equals the last one would read as none; the receiver learns nothing from it anyway.
        if frame.stamp.to_u64() != 0 {
            self.stamp = frame.stamp.to_u64();
        }
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Reader {
    group: GroupId,
    site: SiteId,
    context: Context,
}

impl Reader {
    /// For a stream of this site's log that starts behind `after`.
    #[must_use]
    pub fn new(group: GroupId, site: SiteId, after: Version) -> Self {
        Self { group, site, context: Context::new(after) }
    }

    /// Decodes the next frame.
    ///
    /// # Errors
    /// [`Error::Malformed`] for anything that a [`Writer`] with the same past would not write; the stream must be
    /// closed then.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Frame, Error> {
        let malformed = |what: &str| Error::Malformed(what.to_owned());
        let (wire, rest): (WireFrame<'_>, _) =
            postcard::take_from_bytes(bytes).map_err(|e| Error::Malformed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("bytes after the end"));
        }
        let context = &mut self.context;
        if context.names.len() + wire.names.len() > MAX_NAMES {
            return Err(malformed("too many names"));
        }
        context.names.extend(wire.names.iter().map(|name| Arc::from(*name)));
        let mut changes = Vec::with_capacity(wire.changes.len());
        for change in wire.changes {
            let name = |number: u8| {
                context.names.get(usize::from(number)).cloned().ok_or_else(|| malformed("a name is missing"))
            };
            let (table, column) = (name(change.table)?, name(change.column)?);
            let shared = context.key.get(..usize::from(change.shared));
            let key = [shared.ok_or_else(|| malformed("a key is missing"))?, change.key].concat();
            context.key.clone_from(&key);
            changes.push(Change {
                table,
                key,
                column,
                value: change.value.into(),
                column_version: change.column_version,
                causal_length: change.causal_length,
                sequence: change.sequence,
            });
        }
        let after = Version(context.at.0.wrapping_add_signed(wire.gap));
        let version =
            after.0.checked_add(wire.step).map(Version).ok_or_else(|| malformed("a version overflows"))?;
        let stamp = match wire.stamp {
            0 => Stamp::default(),
            delta => Stamp::from_u64(context.stamp.wrapping_add_signed(delta)),
        };
        let frame = Frame { group: self.group, site: self.site, after, version, stamp, changes };
        context.reach(&frame);
        Ok(frame)
    }
}

/// The number of a name on this stream; a new one gets the next.
fn number(names: &mut Vec<Arc<str>>, name: &Arc<str>) -> Result<u8, Error> {
    let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(Arc::clone(name));
        names.len() - 1
    });
    u8::try_from(at).map_err(|_| Error::Malformed("too many names".into()))
}

fn shared(before: &[u8], key: &[u8]) -> u16 {
    let shared = before.iter().zip(key).take_while(|(one, other)| one == other).count();
    u16::try_from(shared).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::tests::frames, *};
    use crate::log::{Value, key};

    /// Gives the frames one site, as on a stream; gaps stay, and stamps repeat.
    fn of_one_site(frames: Vec<Frame>) -> Vec<Frame> {
        frames.into_iter().map(|frame| Frame { site: SiteId([3; 16]), ..frame }).collect()
    }

    proptest! {
        #[test]
        fn frames_survive_the_stream(frames in prop::collection::vec(frames(), 0..12), after in any::<u64>()) {
            let frames = of_one_site(frames);
            let mut writer = Writer::new(Version(after));
            let mut reader = Reader::new(GroupId::GLOBAL, SiteId([3; 16]), Version(after));
            let mut last = 0;
            for frame in frames {
                let bytes = writer.append(Vec::new(), &frame).expect("few names");
                let stamp = if frame.stamp.to_u64() == last { 0 } else { frame.stamp.to_u64() };
                last = if frame.stamp.to_u64() == 0 { last } else { frame.stamp.to_u64() };
                prop_assert_eq!(reader.read(&bytes), Ok(Frame { stamp: Stamp::from_u64(stamp), ..frame }));
            }
        }

        #[test]
        fn noise_is_never_a_panic(noise in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..8)) {
            let mut reader = Reader::new(GroupId::GLOBAL, SiteId([3; 16]), Version(0));
            for bytes in noise {
                let _ = reader.read(&bytes);
            }
        }
    }

    #[test]
    fn a_message_in_a_row_of_messages_takes_some_thirty_bytes_more_than_its_content() {
        let mut writer = Writer::new(Version(0));
        let message = |version: u64| Frame {
            group: GroupId::GLOBAL,
            site: SiteId([3; 16]),
            after: Version(version - 1),
            version: Version(version),
            stamp: Stamp::from_millis(1_700_000_000_000 + version),
            changes: vec![Change {
                table: "message".into(),
                key: key::pack(&[
                    vec![1; 16].into(),
                    [vec![7; 8], version.to_be_bytes().to_vec()].concat().into(),
                ]),
                column: "data".into(),
                value: vec![9; 120].into(),
                column_version: 1,
                causal_length: 1,
                sequence: 0,
            }],
        };
        let first = writer.append(Vec::new(), &message(1)).expect("few names").len();
        let next = writer.append(Vec::new(), &message(2)).expect("few names").len();
        assert!(first > next);
        assert!(next <= 120 + 32, "{next} bytes");
    }

    #[test]
    fn a_schema_with_too_many_names_is_refused() {
        let change = |number: usize| Change {
            table: format!("t{number}").into(),
            key: Vec::new(),
            column: "data".into(),
            value: Value::Null,
            column_version: 1,
            causal_length: 1,
            sequence: 0,
        };
        let frame = Frame {
            group: GroupId::GLOBAL,
            site: SiteId([3; 16]),
            after: Version(0),
            version: Version(1),
            stamp: Stamp::default(),
            changes: (0..MAX_NAMES).map(change).collect(),
        };
        assert!(matches!(Writer::new(Version(0)).append(Vec::new(), &frame), Err(Error::Malformed(_))));
    }
}
