//! What happens, as clients hear of it: one stream an account and device, resumable at any node.
//!
//! ```text
//! commit ─▶ steps (rows → events, memberships, ended sessions) ─▶ hub ─▶ a queue per stream ─▶ its connection
//! log ────▶ backlog (the same steps, for what a client has missed) ───────────────────────▶ the same
//! ```
//!
//! The [`Hub`] takes each commit of the store in turn, whether its rows were written here or came from another node,
//! and makes [`Event`]s of them. An event is encoded once, with the [`Cursor`] of a client that has seen everything up
//! to it, and the same bytes are queued for every stream that may see it by the membership that this node holds at
//! that moment (invariant I6). A client that comes with a cursor, from this node or another, is registered first and
//! then gets what the logs have between its cursor and that point (I5): no gap, and nothing twice, but for what it may not
//! show any more since it was at a node that lacked it (`cursor/doubts.rs`).

mod audience;
mod backlog;
mod comings;
mod cursor;
mod desk;
mod goodbye;
pub mod handover;
pub mod http;
mod hub;
mod opened;
mod poll;
mod queue;
mod reactor;
mod recent;
mod state;
mod steps;
mod stream;
pub mod turns;

#[cfg(test)]
pub(crate) mod tests;

use std::{collections::BTreeSet, sync::Arc};

use mychat_replication::{clock::Stamp, log::SiteId};

pub use comings::Comings;
pub use cursor::{Cursor, Cursors, Retired, SitePrefix, Unreadable};
pub use desk::{Desk, Reader};
pub use hub::Hub;
pub use queue::{Item, QUEUE_BYTES};

use crate::ids::{AccountId, SpaceId};

/// Something that happened and whom it concerns.
#[derive(Debug, Clone)]
pub struct Event {
    /// The type, as in `message.created`.
    pub kind: &'static str,
    /// The space whose members hear of it.
    pub space: Option<SpaceId>,
    /// The space that it is about, where only the accounts hear of it.
    pub about: Option<SpaceId>,
    /// Accounts that hear of it besides.
    pub accounts: Vec<AccountId>,
    /// When it happened: the order of sending.
    pub at: Stamp,
    /// The event's data.
    pub data: serde_json::Value,
    /// What it is to a client that has heard of its row before, if that is in doubt: what says how something is now has to be
    /// said again once the client may have been told something older.
    pub anew: Option<&'static str>,
}

/// The spaces that a stream is about, where its client has named some: sorted, in one piece of memory, since a stream keeps
/// it for as long as it is open.
pub type Only = Arc<[SpaceId]>;

/// What the event of a site's version, at its place in that, is to a client; `None` if the client is not told.
fn told_as(event: &Event, cursor: &Cursor, place: (SiteId, u64, u32)) -> Option<&'static str> {
    let (site, version, sequence) = (cursor::prefix(place.0), place.1, place.2);
    match cursor.has_seen(site, version, sequence) {
        false => Some(event.kind),
        true if cursor.doubts(site, version) => event.anew,
        true => None,
    }
}

/// Whether an account that is a member of `spaces` hears of an event on a stream for the spaces `only`.
fn sees(event: &Event, account: AccountId, spaces: &BTreeSet<SpaceId>, only: Option<&[SpaceId]>) -> bool {
    let hears = event.accounts.contains(&account) || event.space.is_some_and(|space| spaces.contains(&space));
    let wants = |space| only.is_none_or(|only| only.binary_search(&space).is_ok());
    hears && event.space.or(event.about).is_none_or(wants)
}
