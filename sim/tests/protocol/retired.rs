//! Retired sites: what waits for them, and what heads say of them.

use std::sync::Arc;

use mychat_replication::{
    NodeId,
    log::{Frame, SiteId, VersionVector},
    protocol::{Action, Core, Event, Reading, Start, StreamId},
};

use crate::{
    directed::{HERE, WRITER, at, core, follows, meet, peer, some_frame, tell, vector},
    disk::{frame, retirement},
};

/// The site that the writer wrote before.
const FORMER: SiteId = SiteId([7; 16]);

/// The writer's first version: it holds its former log up to version 2.
fn first() -> Arc<Frame> {
    Arc::new(frame(WRITER, 0, 1, vec![retirement(FORMER, 2, WRITER, NodeId([2; 16]))]))
}

/// A core that has received the writer's first two versions, and nothing of what they follow.
fn waiting() -> (Core, Vec<Action>) {
    let mut core = core(&[], Start::Alone);
    let (stream, ..) = follows(&meet(&mut core, 2, WRITER, &[(WRITER, 2)], 5, at(0)))[0];
    let mut actions = tell(&mut core, Event::Received { stream, frame: first() }, at(10));
    let second = some_frame(WRITER, 2, 10);
    actions.extend(tell(&mut core, Event::Received { stream, frame: second }, at(10)));
    (core, actions)
}

fn applies(actions: &[Action]) -> Vec<(SiteId, u64)> {
    let of = |action: &Action| match action {
        Action::Apply { frames } => frames.iter().map(|frame| (frame.site, frame.version.0)).collect(),
        _ => Vec::new(),
    };
    actions.iter().flat_map(of).collect()
}

fn committed(core: &mut Core, frame: Arc<Frame>, now: u64) -> Vec<Action> {
    let held = Arc::new(VersionVector::from_iter([(frame.site, frame.version)]));
    let mut actions =
        tell(core, Event::Committed { frames: vec![frame], vector: held, local: false }, at(now));
    actions.extend(tell(core, Event::Applied { ok: true }, at(now)));
    actions
}

/// The heads that go to a peer with the next heartbeat.
fn told(core: &mut Core, number: u8, now: u64) -> (VersionVector, Reading) {
    let actions = tell(core, Event::Tick, at(now));
    let heads = actions.into_iter().find_map(|action| match action {
        Action::SendHeads { peer: to, vector, reading, .. } if to == peer(number) => Some((vector, reading)),
        _ => None,
    });
    let (vector, reading) = heads.expect("heads are sent");
    (vector.as_ref().clone(), reading)
}

#[test]
fn a_log_waits_for_the_log_that_it_follows_which_is_asked_for_at_once() {
    let (mut core, actions) = waiting();
    assert_eq!(applies(&actions), [], "nothing of it before what it vouches for");
    let asked = follows(&actions);
    assert_eq!(asked.iter().map(|ask| (ask.1, ask.2, ask.3)).collect::<Vec<_>>(), [(peer(2), FORMER, 0)]);
    let stream = asked[0].0;
    let mut now = 20;
    for version in [1, 2] {
        let frame = some_frame(FORMER, version, 10);
        let actions = tell(&mut core, Event::Received { stream, frame: frame.clone() }, at(now));
        assert_eq!(applies(&actions), [(FORMER, version)]);
        let actions = committed(&mut core, frame, now);
        assert_eq!(applies(&actions), if version == 2 { vec![(WRITER, 1), (WRITER, 2)] } else { vec![] });
        now += 10;
    }
}

#[test]
fn i2_a_node_that_learns_of_its_own_retirement_goes_on_under_another_site() {
    let mut core = core(&[(HERE, 10)], Start::Alone);
    let (stream, ..) = follows(&meet(&mut core, 2, WRITER, &[(WRITER, 1)], 5, at(0)))[0];
    let of_this = retirement(HERE, 4, WRITER, NodeId([1; 16]));
    let frame = Arc::new(frame(WRITER, 0, 1, vec![of_this]));
    let actions = tell(&mut core, Event::Received { stream, frame }, at(10));
    assert!(actions.iter().any(|action| matches!(action, Action::RenewSite)), "{actions:?}");
    assert!(!core.is_settled());
}

