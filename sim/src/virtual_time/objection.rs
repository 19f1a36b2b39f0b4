//! The rules that worlds are judged by, and what is said when one is broken.

use super::Time;

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
