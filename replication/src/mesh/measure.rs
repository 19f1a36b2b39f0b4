//! Makes what the connections and queues do visible as metrics.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use quinn::ConnectionStats;
use tokio::time::sleep;

use super::EVENTS;
use super::peers::Held;
use super::shared::{LARGE_MESSAGES, Shared};

/// How often metrics are taken.
const MEASURING: Duration = Duration::from_secs(5);

/// A peer as the labels of its series have it.
type Labels = [(&'static str, String); 2];

/// What the connections had done when they were last looked at.
#[derive(Default)]
struct Measured {
    counts: HashMap<usize, Counts>,
    peers: HashSet<Labels>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    sent: u64,
    received: u64,
    lost: u64,
}

impl Counts {
    fn of(stats: &ConnectionStats) -> Self {
        Self { sent: stats.udp_tx.bytes, received: stats.udp_rx.bytes, lost: stats.path.lost_packets }
    }
}

impl Shared {
    /// Measures until the mesh stops.
    pub(crate) async fn measure(self: Arc<Self>) {
        let mut measured = Measured::default();
        loop {
            measured.take(self.peers.held());
            self.measure_queues();
            sleep(MEASURING).await;
        }
    }

    fn measure_queues(&self) {
        let depths = [
            ("events", EVENTS - self.events.capacity()),
            ("membership", self.membership.waiting()),
            ("directory", self.directory.waiting()),
            ("large", LARGE_MESSAGES - self.large.available_permits()),
        ];
        for (queue, depth) in depths {
            gauge!("mychat_mesh_queue_depth", "queue" => queue).set(depth as f64);
        }
    }
}

impl Measured {
    fn take(&mut self, held: Vec<Held>) {
        let mut peers: HashMap<Labels, u32> = HashMap::new();
        let mut counts = HashMap::new();
        for held in held {
            let labels = [("peer", held.member.node.to_string()), ("region", held.member.region)];
            let (id, stats) = (held.connection.stable_id(), held.connection.stats());
            let (before, now) = (self.counts.get(&id).copied().unwrap_or_default(), Counts::of(&stats));
            counts.insert(id, now);
            counter!("mychat_mesh_sent_bytes_total", &labels).increment(now.sent.saturating_sub(before.sent));
            counter!("mychat_mesh_received_bytes_total", &labels)
                .increment(now.received.saturating_sub(before.received));
            counter!("mychat_mesh_lost_packets_total", &labels)
                .increment(now.lost.saturating_sub(before.lost));
            if held.outgoing {
                gauge!("mychat_mesh_rtt_seconds", &labels).set(stats.path.rtt.as_secs_f64());
                gauge!("mychat_mesh_congestion_window_bytes", &labels).set(stats.path.cwnd as f64);
            }
            *peers.entry(labels).or_default() += 1;
        }
        self.counts = counts;
        for (labels, connections) in &peers {
            gauge!("mychat_mesh_peer_connections", labels).set(f64::from(*connections));
        }
        // A series can't be taken back: that of a peer that is gone says that there is nothing.
        for gone in self.peers.iter().filter(|labels| !peers.contains_key(*labels)) {
            gauge!("mychat_mesh_peer_connections", gone).set(0.0);
            gauge!("mychat_mesh_rtt_seconds", gone).set(f64::NAN);
            gauge!("mychat_mesh_congestion_window_bytes", gone).set(0.0);
        }
        self.peers = peers.into_keys().collect();
    }
}
