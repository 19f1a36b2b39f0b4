//! Who is alive: failure detection by SWIM (the `foca` crate) over the mesh's datagrams.
//!
//! ```text
//!  datagrams ──▶ Membership::receive ──▶ ┌────────┐ ──▶ Carrier::carry ──▶ datagrams
//!  greetings ──▶ Membership::greeted ──▶ │ driver │ ──▶ Carrier::up     ──▶ the mesh dials
//!  losses    ──▶ Membership::lost    ──▶ └────────┘ ──▶ Roster          ◀── who asks "is it alive?"
//! ```
//!
//! `foca` is a state machine without input or output; [`driver`] feeds it and carries out what it wants.
//! Two sources of evidence are combined. A lost QUIC connection is noticed within seconds: it makes the
//! member doubtful at once for this process, and suspected for everyone. Whoever can still reach the
//! member tells it so, and it refutes the suspicion; otherwise it is declared down.

mod driver;
mod member;
mod tuning;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::identity::NodeId;
pub(crate) use driver::Driver;
use driver::Input;
pub(crate) use member::Member;

/// The kind of the datagrams that membership travels in.
pub(crate) const KIND: u8 = 1;
/// Inputs that wait for the driver. Datagrams are dropped beyond (SWIM lives with loss); the rest waits.
const QUEUE: usize = 1024;
/// How long a member that we lost has to refute that it is down: the question goes through others and the answer comes
/// back, two round trips of up to 300 ms, and is asked three times.
const REFUTATION: Duration = Duration::from_secs(3);

/// What membership needs of the network below it.
pub(crate) trait Carrier: Clone + Send + Sync + 'static {
    /// Sends a datagram, which may get lost. Without a connection to the member, tries to make one.
    fn carry(&self, to: &Member, packet: Bytes);
    /// Whether a connection to the member is open, in either direction.
    fn reaches(&self, node: NodeId) -> bool;
    /// The members to which a connection is open.
    fn reached(&self) -> Vec<Member>;
    /// A member is up, perhaps newly, perhaps at another address than before.
    fn up(&self, member: &Member);
}

/// A handle to the membership of this process's cluster.
#[derive(Clone)]
pub(crate) struct Membership {
    input: mpsc::Sender<Input>,
    roster: Arc<Roster>,
}

/// Makes the handle and the driver behind it, which the caller runs.
pub(crate) fn new(me: &Member) -> (Membership, Driver) {
    seeded(me, rand::random())
}

fn seeded(me: &Member, seed: u64) -> (Membership, Driver) {
    let (input, queue) = mpsc::channel(QUEUE);
    let roster = Arc::new(Roster { me: me.node, since: Instant::now(), standings: RwLock::default() });
    (Membership { input, roster: roster.clone() }, Driver::new(me.clone(), queue, roster, seed))
}

/// What the cluster says of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It takes part.
    Alive,
    /// Somebody could not reach it; it has some seconds to refute that.
    Suspect,
    /// It has crashed, left, or is out of everybody's reach.
    Down,
}

/// A member and what is known of its life.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) member: Member,
    pub(crate) standing: Standing,
    /// How long ago this process heard from it; none if it never did.
    pub(crate) heard: Option<Duration>,
}

impl Membership {
    /// A datagram of kind [`KIND`] arrived.
    pub(crate) fn receive(&self, packet: Bytes) {
        if self.input.try_send(Input::Packet(packet)).is_err() {
            counter!("mychat_mesh_datagrams_dropped_total", "stage" => "membership").increment(1);
        }
    }

    /// A connection to this member was opened and greeted.
    pub(crate) async fn greeted(&self, member: Member) {
        self.roster.trust(member.node);
        let _ = self.input.send(Input::Greeted(member)).await;
    }

    /// Our connection to this member broke: to this process it is not alive until it is greeted again or
    /// has had the time to refute.
    pub(crate) fn doubt(&self, node: NodeId) {
        self.roster.doubt(node, Instant::now());
    }

    /// The last connection with this member, of either direction, broke.
    pub(crate) async fn lost(&self, node: NodeId) {
        self.doubt(node);
        let _ = self.input.send(Input::Lost(node)).await;
    }

    /// This member said that it leaves.
    pub(crate) async fn left(&self, node: NodeId) {
        let _ = self.input.send(Input::Left(node)).await;
    }

