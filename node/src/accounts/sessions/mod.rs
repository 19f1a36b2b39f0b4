//! Sessions: an account that is signed in on a device.
//!
//! A session is a write-once row, and ends by another (`session_end`). What a refresh token has issued is a register
//! per site (`session_use`): the largest generation over all sites is the only one that is good. A token of an
//! earlier one is spent; whoever shows it has a copy that somebody else has used, so the session ends.

pub mod http;

use mychat_replication::{
    clock::Stamp,
    log::{SiteId, Value},
    store::Batch,
};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::{closing::keys_of, store};
use crate::{
    ids::{AccountId, SessionId},
    keys::refresh::Refresh,
    packed, timestamp,
};

/// Whether a session may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Good,
    /// It has ended.
    Ended,
    /// Its account is deactivated or erased.
    Inactive,
}

/// The standing of a session; `None` while this node does not know the account.
///
/// # Errors
/// What SQLite says.
pub fn standing(
    db: &Connection,
    account: AccountId,
    session: SessionId,
) -> rusqlite::Result<Option<Standing>> {
    Ok(match store::is_active(db, account)? {
        None => None,
        Some(false) => Some(Standing::Inactive),
        Some(true) if ended(db, account, session)? => Some(Standing::Ended),
        Some(true) => Some(Standing::Good),
    })
}

/// Where and with what a session was begun or used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Device {
    pub(crate) region: String,
    /// What the client calls itself.
    pub(crate) client: Option<String>,
}

/// The write-once row of a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Begun {
    at: u64,
    device: Device,
}

/// A site's register of a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Use {
    generation: u32,
    at: u64,
    device: Device,
}

/// A session as its account sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Session {
    /// The id.
    #[schema(value_type = String, format = Uuid)]
    pub id: SessionId,
    /// When it began.
    pub created_at: String,
    /// When it last got a token.
    pub last_seen: String,
    /// The region of the node that gave it.
    pub region: String,
    /// What the client calls itself.
    pub client: Option<String>,
    /// Whether the call itself belongs to it.
    pub current: bool,
}

/// Adds a new session to the batch.
pub(crate) fn begin(batch: &mut Batch<'_>, account: AccountId, device: Device) -> SessionId {
    let at = batch.stamp();
    let id = SessionId::from_stamp(at, rand::random());
    let row = Begun { at: at.to_u64(), device };
    batch.insert("session", vec![account.value(), id.value()], packed::encode(&row));
    id
}

/// The first refresh token of a session.
pub(crate) const fn first_refresh(account: AccountId, session: SessionId, site: SiteId) -> Refresh {
    Refresh { account, session, generation: 0, site }
}

/// Ends a session.
pub(crate) fn end(batch: &mut Batch<'_>, account: AccountId, session: SessionId) {
    let at = batch.stamp().to_u64();
    batch.insert("session_end", vec![account.value(), session.value()], packed::encode(&at));
}

/// Whether the session has ended; one that has not begun here yet has not.
fn ended(db: &Connection, account: AccountId, session: SessionId) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM session_end WHERE account = ?1 AND session = ?2")?
        .exists((account, session))
}

/// Whether this node has the session's row.
pub(crate) fn is_known(db: &Connection, account: AccountId, session: SessionId) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM session WHERE account = ?1 AND id = ?2")?.exists((account, session))
}

/// What became of a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refreshed {
    /// The next one.
    Next(Refresh),
    /// It was spent, and the session has been ended.
    Spent,
    /// The session had ended.
    Ended,
}

/// Takes a refresh token whose MAC is right, and issues the next.
///
/// A generation above all that this node knows is good: another node issued it, and its row is still on the way.
pub(crate) fn refresh(batch: &mut Batch<'_>, token: Refresh, device: Device) -> rusqlite::Result<Refreshed> {
    let (account, session) = (token.account, token.session);
    let db = batch.connection();
    if ended(db, account, session)? || store::is_active(db, account)? != Some(true) {
        return Ok(Refreshed::Ended);
    }
    let newest = uses(db, account, session)?.into_iter().map(|row| row.generation).max().unwrap_or(0);
    let (Some(generation), true) = (token.generation.checked_add(1), token.generation >= newest) else {
        end(batch, account, session);
        return Ok(Refreshed::Spent);
    };
    let (at, site) = (batch.stamp().to_u64(), batch.site());
    let key = vec![account.value(), session.value(), Value::Blob(site.0.to_vec())];
    batch.set("session_use", key, Some(packed::encode(&Use { generation, at, device })));
    Ok(Refreshed::Next(Refresh { generation, site, ..token }))
}

/// All sites' registers of a session.
fn uses(db: &Connection, account: AccountId, session: SessionId) -> rusqlite::Result<Vec<Use>> {
    let mut statement = db.prepare_cached(
        "SELECT data FROM session_use WHERE account = ?1 AND session = ?2 AND data IS NOT NULL ORDER BY site",
    )?;
    let rows = statement.query_map((account, session), |row| row.get::<_, Vec<u8>>(0))?;
    rows.filter_map(|data| data.map(|data| packed::decode(&data)).transpose()).collect()
}

/// The account's sessions that have not ended, the newest first.
pub(crate) fn list(
    db: &Connection,
    account: AccountId,
    current: SessionId,
) -> rusqlite::Result<Vec<Session>> {
    let mut statement = db.prepare_cached(
        "SELECT id, data FROM session WHERE account = ?1 AND data IS NOT NULL
         AND NOT EXISTS (SELECT 1 FROM session_end WHERE session_end.account = ?1 AND session_end.session = session.id)
         ORDER BY id DESC",
    )?;
    let rows =
        statement.query_map([account], |row| Ok((row.get::<_, SessionId>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
    let mut sessions = Vec::new();
    for row in rows {
        let (id, data) = row?;
        let Some(begun) = packed::decode::<Begun>(&data) else { continue };
        let last = uses(db, account, id)?.into_iter().max_by_key(|row| row.at);
        let (seen, device) = last.map_or((begun.at, begun.device), |last| (last.at, last.device));
        sessions.push(Session {
            id,
            created_at: timestamp::rfc3339(Stamp::from_u64(begun.at)),
            last_seen: timestamp::rfc3339(Stamp::from_u64(seen)),
            region: device.region,
            client: device.client,
            current: id == current,
        });
    }
    Ok(sessions)
}

/// The keys of every row about the account's sessions that names a device: for their erasure.
pub(crate) fn personal_rows(
    db: &Connection,
    account: AccountId,
) -> rusqlite::Result<Vec<(&'static str, Vec<Value>)>> {
    let sessions =
        keys_of(db, account, "SELECT account, id FROM session WHERE account = ?1 AND data IS NOT NULL")?;
    let uses = keys_of(
        db,
        account,
        "SELECT account, session, site FROM session_use WHERE account = ?1 AND data IS NOT NULL",
    )?;
    let sessions = sessions.into_iter().map(|key| ("session", key));
    Ok(sessions.chain(uses.into_iter().map(|key| ("session_use", key))).collect())
}
