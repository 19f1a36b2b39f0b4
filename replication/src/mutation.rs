//! Deliberate faults in the code itself, one for each invariant: a simulation whose oracles overlook one of them would
//! overlook a mistake as well.
//!
//! Only with the feature `mutations`, which no program that is shipped has, can one be switched on, for the calling
//! thread alone. Without it [`is_on`] is a constant and nothing of this is left in the program.

/// A fault in the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// I1: a job is answered before its commit.
    AnswerBeforeCommit,
    /// I1: a node says that it has on its disk whatever it holds.
    ClaimUnsynced,
    /// I2: a node that starts takes writes without asking anybody what is known of its log.
    ReuseVersion,
    /// I3: of a batch of frames one is left out, and counted as applied.
    SkipVersion,
    /// I4: the rows of some versions are derived from only where they were written.
    DeriveLess,
    /// I5: the cursor of an event is one version further than what was sent.
    CursorSkips,
    /// I6: streams keep the memberships that they were opened with.
    StaleMembership,
    /// I7: what waits for a client has no bound.
    UnboundedQueue,
}

#[cfg(feature = "mutations")]
thread_local! {
    static ON: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// Puts a fault into what this thread does from now on, or takes it out.
#[cfg(feature = "mutations")]
pub fn switch(mutation: Option<Mutation>) {
    ON.set(mutation);
}

/// Whether this thread is to make the mistake.
#[cfg(feature = "mutations")]
#[must_use]
pub fn is_on(mutation: Mutation) -> bool {
    ON.get() == Some(mutation)
}

/// Whether this thread is to make the mistake: never.
#[cfg(not(feature = "mutations"))]
#[must_use]
pub const fn is_on(_: Mutation) -> bool {
    false
}
