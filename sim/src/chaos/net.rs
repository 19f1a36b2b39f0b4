//! The network between the nodes: UDP relays of our own, which lose, hold back and cut what passes, each direction of
//! each pair by itself. No rights are needed for that.
//!
//! ```text
//!  node a (real port a) ──▶ face of b ──link a▶b──▶ guest (a at b) ──▶ node b (real port b)
//!         ◀───────────────  face of b ◀──link b▶a── guest (a at b) ◀──
//! ```
//!
//! Every node gives out its *face* (`--mesh-public`): a port of the relay that stands for it. Whoever dials the face
//! reaches the node from a *guest* port, one for each pair, so that the answers find their way back. Senders at a face
//! are told apart by their real ports, which they keep over restarts. A pair dials in both directions, so two routes
//! share the two links of a pair.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The largest datagram.
const DATAGRAM: usize = 65_536;
/// Datagrams that one route holds back at most; more are lost, as in a router's queue.
const HELD_BACK: usize = 8_192;
/// The size asked for each socket's buffers: a relay must lose nothing that it was not told to lose.
const BUFFER: usize = 4 << 20;
/// Parts in which a loss is counted.
const WHOLE: u64 = 1_000_000;

/// One direction between two nodes.
#[derive(Default)]
pub(super) struct Link {
    cut: AtomicBool,
    loss: AtomicU64,
    delay_micros: AtomicU64,
    lost: AtomicU64,
}

impl Link {
    fn takes(&self, chance: &mut StdRng) -> bool {
        let loss = self.loss.load(Ordering::Relaxed);
        let takes = !self.cut.load(Ordering::Relaxed) && (loss == 0 || chance.random_range(0..WHOLE) >= loss);
        if !takes {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        takes
    }

    fn delay(&self) -> Duration {
        Duration::from_micros(self.delay_micros.load(Ordering::Relaxed))
    }
}

/// The relays of a cluster. Dropping it ends them.
pub(super) struct Net {
    faces: Vec<SocketAddr>,
    /// By sender and receiver.
    links: Vec<Vec<Arc<Link>>>,
    _relays: JoinSet<()>,
}

impl Net {
    /// Starts the relays for nodes whose mesh is bound to these ports.
    pub(super) fn start(ports: &[u16], delay: Duration, seed: u64) -> anyhow::Result<Self> {
        let count = ports.len();
        let links: Vec<Vec<Arc<Link>>> =
            (0..count).map(|_| (0..count).map(|_| Arc::default()).collect()).collect();
        let real: Vec<SocketAddr> = ports.iter().map(|port| at(*port)).collect();
        let (mut relays, mut faces) = (JoinSet::new(), Vec::new());
        let mut streams = (0u64..).map(|number| seed.wrapping_add(number));
        let mut chance = || StdRng::seed_from_u64(streams.next().unwrap_or(seed));
        for b in 0..count {
            let face = socket()?;
            faces.push(face.local_addr()?);
            let mut guests = Vec::new();
            for a in (0..count).filter(|a| *a != b) {
                let guest = socket()?;
                let there = Route { link: links[a][b].clone(), through: guest.clone(), to: real[b] };
                guests.push((real[a], Lane::start(there, chance(), &mut relays)));
                let back = Route { link: links[b][a].clone(), through: face.clone(), to: real[a] };
                let lane = Lane::start(back, chance(), &mut relays);
                relays.spawn(relay(guest, vec![(real[b], lane)]));
            }
            relays.spawn(relay(face, guests));
        }
        let net = Self { faces, links, _relays: relays };
        net.each(|link| link.delay_micros.store(delay.as_micros() as u64, Ordering::Relaxed));
        Ok(net)
    }

    /// Where the others find this node.
    pub(super) fn face(&self, node: usize) -> SocketAddr {
        self.faces[node]
    }

    /// Cuts, or joins again, the direction from one node to another.
    pub(super) fn cut(&self, from: usize, to: usize, cut: bool) {
        self.links[from][to].cut.store(cut, Ordering::Relaxed);
    }

    /// Cuts a node off from all others.
    pub(super) fn isolate(&self, node: usize) {
        for other in (0..self.links.len()).filter(|other| *other != node) {
            self.cut(node, other, true);
            self.cut(other, node, true);
        }
    }

    /// Loses this share of the datagrams, everywhere.
    pub(super) fn lose(&self, share: f64) {
        self.each(|link| link.loss.store((share * WHOLE as f64) as u64, Ordering::Relaxed));
    }

