//! The message as the API shows it.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    facts::{PurgeFact, Sent},
    history::{self, Order, Span},
    markdown, store,
};
use crate::{
    ids::{AccountId, At, MessageId, SpaceId},
    packed, timestamp,
};

/// How far back the latest message that is not deleted is looked for.
const LAST_WITHIN: usize = 20;

/// A message.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Message {
    /// Its id; ids sort by the time of sending.
    #[schema(value_type = String, format = Uuid)]
    pub id: MessageId,
    /// The space that it was written in.
    #[schema(value_type = String, format = Uuid)]
    pub space: SpaceId,
    /// Who wrote it.
    #[schema(value_type = String, format = Uuid)]
    pub author: AccountId,
    /// Markdown as it was typed; empty once it is deleted.
    pub body: String,
    /// The body as HTML that is safe to show; `null` once it is deleted.
    pub html: Option<String>,
    /// When it was sent.
    #[schema(format = DateTime)]
    pub sent_at: String,
    /// When its text was last changed.
    #[schema(format = DateTime)]
    pub edited_at: Option<String>,
    /// Whether this is the tombstone of a message.
    pub deleted: bool,
    /// The message that it answers.
    #[schema(value_type = Option<String>, format = Uuid)]
    pub reply_to: Option<MessageId>,
    /// The message whose thread it is in.
    #[schema(value_type = Option<String>, format = Uuid)]
    pub thread: Option<MessageId>,
    /// For each emoji the accounts that reacted with it.
    #[schema(value_type = BTreeMap<String, Vec<String>>)]
    pub reactions: BTreeMap<String, Vec<AccountId>>,
    /// Accounts that the text names by their handle.
    #[schema(value_type = Vec<String>)]
    pub mentions: Vec<AccountId>,
    /// Files that belong to it: none so far.
    pub attachments: Vec<serde_json::Value>,
    /// The author's own id of it.
    pub client_id: Option<String>,
}

impl Message {
    /// A message that was neither changed nor reacted to, with its body as it was rendered.
    pub(super) fn fresh(space: SpaceId, id: MessageId, sent: Sent, html: Option<String>) -> Self {
        Self {
            id,
            space,
            author: sent.author,
            body: sent.body,
            html,
            sent_at: timestamp::rfc3339(id.stamp()),
            edited_at: None,
            deleted: false,
            reply_to: sent.reply_to,
            thread: sent.thread,
            reactions: BTreeMap::new(),
            mentions: sent.mentions,
            attachments: Vec::new(),
            client_id: sent.client_id,
        }
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("a struct with named fields is always JSON")
    }
}

/// What became of a message's text.
struct State {
    edited: Option<At>,
    body: Option<String>,
    mentions: Vec<AccountId>,
    deleted: bool,
}

/// What belongs to the messages of a range: revisions, reactions, purges.
pub(super) struct Extras {
    states: BTreeMap<MessageId, State>,
    reactions: BTreeMap<MessageId, BTreeMap<String, Vec<AccountId>>>,
    purges: Vec<PurgeFact>,
}

impl Extras {
    /// Reads what belongs to the messages from `first` to `last`, in a query per table however many they are.
    pub fn read(
        db: &Connection,
        space: SpaceId,
        first: MessageId,
        last: MessageId,
    ) -> rusqlite::Result<Self> {
        let mut states = BTreeMap::new();
        let mut rows = db.prepare_cached(
            "SELECT message, edited, body, mentions, deleted FROM local_message_state
             WHERE space = ?1 AND message BETWEEN ?2 AND ?3",
        )?;
        let mut rows = rows.query(params![space, first, last])?;
        while let Some(row) = rows.next()? {
            let (edited, mentions): (Option<Vec<u8>>, Option<Vec<u8>>) = (row.get(1)?, row.get(3)?);
            let state = State {
                edited: edited.as_deref().and_then(At::from_slice),
                body: row.get(2)?,
                mentions: mentions.as_deref().and_then(packed::decode).unwrap_or_default(),
                deleted: row.get(4)?,
            };
            states.insert(row.get(0)?, state);
        }
        let mut reactions: BTreeMap<_, BTreeMap<_, Vec<_>>> = BTreeMap::new();
        let mut rows = db.prepare_cached(
            "SELECT message, emoji, account FROM local_reaction
             WHERE space = ?1 AND message BETWEEN ?2 AND ?3 ORDER BY message, emoji, account",
        )?;
        let mut rows = rows.query(params![space, first, last])?;
        while let Some(row) = rows.next()? {
            reactions.entry(row.get(0)?).or_default().entry(row.get(1)?).or_default().push(row.get(2)?);
        }
        Ok(Self { states, reactions, purges: store::purges(db, space)? })
    }

