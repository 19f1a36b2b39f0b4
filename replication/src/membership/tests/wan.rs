//! What the tuning is for, measured: hours of virtual time, many seeds.

use tokio::time::sleep;

use super::world::{OCEANS, World};
use super::*;

/// How often everybody's view is looked at: much more often than a suspicion can come and go, which takes a round trip.
const LOOK: Duration = Duration::from_millis(250);
/// Packets that a member may send a second, over 10 s: 4 of gossip every 300 ms make 27 on two connections; probes,
/// their answers and repetitions, announcements, inquiries and refutations come on top.
const MOST_PACKETS: u64 = 100;

/// Looks at all for this long and calls `see` with each one's word on each other.
async fn watch(world: &World, time: Duration, mut see: impl FnMut(usize, usize, Standing)) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        sleep(LOOK).await;
        for of in 0..world.members.len() {
            for (about, standing) in world.standings(of) {
                see(of, about, standing);
            }
        }
    }
}

/// Counts how often words on others changed between up and down, and checks how much is sent meanwhile.
struct Witness {
    up: HashMap<(usize, usize), bool>,
    changes: HashMap<(usize, usize), u32>,
    most_packets: u64,
}

impl Witness {
    /// Looks on for a number of periods of 10 s, of which each begins with `disturb`.
    async fn watch(world: &World, periods: u64, mut disturb: impl FnMut(u64)) -> Self {
        let mut witness = Self { up: HashMap::new(), changes: HashMap::new(), most_packets: 0 };
        for period in 0..periods {
            disturb(period);
            let before = world.sent();
            let (up, changes) = (&mut witness.up, &mut witness.changes);
            watch(world, Duration::from_secs(10), |of, about, standing| {
                let is_up = standing != Standing::Down;
                if up.insert((of, about), is_up).is_some_and(|was| was != is_up) {
                    *changes.entry((of, about)).or_default() += 1;
                }
            })
            .await;
            let most = world.sent().iter().zip(before).map(|(now, before)| now - before).max();
            witness.most_packets = witness.most_packets.max(most.unwrap_or(0) / 10);
        }
        assert!(witness.most_packets <= MOST_PACKETS, "{} packets a second", witness.most_packets);
        witness
    }

    /// The changes that members saw in others, leaving out what concerns some.
    fn among(&self, strangers: &[usize]) -> u32 {
        let concerns = |of: usize, about: usize| strangers.contains(&of) || strangers.contains(&about);
        self.changes.iter().filter(|((of, about), _)| !concerns(*of, *about)).map(|(_, count)| count).sum()
    }

    /// The most often that one member changed its word on another.
    fn most(&self) -> u32 {
        self.changes.values().copied().max().unwrap_or(0)
    }
}

