//! Three nodes of klukai, the published fork of Corrosion, and what is asked of them.
//!
//! It replicates SQLite by cr-sqlite as MyChat does, and has no notion of messages: a table stands for them, with one
//! transaction a message, and its stream of a table's updates stands for events.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::cluster::{NODES, Place};
use super::marker::{Template, mark};
use super::settings::Peer;
use super::text::body;
use super::wire::{Connection, request};

/// The file of the database in a node's folder.
pub(super) const DATABASE: &str = "klukai.db";
/// The table, in the form that cr-sqlite takes.
const SCHEMA: &str = "CREATE TABLE messages (
    id TEXT NOT NULL PRIMARY KEY,
    space_id TEXT NOT NULL DEFAULT '',
    author TEXT NOT NULL DEFAULT '',
    body TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL DEFAULT 0
);
";
const INSERT: &str = "INSERT INTO messages (id, space_id, author, body, created_at) VALUES (?, ?, ?, ?, ?)";
/// Ids as long as those of MyChat are as text.
const SPACE: &str = "01940000-0000-7000-8000-000000000001";
const AUTHOR: &str = "01940000-0000-7000-8000-000000000002";
const ID_REST: &str = "-0123456789abcdef012";
/// How long nodes may take to find each other.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// How it is measured, for reports.
pub(super) fn method(_: Peer) -> String {
    "klukai: plaintext gossip, one INSERT a transaction (POST /v1/transactions), read as updates of the table (POST \
     /v1/updates/messages), level when all nodes count the same rows; it commits without waiting for the disk \
     (synchronous = NORMAL), MyChat with an fsync."
        .to_owned()
}

/// Writes the configuration of a node, and gives the arguments with which it runs.
pub(super) fn configure(places: &[Place; NODES], at: usize, folder: &Path) -> anyhow::Result<Vec<String>> {
    let (place, schema) = (&places[at], folder.join("schema.sql"));
    std::fs::create_dir_all(&place.data)?;
    std::fs::write(&schema, SCHEMA)?;
    let others: Vec<_> = places.iter().filter(|other| other.front != place.front).collect();
    let bootstrap: Vec<_> = others.iter().map(|other| format!("\"{}\"", other.front)).collect();
    let path = |name: &str| place.data.join(name).display().to_string();
    let config = format!(
        "[db]\npath = {:?}\nschema_paths = [{:?}]\n\n[gossip]\naddr = \"{}\"\nexternal_addr = \"{}\"\n\
         client_addr = \"127.0.0.1:0\"\nbootstrap = [{}]\nplaintext = true\n\n[api]\naddr = \"{}\"\n\n\
         [admin]\npath = {:?}\n\n[log]\ncolors = false\n",
        path(DATABASE),
        schema.display().to_string(),
        place.mesh,
        place.front,
        bootstrap.join(", "),
        place.http,
        path("admin.sock"),
    );
    let file = folder.join(format!("{}.toml", place.name));
    std::fs::write(&file, config)?;
    Ok(vec!["-c".to_owned(), file.display().to_string(), "agent".to_owned()])
}

/// Whether a node takes calls.
pub(super) async fn is_ready(address: SocketAddr) -> bool {
    count(address).await.is_ok()
}

/// Writes at each node, and waits until all have it: only then they are known to be connected.
pub(super) async fn prepare(places: &[Place; NODES]) -> anyhow::Result<()> {
    for place in places {
        let insert = insert(place.http, &format!("probe-{}", place.name), "is anybody there?");
        let answer = Connection::open(place.http).await?.call(&insert).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    }
    let deadline = Instant::now() + PATIENCE;
    for place in places {
        while rows(place.http, "SELECT count(*) FROM messages").await?.0 != format!("[1,[{NODES}]]") {
            ensure!(Instant::now() < deadline, "node {} does not hear of the others", place.name);
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

/// The request that writes a message with a mark, whose text has `size` bytes.
pub(super) fn post(node: SocketAddr, size: usize) -> Vec<u8> {
    insert(node, &format!("{}{ID_REST}", mark(0)), &body(size))
}

/// The request that writes messages with these numbers and with texts of their own, in one transaction.
pub(super) fn post_many(node: SocketAddr, size: usize, numbers: std::ops::Range<u64>) -> Vec<u8> {
    let rows: Vec<Value> = numbers
        .map(|number| {
            let body = Template::new(body(size).into_bytes()).varied(number);
            row(&format!("{}{ID_REST}", mark(number)), &String::from_utf8_lossy(&body))
        })
        .collect();
    request("POST", "/v1/transactions", node, &[], &Value::from(rows).to_string())
}

fn insert(node: SocketAddr, id: &str, body: &str) -> Vec<u8> {
    request("POST", "/v1/transactions", node, &[], &json!([row(id, body)]).to_string())
}

fn row(id: &str, body: &str) -> Value {
    json!([INSERT, [id, SPACE, AUTHOR, body, 1_735_689_600_000_u64]])
}

/// The request for the stream of the table's updates, which names the ids of rows.
pub(super) fn watch(node: SocketAddr) -> Vec<u8> {
    request("POST", "/v1/updates/messages", node, &["content-length: 0".to_owned()], "")
}

/// How many messages a node has, without the first ones.
pub(super) async fn count(node: SocketAddr) -> anyhow::Result<u64> {
    let rows = rows(node, "SELECT count(*) FROM messages").await?.0;
    let row: Value = serde_json::from_str(&rows).context("a row that is no JSON")?;
    Ok(row[1][0].as_u64().context("no count")?.saturating_sub(NODES as u64))
}

/// How many messages a node has, and a hash of them all.
pub(super) async fn contents(node: SocketAddr) -> anyhow::Result<(u64, String)> {
    let (rows, count) =
        rows(node, "SELECT id, author, body FROM messages WHERE id LIKE 'bench-%' ORDER BY id").await?;
    let hash = ring::digest::digest(&ring::digest::SHA256, rows.as_bytes());
    Ok((count, hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// The rows of a query, one after the other as they came, and how many they are.
async fn rows(node: SocketAddr, query: &str) -> anyhow::Result<(String, u64)> {
    let request = request("POST", "/v1/queries", node, &[], &Value::from(query).to_string());
    let answer = Connection::open(node).await?.call(&request).await?;
    let text = String::from_utf8_lossy(&answer.body);
    ensure!(answer.status == 200 && !text.contains("{\"error\""), "{}: {text}", answer.status);
    let rows = text.lines().filter_map(|line| line.strip_prefix("{\"row\":")?.strip_suffix('}'));
    Ok(rows.fold((String::new(), 0), |(text, count), row| (text + row, count + 1)))
}
