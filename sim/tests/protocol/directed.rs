//! Single rules of the core, each in its smallest setting: settling, serving, receiving. Whom to ask: `upstreams.rs`.

use std::{sync::Arc, time::Duration};

use mychat_replication::{
    NodeId,
    log::{Frame, SiteId, Version, VersionVector},
    protocol::{Action, Config, Core, Event, Reading, SEND_WINDOW, Start, StreamId},
};

use crate::disk::{change, frame};

pub const HERE: SiteId = SiteId([1; 16]);
pub const WRITER: SiteId = SiteId([2; 16]);
pub const RELAY: SiteId = SiteId([3; 16]);

pub const fn peer(number: u8) -> NodeId {
    NodeId([number; 16])
}

pub const fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn vector(entries: &[(SiteId, u64)]) -> VersionVector {
    entries.iter().map(|(site, version)| (*site, Version(*version))).collect()
}

pub fn some_frame(site: SiteId, version: u64, size: usize) -> Arc<Frame> {
    Arc::new(frame(site, version - 1, version, vec![change(version as u32, version, size)]))
}

/// Tells the core and returns its answers.
pub fn tell(core: &mut Core, event: Event, now: Duration) -> Vec<Action> {
    core.handle(event, now);
    core.actions()
}

/// A core of node 1 that has no relays.
pub fn core(held: &[(SiteId, u64)], start: Start) -> Core {
    let config = Config { node: peer(1), region: "fra".into(), relay_above: 100 };
    Core::new(config, HERE, vector(held), start)
}

/// A peer connects and says what it holds.
pub fn meet(
    core: &mut Core,
    number: u8,
    site: SiteId,
    holds: &[(SiteId, u64)],
    rtt: u64,
    now: Duration,
) -> Vec<Action> {
    let mut actions =
        tell(core, Event::PeerUp { peer: peer(number), rtt: at(rtt), region: "fra".into() }, now);
    actions.extend(heads(core, number, site, holds, now));
    actions
}

pub fn heads(
    core: &mut Core,
    number: u8,
    site: SiteId,
    holds: &[(SiteId, u64)],
    now: Duration,
) -> Vec<Action> {
    let heads = Event::Heads {
        peer: peer(number),
        site,
        vector: vector(holds),
        reading: Reading::Whole,
        complete: true,
    };
    tell(core, heads, now)
}

pub fn follows(actions: &[Action]) -> Vec<(StreamId, NodeId, SiteId, u64)> {
    let follow = |action: &Action| match action {
        Action::Follow { stream, peer, site, after } => Some((*stream, *peer, *site, after.0)),
        _ => None,
    };
    actions.iter().filter_map(follow).collect()
}

fn renewals(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::RenewSite)).count()
}

/// Receives versions 1 to `upto` of the writer on the stream, and applies them.
pub fn take(core: &mut Core, stream: StreamId, upto: u64, now: Duration) {
    for version in 1..=upto {
        let frame = some_frame(WRITER, version, 10);
        let actions = tell(core, Event::Received { stream, frame: Arc::clone(&frame) }, now);
        assert!(actions.iter().any(|action| matches!(action, Action::Apply { .. })));
        let held = Arc::new(vector(&[(WRITER, version)]));
        tell(core, Event::Committed { frames: vec![frame], vector: held, local: false }, now);
        tell(core, Event::Applied { ok: true }, now);
    }
}

/// A core that follows the writer itself, and knows a relay that holds a part of its log.
pub fn following_the_writer() -> (Core, StreamId) {
    let mut core = core(&[], Start::Asking);
    let actions = meet(&mut core, 2, WRITER, &[(WRITER, 10)], 80, at(0));
    let (stream, from, _, after) = follows(&actions)[0];
    assert_eq!((from, after), (peer(2), 0));
    let actions = meet(&mut core, 3, RELAY, &[(WRITER, 8)], 5, at(0));
    assert!(follows(&actions).iter().all(|(_, _, site, _)| *site == RELAY), "the writer is followed already");
    (core, stream)
}

