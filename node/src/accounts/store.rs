//! The account's rows, and the profiles that are derived from them.

use std::collections::BTreeSet;

use mychat_replication::{
    clock::Stamp,
    log::Value,
    store::{Batch, Migration, Row},
};
use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};

use super::{EMAIL, HANDLE, closing::keys_of};
use crate::{
    claims::{self, Name},
    events::Event,
    ids::{AccountId, At},
    keys::Keys,
    packed, timestamp,
};

/// The accounts' tables.
pub const MIGRATIONS: &[Migration] = &[Migration {
    domain: "accounts",
    number: 1,
    sql: "
        CREATE TABLE account (id BLOB NOT NULL PRIMARY KEY, data BLOB) STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('account');
        CREATE TABLE account_fact (
            account BLOB NOT NULL, field TEXT NOT NULL, at BLOB NOT NULL, data BLOB,
            PRIMARY KEY (account, field, at)
        ) STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('account_fact');
        CREATE TABLE credential (account BLOB NOT NULL, at BLOB NOT NULL, data BLOB, PRIMARY KEY (account, at))
            STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('credential');
        CREATE TABLE preference (account BLOB NOT NULL, at BLOB NOT NULL, data BLOB, PRIMARY KEY (account, at))
            STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('preference');
        CREATE TABLE session (account BLOB NOT NULL, id BLOB NOT NULL, data BLOB, PRIMARY KEY (account, id))
            STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('session');
        CREATE TABLE session_use (
            account BLOB NOT NULL, session BLOB NOT NULL, site BLOB NOT NULL, data BLOB,
            PRIMARY KEY (account, session, site)
        ) STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('session_use');
        CREATE TABLE session_end (
            account BLOB NOT NULL, session BLOB NOT NULL, data BLOB, PRIMARY KEY (account, session)
        ) STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('session_end');
        CREATE TABLE local_account (
            id BLOB NOT NULL PRIMARY KEY, created INTEGER NOT NULL, active INTEGER NOT NULL,
            imported INTEGER NOT NULL, name TEXT, handle TEXT, email TEXT, phone TEXT, address TEXT, avatar TEXT
        ) STRICT, WITHOUT ROWID;",
}];

/// The write-once row of an account.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Founded {
    at: u64,
    /// Made for a speaker of an imported log: nobody can sign in to it.
    imported: bool,
}

/// What facts are stated about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Field {
    Name,
    Handle,
    Email,
    Phone,
    Address,
    Avatar,
    State,
}

impl Field {
    pub(crate) const ALL: [Self; 7] =
        [Self::Name, Self::Handle, Self::Email, Self::Phone, Self::Address, Self::Avatar, Self::State];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Handle => "handle",
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Address => "address",
            Self::Avatar => "avatar",
            Self::State => "state",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.as_str() == name)
    }
}

/// A fact as it is packed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Fact {
    value: Option<String>,
    /// The claim that makes the value unique.
    claim: Option<Name>,
}

/// The values of [`Field::State`]; an account without the fact is active.
pub(crate) const DEACTIVATED: &str = "deactivated";
pub(crate) const ERASED: &str = "erased";

/// An account as it sees itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Account {
    /// The id.
    #[schema(value_type = String, format = Uuid)]
    pub id: AccountId,
    /// What people call it; null once it is erased.
    pub name: Option<String>,
    /// The unique short name by which it can be found and invited.
    pub handle: Option<String>,
    /// The address that it signs in with.
    pub email: Option<String>,
    /// A telephone number.
    pub phone: Option<String>,
    /// A postal address.
    pub address: Option<String>,
    /// The URL of a picture.
    pub avatar: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// Whether it can be signed in to.
    pub active: bool,
}

/// An account as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct PublicAccount {
    /// The id.
    #[schema(value_type = String, format = Uuid)]
    pub id: AccountId,
    /// What people call it; null once it is erased.
    pub name: Option<String>,
    /// The unique short name by which it can be found and invited.
    pub handle: Option<String>,
    /// The URL of a picture.
    pub avatar: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// Whether it can be signed in to.
    pub active: bool,
}

