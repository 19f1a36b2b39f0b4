//! Primary keys as cr-sqlite packs them into one blob.
//!
//! A count of columns, then for each column a byte whose low three bits are the SQLite type and whose upper five
//! say how many bytes the following big-endian integer has: the number itself, or a length before the bytes.

use crate::log::Value;

const INTEGER: u8 = 1;
const REAL: u8 = 2;
const TEXT: u8 = 3;
const BLOB: u8 = 4;
const NULL: u8 = 5;

/// A packed key that is not well formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a packed primary key is malformed")]
pub struct Malformed;

/// Packs the values of a primary key, in the order of its columns.
#[must_use]
pub fn pack(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + values.iter().map(|value| value.size() + 2).sum::<usize>());
    out.push(u8::try_from(values.len()).unwrap_or(u8::MAX));
    for value in values {
        match value {
            Value::Null => out.push(NULL),
            Value::Integer(number) => integer(&mut out, INTEGER, *number),
            Value::Real(number) => {
                out.push(REAL);
                out.extend_from_slice(&number.to_be_bytes());
            }
            Value::Text(text) => {
                integer(&mut out, TEXT, i64::try_from(text.len()).unwrap_or(i64::MAX));
                out.extend_from_slice(text.as_bytes());
            }
            Value::Blob(bytes) => {
                integer(&mut out, BLOB, i64::try_from(bytes.len()).unwrap_or(i64::MAX));
                out.extend_from_slice(bytes);
            }
        }
    }
    out
}

/// The type byte with the width, then the number in that many bytes.
fn integer(out: &mut Vec<u8>, kind: u8, number: i64) {
    let bytes = number.to_be_bytes();
    let width = if number < 0 { 8 } else { bytes.iter().skip_while(|byte| **byte == 0).count() };
    out.push((width as u8) << 3 | kind);
    out.extend_from_slice(&bytes[8 - width..]);
}

/// The values of a packed key.
///
/// # Errors
/// [`Malformed`] when the blob ends early, has a rest, or holds an unknown type or text that is not UTF-8.
pub fn unpack(packed: &[u8]) -> Result<Vec<Value>, Malformed> {
    let (count, mut rest) = packed.split_first().ok_or(Malformed)?;
    let mut take = |n: usize| -> Result<&[u8], Malformed> {
        let (head, tail) = rest.split_at_checked(n).ok_or(Malformed)?;
        rest = tail;
        Ok(head)
    };
    let number = |bytes: &[u8]| -> Result<i64, Malformed> {
        if bytes.len() > 8 {
            return Err(Malformed);
        }
        Ok(bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte)) as i64)
    };
    let mut values = Vec::with_capacity(usize::from(*count));
    for _ in 0..*count {
        let tag = take(1)?[0];
        let width = usize::from(tag >> 3);
        values.push(match tag & 7 {
            NULL => Value::Null,
            INTEGER => Value::Integer(number(take(width)?)?),
            REAL => Value::Real(f64::from_be_bytes(take(8)?.try_into().map_err(|_| Malformed)?)),
            TEXT => {
                let length = usize::try_from(number(take(width)?)?).map_err(|_| Malformed)?;
                Value::Text(String::from_utf8(take(length)?.to_vec()).map_err(|_| Malformed)?)
            }
            BLOB => {
                let length = usize::try_from(number(take(width)?)?).map_err(|_| Malformed)?;
                Value::Blob(take(length)?.to_vec())
            }
            _ => return Err(Malformed),
        });
    }
    if rest.is_empty() { Ok(values) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Vec<Value>> {
        prop::collection::vec(
            prop_oneof![
                any::<i64>().prop_map(Value::Integer),
                any::<String>().prop_map(Value::Text),
                prop::collection::vec(any::<u8>(), 0..300).prop_map(Value::Blob),
            ],
            1..5,
        )
    }

    proptest! {
        #[test]
        fn a_packed_key_unpacks_to_itself(values in values()) {
            prop_assert_eq!(unpack(&pack(&values)), Ok(values));
        }

        #[test]
        fn noise_is_an_error_or_a_key_but_never_a_panic(noise in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = unpack(&noise);
        }

        #[test]
        fn cr_sqlite_packs_the_same(values in values()) {
            let db = rusqlite::Connection::open_in_memory().expect("a database");
            mychat_crsqlite::load(&db).expect("the extension");
            let marks = vec!["?"; values.len()].join(",");
            let theirs: Vec<u8> = db
                .query_row(&format!("SELECT crsql_pack_columns({marks})"), rusqlite::params_from_iter(&values), |row| row.get(0))
                .expect("a packed key");
            prop_assert_eq!(theirs, pack(&values));
            mychat_crsqlite::finalize(&db).expect("finalized");
        }
    }
}