    /// Whether a message is deleted.
    pub fn deleted(&self, id: MessageId, sent: &Sent) -> bool {
        sent.erased
            || self.states.get(&id).is_some_and(|state| state.deleted)
            || self.purges.iter().any(|purge| purge.covers(id))
    }

    /// The time of the edit that holds.
    pub fn edited(&self, id: MessageId) -> Option<At> {
        self.states.get(&id)?.edited
    }

    /// The message with everything that belongs to it.
    pub fn complete(&mut self, space: SpaceId, id: MessageId, sent: Sent) -> Message {
        let mut message = self.unrendered(space, id, sent);
        message.html = (!message.deleted).then(|| markdown::render(&message.body));
        message
    }

    /// The same but for the HTML, which takes long.
    fn unrendered(&mut self, space: SpaceId, id: MessageId, mut sent: Sent) -> Message {
        let deleted = self.deleted(id, &sent);
        let state = self.states.remove(&id);
        let edited_at = state.as_ref().and_then(|state| state.edited).map(|at| timestamp::rfc3339(at.stamp));
        if deleted {
            let tombstone = Message::fresh(space, id, sent.tombstone(), None);
            return Message { edited_at, deleted, ..tombstone };
        }
        if let Some(State { body: Some(body), mentions, .. }) = state {
            sent.body = body;
            sent.mentions = mentions;
        }
        let reactions = self.reactions.remove(&id).unwrap_or_default();
        Message { edited_at, reactions, ..Message::fresh(space, id, sent, None) }
    }
}

/// The message of an id, a tombstone if it is deleted; for a duplicate the message that it repeats; `None` for an
/// unknown one.
///
/// # Errors
/// What SQLite says.
pub fn resource(db: &Connection, space: SpaceId, id: MessageId) -> rusqlite::Result<Option<Message>> {
    let id = store::original_of(db, space, id)?.unwrap_or(id);
    let Some(sent) = store::row(db, space, id)? else { return Ok(None) };
    Ok(Some(Extras::read(db, space, id, id)?.complete(space, id, sent)))
}

/// The same without its HTML, for the writer's turn.
pub(super) fn unrendered(
    db: &Connection,
    space: SpaceId,
    id: MessageId,
) -> rusqlite::Result<Option<Message>> {
    let id = store::original_of(db, space, id)?.unwrap_or(id);
    let Some(sent) = store::row(db, space, id)? else { return Ok(None) };
    Ok(Some(Extras::read(db, space, id, id)?.unrendered(space, id, sent)))
}

/// Makes the tombstone of a message as it was shown, if it is deleted by now; says whether it did.
///
/// # Errors
/// What SQLite says.
pub fn blank(db: &Connection, shown: &mut serde_json::Map<String, Value>) -> rusqlite::Result<bool> {
    fn read<T: std::str::FromStr>(shown: &serde_json::Map<String, Value>, field: &str) -> Option<T> {
        shown.get(field)?.as_str()?.parse().ok()
    }
    let is_message = ["author", "body", "html", "deleted"].iter().all(|field| shown.contains_key(*field));
    let (Some(space), Some(id)) = (read(shown, "space"), read(shown, "id")) else { return Ok(false) };
    if !is_message || shown["deleted"] == true {
        return Ok(false);
    }
    if !unrendered(db, space, id)?.is_some_and(|message| message.deleted) {
        return Ok(false);
    }
    for (field, value) in [
        ("body", json!("")),
        ("html", Value::Null),
        ("deleted", json!(true)),
        ("reactions", json!({})),
        ("mentions", json!([])),
    ] {
        shown.insert(field.to_owned(), value);
    }
    Ok(true)
}

/// The latest message of a space that is not deleted, as far as there is one among the last few.
///
/// # Errors
/// What SQLite says.
pub fn last(db: &Connection, space: SpaceId) -> rusqlite::Result<Option<Message>> {
    let latest = history::read(db, space, Span::ALL, Order::Desc, LAST_WITHIN)?;
    let (Some((newest, _)), Some((oldest, _))) = (latest.first(), latest.last()) else { return Ok(None) };
    let mut extras = Extras::read(db, space, *oldest, *newest)?;
    let present = latest.into_iter().find_map(|(id, sent)| {
        let sent = sent?;
        (!extras.deleted(id, &sent)).then_some((id, sent))
    });
    Ok(present.map(|(id, sent)| extras.complete(space, id, sent)))
}
