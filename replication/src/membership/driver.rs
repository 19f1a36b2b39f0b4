//! Runs the `foca` state machine: hands it packets and timers, and carries out what it asks for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use foca::{AccumulatingRuntime, Codec, Foca, Header, Incarnation, Message, NoCustomBroadcast};
use foca::{OwnedNotification, PostcardCodec, State, Timer};
use metrics::counter;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::tuning::{HELPERS, INQUIRIES, INQUIRY, REPEAT, SUSPICION, config};
use super::{Carrier, Member, REFUTATION, Roster};
use crate::identity::NodeId;

/// The format of a membership packet; others are ignored.
const FORMAT: u8 = 1;
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
    /// Others are asked whether they reach a member that we suspected.
    Inquiry(Member),
    /// A packet that goes out again, for the first one may be lost.
    Repeat(Member, Bytes),
}

/// The task behind a [`super::Membership`].
pub(crate) struct Driver {
    foca: Foca<Member, PostcardCodec, StdRng, NoCustomBroadcast>,
    effects: AccumulatingRuntime<Member>,
    queue: mpsc::Receiver<Input>,
    roster: Arc<Roster>,
    random: StdRng,
    suspects: HashSet<NodeId>,
    /// When others last said that they reach a member.
    vouched: HashMap<NodeId, Instant>,
    /// When this member last had no connection to most of the others.
    cut_off: Option<Instant>,
    /// Ordered by time, then by arrival.
    agenda: BTreeMap<(Instant, u64), Due>,
    arrivals: u64,
}

