//! From replicated rows to what streams have to hear and know: the same for a fresh commit and for an old one that a
//! client has missed.

use std::collections::BTreeSet;

use mychat_replication::{
    log::{Change, Frame, SiteId, Version, key},
    store::{Commit, Row},
};
use rusqlite::Connection;

use super::{Event, audience::Audience};
use crate::{
    accounts::{self, Standing},
    http,
    ids::{AccountId, SessionId, SpaceId},
    messages, notifications, spaces,
};

/// One thing that follows from a frame, in the order of its rows.
#[derive(Debug)]
pub enum Step {
    /// Something to tell.
    Event {
        /// The place of the row in its version.
        sequence: u32,
        /// The last place of which everything is told with this; `None` for none. A row may have several events.
        told: Option<u32>,
        /// What.
        event: Event,
    },
    /// An account's spaces are these now.
    Spaces {
        /// Whose.
        account: AccountId,
        /// All of them.
        spaces: BTreeSet<SpaceId>,
    },
    /// A session is over, or its account is.
    Ended {
        /// Whose.
        account: AccountId,
        /// The session.
        session: SessionId,
    },
}

/// What follows from one frame.
#[derive(Debug)]
pub struct FrameSteps {
    /// Whose log.
    pub site: SiteId,
    /// Which version of it.
    pub version: Version,
    /// In order.
    pub steps: Vec<Step>,
}

impl FrameSteps {
    /// Nothing follows, for anybody here.
    #[must_use]
    pub const fn none(frame: &Frame) -> Self {
        Self { site: frame.site, version: frame.version, steps: Vec::new() }
    }
}

/// Whom what follows from a row can concern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Those who follow the space.
    Space(SpaceId),
    /// The account.
    Account(AccountId),
    /// Anybody; and who follows what may be another matter after it.
    Anybody,
}

/// Whom a frame can concern, by the keys of its rows alone.
pub fn reach(frame: &Frame) -> impl Iterator<Item = Reach> {
    let told = |change: &&Change| &*change.column == "data" && &*change.table != http::write::TABLE;
    frame.changes.iter().filter(told).filter_map(|change| {
        let (table, key) = (&*change.table, key::unpack(&change.key).ok()?);
        let space = messages::heard_in(table, &key).map(Reach::Space);
        let account = || notifications::heard_by(table, &key).map(Reach::Account);
        Some(space.or_else(account).unwrap_or(Reach::Anybody))
    })
}

/// Works out what follows from a frame. The tables have its rows already, and maybe later ones.
///
/// # Errors
/// What SQLite says.
pub fn of_frame(db: &Connection, frame: &Frame, audience: &Audience) -> rusqlite::Result<FrameSteps> {
    let mut steps = Vec::new();
    for change in frame.changes.iter().filter(|change| &*change.column == "data") {
        // A row that this release can't read says nothing to its clients either.
        let Ok(key) = key::unpack(&change.key) else { continue };
        let row = Row {
            table: &change.table,
            key,
            data: change.value.as_blob(),
            site: frame.site,
            version: frame.version,
        };
        let event = event_of(db, &row)?;
        let concerned = concerned(db, &row, event.as_ref(), audience)?;
        let events: Vec<Event> = event.into_iter().chain(spaces::inherited(db, &row)?).collect();
        let (sequence, count) = (change.sequence, events.len());
        for (event, at) in events.into_iter().zip(1..) {
            let told = if at == count { Some(sequence) } else { sequence.checked_sub(1) };
            steps.push(Step::Event { sequence, told, event });
        }
        // After the event: whoever was added hears of what comes next, whoever was removed of this last thing.
        for account in concerned {
            let spaces = spaces::spaces_of(db, account)?.into_iter().collect();
            steps.push(Step::Spaces { account, spaces });
        }
        for (account, session) in ended(db, &row, audience)? {
            steps.push(Step::Ended { account, session });
        }
    }
    Ok(FrameSteps { site: frame.site, version: frame.version, steps })
}

