//! The delay of the network between the nodes, as they report it.

use crate::replay::api::{Node, NodeStatus};

/// One-way delays in milliseconds between nodes, by their positions.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::replay) struct Ways {
    one_way_ms: Vec<Vec<Option<f64>>>,
}

impl Ways {
    /// From what the nodes say of themselves; `None` for one that did not answer. An emulated delay is believed before
    /// half of a measured round trip, and what a node says of the way from itself before what the other end says.
    pub(in crate::replay) fn new(nodes: &[Node], statuses: &[Option<NodeStatus>]) -> Ways {
        let told = |from: usize, to: usize| {
            let peers = &statuses.get(from)?.as_ref()?.peers;
            let peer = peers.iter().find(|peer| peer.id == nodes[to].id)?;
            peer.one_way_ms.or(peer.rtt_ms.map(|rtt| rtt / 2.0)).filter(|ms| ms.is_finite() && *ms >= 0.0)
        };
        let way = |from: usize, to: usize| match from == to {
            true => Some(0.0),
            false => told(from, to).or_else(|| told(to, from)),
        };
        let count = nodes.len();
        Ways { one_way_ms: (0..count).map(|from| (0..count).map(|to| way(from, to)).collect()).collect() }
    }

    /// The shorter of two measurements: what a busy machine adds to a round trip is not the network's.
    pub(in crate::replay) fn shorter(self, other: &Ways) -> Ways {
        let shorter = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let rows = self.one_way_ms.into_iter().zip(&other.one_way_ms);
        let rows = rows.map(|(a, b)| a.into_iter().zip(b).map(|(a, b)| shorter(a, *b)).collect());
        Ways { one_way_ms: rows.collect() }
    }

    /// The delay from one node to another.
    pub(super) fn one_way_ms(&self, from: usize, to: usize) -> Option<f64> {
        *self.one_way_ms.get(from)?.get(to)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str) -> Node {
        Node { url: format!("http://{id}"), id: id.to_owned(), region: id.to_owned() }
    }

    fn status(json: serde_json::Value) -> Option<NodeStatus> {
        Some(serde_json::from_value(json).unwrap())
    }

    #[test]
    fn emulated_delays_before_measured_ones_and_either_end_will_do() {
        let nodes = [node("a"), node("b"), node("c")];
        let a = status(serde_json::json!({
            "id": "a", "region": "a", "heads": {},
            "peers": [{"id": "b", "region": "b", "rtt_ms": 90.0, "one_way_ms": 40.0}, {"id": "c", "rtt_ms": 20.0}]
        }));
        let ways = Ways::new(&nodes, &[a, None, None]);
        assert_eq!(ways.one_way_ms(0, 1), Some(40.0));
        assert_eq!(ways.one_way_ms(1, 0), Some(40.0));
        assert_eq!(ways.one_way_ms(0, 2), Some(10.0));
        assert_eq!(ways.one_way_ms(1, 2), None);
        assert_eq!(ways.one_way_ms(2, 2), Some(0.0));
        let slower =
            status(serde_json::json!({"id": "a", "region": "a", "peers": [{"id": "c", "rtt_ms": 30.0}]}));
        let slower = Ways::new(&nodes, &[slower, None, None]);
        let shorter = slower.shorter(&ways);
        assert_eq!((shorter.one_way_ms(0, 2), shorter.one_way_ms(0, 1)), (Some(10.0), Some(40.0)));
    }
}
