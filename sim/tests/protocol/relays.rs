//! Relays: with more nodes than a number, a log crosses to another region once.

use mychat_replication::{
    NodeId,
    log::SiteId,
    protocol::{Action, Config, Core, Event, Start},
};

use crate::directed::{HERE, at, follows, heads, some_frame, tell, vector};

/// The site of a node far away. Of these ids, 0x10 is nearest to it, then 0x12.
const FAR: SiteId = SiteId([0x11; 16]);
const NEAR: SiteId = SiteId([0x77; 16]);
const WRITER: u8 = 0x50;

const fn node(number: u8) -> NodeId {
    NodeId([number; 16])
}

/// Node `me` of Frankfurt in a cluster of five: 0x10, 0x12 and 0x40 are there, 0x50 and 0x51 in Washington.
fn cluster(me: u8, relay_above: usize) -> (Core, Vec<Action>) {
    let config = Config { node: node(me), region: "fra".into(), relay_above };
    let mut core = Core::new(config, HERE, vector(&[]), Start::Alone);
    let mut actions = Vec::new();
    for number in [0x10, 0x12, 0x40, WRITER, 0x51].into_iter().filter(|number| *number != me) {
        let region = if number < WRITER { "fra" } else { "iad" };
        let site = match number {
            WRITER => FAR,
            0x12 if me != 0x12 => NEAR,
            other => SiteId([other; 16]),
        };
        let up = Event::PeerUp { peer: node(number), rtt: at(u64::from(number)), region: region.into() };
        actions.extend(tell(&mut core, up, at(0)));
        actions.extend(heads(&mut core, number, site, &[], at(0)));
    }
    (core, actions)
}

/// Whom the site is followed from at last, and from which version on.
fn asked(actions: &[Action], site: SiteId) -> Option<(NodeId, u64)> {
    follows(actions).iter().rfind(|follow| follow.2 == site).map(|follow| (follow.1, follow.3))
}

#[test]
fn a_site_of_another_region_comes_through_the_relay_of_the_own_one() {
    assert_eq!(asked(&cluster(0x40, 3).1, FAR), Some((node(0x10), 0)));
    assert_eq!(asked(&cluster(0x12, 3).1, FAR), Some((node(0x10), 0)));
}

#[test]
fn the_relay_follows_the_site_itself() {
    assert_eq!(asked(&cluster(0x10, 3).1, FAR), Some((node(WRITER), 0)));
}

#[test]
fn a_site_of_the_own_region_is_followed_directly() {
    assert_eq!(asked(&cluster(0x40, 3).1, NEAR), Some((node(0x12), 0)));
}

#[test]
fn up_to_the_number_of_nodes_there_are_no_relays() {
    assert_eq!(asked(&cluster(0x40, 5).1, FAR), Some((node(WRITER), 0)));
}

#[test]
fn a_relay_that_dies_costs_no_time_the_next_is_asked_from_the_same_integer() {
    let (mut core, actions) = cluster(0x40, 3);
    let stream = follows(&actions).iter().rfind(|follow| follow.2 == FAR).expect("it is followed").0;
    let frame = some_frame(FAR, 1, 10);
    tell(&mut core, Event::Received { stream, frame: frame.clone() }, at(10));
    let held = std::sync::Arc::new(vector(&[(FAR, 1)]));
    tell(&mut core, Event::Committed { frames: vec![frame], vector: held, local: false }, at(10));
    tell(&mut core, Event::Applied { ok: true }, at(10));
    let actions = tell(&mut core, Event::PeerDown { peer: node(0x10) }, at(20));
    assert_eq!(asked(&actions, FAR), Some((node(0x12), 1)));

    let (mut next, _) = cluster(0x12, 3);
    let actions = tell(&mut next, Event::PeerDown { peer: node(0x10) }, at(20));
    assert_eq!(asked(&actions, FAR), Some((node(WRITER), 0)), "it is the relay now");
}

#[test]
fn a_relay_that_lacks_more_than_the_site_for_a_heartbeat_is_passed_by() {
    let (mut core, _) = cluster(0x40, 3);
    heads(&mut core, WRITER, FAR, &[(FAR, 9)], at(1_000));
    assert_eq!(asked(&tell(&mut core, Event::Tick, at(1_100)), FAR), None);
    assert_eq!(asked(&tell(&mut core, Event::Tick, at(1_200)), FAR), Some((node(WRITER), 0)));
    assert_eq!(
        asked(&tell(&mut core, Event::Tick, at(4_000)), FAR),
        Some((node(0x10), 0)),
        "it is tried again"
    );
}

#[test]
fn a_node_that_is_far_behind_is_no_relay_yet() {
    let config = Config { node: node(0x40), region: "fra".into(), relay_above: 2 };
    let mut core = Core::new(config, HERE, vector(&[(FAR, 50_000)]), Start::Alone);
    for (number, region) in [(0x10, "fra"), (0x12, "fra"), (WRITER, "iad")] {
        tell(&mut core, Event::PeerUp { peer: node(number), rtt: at(5), region: region.into() }, at(0));
    }
    heads(&mut core, 0x12, NEAR, &[(FAR, 49_900)], at(0));
    heads(&mut core, 0x10, SiteId([0x10; 16]), &[(FAR, 7)], at(0));
    let actions = heads(&mut core, WRITER, FAR, &[(FAR, 50_010)], at(0));
    assert_eq!(asked(&actions, FAR), Some((node(0x12), 50_000)), "the next one keeps up");
    let actions = heads(&mut core, 0x10, SiteId([0x10; 16]), &[(FAR, 49_950)], at(900));
    assert_eq!(asked(&actions, FAR), Some((node(0x10), 50_000)), "it has caught up");
}

#[test]
fn without_the_writer_a_log_comes_from_whoever_holds_more_of_it_first_from_the_own_region() {
    let (mut core, _) = cluster(0x40, 3);
    for number in [0x10, 0x12] {
        tell(&mut core, Event::PeerDown { peer: node(number) }, at(10));
    }
    tell(&mut core, Event::PeerUp { peer: node(0x12), rtt: at(900), region: "fra".into() }, at(20));
    tell(&mut core, Event::PeerDown { peer: node(WRITER) }, at(30));
    heads(&mut core, 0x51, SiteId([0x51; 16]), &[(FAR, 5)], at(30));
    let actions = heads(&mut core, 0x12, NEAR, &[(FAR, 5)], at(40));
    assert_eq!(asked(&actions, FAR), None, "it is followed already");
    let actions = tell(&mut core, Event::PeerDown { peer: node(0x51) }, at(50));
    assert_eq!(asked(&actions, FAR), Some((node(0x12), 0)));
}
