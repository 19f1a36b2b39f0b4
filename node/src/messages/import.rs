//! Messages out of another system's logs, with their own times.

use mychat_replication::{clock::Stamp, store::Batch};
use ring::digest;

use super::{
    facts::{self, Sent},
    store,
};
use crate::ids::{AccountId, MessageId, SpaceId};

/// Writes a message that was sent at `at` elsewhere, and says whether it is new.
///
/// Its id is computed from all that identifies it, so importing it again, at any node, changes nothing. Messages of
/// the same millisecond keep their order if their stamps differ in the counter. The body is taken as it is.
///
/// # Errors
/// What SQLite says.
pub fn import(
    batch: &mut Batch<'_>,
    space: SpaceId,
    author: AccountId,
    at: Stamp,
    body: String,
    client_id: String,
) -> rusqlite::Result<bool> {
    if store::sent(batch.connection(), space, author, &client_id)?.is_some() {
        return Ok(false);
    }
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in [&space.bytes()[..], &author.bytes()[..], client_id.as_bytes()] {
        hash.update(part);
    }
    let mut random = [0; 8];
    random.copy_from_slice(&hash.finish().as_ref()[..8]);
    let id = MessageId::from_stamp(at, u64::from_be_bytes(random));
    let sent = Sent {
        author,
        erased: false,
        body,
        client_id: Some(client_id),
        reply_to: None,
        thread: None,
        mentions: Vec::new(),
    };
    facts::send(batch, space, id, &sent);
    Ok(true)
}
