//! The numbers of calls by method, route and status, and how long they took.
//!
//! A metric is found by all its labels, which costs more than to count. So what is found is kept, by what a call is made of.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use axum::http::StatusCode;
use metrics::{Counter, Histogram, Label};
use mychat_replication::NodeId;

/// A node's calls. Methods, routes and statuses are few: none of them is what a client makes up.
pub struct Tally {
    node: String,
    routes: RwLock<HashMap<String, Vec<Kind>>>,
}

/// Calls of one route that went alike.
struct Kind {
    method: &'static str,
    status: StatusCode,
    calls: Counter,
    seconds: Histogram,
}

impl Tally {
    pub fn of(node: NodeId) -> Self {
        Self { node: node.to_string(), routes: RwLock::default() }
    }

    /// Counts one call.
    pub fn count(&self, method: &'static str, route: &str, status: StatusCode, took: Duration) {
        let known = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(kind) = known.get(route).and_then(|kinds| find(kinds, method, status)) {
            return kind.count(took);
        }
        drop(known);
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let kinds = routes.entry(route.to_owned()).or_default();
        // Somebody else may have been here first; then this one names the same metrics.
        let kind = Kind::new(&self.node, method, route, status);
        kind.count(took);
        if find(kinds, method, status).is_none() {
            kinds.push(kind);
        }
    }
}

fn find<'a>(kinds: &'a [Kind], method: &str, status: StatusCode) -> Option<&'a Kind> {
    kinds.iter().find(|kind| kind.status == status && kind.method == method)
}

impl Kind {
    fn new(node: &str, method: &'static str, route: &str, status: StatusCode) -> Self {
        let labels = vec![
            Label::new("node", node.to_owned()),
            Label::new("method", method),
            Label::new("route", route.to_owned()),
        ];
        let seconds = metrics::histogram!("mychat_http_call_seconds", labels.clone());
        let status_label = Label::new("status", status.as_u16().to_string());
        let calls = metrics::counter!("mychat_http_calls_total", [labels, vec![status_label]].concat());
        Self { method, status, calls, seconds }
    }

    fn count(&self, took: Duration) {
        self.calls.increment(1);
        self.seconds.record(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn calls_are_counted_by_what_they_are() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let tally = Tally::of(NodeId([7; 16]));
        metrics::with_local_recorder(&recorder, || {
            for (method, route, status) in [
                ("GET", "/v1/spaces", StatusCode::OK),
                ("GET", "/v1/spaces", StatusCode::OK),
                ("GET", "/v1/spaces", StatusCode::UNAUTHORIZED),
                ("POST", "/v1/spaces", StatusCode::CREATED),
                ("GET", "none", StatusCode::OK),
            ] {
                tally.count(method, route, status, Duration::from_millis(2));
            }
        });
        let text = recorder.handle().render();
        let found = |name: &str, labels: &[&str]| {
            let has = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
            let lines: Vec<_> = text.lines().filter(has).collect();
            assert_eq!(lines.len(), 1, "{name} {labels:?}: {text}");
            lines[0].rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        let calls = "mychat_http_calls_total";
        let spaces = "route=\"/v1/spaces\"";
        assert_eq!(found(calls, &["method=\"GET\"", spaces, "status=\"200\""]), 2);
        assert_eq!(found(calls, &["method=\"GET\"", spaces, "status=\"401\""]), 1);
        assert_eq!(found(calls, &["method=\"POST\"", spaces, "status=\"201\""]), 1);
        assert_eq!(found(calls, &["method=\"GET\"", "route=\"none\"", "status=\"200\""]), 1);
        let timed = "mychat_http_call_seconds_count";
        assert_eq!(found(timed, &["method=\"GET\"", spaces]), 3, "however they went");
        assert_eq!(found(timed, &["method=\"POST\"", spaces]), 1);
    }
}
