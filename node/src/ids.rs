//! The identifiers of this domain: UUIDv7s whose time is a hybrid-logical-clock stamp, so that ids sort by time.
//!
//! An id is made from a [`Stamp`]: its milliseconds fill the 48 bits of time that the format has, its counter the
//! 12 bits that follow, and 62 random bits make it unique. As a column it is a blob of 16 bytes, as JSON a string.

use std::{fmt, str::FromStr};

use mychat_replication::{
    clock::Stamp,
    log::{SiteId, Value},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// A string that is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id")]
pub struct MalformedId;

/// The UUIDv7 of a stamp with the lower 62 bits of `random`.
fn uuid_of(stamp: Stamp, random: u64) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&stamp.millis().to_be_bytes()[2..]);
    bytes[6..8].copy_from_slice(&(0x7000 | stamp.counter()).to_be_bytes());
    bytes[8..].copy_from_slice(&(random & (u64::MAX >> 2) | 1 << 63).to_be_bytes());
    Uuid::from_bytes(bytes)
}

/// The stamp that an id was made from.
fn stamp_of(id: Uuid) -> Stamp {
    let bytes = id.as_u128();
    Stamp::from_u64(((bytes >> 80) as u64) << 12 | (bytes >> 64) as u64 & 0xfff)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id for something that happened at `stamp`; `random` tells ids of one stamp apart.
            #[must_use]
            pub fn from_stamp(stamp: Stamp, random: u64) -> Self {
                Self(uuid_of(stamp, random))
            }

            /// The time that the id was made from.
            #[must_use]
            pub fn stamp(self) -> Stamp {
                stamp_of(self.0)
            }

            /// The id as it stands in a key column.
            #[must_use]
            pub fn value(self) -> Value {
                Value::Blob(self.0.as_bytes().to_vec())
            }

            /// The id's 16 bytes.
            #[must_use]
            pub fn bytes(&self) -> [u8; 16] {
                *self.0.as_bytes()
            }

            /// The id in a key column, if the value is one.
            #[must_use]
            pub fn from_value(value: &Value) -> Option<Self> {
                match value {
                    Value::Blob(bytes) => Self::from_slice(bytes),
                    _ => None,
                }
            }

            /// The id of 16 bytes.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = MalformedId;

            /// Reads the hyphenated form only, so that an id has one spelling (upper case is accepted).
            fn from_str(text: &str) -> Result<Self, MalformedId> {
                if text.len() != 36 {
                    return Err(MalformedId);
                }
                Uuid::try_parse(text).map(Self).map_err(|_| MalformedId)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    Uuid::deserialize(deserializer).map(Self)
                }
            }
        }

        impl rusqlite::ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
                Ok(self.0.as_bytes().as_slice().into())
            }
        }

        impl rusqlite::types::FromSql for $name {
            fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
                Self::from_slice(value.as_blob()?).ok_or(rusqlite::types::FromSqlError::InvalidType)
            }
        }
    };
}

id! {
    /// An account's id.
    AccountId
}
id! {
    /// A space's id.
    SpaceId
}
id! {
    /// A message's id; sorts by the time of sending.
    MessageId
}
id! {
    /// A session's id.
    SessionId
}

/// The last column of a stamped fact's key: when, and at which site, it was stated. The largest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// The time.
    pub stamp: Stamp,
    /// The site, which decides between equal times.
    pub site: SiteId,
}

impl At {
    /// Eight bytes of stamp and sixteen of site, which sort like the pair.
    #[must_use]
    pub fn bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.stamp.to_u64().to_be_bytes());
        bytes[8..].copy_from_slice(&self.site.0);
        bytes
    }

    /// The pair as it stands in a key column.
    #[must_use]
    pub fn value(self) -> Value {
        Value::Blob(self.bytes().to_vec())
    }

    /// The pair of 24 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let (stamp, site) = bytes.split_first_chunk::<8>()?;
        Some(Self { stamp: Stamp::from_u64(u64::from_be_bytes(*stamp)), site: SiteId(site.try_into().ok()?) })
    }

    /// The pair in a key column, if the value is one.
    #[must_use]
    pub fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Blob(bytes) => Self::from_slice(bytes),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_sort_like_their_stamps(a in 0u64..1 << 60, b in 0u64..1 << 60, x: u64, y: u64) {
            let (a, b) = (Stamp::from_u64(a), Stamp::from_u64(b));
            let (first, second) = (MessageId::from_stamp(a, x), MessageId::from_stamp(b, y));
            prop_assert_eq!(first.stamp(), a);
            if a != b {
                prop_assert_eq!(first.cmp(&second), a.cmp(&b));
                prop_assert_eq!(first.to_string().cmp(&second.to_string()), a.cmp(&b));
            }
            prop_assert_eq!(first.0.get_version_num(), 7);
            prop_assert_eq!(first.to_string().parse(), Ok(first));
            prop_assert_eq!(MessageId::from_value(&first.value()), Some(first));
        }

        #[test]
        fn facts_sort_by_stamp_and_then_site(a in 0u64..1 << 60, b in 0u64..1 << 60, s: [u8; 16], t: [u8; 16]) {
            let first = At { stamp: Stamp::from_u64(a), site: SiteId(s) };
            let second = At { stamp: Stamp::from_u64(b), site: SiteId(t) };
            prop_assert_eq!(first.bytes().cmp(&second.bytes()), first.cmp(&second));
            prop_assert_eq!(At::from_slice(&first.bytes()), Some(first));
        }
    }

    #[test]
    fn only_the_hyphenated_spelling_is_an_id() {
        assert!("0190b6f8-7c00-7000-8000-000000000000".parse::<AccountId>().is_ok());
        for bad in ["", "me", "0190b6f87c0070008000000000000000", "{0190b6f8-7c00-7000-8000-000000000000}"] {
            assert_eq!(bad.parse::<AccountId>(), Err(MalformedId));
        }
    }
}
