//! What is stated about messages: the packed rows of the replicated tables, and how they are written.

use std::sync::Arc;

use mychat_replication::{clock::Stamp, store::Batch};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::{event::Fresh, history::Span, resource::Message};
use crate::{
    ids::{AccountId, At, MessageId, SpaceId},
    packed,
};

/// `data` of `message`.
///
/// The first two fields have fixed places in the packed bytes, where SQL looks for them: see [`AUTHOR_SQL`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    pub author: AccountId,
    /// Whether this is a tombstone.
    pub erased: bool,
    pub body: String,
    pub client_id: Option<String>,
    pub reply_to: Option<MessageId>,
    pub thread: Option<MessageId>,
    pub mentions: Vec<AccountId>,
}

/// The author in a packed message: after the format byte and the length of an id.
pub(super) const AUTHOR_SQL: &str = "substr(data, 3, 16)";
/// What a packed message has in place of `erased` while it is none: the byte after the author.
pub(super) const PRESENT_SQL: &str = "substr(data, 19, 1) = x'00'";

/// What a packed revision begins with while it is an edit that has its text: the byte after the format's.
pub(super) const EDITED_SQL: &str = "substr(data, 2, 1) = x'00'";

impl Sent {
    /// What is left of the message when it is deleted: who sent it when and in answer to what, but not what it said.
    pub fn tombstone(&self) -> Self {
        Self { erased: true, body: String::new(), mentions: Vec::new(), ..self.clone() }
    }
}

/// `data` of `message_revision`. Packed rows hold the position of a variant: new ones go to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Revision {
    Edited {
        by: AccountId,
        body: String,
        mentions: Vec<AccountId>,
    },
    Deleted {
        by: AccountId,
    },
    /// An edit of a message that was deleted.
    Erased {
        by: AccountId,
    },
}

/// `data` of `reaction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reaction {
    pub on: bool,
}

/// `data` of `message_purge`: messages sent from `since` on and before `until`, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Purge {
    pub by: AccountId,
    pub since: u64,
    pub until: u64,
}

/// A purge, and when and where it was stated.
#[derive(Debug, Clone, Copy)]
pub(super) struct PurgeFact {
    pub at: At,
    pub purge: Purge,
}

impl PurgeFact {
    /// Whether it takes a message away. The whole stamps decide of what was sent in one millisecond: a clock that another
    /// node's has pulled ahead stands in one for long, and what is sent after the purge is not meant.
    pub fn covers(&self, message: MessageId) -> bool {
        let Purge { since, until, .. } = self.purge;
        (since..until).contains(&message.stamp().millis()) && message.stamp() < self.at.stamp
    }

    /// The messages that it covers.
    pub fn span(&self) -> Span {
        let Purge { since, until, .. } = self.purge;
        Span::of(Some(since), Some(until)).before(MessageId::from_stamp(self.at.stamp, 0))
    }
}

/// Writes a message.
pub(super) fn send(batch: &mut Batch<'_>, space: SpaceId, id: MessageId, sent: &Sent) {
    batch.insert("message", vec![space.value(), id.value()], packed::encode(sent));
    #[cfg(feature = "next")]
    crate::next::note(batch, space, id, &sent.body);
}

/// Writes a message that nothing else that is held says anything about, and notes for its event how it is shown.
pub(super) fn send_noted(
    batch: &mut Batch<'_>,
    space: SpaceId,
    id: MessageId,
    sent: Sent,
    html: String,
) -> Arc<Message> {
    batch.insert("message", vec![space.value(), id.value()], packed::encode(&sent));
    let message = Arc::new(Message::fresh(space, id, sent, Some(html)));
    batch.note(Fresh(Arc::clone(&message)));
    #[cfg(feature = "next")]
    crate::next::note(batch, space, id, &message.body);
    message
}

/// States a revision and gives its time.
pub(super) fn revise(batch: &mut Batch<'_>, space: SpaceId, id: MessageId, revision: &Revision) -> Stamp {
    let at = At { stamp: batch.stamp(), site: batch.site() };
    let key = vec![space.value(), id.value(), at.value()];
    batch.insert("message_revision", key, packed::encode(revision));
    at.stamp
}

/// Deletes a message: the fact, the tombstone in place of the message, and the same for its edits.
pub(super) fn delete(
    batch: &mut Batch<'_>,
    space: SpaceId,
    id: MessageId,
    sent: &Sent,
    by: AccountId,
) -> rusqlite::Result<()> {
    // The fact comes first, so that no node ever sees an erased edit of a message that is not deleted.
    revise(batch, space, id, &Revision::Deleted { by });
    erase(batch, space, id, Some(sent))
}

/// Puts the tombstone in place of a message that is deleted, where `sent` is still there, and the same for its edits.
pub(super) fn erase(
    batch: &mut Batch<'_>,
    space: SpaceId,
    id: MessageId,
    sent: Option<&Sent>,
) -> rusqlite::Result<()> {
    if let Some(sent) = sent {
        batch.set("message", vec![space.value(), id.value()], Some(packed::encode(&sent.tombstone())));
    }
    for (at, editor) in edits(batch.connection(), space, id)? {
        let key = vec![space.value(), id.value(), at.value()];
        batch.set("message_revision", key, Some(packed::encode(&Revision::Erased { by: editor })));
    }
    Ok(())
}

/// The edits of a message that still have their text: when, and by whom.
fn edits(db: &Connection, space: SpaceId, id: MessageId) -> rusqlite::Result<Vec<(At, AccountId)>> {
    let mut edits = Vec::new();
    let mut rows =
        db.prepare_cached("SELECT stamp, data FROM message_revision WHERE space = ?1 AND message = ?2")?;
    let mut rows = rows.query((space, id))?;
    while let Some(row) = rows.next()? {
        let (at, data): (Vec<u8>, Option<Vec<u8>>) = (row.get(0)?, row.get(1)?);
        if let (Some(at), Some(Revision::Edited { by, .. })) =
            (At::from_slice(&at), data.as_deref().and_then(packed::decode))
        {
            edits.push((at, by));
        }
    }
    Ok(edits)
}

/// States whether an account's reaction stands.
pub(super) fn react(
    batch: &mut Batch<'_>,
    space: SpaceId,
    id: MessageId,
    account: AccountId,
    emoji: &str,
    on: bool,
) {
    let at = At { stamp: batch.stamp(), site: batch.site() };
    let key = vec![space.value(), id.value(), account.value(), emoji.into(), at.value()];
    #[cfg(not(feature = "next"))]
    let data = packed::encode(&Reaction { on });
    #[cfg(feature = "next")]
    let data = packed::encode_next(&Reaction { on });
    batch.insert("reaction", key, data);
}

/// States a purge.
pub(super) fn purge(batch: &mut Batch<'_>, space: SpaceId, purge: Purge) {
    let at = At { stamp: batch.stamp(), site: batch.site() };
    batch.insert("message_purge", vec![space.value(), at.value()], packed::encode(&purge));
}
