//! Single situations.

use std::time::Duration;

use super::{
    super::core::{BEAT, Core, LEASE, LINGER, Now},
    world::{World, account, space},
};

/// Two nodes; one person at each and one more at the first, in one space.
fn pair() -> World {
    let mut world = World::new(2, 1);
    world.join(account(1), &[1]);
    world.join(account(2), &[1]);
    world.join(account(3), &[1]);
    world.open(0, account(1));
    world.open(1, account(2));
    world.open(0, account(3));
    world.run(Duration::from_secs(2));
    world.check();
    assert!(world.is_online(0, account(2)) && world.is_online(1, account(1)));
    world
}

#[test]
fn whoever_comes_back_at_once_has_not_been_away() {
    let mut world = pair();
    world.close(0, account(1));
    world.run(LINGER / 2);
    assert!(world.is_online(1, account(1)));
    world.open(1, account(1));
    world.run(2 * LINGER);
    assert!(world.is_online(0, account(1)));
    world.check();
    world.close(1, account(1));
    world.run(2 * LINGER);
    assert!(!world.is_online(0, account(1)) && !world.is_online(1, account(1)));
}

#[test]
fn the_people_of_a_node_that_crashed_are_gone_within_ten_seconds() {
    let mut world = pair();
    world.crash(0);
    world.run(Duration::from_secs(10));
    assert!(!world.is_online(1, account(1)));
    world.restart(0);
    world.open(0, account(1));
    world.run(Duration::from_secs(2));
    assert!(world.is_online(1, account(1)), "it is listened to in its next life");
}

#[test]
fn what_is_not_renewed_ends() {
    let mut world = pair();
    world.lost = 100;
    world.run(LEASE + BEAT);
    assert!(!world.is_online(1, account(1)) && !world.is_online(0, account(2)));
    world.lost = 0;
    world.run(3 * BEAT);
    world.check();
    assert!(world.is_online(1, account(1)));
}

#[test]
fn presence_goes_only_where_somebody_in_a_shared_space_is() {
    let mut world = World::new(3, 1);
    world.join(account(1), &[1]);
    world.join(account(2), &[1]);
    world.join(account(3), &[2]);
    world.open(1, account(2));
    world.open(2, account(3));
    world.run(Duration::from_secs(2));
    assert_eq!(world.watchers(0, 1), 1);
    for _ in 0..20 {
        world.open(0, account(1));
        world.run(Duration::from_millis(300));
        world.close(0, account(1));
        world.run(LINGER + Duration::from_millis(300));
    }
    assert!(world.is_online(1, account(2)) && !world.is_online(2, account(1)));
    assert!(world.named[&(0, 1)] >= 40);
    assert_eq!(world.named[&(0, 2)], 0);
    world.run(Duration::from_secs(1));
    world.check();
}

#[test]
fn flapping_is_told_once() {
    let mut world = pair();
    let before = world.sent[&(0, 1)];
    for _ in 0..50 {
        world.close(0, account(1));
        world.run(Duration::from_millis(100));
        world.open(0, account(1));
        world.run(Duration::from_millis(100));
    }
    let beats = 10_000 / BEAT.as_millis() as u64 + 1;
    assert!(world.sent[&(0, 1)] - before <= beats, "nothing but beats");
    world.check();
}

#[test]
fn what_could_not_be_told_is_told_later() {
    let mut core = Core::new(1);
    core.here(account(1), Some([space(1)].into()), Now::ZERO);
    core.here(account(2), Some([space(1)].into()), Now::ZERO);
    let news = core.news(10);
    assert_eq!((news.len(), core.has_news()), (2, false));
    // Meanwhile one of them has gone, of whom nobody has heard then.
    core.here(account(2), None, Now::ZERO);
    core.tick(LINGER);
    core.untold(news);
    assert_eq!(core.news(10), [(account(1), true)]);
    assert!(core.news(10).is_empty());
}
