mod overseas;
mod trust;

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use quinn::UdpPoller;
use quinn::udp::{RecvMeta, Transmit};
use tokio::time::sleep;
use tracing::subscriber::DefaultGuard;

use super::*;
use crate::directory::Entry;

const KIND: u8 = 20;
const DEADLINE: Duration = Duration::from_secs(40);

struct Running {
    mesh: Mesh,
    events: mpsc::Receiver<MeshEvent>,
}

impl Running {
    /// The next event that `pick` takes; others are passed over.
    async fn event<T>(&mut self, what: &str, mut pick: impl FnMut(MeshEvent) -> Option<T>) -> T {
        let wait = async {
            loop {
                let event = self.events.recv().await.expect("the mesh runs");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("in vain: {what}"))
    }

    async fn up(&mut self, node: NodeId) -> PeerInfo {
        self.event("peer up", |event| match event {
            MeshEvent::PeerUp(peer) if peer.node == node => Some(peer),
            _ => None,
        })
        .await
    }

    async fn down(&mut self, node: NodeId) {
        self.event("peer down", |event| match event {
            MeshEvent::PeerDown(down) if down == node => Some(()),
            _ => None,
        })
        .await;
    }

    fn entry(&self, node: NodeId) -> Option<Entry> {
        self.mesh.directory().entries().into_iter().find(|entry| entry.node == node)
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

fn config(number: u8, key: &ClusterKey, seeds: &[&Running]) -> MeshConfig {
    MeshConfig {
        node: NodeId([number; 16]),
        role: Role::Node,
        region: format!("region-{number}"),
        bind: "127.0.0.1:0".parse().unwrap(),
        advertise: None,
        seeds: seeds.iter().map(|seed| seed.mesh.local_addr().to_string()).collect(),
        key: key.clone(),
        wrap_socket: None,
    }
}

async fn start(config: MeshConfig) -> Running {
    let (mesh, events) = Mesh::start(config).await.unwrap();
    Running { mesh, events }
}

/// A socket whose wire can be cut: what is sent gets lost, and so does what arrives.
#[derive(Debug)]
struct Cuttable {
    socket: Arc<dyn AsyncUdpSocket>,
    cut: Arc<AtomicBool>,
}

impl AsyncUdpSocket for Cuttable {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        if self.cut.load(Ordering::SeqCst) { Ok(()) } else { self.socket.try_send(transmit) }
    }

    fn poll_recv(
        &self,
        cx: &mut Context,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let received = self.socket.poll_recv(cx, bufs, meta);
            if !(received.is_ready() && self.cut.load(Ordering::SeqCst)) {
                return received;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

fn cuttable(config: MeshConfig) -> (MeshConfig, Arc<AtomicBool>) {
    let cut = Arc::new(AtomicBool::new(false));
    let switch = cut.clone();
    let wrap: WrapSocket =
        Arc::new(move |socket| Arc::new(Cuttable { socket, cut: switch.clone() }) as Arc<dyn AsyncUdpSocket>);
    (MeshConfig { wrap_socket: Some(wrap), ..config }, cut)
}

#[tokio::test]
async fn three_members_find_each_other_through_one_seed() {
    let key = ClusterKey::generate();
    let mut a = start(config(1, &key, &[])).await;
    let mut b = start(config(2, &key, &[&a])).await;
    let mut c = start(MeshConfig { role: Role::Router, ..config(3, &key, &[&a]) }).await;
    let nodes = [1, 2, 3].map(|number| NodeId([number; 16]));
    for running in [&mut a, &mut b, &mut c] {
        let mut others: Vec<_> = nodes.into_iter().filter(|node| *node != running.mesh.node()).collect();
        while !others.is_empty() {
            let up = running
                .event("peer up", |event| match event {
                    MeshEvent::PeerUp(peer) => Some(peer.node),
                    _ => None,
                })
                .await;
            assert!(others.contains(&up), "one connection to each");
            others.retain(|node| *node != up);
        }
    }
    let peers = b.mesh.peers();
    assert_eq!(peers.iter().map(|peer| peer.node).collect::<Vec<_>>(), [nodes[0], nodes[2]]);
    assert_eq!((peers[1].role, peers[1].region.as_str()), (Role::Router, "region-3"));
    assert_eq!(peers[1].addr, c.mesh.local_addr());
    assert!(peers[1].rtt > Duration::ZERO);
}

#[tokio::test]
async fn streams_and_datagrams_arrive_with_their_sender() {
    let key = ClusterKey::generate();
    let mut a = start(config(1, &key, &[])).await;
    let mut b = start(config(2, &key, &[&a])).await;
    a.up(b.mesh.node()).await;
    b.up(a.mesh.node()).await;

    let (mut send, mut recv) = a.mesh.open(b.mesh.node(), KIND).await.unwrap();
    send.write_all(b"ping").await.unwrap();
    send.finish().unwrap();
    let (peer, kind, mut answer, mut question) = b
        .event("a stream", |event| match event {
            MeshEvent::Stream { peer, kind, send, recv } => Some((peer, kind, send, recv)),
            _ => None,
        })
        .await;
    assert_eq!((peer.node, kind), (a.mesh.node(), KIND));
    assert_eq!(question.read_to_end(100).await.unwrap(), b"ping");
    answer.write_all(b"pong").await.unwrap();
    answer.finish().unwrap();
    assert_eq!(recv.read_to_end(100).await.unwrap(), b"pong");

    b.mesh.datagram(a.mesh.node(), KIND, Bytes::from_static(b"heads")).unwrap();
    let datagram = a
        .event("a datagram", |event| match event {
            MeshEvent::Datagram { peer, kind, payload } => Some((peer, kind, payload)),
            _ => None,
        })
        .await;
    assert_eq!(datagram, (b.mesh.node(), KIND, Bytes::from_static(b"heads")));
}

#[tokio::test]
async fn what_cannot_be_sent_is_an_error() {
    let key = ClusterKey::generate();
    let mut a = start(config(1, &key, &[])).await;
    let b = start(config(2, &key, &[&a])).await;
    a.up(b.mesh.node()).await;
    let nobody = NodeId([9; 16]);
    assert!(matches!(a.mesh.open(nobody, KIND).await, Err(MeshError::NotConnected(node)) if node == nobody));
    assert!(matches!(a.mesh.datagram(nobody, KIND, Bytes::new()), Err(MeshError::NotConnected(_))));
    assert!(matches!(a.mesh.open(b.mesh.node(), 0).await, Err(MeshError::ReservedKind(0))));
    let large = Bytes::from(vec![0; 100_000]);
    let error = a.mesh.datagram(b.mesh.node(), KIND, large).unwrap_err();
    assert!(matches!(error, MeshError::DatagramTooLarge { size: 100_000, most } if most > 1000), "{error}");
}

#[tokio::test]
async fn a_stopped_member_is_down() {
    let key = ClusterKey::generate();
    let mut a = start(config(1, &key, &[])).await;
    let b = start(config(2, &key, &[&a])).await;
    let node = b.mesh.node();
    a.up(node).await;
    drop(b);
    a.down(node).await;
    until("not alive", || a.entry(node).is_none_or(|entry| !entry.alive)).await;
}

#[tokio::test]
async fn a_member_that_vanishes_is_noticed_and_welcomed_back() {
    let key = ClusterKey::generate();
    let (b_config, cut) = cuttable(config(2, &key, &[]));
    let mut b = start(b_config).await;
    let mut a = start(config(1, &key, &[&b])).await;
    let mut c = start(config(3, &key, &[&b])).await;
    let node = b.mesh.node();
    a.up(node).await;
    c.up(node).await;
    until("all up", || [&a, &b, &c].iter().all(|running| running.mesh.shared.membership.up().len() == 2))
        .await;

    cut.store(true, Ordering::SeqCst);
    a.down(node).await;
    assert!(!a.entry(node).is_some_and(|entry| entry.alive));
    c.down(node).await;
    b.down(a.mesh.node()).await;
    until("down for the cluster", || !a.mesh.shared.membership.is_up(node)).await;

    cut.store(false, Ordering::SeqCst);
    a.up(node).await;
    c.up(node).await;
    until("alive again", || {
        let alive = |running: &Running, node| running.entry(node).is_some_and(|entry| entry.alive);
        alive(&a, node) && alive(&c, node) && alive(&b, a.mesh.node()) && alive(&b, c.mesh.node())
    })
    .await;
}

#[tokio::test]
async fn a_member_that_leaves_is_down_at_once() {
    let key = ClusterKey::generate();
    let mut a = start(config(1, &key, &[])).await;
    let b = start(config(2, &key, &[&a])).await;
    let node = b.mesh.node();
    a.up(node).await;
    until("up", || a.mesh.shared.membership.is_up(node)).await;
    b.mesh.leave().await;
    assert!(b.mesh.shared.tasks.is_empty(), "all tasks ended");
    a.down(node).await;
    until("down for the cluster", || !a.mesh.shared.membership.is_up(node)).await;
    assert!(!a.entry(node).is_some_and(|entry| entry.alive));
}

#[tokio::test]
async fn a_restarted_member_rejoins_at_its_address() {
    let key = ClusterKey::generate();
    let mut a = start(config(1, &key, &[])).await;
    let b_config = config(2, &key, &[&a]);
    let (cut_config, cut) = cuttable(b_config.clone());
    let b = start(cut_config).await;
    let (node, addr) = (b.mesh.node(), b.mesh.local_addr());
    a.up(node).await;
    until("known", || a.mesh.shared.membership.is_up(node)).await;

    crash(b, &cut).await;
    let again = MeshConfig { bind: addr, ..b_config };
    let mut b = until_bound(again).await;
    b.up(a.mesh.node()).await;
    a.down(node).await;
    a.up(node).await;
    b.mesh.directory().publish("url", "http://after");
    until("seen after the restart", || {
        a.entry(node).is_some_and(|entry| {
            entry.alive && entry.facts.get("url").is_some_and(|url| url == "http://after")
        })
    })
    .await;
}

/// A process that is gone knows nothing of its connections, and says so to the first packet that comes.
#[tokio::test]
async fn a_restarted_member_resets_the_connections_of_its_former_self() {
    let (log, _guard) = Log::start();
    let key = ClusterKey::generate();
    let mut a = start(config(1, &key, &[])).await;
    let (cut_config, cut) = cuttable(config(2, &key, &[&a]));
    let b = start(cut_config).await;
    let (node, addr) = (b.mesh.node(), b.mesh.local_addr());
    a.up(node).await;
    until("known", || a.mesh.shared.membership.is_up(node)).await;
    crash(b, &cut).await;
    // It has no seeds now, so it does not announce itself.
    let b = until_bound(MeshConfig { bind: addr, ..config(2, &key, &[]) }).await;
    a.down(node).await;
    assert_eq!(log.lines(&["peer down", "reset by peer"]), 1, "{}", log_text(&log));
    a.up(b.mesh.node()).await;
}

/// Ends a member without a word getting out.
async fn crash(running: Running, cut: &AtomicBool) {
    cut.store(true, Ordering::SeqCst);
    running.mesh.shared.cancel.cancel();
    running.mesh.shared.tasks.close();
    running.mesh.shared.tasks.wait().await;
}

/// Quinn frees the address of a dropped endpoint in its own time.
async fn until_bound(config: MeshConfig) -> Running {
    let wait = async {
        loop {
            match Mesh::start(config.clone()).await {
                Ok((mesh, events)) => return Running { mesh, events },
                Err(MeshError::Bind { .. }) => sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(DEADLINE, wait).await.unwrap()
}

#[tokio::test]
async fn facts_reach_nodes_and_routers() {
    let key = ClusterKey::generate();
    let a = start(config(1, &key, &[])).await;
    let b = start(config(2, &key, &[&a])).await;
    let c = start(MeshConfig { role: Role::Router, ..config(3, &key, &[&a]) }).await;
    a.mesh.directory().publish("url", "http://a.example");
    a.mesh.directory().publish("ready", "true");
    let facts = BTreeMap::from([("ready", "true"), ("url", "http://a.example")]);
    let facts: BTreeMap<_, _> =
        facts.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let expected = Entry {
        node: a.mesh.node(),
        role: Role::Node,
        region: "region-1".to_owned(),
        mesh: a.mesh.local_addr(),
        alive: true,
        facts,
    };
    for running in [&a, &b, &c] {
        until("the facts", || running.entry(expected.node).as_ref() == Some(&expected)).await;
        until("everybody", || {
            running.mesh.directory().entries().iter().filter(|entry| entry.alive).count() == 3
        })
        .await;
    }
    a.mesh.directory().publish("ready", "false");
    for running in [&b, &c] {
        until("the change", || {
            running.entry(expected.node).is_some_and(|entry| entry.facts["ready"] == "false")
        })
        .await;
    }
    assert_eq!(b.entry(c.mesh.node()).map(|entry| entry.role), Some(Role::Router));
}

#[tokio::test]
async fn facts_that_need_more_than_a_datagram_arrive() {
    let key = ClusterKey::generate();
    let a = start(config(1, &key, &[])).await;
    let b = start(config(2, &key, &[&a])).await;
    for number in 0..30 {
        // Random text, which compression cannot shrink much.
        let value: String = (0..500).map(|_| char::from(rand::random_range(b'!'..=b'~'))).collect();
        a.mesh.directory().publish(&format!("fact-{number}"), &value);
    }
    let node = a.mesh.node();
    until("all facts", || b.entry(node).is_some_and(|entry| entry.facts.len() == 30)).await;
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Collects what this thread logs; a test has one thread.
    fn start() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn lines(&self, with: &[&str]) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| with.iter().all(|part| line.contains(part))).count()
    }
}

#[tokio::test]
async fn a_member_of_another_cluster_is_refused_and_both_say_why() {
    let (log, _guard) = Log::start();
    let mut a = start(config(1, &ClusterKey::generate(), &[])).await;
    let b = start(config(2, &ClusterKey::generate(), &[&a])).await;
    let refusal = "the peer holds another cluster key";
    let a_addr = format!("peer={}", a.mesh.local_addr());
    let b_addr = format!("peer={}", b.mesh.local_addr());
    until("the dialer's word", || log.lines(&["WARN", refusal, &a_addr, "outgoing"]) > 0).await;
    until("the acceptor's word", || log.lines(&["WARN", refusal, &b_addr, "incoming"]) > 0).await;

    // The dialer tries again and again; the line is not repeated.
    let c = start(config(3, &ClusterKey::generate(), &[&a])).await;
    let c_addr = format!("peer={}", c.mesh.local_addr());
    until("another's turn", || log.lines(&["WARN", refusal, &c_addr, "incoming"]) > 0).await;
    assert_eq!(log.lines(&["WARN", refusal, &a_addr, "outgoing"]), 2, "{}", log_text(&log));
    assert_eq!(log.lines(&["WARN", refusal, &b_addr, "incoming"]), 1);
    assert!(a.mesh.peers().is_empty() && b.mesh.peers().is_empty());
    assert!(a.events.try_recv().is_err());
}

fn log_text(log: &Log) -> String {
    String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned()
}

#[tokio::test]
async fn two_processes_with_one_id_do_not_both_stay() {
    let (log, _guard) = Log::start();
    let key = ClusterKey::generate();
    let mut a = start(config(1, &key, &[])).await;
    let older = start(config(2, &key, &[&a])).await;
    let node = older.mesh.node();
    a.up(node).await;
    let younger = start(config(2, &key, &[&a])).await;
    assert!(younger.mesh.shared.me.generation > older.mesh.shared.me.generation);
    until("the younger's place", || {
        let peers = a.mesh.peers();
        peers.iter().any(|peer| peer.connected && peer.addr == younger.mesh.local_addr())
    })
    .await;
    a.down(node).await;
    assert_eq!(a.up(node).await.addr, younger.mesh.local_addr());
    until("the word", || log.lines(&["WARN", "a younger process has this member's node id"]) > 0).await;
}

#[tokio::test]
async fn a_seed_that_is_the_member_itself_is_no_peer() {
    let key = ClusterKey::generate();
    let probe = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = probe.local_addr().unwrap();
    drop(probe);
    let own = MeshConfig { bind: addr, seeds: vec![addr.to_string()], ..config(1, &key, &[]) };
    let mut a = start(own).await;
    let mut b = start(config(2, &key, &[&a])).await;
    b.up(a.mesh.node()).await;
    a.up(b.mesh.node()).await;
    assert_eq!(a.mesh.peers().len(), 1);
    assert_eq!(b.mesh.peers().len(), 1);
}

#[tokio::test]
async fn bad_settings_are_named() {
    let key = ClusterKey::generate();
    let a = start(config(1, &key, &[])).await;
    let error = |config| async { Mesh::start(config).await.map(|_| ()).unwrap_err().to_string() };
    let taken = MeshConfig { bind: a.mesh.local_addr(), ..config(2, &key, &[]) };
    assert!(error(taken).await.contains(&a.mesh.local_addr().to_string()));
    let region = MeshConfig { region: String::new(), ..config(2, &key, &[]) };
    assert!(error(region).await.contains("region"));
    let seed = MeshConfig { seeds: vec!["somewhere".to_owned()], ..config(2, &key, &[]) };
    assert!(error(seed).await.contains("`somewhere`"));
    let advertise = MeshConfig { advertise: Some("0.0.0.0:1".parse().unwrap()), ..config(2, &key, &[]) };
    assert!(error(advertise).await.contains("0.0.0.0:1"));
}
