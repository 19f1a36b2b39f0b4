//! The history of a space: ranges of message ids, which are ranges of time.

use rusqlite::{Connection, params};
use serde::Deserialize;
use time::{Date, OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

use super::{
    facts::Sent,
    resource::{Extras, Message},
};
use crate::{
    http::{Items, Problem},
    ids::{MessageId, SpaceId},
    packed,
};

/// Which end of the range comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Order {
    /// The oldest.
    #[default]
    Asc,
    /// The latest.
    Desc,
}

/// Ids from `from` on and before `to`, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    from: u128,
    to: Option<u128>,
}

/// Bits of an id below its milliseconds.
const BELOW_MILLIS: u32 = 80;
/// The last millisecond that an id can hold.
const MAX_MILLIS: u64 = (1 << 48) - 1;

impl Span {
    pub const ALL: Self = Self { from: 0, to: None };

    /// Messages sent from `since` on and before `until`, in milliseconds since 1970.
    pub fn of(since: Option<u64>, until: Option<u64>) -> Self {
        let first = |millis: u64| u128::from(millis) << BELOW_MILLIS;
        Self {
            from: first(since.unwrap_or(0).min(MAX_MILLIS)),
            to: until.filter(|until| *until <= MAX_MILLIS).map(first),
        }
    }

    /// The same ids in spans that have none in common, in order.
    pub fn joined(spans: impl Iterator<Item = Self>) -> Vec<Self> {
        let mut spans: Vec<Self> = spans.collect();
        spans.sort_unstable_by_key(|span| span.from);
        let mut joined: Vec<Self> = Vec::new();
        for span in spans {
            match joined.last_mut() {
                // What has no end ends last.
                Some(last) if last.to.is_none_or(|to| span.from <= to) => {
                    last.to = last.to.zip(span.to).map(|(one, other)| one.max(other));
                }
                _ => joined.push(span),
            }
        }
        joined
    }

    /// What is left of it before `end`.
    pub fn before(self, end: MessageId) -> Self {
        self.behind(end, Order::Desc)
    }

    /// What is left of it behind `seen`.
    pub fn behind(self, seen: MessageId, order: Order) -> Self {
        let seen = seen.0.as_u128();
        match order {
            Order::Asc => Self { from: self.from.max(seen.saturating_add(1)), ..self },
            Order::Desc => Self { to: Some(self.to.map_or(seen, |to| to.min(seen))), ..self },
        }
    }

    /// The smallest id in the range.
    pub fn lower(self) -> [u8; 16] {
        self.from.to_be_bytes()
    }

    /// A blob that is larger than every id in the range and no larger than those behind it.
    pub fn upper(self) -> Vec<u8> {
        self.to.map_or_else(|| vec![0xff; 17], |to| to.to_be_bytes().to_vec())
    }
}

/// A time in a query: RFC 3339, or a date for its midnight in UTC. In milliseconds; what was before 1970 counts
/// as 1970.
pub(super) fn millis(name: &str, text: &str) -> Result<u64, Problem> {
    // An unescaped `+` of a zone arrives as a space.
    let text = text.trim().replace(' ', "+");
    let time = OffsetDateTime::parse(&text, &Rfc3339)
        .or_else(|_| {
            Date::parse(&text, format_description!("[year]-[month]-[day]"))
                .map(|date| date.midnight().assume_utc())
        })
        .map_err(|_| {
            Problem::invalid_query(format!("{name} must be an RFC 3339 time or a date such as 2026-01-31"))
        })?;
    Ok(u64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(0))
}

/// Up to `limit` messages of the span, without duplicates. A row in a format that is not known has no content.
pub(super) fn read(
    db: &Connection,
    space: SpaceId,
    span: Span,
    order: Order,
    limit: usize,
) -> rusqlite::Result<Vec<(MessageId, Option<Sent>)>> {
    let sql = match order {
        Order::Asc => {
            "SELECT m.id, m.data FROM message m WHERE m.space = ?1 AND m.id >= ?2 AND m.id < ?3 AND m.data IS NOT NULL
               AND NOT EXISTS (SELECT 1 FROM local_duplicate d WHERE d.space = m.space AND d.message = m.id)
             ORDER BY m.id LIMIT ?4"
        }
        Order::Desc => {
            "SELECT m.id, m.data FROM message m WHERE m.space = ?1 AND m.id >= ?2 AND m.id < ?3 AND m.data IS NOT NULL
               AND NOT EXISTS (SELECT 1 FROM local_duplicate d WHERE d.space = m.space AND d.message = m.id)
             ORDER BY m.id DESC LIMIT ?4"
        }
    };
    db.prepare_cached(sql)?
        .query_map(params![space, span.lower(), span.upper(), limit as i64], |row| {
            let data: Vec<u8> = row.get(1)?;
            Ok((row.get(0)?, packed::decode(&data)))
        })?
        .collect()
}

