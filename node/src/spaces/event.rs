//! The events that rows of spaces become.
//!
//! A fact that a later one has overruled gives none: whoever resumes hears of the later one instead.

use mychat_replication::{clock::Stamp, log::Value, store::Row};
use rusqlite::Connection;
use serde_json::json;

use super::{
    Role,
    facts::{Change, Founding, Setting, Standing},
    membership::Member,
    query, resource, succession,
};
use crate::{
    accounts,
    events::Event,
    ids::{AccountId, At, SpaceId},
    packed,
};

/// The event of a replicated row of this domain, from the row and what the tables say now.
///
/// # Errors
/// What SQLite says.
pub fn event_of(db: &Connection, row: &Row<'_>) -> rusqlite::Result<Option<Event>> {
    let Some(space) = row.key.first().and_then(SpaceId::from_value) else { return Ok(None) };
    let Some(data) = row.data else { return Ok(None) };
    match row.table {
        "space" => match packed::decode(data) {
            Some(founding) => founded(db, space, &founding),
            None => Ok(None),
        },
        "space_change" => {
            let at = row.key.get(2).and_then(At::from_value);
            let (Some(at), Some(change)) = (at, packed::decode::<Change>(data)) else { return Ok(None) };
            changed(db, space, at.stamp, &change)
        }
        "membership" => {
            let account = row.key.get(1).and_then(AccountId::from_value);
            let at = row.key.get(2).and_then(At::from_value);
            let standing = packed::decode::<Standing>(data);
            let (Some(account), Some(at), Some(standing)) = (account, at, standing) else { return Ok(None) };
            moved(db, space, account, at, standing)
        }
        _ => Ok(None),
    }
}

/// `space.created` goes to all who are members now: the founder, or whoever else's membership got here before the
/// founding did.
///
/// The founder alone gets the space as the founder sees it; several get what is the same for all of them.
fn founded(db: &Connection, id: SpaceId, founding: &Founding) -> rusqlite::Result<Option<Event>> {
    let Some(current) = query::current(db, id)? else { return Ok(None) };
    let accounts = query::members_of(db, id)?;
    let viewer = match (founding, accounts.as_slice()) {
        (Founding::Named { .. }, [one]) => Some(*one),
        _ => None,
    };
    let Some(space) = resource::resource(db, id, viewer)? else { return Ok(None) };
    let data = if viewer.is_some() { space.json() } else { space.shared_json() };
    let kind = "space.created";
    // Nothing was said of whoever was added before the founding came. A client that has seen the founding elsewhere, when
    // its account was no member, has to hear of it now.
    let anew = match founding {
        Founding::Named { creator, .. } => accounts.iter().any(|account| account != creator).then_some(kind),
        Founding::Direct { .. } => None,
    };
    Ok(Some(Event { kind, space: None, about: Some(id), accounts, at: current.created, data, anew }))
}

fn changed(db: &Connection, id: SpaceId, at: Stamp, change: &Change) -> rusqlite::Result<Option<Event>> {
    if change.to == Setting::Deleted {
        // Nobody has access to it any more, so its last members are named.
        let accounts = query::members_of(db, id)?;
        let data = json!({ "id": id, "by": change.by });
        return Ok(Some(Event {
            kind: "space.deleted",
            space: None,
            about: Some(id),
            accounts,
            at,
            data,
            anew: Some("space.deleted"),
        }));
    }
    Ok(resource::resource(db, id, None)?.map(|space| Event {
        kind: "space.updated",
        space: Some(id),
        about: None,
        accounts: Vec::new(),
        at,
        data: space.shared_json(),
        anew: Some("space.updated"),
    }))
}

fn moved(
    db: &Connection,
    space: SpaceId,
    account: AccountId,
    at: At,
    standing: Standing,
) -> rusqlite::Result<Option<Event>> {
    if query::latest_standing(db, space, account)?.is_some_and(|(latest, _)| latest != at) {
        return Ok(None);
    }
    let by = standing.by;
    // Who comes or goes hears of it as well: the space's streams have not been told yet, or no more.
    let accounts = vec![account];
    let (kind, data) = match standing.role {
        Some(_) => {
            // Nothing of a space whose founding is not here yet: it will be announced with its members then.
            let Some(role) = query::role(db, space, account)? else { return Ok(None) };
            let since = query::since(db, space, account)?.unwrap_or(at.stamp);
            let mut data = Member::new(db, account, role, since)?.json();
            data["space"] = json!(space);
            data["by"] = json!(by);
            ("member.added", data)
        }
        None => ("member.removed", json!({ "space": space, "account": account, "role": null, "by": by })),
    };
    Ok(Some(Event { kind, space: Some(space), about: None, accounts, at: at.stamp, data, anew: Some(kind) }))
}

/// The events of those who own a space as its heirs since a row ended the last ownership: that an owner left or has another
/// role now, or that an owner's account was closed.
///
/// # Errors
/// What SQLite says.
pub fn inherited(db: &Connection, row: &Row<'_>) -> rusqlite::Result<Vec<Event>> {
    let (spaces, about, at) = match (row.table, row.key.as_slice()) {
        ("membership", [space, account, at]) => {
            let ids = (SpaceId::from_value(space), AccountId::from_value(account), At::from_value(at));
            let (Some(space), Some(account), Some(at)) = ids else { return Ok(Vec::new()) };
            let latest = query::latest_standing(db, space, account)?;
            let left = latest.is_some_and(|(latest, now)| latest == at && now.role != Some(Role::Owner));
            (if left { vec![space] } else { Vec::new() }, account, at)
        }
        ("account_fact", [account, Value::Text(field), at]) if accounts::is_state(field) => {
            let (Some(account), Some(at)) = (AccountId::from_value(account), At::from_value(at)) else {
                return Ok(Vec::new());
            };
            let closed = accounts::is_active(db, account)? == Some(false);
            (if closed { query::owned_by(db, account)? } else { Vec::new() }, account, at)
        }
        _ => return Ok(Vec::new()),
    };
    let mut events = Vec::new();
    for space in spaces {
        // Of who has come to a space that nobody owned, the row's own event says it.
        if let Some(heir) = succession::heir(db, space, None)?.filter(|heir| *heir != about) {
            events.push(inheritance(db, space, heir, at.stamp)?);
        }
    }
    Ok(events)
}

fn inheritance(db: &Connection, space: SpaceId, heir: AccountId, at: Stamp) -> rusqlite::Result<Event> {
    let since = query::since(db, space, heir)?.unwrap_or(at);
    let mut data = Member::new(db, heir, Role::Owner, since)?.json();
    data["space"] = json!(space);
    data["by"] = json!(heir);
    let kind = "member.added";
    Ok(Event { kind, space: Some(space), about: None, accounts: Vec::new(), at, data, anew: Some(kind) })
}
