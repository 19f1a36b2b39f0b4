//! What a call on messages does in its turn of the writer: the rules that need the database, and the rows.
//!
//! The HTTP face (`http`) prepares what takes long before, and makes the answer of it after.

use std::sync::Arc;

use mychat_replication::store::Batch;
use rusqlite::Connection;

use super::{
    facts::{self, Revision, Sent},
    markdown,
    resource::{self, Message},
    rules, store,
};
use crate::{
    http::Problem,
    ids::{AccountId, MessageId, SpaceId},
    spaces::{self, Role},
    timestamp,
};

/// A text, and what was made of it beforehand.
#[derive(Debug, Clone)]
pub struct Text {
    /// Markdown, as it was typed.
    body: String,
    /// The same as HTML.
    html: String,
    /// The accounts that it names.
    mentions: Vec<AccountId>,
}

impl Text {
    /// Renders the body, which takes long for a long one, and keeps the accounts that it names.
    #[must_use]
    pub fn new(body: String, mentions: Vec<AccountId>) -> Self {
        Self { html: markdown::render(&body), body, mentions }
    }
}

/// A message to be sent.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Who sends it.
    pub author: AccountId,
    /// What it says.
    pub text: Text,
    /// The client's own id of it.
    pub client_id: Option<String>,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// The message whose thread it is in.
    pub thread: Option<MessageId>,
    /// What tells it apart from other messages of the same time.
    pub random: u64,
}

/// What became of a draft.
#[derive(Debug, Clone)]
pub enum Posted {
    /// It was sent.
    New(Arc<Message>),
    /// Nothing is written: the author's `client_id` stands for this message already, which takes long to show.
    Known(MessageId),
}

impl Posted {
    /// The message's id.
    #[must_use]
    pub fn id(&self) -> MessageId {
        match self {
            Self::New(message) => message.id,
            Self::Known(id) => *id,
        }
    }
}

/// Sends a message, unless the author's `client_id` stands for one already.
///
/// # Errors
/// When the author is no member, or a message that is referred to is not there.
pub fn send(batch: &mut Batch<'_>, space: SpaceId, draft: Draft) -> Result<Posted, Problem> {
    let Draft { author, text: Text { body, html, mentions }, client_id, .. } = draft;
    let db = batch.connection();
    spaces::require_member(db, space, author)?;
    let mut alone = true;
    if let Some(client_id) = &client_id
        && let Some(id) = store::sent(db, space, author, client_id)?
    {
        if store::row(db, space, id)?.is_some() {
            return Ok(Posted::Known(id));
        }
        alone = false;
    }
    let reply_to = referred(db, space, draft.reply_to)?;
    let thread = referred(db, space, draft.thread)?;
    let id = MessageId::from_stamp(batch.stamp(), draft.random);
    let sent = Sent { author, erased: false, body, client_id, reply_to, thread, mentions };
    // A purge may be of messages that are yet to come.
    alone &= !store::purges(batch.connection(), space)?.iter().any(|purge| purge.covers(id));
    if alone {
        return Ok(Posted::New(facts::send_noted(batch, space, id, sent, html)));
    }
    facts::send(batch, space, id, &sent);
    Ok(Posted::New(Arc::new(Message::fresh(space, id, sent, Some(html)))))
}

/// A message that another one refers to must be there.
fn referred(db: &Connection, space: SpaceId, id: Option<MessageId>) -> Result<Option<MessageId>, Problem> {
    match id {
        Some(id) => store::canonical(db, space, id)?.map(Some).ok_or_else(rules::no_message),
        None => Ok(None),
    }
}

/// Changes the text of `by`'s own message.
///
/// # Errors
/// When it is somebody else's, deleted or unknown, or `by` is no member.
pub fn edit(
    batch: &mut Batch<'_>,
    space: SpaceId,
    message: MessageId,
    by: AccountId,
    text: Text,
) -> Result<Message, Problem> {
    let db = batch.connection();
    spaces::require_member(db, space, by)?;
    let now = resource::unrendered(db, space, message)?.ok_or_else(rules::no_message)?;
    if now.author != by {
        return Err(Problem::forbidden("only its author may change a message"));
    }
    if now.deleted {
        return Err(rules::deleted());
    }
    let Text { body, html, mentions } = text;
    if now.body == body {
        return Ok(Message { html: Some(html), ..now });
    }
    let revision = Revision::Edited { by, body: body.clone(), mentions: mentions.clone() };
    let at = facts::revise(batch, space, now.id, &revision);
    Ok(Message { body, html: Some(html), mentions, edited_at: Some(timestamp::rfc3339(at)), ..now })
}

/// Deletes a message, for its author, an owner or an admin.
///
/// # Errors
/// When `by` may not, or the message is unknown.
pub fn delete(
    batch: &mut Batch<'_>,
    space: SpaceId,
    message: MessageId,
    by: AccountId,
) -> Result<(), Problem> {
    let db = batch.connection();
    let role = spaces::require_role(db, space, by)?;
    let id = store::canonical(db, space, message)?.ok_or_else(rules::no_message)?;
    let sent = store::row(db, space, id)?.ok_or_else(rules::no_message)?;
    if sent.author != by && role < Role::Admin {
        return Err(Problem::forbidden("only its author, an owner or an admin may delete a message"));
    }
    if !sent.erased {
        let duplicates = store::duplicates_of(db, space, id)?;
        facts::delete(batch, space, id, &sent, by)?;
        for duplicate in duplicates {
            if let Some(sent) = store::row(batch.connection(), space, duplicate)? {
                facts::delete(batch, space, duplicate, &sent, by)?;
            }
        }
    }
    Ok(())
}

/// Puts a reaction to a message.
///
/// # Errors
/// When the message is deleted or unknown, `account` is no member, or has too many reactions on it.
pub fn react(
    batch: &mut Batch<'_>,
    space: SpaceId,
    message: MessageId,
    account: AccountId,
    emoji: &str,
) -> Result<(), Problem> {
    let db = batch.connection();
    spaces::require_member(db, space, account)?;
    let message = resource::unrendered(db, space, message)?.ok_or_else(rules::no_message)?;
    if message.deleted {
        return Err(rules::deleted());
    }
    if store::has_reaction(db, space, message.id, account, emoji)? {
        return Ok(());
    }
    if store::reactions_by(db, space, message.id, account)? >= rules::MAX_REACTIONS {
        return Err(Problem::conflict(format!(
            "an account can have {} reactions on a message",
            rules::MAX_REACTIONS
        )));
    }
    facts::react(batch, space, message.id, account, emoji, true);
    Ok(())
}

/// Takes a reaction away.
///
/// # Errors
/// When the message is unknown or `account` is no member.
pub fn unreact(
    batch: &mut Batch<'_>,
    space: SpaceId,
    message: MessageId,
    account: AccountId,
    emoji: &str,
) -> Result<(), Problem> {
    let db = batch.connection();
    spaces::require_member(db, space, account)?;
    let id = store::canonical(db, space, message)?.ok_or_else(rules::no_message)?;
    if store::has_reaction(db, space, id, account, emoji)? {
        facts::react(batch, space, id, account, emoji, false);
    }
    Ok(())
}
