//! Runs the `foca` state machine: hands it packets and timers, and carries out what it asks for.

use std::collections::BTreeMap;
use std::iter;
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use foca::{AccumulatingRuntime, Foca, Incarnation, NoCustomBroadcast, OwnedNotification, State, Timer};
use foca::{Config, PeriodicParams, PostcardCodec};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Carrier, Member, REFUTATION, Roster};
use crate::identity::NodeId;

/// The format of a membership packet; others are ignored.
const FORMAT: u8 = 1;
/// The largest packet, in bytes: fits a QUIC datagram on any path, with room for kind and format.
const LARGEST_PACKET: usize = 1100;
/// How often connected members that do not count as up, for a packet got lost, are announced to again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often a member that is all alone tries those that were there before.
const LONELY: u32 = 5;

/// What happens outside and concerns the membership.
pub(super) enum Input {
    Packet(Bytes),
    Greeted(Member),
    Lost(NodeId),
    Left(NodeId),
    Leave(oneshot::Sender<()>),
}

/// What is due at some time.
enum Due {
    Foca(Timer<Member>),
    /// A member that we suspected had its chance to refute.
    Judgement(Member, Incarnation),
}

/// The task behind a [`super::Membership`].
pub(crate) struct Driver {
    foca: Foca<Member, PostcardCodec, StdRng, NoCustomBroadcast>,
    effects: AccumulatingRuntime<Member>,
    queue: mpsc::Receiver<Input>,
    roster: Arc<Roster>,
    /// Ordered by time, then by arrival.
    agenda: BTreeMap<(Instant, u64), Due>,
    arrivals: u64,
}

impl Driver {
    pub(super) fn new(me: Member, queue: mpsc::Receiver<Input>, roster: Arc<Roster>) -> Self {
        let foca = Foca::new(me, config(), StdRng::from_rng(&mut rand::rng()), PostcardCodec);
        let effects = AccumulatingRuntime::new();
        Self { foca, effects, queue, roster, agenda: BTreeMap::new(), arrivals: 0 }
    }