impl Driver {
    /// The seed decides all that is left to chance, so that a test can repeat a run.
    pub(super) fn new(me: Member, queue: mpsc::Receiver<Input>, roster: Arc<Roster>, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        Self {
            foca: Foca::new(me, config(), StdRng::from_rng(&mut random), PostcardCodec),
            effects: AccumulatingRuntime::new(),
            queue,
            roster,
            random,
            suspects: HashSet::new(),
            vouched: HashMap::new(),
            cut_off: None,
            agenda: BTreeMap::new(),
            arrivals: 0,
        }
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
            // What is due comes first: it is little, however many packets wait.
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = due => self.catch_up(&carrier),
                _ = again.tick() => {
                    ticks = ticks.wrapping_add(1);
                    self.look_around(&carrier);
                    self.announce_again(&carrier);
                    if ticks.is_multiple_of(LONELY) {
                        self.look_for_company(&carrier);
                        self.roster.keep(&self.foca.iter_membership_state().map(|member| member.id().node).collect());
                    }
                }
                input = self.queue.recv() => match input {
                    Some(input) => self.take(input, &carrier),
                    None => return,
                },
            }
        }
    }

    fn take(&mut self, input: Input, carrier: &impl Carrier) {
        let mut done = None;
        let result = match input {
            Input::Packet(packet) => self.packet(&packet),
            Input::Greeted(member) => {
                let forgiven = self.forgive(&member);
                self.settle(forgiven, carrier);
                self.announce(member)
            }
            Input::Lost(node) => {
                self.look_around(carrier);
                self.suspect(node)
            }
            Input::Left(node) => self.declare_down(node, true),
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
            Some((&FORMAT, rest)) => {
                if let Some(Message::ForwardedAck { origin, .. }) = message(rest) {
                    self.vouched.insert(origin.node, Instant::now());
                }
                self.foca.handle_data(rest, &mut self.effects)
            }
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
        let now = Instant::now();
        for times in 0..INQUIRIES {
            self.schedule(now + INQUIRY * times, Due::Inquiry(id.clone()));
        }
        self.schedule(now + REFUTATION, Due::Judgement(id.clone(), incarnation));
        let suspected = foca::Member::new(id, incarnation, State::Suspect);
        self.foca.apply_many(iter::once(suspected), true, &mut self.effects)?;
        self.foca.gossip(&mut self.effects)
    }

    /// Has others probe a suspected member. `foca` does so for members whose turn it is only, and a refutation that
    /// comes by gossip may miss one who needs it.
    fn inquire(&mut self, suspect: &Member, carrier: &impl Carrier) -> Result<(), foca::Error> {
        let me = self.foca.identity().clone();
        let helpers = self.foca.iter_members().map(foca::Member::id);
        let helpers = helpers.filter(|member| *member != suspect && carrier.reaches(member.node));
        for helper in helpers.cloned().sample(&mut self.random, HELPERS) {
            let header = Header {
                src: me.clone(),
                // An old one is no news to anybody.
                src_incarnation: 0,
                dst: helper.clone(),
                message: Message::PingReq { target: suspect.clone(), probe_number: 0 },
            };
            let mut packet = vec![FORMAT];
            PostcardCodec
                .encode_header(&header, &mut packet)
                .map_err(|error| foca::Error::Encode(Box::new(error)))?;
            // Nothing to tell along with it.
            packet.extend([0, 0]);
            carrier.carry(&helper, packet.into());
        }
        Ok(())
    }

    fn declare_down(&mut self, node: NodeId, tell: bool) -> Result<(), foca::Error> {
        let Some((id, incarnation)) = self.active(node) else { return Ok(()) };
        let down = foca::Member::new(id, incarnation, State::Down);
        self.foca.apply_many(iter::once(down), tell, &mut self.effects)
    }

    /// Forgets that a process was called down that has just proved to run. Otherwise each side of a healed partition
    /// would hold the other's identities for dead, and all members of both would have to come back under new ones.
    fn forgive(&mut self, member: &Member) -> Result<(), foca::Error> {
        let process = |known: &&foca::Member<Member>| {
            known.state() == State::Down
                && known.id().node == member.node
                && known.id().generation == member.generation
        };
        let Some(down) = self.foca.iter_membership_state().find(process) else { return Ok(()) };
        let down = down.id().clone();
        self.foca.handle_timer(Timer::RemoveDown(down), &mut self.effects)
    }

    /// Notes whether this member still has connections to at least half of those that it calls up. One that has not
    /// is more likely to be the one that is cut off.
    fn look_around(&mut self, carrier: &impl Carrier) {
        let reached = self.foca.iter_members().filter(|member| carrier.reaches(member.id().node)).count();
        if reached == 0 || reached * 2 < self.foca.num_members() {
            self.cut_off = Some(Instant::now());
        }
    }

    /// Whether what this member thinks of others is worth telling. Words of death can't be taken back: those of a
    /// member that was cut off would spread among the living when it is back.
    fn is_credible(&self) -> bool {
        self.cut_off.is_none_or(|then| then.elapsed() > SUSPICION)
    }

    /// A suspicion of `foca`'s own has lasted for [`SUSPICION`]. It holds only if it could have been refuted all that
    /// time; if not, this member acts on it alone, unless it has a connection: then the next probe decides.
    fn confirm(
        &mut self,
        timer: Timer<Member>,
        suspect: &Member,
        carrier: &impl Carrier,
    ) -> Result<(), foca::Error> {
        let is_it =
            |member: &foca::Member<Member>| member.id() == suspect && member.state() == State::Suspect;
        if !self.foca.iter_members().any(is_it) {
            return Ok(());
        }
        match self.is_credible() {
            true => self.foca.handle_timer(timer, &mut self.effects),
            false if carrier.reaches(suspect.node) => Ok(()),
            false => self.declare_down(suspect.node, false),
        }
    }

    /// Declares a suspected member down that neither refuted it nor could be reached since, by us or by others.
    fn judge(
        &mut self,
        suspect: &Member,
        then: Incarnation,
        carrier: &impl Carrier,
    ) -> Result<(), foca::Error> {
        let silent = self.foca.iter_members().any(|member| {
            member.id() == suspect && member.incarnation() == then && member.state() == State::Suspect
        });
        let vouched = self.vouched.remove(&suspect.node).is_some_and(|at| at.elapsed() < REFUTATION);
        if !silent || vouched || carrier.reaches(suspect.node) {
            return Ok(());
        }
        self.look_around(carrier);
        self.declare_down(suspect.node, self.is_credible())
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
                Due::Foca(Timer::ChangeSuspectToDown { member_id, incarnation, token }) => {
                    let suspect = member_id.clone();
                    self.confirm(
                        Timer::ChangeSuspectToDown { member_id, incarnation, token },
                        &suspect,
                        carrier,
                    )
                }
                Due::Foca(timer) => self.foca.handle_timer(timer, &mut self.effects),
                Due::Judgement(suspect, then) => self.judge(&suspect, then, carrier),
                Due::Inquiry(suspect) => self.inquire(&suspect, carrier),
                Due::Repeat(to, packet) => {
                    carrier.carry(&to, packet);
                    Ok(())
                }
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
        for member in known.sample(&mut self.random, 3) {
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
            packet.put(&data[..]);
            let packet = packet.freeze();
            if is_probe(&data) {
                self.schedule(Instant::now() + REPEAT, Due::Repeat(to.clone(), packet.clone()));
            }
            carrier.carry(&to, packet);
        }
        self.note_suspects();
    }

    /// Keeps the roster's word on who is suspected in step with `foca`, which does not tell.
    fn note_suspects(&mut self) {
        let suspected = |member: &&foca::Member<Member>| member.state() == State::Suspect;
        let suspects: HashSet<_> =
            self.foca.iter_members().filter(suspected).map(|member| member.id().node).collect();
        if suspects != self.suspects {
            let new = suspects.difference(&self.suspects).count();
            counter!("mychat_membership_changes_total", "to" => "suspect").increment(new as u64);
            self.roster.suspect(&suspects);
            self.suspects = suspects;
        }
    }

    fn note(&self, notification: OwnedNotification<Member>, carrier: &impl Carrier) {
        match notification {
            OwnedNotification::MemberUp(member) => {
                info!(node = %member.node, role = %member.role, region = %member.region, addr = %member.addr, "member up");
                counter!("mychat_membership_changes_total", "to" => "up").increment(1);
                self.roster.set(&member, true);
                carrier.up(&member);
            }
            OwnedNotification::MemberDown(member) => {
                warn!(node = %member.node, role = %member.role, region = %member.region, addr = %member.addr, "member down");
                counter!("mychat_membership_changes_total", "to" => "down").increment(1);
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

/// Whether a packet is a direct probe or the answer to one. `foca` sends each once and takes its loss for a first
/// sign of death; where there are few others to probe through, it is the only one.
fn is_probe(packet: &[u8]) -> bool {
    matches!(message(packet), Some(Message::Ping(_) | Message::Ack(_)))
}

/// What a packet is for.
fn message(mut packet: &[u8]) -> Option<Message<Member>> {
    let header: Header<Member> = PostcardCodec.decode_header(&mut packet).ok()?;
    Some(header.message)
}