/// What follows from a commit whose jobs have noted it all; `None` if the tables have to be read for it.
///
/// It says how things were right after the commit: what later ones have changed since, their own events say.
#[must_use]
pub fn noted(commit: &Commit) -> Option<FrameSteps> {
    let [frame] = &commit.frames[..] else { return None };
    let mut steps = Vec::new();
    for change in frame.changes.iter().filter(|change| &*change.table != http::write::TABLE) {
        let event = messages::event_noted(commit.notes.get(&change.sequence)?)?;
        let sequence = change.sequence;
        steps.push(Step::Event { sequence, told: Some(sequence), event });
    }
    Some(FrameSteps { site: frame.site, version: frame.version, steps })
}

fn event_of(db: &Connection, row: &Row<'_>) -> rusqlite::Result<Option<Event>> {
    let domains = [messages::event_of, spaces::event_of, notifications::event_of, accounts::event_of];
    for domain in domains {
        if let Some(event) = domain(db, row)? {
            return Ok(Some(event));
        }
    }
    Ok(None)
}

/// The accounts of the audience whose spaces a row may have changed.
fn concerned(
    db: &Connection,
    row: &Row<'_>,
    event: Option<&Event>,
    audience: &Audience,
) -> rusqlite::Result<BTreeSet<AccountId>> {
    let mut accounts: BTreeSet<AccountId> = match row.table {
        "membership" => row.key.get(1).and_then(AccountId::from_value).into_iter().collect(),
        "space" => event.map(|event| event.accounts.iter().copied().collect()).unwrap_or_default(),
        "space_change" => match row.key.first().and_then(SpaceId::from_value) {
            Some(space) => spaces::members_of(db, space)?.into_iter().collect(),
            None => BTreeSet::new(),
        },
        _ => BTreeSet::new(),
    };
    accounts.retain(|account| audience.contains(*account));
    Ok(accounts)
}

/// The sessions of the audience that a row has ended.
fn ended(
    db: &Connection,
    row: &Row<'_>,
    audience: &Audience,
) -> rusqlite::Result<Vec<(AccountId, SessionId)>> {
    if !matches!(row.table, "session_end" | "account_fact" | "account") {
        return Ok(Vec::new());
    }
    let Some(account) = row.key.first().and_then(AccountId::from_value) else { return Ok(Vec::new()) };
    let mut over = Vec::new();
    for session in audience.sessions(account) {
        if accounts::standing(db, account, session)? != Some(Standing::Good) {
            over.push((account, session));
        }
    }
    Ok(over)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mychat_replication::{
        clock::Stamp,
        log::{GroupId, Value},
    };
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_frame_reaches_whom_its_rows_are_about() {
        let id = Uuid::from_u128(7);
        let change = |(table, column): (&str, &str)| Change {
            table: Arc::from(table),
            key: key::pack(&[Value::Blob(id.as_bytes().to_vec()), Value::Blob(vec![1; 16])]),
            column: Arc::from(column),
            value: Value::Null,
            column_version: 1,
            causal_length: 1,
            sequence: 0,
        };
        let reached = |rows: &[(&str, &str)]| {
            let changes = rows.iter().copied().map(change).collect();
            let frame = Frame {
                group: GroupId::GLOBAL,
                site: SiteId([1; 16]),
                after: Version(0),
                version: Version(1),
                stamp: Stamp::default(),
                changes,
            };
            reach(&frame).collect::<Vec<_>>()
        };
        let (space, account) = (Reach::Space(SpaceId(id)), Reach::Account(AccountId(id)));
        let rows =
            [("message", "data"), ("message", "-1"), (http::write::TABLE, "data"), ("read_mark", "data")];
        assert_eq!(reached(&rows), [space, account]);
        assert_eq!(reached(&[("message_revision", "data"), ("reaction", "data")]), [space, space]);
        for table in
            ["membership", "space", "space_change", "account", "account_fact", "session_end", "unknown"]
        {
            assert_eq!(reached(&[(table, "data")]), [Reach::Anybody], "{table}");
        }
    }
}