#[test]
fn what_the_disk_refused_is_asked_for_again_after_a_pause() {
    let (mut core, stream) = following_the_writer();
    take(&mut core, stream, 2, at(10));
    let frame = some_frame(WRITER, 3, 10);
    tell(&mut core, Event::Received { stream, frame }, at(20));
    let actions = tell(&mut core, Event::Applied { ok: false }, at(30));
    assert!(
        actions.iter().any(|action| matches!(action, Action::Unfollow { stream: left } if *left == stream))
    );
    assert_eq!(follows(&tell(&mut core, Event::Tick, at(500))), [], "not before the pause is over");
    let again = follows(&tell(&mut core, Event::Tick, at(1_100)));
    assert!(again.iter().any(|(_, from, site, after)| (*from, *site, *after) == (peer(2), WRITER, 2)));
}

#[test]
fn a_frame_that_leaves_a_gap_is_refused_and_the_log_asked_for_again() {
    let (mut core, stream) = following_the_writer();
    take(&mut core, stream, 2, at(10));
    let actions = tell(&mut core, Event::Received { stream, frame: some_frame(WRITER, 4, 10) }, at(20));
    assert!(!actions.iter().any(|action| matches!(action, Action::Apply { .. })), "I3");
    assert!(
        follows(&actions).iter().any(|(_, from, site, after)| (*from, *site, *after) == (peer(2), WRITER, 2))
    );
}

#[test]
fn a_frame_that_the_database_found_not_to_follow_is_asked_for_again() {
    let (mut core, stream) = following_the_writer();
    take(&mut core, stream, 2, at(10));
    tell(&mut core, Event::Received { stream, frame: some_frame(WRITER, 3, 10) }, at(20));
    let actions = tell(&mut core, Event::Applied { ok: true }, at(30));
    assert!(
        follows(&actions).iter().any(|(_, from, site, after)| (*from, *site, *after) == (peer(2), WRITER, 2))
    );
}

/// What was sent on each of the streams 1 and 2, and which reads were asked for.
#[derive(Default)]
struct Sent {
    bytes: [usize; 3],
    last: [u64; 3],
    reads: Vec<(StreamId, u64)>,
}

impl Sent {
    fn note(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Send { stream, frames } => {
                    let number = stream.0 as usize;
                    self.bytes[number] += frames.iter().map(|frame| frame.size()).sum::<usize>();
                    self.last[number] = frames.last().map_or(0, |frame| frame.version.0);
                }
                Action::ReadLog { stream, after, .. } => self.reads.push((*stream, after.0)),
                _ => {}
            }
        }
    }
}

#[test]
fn a_slow_follower_has_no_queue_beyond_its_window_and_the_other_does_not_notice() {
    const COMMITS: u64 = 60;
    let mut core = core(&[], Start::Alone);
    let (fast, slow) = (StreamId(1), StreamId(2));
    for stream in [fast, slow] {
        let follower = peer(stream.0 as u8 + 1);
        tell(
            &mut core,
            Event::FollowerOpened { stream, peer: follower, site: HERE, after: Version(0) },
            at(0),
        );
    }
    let mut sent = Sent::default();
    for version in 1..=COMMITS {
        let frame = some_frame(HERE, version, 64 << 10);
        let bytes = frame.size();
        let committed = Event::Committed {
            frames: vec![frame],
            vector: Arc::new(vector(&[(HERE, version)])),
            local: true,
        };
        sent.note(&tell(&mut core, committed, at(version)));
        assert_eq!(sent.last[1], version, "the fast one has each commit at once");
        sent.note(&tell(&mut core, Event::Sent { stream: fast, bytes }, at(version)));
    }
    assert!(sent.bytes[2] <= SEND_WINDOW, "I7: {} bytes wait for the slow one", sent.bytes[2]);
    assert!(sent.last[2] > 1, "its window is used");
    assert_eq!(sent.reads, [], "nothing is read while its window is full");

    // Once the transport has taken what waited, the slow one goes on from its integer.
    let (bytes, last) = (sent.bytes[2], sent.last[2]);
    sent.note(&tell(&mut core, Event::Sent { stream: slow, bytes }, at(100)));
    assert_eq!(sent.reads, [(slow, last)]);
    let frames = (last + 1..=COMMITS).map(|version| some_frame(HERE, version, 10)).collect();
    sent.note(&tell(&mut core, Event::LogRead { stream: slow, frames }, at(110)));
    assert_eq!(sent.last[2], COMMITS);
    let vector = Arc::new(vector(&[(HERE, COMMITS + 1)]));
    let committed = Event::Committed { frames: vec![some_frame(HERE, COMMITS + 1, 10)], vector, local: true };
    sent.note(&tell(&mut core, committed, at(120)));
    assert_eq!(sent.last[1..], [COMMITS + 1, COMMITS + 1], "both are live");
}

