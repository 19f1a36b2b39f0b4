//! What holds now, read from the local tables.

use mychat_replication::clock::Stamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Role, Visibility, facts::Standing, succession};
use crate::{
    accounts,
    ids::{AccountId, At, SpaceId},
    packed,
};

/// A line of `local_space`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Current {
    pub id: SpaceId,
    pub visibility: Visibility,
    pub name: String,
    pub topic: String,
    pub retention_days: Option<u32>,
    pub created: Stamp,
    pub creator: Option<AccountId>,
}

/// How a space looks to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// As to a member.
    Member,
    /// Public, and not joined: its description may be seen, its content not.
    Open,
    /// As if it did not exist.
    Hidden,
}

/// Whether the account is a member of the space; of one that is deleted or unknown nobody is.
///
/// # Errors
/// What SQLite says.
pub fn is_member(db: &Connection, space: SpaceId, account: AccountId) -> rusqlite::Result<bool> {
    Ok(stated_role(db, space, account)?.is_some())
}

/// The account's role in the space; `None` for those who are no members, and in spaces that are deleted or unknown.
///
/// The heir of a space without an active owner is its owner.
///
/// # Errors
/// What SQLite says.
pub fn role(db: &Connection, space: SpaceId, account: AccountId) -> rusqlite::Result<Option<Role>> {
    match stated_role(db, space, account)? {
        Some(role) if role < Role::Owner && succession::heir(db, space, None)? == Some(account) => {
            Ok(Some(Role::Owner))
        }
        stated => Ok(stated),
    }
}

fn stated_role(db: &Connection, space: SpaceId, account: AccountId) -> rusqlite::Result<Option<Role>> {
    db.prepare_cached(
        "SELECT m.role FROM local_member m JOIN local_space s ON s.id = m.space
         WHERE m.space = ?1 AND m.account = ?2 AND s.deleted = 0",
    )?
    .query_row((space, account), |row| row.get(0))
    .optional()
}

/// The spaces that the account is or ever was a member of. Reads the whole table of memberships.
///
/// # Errors
/// What SQLite says.
pub fn ever_of(db: &Connection, account: AccountId) -> rusqlite::Result<Vec<SpaceId>> {
    db.prepare_cached("SELECT DISTINCT space FROM membership WHERE account = ?1")?
        .query_map([account], |row| row.get(0))?
        .collect()
}

/// Since when the account is a member without interruption, whatever its role was.
///
/// # Errors
/// What SQLite says.
pub fn since(db: &Connection, space: SpaceId, account: AccountId) -> rusqlite::Result<Option<Stamp>> {
    db.prepare_cached("SELECT since FROM local_member WHERE space = ?1 AND account = ?2")?
        .query_row((space, account), |row| stamp(row, 0))
        .optional()
}

/// How the space looks to the account.
///
/// # Errors
/// What SQLite says.
pub fn access(db: &Connection, space: SpaceId, account: AccountId) -> rusqlite::Result<Access> {
    if is_member(db, space, account)? {
        return Ok(Access::Member);
    }
    Ok(match visibility(db, space)? {
        Some(Visibility::Public) => Access::Open,
        _ => Access::Hidden,
    })
}

/// Whether the account may know of the space: public ones are for all to see, others for their members.
///
/// # Errors
/// What SQLite says.
pub fn visible(db: &Connection, space: SpaceId, account: AccountId) -> rusqlite::Result<bool> {
    Ok(access(db, space, account)? != Access::Hidden)
}

/// The visibility of a space that exists.
pub(super) fn visibility(db: &Connection, space: SpaceId) -> rusqlite::Result<Option<Visibility>> {
    db.prepare_cached("SELECT visibility FROM local_space WHERE id = ?1 AND deleted = 0")?
        .query_row([space], |row| row.get(0))
        .optional()
}

/// The account's spaces, by id.
///
/// # Errors
/// What SQLite says.
pub fn spaces_of(db: &Connection, account: AccountId) -> rusqlite::Result<Vec<SpaceId>> {
    db.prepare_cached(
        "SELECT m.space FROM local_member m JOIN local_space s ON s.id = m.space
         WHERE m.account = ?1 AND s.deleted = 0 ORDER BY m.space",
    )?
    .query_map([account], |row| row.get(0))?
    .collect()
}

/// The spaces of which the account is stated to be an owner, by id.
pub(super) fn owned_by(db: &Connection, account: AccountId) -> rusqlite::Result<Vec<SpaceId>> {
    db.prepare_cached(
        "SELECT m.space FROM local_member m JOIN local_space s ON s.id = m.space
         WHERE m.account = ?1 AND m.role = 'owner' AND s.deleted = 0 ORDER BY m.space",
    )?
    .query_map([account], |row| row.get(0))?
    .collect()
}

/// The members of a space, by account; also of one that has been deleted.
///
/// # Errors
/// What SQLite says.
pub fn members_of(db: &Connection, space: SpaceId) -> rusqlite::Result<Vec<AccountId>> {
    db.prepare_cached("SELECT account FROM local_member WHERE space = ?1 ORDER BY account")?
        .query_map([space], |row| row.get(0))?
        .collect()
}

/// Up to `most` members of a space, by account.
///
/// # Errors
/// What SQLite says.
pub fn some_members_of(db: &Connection, space: SpaceId, most: usize) -> rusqlite::Result<Vec<AccountId>> {
    db.prepare_cached("SELECT account FROM local_member WHERE space = ?1 ORDER BY account LIMIT ?2")?
        .query_map((space, most as i64), |row| row.get(0))?
        .collect()
}

