//! The events that rows of spaces become.
//!
//! A fact that a later one has overruled gives none: whoever resumes hears of the later one instead.

use mychat_replication::{clock::Stamp, store::Row};
use rusqlite::Connection;
use serde_json::json;

use super::{
    facts::{Change, Founding, Setting, Standing},
    membership::Member,
    query, resource,
};
use crate::{
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
