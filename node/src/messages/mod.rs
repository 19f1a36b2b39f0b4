//! Messages: what people write into spaces, how it is changed, taken back and reacted to, and the history of it.
//!
//! Four replicated tables hold what was stated (`facts`):
//!
//! - `message`, one **write-once row** per message, keyed by space and id. Ids sort by the time of sending, so this
//!   table is the history, read by ranges of its primary key (`history`); nothing is stored twice.
//! - `message_revision`, a **stamped fact** per edit or deletion of one message.
//! - `reaction`, a stamped fact each time somebody puts a reaction to a message or takes it away.
//! - `message_purge`, a fact per governance deletion of a range of time.
//!
//! What follows from them is kept in local tables (`store`), by rules that give the same on every node:
//!
//! - Of several edits the one with the latest stamp holds; of equal stamps that of the larger site id. The same goes
//!   for each reaction of each account.
//! - A deletion is final, whatever was edited before or after. It overwrites the message with its **tombstone**,
//!   which is the message without what was said: the same bytes whichever node writes it, so that nodes which delete
//!   the same message at once can't disagree. Its edits are overwritten as well.
//! - A `client_id` that an author used for several messages of a space, at nodes that did not know of each other's,
//!   is one message: the one with the smallest id. The others count as its **duplicates**; they are left out
//!   everywhere, and whoever asks for one by its id gets the message itself.
//! - A purge covers all messages that were sent in its range before it, by the stamps of both, also those that reach a
//!   node only after it.

pub mod call;
mod event;
mod export;
mod facts;
mod history;
pub mod http;
mod import;
mod leftovers;
mod markdown;
mod mention;
mod purge;
mod resource;
mod rules;
mod store;

#[cfg(test)]
pub(crate) mod tests;

pub use event::{event_noted, event_of};
pub use export::{reactions, written};
pub use http::routes;
pub use import::import;
pub use leftovers::overwrite_deleted;
pub use purge::{overwrite_purged, purged_by};
pub use resource::{Message, blank, last, resource};
pub use rules::MAX_BODY;
pub use store::{MIGRATIONS, canonical, derive, heard_in, unread_after};