    /// Neither cuts nor loss.
    pub(super) fn mend(&self) {
        self.lose(0.0);
        self.each(|link| link.cut.store(false, Ordering::Relaxed));
    }

    /// Datagrams that were cut off or lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.links.iter().flatten().map(|link| link.lost.load(Ordering::Relaxed)).sum()
    }

    fn each(&self, change: impl Fn(&Link)) {
        self.links.iter().flatten().for_each(|link| change(link));
    }
}

/// How datagrams go on.
struct Route {
    link: Arc<Link>,
    through: Arc<UdpSocket>,
    to: SocketAddr,
}

/// A route at work: what is held back goes out in its order.
struct Lane {
    route: Arc<Route>,
    chance: StdRng,
    held_back: mpsc::Sender<(Instant, Vec<u8>)>,
}

impl Lane {
    fn start(route: Route, chance: StdRng, relays: &mut JoinSet<()>) -> Self {
        let route = Arc::new(route);
        let (held_back, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(HELD_BACK);
        let going_out = route.clone();
        relays.spawn(async move {
            while let Some((at, datagram)) = due.recv().await {
                tokio::time::sleep_until(at).await;
                // To a node that is down, as on any network.
                let _ = going_out.through.send_to(&datagram, going_out.to).await;
            }
        });
        Self { route, chance, held_back }
    }

    async fn pass(&mut self, datagram: &[u8]) {
        if !self.route.link.takes(&mut self.chance) {
            return;
        }
        let delay = self.route.link.delay();
        if delay.is_zero() {
            let _ = self.route.through.send_to(datagram, self.route.to).await;
        } else {
            let _ = self.held_back.try_send((Instant::now() + delay, datagram.to_vec()));
        }
    }
}

/// Passes on what comes to a socket from somebody with a lane.
async fn relay(socket: Arc<UdpSocket>, mut lanes: Vec<(SocketAddr, Lane)>) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        // Errors speak of an earlier datagram to a port that nobody listened at.
        let Ok((size, from)) = socket.recv_from(&mut buffer).await else { continue };
        if let Some((_, lane)) = lanes.iter_mut().find(|(sender, _)| *sender == from) {
            lane.pass(&buffer[..size]).await;
        }
    }
}

fn socket() -> anyhow::Result<Arc<UdpSocket>> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&at(0).into()).context("no port for a relay")?;
    Ok(Arc::new(UdpSocket::from_std(socket.into())?))
}

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn arrives(socket: &UdpSocket) -> Option<(String, SocketAddr)> {
        let mut buffer = [0; 100];
        let received =
            tokio::time::timeout(Duration::from_millis(300), socket.recv_from(&mut buffer)).await.ok()?;
        let (size, from) = received.unwrap();
        Some((String::from_utf8_lossy(&buffer[..size]).into_owned(), from))
    }

    #[tokio::test]
    async fn each_direction_passes_delays_and_is_cut_by_itself() {
        let nodes = [socket().unwrap(), socket().unwrap(), socket().unwrap()];
        let ports: Vec<u16> = nodes.iter().map(|node| node.local_addr().unwrap().port()).collect();
        let net = Net::start(&ports, Duration::from_millis(1), 7).unwrap();
        let (a, b) = (&nodes[0], &nodes[1]);
        a.send_to(b"there", net.face(1)).await.unwrap();
        let (text, guest) = arrives(b).await.unwrap();
        assert_eq!(text, "there");
        b.send_to(b"back", guest).await.unwrap();
        assert_eq!(arrives(a).await, Some(("back".to_owned(), net.face(1))));

        net.cut(0, 1, true);
        a.send_to(b"lost", net.face(1)).await.unwrap();
        assert_eq!(arrives(b).await, None);
        b.send_to(b"still", guest).await.unwrap();
        assert_eq!(arrives(a).await.unwrap().0, "still");
        assert_eq!(net.lost(), 1);

        net.mend();
        net.isolate(1);
        nodes[2].send_to(b"lost", net.face(1)).await.unwrap();
        assert_eq!(arrives(b).await, None);
        nodes[2].send_to(b"past it", net.face(0)).await.unwrap();
        assert_eq!(arrives(a).await.unwrap().0, "past it");
        net.mend();
        net.lose(1.0);
        a.send_to(b"lost", net.face(2)).await.unwrap();
        assert_eq!(arrives(&nodes[2]).await, None);
    }
}
