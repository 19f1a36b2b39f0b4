//! The events that rows of messages become.

use std::sync::Arc;

use mychat_replication::{
    clock::Stamp,
    log::Value,
    store::{Note, Row},
};
use rusqlite::Connection;
use serde_json::json;

use super::{
    facts::{Reaction, Revision, Sent},
    resource::{self, Extras, Message},
    store,
};
use crate::{
    events::Event,
    ids::{AccountId, At, MessageId, SpaceId},
    packed,
};

/// The event of a replicated row of this domain, from the row and what the tables say now.
///
/// Nothing is said of duplicates, nor of facts that later ones have overruled: whoever resumes hears of the later
/// ones instead.
///
/// # Errors
/// What SQLite says.
pub fn event_of(db: &Connection, row: &Row<'_>) -> rusqlite::Result<Option<Event>> {
    let Some(data) = row.data.filter(|_| store::is_table(row.table)) else { return Ok(None) };
    let space = row.key.first().and_then(SpaceId::from_value);
    let message = row.key.get(1).and_then(MessageId::from_value);
    let (Some(space), Some(message)) = (space, message) else { return Ok(None) };
    if store::original_of(db, space, message)?.is_some() {
        return Ok(None);
    }
    match row.table {
        "message" => match packed::decode(data) {
            Some(sent) => created(db, space, message, sent),
            None => Ok(None),
        },
        "message_revision" => match (row.key.get(2).and_then(At::from_value), packed::decode(data)) {
            (Some(at), Some(revision)) => revised(db, space, message, at, &revision),
            _ => Ok(None),
        },
        "reaction" => {
            let account = row.key.get(2).and_then(AccountId::from_value);
            let at = row.key.get(4).and_then(At::from_value);
            match (account, row.key.get(3), at, packed::decode(data)) {
                (Some(account), Some(Value::Text(emoji)), Some(at), Some(reaction)) => {
                    reacted(db, space, message, account, emoji, at.stamp, reaction)
                }
                _ => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

/// What a job notes of a message that it sends: nothing else that is held says anything about it.
pub(super) struct Fresh(pub(super) Arc<Message>);

/// The event of a row of which this was noted, without reading anything: the one that [`event_of`] would make of it in the
/// commit that wrote it.
#[must_use]
pub fn event_noted(note: &Note) -> Option<Event> {
    let Fresh(message) = note.downcast_ref()?;
    let event = event("message.created", message.space, message.id.stamp(), message.json());
    Some(Event { anew: None, ..event })
}

/// `message.created`. A message that replaces duplicates which were announced before names them in `replaces`.
fn created(db: &Connection, space: SpaceId, id: MessageId, sent: Sent) -> rusqlite::Result<Option<Event>> {
    // A tombstone comes with the fact of the deletion, which is what is announced.
    if sent.erased {
        return Ok(None);
    }
    let replaces = if sent.client_id.is_some() { store::duplicates_of(db, space, id)? } else { Vec::new() };
    let message = Extras::read(db, space, id, id)?.complete(space, id, sent);
    // An edit may have come before the message itself, when nothing was said of it. A client that has the message from
    // another node has to hear of it now.
    let anew = match &message {
        message if message.deleted => Some("message.deleted"),
        message => message.edited_at.as_ref().map(|_| "message.edited"),
    };
    let mut data = message.json();
    if !replaces.is_empty() {
        data["replaces"] = json!(replaces);
    }
    Ok(Some(Event { anew, ..event("message.created", space, id.stamp(), data) }))
}

fn revised(
    db: &Connection,
    space: SpaceId,
    id: MessageId,
    at: At,
    revision: &Revision,
) -> rusqlite::Result<Option<Event>> {
    let kind = match revision {
        Revision::Edited { .. } => {
            // Also none for a message that has not arrived yet: it will be announced with its edits.
            let Some(sent) = store::row(db, space, id)? else { return Ok(None) };
            let extras = Extras::read(db, space, id, id)?;
            if extras.deleted(id, &sent) || extras.edited(id) != Some(at) {
                return Ok(None);
            }
            "message.edited"
        }
        Revision::Deleted { .. } => "message.deleted",
        Revision::Erased { .. } => return Ok(None),
    };
    Ok(resource::resource(db, space, id)?.map(|message| event(kind, space, at.stamp, message.json())))
}

fn reacted(
    db: &Connection,
    space: SpaceId,
    message: MessageId,
    account: AccountId,
    emoji: &str,
    at: Stamp,
    reaction: Reaction,
) -> rusqlite::Result<Option<Event>> {
    if store::has_reaction(db, space, message, account, emoji)? != reaction.on {
        return Ok(None);
    }
    let kind = if reaction.on { "reaction.added" } else { "reaction.removed" };
    let data = json!({ "space": space, "message": message, "account": account, "emoji": emoji });
    Ok(Some(event(kind, space, at, data)))
}

fn event(kind: &'static str, space: SpaceId, at: Stamp, data: serde_json::Value) -> Event {
    Event { kind, space: Some(space), about: None, accounts: Vec::new(), at, data, anew: Some(kind) }
}