    /// Runs until cancelled or until no handle is left.
    pub(crate) async fn run(mut self, carrier: impl Carrier, cancel: CancellationToken) {
        let mut again = interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks: u32 = 0;
        loop {
            let next = self.agenda.first_key_value().map(|((at, _), _)| *at);
            let due = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                input = self.queue.recv() => match input {
                    Some(input) => self.take(input, &carrier),
                    None => return,
                },
                () = due => self.catch_up(&carrier),
                _ = again.tick() => {
                    ticks = ticks.wrapping_add(1);
                    self.announce_again(&carrier);
                    if ticks.is_multiple_of(LONELY) {
                        self.look_for_company(&carrier);
                        self.roster.keep(&self.foca.iter_membership_state().map(|member| member.id().node).collect());
                    }
                }
            }
        }
    }

    fn take(&mut self, input: Input, carrier: &impl Carrier) {
        let mut done = None;
        let result = match input {
            Input::Packet(packet) => self.packet(&packet),
            Input::Greeted(member) => self.announce(member),
            Input::Lost(node) => self.suspect(node),
            Input::Left(node) => self.declare_down(node),
            Input::Leave(reply) => {
                done = Some(reply);
                self.foca.leave_cluster(&mut self.effects)
            }
        };
        self.settle(result, carrier);
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    fn packet(&mut self, packet: &[u8]) -> Result<(), foca::Error> {
        match packet.split_first() {
            Some((&FORMAT, rest)) => self.foca.handle_data(rest, &mut self.effects),
            _ => {
                debug!("ignored a membership packet of another format");
                Ok(())
            }
        }
    }

    /// Asks a member that is reachable to take us in, unless it already has.
    fn announce(&mut self, member: Member) -> Result<(), foca::Error> {
        let known = |active: &foca::Member<Member>| {
            active.id().node == member.node && active.id().generation >= member.generation
        };
        if member.node == self.roster.me || self.foca.iter_members().any(known) {
            return Ok(());
        }
        self.foca.announce(member, &mut self.effects)
    }

    fn suspect(&mut self, node: NodeId) -> Result<(), foca::Error> {
        let Some((id, incarnation)) = self.active(node) else { return Ok(()) };
        self.schedule(Instant::now() + REFUTATION, Due::Judgement(id.clone(), incarnation));
        let suspected = foca::Member::new(id, incarnation, State::Suspect);
        self.foca.apply_many(iter::once(suspected), true, &mut self.effects)?;
        self.foca.gossip(&mut self.effects)
    }

    fn declare_down(&mut self, node: NodeId) -> Result<(), foca::Error> {
        let Some((id, incarnation)) = self.active(node) else { return Ok(()) };
        let down = foca::Member::new(id, incarnation, State::Down);
        self.foca.apply_many(iter::once(down), true, &mut self.effects)
    }

    /// Declares a suspected member down that neither refuted it nor could be reached since.
    fn judge(
        &mut self,
        suspect: &Member,
        then: Incarnation,
        carrier: &impl Carrier,
    ) -> Result<(), foca::Error> {
        let silent = self.foca.iter_members().any(|member| {
            member.id() == suspect && member.incarnation() == then && member.state() == State::Suspect
        });
        if silent && !carrier.reaches(suspect.node) { self.declare_down(suspect.node) } else { Ok(()) }
    }

    fn active(&self, node: NodeId) -> Option<(Member, Incarnation)> {
        let member = self.foca.iter_members().find(|member| member.id().node == node)?;
        Some((member.id().clone(), member.incarnation()))
    }

    fn catch_up(&mut self, carrier: &impl Carrier) {
        let now = Instant::now();
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let result = match entry.remove() {
                Due::Foca(timer) => self.foca.handle_timer(timer, &mut self.effects),
                Due::Judgement(suspect, then) => self.judge(&suspect, then, carrier),
            };
            self.settle(result, carrier);
        }
    }

    fn announce_again(&mut self, carrier: &impl Carrier) {
        for member in carrier.reached() {
            let result = self.announce(member);
            self.settle(result, carrier);
        }
    }

    /// `foca` tries members that are down again only while somebody is up. Alone, we do it ourselves, so
    /// that two halves of a cluster find each other whichever of them has the other as a seed.
    fn look_for_company(&mut self, carrier: &impl Carrier) {
        if self.foca.num_members() > 0 {
            return;
        }
        let known = self.foca.iter_membership_state().map(|member| member.id().clone());
        for member in known.sample(&mut rand::rng(), 3) {
            let result = self.foca.announce(member, &mut self.effects);
            self.settle(result, carrier);
        }
    }

    fn schedule(&mut self, at: Instant, due: Due) {
        self.arrivals += 1;
        self.agenda.insert((at, self.arrivals), due);
    }

    /// Carries out what `foca` asked for in its last step.
    fn settle(&mut self, result: Result<(), foca::Error>, carrier: &impl Carrier) {
        if let Err(error) = result {
            debug!(%error, "a membership step failed");
        }
        while let Some((after, timer)) = self.effects.to_schedule() {
            self.schedule(Instant::now() + after, Due::Foca(timer));
        }
        while let Some(notification) = self.effects.to_notify() {
            self.note(notification, carrier);
        }
        while let Some((to, data)) = self.effects.to_send() {
            let mut packet = BytesMut::with_capacity(1 + data.len());
            packet.put_u8(FORMAT);
            packet.put(data);
            carrier.carry(&to, packet.freeze());
        }
    }

    fn note(&self, notification: OwnedNotification<Member>, carrier: &impl Carrier) {
        match notification {
            OwnedNotification::MemberUp(member) => {
                info!(node = %member.node, role = %member.role, region = %member.region, addr = %member.addr, "member up");
                self.roster.set(&member, true);
                carrier.up(&member);
            }
            OwnedNotification::MemberDown(member) => {
                warn!(node = %member.node, role = %member.role, region = %member.region, addr = %member.addr, "member down");
                self.roster.set(&member, false);
            }
            OwnedNotification::Rename(_, member) => {
                let up = self.foca.iter_members().any(|active| *active.id() == member);
                self.roster.set(&member, up);
                if up {
                    carrier.up(&member);
                }
            }
            OwnedNotification::Rejoin(member) => {
                warn!(renewal = member.renewal, "the others had given this member up; it joins again");
            }
            OwnedNotification::Active => debug!("in the cluster"),
            OwnedNotification::Idle => debug!("alone: no other member is up"),
            OwnedNotification::Defunct => debug!("out of the cluster"),
        }
    }
}

/// For wide-area networks with some loss: probes wait for more than twice a 300 ms round trip, and a
/// suspected member has several gossip rounds to refute. A crash need not wait for a probe: its lost
/// connection raises the suspicion.
fn config() -> Config {
    let count = |number| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
    let every = |millis, members| {
        Some(PeriodicParams { frequency: Duration::from_millis(millis), num_members: count(members) })
    };
    Config {
        probe_period: Duration::from_millis(2_000),
        probe_rtt: Duration::from_millis(800),
        num_indirect_probes: count(3),
        max_transmissions: NonZeroU8::new(10).unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: Duration::from_secs(5),
        remove_down_after: Some(Duration::from_secs(6 * 3600)),
        max_packet_size: count(LARGEST_PACKET),
        notify_down_members: true,
        periodic_announce: every(10_000, 1),
        periodic_announce_to_down_members: every(5_000, 2),
        periodic_gossip: every(300, 4),
    }
}
