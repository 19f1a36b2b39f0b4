mod wan;
mod world;

use std::collections::HashSet;
use std::sync::Mutex;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::identity::Role;

/// A network in memory whose packets take half a round trip. Connections are as the test says.
#[derive(Clone)]
struct Net {
    me: Member,
    wires: Arc<Wires>,
}

#[derive(Default)]
struct Wires {
    members: Mutex<HashMap<NodeId, (Member, Membership)>>,
    /// Nobody reaches them and they reach nobody.
    cut: Mutex<HashSet<NodeId>>,
    one_way: Duration,
}

impl Wires {
    fn passes(&self, one: NodeId, other: NodeId) -> bool {
        let cut = self.cut.lock().unwrap();
        !cut.contains(&one) && !cut.contains(&other)
    }
}

impl Carrier for Net {
    fn carry(&self, to: &Member, packet: Bytes) {
        let (from, to) = (self.me.node, to.node);
        if !self.wires.passes(from, to) {
            return;
        }
        let Some((_, membership)) = self.wires.members.lock().unwrap().get(&to).cloned() else { return };
        let one_way = self.wires.one_way;
        tokio::spawn(async move {
            sleep(one_way).await;
            membership.receive(packet);
        });
    }

    fn reaches(&self, node: NodeId) -> bool {
        self.wires.passes(self.me.node, node)
    }

    fn reached(&self) -> Vec<Member> {
        let members = self.wires.members.lock().unwrap();
        let others = members.values().map(|(member, _)| member).filter(|member| member.node != self.me.node);
        others.filter(|member| self.reaches(member.node)).cloned().collect()
    }

    fn up(&self, _member: &Member) {}
}

struct Cluster {
    wires: Arc<Wires>,
    cancel: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Cluster {
    fn new(one_way: Duration) -> Self {
        let wires = Arc::new(Wires { one_way, ..Wires::default() });
        Self { wires, cancel: CancellationToken::new() }
    }

    fn start(&self, number: u8, generation: u64) -> Membership {
        let addr = format!("192.0.2.{number}:4000").parse().unwrap();
        let me = Member::new(NodeId([number; 16]), Role::Node, "fra".into(), addr, generation);
        let (membership, driver) = seeded(&me, number.into());
        self.wires.members.lock().unwrap().insert(me.node, (me.clone(), membership.clone()));
        tokio::spawn(driver.run(Net { me, wires: self.wires.clone() }, self.cancel.clone()));
        membership
    }
}

fn node(number: u8) -> NodeId {
    NodeId([number; 16])
}

/// Time is virtual in these tests: waiting costs nothing.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(120), wait).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

fn all_up(members: &[Membership], count: usize) -> bool {
    members.iter().all(|membership| membership.up().len() == count - 1)
}

#[tokio::test(start_paused = true)]
async fn members_that_reach_each_other_are_up() {
    let cluster = Cluster::new(Duration::from_millis(10));
    let members: Vec<_> = (1..=3).map(|number| cluster.start(number, 1)).collect();
    until("all up", || all_up(&members, 3)).await;
    assert!(members[0].is_alive(node(1)), "a member is alive to itself");
}

#[tokio::test(start_paused = true)]
async fn a_lost_member_is_doubted_at_once_and_then_down() {
    let cluster = Cluster::new(Duration::from_millis(10));
    let members: Vec<_> = (1..=3).map(|number| cluster.start(number, 1)).collect();
    until("all up", || all_up(&members, 3)).await;
    cluster.wires.cut.lock().unwrap().insert(node(3));
    members[0].lost(node(3)).await;
    assert!(!members[0].is_alive(node(3)));
    assert!(members[1].is_alive(node(3)), "a doubt is for the one who has it");
    until("down", || members[..2].iter().all(|membership| !membership.is_up(node(3)))).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_only_one_lost_refutes() {
    let cluster = Cluster::new(Duration::from_millis(10));
    let members: Vec<_> = (1..=3).map(|number| cluster.start(number, 1)).collect();
    until("all up", || all_up(&members, 3)).await;
    members[0].lost(node(3)).await;
    assert!(!members[0].is_alive(node(3)));
    until("trusted again", || members[0].is_alive(node(3))).await;
    assert!(all_up(&members, 3));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_leaves_is_down_without_suspicion() {
    let cluster = Cluster::new(Duration::from_millis(10));
    let members: Vec<_> = (1..=3).map(|number| cluster.start(number, 1)).collect();
    until("all up", || all_up(&members, 3)).await;
    members[2].leave().await;
    cluster.wires.cut.lock().unwrap().insert(node(3));
    members[0].left(node(3)).await;
    until("down", || members[..2].iter().all(|membership| !membership.is_up(node(3)))).await;
}

#[tokio::test(start_paused = true)]
async fn a_healed_partition_comes_together_again() {
    let cluster = Cluster::new(Duration::from_millis(40));
    let members: Vec<_> = (1..=4).map(|number| cluster.start(number, 1)).collect();
    until("all up", || all_up(&members, 4)).await;
    cluster.wires.cut.lock().unwrap().insert(node(4));
    until("apart", || members[3].up().is_empty() && all_up(&members[..3], 3)).await;
    cluster.wires.cut.lock().unwrap().clear();
    until("together", || all_up(&members, 4)).await;
}

#[tokio::test(start_paused = true)]
async fn the_younger_process_of_a_node_counts() {
    let cluster = Cluster::new(Duration::from_millis(10));
    let first = cluster.start(1, 1);
    cluster.start(2, 100);
    until("up", || first.is_up(node(2))).await;
    cluster.start(2, 200);
    until("restarted", || first.member(node(2)).is_some_and(|member| member.generation == 200)).await;
    assert!(first.is_up(node(2)));
}
