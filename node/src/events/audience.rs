//! The accounts that have streams open here, and their sessions: the only ones whose membership matters to the hub.
//!
//! Shared between the hub, which reads rows on their behalf, and the streams that come and go meanwhile: a copy for each
//! batch of commits would cost more than the batch while thousands of clients arrive.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use crate::ids::{AccountId, SessionId};

/// An account's sessions with the number of streams of each; nearly always one.
#[derive(Debug)]
enum Sessions {
    One(SessionId, u32),
    Many(Vec<(SessionId, u32)>),
}

/// Who has streams open.
#[derive(Debug, Default)]
pub struct Audience {
    accounts: RwLock<HashMap<AccountId, Sessions>>,
}

impl Audience {
    /// Whether the account has a stream open.
    pub fn contains(&self, account: AccountId) -> bool {
        self.read().contains_key(&account)
    }

    /// The sessions under which the account has streams open.
    pub fn sessions(&self, account: AccountId) -> Vec<SessionId> {
        match self.read().get(&account) {
            None => Vec::new(),
            Some(Sessions::One(session, _)) => vec![*session],
            Some(Sessions::Many(sessions)) => sessions.iter().map(|(session, _)| *session).collect(),
        }
    }

    /// Counts a stream in.
    pub fn enter(&self, account: AccountId, session: SessionId) {
        let mut accounts = self.write();
        let Some(sessions) = accounts.get_mut(&account) else {
            accounts.insert(account, Sessions::One(session, 1));
            return;
        };
        match sessions {
            Sessions::One(only, streams) if *only == session => *streams += 1,
            Sessions::One(other, streams) => {
                *sessions = Sessions::Many(vec![(*other, *streams), (session, 1)]);
            }
            Sessions::Many(many) => match many.iter_mut().find(|(known, _)| *known == session) {
                Some((_, streams)) => *streams += 1,
                None => many.push((session, 1)),
            },
        }
    }

    /// Counts a stream out.
    pub fn leave(&self, account: AccountId, session: SessionId) {
        let mut accounts = self.write();
        let Some(sessions) = accounts.get_mut(&account) else { return };
        let nobody_left = match sessions {
            Sessions::One(only, streams) => {
                *streams -= u32::from(*only == session && *streams > 0);
                *streams == 0
            }
            Sessions::Many(many) => {
                if let Some((_, streams)) = many.iter_mut().find(|(known, _)| *known == session) {
                    *streams -= 1;
                }
                many.retain(|(_, streams)| *streams > 0);
                many.is_empty()
            }
        };
        if nobody_left {
            accounts.remove(&account);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<AccountId, Sessions>> {
        self.accounts.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<AccountId, Sessions>> {
        self.accounts.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_session_counts_until_its_last_stream_has_left() {
        let audience = Audience::default();
        let (ada, one, two) =
            (AccountId(Uuid::from_u128(1)), SessionId(Uuid::from_u128(2)), SessionId(Uuid::from_u128(3)));
        for session in [one, one, two, two] {
            audience.enter(ada, session);
        }
        audience.leave(ada, one);
        assert_eq!(audience.sessions(ada), [one, two]);
        audience.leave(ada, one);
        assert_eq!(audience.sessions(ada), [two]);
        audience.leave(ada, two);
        assert!(audience.contains(ada));
        audience.leave(ada, two);
        assert!(!audience.contains(ada) && audience.sessions(ada).is_empty());
        audience.leave(ada, two);
    }
}