#[test]
fn a_node_that_has_retired_its_own_site_does_not_look_for_yet_another_one() {
    let mut core = core(&[(HERE, 10)], Start::Alone);
    let new = SiteId([9; 16]);
    // As after a snapshot: the news of the first version under the new site come before those of the site.
    let frame = Arc::new(frame(new, 0, 1, vec![retirement(HERE, 10, new, NodeId([1; 16]))]));
    let held = Arc::new(vector(&[(HERE, 10), (new, 1)]));
    let mut actions = tell(
        &mut core,
        Event::Committed { frames: vec![frame], vector: Arc::clone(&held), local: true },
        at(10),
    );
    actions.extend(tell(&mut core, Event::SiteRenewed { site: new, vector: held }, at(20)));
    actions.extend(tell(&mut core, Event::Tick, at(9_000)));
    assert!(!actions.iter().any(|action| matches!(action, Action::RenewSite)), "{actions:?}");
    assert!(core.is_settled());
}

#[test]
fn i2_heads_keep_the_site_that_their_reader_writes_and_are_whole_until_that_is_known() {
    let (mut core, _) = waiting();
    for (number, frame) in
        [some_frame(FORMER, 1, 10), some_frame(FORMER, 2, 10), first()].into_iter().enumerate()
    {
        committed(&mut core, frame, 20 + number as u64);
    }
    let held = vector(&[(FORMER, 2), (WRITER, 1)]);
    tell(&mut core, Event::PeerUp { peer: peer(3), rtt: at(5), region: "fra".into() }, at(30));
    assert_eq!(told(&mut core, 3, 300), (held.clone(), Reading::Whole), "it has not said what it writes");
    assert_eq!(told(&mut core, 2, 600), (vector(&[(WRITER, 1)]), Reading::Compact { reader: WRITER }));
    // An older copy of the writer comes up under the former site: it must hear that others know of it.
    meet(&mut core, 3, FORMER, &[(FORMER, 1)], 5, at(700));
    assert_eq!(told(&mut core, 3, 900), (held.clone(), Reading::Compact { reader: FORMER }));
    let heads = Event::Heads {
        peer: peer(3),
        site: FORMER,
        vector: vector(&[]),
        reading: Reading::Old,
        complete: true,
    };
    tell(&mut core, heads, at(1_000));
    assert_eq!(told(&mut core, 3, 1_200), (held, Reading::Whole), "an older release reads nothing else");
}

#[test]
fn i2_heads_that_were_made_for_another_reader_are_no_answer() {
    let mut core = core(&[(HERE, 10)], Start::Asking);
    tell(&mut core, Event::PeerUp { peer: peer(2), rtt: at(5), region: "fra".into() }, at(0));
    for (reader, settled) in [(FORMER, false), (HERE, true)] {
        let reading = Reading::Compact { reader };
        let heads = Event::Heads {
            peer: peer(2),
            site: WRITER,
            vector: vector(&[(WRITER, 5)]),
            reading,
            complete: true,
        };
        tell(&mut core, heads, at(100));
        assert_eq!(core.is_settled(), settled, "made for {reader:?}");
    }
}

#[test]
fn what_heads_leave_out_is_asked_for_from_the_peer_that_left_it_out() {
    let (mut core, _) = waiting();
    tell(&mut core, Event::PeerDown { peer: peer(2) }, at(20));
    meet(&mut core, 3, SiteId([3; 16]), &[], 5, at(30));
    let reading = Reading::Compact { reader: HERE };
    let heads = Event::Heads {
        peer: peer(3),
        site: SiteId([3; 16]),
        vector: vector(&[(WRITER, 1)]),
        reading,
        complete: true,
    };
    let asked: Vec<(StreamId, NodeId, SiteId, u64)> = follows(&tell(&mut core, heads, at(40)));
    assert!(asked.iter().any(|ask| (ask.1, ask.2) == (peer(3), FORMER)), "{asked:?}");
}
