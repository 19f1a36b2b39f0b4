//! The nodes as a client sees them: calls of the public API with timeouts, and the way from a node that does not
//! answer to the next.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(2);
/// Silence on an event stream after which it is taken for dead; a live one says something every 20 s.
const SILENCE: Duration = Duration::from_secs(45);
/// How long a node that did not answer is asked last.
const SUSPICION: Duration = Duration::from_secs(1);
/// The pause after a round of all nodes, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// One node under test.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) url: String,
    pub(super) id: String,
    pub(super) region: String,
}

/// What a node says of itself.
#[derive(Debug, Deserialize)]
pub(super) struct NodeStatus {
    pub(super) id: String,
    pub(super) region: String,
    #[serde(default)]
    pub(super) heads: BTreeMap<String, u64>,
    #[serde(default)]
    pub(super) peers: Vec<PeerStatus>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PeerStatus {
    pub(super) id: String,
    #[serde(default)]
    pub(super) rtt_ms: Option<f64>,
    /// The emulated delay, when the nodes run over an emulated network.
    #[serde(default)]
    pub(super) one_way_ms: Option<f64>,
}

/// One call.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) token: Option<&'a str>,
    pub(super) body: Option<&'a Value>,
    /// What the node must have seen before it answers.
    pub(super) after: Option<&'a str>,
}

impl<'a> Call<'a> {
    pub(super) fn get(path: &'a str) -> Self {
        Self { method: &Method::GET, path, token: None, body: None, after: None }
    }

    pub(super) fn send(method: &'a Method, path: &'a str, body: &'a Value) -> Self {
        Self { method, path, token: None, body: Some(body), after: None }
    }

    pub(super) fn token(self, token: &'a str) -> Self {
        Self { token: Some(token), ..self }
    }

    pub(super) fn after(self, cursor: Option<&'a str>) -> Self {
        Self { after: cursor, ..self }
    }
}

/// A call that succeeded.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) node: usize,
    pub(super) body: Value,
    pub(super) cursor: Option<String>,
}

/// A call that did not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallError {
    /// No answer, or one that speaks of the node's own trouble: another node may do better.
    #[error("{0}")]
    Unreachable(String),
    /// The node asks to come back later.
    #[error("too many requests")]
    Busy(Duration),
    /// The node refuses.
    #[error("{status} {code}: {detail}")]
    Refused { status: u16, code: String, detail: String },
}

pub(super) struct Api {
    http: Client,
    streams: Client,
    pub(super) nodes: Vec<Node>,
    started: Instant,
    /// Per node: until when it is asked last, in milliseconds since `started`.
    suspects: Vec<AtomicU64>,
}

/// Checks the address of a node and brings it into the form that paths are appended to.
pub(super) fn node_url(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| format!("{error} (give it like http://127.0.0.1:8081)"))?;
    match url.scheme() {
        "http" if url.query().is_none() && url.fragment().is_none() => {
            Ok(url.as_str().trim_end_matches('/').to_owned())
        }
        "http" => Err("an address of a node has no query".to_owned()),
        other => Err(format!("nodes are reached by http here, not by {other}")),
    }
}

impl Api {
    /// Asks each node who it is, until `deadline`.
    pub(super) async fn connect(
        urls: &[String],
        timeout: Duration,
        deadline: Instant,
    ) -> Result<Api, CallError> {
        let failed = |error: reqwest::Error| CallError::Unreachable(error.to_string());
        let builder = || Client::builder().connect_timeout(CONNECT).no_proxy();
        let http = builder().timeout(timeout).build().map_err(failed)?;
        let streams = builder().read_timeout(SILENCE).build().map_err(failed)?;
        let mut api = Api { http, streams, nodes: Vec::new(), started: Instant::now(), suspects: Vec::new() };
        for url in urls {
            api.nodes.push(Node { url: url.clone(), id: String::new(), region: String::new() });
            api.suspects.push(AtomicU64::new(0));
        }
        for index in 0..urls.len() {
            let status = api.status_by(index, deadline).await?;
            api.nodes[index].id = status.id;
            api.nodes[index].region = status.region;
        }
        Ok(api)
    }

