//! How far a node has got in coming to hold what the others hold, and whether it may say that it is ready.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::plan::Peer;
use crate::{NodeId, protocol::Now};

/// Versions that a node may lack and still be called ready: what a busy cluster writes in a fraction of a second.
const NEAR: u64 = 500;
/// How long it must lack no more than that before a later backlog does not make it unready again.
const CALM: Duration = Duration::from_secs(2);

/// What a node does about what it lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SyncState {
    /// It holds what its peers hold, but for what is on its way.
    #[default]
    Live,
    /// It gets what it lacks from the logs.
    CatchingUp,
    /// It gets a snapshot.
    Snapshot,
}

impl SyncState {
    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::CatchingUp => "catching_up",
            Self::Snapshot => "snapshot",
        }
    }
}

/// How far it has got.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SyncStatus {
    /// What it does.
    pub state: SyncState,
    /// How much of it is done, in percent; `None` when live.
    pub percent: Option<f64>,
    /// The peer that it gets the snapshot from, or lacks most of.
    pub from: Option<NodeId>,
}

/// Whether the node has caught up with its peers.
#[derive(Debug, Default)]
pub struct Standing {
    near_since: Option<Now>,
    caught_up: bool,
    near: bool,
    /// The most that was missing since it was last near.
    worst: u64,
    furthest: Option<(NodeId, u64)>,
}

impl Standing {
    /// Looks at the connected peers that have said what they hold.
    pub fn look(&mut self, peers: &[Peer], now: Now) {
        self.furthest =
            peers.iter().max_by_key(|peer| (peer.behind, peer.node)).map(|peer| (peer.node, peer.behind));
        let behind = self.furthest.map_or(0, |(_, behind)| behind);
        self.near = behind <= NEAR;
        if !self.near {
            self.near_since = None;
            self.worst = self.worst.max(behind);
            return;
        }
        self.worst = 0;
        if peers.is_empty() {
            // Nobody has said anything: good enough to serve, but they may come.
            self.near_since = None;
            return;
        }
        self.caught_up |= now >= *self.near_since.get_or_insert(now) + CALM;
    }

    /// Whether it held, for a while, what its peers hold: what comes later is everyday business.
    pub fn caught_up(&self) -> bool {
        self.caught_up
    }

    /// Whether clients would find here what they find elsewhere.
    pub fn is_ready(&self) -> bool {
        self.caught_up || self.near
    }

    /// How far catching up by the logs has got.
    pub fn status(&self) -> SyncStatus {
        match self.furthest {
            Some((from, behind)) if !self.near => {
                let done = self.worst.saturating_sub(behind) as f64 / self.worst.max(1) as f64;
                SyncStatus {
                    state: SyncState::CatchingUp,
                    percent: Some(rounded(100.0 * done)),
                    from: Some(from),
                }
            }
            _ => SyncStatus::default(),
        }
    }
}

/// What a transfer is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// A peer is looked for.
    #[default]
    Choosing,
    /// The peer makes the snapshot.
    Preparing,
    /// The bytes come.
    Receiving,
    /// They are checked, unpacked and put in place.
    Checking,
}

/// How far the transfer of a snapshot has got; told by its task, read by whoever reports.
#[derive(Debug, Default)]
pub struct Transfer {
    at: Mutex<(Stage, u64, u64)>,
}

impl Transfer {
    /// Says that `done` of `total` are done in this stage.
    pub fn set(&self, stage: Stage, done: u64, total: u64) {
        *self.lock() = (stage, done, total);
    }

    /// In percent: the making and the checking are a tenth of it each.
    pub fn percent(&self) -> f64 {
        let (stage, done, total) = *self.lock();
        let share = if total == 0 { 0.0 } else { done as f64 / total as f64 };
        rounded(match stage {
            Stage::Choosing => 0.0,
            Stage::Preparing => 10.0 * share,
            Stage::Receiving => 10.0 + 80.0 * share,
            Stage::Checking => 90.0 + 10.0 * share,
        })
    }

    fn lock(&self) -> MutexGuard<'_, (Stage, u64, u64)> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rounded(percent: f64) -> f64 {
    (percent * 10.0).floor() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(behind: u64) -> [Peer; 1] {
        [Peer { node: NodeId([1; 16]), rtt: Duration::ZERO, behind, covers: true }]
    }

    fn at(millis: u64) -> Now {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_node_is_ready_when_it_lacks_little_and_stays_so_once_that_has_lasted() {
        let mut standing = Standing::default();
        standing.look(&[], at(0));
        assert!(standing.is_ready(), "nobody to compare with");
        standing.look(&peers(10_000), at(100));
        assert!(!standing.is_ready(), "now there is");
        assert_eq!(standing.status().state, SyncState::CatchingUp);
        standing.look(&peers(2500), at(200));
        assert_eq!(standing.status().percent, Some(75.0));
        assert_eq!(standing.status().from, Some(NodeId([1; 16])));
        standing.look(&peers(NEAR), at(300));
        assert!(standing.is_ready() && !standing.caught_up());
        standing.look(&peers(NEAR + 1), at(400));
        assert!(!standing.is_ready());
        for (millis, caught_up) in [(500, false), (2400, false), (2500, true)] {
            standing.look(&peers(0), at(millis));
            assert_eq!(standing.caught_up(), caught_up, "at {millis}");
        }
        standing.look(&peers(10_000), at(3000));
        assert!(standing.is_ready(), "a backlog later on is told, but does not take it out of service");
        assert_eq!(standing.status().state, SyncState::CatchingUp);
    }

    #[test]
    fn progress_never_falls_from_stage_to_stage() {
        let transfer = Transfer::default();
        let mut last = transfer.percent();
        for stage in [Stage::Preparing, Stage::Receiving, Stage::Checking] {
            for done in 0..=10 {
                transfer.set(stage, done, 10);
                assert!(transfer.percent() >= last);
                last = transfer.percent();
            }
        }
        assert!((last - 100.0).abs() < 1e-9);
    }
}
