//! What a reader has not seen: read marks and the unread counts that follow from them.
//!
//! A **read mark** says up to which message an account has read a space. It is a register per site (`read_mark`):
//! each site overwrites only its own, and the mark that holds is the largest message over all sites, since nobody
//! un-reads. The local table `local_read` has it.
//!
//! The **unread count** of a space is counted when it is asked for, from the history behind the mark: messages of
//! others that are not deleted, among the latest [`UNREAD_WITHIN`]. Who has read nothing yet starts at the moment of
//! joining.

mod event;
pub mod http;
mod store;

#[cfg(test)]
mod tests;

pub use event::event_of;
pub use http::routes;
pub use store::{MIGRATIONS, UNREAD_WITHIN, derive, heard_by, mark, unread};

/// What the convergence test of messages states about read marks.
#[cfg(test)]
pub(crate) mod testing {
    use mychat_replication::store::Batch;

    use crate::ids::{AccountId, MessageId, SpaceId};

    pub fn read(
        batch: &mut Batch<'_>,
        account: AccountId,
        space: SpaceId,
        message: MessageId,
    ) -> rusqlite::Result<bool> {
        super::store::read(batch, account, space, message)
    }
}