    /// Tells the others that this process leaves; returns when that was handed to the network.
    pub(crate) async fn leave(&self) {
        let (done, wait) = oneshot::channel();
        if self.input.send(Input::Leave(done)).await.is_ok() {
            let _ = wait.await;
        }
    }

    /// Whether the cluster calls this member up. Doubts of this process do not count.
    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.roster.read().get(&node).is_some_and(|standing| standing.up)
    }

    /// Whether this member is alive: the cluster calls it up, and this process has not just lost it.
    pub(crate) fn is_alive(&self, node: NodeId) -> bool {
        let alive = |life: &Life| life.is_alive(Instant::now());
        node == self.roster.me || self.roster.read().get(&node).is_some_and(alive)
    }

    /// What is known of this member, up or down.
    pub(crate) fn member(&self, node: NodeId) -> Option<Member> {
        self.roster.read().get(&node).map(|standing| standing.member.clone())
    }

    /// Something arrived from this member.
    pub(crate) fn heard(&self, node: NodeId) {
        let now = self.roster.millis();
        if let Some(entry) = self.roster.read().get(&node) {
            entry.heard.store(now, Ordering::Relaxed);
        }
    }

    /// The other members, those included that are down and not forgotten yet.
    pub(crate) fn known(&self) -> Vec<Known> {
        let now = self.roster.millis();
        self.roster.read().values().map(|entry| entry.known(now)).collect()
    }

    /// Inputs that wait for the driver.
    pub(crate) fn waiting(&self) -> usize {
        self.input.max_capacity() - self.input.capacity()
    }

    /// The other members that are up.
    pub(crate) fn up(&self) -> Vec<Member> {
        let standings = self.roster.read();
        standings.values().filter(|standing| standing.up).map(|standing| standing.member.clone()).collect()
    }
}

/// What this process knows of the other members; the driver writes it, anybody reads it.
struct Roster {
    me: NodeId,
    since: Instant,
    standings: RwLock<HashMap<NodeId, Life>>,
}

struct Life {
    member: Member,
    up: bool,
    /// The cluster suspects it.
    suspected: bool,
    /// When something arrived from it, in milliseconds of [`Roster::millis`]; 0 is never.
    heard: AtomicU64,
    /// Since when this process cannot reach it.
    doubted: Option<Instant>,
}

impl Life {
    /// A doubt that is older than the time for refutation was refuted: the member would be down otherwise.
    fn is_alive(&self, now: Instant) -> bool {
        self.up && self.doubted.is_none_or(|since| now.duration_since(since) > REFUTATION * 2)
    }

    fn standing(&self) -> Standing {
        match (self.up, self.suspected) {
            (true, false) => Standing::Alive,
            (true, true) => Standing::Suspect,
            (false, _) => Standing::Down,
        }
    }

    fn known(&self, now: u64) -> Known {
        let heard = self.heard.load(Ordering::Relaxed);
        Known {
            member: self.member.clone(),
            standing: self.standing(),
            heard: (heard > 0).then(|| Duration::from_millis(now.saturating_sub(heard))),
        }
    }
}

impl Roster {
    fn read(&self) -> RwLockReadGuard<'_, HashMap<NodeId, Life>> {
        self.standings.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<NodeId, Life>> {
        self.standings.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The time that this roster counts, from 1 on.
    fn millis(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn set(&self, member: &Member, up: bool) {
        let mut standings = self.write();
        let life = standings.entry(member.node).or_insert_with(|| Life {
            member: member.clone(),
            up,
            suspected: false,
            heard: AtomicU64::new(0),
            doubted: None,
        });
        life.member = member.clone();
        life.up = up;
    }

    fn suspect(&self, suspects: &HashSet<NodeId>) {
        for (node, life) in self.write().iter_mut() {
            life.suspected = suspects.contains(node);
        }
    }

    /// Drops the members that nobody remembers any more.
    fn keep(&self, known: &HashSet<NodeId>) {
        self.write().retain(|node, _| known.contains(node));
    }

    fn doubt(&self, node: NodeId, now: Instant) {
        if let Some(standing) = self.write().get_mut(&node) {
            standing.doubted = Some(now);
        }
    }

    fn trust(&self, node: NodeId) {
        if let Some(standing) = self.write().get_mut(&node) {
            standing.doubted = None;
        }
    }
}

#[cfg(test)]
mod tests;