/// A restarted core whose disk holds ten versions of its own log.
fn restarted() -> Core {
    core(&[(HERE, 10)], Start::Asking)
}

#[test]
fn a_peer_that_knows_more_of_the_own_log_makes_it_renew_its_site_once() {
    let mut core = restarted();
    assert!(!core.is_settled(), "it must not write before it has asked");
    let mut actions = meet(&mut core, 2, WRITER, &[(HERE, 12)], 5, at(10));
    actions.extend(meet(&mut core, 3, RELAY, &[(HERE, 11)], 5, at(20)));
    actions.extend(heads(&mut core, 2, WRITER, &[(HERE, 12)], at(210)));
    let opened = Event::FollowerOpened { stream: StreamId(1), peer: peer(2), site: HERE, after: Version(12) };
    actions.extend(tell(&mut core, opened, at(220)));
    actions.extend(tell(&mut core, Event::Tick, at(6_000)));
    assert_eq!(renewals(&actions), 1);
    assert!(!core.is_settled(), "I2: not before the new site id is on the disk");

    let site = SiteId([9; 16]);
    let renewed = Event::SiteRenewed { site, vector: Arc::new(vector(&[(HERE, 10)])) };
    let mut actions = tell(&mut core, renewed, at(6_010));
    assert!(core.is_settled());
    let told =
        |to| actions.iter().any(|action| matches!(action, Action::SendHeads { peer, .. } if *peer == to));
    assert!(told(peer(2)) && told(peer(3)), "the peers are told of the new site at once");
    assert!(
        follows(&actions).iter().any(|(_, _, site, after)| (*site, *after) == (HERE, 10)),
        "the tail is fetched"
    );
    actions.extend(heads(&mut core, 2, WRITER, &[(HERE, 12)], at(6_200)));
    actions.extend(tell(&mut core, Event::Tick, at(20_000)));
    assert_eq!(renewals(&actions), 0);
}

#[test]
fn a_follower_that_holds_more_of_the_own_log_is_an_answer_too() {
    let mut core = restarted();
    let opened = Event::FollowerOpened { stream: StreamId(1), peer: peer(2), site: HERE, after: Version(11) };
    assert_eq!(renewals(&tell(&mut core, opened, at(10))), 1);
    assert!(!core.is_settled());
}

#[test]
fn a_node_whose_peers_know_no_more_keeps_its_site() {
    let mut core = restarted();
    let mut actions = meet(&mut core, 2, WRITER, &[(HERE, 10)], 5, at(10));
    actions.extend(meet(&mut core, 3, RELAY, &[(HERE, 7)], 5, at(20)));
    actions.extend(tell(&mut core, Event::Tick, at(1_000)));
    actions.extend(tell(&mut core, Event::Tick, at(9_000)));
    assert_eq!(renewals(&actions), 0);
    assert!(core.is_settled());
    assert_eq!(actions.iter().filter(|action| matches!(action, Action::Settled)).count(), 1);
}

