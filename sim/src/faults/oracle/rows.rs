//! Packed keys and rows, as far as the judges have to read them: read by hand, from the documented formats.

use mychat_replication::log::{Change, SiteId, Value};

/// An id of 16 bytes.
pub type Id = [u8; 16];

/// What a changed row means to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A space is there.
    Founded { space: Id },
    /// An account's membership, from a time on.
    Member { space: Id, account: Id, at: Vec<u8>, on: bool },
    /// A message, while it says something.
    Sent { space: Id, message: Id },
    /// A message says something else.
    Edited { message: Id },
    /// A message is taken back.
    Deleted { message: Id },
    /// A reaction to a message comes or goes.
    Reacted { message: Id },
}

/// What a change means, if it means something here.
pub fn fact(change: &Change) -> Option<Fact> {
    let key = columns(&change.key)?;
    let id = |at: usize| key.get(at).and_then(|bytes| Id::try_from(bytes.as_slice()).ok());
    let Value::Blob(data) = &change.value else { return None };
    match &*change.table {
        "space" => Some(Fact::Founded { space: id(0)? }),
        // The format, then whether there is a role.
        "membership" => Some(Fact::Member {
            space: id(0)?,
            account: id(1)?,
            at: key.get(2)?.clone(),
            on: *data.get(1)? != 0,
        }),
        // The format, the length of an id, the author, whether it is erased.
        "message" if *data.get(18)? == 0 => Some(Fact::Sent { space: id(0)?, message: id(1)? }),
        "message" => Some(Fact::Deleted { message: id(1)? }),
        // The format, then the kind of the revision.
        "message_revision" if *data.get(1)? == 1 => Some(Fact::Deleted { message: id(1)? }),
        "message_revision" => Some(Fact::Edited { message: id(1)? }),
        "reaction" => Some(Fact::Reacted { message: id(1)? }),
        _ => None,
    }
}

/// What a packed message says; nothing once it is erased.
pub fn text(data: &[u8]) -> Option<String> {
    let (erased, mut rest) = data.get(18..)?.split_first()?;
    if *erased != 0 {
        return None;
    }
    let mut length = 0;
    for shift in (0..).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        rest = tail;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    String::from_utf8(rest.get(..length)?.to_vec()).ok()
}

/// The site that a change retires, and up to which version.
pub fn retired(change: &Change) -> Option<(SiteId, u64)> {
    let (Value::Blob(data), "replication_retired") = (&change.value, &*change.table) else { return None };
    let key = columns(&change.key)?;
    let site = SiteId(Id::try_from(key.first()?.as_slice()).ok()?);
    let upto = key.get(2)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    // The format, then the node.
    (data.len() == 17 && data.first() == Some(&1)).then_some((site, upto))
}

/// The columns of a packed key: texts, blobs, or the bytes of numbers.
fn columns(packed: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (count, mut rest) = packed.split_first()?;
    let mut columns = Vec::new();
    for _ in 0..*count {
        let (tag, tail) = rest.split_first()?;
        let (number, tail) = tail.split_at_checked(usize::from(tag >> 3))?;
        rest = tail;
        let mut bytes = number;
        if matches!(tag & 7, 3 | 4) {
            let length = number.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            (bytes, rest) = tail.split_at_checked(length)?;
        }
        columns.push(bytes.to_vec());
    }
    Some(columns)
}

/// The bytes of a value, with its kind before them.
pub fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::Null => vec![0],
        Value::Integer(number) => [&[1], number.to_be_bytes().as_slice()].concat(),
        Value::Real(number) => [&[2], number.to_be_bytes().as_slice()].concat(),
        Value::Text(text) => [&[3], text.as_bytes()].concat(),
        Value::Blob(blob) => [&[4], blob.as_slice()].concat(),
    }
}
