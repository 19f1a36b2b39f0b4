//! Three nodes of MyChat, and what is asked of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::cluster::{NODES, Place};
use super::marker::mark;
use super::text::body;
use super::wire::{Answer, Connection, request};

/// The file of the database in a node's folder.
pub(super) const DATABASE: &str = "mychat.db";
/// How long the start may take, and each step of it.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// The account that speaks. It lives as long as the folder that it is in.
const EMAIL: &str = "bench@bench.example";
const PASSWORD: &str = "measured, not kept";

/// Who speaks, and where.
#[derive(Debug)]
pub(super) struct MyChat {
    token: String,
    space: String,
}

/// This program.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("this program's own file can't be found")
}

/// Makes the cluster's key.
pub(crate) async fn make_key(file: &Path) -> anyhow::Result<()> {
    let output = tokio::process::Command::new(program()?).args(["cluster", "key"]).output().await?;
    ensure!(output.status.success(), "`mychat cluster key` fails");
    tokio::fs::write(file, output.stdout).await.with_context(|| file.display().to_string())
}

/// The arguments of a node.
pub(super) fn arguments(places: &[Place; NODES], at: usize, key: &Path, log: &str) -> Vec<String> {
    let place = &places[at];
    let mut args: Vec<String> = ["--log", log, "node", "--region"].map(str::to_owned).to_vec();
    args.push(format!("bench-{}", place.name.to_lowercase()));
    for (flag, value) in [
        ("--http", place.http.to_string()),
        ("--mesh", place.mesh.to_string()),
        ("--mesh-public", place.front.to_string()),
        ("--public-url", format!("http://{}", place.http)),
        ("--data", place.data.display().to_string()),
        ("--cluster-key", key.display().to_string()),
    ] {
        args.extend([flag.to_owned(), value]);
    }
    args.push("--peer".to_owned());
    args.extend(
        places.iter().filter(|other| other.front != place.front).map(|other| other.front.to_string()),
    );
    args
}

/// Whether a node is ready and connected to all others.
pub(crate) async fn is_ready(address: SocketAddr, others: usize) -> bool {
    let Ok(node) = get(address, "/v1/node", None).await else { return false };
    let connected = node["peers"]
        .as_array()
        .map_or(0, |peers| peers.iter().filter(|peer| peer["connected"] == true).count());
    node["ready"] == true && connected >= others
}

/// What each site's log holds at a node.
pub(super) async fn heads(address: SocketAddr) -> anyhow::Result<Value> {
    Ok(get(address, "/v1/node", None).await?["heads"].take())
}

impl MyChat {
    /// Makes an account and a space at the first node, and waits until every node knows both.
    pub(super) async fn prepare(places: &[Place; NODES]) -> anyhow::Result<Self> {
        let first = places[0].http;
        let account = json!({ "email": EMAIL, "password": PASSWORD, "name": "Bench" });
        let account =
            post(first, "/v1/accounts", None, &account).await.context("the account can't be made")?;
        let token = text(&account, "token")?;
        let space = json!({ "name": "bench", "visibility": "private" });
        let space =
            post(first, "/v1/spaces", Some(&token), &space).await.context("the space can't be made")?;
        let mychat = Self { space: text(&space, "id")?, token };
        let deadline = Instant::now() + PATIENCE;
        for place in places {
            let path = format!("/v1/spaces/{}", mychat.space);
            while get(place.http, &path, Some(&mychat.token)).await.is_err() {
                ensure!(Instant::now() < deadline, "node {} does not come to know the space", place.name);
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(mychat)
    }

    /// The request that sends a message with a mark, whose text has `size` bytes.
    pub(super) fn post(&self, node: SocketAddr, size: usize, client_id: bool) -> Vec<u8> {
        let mut message = json!({ "body": body(size) });
        if client_id {
            message["client_id"] = format!("{}-0123456789abcdef012", mark(0)).into();
        }
        let path = format!("/v1/spaces/{}/messages", self.space);
        request("POST", &path, node, &[self.authorization()], &message.to_string())
    }

    /// The request for the stream of events.
    pub(super) fn watch(&self, node: SocketAddr) -> Vec<u8> {
        let headers = ["accept: text/event-stream", "mychat-client: fetch"].map(str::to_owned);
        let headers = [headers.to_vec(), vec![self.authorization()]].concat();
        request("GET", "/v1/events", node, &headers, "")
    }

    /// How many messages a node's history has, and a hash of them all, in their order.
    pub(super) async fn history(&self, node: SocketAddr) -> anyhow::Result<(u64, String)> {
        // The first token may have expired by now.
        let session = json!({ "email": EMAIL, "password": PASSWORD });
        let session = post(node, "/v1/sessions", None, &session).await.context("signing in fails")?;
        let authorization = format!("authorization: Bearer {}", text(&session, "token")?);
        let mut connection = Connection::open(node).await?;
        let (mut count, mut hash) = (0, ring::digest::Context::new(&ring::digest::SHA256));
        let mut next = String::new();
        loop {
            let path =
                format!("/v1/spaces/{}/messages?since=1970-01-01&order=asc&limit=200{next}", self.space);
            let call = request("GET", &path, node, std::slice::from_ref(&authorization), "");
            let page = json_of(connection.call(&call).await?)?;
            for message in page["items"].as_array().context("a history without items")? {
                count += 1;
                for field in ["id", "author", "body"] {
                    hash.update(message[field].as_str().unwrap_or_default().as_bytes());
                    hash.update(&[0]);
                }
            }
            match page["next"].as_str() {
                Some(cursor) => next = format!("&cursor={cursor}"),
                None => break,
            }
        }
        let hash = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((count, hash))
    }

    fn authorization(&self) -> String {
        format!("authorization: Bearer {}", self.token)
    }
}

/// A number of a node's metrics, over all its labels.
pub(super) async fn metric(node: SocketAddr, name: &str) -> anyhow::Result<f64> {
    let answer = Connection::open(node).await?.call(&request("GET", "/metrics", node, &[], "")).await?;
    let text = String::from_utf8_lossy(&answer.body);
    let lines = text.lines().filter_map(|line| line.strip_prefix(name));
    Ok(lines.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

async fn get(node: SocketAddr, path: &str, token: Option<&str>) -> anyhow::Result<Value> {
    call(node, "GET", path, token, "").await
}

async fn post(node: SocketAddr, path: &str, token: Option<&str>, body: &Value) -> anyhow::Result<Value> {
    call(node, "POST", path, token, &body.to_string()).await
}

async fn call(
    node: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: &str,
) -> anyhow::Result<Value> {
    let headers: Vec<String> = token.iter().map(|token| format!("authorization: Bearer {token}")).collect();
    let request = request(method, path, node, &headers, body);
    let called = async { Connection::open(node).await?.call(&request).await };
    json_of(tokio::time::timeout(PATIENCE, called).await.context("no answer")??)
}

fn json_of(answer: Answer) -> anyhow::Result<Value> {
    let body = String::from_utf8_lossy(&answer.body);
    if !(200..300).contains(&answer.status) {
        bail!("{}: {body}", answer.status);
    }
    serde_json::from_str(&body).context("an answer that is no JSON")
}

fn text(value: &Value, field: &str) -> anyhow::Result<String> {
    value[field].as_str().map(str::to_owned).with_context(|| format!("an answer without {field}"))
}
