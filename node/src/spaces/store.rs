//! The tables of spaces, and how the local ones are derived from the replicated.

use std::collections::BTreeSet;

use mychat_replication::{
    clock::Stamp,
    store::{Migration, Row},
};
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    Role, Visibility,
    facts::{Change, Founding, Setting, Standing},
    query::{self, Current},
};
use crate::{
    ids::{AccountId, At, SpaceId},
    packed,
};

/// The tables of this domain.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        domain: "spaces",
        number: 1,
        sql: "
        -- The founding of a space, written once.
        CREATE TABLE space (id BLOB NOT NULL, data BLOB, PRIMARY KEY (id)) STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('space');
        -- Stamped facts: the latest on a field holds.
        CREATE TABLE space_change (
            space BLOB NOT NULL, field TEXT NOT NULL, stamp BLOB NOT NULL, data BLOB,
            PRIMARY KEY (space, field, stamp)
        ) STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('space_change');
        -- Stamped facts: the latest on an account in a space holds.
        CREATE TABLE membership (
            space BLOB NOT NULL, account BLOB NOT NULL, stamp BLOB NOT NULL, data BLOB,
            PRIMARY KEY (space, account, stamp)
        ) STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('membership');
        -- Who has used an invitation that may be used a limited number of times.
        CREATE TABLE invitation_use (
            invitation BLOB NOT NULL, account BLOB NOT NULL, data BLOB, PRIMARY KEY (invitation, account)
        ) STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('invitation_use');

        -- Spaces as they are now, once their founding is known. Deleted ones stay, marked.
        CREATE TABLE local_space (
            id BLOB NOT NULL PRIMARY KEY, visibility TEXT NOT NULL, name TEXT NOT NULL, topic TEXT NOT NULL,
            retention_days INTEGER, created INTEGER NOT NULL, creator BLOB, deleted INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX local_space_public ON local_space (id) WHERE visibility = 'public' AND deleted = 0;
        -- Members as they are now, also of spaces whose founding is not known yet.
        CREATE TABLE local_member (
            space BLOB NOT NULL, account BLOB NOT NULL, role TEXT NOT NULL, since INTEGER NOT NULL,
            PRIMARY KEY (space, account)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX local_member_by_account ON local_member (account, space);",
    },
    Migration {
        domain: "spaces",
        number: 2,
        // Whether a space has an owner is asked with most calls of those who are none.
        sql: "CREATE INDEX local_member_owner ON local_member (space, account) WHERE role = 'owner';",
    },
];

/// Brings `local_space` and `local_member` up to date with `rows`, which are in their tables already.
///
/// Every line is computed anew from all facts about it, so the order in which they came can't matter.
///
/// # Errors
/// What SQLite says.
pub fn derive(db: &Connection, rows: &[Row<'_>]) -> rusqlite::Result<()> {
    let mut spaces = BTreeSet::new();
    let mut members = BTreeSet::new();
    for row in rows {
        let Some(space) = row.key.first().and_then(SpaceId::from_value) else { continue };
        match row.table {
            "space" | "space_change" => {
                spaces.insert(space);
            }
            "membership" => {
                let Some(account) = row.key.get(1).and_then(AccountId::from_value) else { continue };
                members.insert((space, account));
                // A direct conversation began with its first membership.
                if query::visibility(db, space)? == Some(Visibility::Direct) {
                    spaces.insert(space);
                }
            }
            _ => {}
        }
    }
    spaces.into_iter().try_for_each(|space| refresh_space(db, space))?;
    members.into_iter().try_for_each(|(space, account)| refresh_member(db, space, account))
}

fn refresh_space(db: &Connection, id: SpaceId) -> rusqlite::Result<()> {
    let founding: Option<Vec<u8>> = db
        .prepare_cached("SELECT data FROM space WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?
        .flatten();
    let Some(founding) = founding.as_deref().and_then(packed::decode::<Founding>) else { return Ok(()) };
    let mut current = match founding {
        Founding::Named { creator, at, visibility, name, topic } => Current {
            id,
            visibility,
            name,
            topic,
            retention_days: None,
            created: Stamp::from_u64(at),
            creator: Some(creator),
        },
        Founding::Direct { .. } => Current {
            id,
            visibility: Visibility::Direct,
            name: String::new(),
            topic: String::new(),
            retention_days: None,
            created: first_membership(db, id)?.unwrap_or_else(|| id.stamp()),
            creator: None,
        },
    };
    let mut deleted = false;
    let mut facts =
        db.prepare_cached("SELECT data FROM space_change WHERE space = ?1 ORDER BY field, stamp")?;
    let mut facts = facts.query([id])?;
    while let Some(fact) = facts.next()? {
        let data: Option<Vec<u8>> = fact.get(0)?;
        // The later fact comes later and overwrites the earlier.
        match data.as_deref().and_then(packed::decode::<Change>).map(|change| change.to) {
            Some(Setting::Name(name)) => current.name = name,
            Some(Setting::Topic(topic)) => current.topic = topic,
            Some(Setting::Visibility(visibility)) => current.visibility = visibility,
            Some(Setting::RetentionDays(days)) => current.retention_days = days,
            Some(Setting::Deleted) => deleted = true,
            None => {}
        }
    }
    db.prepare_cached(
        "INSERT OR REPLACE INTO local_space (id, visibility, name, topic, retention_days, created, creator, deleted)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        id,
        current.visibility,
        current.name,
        current.topic,
        current.retention_days,
        as_integer(current.created),
        current.creator,
        deleted
    ])?;
    Ok(())
}

fn first_membership(db: &Connection, space: SpaceId) -> rusqlite::Result<Option<Stamp>> {
    let first: Option<Vec<u8>> = db
        .prepare_cached("SELECT min(stamp) FROM membership WHERE space = ?1")?
        .query_row([space], |row| row.get(0))?;
    Ok(first.as_deref().and_then(At::from_slice).map(|at| at.stamp))
}

fn refresh_member(db: &Connection, space: SpaceId, account: AccountId) -> rusqlite::Result<()> {
    let mut now: Option<(Role, Stamp)> = None;
    let mut facts = db.prepare_cached(
        "SELECT stamp, data FROM membership WHERE space = ?1 AND account = ?2 ORDER BY stamp",
    )?;
    let mut facts = facts.query((space, account))?;
    while let Some(fact) = facts.next()? {
        let (at, data): (Vec<u8>, Option<Vec<u8>>) = (fact.get(0)?, fact.get(1)?);
        let standing = data.as_deref().and_then(packed::decode::<Standing>);
        let (Some(at), Some(standing)) = (At::from_slice(&at), standing) else { continue };
        // A change of role does not begin the membership anew.
        now = standing.role.map(|role| (role, now.map_or(at.stamp, |(_, since)| since)));
    }
    match now {
        Some((role, since)) => db
            .prepare_cached(
                "INSERT OR REPLACE INTO local_member (space, account, role, since) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![space, account, role, as_integer(since)])?,
        None => db
            .prepare_cached("DELETE FROM local_member WHERE space = ?1 AND account = ?2")?
            .execute((space, account))?,
    };
    Ok(())
}

/// A stamp has 60 bits, so it fits SQLite's signed integers.
fn as_integer(stamp: Stamp) -> i64 {
    i64::try_from(stamp.to_u64()).unwrap_or(i64::MAX)
}
