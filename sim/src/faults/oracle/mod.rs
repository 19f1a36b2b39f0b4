//! The judges. They are told what happened, read the databases themselves, and share no code with what they judge: they
//! unpack keys, rows and cursors on their own.
//!
//! - [`ledger`]: every version that was ever written and what it held (I2, I3), and what was acknowledged (I1)
//! - [`audit`]: what a database really holds (I1, I3, I4)
//! - [`readers`]: what each client must and may get (I5, I6)
//!
//! Bounds (I7) are judged where things are queued: in `virtual_time/streams.rs` and `clients.rs`.

pub mod audit;
pub mod cursor;
pub mod ledger;
pub mod readers;
pub mod rows;

pub use crate::virtual_time::Rule;

/// What a judge says: nothing, or which rule is broken and how.
pub type Verdict = Result<(), (Rule, String)>;