/// Over six hours in all.
#[tokio::test(start_paused = true)]
async fn nobody_is_suspected_across_oceans() {
    for (count, minutes, seeds) in [(2, 60, 4), (3, 30, 2), (5, 20, 3), (12, 10, 1), (30, 5, 1)] {
        for seed in 0..seeds {
            let world = World::start(count, OCEANS, seed).await;
            // Joining may raise a suspicion of somebody whose connections are not all there yet.
            sleep(Duration::from_secs(30)).await;
            watch(&world, Duration::from_secs(60 * minutes), |of, about, standing| {
                assert_eq!(standing, Standing::Alive, "{of} of {about}, {count} members, seed {seed}");
            })
            .await;
            for of in 0..count {
                assert_eq!(world.ups(of), count - 1);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_noticed_by_every_other_member_within_five_seconds() {
    let (mut slowest, mut slowest_down) = (Duration::ZERO, Duration::ZERO);
    for (count, seeds) in [(2, 40), (5, 30), (12, 10), (30, 3)] {
        for seed in 0..seeds {
            let world = World::start(count, OCEANS, 100 + seed).await;
            sleep(Duration::from_millis(30_000 + seed * 137)).await;
            let others = 1..count;
            let crashed = Instant::now();
            world.crash(0);
            until("noticed", || others.clone().all(|of| !world.is_alive(of, 0))).await;
            slowest = slowest.max(crashed.elapsed());
            until("down", || others.clone().all(|of| world.standing(of, 0) == Some(Standing::Down))).await;
            slowest_down = slowest_down.max(crashed.elapsed());
            assert!(others.clone().all(|of| world.ups(of) == count - 2), "nobody else is down");
        }
    }
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    // The others' word for it follows when the time to refute is over.
    assert!(slowest_down < Duration::from_secs(9), "{slowest_down:?}");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_comes_and_goes_disturbs_nobody_else() {
    for seed in 0..4 {
        let world = World::start(12, OCEANS, 200 + seed).await;
        let flip = |away: bool| {
            for other in 1..12 {
                for (from, to) in [(0, other), (other, 0)] {
                    if away { world.block(from, to) } else { world.unblock(from, to) }
                }
            }
        };
        let periods = 24;
        let dials = world.dials();
        let witness = Witness::watch(&world, periods, |period| flip(period.is_multiple_of(2))).await;
        assert_eq!(witness.among(&[0]), 0, "seed {seed}");
        // Down and up once each time; now and then one more, when the word of its death outlives its return.
        assert!(u64::from(witness.most()) <= 2 * periods, "{} changes, seed {seed}", witness.most());
        assert!(world.dials() - dials <= 11 * periods, "{} connections", world.dials() - dials);
        flip(false);
        until("together", || (0..12).all(|of| world.ups(of) == 11)).await;
    }
}

/// A process that was called down while it ran, and is told so, comes back under a new identity.
#[tokio::test(start_paused = true)]
async fn an_identity_that_was_given_up_is_renewed() {
    let world = World::start(5, OCEANS, 250).await;
    let node = world.id(0);
    world.members[1].left(node).await;
    let renewed = |of: usize| world.members[of].member(node).is_some_and(|member| member.renewal > 0);
    until("renewed", || (1..5).all(|of| renewed(of) && world.members[of].is_up(node))).await;
}

/// Every link between two members breaks now and then, for a time that QUIC does or does not notice.
#[tokio::test(start_paused = true)]
async fn links_that_come_and_go_everywhere_do_not_melt_the_cluster() {
    let world = World::start(12, OCEANS, 300).await;
    let link = |period: u64, nth: u64| {
        let at = (period * 7 + nth * 31) % 132;
        let (one, other) = (at / 11, at % 11);
        (one as usize, if other >= one { other + 1 } else { other } as usize)
    };
    let witness = Witness::watch(&world, 40, |period| {
        for nth in 0..6 {
            if let Some(before) = period.checked_sub(1) {
                let (one, other) = link(before, nth);
                world.unblock(one, other);
                world.unblock(other, one);
            }
            let (one, other) = link(period, nth);
            world.block(one, other);
            world.block(other, one);
        }
    })
    .await;
    // Others reach both ends of a broken link: nobody is down.
    assert_eq!(witness.most(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_path_that_fails_in_one_direction_disturbs_nobody() {
    for seed in 0..4 {
        let world = World::start(8, OCEANS, 400 + seed).await;
        let witness = Witness::watch(&world, 60, |_| world.block(0, 1)).await;
        assert_eq!(witness.most(), 0, "both ends are reached by the others, seed {seed}");
        world.unblock(0, 1);
        until("together", || (0..8).all(|of| world.ups(of) == 7)).await;
    }
}

/// It is heard and hears nothing, or the other way round: it is out, the others go on, and it comes back.
#[tokio::test(start_paused = true)]
async fn a_member_that_is_deaf_or_dumb_is_out_until_it_is_not() {
    for deaf in [true, false] {
        let world = World::start(8, OCEANS, 500).await;
        let paths = (1..8).map(|other| if deaf { (other, 0) } else { (0, other) });
        let witness =
            Witness::watch(&world, 60, |_| paths.clone().for_each(|(from, to)| world.block(from, to))).await;
        assert_eq!(witness.among(&[0]), 0);
        assert!(witness.most() <= 1, "down once, {} changes", witness.most());
        assert!((1..8).all(|of| world.standing(of, 0) == Some(Standing::Down)));
        paths.for_each(|(from, to)| world.unblock(from, to));
        until("together", || (0..8).all(|of| world.ups(of) == 7)).await;
    }
}
