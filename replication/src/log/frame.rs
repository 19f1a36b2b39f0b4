//! A frame: the unit that a log is made of and that goes over the wire.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{GroupId, SiteId, Version};
use crate::clock::Stamp;

/// One version of a site's log.
///
/// Versions whose cells have all been overwritten since are absent from a log that is read from the database, so
/// a frame says what it follows: it takes a holder of `after` to `version`. A frame without changes is the
/// `complete_to` of a catch-up: nothing between the two is left to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The replication group.
    pub group: GroupId,
    /// Whose log this is.
    pub site: SiteId,
    /// The version before: a receiver that holds less must not apply the frame.
    pub after: Version,
    /// The version that the receiver holds afterwards.
    pub version: Version,
    /// The writer's hybrid time at the commit, so that what a reader writes next is later; zero where the frame was
    /// read from a database, which does not keep it.
    pub stamp: Stamp,
    /// The changed cells in the order in which they were written.
    pub changes: Vec<Change>,
}

impl Frame {
    /// Bytes that the frame takes in memory and, nearly, on the wire.
    #[must_use]
    pub fn size(&self) -> usize {
        64 + self.changes.iter().map(Change::size).sum::<usize>()
    }
}

/// One cell of one row: a row of cr-sqlite's `crsql_changes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The table.
    pub table: Arc<str>,
    /// The primary key as [`super::key`] packs it.
    pub key: Vec<u8>,
    /// The column, or `-1` where the row itself came or went.
    pub column: Arc<str>,
    /// What the cell holds now.
    pub value: Value,
    /// How often the cell was written: the first thing that decides between concurrent values.
    pub column_version: i64,
    /// The row's causal length: odd while it lives, even once it is deleted.
    pub causal_length: i64,
    /// The place within the version.
    pub sequence: u32,
}

impl Change {
    /// Bytes that the change takes in memory and, nearly, on the wire.
    #[must_use]
    pub fn size(&self) -> usize {
        self.table.len() + self.key.len() + self.column.len() + self.value.size() + 16
    }
}

/// A value as SQLite has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// No value.
    Null,
    /// A whole number.
    Integer(i64),
    /// A floating point number.
    Real(f64),
    /// UTF-8 text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl Eq for Value {}

impl Value {
    /// Bytes that the value takes.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Null => 1,
            Self::Integer(_) | Self::Real(_) => 9,
            Self::Text(text) => text.len() + 3,
            Self::Blob(bytes) => bytes.len() + 3,
        }
    }

    /// The bytes of a blob; `None` for anything else.
    #[must_use]
    pub fn as_blob(&self) -> Option<&[u8]> {
        match self {
            Self::Blob(bytes) => Some(bytes),
            _ => None,
        }
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Blob(bytes)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Blob(bytes.to_vec())
    }
}

impl<const N: usize> From<[u8; N]> for Value {
    fn from(bytes: [u8; N]) -> Self {
        Self::Blob(bytes.to_vec())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::{ToSqlOutput, ValueRef};
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl rusqlite::types::FromSql for Value {
    fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
        use rusqlite::types::ValueRef;
        Ok(match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Real(number),
            ValueRef::Text(text) => Self::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
        })
    }
}