/// The first public or private space of this name that `account` owns: for imports, which go on where they were.
///
/// # Errors
/// What SQLite says.
pub fn named(db: &Connection, account: AccountId, name: &str) -> rusqlite::Result<Option<SpaceId>> {
    db.prepare_cached(
        "SELECT m.space FROM local_member m JOIN local_space s ON s.id = m.space
         WHERE m.account = ?1 AND m.role = 'owner' AND s.name = ?2 AND s.deleted = 0 ORDER BY m.space LIMIT 1",
    )?
    .query_row((account, name), |row| row.get(0))
    .optional()
}

/// A space as it is now, unless it is deleted or unknown.
pub(super) fn current(db: &Connection, id: SpaceId) -> rusqlite::Result<Option<Current>> {
    db.prepare_cached(
        "SELECT visibility, name, topic, retention_days, created, creator FROM local_space
         WHERE id = ?1 AND deleted = 0",
    )?
    .query_row([id], |row| {
        Ok(Current {
            id,
            visibility: row.get(0)?,
            name: row.get(1)?,
            topic: row.get(2)?,
            retention_days: row.get(3)?,
            created: stamp(row, 4)?,
            creator: row.get(5)?,
        })
    })
    .optional()
}

/// Whether the space has another active owner than `account`, and whether it has another active member at all.
pub(super) fn others(db: &Connection, space: SpaceId, account: AccountId) -> rusqlite::Result<(bool, bool)> {
    if succession::is_owned(db, space, Some(account))? {
        return Ok((true, true));
    }
    let heir = succession::heir(db, space, None)?;
    let mut others =
        db.prepare_cached("SELECT account FROM local_member WHERE space = ?1 AND account <> ?2")?;
    let mut others = others.query((space, account))?;
    while let Some(other) = others.next()? {
        if accounts::is_active(db, other.get(0)?)? != Some(false) {
            return Ok((heir.is_some_and(|heir| heir != account), true));
        }
    }
    Ok((false, false))
}

/// Up to `limit` members after `after`, by account, with role and the start of their membership.
pub(super) fn members_after(
    db: &Connection,
    space: SpaceId,
    after: Option<AccountId>,
    limit: usize,
) -> rusqlite::Result<Vec<(AccountId, Role, Stamp)>> {
    let after = after.map_or_else(Vec::new, |account| account.bytes().to_vec());
    let heir = succession::heir(db, space, None)?;
    db.prepare_cached(
        "SELECT account, role, since FROM local_member WHERE space = ?1 AND account > ?2 ORDER BY account LIMIT ?3",
    )?
    .query_map(params![space, after, limit as i64], |row| {
        let account = row.get(0)?;
        let role = if heir == Some(account) { Role::Owner } else { row.get(1)? };
        Ok((account, role, stamp(row, 2)?))
    })?
    .collect()
}

/// Up to `limit` spaces of the account after `after`, by id.
pub(super) fn own_after(
    db: &Connection,
    account: AccountId,
    after: Option<SpaceId>,
    limit: usize,
) -> rusqlite::Result<Vec<SpaceId>> {
    let after = after.map_or_else(Vec::new, |space| space.bytes().to_vec());
    db.prepare_cached(
        "SELECT m.space FROM local_member m JOIN local_space s ON s.id = m.space
         WHERE m.account = ?1 AND m.space > ?2 AND s.deleted = 0 ORDER BY m.space LIMIT ?3",
    )?
    .query_map(params![account, after, limit as i64], |row| row.get(0))?
    .collect()
}

/// Up to `limit` public spaces after `after` that the account has not joined, by id.
pub(super) fn open_after(
    db: &Connection,
    account: AccountId,
    after: Option<SpaceId>,
    limit: usize,
) -> rusqlite::Result<Vec<SpaceId>> {
    let after = after.map_or_else(Vec::new, |space| space.bytes().to_vec());
    db.prepare_cached(
        "SELECT s.id FROM local_space s WHERE s.visibility = 'public' AND s.deleted = 0 AND s.id > ?2
           AND NOT EXISTS (SELECT 1 FROM local_member m WHERE m.space = s.id AND m.account = ?1)
         ORDER BY s.id LIMIT ?3",
    )?
    .query_map(params![account, after, limit as i64], |row| row.get(0))?
    .collect()
}

/// The latest fact on an account's membership: when, and what.
pub(super) fn latest_standing(
    db: &Connection,
    space: SpaceId,
    account: AccountId,
) -> rusqlite::Result<Option<(At, Standing)>> {
    let row: Option<(Vec<u8>, Option<Vec<u8>>)> = db
        .prepare_cached(
            "SELECT stamp, data FROM membership WHERE space = ?1 AND account = ?2 ORDER BY stamp DESC LIMIT 1",
        )?
        .query_row((space, account), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(row.and_then(|(at, data)| Some((At::from_slice(&at)?, packed::decode(data.as_deref()?)?))))
}

/// How many accounts used an invitation other than `account`, and whether `account` did.
pub(super) fn invitation_uses(
    db: &Connection,
    invitation: &[u8],
    account: AccountId,
) -> rusqlite::Result<(u32, bool)> {
    db.prepare_cached(
        "SELECT coalesce(sum(account <> ?2), 0), coalesce(max(account = ?2), 0) FROM invitation_use
         WHERE invitation = ?1",
    )?
    .query_row((invitation, account), |row| Ok((row.get(0)?, row.get(1)?)))
}

fn stamp(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Stamp> {
    row.get::<_, i64>(column).map(|bits| Stamp::from_u64(bits.unsigned_abs()))
}