    async fn status_by(&self, node: usize, deadline: Instant) -> Result<NodeStatus, CallError> {
        loop {
            match self.status(node).await {
                Err(CallError::Unreachable(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(FIRST_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// What a node says of itself.
    pub(super) async fn status(&self, node: usize) -> Result<NodeStatus, CallError> {
        let answer = self.call(node, Call::get("/v1/node")).await?;
        serde_json::from_value(answer.body).map_err(|error| {
            CallError::Unreachable(format!("{}: not a node's status: {error}", self.nodes[node].url))
        })
    }

    /// One call to one node.
    pub(super) async fn call(&self, node: usize, call: Call<'_>) -> Result<Answer, CallError> {
        let url = format!("{}{}", self.nodes[node].url, call.path);
        let mut request = self.http.request(call.method.clone(), url);
        if let Some(token) = call.token {
            request = request.bearer_auth(token);
        }
        if let Some(cursor) = call.after {
            request = request.header("MyChat-After", cursor);
        }
        if let Some(body) = call.body {
            request = request.json(body);
        }
        let unreachable = |error: reqwest::Error| {
            self.suspect(node);
            CallError::Unreachable(describe(&error))
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let cursor = header(&response, "mychat-cursor");
        let retry_after = header(&response, "retry-after").and_then(|seconds| seconds.parse().ok());
        let bytes = response.bytes().await.map_err(unreachable)?;
        if status.is_success() {
            // Some answers have no content.
            let body = if bytes.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&bytes) };
            let body = body.map_err(|_| CallError::Unreachable(format!("{status} without JSON")))?;
            return Ok(Answer { node, body, cursor });
        }
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS => {
                CallError::Busy(Duration::from_secs(retry_after.unwrap_or(1).clamp(1, 60)))
            }
            status if status.is_server_error() => {
                self.suspect(node);
                CallError::Unreachable(format!("{status}"))
            }
            status => {
                let problem: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
                CallError::Refused { status: status.as_u16(), code: text("code"), detail: text("detail") }
            }
        })
    }

    /// The call at the first node that answers, beginning at `home`, round after round until `deadline`. Refusals with
    /// one of the statuses `passing` count as not answered: a node may not know yet what another has just accepted.
    pub(super) async fn call_any(
        &self,
        home: usize,
        call: Call<'_>,
        passing: &[u16],
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut last = CallError::Unreachable("no node".to_owned());
            let mut wait = pause;
            for node in self.order(home) {
                match self.call(node, call).await {
                    Ok(answer) => return Ok(answer),
                    Err(CallError::Refused { status, code, detail }) if !passing.contains(&status) => {
                        return Err(CallError::Refused { status, code, detail });
                    }
                    Err(CallError::Busy(after)) => {
                        wait = after;
                        last = CallError::Busy(after);
                        break;
                    }
                    Err(error) => last = error,
                }
            }
            if Instant::now() + wait >= deadline {
                return Err(last);
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// All nodes from `home` on, those that have just failed at the end.
    pub(super) fn order(&self, home: usize) -> Vec<usize> {
        let now = self.started.elapsed().as_millis() as u64;
        let mut order: Vec<usize> =
            (0..self.nodes.len()).map(|step| (home + step) % self.nodes.len()).collect();
        order.sort_by_key(|node| self.suspects[*node].load(Ordering::Relaxed) > now);
        order
    }

    fn suspect(&self, node: usize) {
        let until = self.started.elapsed() + SUSPICION;
        self.suspects[node].store(until.as_millis() as u64, Ordering::Relaxed);
    }

    /// Whether the node says that it is ready.
    pub(super) async fn is_ready(&self, node: usize) -> bool {
        let answer = self.http.get(format!("{}/readyz", self.nodes[node].url)).send().await;
        answer.is_ok_and(|response| response.status().is_success())
    }

    /// Opens an event stream that resumes from a cursor.
    pub(super) async fn events(
        &self,
        node: usize,
        token: &str,
        cursor: Option<&str>,
    ) -> Result<reqwest::Response, CallError> {
        let mut request = self
            .streams
            .get(format!("{}/v1/events", self.nodes[node].url))
            .bearer_auth(token)
            .header("Accept", "text/event-stream")
            // Asks for plain statuses in place of a goodbye event.
            .header("MyChat-Client", "fetch");
        if let Some(cursor) = cursor {
            request = request.header("Last-Event-ID", cursor);
        }
        let response = request.send().await.map_err(|error| CallError::Unreachable(describe(&error)))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status if status.is_client_error() => Err(CallError::Refused {
                status: status.as_u16(),
                code: String::new(),
                detail: String::new(),
            }),
            status => Err(CallError::Unreachable(format!("{status}"))),
        }
    }
}

fn header(response: &reqwest::Response, name: &str) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// The error with its causes: the outermost of the HTTP client says only that something failed.
fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_nodes_are_checked() {
        assert_eq!(node_url("http://127.0.0.1:8081/").unwrap(), "http://127.0.0.1:8081");
        assert_eq!(node_url("http://a.example/prefix/").unwrap(), "http://a.example/prefix");
        for bad in ["127.0.0.1:8081", "https://a.example", "ftp://a", "http://a.example/?x=1", ""] {
            assert!(node_url(bad).is_err(), "{bad}");
        }
    }
}
