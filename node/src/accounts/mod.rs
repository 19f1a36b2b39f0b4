//! Accounts: who people are, how they prove it, and in which sessions they are signed in.
//!
//! ```text
//! http.rs, sessions/http.rs ─▶ rules.rs (what is allowed) ─▶ store.rs (rows) ─▶ replication
//!                                                              │
//!                 local_account ◀── store.rs, derive ◀─────────┘ (rows of this and other nodes)
//! ```
//!
//! An account is a write-once row `account`, and a stamped fact for each thing that was stated about it since
//! (`account_fact`); the latest fact of a field counts. E-mail addresses and handles are unique by claims (see
//! [`crate::claims`]): an account shows them only while it owns the claim. That an account is erased is final, whatever
//! arrives after it. From all this each node derives `local_account`, a table of profiles as they are now.

pub mod closing;
mod export;
pub mod http;
pub mod password;
pub mod preferences;
mod rules;
pub mod sessions;
pub mod standings;
mod store;
pub mod throttle;

#[cfg(test)]
mod tests;

pub use export::Exports;
pub use sessions::{Standing, standing};
pub use standings::Standings;
pub use store::{
    Account, MIGRATIONS, PublicAccount, blank, by_handle, can_sign_in, derive, event_of, exists, is_active,
    is_state, profile, public_profile,
};

pub(crate) use http::free_handle;
pub(crate) use rules::name as check_name;
pub(crate) use store::found_imported;

/// The kind of a claim on an e-mail address.
pub(crate) const EMAIL: &str = "email";
/// The kind of a claim on a handle.
pub(crate) const HANDLE: &str = "handle";
