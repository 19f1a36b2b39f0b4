//! How far a node has got in coming to hold what the others hold, and whether it may say that it is ready.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::plan::Peer;
use crate::{NodeId, log::VersionVector, protocol::Now};

/// A node is near when it holds all that its peers said they held no longer ago than this. Counted in time, since a
/// version may be one reaction or a few hundred messages.
const LAG: Duration = Duration::from_secs(2);
/// How often that is measured.
const PERIOD: Duration = Duration::from_millis(100);
/// How long it must be near before a later backlog does not make it unready again.
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
    /// What the peers held, how many they were, and when that was.
    target: Option<(VersionVector, usize, Now)>,
    near: bool,
    near_since: Option<Now>,
    caught_up: bool,
    /// The most that was missing since it was last near.
    worst: u64,
    furthest: Option<(NodeId, u64)>,
}

impl Standing {
    /// At the start; whether the node was given nobody to compare itself with.
    pub fn new(alone: bool) -> Self {
        Self { near: alone, ..Self::default() }
    }

    /// Looks at the connected peers that have said what they hold. `theirs` puts together what that is; `held` is what
    /// this node holds.
    pub fn look(
        &mut self,
        peers: &[Peer],
        theirs: impl Fn() -> VersionVector,
        held: &VersionVector,
        now: Now,
    ) {
        self.furthest =
            peers.iter().max_by_key(|peer| (peer.behind, peer.node)).map(|peer| (peer.node, peer.behind));
        if peers.is_empty() {
            // Nobody to compare with: good enough to serve, but they may come.
            *self = Self { near: true, caught_up: self.caught_up, ..Self::default() };
            return;
        }
        let target = self.target.take().filter(|(_, count, _)| *count == peers.len());
        let anew = || (theirs(), peers.len(), now);
        let (target, age) = match target {
            // A peer more may hold more: whether this node is near shows anew.
            None => {
                self.near = false;
                (anew(), Duration::ZERO)
            }
            Some(target) => {
                let age = now.saturating_sub(target.2);
                (target, age)
            }
        };
        let reached = held.covers(&target.0);
        if reached || age > LAG {
            self.near = reached && age <= LAG;
        }
        // One that was reached is followed by the next; one that is late stays, for being late.
        let next = reached && (age >= PERIOD || !self.near);
        self.target = Some(if next { anew() } else { target });
        if self.near {
            self.worst = 0;
            self.caught_up |= now >= *self.near_since.get_or_insert(now) + CALM;
        } else {
            self.near_since = None;
            self.worst = self.worst.max(self.furthest.map_or(0, |(_, behind)| behind));
        }
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
    use crate::log::{SiteId, Version};

    fn peers(behind: u64) -> [Peer; 1] {
        [Peer { node: NodeId([1; 16]), rtt: Duration::ZERO, behind, covers: true }]
    }

    fn at(millis: u64) -> Now {
        Duration::from_millis(millis)
    }

    /// Two sites, of which a peer holds so much.
    fn holding(versions: u64) -> VersionVector {
        [1, 2].into_iter().map(|site| (SiteId([site; 16]), Version(versions))).collect()
    }

    /// A look at a peer that holds so much, by a node that holds so much.
    fn look(standing: &mut Standing, theirs: u64, held: u64, millis: u64) {
        let behind = 2 * theirs.saturating_sub(held);
        standing.look(&peers(behind), || holding(theirs), &holding(held), at(millis));
    }

    #[test]
    fn a_node_is_ready_once_it_holds_what_its_peers_held_a_moment_ago() {
        let mut standing = Standing::default();
        standing.look(&[], VersionVector::new, &holding(1), at(0));
        assert!(standing.is_ready(), "nobody to compare with");
        look(&mut standing, 1000, 0, 100);
        assert!(!standing.is_ready(), "now there is");
        assert_eq!(standing.status().state, SyncState::CatchingUp);
        look(&mut standing, 1000, 750, 1000);
        assert_eq!(standing.status().percent, Some(75.0));
        assert_eq!(standing.status().from, Some(NodeId([1; 16])));
        look(&mut standing, 1100, 1000, 3000);
        assert!(!standing.is_ready(), "it holds what they held, but that was long ago");
        look(&mut standing, 1200, 1099, 3500);
        assert!(!standing.is_ready());
        look(&mut standing, 1300, 1100, 4000);
        assert!(standing.is_ready(), "that was just now, and more is on its way");
        assert_eq!(standing.status(), SyncStatus::default());
        assert!(!standing.caught_up());
    }

    #[test]
    fn a_few_large_versions_are_not_near() {
        let mut standing = Standing::default();
        for second in 0..10 {
            look(&mut standing, 10, 9, 1000 * second);
            assert!(!standing.is_ready());
        }
    }

    #[test]
    fn a_further_peer_is_looked_at_before_the_node_is_ready_again() {
        let mut standing = Standing::default();
        look(&mut standing, 5, 5, 0);
        assert!(standing.is_ready());
        let [first] = peers(0);
        let both = [first, Peer { node: NodeId([2; 16]), behind: 90, ..first }];
        standing.look(&both, || holding(50), &holding(5), at(100));
        assert!(!standing.is_ready());
        standing.look(&both, || holding(50), &holding(50), at(200));
        assert!(standing.is_ready());
    }

    #[test]
    fn a_backlog_later_on_is_told_but_does_not_take_the_node_out_of_service() {
        let mut standing = Standing::default();
        for millis in (0..=CALM.as_millis() as u64).step_by(100) {
            assert!(!standing.caught_up(), "at {millis}");
            look(&mut standing, millis + 10, millis, millis);
            look(&mut standing, millis + 10, millis + 10, millis + 50);
        }
        look(&mut standing, 3000, 3000, 2400);
        assert!(standing.caught_up());
        for millis in [3000, 6000] {
            look(&mut standing, 9000, 3000, millis);
        }
        assert!(standing.is_ready());
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
