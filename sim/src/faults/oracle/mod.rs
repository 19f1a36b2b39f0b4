//! The judges. They are told what happened, read the databases themselves, and share no code with what they judge: they
//! unpack keys, rows and cursors on their own.
//!
//! - [`ledger`]: every version that was ever written and what it held (I2, I3), and what was acknowledged (I1)
//! - [`audit`]: what a database really holds (I1, I3, I4)
//! - [`readers`]: what each client must and may get (I5, I6)
//!
//! Bounds (I7) are judged where things are queued: in `driver` and `clients`.

pub mod audit;
pub mod cursor;
pub mod ledger;
pub mod readers;
pub mod rows;

use super::world::Time;

/// What must hold; see the invariants in the documentation of the project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// I1: what was acknowledged is durable.
    Durable,
    /// I2: one version, one content.
    OneContent,
    /// I3: a node holds each log without a gap.
    Prefix,
    /// I4: equal vectors, equal tables.
    Convergent,
    /// I5: a client gets everything once.
    NoGap,
    /// I6: and nothing that it may not read.
    Authorised,
    /// I7: what waits is bounded.
    Bounded,
    /// Everything comes to rest once nothing fails any more.
    Level,
    /// The code itself objects.
    Panic,
}

impl Rule {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Durable => "I1 durable",
            Self::OneContent => "I2 one version, one content",
            Self::Prefix => "I3 prefix",
            Self::Convergent => "I4 convergent",
            Self::NoGap => "I5 no gap for a client",
            Self::Authorised => "I6 authorised at delivery",
            Self::Bounded => "I7 bounded",
            Self::Level => "everything comes to rest",
            Self::Panic => "no panic",
        }
    }
}

/// A rule that is broken.
#[derive(Debug, Clone)]
pub struct Objection {
    /// Which one.
    pub rule: Rule,
    /// When, in virtual time; zero when that is not known.
    pub at: Time,
    /// What exactly.
    pub what: String,
}

/// What a judge says: nothing, or which rule is broken and how.
pub type Verdict = Result<(), (Rule, String)>;