#[test]
fn after_the_first_answer_the_other_connected_peers_are_waited_for_a_while() {
    let connected = || {
        let mut core = restarted();
        tell(&mut core, Event::PeerUp { peer: peer(3), rtt: at(5), region: "fra".into() }, at(0));
        meet(&mut core, 2, WRITER, &[(HERE, 10)], 5, at(10));
        assert!(!core.is_settled(), "a peer that is connected has not answered");
        core
    };
    let mut core = connected();
    tell(&mut core, Event::Tick, at(250));
    assert!(!core.is_settled());
    assert_eq!(renewals(&heads(&mut core, 3, RELAY, &[(HERE, 11)], at(280))), 1, "it knows more");

    let mut core = connected();
    assert_eq!(renewals(&tell(&mut core, Event::Tick, at(400))), 0);
    assert!(core.is_settled(), "it does not answer");
}

#[test]
fn i2_a_node_that_nobody_answers_renews_its_site_whatever_it_holds() {
    for mut core in [restarted(), core(&[(WRITER, 4)], Start::Asking), core(&[], Start::Asking)] {
        let early = [1_000, 4_900].map(|now| tell(&mut core, Event::Tick, at(now))).concat();
        assert_eq!(renewals(&early), 0, "patience");
        assert!(!core.is_settled());
        let late = [5_000, 5_100, 9_000].map(|now| tell(&mut core, Event::Tick, at(now))).concat();
        assert_eq!(renewals(&late), 1);
        assert!(!core.is_settled());
    }
}

#[test]
fn i2_a_node_whose_disk_is_in_doubt_renews_its_site_at_once_whatever_its_peers_say() {
    for held in [&[][..], &[(HERE, 10)]] {
        let mut core = core(held, Start::InDoubt { alone: false });
        let mut actions = core.actions();
        actions.extend(meet(&mut core, 2, WRITER, held, 5, at(10)));
        actions.extend(tell(&mut core, Event::Tick, at(9_000)));
        assert_eq!(renewals(&actions), 1);
        assert!(!core.is_settled(), "not before the new site id is on the disk");
        tell(&mut core, goes_on(held), at(9_010));
        assert!(core.is_settled());
    }
}

fn goes_on(held: &[(SiteId, u64)]) -> Event {
    Event::SiteRenewed { site: SiteId([9; 16]), vector: Arc::new(vector(held)) }
}

#[test]
fn a_node_whose_disk_was_in_doubt_knows_what_it_lacks_before_it_is_settled() {
    let in_doubt = |alone| {
        let mut core = core(&[(HERE, 10)], Start::InDoubt { alone });
        assert_eq!(renewals(&core.actions()), 1);
        tell(&mut core, goes_on(&[(HERE, 10)]), at(100));
        core
    };
    assert!(in_doubt(true).is_settled(), "there is nobody to ask");
    let mut core = in_doubt(false);
    assert!(!core.is_settled());
    let actions = meet(&mut core, 2, WRITER, &[(HERE, 12)], 5, at(200));
    assert!(core.is_settled(), "the only peer has said what it holds");
    assert_eq!(renewals(&actions), 0);
    let mut core = in_doubt(false);
    assert_eq!(renewals(&tell(&mut core, Event::Tick, at(5_000))), 0);
    assert!(!core.is_settled());
    assert_eq!(renewals(&tell(&mut core, Event::Tick, at(5_200))), 0, "once is enough");
    assert!(core.is_settled(), "nobody answers");
}

#[test]
fn a_node_that_was_given_nobody_to_ask_may_write_at_once() {
    assert!(core(&[(HERE, 10)], Start::Alone).is_settled());
}

#[test]
fn i2_a_part_of_a_peers_heads_is_no_answer() {
    let mut core = restarted();
    tell(&mut core, Event::PeerUp { peer: peer(2), rtt: at(5), region: "fra".into() }, at(0));
    let part = |vector, complete| Event::Heads {
        peer: peer(2),
        site: WRITER,
        vector,
        reading: Reading::Whole,
        complete,
    };
    tell(&mut core, part(vector(&[(WRITER, 3)]), false), at(10));
    assert!(!core.is_settled());
    assert_eq!(
        renewals(&tell(&mut core, part(vector(&[(HERE, 12)]), true), at(11))),
        1,
        "the rest knows more"
    );
}