impl From<Account> for PublicAccount {
    fn from(account: Account) -> Self {
        let Account { id, name, handle, avatar, created_at, active, .. } = account;
        Self { id, name, handle, avatar, created_at, active }
    }
}

/// The account's own view of itself.
///
/// # Errors
/// What SQLite says.
pub fn profile(db: &Connection, id: AccountId) -> rusqlite::Result<Option<Account>> {
    db.prepare_cached(
        "SELECT name, handle, email, phone, address, avatar, created, active FROM local_account WHERE id = ?1",
    )?
    .query_row([id], |row| {
        Ok(Account {
            id,
            name: row.get(0)?,
            handle: row.get(1)?,
            email: row.get(2)?,
            phone: row.get(3)?,
            address: row.get(4)?,
            avatar: row.get(5)?,
            created_at: timestamp::rfc3339(Stamp::from_u64(row.get::<_, i64>(6)?.cast_unsigned())),
            active: row.get(7)?,
        })
    })
    .optional()
}

/// The part of an account that everybody may see.
///
/// # Errors
/// What SQLite says.
pub fn public_profile(db: &Connection, id: AccountId) -> rusqlite::Result<Option<PublicAccount>> {
    Ok(profile(db, id)?.map(PublicAccount::from))
}

/// Whether this node knows the account, active or not.
///
/// # Errors
/// What SQLite says.
pub fn exists(db: &Connection, id: AccountId) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM local_account WHERE id = ?1")?.exists([id])
}

