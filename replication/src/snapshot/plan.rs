//! When a node takes a snapshot, and from whom: a state machine without input or output.
//!
//! ```text
//!             far behind                     heard from others          all here
//!  Watching ─────────────▶ Choosing ──────────────────────▶ Fetching ───────────▶ Adopting
//!                             ▲  ▲      a peer that has it      │ ▲                   │
//!           peer unfit, busy  │  └──────── peer is gone ──── Waiting ◀─ link broke    │
//!                             └───────────────────────────────────────────────────────┤ refused
//!  Over ◀─── adopted; or too many failures, nobody suitable: the logs are followed ───┘
//! ```
//!
//! From the first look at a peer that holds too much more until the end of it ([`Planner::holds`]), no log is followed
//! and no write is accepted. Following on would be work for nothing, since the snapshot has it all; and what came in
//! meanwhile might be missing in the snapshot, which may only replace a database whose every version it holds.
//!
//! A peer that gives as many snapshots as it can to others is busy. That is no failure: the others are asked in turn,
//! the nearest first, and then those again that said so longest ago, until one has a place.
//!
//! At most one snapshot is taken in the life of a process, and none once the node has caught up: what is missing then
//! comes by the logs, while the node serves.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{NodeId, protocol::Now};

/// How long others are waited for, of whom one may be nearer.
const CHOICE: Duration = Duration::from_millis(500);
/// How long a suitable peer is waited for: all may still be reading what this node wrote last.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long after a broken transfer, or the word of a busy peer, the next try comes.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a peer that was busy comes after those that were not.
const BUSY: Duration = Duration::from_secs(10);
/// How long a peer that has sent a part may be away or busy before another one is asked.
const RESUME_PATIENCE: Duration = Duration::from_secs(5);
/// Failures in a row without a byte received, after which the logs are followed instead.
const FRUITLESS: u32 = 5;
/// Failures altogether.
const FAILURES: u32 = 50;

/// A connected peer that said what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub node: NodeId,
    /// How far away.
    pub rtt: Duration,
    /// Versions that this node lacks of what it holds.
    pub behind: u64,
    /// Whether it holds everything that this node does.
    pub covers: bool,
}

/// Something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Follow no log and accept no write.
    Hold,
    /// Get a snapshot of this peer, or the rest of one.
    Fetch(NodeId),
    /// Take the snapshot in place of the database.
    Adopt,
    /// Follow the logs and accept writes.
    Release,
}

/// Why a transfer came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The way to the peer; what was received is kept.
    Broken {
        /// Whether it was not in vain: something was received.
        progressed: bool,
    },
    /// The peer gives snapshots to others, as many as it can.
    Busy,
    /// What this peer has is of no use here.
    Unfit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Watching,
    Choosing {
        /// Not before.
        from: Now,
        /// Not after.
        until: Now,
    },
    Fetching(NodeId),
    Waiting {
        peer: NodeId,
        retry: Now,
        until: Now,
    },
    Adopting(NodeId),
    Over,
}

/// The machine.
#[derive(Debug)]
pub struct Planner {
    above: u64,
    phase: Phase,
    /// Who has sent a part of a snapshot already.
    preferred: Option<NodeId>,
    /// Until when that one is waited for, though it is busy: its place may be taken by the transfer that broke.
    resume_until: Now,
    unfit: BTreeSet<NodeId>,
    /// Who was busy, and when.
    busy: BTreeMap<NodeId, Now>,
    fruitless: u32,
    failures: u32,
}

impl Planner {
    /// A node that takes a snapshot when it lacks more than `above` versions. `preferred` is whom it has got a part of
    /// one from, in an earlier life.
    #[must_use]
    pub fn new(above: u64, preferred: Option<NodeId>) -> Self {
        Self {
            above,
            phase: Phase::Watching,
            preferred,
            resume_until: Now::ZERO,
            unfit: BTreeSet::new(),
            busy: BTreeMap::new(),
            fruitless: 0,
            failures: 0,
        }
    }

    /// Whether a snapshot is under way: no log is followed and no write accepted.
    #[must_use]
    pub fn holds(&self) -> bool {
        !matches!(self.phase, Phase::Watching | Phase::Over)
    }