/// A page of the history.
pub(super) fn page(
    db: &Connection,
    space: SpaceId,
    span: Span,
    order: Order,
    limit: usize,
) -> rusqlite::Result<Items<Message>> {
    let mut rows = read(db, space, span, order, limit + 1)?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let (Some(start), Some(end)) = (rows.first().map(|row| row.0), rows.last().map(|row| row.0)) else {
        return Ok(Items::all(Vec::new()));
    };
    let mut extras = Extras::read(db, space, start.min(end), start.max(end))?;
    let items = rows.into_iter().filter_map(|(id, sent)| Some(extras.complete(space, id, sent?))).collect();
    Ok(Items { items, next: more.then(|| end.to_string()) })
}

#[cfg(test)]
mod tests {
    use mychat_replication::{clock::Stamp, log::SiteId};
    use proptest::prelude::*;

    use super::{
        super::facts::{Purge, PurgeFact},
        *,
    };
    use crate::ids::{AccountId, At};

    proptest! {
        #[test]
        fn a_span_holds_the_ids_of_its_time(since in 0u64..1 << 48, until in 0u64..1 << 48, at in 0u64..1 << 60, random: u64) {
            let id = MessageId::from_stamp(Stamp::from_u64(at), random);
            let span = Span::of(Some(since), Some(until));
            let inside = span.lower().as_slice() <= id.bytes().as_slice() && id.bytes().as_slice() < span.upper().as_slice();
            prop_assert_eq!(inside, (since..until).contains(&id.stamp().millis()));
            prop_assert!(id.bytes().as_slice() < Span::ALL.upper().as_slice());
        }

        #[test]
        fn what_is_behind_an_id_is_without_it(a in 0u64..1 << 60, b in 0u64..1 << 60, random: u64) {
            let (seen, other) = (MessageId::from_stamp(Stamp::from_u64(a), random), MessageId::from_stamp(Stamp::from_u64(b), random));
            let holds = |span: Span, id: MessageId| {
                span.lower().as_slice() <= id.bytes().as_slice() && id.bytes().as_slice() < span.upper().as_slice()
            };
            prop_assert_eq!(holds(Span::ALL.behind(seen, Order::Asc), other), other > seen);
            prop_assert_eq!(holds(Span::ALL.behind(seen, Order::Desc), other), other < seen);
        }
    }

    proptest! {
        #[test]
        fn a_purge_covers_what_is_in_its_span(since in 0u64..9, until in 0u64..9, at in 0u64..9 << 12, sent in 0u64..9 << 12, random: u64) {
            let (site, by) = (SiteId([1; 16]), AccountId(uuid::Uuid::nil()));
            let at = At { stamp: Stamp::from_u64(at), site };
            let fact = PurgeFact { at, purge: Purge { by, since, until } };
            let (id, span) = (MessageId::from_stamp(Stamp::from_u64(sent), random), fact.span());
            let inside = span.lower().as_slice() <= id.bytes().as_slice() && id.bytes().as_slice() < span.upper().as_slice();
            prop_assert_eq!(inside, fact.covers(id));
        }
    }

    #[test]
    fn times_are_dates_or_rfc_3339() {
        let day = 1_769_817_600_000;
        assert_eq!(millis("since", "2026-01-31"), Ok(day));
        assert_eq!(millis("since", "2026-01-31T00:00:00Z"), Ok(day));
        assert_eq!(millis("since", "2026-01-31T01:00:00.001 01:00"), Ok(day + 1));
        assert_eq!(millis("since", "1960-05-05"), Ok(0));
        for bad in ["", "yesterday", "2026-13-01", "2026-01-31T00:00", "1"] {
            assert_eq!(millis("since", bad).expect_err(bad).code, "invalid_query");
        }
    }
}
