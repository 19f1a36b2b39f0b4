//! Connections over a long and lossy path: QUIC's idle timeout must not take loss for death.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// A socket at the far side of an ocean: what is sent takes 150 ms, and one packet in fifty gets lost.
#[derive(Debug)]
struct Overseas {
    socket: Arc<dyn AsyncUdpSocket>,
    random: Mutex<StdRng>,
}

impl AsyncUdpSocket for Overseas {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for packet in transmit.contents.chunks(size) {
            if self.random.lock().unwrap().random_bool(0.02) {
                continue;
            }
            let (socket, packet) = (self.socket.clone(), packet.to_vec());
            let (destination, ecn, src_ip) = (transmit.destination, transmit.ecn, transmit.src_ip);
            tokio::spawn(async move {
                sleep(Duration::from_millis(150)).await;
                let contents = &packet;
                // What the system has no room for is lost as well.
                let _ = socket.try_send(&Transmit { destination, ecn, contents, segment_size: None, src_ip });
            });
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

fn overseas(config: MeshConfig, seed: u64) -> MeshConfig {
    let wrap: WrapSocket = Arc::new(move |socket| {
        Arc::new(Overseas { socket, random: Mutex::new(StdRng::seed_from_u64(seed)) })
            as Arc<dyn AsyncUdpSocket>
    });
    MeshConfig { wrap_socket: Some(wrap), ..config }
}

/// Six members have 30 connections; each is to bring 60 packets across.
#[tokio::test]
async fn no_connection_is_lost_across_an_ocean() {
    let (log, _guard) = Log::start();
    let key = ClusterKey::generate();
    let first = start(overseas(config(1, &key, &[]), 1)).await;
    let mut all = vec![first];
    for number in 2..=6 {
        all.push(start(overseas(config(number, &key, &[&all[0]]), number.into())).await);
    }
    let done = |running: &Running| {
        let held = running.mesh.shared.peers.held();
        let across = |held: &peers::Held| held.connection.stats().udp_rx.datagrams >= 60;
        held.iter().filter(|held| held.outgoing && across(held)).count() == 5
    };
    until("60 packets on each", || all.iter().all(done)).await;
    assert_eq!(log.lines(&["peer down"]), 0, "{}", log_text(&log));
    assert_eq!(log.lines(&["member down"]), 0, "{}", log_text(&log));
    let far = |peer: &PeerInfo| peer.rtt >= Duration::from_millis(290);
    assert!(all.iter().all(|running| running.mesh.peers().iter().all(far)));
}
