//! What an account has said, piece by piece: it may be very much.

use mychat_replication::log::Value;
use rusqlite::{Connection, params};

use super::{
    history::{self, Order, Span},
    resource::{Extras, Message},
    rules,
};
use crate::ids::{AccountId, MessageId, SpaceId};

/// Messages, or reactions, that one piece looks at.
const PIECE: usize = 500;
const _: () = assert!(PIECE > rules::MAX_REACTIONS as usize);

/// Some of what there is, and after which message to go on, if there is more.
pub type Piece<T> = (Vec<T>, Option<MessageId>);

/// The account's messages among the next ones of the space.
///
/// # Errors
/// What SQLite says.
pub fn written(
    db: &Connection,
    space: SpaceId,
    author: AccountId,
    after: Option<MessageId>,
) -> rusqlite::Result<Piece<Message>> {
    let span = after.map_or(Span::ALL, |after| Span::ALL.behind(after, Order::Asc));
    let rows = history::read(db, space, span, Order::Asc, PIECE)?;
    let (Some((first, _)), Some((last, _))) = (rows.first(), rows.last()) else {
        return Ok((Vec::new(), None));
    };
    let next = (rows.len() == PIECE).then_some(*last);
    let mut extras = Extras::read(db, space, *first, *last)?;
    let own =
        rows.into_iter().filter_map(|(id, sent)| Some((id, sent.filter(|sent| sent.author == author)?)));
    Ok((own.map(|(id, sent)| extras.complete(space, id, sent)).collect(), next))
}

/// The account's next reactions in the space.
///
/// # Errors
/// What SQLite says.
pub fn reactions(
    db: &Connection,
    space: SpaceId,
    account: AccountId,
    after: Option<MessageId>,
) -> rusqlite::Result<Piece<(MessageId, String)>> {
    let after = after.map_or_else(|| Value::Blob(Vec::new()), MessageId::value);
    let mut found: Vec<(MessageId, String)> = db
        .prepare_cached(
            "SELECT message, emoji FROM local_reaction WHERE space = ?1 AND message > ?2 AND account = ?3
             ORDER BY message LIMIT ?4",
        )?
        .query_map(params![space, after, account, PIECE as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    if found.len() < PIECE {
        return Ok((found, None));
    }
    // Of the last message there may be more; the next piece has them all.
    let cut = found.last().map(|(last, _)| *last);
    found.retain(|(message, _)| Some(*message) != cut);
    let next = found.last().map(|(last, _)| *last);
    Ok((found, next))
}
