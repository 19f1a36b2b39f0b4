//! The public API as a person's program uses it: plain calls to the router and to one node.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use reqwest::{Client, Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

/// How long a call may take.
const CALL: Duration = Duration::from_secs(30);
/// Silence on a stream after which it is dead; a live one says something every 20 s.
const SILENCE: Duration = Duration::from_secs(45);
/// The pause before a call is made again that failed because the node is behind or busy.
const PAUSE: Duration = Duration::from_millis(50);

/// What the router answers.
#[derive(Debug, Deserialize)]
pub(super) struct Route {
    pub(super) nodes: Vec<Choice>,
}

/// A node that the router offers.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Choice {
    pub(super) region: String,
    pub(super) url: String,
    pub(super) estimated_rtt_ms: Option<f64>,
}

/// An answer with its cursor.
pub(super) struct Answer {
    pub(super) body: Value,
    pub(super) cursor: Option<String>,
}

/// A client without an account. Clones share their connections.
#[derive(Debug, Clone)]
pub(super) struct Http {
    calls: Client,
    streams: Client,
}

impl Http {
    pub(super) fn new() -> anyhow::Result<Self> {
        let builder = || Client::builder().no_proxy();
        Ok(Self {
            calls: builder().timeout(CALL).build()?,
            streams: builder().read_timeout(SILENCE).build()?,
        })
    }

    /// Asks the router where to go from here.
    pub(super) async fn route(&self, router: &str, lat: f64, lon: f64) -> anyhow::Result<Choice> {
        let url = format!("{router}/v1/route?lat={lat}&lon={lon}");
        let response = self.calls.get(url).send().await?.error_for_status()?;
        let route: Route = response.json().await?;
        route.nodes.into_iter().next().context("the router offers no node")
    }

    /// A call that is made again while the node is behind or busy, until `deadline`.
    pub(super) async fn call(
        &self,
        method: Method,
        url: &str,
        who: Option<&str>,
        body: &Value,
        after: Option<&str>,
        deadline: Instant,
    ) -> anyhow::Result<Answer> {
        loop {
            let mut request = self.calls.request(method.clone(), url).json(body);
            if let Some(token) = who {
                request = request.bearer_auth(token);
            }
            if let Some(cursor) = after {
                request = request.header("MyChat-After", cursor);
            }
            let response = request.send().await?;
            let status = response.status();
            if status.is_success() {
                return answer(response).await;
            }
            let behind = matches!(status.as_u16(), 401 | 403 | 404 | 429 | 503);
            if !behind || Instant::now() >= deadline {
                let said = response.text().await.unwrap_or_default();
                bail!("{method} {url}: {status} {said}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Posts a message once; a failure is the answer.
    pub(super) async fn post(
        &self,
        url: &str,
        token: &str,
        body: &str,
        client_id: &str,
    ) -> anyhow::Result<()> {
        let body = json!({ "body": body, "client_id": client_id });
        let response = self.calls.post(url).bearer_auth(token).json(&body).send().await?;
        if response.status() != StatusCode::CREATED {
            bail!("POST {url}: {}", response.status());
        }
        // The answer is there when all of it is.
        response.bytes().await?;
        Ok(())
    }

    /// Opens an event stream.
    pub(super) async fn events(&self, node: &str, token: &str) -> anyhow::Result<Response> {
        let request = self
            .streams
            .get(format!("{node}/v1/events"))
            .bearer_auth(token)
            .header("Accept", "text/event-stream")
            .header("MyChat-Client", "fetch");
        Ok(request.send().await?.error_for_status()?)
    }
}

async fn answer(response: Response) -> anyhow::Result<Answer> {
    let cursor = response.headers().get("mychat-cursor").and_then(|value| value.to_str().ok());
    let cursor = cursor.map(str::to_owned);
    let bytes = response.bytes().await?;
    let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? };
    Ok(Answer { body, cursor })
}
