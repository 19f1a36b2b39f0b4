//! Whatever happens, in whatever order, with whatever losses: some seconds later all nodes are right.

use std::time::Duration;

use proptest::prelude::*;

use super::world::{World, account};

#[derive(Debug, Clone)]
enum Step {
    Open(usize, u8),
    Close(usize, u8),
    Join(u8, Vec<u8>),
    Crash(usize),
    Restart(usize),
    Run(u64),
}

const NODES: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..NODES, 0u8..12).prop_map(|(node, who)| Step::Open(node, who)),
        5 => (0..NODES, 0u8..12).prop_map(|(node, who)| Step::Close(node, who)),
        2 => (0u8..12, prop::collection::vec(0u8..6, 0..3)).prop_map(|(who, spaces)| Step::Join(who, spaces)),
        1 => (0..NODES).prop_map(Step::Crash),
        1 => (0..NODES).prop_map(Step::Restart),
        6 => (50u64..3000).prop_map(Step::Run),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn all_nodes_come_to_be_right(
        seed in any::<u64>(),
        lost in 0u32..40,
        doubled in 0u32..30,
        steps in prop::collection::vec(step(), 10..80),
    ) {
        let mut world = World::new(NODES, seed);
        (world.lost, world.doubled) = (lost, doubled);
        for who in 0..12 {
            world.join(account(who), &[who % 6, who / 3]);
        }
        for step in steps {
            match step {
                Step::Open(node, who) => world.open(node, account(who)),
                Step::Close(node, who) => world.close(node, account(who)),
                Step::Join(who, spaces) => world.join(account(who), &spaces),
                Step::Crash(node) => world.crash(node),
                Step::Restart(node) => world.restart(node),
                Step::Run(millis) => world.run(Duration::from_millis(millis)),
            }
        }
        // The network gets well; after a crash everybody is right within ten seconds.
        (world.lost, world.doubled) = (0, 0);
        world.run(Duration::from_secs(10));
        world.check();
    }
}