/// Whether this node knows the account, and it is active.
///
/// # Errors
/// What SQLite says.
pub fn is_active(db: &Connection, id: AccountId) -> rusqlite::Result<Option<bool>> {
    db.prepare_cached("SELECT active FROM local_account WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()
}

/// Whether the account was ever erased, which is final.
pub(super) fn is_erased(db: &Connection, id: AccountId) -> rusqlite::Result<bool> {
    let mut statement = db.prepare_cached(
        "SELECT data FROM account_fact WHERE account = ?1 AND field = 'state' AND data IS NOT NULL",
    )?;
    let mut facts = statement.query([id])?;
    while let Some(row) = facts.next()? {
        let fact: Option<Fact> = packed::decode(row.get_ref(0)?.as_blob()?);
        if fact.and_then(|fact| fact.value).as_deref() == Some(ERASED) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether facts on this field say that an account is closed.
#[must_use]
pub fn is_state(field: &str) -> bool {
    field == Field::State.as_str()
}

/// Whether this node knows the account, it is active, and it is not one that was made for the speaker of an imported log.
///
/// # Errors
/// What SQLite says.
pub fn can_sign_in(db: &Connection, id: AccountId) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM local_account WHERE id = ?1 AND active AND NOT imported")?.exists([id])
}

/// Takes what is personal out of an account as it was shown, if it is erased by now; says whether it did.
///
/// # Errors
/// What SQLite says.
pub fn blank(
    db: &Connection,
    shown: &mut serde_json::Map<String, serde_json::Value>,
) -> rusqlite::Result<bool> {
    let fields = || Field::ALL.into_iter().filter(|field| *field != Field::State).map(Field::as_str);
    let Some(id) = shown.get("id").and_then(|id| id.as_str()?.parse().ok()) else { return Ok(false) };
    let is_account = fields().all(|field| shown.contains_key(field));
    if !is_account || fields().all(|field| shown[field].is_null()) || !is_erased(db, id)? {
        return Ok(false);
    }
    for field in fields() {
        shown.insert(field.to_owned(), serde_json::Value::Null);
    }
    Ok(true)
}

/// The account that owns a handle (in any case, with or without a leading `@`).
///
/// # Errors
/// What SQLite says.
pub fn by_handle(db: &Connection, keys: &Keys, handle: &str) -> rusqlite::Result<Option<AccountId>> {
    let handle = handle.strip_prefix('@').unwrap_or(handle).to_lowercase();
    Ok(claims::owner(db, HANDLE, keys.claim(HANDLE, &handle))?.map(AccountId))
}

/// The account that owns an e-mail address, which must be normalised.
pub(crate) fn by_email(db: &Connection, keys: &Keys, email: &str) -> rusqlite::Result<Option<AccountId>> {
    Ok(claims::owner(db, EMAIL, keys.claim(EMAIL, email))?.map(AccountId))
}

/// The account's password hash, as a PHC string.
pub(crate) fn password_hash(db: &Connection, id: AccountId) -> rusqlite::Result<Option<String>> {
    let data: Option<Vec<u8>> = db
        .prepare_cached(
            "SELECT data FROM credential WHERE account = ?1 AND data IS NOT NULL ORDER BY at DESC LIMIT 1",
        )?
        .query_row([id], |row| row.get(0))
        .optional()?;
    Ok(data.and_then(|data| packed::decode(&data)))
}

/// Adds the rows of a new account to the batch, all but its facts.
pub(crate) fn found(batch: &mut Batch<'_>, imported: bool) -> AccountId {
    let at = batch.stamp();
    let id = AccountId::from_stamp(at, rand::random());
    batch.insert("account", vec![id.value()], packed::encode(&Founded { at: at.to_u64(), imported }));
    id
}

/// States a fact about the account.
pub(crate) fn state(batch: &mut Batch<'_>, id: AccountId, field: Field, value: Option<String>) {
    put_fact(batch, id, field, &Fact { value, claim: None });
}

/// Claims a name that is known to be free, and states it.
pub(crate) fn state_unique(batch: &mut Batch<'_>, keys: &Keys, id: AccountId, field: Field, value: String) {
    let kind = field.as_str();
    let claim = keys.claim(kind, &value);
    claims::claim(batch, kind, claim, id.0);
    put_fact(batch, id, field, &Fact { value: Some(value), claim: Some(claim) });
}

/// Gives up a name that the account shows.
pub(crate) fn release(batch: &mut Batch<'_>, keys: &Keys, id: AccountId, field: Field, value: &str) {
    let kind = field.as_str();
    claims::release(batch, kind, keys.claim(kind, value), id.0);
}

fn put_fact(batch: &mut Batch<'_>, id: AccountId, field: Field, fact: &Fact) {
    let at = At { stamp: batch.stamp(), site: batch.site() };
    let key = vec![id.value(), Value::Text(field.as_str().to_owned()), at.value()];
    batch.insert("account_fact", key, packed::encode(fact));
}

/// Sets the account's password.
pub(crate) fn set_password(batch: &mut Batch<'_>, id: AccountId, hash: &String) {
    let at = At { stamp: batch.stamp(), site: batch.site() };
    batch.insert("credential", vec![id.value(), at.value()], packed::encode(hash));
}

/// The keys of every row that says something personal about the account, its claims included: for their erasure.
pub(super) fn personal_rows(
    db: &Connection,
    id: AccountId,
) -> rusqlite::Result<Vec<(&'static str, Vec<Value>)>> {
    let tables = [
        (
            "account_fact",
            "SELECT account, field, at FROM account_fact WHERE account = ?1 AND field <> 'state' AND data IS NOT NULL",
        ),
        ("credential", "SELECT account, at FROM credential WHERE account = ?1 AND data IS NOT NULL"),
        ("preference", "SELECT account, at FROM preference WHERE account = ?1 AND data IS NOT NULL"),
    ];
    let mut rows = Vec::new();
    for (table, query) in tables {
        rows.extend(keys_of(db, id, query)?.into_iter().map(|key| (table, key)));
    }
    let mut statement =
        db.prepare_cached("SELECT field, data FROM account_fact WHERE account = ?1 AND data IS NOT NULL")?;
    let facts = statement.query_map([id], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
    for fact in facts {
        let (field, data) = fact?;
        if let Some(name) = packed::decode::<Fact>(&data).and_then(|fact| fact.claim) {
            rows.push(("claim", claims::key(&field, name, id.0)));
        }
    }
    Ok(rows)
}

/// Adds an account for a speaker of an imported log to the batch: it has a name and a handle, and can't be signed in to.
pub(crate) fn found_imported(
    batch: &mut Batch<'_>,
    keys: &Keys,
    name: String,
    handle: Option<String>,
) -> AccountId {
    let id = found(batch, true);
    state(batch, id, Field::Name, Some(name));
    if let Some(handle) = handle {
        state_unique(batch, keys, id, Field::Handle, handle);
    }
    id
}

/// Brings `local_account` up to date with rows that have just been written or merged.
///
/// Each account that a row touches is put together anew from all its rows, so the order in which they come does not
/// matter.
///
/// # Errors
/// What SQLite says.
pub fn derive(db: &Connection, rows: &[Row<'_>]) -> rusqlite::Result<()> {
    let mut touched = BTreeSet::new();
    for row in rows {
        match row.table {
            "account" | "account_fact" => touched.extend(row.key.first().and_then(AccountId::from_value)),
            // A claim that comes or goes may make another claimant the owner.
            "claim" => {
                if let [Value::Text(kind), Value::Blob(name), claimant] = row.key.as_slice()
                    && (kind == EMAIL || kind == HANDLE)
                    && let Ok(name) = Name::try_from(name.as_slice())
                {
                    touched.extend(AccountId::from_value(claimant));
                    touched
                        .extend(claims::claimants(db, kind, name)?.into_iter().map(|(_, id)| AccountId(id)));
                }
            }
            _ => {}
        }
    }
    touched.into_iter().try_for_each(|id| derive_account(db, id))
}

fn derive_account(db: &Connection, id: AccountId) -> rusqlite::Result<()> {
    let founded: Option<Vec<u8>> = db
        .prepare_cached("SELECT data FROM account WHERE id = ?1 AND data IS NOT NULL")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    let Some(founded) = founded.and_then(|data| packed::decode::<Founded>(&data)) else { return Ok(()) };

    let mut values: [Option<String>; Field::ALL.len()] = Default::default();
    let mut erased = false;
    let mut statement = db.prepare_cached(
        "SELECT field, data FROM account_fact WHERE account = ?1 AND data IS NOT NULL ORDER BY field, at",
    )?;
    let mut facts = statement.query([id])?;
    while let Some(row) = facts.next()? {
        let Some(field) = Field::named(row.get_ref(0)?.as_str()?) else { continue };
        let Some(fact) = packed::decode::<Fact>(row.get_ref(1)?.as_blob()?) else { continue };
        let owned = match fact.claim {
            Some(name) => claims::owner(db, field.as_str(), name)? == Some(id.0),
            None => true,
        };
        erased |= field == Field::State && fact.value.as_deref() == Some(ERASED);
        values[field as usize] = fact.value.filter(|_| owned);
    }
    if erased {
        // Final, whatever arrives after it.
        values = Default::default();
        values[Field::State as usize] = Some(ERASED.to_owned());
    }
    let [name, handle, email, phone, address, avatar, state] = values;
    db.prepare_cached("REPLACE INTO local_account VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?
        .execute((
            id,
            founded.at.cast_signed(),
            state.is_none(),
            founded.imported,
            name,
            handle,
            email,
            phone,
            address,
            avatar,
        ))?;
    Ok(())
}

/// The event that a row of an account's stands for: a fact tells the account's own clients of its new profile.
///
/// # Errors
/// What SQLite says.
pub fn event_of(db: &Connection, row: &Row<'_>) -> rusqlite::Result<Option<Event>> {
    if row.table != "account_fact" {
        return Ok(None);
    }
    let (Some(id), Some(at)) =
        (row.key.first().and_then(AccountId::from_value), row.key.get(2).and_then(At::from_value))
    else {
        return Ok(None);
    };
    let Some(account) = profile(db, id)? else { return Ok(None) };
    Ok(Some(Event {
        kind: "account.updated",
        space: None,
        about: None,
        accounts: vec![id],
        at: at.stamp,
        data: serde_json::to_value(account).unwrap_or_default(),
        anew: Some("account.updated"),
    }))
}
