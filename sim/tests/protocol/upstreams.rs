//! Whom the core asks for a log, and when it asks somebody else.

use mychat_replication::{
    log::SiteId,
    protocol::{Action, Event, Start, StreamId},
};

use crate::directed::{
    RELAY, WRITER, at, core, following_the_writer, follows, heads, meet, peer, some_frame, take, tell,
};
use mychat_replication::log::Version;

#[test]
fn when_an_upstream_dies_the_next_is_asked_from_the_same_integer() {
    let (mut core, stream) = following_the_writer();
    take(&mut core, stream, 3, at(10));
    let actions = tell(&mut core, Event::PeerDown { peer: peer(2) }, at(20));
    let follows = follows(&actions);
    assert_eq!(follows.len(), 1);
    assert_eq!((follows[0].1, follows[0].2, follows[0].3), (peer(3), WRITER, 3));
}

#[test]
fn the_nearer_of_two_relays_is_asked() {
    for (third, fourth, nearer) in [(50, 5, 4), (5, 50, 3)] {
        let mut core = core(&[], Start::Asking);
        meet(&mut core, 2, WRITER, &[(WRITER, 10)], 80, at(0));
        meet(&mut core, 3, RELAY, &[(WRITER, 9)], third, at(0));
        meet(&mut core, 4, SiteId([4; 16]), &[(WRITER, 9)], fourth, at(0));
        let follows = follows(&tell(&mut core, Event::PeerDown { peer: peer(2) }, at(20)));
        assert_eq!(follows.len(), 1);
        assert_eq!((follows[0].1, follows[0].2), (peer(nearer), WRITER));
    }
}

#[test]
fn a_relay_without_more_to_give_is_left_for_one_with_more() {
    let mut core = core(&[], Start::Asking);
    let actions = meet(&mut core, 3, RELAY, &[(WRITER, 2)], 5, at(0));
    let (stream, ..) =
        follows(&actions).into_iter().find(|(_, _, site, _)| *site == WRITER).expect("it is asked");
    take(&mut core, stream, 2, at(10));
    let actions = meet(&mut core, 4, SiteId([4; 16]), &[(WRITER, 9)], 70, at(20));
    assert!(
        actions.iter().any(|action| matches!(action, Action::Unfollow { stream: left } if *left == stream))
    );
    assert!(
        follows(&actions).iter().any(|(_, from, site, after)| (*from, *site, *after) == (peer(4), WRITER, 2))
    );
}

#[test]
fn when_the_writer_is_back_it_is_followed_again() {
    let (mut core, stream) = following_the_writer();
    take(&mut core, stream, 3, at(10));
    let actions = tell(&mut core, Event::PeerDown { peer: peer(2) }, at(20));
    let (relayed, ..) = follows(&actions)[0];
    let actions = meet(&mut core, 2, WRITER, &[(WRITER, 10)], 80, at(900));
    assert!(actions.iter().any(|action| matches!(action, Action::Unfollow { stream } if *stream == relayed)));
    assert!(
        follows(&actions).iter().any(|(_, from, site, after)| (*from, *site, *after) == (peer(2), WRITER, 3))
    );
}

#[test]
fn a_stream_that_was_closed_is_not_asked_for_again_at_once() {
    let (mut core, stream) = following_the_writer();
    let actions = tell(&mut core, Event::UpstreamClosed { stream }, at(20));
    assert_eq!(follows(&actions)[0].1, peer(3), "the relay stands in");
    let actions = tell(&mut core, Event::Tick, at(600));
    assert_eq!(follows(&actions)[0].1, peer(2), "the writer is tried again");
}

/// Whether the writer's log is asked of a peer from after a version.
fn asks(actions: &[Action], number: u8, after: u64) -> bool {
    follows(actions).iter().any(|(_, from, site, at)| (*from, *site, *at) == (peer(number), WRITER, after))
}

#[test]
fn a_silent_upstream_is_left_after_a_heartbeat_for_one_with_more_from_the_same_integer() {
    let (mut core, stream) = following_the_writer();
    take(&mut core, stream, 3, at(10));
    heads(&mut core, 3, RELAY, &[(WRITER, 8)], at(100));
    assert_eq!(follows(&tell(&mut core, Event::Tick, at(250))), [], "its heartbeat is not over");
    let actions = tell(&mut core, Event::Tick, at(300));
    assert!(asks(&actions, 3, 3), "{actions:?}");
    assert!(
        actions.iter().any(|action| matches!(action, Action::Unfollow { stream: left } if *left == stream))
    );
    // It is tried again later, and by then not from the beginning.
    assert!(!asks(&tell(&mut core, Event::Tick, at(400)), 2, 3));
    assert!(asks(&tell(&mut core, Event::Tick, at(2_000)), 2, 3));
}

#[test]
fn an_upstream_that_delivers_is_not_left_however_much_others_have() {
    let (mut core, stream) = following_the_writer();
    for version in 1..=20 {
        let now = at(150 * version);
        heads(&mut core, 3, RELAY, &[(WRITER, 1_000)], now);
        take_one(&mut core, stream, version, now);
        assert_eq!(follows(&tell(&mut core, Event::Tick, now)), []);
    }
}

#[test]
fn an_upstream_whose_frames_wait_to_be_applied_is_not_late() {
    let (mut core, stream) = following_the_writer();
    tell(&mut core, Event::Received { stream, frame: some_frame(WRITER, 1, 10) }, at(10));
    for now in [200, 400, 600] {
        heads(&mut core, 3, RELAY, &[(WRITER, 8)], at(now));
        assert_eq!(follows(&tell(&mut core, Event::Tick, at(now))), [], "the disk is slow, not the writer");
    }
}

