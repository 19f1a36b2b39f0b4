//! Sessions that were found good, so that not each of a client's calls has to look in the database.
//!
//! ```text
//! a row of an account ──▶ Derived, derive ──(commit)──▶ committed ──▶ forget ──▶ the writer of the row is answered
//! a call ──▶ is_good ──(no)──▶ epoch, a look at the database, remember
//! ```
//!
//! A session that ended is refused by every call that begins after the one which ended it was answered, since the store
//! tells of a commit before it answers. Between a look at the database and [`Standings::remember`] such a commit may come:
//! then the epoch is another, and nothing is remembered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mychat_replication::store::Row;

use crate::{
    generations::Generations,
    ids::{AccountId, SessionId},
};

/// Sessions in a generation, of which two are kept: some 300 KB at the most.
const GENERATION: usize = 4096;

/// Accounts from which on all sessions are forgotten, rather than each compared with as many.
const MANY: usize = 16;

/// A bounded memory of good sessions; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Standings(Arc<Mutex<Good>>);

#[derive(Debug)]
struct Good {
    sessions: Generations<(AccountId, SessionId), ()>,
    epoch: Epoch,
}

impl Default for Good {
    fn default() -> Self {
        Self { sessions: Generations::of(GENERATION), epoch: Epoch::default() }
    }
}

/// Counts what may have ended a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Epoch(u64);

impl Standings {
    /// Whether the session was found good, and nothing has happened to its account since.
    #[must_use]
    pub fn is_good(&self, account: AccountId, session: SessionId) -> bool {
        self.lock().sessions.find(&(account, session)).is_some()
    }

    /// To be asked for before a look at the database.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.lock().epoch
    }

    /// Remembers a session that was found good by a look that began in `epoch`.
    pub fn remember(&self, account: AccountId, session: SessionId, epoch: Epoch) {
        let mut good = self.lock();
        if good.epoch == epoch {
            good.sessions.insert((account, session), ());
        }
    }

    /// Forgets the sessions of these accounts.
    pub fn forget(&self, accounts: &[AccountId]) {
        if accounts.len() >= MANY {
            return self.forget_all();
        }
        let mut good = self.lock();
        good.epoch.0 += 1;
        good.sessions.retain(|(account, _)| !accounts.contains(account));
    }

    /// Forgets all.
    pub fn forget_all(&self) {
        let mut good = self.lock();
        good.epoch.0 += 1;
        good.sessions.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Good> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The account whose sessions may stand otherwise after a row ([`super::standing`] reads what is derived from these).
#[must_use]
pub fn touched(row: &Row<'_>) -> Option<AccountId> {
    matches!(row.table, "account" | "account_fact" | "session_end")
        .then(|| row.key.first().and_then(AccountId::from_value))
        .flatten()
}

#[cfg(test)]
mod tests {
    use mychat_replication::clock::Stamp;

    use super::*;

    fn account(number: u64) -> AccountId {
        AccountId::from_stamp(Stamp::from_millis(1), number)
    }

    fn session(number: u64) -> SessionId {
        SessionId::from_stamp(Stamp::from_millis(1), number)
    }

    #[test]
    fn what_happened_meanwhile_counts_more_than_a_look_before() {
        let standings = Standings::default();
        let epoch = standings.epoch();
        standings.forget(&[account(2)]);
        standings.remember(account(1), session(1), epoch);
        assert!(!standings.is_good(account(1), session(1)));
        standings.remember(account(1), session(1), standings.epoch());
        assert!(standings.is_good(account(1), session(1)));
    }

    #[test]
    fn an_account_takes_its_sessions_with_it() {
        let standings = Standings::default();
        for number in 0..4 {
            standings.remember(account(number % 2), session(number), standings.epoch());
        }
        standings.forget(&[account(1)]);
        let good = |number| standings.is_good(account(number % 2), session(number));
        assert_eq!([0, 1, 2, 3].map(good), [true, false, true, false]);
        standings.forget_all();
        assert!(!good(0) && !good(2));
    }
}
