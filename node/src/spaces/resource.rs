//! The space as the API shows it, to an account or to nobody in particular.

use rusqlite::Connection;
use serde::Serialize;

use super::{
    Role, Visibility,
    query::{self, Current},
};
use crate::{
    accounts,
    ids::{AccountId, SpaceId},
    messages::{self, Message},
    notifications, timestamp,
};

/// The set of nodes that keep a space. There is one so far, all of them.
const ZONE: &str = "global";

/// Names of a direct conversation's others that are spelled out.
const MAX_NAMES: usize = 8;

/// A space.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Space {
    /// Its id.
    #[schema(value_type = String, format = Uuid)]
    pub id: SpaceId,
    /// Its name; of a direct conversation the names of the others in it.
    pub name: String,
    /// What it is about; empty when nothing was said.
    pub topic: String,
    /// Who may find and join it.
    pub visibility: Visibility,
    /// Which nodes keep it.
    pub zone: &'static str,
    /// For how many days messages are kept; `null` for ever.
    pub retention_days: Option<u32>,
    /// When it was founded.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// The caller's role; `null` for those who have not joined.
    pub role: Option<Role>,
    /// Messages of others that the caller has not read, counted up to a bound.
    pub unread: u32,
    /// The latest message that is not deleted, for members.
    #[schema(value_type = Option<Message>)]
    pub last_message: Option<Message>,
}

impl Space {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("a struct with named fields is always JSON")
    }

    /// What is the same for everybody who sees the space.
    pub(super) fn shared_json(&self) -> serde_json::Value {
        let mut json = self.json();
        if let Some(fields) = json.as_object_mut() {
            for own in ["role", "unread", "last_message"] {
                fields.remove(own);
            }
        }
        json
    }
}

/// The space as `viewer` sees it, or without what depends on the viewer; `None` for one that is deleted or unknown.
///
/// Whether the viewer may see it is for the caller to check.
///
/// # Errors
/// What SQLite says.
pub fn resource(db: &Connection, id: SpaceId, viewer: Option<AccountId>) -> rusqlite::Result<Option<Space>> {
    let Some(current) = query::current(db, id)? else { return Ok(None) };
    let role = match viewer {
        Some(account) => query::role(db, id, account)?,
        None => None,
    };
    let joined = viewer.filter(|_| role.is_some());
    let (unread, last_message) = match joined {
        Some(account) => (notifications::unread(db, id, account)?, messages::last(db, id)?),
        None => (0, None),
    };
    let name = match current.visibility {
        Visibility::Direct => names_of_others(db, id, viewer)?,
        _ => current.name.clone(),
    };
    Ok(Some(Space { name, role, unread, last_message, ..described(current) }))
}

/// The space as it looks to somebody who has just become a member.
pub(super) fn joined(db: &Connection, id: SpaceId, role: Role) -> rusqlite::Result<Option<Space>> {
    let Some(current) = query::current(db, id)? else { return Ok(None) };
    Ok(Some(Space { role: Some(role), last_message: messages::last(db, id)?, ..described(current) }))
}

/// What is the same for everybody.
pub(super) fn described(current: Current) -> Space {
    Space {
        id: current.id,
        name: current.name,
        topic: current.topic,
        visibility: current.visibility,
        zone: ZONE,
        retention_days: current.retention_days,
        created_at: timestamp::rfc3339(current.created),
        role: None,
        unread: 0,
        last_message: None,
    }
}

fn names_of_others(db: &Connection, space: SpaceId, viewer: Option<AccountId>) -> rusqlite::Result<String> {
    let mut accounts = query::members_of(db, space)?;
    // Somebody who talks to nobody else sees the own name.
    if accounts.len() > 1 {
        accounts.retain(|account| Some(*account) != viewer);
    }
    names(db, &accounts)
}

/// The names of accounts, in a row.
pub(super) fn names(db: &Connection, accounts: &[AccountId]) -> rusqlite::Result<String> {
    let mut names = Vec::new();
    for account in accounts.iter().take(MAX_NAMES) {
        names.extend(accounts::public_profile(db, *account)?.and_then(|profile| profile.name));
    }
    if accounts.len() > MAX_NAMES {
        names.push("…".to_owned());
    }
    Ok(names.join(", "))
}