#[test]
fn a_silent_upstream_stays_where_nobody_else_has_more() {
    let mut core = core(&[], Start::Asking);
    meet(&mut core, 2, WRITER, &[(WRITER, 10)], 5, at(0));
    for now in [200, 400, 800, 1_600] {
        heads(&mut core, 2, WRITER, &[(WRITER, 10)], at(now));
        assert_eq!(follows(&tell(&mut core, Event::Tick, at(now))), []);
    }
}

#[test]
fn each_upstream_that_is_late_makes_the_next_get_more_time_until_one_delivers() {
    let mut core = core(&[], Start::Asking);
    for number in [2, 3] {
        let site = if number == 2 { WRITER } else { RELAY };
        meet(&mut core, number, site, &[(WRITER, 9)], 0, at(0));
    }
    let mut waited = Vec::new();
    let mut since = 0;
    for now in (0..20_000).step_by(100) {
        heads(&mut core, 3, RELAY, &[(WRITER, 9)], at(now));
        let actions = tell(&mut core, Event::Tick, at(now));
        if follows(&actions).iter().any(|(_, _, site, _)| *site == WRITER) {
            waited.push(now - since);
            since = now;
        }
    }
    let longest = waited.iter().max().copied().unwrap_or_default();
    assert!(longest >= 1_600, "a slow link gets a frame across in the end: {waited:?}");
    assert!(waited[0] <= 300, "the first is left soon: {waited:?}");
}

#[test]
fn any_peer_serves_any_sites_log() {
    let (mut core, stream) = following_the_writer();
    take(&mut core, stream, 3, at(10));
    let follower = StreamId(1);
    let opened = Event::FollowerOpened { stream: follower, peer: peer(3), site: WRITER, after: Version(1) };
    let actions = tell(&mut core, opened, at(20));
    assert!(matches!(actions[..], [Action::ReadLog { site: WRITER, after: Version(1), .. }]), "{actions:?}");
    let frames = vec![some_frame(WRITER, 2, 10), some_frame(WRITER, 3, 10)];
    tell(&mut core, Event::LogRead { stream: follower, frames }, at(30));
    // And what comes in for it from then on is passed on at once.
    let frame = some_frame(WRITER, 4, 10);
    let vector = std::sync::Arc::new(crate::directed::vector(&[(WRITER, 4)]));
    let actions = tell(&mut core, Event::Committed { frames: vec![frame], vector, local: false }, at(40));
    assert!(matches!(actions[..], [Action::Send { stream: to, .. }] if to == follower), "{actions:?}");
}

/// Receives one version of the writer, and applies it.
fn take_one(
    core: &mut mychat_replication::protocol::Core,
    stream: StreamId,
    version: u64,
    now: std::time::Duration,
) {
    let frame = some_frame(WRITER, version, 10);
    tell(core, Event::Received { stream, frame: frame.clone() }, now);
    let vector = std::sync::Arc::new(crate::directed::vector(&[(WRITER, version)]));
    tell(core, Event::Committed { frames: vec![frame], vector, local: false }, now);
    tell(core, Event::Applied { ok: true }, now);
}

#[test]
fn a_late_datagram_of_a_peer_that_is_gone_makes_it_no_upstream() {
    let mut core = core(&[], Start::Asking);
    meet(&mut core, 3, RELAY, &[], 5, at(0));
    heads(&mut core, 2, WRITER, &[(WRITER, 9)], at(10));
    let actions = heads(&mut core, 3, RELAY, &[(WRITER, 9)], at(20));
    let asked: Vec<_> = follows(&actions).into_iter().map(|(_, from, site, _)| (from, site)).collect();
    assert_eq!(asked, [(peer(3), WRITER)]);
}

#[test]
fn a_log_that_nobody_writes_or_holds_more_of_is_left_until_somebody_does() {
    let mut core = core(&[], Start::Asking);
    let actions = meet(&mut core, 3, RELAY, &[(WRITER, 2)], 5, at(0));
    let (stream, ..) =
        follows(&actions).into_iter().find(|(_, _, site, _)| *site == WRITER).expect("it is asked");
    take(&mut core, stream, 2, at(1_000));
    let leaves = |actions: &[Action]| {
        actions.iter().any(|action| matches!(action, Action::Unfollow { stream: left } if *left == stream))
    };
    assert!(!leaves(&tell(&mut core, Event::Tick, at(9_000))), "its writer may come back");
    assert!(leaves(&tell(&mut core, Event::Tick, at(11_100))));
    assert!(!asks(&tell(&mut core, Event::Tick, at(20_000)), 3, 2), "there is nothing to ask for");
    let actions = heads(&mut core, 3, RELAY, &[(WRITER, 5)], at(20_100));
    assert!(asks(&actions, 3, 2));
}

#[test]
fn the_writer_itself_is_followed_however_long_it_is_silent() {
    let (mut core, stream) = following_the_writer();
    take(&mut core, stream, 10, at(10));
    for second in 1..100 {
        let actions = tell(&mut core, Event::Tick, at(second * 1000));
        assert!(!actions.iter().any(|action| matches!(action, Action::Unfollow { .. })), "after {second} s");
        heads(&mut core, 2, WRITER, &[(WRITER, 10)], at(second * 1000));
    }
}
