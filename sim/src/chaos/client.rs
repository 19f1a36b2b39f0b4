//! Calls of the public API, as a client with one account makes them at each node.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(2);
/// How long the answer to a call may take.
pub(super) const ANSWER: Duration = Duration::from_secs(4);
/// How long an answer that takes a password may take: the hash is meant to be slow, and the machine is busy.
const SIGN_IN: Duration = Duration::from_secs(20);
/// Silence on an event stream after which it is taken for dead; a live one says something every 20 s.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a stream may take to begin.
const BEGINNING: Duration = Duration::from_secs(5);

/// Why a call did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Failure {
    /// The node says no.
    #[error("{status} {code}")]
    Refused { status: u16, code: String },
    /// The node says nothing: what became of the call is not known.
    #[error("no answer: {0}")]
    Silent(String),
}

/// What a node holds: per site the version of its log.
pub(super) type Heads = BTreeMap<String, u64>;

/// What a node says of itself.
#[derive(Debug, Deserialize)]
pub(super) struct Status {
    pub(super) heads: Heads,
    pub(super) peers: Vec<Value>,
}

struct Token {
    text: String,
    renew_at: Instant,
}

/// One account at all nodes, with connections that are kept.
pub(super) struct Client {
    calls: reqwest::Client,
    streams: reqwest::Client,
    pub(super) urls: Vec<String>,
    email: String,
    password: String,
    /// Each node's own: with clocks that differ, one made elsewhere may seem to be over.
    tokens: Vec<Mutex<Option<Token>>>,
}

impl Client {
    pub(super) fn new(urls: Vec<String>) -> reqwest::Result<Self> {
        let builder = || reqwest::Client::builder().connect_timeout(CONNECT).no_proxy();
        let tokens = urls.iter().map(|_| Mutex::default()).collect();
        Ok(Self {
            calls: builder().build()?,
            streams: builder().read_timeout(SILENCE).build()?,
            urls,
            email: format!("chaos-{}@example.org", uuid::Uuid::now_v7().simple()),
            password: uuid::Uuid::now_v7().to_string(),
            tokens,
        })
    }

    pub(super) async fn status(&self, node: usize) -> Option<Status> {
        let request = self.calls.get(format!("{}/v1/node", self.urls[node])).timeout(ANSWER);
        serde_json::from_value(answer(request).await.ok()?).ok()
    }

    pub(super) async fn is_ready(&self, node: usize) -> bool {
        let request = self.calls.get(format!("{}/readyz", self.urls[node])).timeout(ANSWER);
        request.send().await.is_ok_and(|response| response.status().is_success())
    }

    /// Makes the account.
    pub(super) async fn sign_up(&self, node: usize) -> Result<(), Failure> {
        let body = json!({ "email": self.email, "password": self.password, "name": "Chaos" });
        let request = self.calls.post(format!("{}/v1/accounts", self.urls[node])).timeout(SIGN_IN);
        answer(request.json(&body)).await.map(drop)
    }

    /// A call in the name of the account.
    pub(super) async fn call(
        &self,
        node: usize,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let request = |token: &str| {
            let request = self.calls.request(method.clone(), format!("{}{path}", self.urls[node]));
            let request = request.timeout(ANSWER).bearer_auth(token);
            match body {
                Some(body) => request.json(body),
                None => request,
            }
        };
        let token = self.token(node, None).await?;
        match answer(request(&token)).await {
            Err(Failure::Refused { status: 401, .. }) => {
                answer(request(&self.token(node, Some(&token)).await?)).await
            }
            other => other,
        }
    }

    /// Opens an event stream that resumes from a cursor.
    pub(super) async fn events(
        &self,
        node: usize,
        cursor: Option<&str>,
    ) -> Result<reqwest::Response, Failure> {
        let token = self.token(node, None).await?;
        let mut request = self
            .streams
            .get(format!("{}/v1/events", self.urls[node]))
            .bearer_auth(&token)
            .header("Accept", "text/event-stream")
            // Asks for plain statuses in place of a goodbye event.
            .header("MyChat-Client", "fetch");
        if let Some(cursor) = cursor {
            request = request.header("Last-Event-ID", cursor);
        }
        let sent = tokio::time::timeout(BEGINNING, request.send()).await;
        let response = sent.map_err(|_| Failure::Silent("no stream in time".into()))?.map_err(silent)?;
        match response.status().as_u16() {
            200 => Ok(response),
            status => {
                if status == 401 {
                    self.token(node, Some(&token)).await?;
                }
                Err(Failure::Refused { status, code: String::new() })
            }
        }
    }

    /// A token that the node made itself; another one than the one it has refused.
    async fn token(&self, node: usize, refused: Option<&str>) -> Result<String, Failure> {
        let mut held = self.tokens[node].lock().await;
        if let Some(token) = &*held
            && refused != Some(token.text.as_str())
            && Instant::now() < token.renew_at
        {
            return Ok(token.text.clone());
        }
        let body = json!({ "email": self.email, "password": self.password });
        let request =
            self.calls.post(format!("{}/v1/sessions", self.urls[node])).timeout(SIGN_IN).json(&body);
        match (answer(request).await, &*held) {
            (Ok(session), _) => {
                let lifetime = Duration::from_secs(session["expires_in"].as_u64().unwrap_or(60));
                let text = session["token"].as_str().unwrap_or_default().to_owned();
                *held = Some(Token { text: text.clone(), renew_at: Instant::now() + lifetime / 2 });
                Ok(text)
            }
            // The old one is good for a while yet.
            (Err(_), Some(token)) if refused.is_none() => Ok(token.text.clone()),
            (Err(failure), _) => Err(failure),
        }
    }
}

async fn answer(request: RequestBuilder) -> Result<Value, Failure> {
    let response = request.send().await.map_err(silent)?;
    let status = response.status();
    let bytes = response.bytes().await.map_err(silent)?;
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if status.is_success() {
        return Ok(body);
    }
    let code = body["code"].as_str().unwrap_or("without a code").to_owned();
    Err(Failure::Refused { status: status.as_u16(), code })
}

/// The innermost cause: the outer ones say only that something failed.
fn silent(error: reqwest::Error) -> Failure {
    let mut inner: &dyn std::error::Error = &error;
    while let Some(cause) = inner.source() {
        inner = cause;
    }
    Failure::Silent(inner.to_string())
}
