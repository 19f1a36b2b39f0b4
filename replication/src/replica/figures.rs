//! What operators see of the peers: one series a peer, named by its node id.
//!
//! A recorder of metrics forgets no series, so the gauges of a peer that is gone are set to 0.

use std::{collections::BTreeMap, time::Duration};

use metrics::{Counter, counter, gauge};

use super::PeerStatus;
use crate::{NodeId, protocol::Tally};

/// Bytes of frames written to a peer's streams.
pub fn sent_bytes(peer: NodeId) -> Counter {
    counter!("mychat_replication_sent_bytes_total", "peer" => peer.to_string())
}

/// Bytes of frames read from a peer's streams.
pub fn received_bytes(peer: NodeId) -> Counter {
    counter!("mychat_replication_received_bytes_total", "peer" => peer.to_string())
}

/// Times that a peer's stream was read no further because too much of it waits to be applied.
pub fn credit_waits(peer: NodeId) -> Counter {
    counter!("mychat_replication_credit_waits_total", "peer" => peer.to_string())
}

/// How a peer stands.
pub fn peer(peer: NodeId, status: &PeerStatus) {
    let node = peer.to_string();
    gauge!("mychat_replication_behind_versions", "peer" => node.clone()).set(status.behind as f64);
    gauge!("mychat_replication_behind_seconds", "peer" => node.clone()).set(status.lag.as_secs_f64());
    gauge!("mychat_replication_unsent_bytes", "peer" => node.clone()).set(status.followers.unsent as f64);
    let followers = status.followers;
    for (state, streams) in
        [("live", followers.live), ("behind", followers.behind), ("reading", followers.reading)]
    {
        gauge!("mychat_replication_followers", "peer" => node.clone(), "state" => state).set(streams as f64);
    }
}

/// A peer is gone.
pub fn gone(node: NodeId) {
    peer(node, &PeerStatus { lag: Duration::ZERO, ..PeerStatus::default() });
}

/// What happened since the last look.
pub fn tally(tally: BTreeMap<NodeId, Tally>) {
    for (peer, Tally { duplicates, pushes_refused }) in tally {
        let node = peer.to_string();
        counter!("mychat_replication_duplicate_frames_total", "peer" => node.clone()).increment(duplicates);
        counter!("mychat_replication_pushes_refused_total", "peer" => node).increment(pushes_refused);
    }
}

/// Reports that wait for the core's task; those who report wait when there are too many.
pub fn reports(waiting: usize) {
    gauge!("mychat_replication_reports_waiting").set(waiting as f64);
}
