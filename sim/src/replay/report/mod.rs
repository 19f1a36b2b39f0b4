//! What a replay has shown: figures for each pair of regions, and the faults, if any.

use serde::Serialize;

use super::script::Skipped;

mod evaluate;
mod ways;
mod write;

pub(super) use evaluate::{Evidence, evaluate};
pub(super) use ways::Ways;

/// The outcome of a replay. Times are in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct ReplayReport {
    /// Lines that were posted.
    pub lines: u64,
    /// Lines that a node has answered with success.
    pub accepted: u64,
    /// Lines that the nodes refused for what they are (too long, say), by reason.
    pub refused: Vec<Refusal>,
    /// Lines that no node answered in time.
    pub unanswered: u64,
    /// Why, of the first of those.
    pub unanswered_example: Option<String>,
    /// Accepted lines that took more than one request.
    pub retried: u64,
    /// The rate that was asked for, in lines a second.
    pub rate_asked: f64,
    /// The rate that was reached, in lines a second.
    pub rate_reached: f64,
    /// How long after its moment the latest line was posted, because too many were unanswered.
    pub latest_start_ms: f64,
    /// How long nodes took to accept, by the region of the node.
    pub senders: Vec<SenderRow>,
    /// How long messages took to readers, by the regions of the sender's and the reader's node.
    pub pairs: Vec<PairRow>,
    /// The same over all pairs.
    pub all_pairs: Option<PairRow>,
    /// Deliveries that a failover was part of: those of retried lines, and those read elsewhere or as backlog.
    pub disturbed: u64,
    /// The longest of them.
    pub disturbed_max_ms: f64,
    /// What each observer saw.
    pub observers: Vec<ObserverRow>,
    /// What each node holds at the end.
    pub nodes: Vec<NodeRow>,
    /// Whether all nodes hold the same.
    pub equal: bool,
    /// What of the logs was not posted.
    pub skipped: Skipped,
}

/// Lines refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// What the node said.
    pub reason: String,
    /// How many lines.
    pub lines: u64,
}

/// How long the nodes of one region took to accept lines.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SenderRow {
    /// The region.
    pub region: String,
    /// Lines accepted there at the first request.
    pub count: u64,
    /// From the start of the request to the answer: half of the lines took at most this.
    pub accept_p50_ms: f64,
    /// The same for 99 of 100 lines.
    pub accept_p99_ms: f64,
}

/// How long messages took from one region to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairRow {
    /// The region of the node that accepted the message.
    pub from: String,
    /// The region of the node that the observer read at.
    pub to: String,
    /// Deliveries.
    pub count: u64,
    /// From the start of the sender's request to the reader's event: half of the deliveries took at most this.
    pub delivery_p50_ms: f64,
    /// The same for 99 of 100 deliveries.
    pub delivery_p99_ms: f64,
    /// The one-way delay of the network between the nodes; `null` when no node tells it.
    pub one_way_ms: Option<f64>,
    /// What is left of the delivery without the one-way delay, for half of the deliveries.
    pub overhead_p50_ms: Option<f64>,
    /// The same for 99 of 100 deliveries.
    pub overhead_p99_ms: Option<f64>,
}

/// What one observer saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObserverRow {
    /// The region of its own node.
    pub region: String,
    /// Different messages that it received.
    pub received: u64,
    /// Accepted messages that it did not receive.
    pub lost: u64,
    /// Messages that it received again.
    pub doubled: u64,
    /// Messages that came after a later one of the same node.
    pub out_of_order: u64,
    /// Streams that it opened after its first.
    pub reconnects: u64,
    /// Times that a node could not serve its cursor.
    pub resets: u64,
}

/// What one node holds at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeRow {
    /// The node's region.
    pub region: String,
    /// The node's address.
    pub url: String,
    /// Messages in its history of the space.
    pub messages: u64,
    /// Accepted messages that it lacks.
    pub missing: u64,
    /// Messages that it lists more than once.
    pub repeated: u64,
    /// A SHA-256 over its messages in their order: id, author, body and time.
    pub sha256: String,
}

impl ReplayReport {
    /// What went wrong, one sentence for each kind. Empty after a good run.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut add = |count: u64, what: &str| {
            if count > 0 {
                faults.push(format!("{count} {what}"));
            }
        };
        let observed = |field: fn(&ObserverRow) -> u64| self.observers.iter().map(field).sum::<u64>();
        add(self.unanswered, "lines were answered by no node");
        add(observed(|row| row.lost), "messages did not reach an observer");
        add(observed(|row| row.doubled), "messages reached an observer twice");
        add(observed(|row| row.resets), "times a node could not serve a cursor");
        add(self.nodes.iter().map(|row| row.missing).sum(), "accepted messages are missing on a node");
        add(self.nodes.iter().map(|row| row.repeated).sum(), "messages are listed twice by a node");
        if !self.equal {
            faults.push("the nodes do not hold the same messages".to_owned());
        }
        faults
    }
}
