//! The event of a read mark, for the reader's other devices.

use mychat_replication::store::Row;
use rusqlite::Connection;
use serde_json::json;

use super::store;
use crate::{events::Event, spaces};

/// `read`, to the account itself: `{space, account, message, unread}`. A mark that is behind the one that holds, or
/// in a space that the account has left, gives none.
///
/// # Errors
/// What SQLite says.
pub fn event_of(db: &Connection, row: &Row<'_>) -> rusqlite::Result<Option<Event>> {
    let Some((account, space, mark)) = store::decode(row) else { return Ok(None) };
    if store::mark(db, account, space)?.is_some_and(|latest| latest > mark.message)
        || !spaces::is_member(db, space, account)?
    {
        return Ok(None);
    }
    let unread = store::unread(db, space, account)?;
    let data = json!({ "space": space, "account": account, "message": mark.message, "unread": unread });
    Ok(Some(Event {
        kind: "read",
        space: None,
        about: Some(space),
        accounts: vec![account],
        at: mark.stamp(),
        data,
        anew: Some("read"),
    }))
}
