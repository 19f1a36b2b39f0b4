//! Reports on made-up evidence: two nodes, `fra` and `syd`, 100 ms apart.

use super::*;
use crate::replay::api::{CallError, NodeStatus};

struct Scene {
    zero: Instant,
    nodes: Vec<Node>,
    posted: Vec<Posted>,
    seen: [Seen; 2],
    histories: Vec<History>,
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// Of the line at a position.
fn client_id(line: usize) -> Uuid {
    Uuid::from_u128(1000 + line as u128)
}

impl Scene {
    fn new() -> Scene {
        let node =
            |region: &str| Node { url: format!("http://{region}"), id: region.into(), region: region.into() };
        let history = History {
            ids: Default::default(),
            client_ids: Default::default(),
            twins: 0,
            messages: 0,
            hash: "aa".into(),
        };
        Scene {
            zero: Instant::now(),
            nodes: vec![node("fra"), node("syd")],
            posted: Vec::new(),
            seen: Default::default(),
            histories: vec![history.clone(), history],
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.zero + Duration::from_millis(ms)
    }

    /// A line that `node` has accepted in 2 ms, and that every node keeps.
    fn post(&mut self, number: u128, node: usize, ms: u64, attempts: u32) {
        let outcome = Outcome::Accepted { id: id(number), node, answered: self.at(ms + 2) };
        let line = self.posted.len();
        let (client_id, started) = (client_id(line), self.at(ms));
        self.posted.push(Posted { line, client_id, started, late: Duration::ZERO, attempts, outcome });
        for history in &mut self.histories {
            history.ids.insert(id(number));
            history.messages += 1;
        }
    }

    fn see(&mut self, observer: usize, number: u128, node: usize, ms: u64, stream_since: u64) {
        let sighting =
            Sighting { id: id(number), node, at: self.at(ms), stream_since: self.at(stream_since) };
        match self.seen[observer].ids.insert(id(number)) {
            true => self.seen[observer].messages.push(sighting),
            false => self.seen[observer].doubled += 1,
        }
    }

    fn report(&self) -> ReplayReport {
        let status: NodeStatus = serde_json::from_value(
            serde_json::json!({"id": "fra", "region": "fra", "peers": [{"id": "syd", "one_way_ms": 100.0}]}),
        )
        .unwrap();
        evaluate(Evidence {
            nodes: &self.nodes,
            ways: &Ways::new(&self.nodes, &[Some(status), None]),
            rate: 10.0,
            posted: &self.posted,
            seen: &[&self.seen[0], &self.seen[1]],
            histories: &self.histories,
            skipped: Skipped::default(),
        })
    }
}

#[test]
fn a_good_run_has_figures_for_each_pair_and_no_faults() {
    let mut scene = Scene::new();
    for number in 0..10 {
        let (node, ms) = ((number % 2) as usize, 100 * number as u64);
        scene.post(number, node, ms, 1);
        scene.see(node, number, node, ms + 3, 0);
        scene.see(1 - node, number, 1 - node, ms + 107, 0);
    }
    let report = scene.report();
    assert_eq!(report.faults(), Vec::<String>::new());
    assert_eq!((report.lines, report.accepted, report.disturbed), (10, 10, 0));
    assert!((report.rate_reached - 10.0).abs() < 0.01, "{}", report.rate_reached);
    let pairs: Vec<_> =
        report.pairs.iter().map(|pair| (pair.from.as_str(), pair.to.as_str(), pair.count)).collect();
    assert_eq!(pairs, [("fra", "fra", 5), ("fra", "syd", 5), ("syd", "fra", 5), ("syd", "syd", 5)]);
    let near = |value: f64, wanted: f64| (value - wanted).abs() <= wanted / 500.0;
    assert!(
        near(report.pairs[1].delivery_p99_ms, 107.0) && near(report.pairs[1].overhead_p99_ms.unwrap(), 7.0)
    );
    assert!(
        near(report.pairs[3].delivery_p50_ms, 3.0) && near(report.pairs[3].overhead_p50_ms.unwrap(), 3.0)
    );
    assert!(near(report.senders[0].accept_p50_ms, 2.0));
    assert_eq!(report.all_pairs.unwrap().count, 20);
}

#[test]
fn losses_doubles_and_differences_are_faults() {
    let mut scene = Scene::new();
    scene.post(1, 0, 0, 1);
    scene.post(2, 0, 10, 1);
    scene.see(0, 1, 0, 5, 0);
    scene.see(0, 2, 0, 15, 0);
    scene.see(0, 2, 0, 16, 0);
    scene.see(1, 1, 1, 105, 0);
    scene.histories[1].ids.remove(&id(2));
    scene.histories[1].hash = "bb".into();
    let error = CallError::Unreachable("503".into());
    scene.posted.push(Posted {
        line: 2,
        client_id: client_id(2),
        started: scene.at(20),
        late: Duration::from_millis(7),
        attempts: 4,
        outcome: Outcome::Unanswered(error),
    });
    let report = scene.report();
    assert_eq!((report.observers[0].doubled, report.observers[1].lost), (1, 1));
    assert_eq!((report.nodes[1].missing, report.nodes[1].repeated, report.equal), (1, 1, false));
    assert_eq!(report.latest_start_ms, 7.0);
    let faults = report.faults().join("\n");
    for part in ["answered by no node", "did not reach", "twice", "missing", "listed twice", "same"] {
        assert!(faults.contains(part), "{part} in {faults}");
    }
}

#[test]
fn a_line_that_another_node_had_kept_before_it_died_counts_under_that_nodes_id() {
    let mut scene = Scene::new();
    scene.post(1, 0, 0, 2);
    for history in &mut scene.histories {
        history.ids = [id(9)].into();
        history.client_ids.insert(client_id(0));
    }
    for seen in &mut scene.seen {
        seen.ids.insert(id(9));
        seen.client_ids.insert(client_id(0));
    }
    assert_eq!(scene.report().faults(), Vec::<String>::new());
    scene.histories[0].twins = 1;
    scene.seen[1].client_ids.clear();
    let report = scene.report();
    assert_eq!((report.nodes[0].repeated, report.observers[1].lost), (1, 1));
}

#[test]
fn deliveries_across_a_failover_are_kept_apart() {
    let mut scene = Scene::new();
    scene.post(1, 0, 0, 3);
    scene.see(0, 1, 0, 3000, 0);
    // Read elsewhere, then as backlog of the new stream at home.
    scene.post(2, 0, 10, 1);
    scene.see(1, 2, 0, 20, 15);
    scene.post(3, 0, 100, 1);
    scene.see(1, 3, 1, 900, 800);
    let report = scene.report();
    assert_eq!((report.disturbed, report.disturbed_max_ms, report.retried), (3, 3000.0, 1));
    assert!(report.pairs.is_empty() && report.all_pairs.is_none());
}

#[test]
fn order_is_judged_within_one_node_only() {
    let mut scene = Scene::new();
    for (number, node, attempts) in [(1, 0, 1), (2, 1, 1), (3, 0, 1), (4, 0, 2), (5, 0, 1)] {
        scene.post(number, node, 0, attempts);
    }
    for number in [2, 3, 1, 5, 4] {
        scene.see(0, number, 0, 10, 0);
    }
    assert_eq!(scene.report().observers[0].out_of_order, 1);
}

#[test]
fn refusals_are_counted_by_reason() {
    let mut scene = Scene::new();
    for line in 0..3 {
        let code = if line == 1 { "invalid_body" } else { "too_large" };
        let error = CallError::Refused { status: 400, code: code.into(), detail: "no".into() };
        let outcome = Outcome::Refused(error);
        let (client_id, started) = (client_id(line), scene.zero);
        scene.posted.push(Posted { line, client_id, started, late: Duration::ZERO, attempts: 1, outcome });
    }
    let report = scene.report();
    let counts: Vec<_> =
        report.refused.iter().map(|refusal| (refusal.reason.as_str(), refusal.lines)).collect();
    assert_eq!(counts, [("400 invalid_body: no", 1), ("400 too_large: no", 2)]);
    assert!(report.faults().is_empty());
}