    /// Whether there will be no snapshot any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// From whom a snapshot comes.
    #[must_use]
    pub fn source(&self) -> Option<NodeId> {
        match self.phase {
            Phase::Fetching(peer) | Phase::Waiting { peer, .. } | Phase::Adopting(peer) => Some(peer),
            Phase::Watching | Phase::Choosing { .. } | Phase::Over => None,
        }
    }

    /// Looks at the connected peers, whenever one has told something and a few times a second. `caught_up` says that
    /// the node holds, lastingly, what they hold.
    pub fn look(&mut self, peers: &[Peer], caught_up: bool, now: Now) -> Option<Action> {
        match self.phase {
            Phase::Watching if caught_up => {
                self.phase = Phase::Over;
                None
            }
            Phase::Watching if peers.iter().any(|peer| peer.behind > self.above) => {
                self.choose(now, CHOICE);
                Some(Action::Hold)
            }
            Phase::Choosing { from, until } if now >= from => {
                let usable = |peer: &&Peer| {
                    peer.covers && peer.behind > self.above && !self.unfit.contains(&peer.node)
                };
                let preferred = |peer: &Peer| Some(peer.node) == self.preferred;
                // Those that were not busy come first, then who was so longest ago.
                let busy = |peer: &Peer| self.busy.get(&peer.node).filter(|since| now < **since + BUSY);
                let order = |peer: &&Peer| (busy(peer), !preferred(peer), peer.rtt, peer.node);
                match peers.iter().filter(usable).min_by_key(order) {
                    Some(peer) => Some(self.fetch(peer.node)),
                    None if now >= until || self.none_is_fit(peers) => Some(self.give_up()),
                    None => None,
                }
            }
            Phase::Waiting { peer, retry, until } => {
                if now >= retry && peers.iter().any(|there| there.node == peer && there.covers) {
                    return Some(self.fetch(peer));
                }
                if now >= until {
                    self.choose(now, Duration::ZERO);
                }
                None
            }
            _ => None,
        }
    }

    /// All of the snapshot is here, checked and prepared.
    pub fn fetched(&mut self) -> Option<Action> {
        let Phase::Fetching(peer) = self.phase else { return None };
        self.phase = Phase::Adopting(peer);
        Some(Action::Adopt)
    }

    /// The database is the snapshot now.
    pub fn adopted(&mut self) -> Option<Action> {
        self.phase = Phase::Over;
        Some(Action::Release)
    }

    /// A transfer or an adoption failed.
    pub fn failed(&mut self, failure: Failure, now: Now) -> Option<Action> {
        let (Phase::Fetching(peer) | Phase::Adopting(peer)) = self.phase else { return None };
        if failure != Failure::Busy {
            self.failures += 1;
            self.fruitless += 1;
        }
        match failure {
            Failure::Busy if now < self.resume_until => {
                self.phase = Phase::Waiting { peer, retry: now + PAUSE, until: self.resume_until };
            }
            Failure::Busy => {
                self.busy.insert(peer, now);
                self.choose(now, PAUSE);
            }
            Failure::Broken { progressed } => {
                if progressed {
                    self.fruitless = 0;
                    self.resume_until = now + RESUME_PATIENCE;
                }
                self.phase = Phase::Waiting { peer, retry: now + PAUSE, until: now + RESUME_PATIENCE };
            }
            Failure::Unfit => {
                self.resume_until = Now::ZERO;
                self.unfit.insert(peer);
                self.choose(now, Duration::ZERO);
            }
        }
        let enough = self.failures >= FAILURES || self.fruitless >= FRUITLESS;
        enough.then(|| self.give_up())
    }

    /// Whether there are peers that have a lot, and each has proved to be of no use.
    fn none_is_fit(&self, peers: &[Peer]) -> bool {
        let mut far = peers.iter().filter(|peer| peer.behind > self.above).peekable();
        far.peek().is_some() && far.all(|peer| self.unfit.contains(&peer.node))
    }

