//! A cluster in virtual time whose network is between continents: packets take half a round trip, some get lost, paths
//! break in one direction or both, and connections follow as QUIC's would: lost after its idle timeout, made again by
//! redialing. All chance comes from a seed.

use std::collections::HashSet;
use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::identity::Role;

/// How long QUIC takes to notice a dead path: its idle timeout and up to one keep-alive (`mesh/endpoint.rs`).
const NOTICED: std::ops::RangeInclusive<u64> = 3_500..=4_200;
/// The links are looked at this often.
const STEP: Duration = Duration::from_millis(50);
/// A pair of members has a connection of each direction, and packets go over both.
const COPIES: u64 = 2;

#[derive(Clone, Copy)]
pub(super) struct Weather {
    pub(super) one_way: Duration,
    /// Of packets, in each direction.
    pub(super) loss: f64,
}

/// Round trips of 300 ms of which one packet in fifty is lost each way.
pub(super) const OCEANS: Weather = Weather { one_way: Duration::from_millis(150), loss: 0.02 };

pub(super) struct World {
    pub(super) members: Vec<Membership>,
    net: Arc<Net>,
    lives: Vec<CancellationToken>,
    all: CancellationToken,
}

struct Net {
    weather: Weather,
    ids: Vec<Member>,
    state: Mutex<State>,
}

struct State {
    random: StdRng,
    members: Vec<Membership>,
    /// Paths that carry nothing, by sender and receiver.
    blocked: HashSet<(usize, usize)>,
    crashed: HashSet<usize>,
    links: Vec<Vec<Link>>,
    /// Packets that each member sent.
    sent: Vec<u64>,
    dials: u64,
}

/// Between two members, kept once for both.
#[derive(Clone, Copy)]
struct Link {
    open: bool,
    /// When the connection breaks or opens if nothing changes on the way.
    turns: Option<Instant>,
}

#[derive(Clone)]
struct Wire {
    me: usize,
    net: Arc<Net>,
}

fn number(node: NodeId) -> usize {
    node.0[0].into()
}

impl State {
    fn passes(&self, from: usize, to: usize) -> bool {
        !self.blocked.contains(&(from, to)) && !self.crashed.contains(&from) && !self.crashed.contains(&to)
    }

    fn is_open(&self, one: usize, other: usize) -> bool {
        self.links[one.min(other)][one.max(other)].open
    }
}

impl Carrier for Wire {
    fn carry(&self, to: &Member, packet: Bytes) {
        let (from, to) = (self.me, number(to.node));
        let mut state = self.net.state.lock().unwrap();
        if !state.is_open(from, to) {
            return;
        }
        state.sent[from] += COPIES;
        for _ in 0..COPIES {
            if !state.passes(from, to) || state.random.random_bool(self.net.weather.loss) {
                continue;
            }
            let (membership, packet) = (state.members[to].clone(), packet.clone());
            let one_way = self.net.weather.one_way;
            tokio::spawn(async move {
                sleep(one_way).await;
                membership.receive(packet);
            });
        }
    }

    fn reaches(&self, node: NodeId) -> bool {
        self.net.state.lock().unwrap().is_open(self.me, number(node))
    }

    fn reached(&self) -> Vec<Member> {
        let state = self.net.state.lock().unwrap();
        let open = |other: &usize| *other != self.me && state.is_open(self.me, *other);
        (0..self.net.ids.len()).filter(open).map(|other| self.net.ids[other].clone()).collect()
    }

    fn up(&self, _member: &Member) {}
}

