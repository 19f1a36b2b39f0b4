//! Everything that is held on an account, as one JSON document that is written while it is read: what somebody has said
//! in years need not be in memory at once.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::body::{Body, Bytes};
use futures_util::{StreamExt, stream};
use mychat_replication::store::Store;
use serde_json::json;

use super::{preferences, profile, sessions};
use crate::{
    http::{Caller, Problem, json_text},
    ids::{AccountId, MessageId, SpaceId},
    messages, notifications, spaces,
};

/// After how many seconds to ask again.
const RETRY_AFTER: u32 = 5;

/// The accounts that get theirs at the moment: one document each, since it takes many reads, and a client that stops to
/// read keeps its own waiting and nobody else's.
#[derive(Debug, Default)]
pub struct Exports(Arc<Mutex<HashSet<AccountId>>>);

/// An account's turn, which ends with this.
struct Turn {
    account: AccountId,
    turns: Arc<Mutex<HashSet<AccountId>>>,
}

impl Exports {
    fn begin(&self, account: AccountId) -> Option<Turn> {
        let turns = Arc::clone(&self.0);
        let is_first = entries(&turns).insert(account);
        is_first.then_some(Turn { account, turns })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        entries(&self.turns).remove(&self.account);
    }
}

fn entries(turns: &Mutex<HashSet<AccountId>>) -> MutexGuard<'_, HashSet<AccountId>> {
    turns.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is left to write.
struct Export {
    store: Store,
    account: AccountId,
    /// Ends when all is written, or nobody reads on.
    _turn: Turn,
    part: Part,
    /// Where its spaces are left.
    spaces: VecDeque<SpaceId>,
    after: Option<MessageId>,
    all: Vec<SpaceId>,
    /// Whether the list of this part has items already.
    some: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Messages,
    Reactions,
    End,
}

/// The document. The beginning is read before this returns; an error later breaks the answer off.
pub(super) async fn document(exports: &Exports, store: &Store, caller: Caller) -> Result<Body, Problem> {
    let Caller { account, session } = caller;
    let turn = exports
        .begin(account)
        .ok_or_else(|| Problem::rate_limited("an export of this account is under way", RETRY_AFTER))?;
    let (head, all) = store
        .read(move |db| {
            let spaces = spaces::spaces_of(db, account)?;
            let mut memberships = Vec::new();
            for space in &spaces {
                let (role, read) =
                    (spaces::role(db, *space, account)?, notifications::mark(db, account, *space)?);
                memberships.push(json!({ "space": space, "role": role, "read": read }));
            }
            let head = json!({
                "account": profile(db, account)?,
                "preferences": preferences::current(db, account)?,
                "sessions": sessions::list(db, account, session)?,
                "spaces": spaces,
                "memberships": memberships,
            });
            Ok::<_, Problem>((head.to_string(), spaces::ever_of(db, account)?))
        })
        .await?;
    let head = format!("{},\"messages\":[", head.strip_suffix('}').unwrap_or(&head));
    let export = Export {
        store: store.clone(),
        account,
        _turn: turn,
        part: Part::Messages,
        spaces: all.iter().copied().collect(),
        after: None,
        all,
        some: false,
    };
    let rest = stream::try_unfold(export, |export| async move { export.next().await });
    let head = stream::once(async { Ok(Bytes::from(head)) });
    Ok(Body::from_stream(head.chain(rest)))
}

impl Export {
    /// The next bytes; `None` after the last.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Problem> {
        if self.part == Part::End {
            return Ok(None);
        }
        let Some(space) = self.spaces.front().copied() else {
            let (part, bytes) = match self.part {
                Part::Messages => (Part::Reactions, "],\"reactions\":["),
                Part::Reactions | Part::End => (Part::End, "]}"),
            };
            (self.part, self.spaces, self.some) = (part, self.all.iter().copied().collect(), false);
            return Ok(Some((Bytes::from_static(bytes.as_bytes()), self)));
        };
        let (part, account, after) = (self.part, self.account, self.after);
        let read = move |db: &rusqlite::Connection| {
            let mut items = Vec::new();
            let next = if part == Part::Messages {
                let (written, next) = messages::written(db, space, account, after)?;
                for message in written {
                    items.push(json_text(&message)?);
                }
                next
            } else {
                let (given, next) = messages::reactions(db, space, account, after)?;
                let item = |(message, emoji)| json!({ "space": space, "message": message, "emoji": emoji });
                items.extend(given.into_iter().map(|reaction| item(reaction).to_string()));
                next
            };
            Ok::<_, Problem>((items, next))
        };
        let (items, next) = self.store.read(read).await?;
        self.after = next;
        if next.is_none() {
            self.spaces.pop_front();
        }
        let mut bytes = String::new();
        for item in items {
            if std::mem::replace(&mut self.some, true) {
                bytes.push(',');
            }
            bytes.push_str(&item);
        }
        Ok(Some((Bytes::from(bytes), self)))
    }
}

#[cfg(test)]
mod tests {
    use mychat_replication::clock::Stamp;

    use super::*;

    #[test]
    fn an_account_has_one_turn_at_a_time() {
        let exports = Exports::default();
        let [ada, bob] = [1, 2].map(|number| AccountId::from_stamp(Stamp::default(), number));
        let first = exports.begin(ada).expect("the first");
        assert!(exports.begin(ada).is_none());
        assert!(exports.begin(bob).is_some());
        drop(first);
        assert!(exports.begin(ada).is_some());
    }
}