    fn choose(&mut self, now: Now, pause: Duration) {
        self.phase = Phase::Choosing { from: now + pause, until: now + PATIENCE };
    }

    fn fetch(&mut self, peer: NodeId) -> Action {
        self.preferred = Some(peer);
        self.phase = Phase::Fetching(peer);
        Action::Fetch(peer)
    }

    fn give_up(&mut self) -> Action {
        tracing::warn!(failures = self.failures, "no snapshot can be had: the logs are followed instead");
        self.phase = Phase::Over;
        Action::Release
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId([1; 16]);
    const B: NodeId = NodeId([2; 16]);
    const ABOVE: u64 = 1000;

    fn at(millis: u64) -> Now {
        Duration::from_millis(millis)
    }

    fn peer(node: NodeId, rtt: u64, behind: u64) -> Peer {
        Peer { node, rtt: Duration::from_millis(rtt), behind, covers: true }
    }

    fn far() -> [Peer; 2] {
        [peer(A, 80, 5000), peer(B, 10, 5000)]
    }

    /// A machine that fetches from the nearer peer, B.
    fn fetching() -> Planner {
        let mut planner = Planner::new(ABOVE, None);
        assert_eq!(planner.look(&far(), false, at(0)), Some(Action::Hold));
        assert_eq!(planner.look(&far(), false, at(500)), Some(Action::Fetch(B)));
        planner
    }

    #[test]
    fn a_node_that_lacks_little_follows_the_logs() {
        let mut planner = Planner::new(ABOVE, None);
        assert_eq!(planner.look(&[peer(A, 1, ABOVE)], false, at(0)), None);
        assert!(!planner.holds());
        assert_eq!(planner.look(&[peer(A, 1, 0)], true, at(10)), None);
        assert!(planner.is_over());
        assert_eq!(planner.look(&far(), false, at(20)), None, "what is missing later comes by the logs");
    }

    #[test]
    fn the_nearest_that_answers_in_time_is_chosen() {
        let mut planner = Planner::new(ABOVE, None);
        assert_eq!(planner.look(&[peer(A, 80, 5000)], false, at(0)), Some(Action::Hold));
        assert!(planner.holds());
        assert_eq!(planner.look(&far(), false, at(400)), None);
        assert_eq!(planner.look(&far(), false, at(500)), Some(Action::Fetch(B)));
        assert_eq!(planner.source(), Some(B));
        assert_eq!(planner.fetched(), Some(Action::Adopt));
        assert_eq!(planner.adopted(), Some(Action::Release));
        assert!(planner.is_over());
        assert_eq!(planner.look(&far(), false, at(900)), None, "one is enough");
    }

    #[test]
    fn own_versions_that_a_peer_lacks_are_waited_for() {
        let mut planner = Planner::new(ABOVE, None);
        let lacking = [Peer { covers: false, ..peer(A, 1, 5000) }];
        assert_eq!(planner.look(&lacking, false, at(0)), Some(Action::Hold));
        assert_eq!(planner.look(&lacking, false, at(5000)), None);
        assert_eq!(planner.look(&[peer(A, 1, 5000)], false, at(6000)), Some(Action::Fetch(A)));

        let mut planner = Planner::new(ABOVE, None);
        assert_eq!(planner.look(&lacking, false, at(0)), Some(Action::Hold));
        assert_eq!(planner.look(&lacking, false, at(15_000)), Some(Action::Release), "not for ever");
    }

    #[test]
    fn a_broken_transfer_is_resumed_at_the_same_peer() {
        let mut planner = fetching();
        assert_eq!(planner.failed(Failure::Broken { progressed: true }, at(2000)), None);
        assert_eq!(planner.look(&[peer(A, 80, 5000)], false, at(3500)), None);
        assert_eq!(planner.look(&far(), false, at(4000)), Some(Action::Fetch(B)));
    }

    #[test]
    fn another_peer_goes_on_for_one_that_is_gone() {
        let mut planner = fetching();
        assert_eq!(planner.failed(Failure::Broken { progressed: true }, at(2000)), None);
        let left = [peer(A, 80, 5000)];
        assert_eq!(planner.look(&left, false, at(6999)), None);
        assert_eq!(planner.look(&left, false, at(7000)), None);
        assert_eq!(planner.look(&left, false, at(7100)), Some(Action::Fetch(A)));
    }

    #[test]
    fn a_peer_whose_snapshot_is_unfit_is_not_asked_again() {
        let mut planner = fetching();
        assert_eq!(planner.failed(Failure::Unfit, at(2000)), None);
        assert_eq!(planner.look(&far(), false, at(2100)), Some(Action::Fetch(A)));
        assert_eq!(planner.fetched(), Some(Action::Adopt));
        assert_eq!(planner.failed(Failure::Unfit, at(3000)), None);
        assert_eq!(planner.look(&[], false, at(3100)), None, "a better one may come");
        assert_eq!(planner.look(&far(), false, at(3200)), Some(Action::Release));
    }

    #[test]
    fn after_some_fruitless_failures_the_logs_are_followed() {
        let mut planner = fetching();
        let mut now = 2000;
        for _ in 1..FRUITLESS {
            assert_eq!(planner.failed(Failure::Broken { progressed: false }, at(now)), None);
            now += 1000;
            assert_eq!(planner.look(&far(), false, at(now)), Some(Action::Fetch(B)));
        }
        assert_eq!(planner.failed(Failure::Broken { progressed: false }, at(now)), Some(Action::Release));
        assert!(planner.is_over() && !planner.holds());
    }

    #[test]
    fn others_are_asked_while_a_peer_is_busy() {
        let mut planner = fetching();
        assert_eq!(planner.failed(Failure::Busy, at(600)), None);
        assert_eq!(planner.look(&far(), false, at(1500)), None, "not at full speed");
        assert_eq!(planner.look(&far(), false, at(1600)), Some(Action::Fetch(A)), "it has a place");
        assert_eq!(planner.failed(Failure::Busy, at(1700)), None);
        assert_eq!(planner.look(&far(), false, at(2700)), Some(Action::Fetch(B)), "its turn may have come");
        assert_eq!(planner.fetched(), Some(Action::Adopt));
    }

    #[test]
    fn the_nearest_is_asked_first_again_a_while_after_it_was_busy() {
        let mut planner = fetching();
        assert_eq!(planner.failed(Failure::Busy, at(600)), None);
        assert_eq!(planner.look(&far(), false, at(1600)), Some(Action::Fetch(A)));
        assert_eq!(planner.failed(Failure::Busy, at(20_000)), None);
        assert_eq!(planner.look(&far(), false, at(21_000)), Some(Action::Fetch(B)));
    }

    #[test]
    fn a_turn_is_waited_for_however_long_all_are_busy() {
        let mut planner = fetching();
        let mut asked = BTreeMap::from([(B, 1)]);
        for second in 1..4 * u64::from(FAILURES) {
            assert_eq!(planner.failed(Failure::Busy, at(1000 * second)), None);
            let Some(Action::Fetch(peer)) = planner.look(&far(), false, at(1000 * second + 1000)) else {
                panic!("nobody is asked at {second} s");
            };
            *asked.entry(peer).or_insert(0) += 1;
        }
        assert!(planner.holds() && asked[&A] == asked[&B], "{asked:?}");
    }

    #[test]
    fn a_peer_that_sent_a_part_is_given_time_to_find_its_place_free() {
        let mut planner = fetching();
        assert_eq!(planner.failed(Failure::Broken { progressed: true }, at(2000)), None);
        for second in 3..8 {
            assert_eq!(planner.look(&far(), false, at(1000 * second)), Some(Action::Fetch(B)));
            assert_eq!(planner.failed(Failure::Busy, at(1000 * second)), None);
        }
        assert_eq!(planner.look(&far(), false, at(8000)), Some(Action::Fetch(A)));
    }

    #[test]
    fn whoever_sent_a_part_in_an_earlier_life_is_preferred() {
        let mut planner = Planner::new(ABOVE, Some(A));
        assert_eq!(planner.look(&far(), false, at(0)), Some(Action::Hold));
        assert_eq!(planner.look(&far(), false, at(500)), Some(Action::Fetch(A)));
    }
}
