//! Whose streams come and go: for whoever has to know who is there.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::ids::AccountId;

/// Accounts that have opened a stream, lost their last one, or whose spaces are others, since this was last asked. It
/// says that something changed and not what, so however much happens to an account, it is here once.
#[derive(Debug, Default)]
pub struct Comings {
    accounts: Mutex<BTreeSet<AccountId>>,
    some: Notify,
}

impl Comings {
    /// Something has changed for an account.
    pub fn note(&self, account: AccountId) {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).insert(account);
        self.some.notify_one();
    }

    /// Waits until there is something to take.
    pub async fn changed(&self) {
        self.some.notified().await;
    }

    /// Takes up to `most` accounts.
    #[must_use]
    pub fn take(&self, most: usize) -> Vec<AccountId> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = std::iter::from_fn(|| accounts.pop_first()).take(most).collect();
        if !accounts.is_empty() {
            self.some.notify_one();
        }
        taken
    }
}
