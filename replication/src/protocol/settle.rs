//! Settling: a node that starts must not write under its old site id before it knows that nobody holds versions of that
//! site which its own disk has lost (invariant I2). Where the disk itself is in doubt, it goes on under a new site id
//! whatever they know, since readers may know more than all peers. It waits for their word all the same: until then it can't
//! tell how much it lacks of what clients have seen.

use std::time::Duration;

use super::{Action, Core, Now};
use crate::mutation::{self, Mutation};

/// After the first answer, how long the other connected peers are waited for.
const OTHERS: Duration = Duration::from_millis(300);
/// After how long without any answer the node goes on under a new site id, which is always safe.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nobody has answered yet.
    Asking {
        since: Option<Now>,
    },
    /// Someone has; the others have until then.
    Answered {
        until: Now,
    },
    /// The site id is to be renewed, whatever the peers say.
    Doubting {
        alone: bool,
    },
    /// The site id is being renewed; whether the peers have had their say by then, or there are none.
    Renewing {
        asked: bool,
    },
    Over,
}

/// What a node that starts may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The disk is not certain to be the newest one of this node: it goes on under a new site id.
    InDoubt {
        /// The node was given nobody to ask.
        alone: bool,
    },
    /// The disk is the newest as far as the node can tell; the peers have their say all the same.
    Asking,
    /// The same, and the node was given nobody to ask.
    Alone,
}

#[derive(Debug)]
pub(super) struct Settling {
    phase: Phase,
    /// The site id was made in this start: nobody can know more of its log.
    fresh: bool,
    announced: bool,
}

impl Settling {
    pub fn new(start: Start) -> Self {
        let phase = match start {
            _ if mutation::is_on(Mutation::ReuseVersion) => Phase::Over,
            Start::Alone => Phase::Over,
            Start::Asking => Phase::Asking { since: None },
            Start::InDoubt { alone } => Phase::Doubting { alone },
        };
        Self { phase, fresh: false, announced: false }
    }

    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }
}

impl Core {
    /// Looks at whether the peers have had their say, and at the time. That one of them knows more of the own log is seen
    /// when it says so.
    pub(super) fn settle(&mut self, now: Now) {
        if self.settling.is_over() {
            self.announce_settled();
            return;
        }
        let answers = self.peers.iter().filter(|(_, peer)| peer.answered).count();
        match self.settling.phase {
            Phase::Asking { since } => {
                let since = since.unwrap_or(now);
                self.settling.phase = Phase::Asking { since: Some(since) };
                if answers > 0 {
                    self.settling.phase = Phase::Answered { until: now + OTHERS };
                    self.settle(now);
                } else if now >= since + PATIENCE && self.settling.fresh {
                    self.settling.phase = Phase::Over;
                } else if now >= since + PATIENCE {
                    // An empty log proves nothing: the disk may be a copy from before the first write.
                    tracing::warn!(
                        "no peer answers: going on under a new site id, in case this disk is behind"
                    );
                    self.lost_tail();
                }
            }
            Phase::Answered { until } if now >= until || answers == self.peers.len() => {
                self.settling.phase = Phase::Over;
            }
            Phase::Doubting { alone } => self.renew(alone),
            Phase::Answered { .. } | Phase::Renewing { .. } | Phase::Over => {}
        }
        self.announce_settled();
    }

    /// A peer knows more of our log than we do, or might.
    pub(super) fn lost_tail(&mut self) {
        if !matches!(self.settling.phase, Phase::Renewing { .. }) {
            self.renew(true);
        }
    }

    fn renew(&mut self, asked: bool) {
        self.settling.phase = Phase::Renewing { asked };
        self.settling.announced = false;
        self.actions.push(Action::RenewSite);
    }

    /// The new site id is on the disk.
    pub(super) fn settled_anew(&mut self, now: Now) {
        self.settling.fresh = true;
        self.settling.phase = match self.settling.phase {
            Phase::Renewing { asked: false } => Phase::Asking { since: Some(now) },
            _ => Phase::Over,
        };
        self.settle(now);
    }

    fn announce_settled(&mut self) {
        if self.settling.is_over() && !self.settling.announced {
            self.settling.announced = true;
            self.actions.push(Action::Settled);
        }
    }
}