impl World {
    /// Members that all know each other.
    pub(super) async fn start(count: usize, weather: Weather, seed: u64) -> Self {
        let id = |number: usize| {
            let byte = u8::try_from(number).expect("a small cluster");
            let addr = format!("192.0.2.{number}:4000").parse().unwrap();
            Member::new(NodeId([byte; 16]), Role::Node, "fra".into(), addr, 1)
        };
        let ids: Vec<_> = (0..count).map(id).collect();
        let (members, drivers): (Vec<_>, Vec<_>) =
            ids.iter().zip(0..).map(|(id, at)| seeded(id, seed * 1000 + at)).unzip();
        let state = State {
            random: StdRng::seed_from_u64(seed),
            members: members.clone(),
            blocked: HashSet::new(),
            crashed: HashSet::new(),
            links: vec![vec![Link { open: false, turns: None }; count]; count],
            sent: vec![0; count],
            dials: 0,
        };
        let net = Arc::new(Net { weather, ids, state: Mutex::new(state) });
        let all = CancellationToken::new();
        let lives: Vec<_> = (0..count).map(|_| all.child_token()).collect();
        for ((me, driver), life) in (0..).zip(drivers).zip(&lives) {
            tokio::spawn(driver.run(Wire { me, net: net.clone() }, life.clone()));
        }
        tokio::spawn(all.clone().run_until_cancelled_owned(links(net.clone())));
        let world = Self { members, net, lives, all };
        until("all up", || (0..count).all(|one| world.ups(one) == count - 1)).await;
        world
    }

    /// How many others a member calls up.
    pub(super) fn ups(&self, of: usize) -> usize {
        self.members[of].up().len()
    }

    /// What a member says of another.
    pub(super) fn standing(&self, of: usize, about: usize) -> Option<Standing> {
        self.standings(of).into_iter().find(|(other, _)| *other == about).map(|(_, standing)| standing)
    }

    /// What a member says of each other.
    pub(super) fn standings(&self, of: usize) -> Vec<(usize, Standing)> {
        let lives = self.members[of].roster.read();
        lives.iter().map(|(node, life)| (number(*node), life.standing())).collect()
    }

    pub(super) fn is_alive(&self, of: usize, about: usize) -> bool {
        self.members[of].is_alive(self.net.ids[about].node)
    }

    pub(super) fn id(&self, of: usize) -> NodeId {
        self.net.ids[of].node
    }

    /// The member's machine is gone without a word.
    pub(super) fn crash(&self, who: usize) {
        self.lives[who].cancel();
        self.net.state.lock().unwrap().crashed.insert(who);
    }

    pub(super) fn block(&self, from: usize, to: usize) {
        self.net.state.lock().unwrap().blocked.insert((from, to));
    }

    pub(super) fn unblock(&self, from: usize, to: usize) {
        self.net.state.lock().unwrap().blocked.remove(&(from, to));
    }

    /// Packets that each member has sent so far.
    pub(super) fn sent(&self) -> Vec<u64> {
        self.net.state.lock().unwrap().sent.clone()
    }

    /// Connections made so far.
    pub(super) fn dials(&self) -> u64 {
        self.net.state.lock().unwrap().dials
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.all.cancel();
    }
}

/// Breaks and makes the connections.
async fn links(net: Arc<Net>) {
    let mut steps = interval(STEP);
    loop {
        steps.tick().await;
        for (one, other, open) in turned(&net) {
            let members = net.state.lock().unwrap().members.clone();
            for (of, about) in [(one, other), (other, one)] {
                match open {
                    true => members[of].greeted(net.ids[about].clone()).await,
                    false => members[of].lost(net.ids[about].node).await,
                }
            }
        }
    }
}

fn turned(net: &Net) -> Vec<(usize, usize, bool)> {
    let (mut state, now, mut turned) = (net.state.lock().unwrap(), Instant::now(), Vec::new());
    for one in 0..net.ids.len() {
        for other in one + 1..net.ids.len() {
            let passes = state.passes(one, other) && state.passes(other, one);
            let link = state.links[one][other];
            let turns = match link.turns {
                _ if link.open == passes => None,
                Some(at) if at <= now => {
                    state.links[one][other].open = passes;
                    state.dials += u64::from(passes);
                    turned.push((one, other, passes));
                    None
                }
                Some(at) => Some(at),
                None if link.open => Some(now + Duration::from_millis(state.random.random_range(NOTICED))),
                // A pause of the backoff, the handshake and the greeting.
                None => {
                    let pause = Duration::from_millis(state.random.random_range(50..=5_000));
                    Some(now + pause.min(Duration::from_secs(5)) + net.weather.one_way * 4)
                }
            };
            state.links[one][other].turns = turns;
        }
    }
    turned
}
