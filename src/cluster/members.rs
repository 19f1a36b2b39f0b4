//! `mychat cluster members`: the mesh as a table. One node says whom it knows; each of those is asked how it is.

use std::{
    collections::HashMap,
    io::{IsTerminal, Write},
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Args;
use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinSet;

/// How long the node that is asked first may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long each of the others may take: one that is stuck must not hold up the table.
const SHORT: Duration = Duration::from_millis(1_500);
/// How often `--watch` draws.
const REDRAW: Duration = Duration::from_secs(1);
/// Clears the terminal from the top left corner on (ECMA-48).
const CLEAR: &str = "\x1b[H\x1b[J";

/// Whom to ask, and how to show it.
#[derive(Debug, Args)]
pub struct Members {
    /// The URL of any node.
    #[arg(long, env = "MYCHAT_NODE", default_value = "http://127.0.0.1:8081", value_name = "URL")]
    node: String,
    /// Draw the table anew every second.
    #[arg(long)]
    watch: bool,
    /// Write JSON instead, one array a line.
    #[arg(long)]
    json: bool,
}

/// What a node says of itself and of the others. Older nodes say less.
#[derive(Deserialize)]
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) region: String,
    pub(super) url: String,
    version: String,
    #[serde(default)]
    ready: bool,
    #[serde(default)]
    draining: bool,
    streams: Streams,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    sync: Option<Value>,
    pub(super) peers: Vec<Peer>,
    #[serde(default)]
    gone: Vec<Peer>,
}

#[derive(Deserialize)]
struct Streams {
    open: u64,
    capacity: u64,
}

/// A node as another one knows it.
#[derive(Deserialize)]
pub(super) struct Peer {
    pub(super) id: String,
    pub(super) region: String,
    #[serde(default)]
    pub(super) url: Option<String>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    rtt_ms: Option<f64>,
    #[serde(default)]
    behind: Option<u64>,
    #[serde(default)]
    lag_seconds: Option<f64>,
    #[serde(default)]
    heard_ms: Option<f64>,
}

/// A line of the table.
#[derive(Debug, Default, Serialize)]
struct Row {
    region: String,
    node: String,
    url: Option<String>,
    version: Option<String>,
    state: String,
    ready: Option<bool>,
    rtt_ms: Option<f64>,
    lag_versions: Option<u64>,
    lag_seconds: Option<f64>,
    streams_open: Option<u64>,
    streams_capacity: Option<u64>,
    sync: Option<Value>,
    keys: Vec<String>,
    heard_ms: Option<f64>,
}

/// Runs the command.
pub async fn run(args: Members) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().build()?;
    let terminal = std::io::stdout().is_terminal();
    let mut next = tokio::time::interval(REDRAW);
    loop {
        next.tick().await;
        let rows = rows(&http, &args.node).await;
        let text = match (&rows, args.json) {
            (Ok(rows), true) => serde_json::to_string(rows)?,
            (Ok(rows), false) => table(rows).to_string(),
            // While watching, the node may come back.
            (Err(error), _) if args.watch && terminal => format!("{error:#}"),
            (Err(_), _) => return rows.map(drop),
        };
        let clear = if args.watch && terminal { CLEAR } else { "" };
        // Whoever reads may have gone, as `head` does.
        if writeln!(std::io::stdout(), "{clear}{text}").is_err() || !args.watch {
            return Ok(());
        }
    }
}

/// What a node says of itself.
pub(super) async fn ask(http: &reqwest::Client, node: &str) -> anyhow::Result<Seen> {
    let sound = node.starts_with("http://") || node.starts_with("https://");
    ensure!(sound, "--node {node}: not a URL of the form http(s)://host[:port]");
    look(http, node, PATIENCE).await
}

async fn look(http: &reqwest::Client, node: &str, patience: Duration) -> anyhow::Result<Seen> {
    let url = format!("{}/v1/node", node.trim_end_matches('/'));
    let answer = http.get(&url).timeout(patience).send().await;
    let answer = answer.with_context(|| format!("{node} does not answer"))?;
    let foreign = || format!("{node} is not a node of MyChat");
    ensure!(answer.status().is_success(), "{} (it answers {})", foreign(), answer.status());
    answer.json().await.with_context(foreign)
}

/// The node that is asked first, then the others in the order of its list, then those that are down.
async fn rows(http: &reqwest::Client, node: &str) -> anyhow::Result<Vec<Row>> {
    let seen = ask(http, node).await?;
    let mut asking = JoinSet::new();
    for peer in &seen.peers {
        if let Some(url) = peer.url.clone() {
            let (http, id) = (http.clone(), peer.id.clone());
            asking.spawn(async move { (id, look(&http, &url, SHORT).await.ok()) });
        }
    }
    let mut own: HashMap<String, Seen> =
        asking.join_all().await.into_iter().filter_map(|(id, seen)| Some((id, seen?))).collect();
    // Something else may answer at a URL that has passed on.
    own.retain(|id, seen| *id == seen.id);
    let others = seen.peers.iter().map(|peer| row(peer, "alive", own.get(&peer.id)));
    let gone = seen.gone.iter().map(|peer| row(peer, "down", None));
    let rest: Vec<Row> = others.chain(gone).collect();
    let first = Peer {
        id: seen.id.clone(),
        region: seen.region.clone(),
        url: Some(seen.url.clone()),
        state: None,
        rtt_ms: None,
        behind: None,
        lag_seconds: None,
        heard_ms: None,
    };
    Ok(std::iter::once(row(&first, "alive", Some(&seen))).chain(rest).collect())
}

/// What is known of a node, by another one and by itself if it answered.
fn row(peer: &Peer, otherwise: &str, own: Option<&Seen>) -> Row {
    let state = peer.state.as_deref().unwrap_or(otherwise);
    let known = Row {
        region: peer.region.clone(),
        node: peer.id.clone(),
        url: peer.url.clone(),
        state: state.to_owned(),
        rtt_ms: peer.rtt_ms,
        lag_versions: peer.behind,
        lag_seconds: peer.lag_seconds,
        heard_ms: peer.heard_ms,
        ..Row::default()
    };
    let Some(own) = own else { return known };
    Row {
        version: Some(own.version.clone()),
        state: if own.draining { "draining".to_owned() } else { known.state },
        ready: Some(own.ready),
        streams_open: Some(own.streams.open),
        streams_capacity: Some(own.streams.capacity),
        sync: own.sync.clone(),
        keys: own.keys.clone(),
        ..known
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(vec![
        "region",
        "node",
        "url",
        "version",
        "state",
        "ready",
        "rtt",
        "lacks of it",
        "streams",
        "sync",
        "keys",
        "heard",
    ]);
    for row in rows {
        table.add_row(cells(row));
    }
    table
}

fn cells(row: &Row) -> Vec<String> {
    let dash = || "-".to_owned();
    let lag = row.lag_versions.map(|versions| match row.lag_seconds {
        Some(seconds) => format!("{versions} ({seconds:.1} s)"),
        None => versions.to_string(),
    });
    let streams = row.streams_open.zip(row.streams_capacity);
    let ready = match row.ready {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        // It does not answer us; that it is alive, the other node says.
        None => dash(),
    };
    vec![
        row.region.clone(),
        short(&row.node),
        row.url.clone().unwrap_or_else(dash),
        row.version.clone().unwrap_or_else(dash),
        row.state.clone(),
        ready,
        row.rtt_ms.map_or_else(dash, |rtt| format!("{rtt:.1} ms")),
        lag.unwrap_or_else(dash),
        streams.map_or_else(dash, |(open, capacity)| format!("{open}/{capacity}")),
        row.sync.as_ref().map_or_else(dash, progress),
        if row.keys.is_empty() { dash() } else { row.keys.join(" ") },
        row.heard_ms.map_or_else(dash, ago),
    ]
}

/// As much of an id as tells nodes apart.
fn short(id: &str) -> String {
    id.chars().take(8).collect()
}

/// What a node says of its catching up, in a few words.
fn progress(sync: &Value) -> String {
    let Some(state) = sync["state"].as_str() else { return "-".to_owned() };
    let mut said = state.replace('_', " ");
    if let Some(percent) = sync["percent"].as_f64() {
        said += &format!(" {percent:.0} %");
    }
    if let Some(from) = sync["from"].as_str() {
        said += &format!(" from {}", short(from));
    }
    said
}

fn ago(millis: f64) -> String {
    match millis / 1000.0 {
        seconds if seconds < 10.0 => format!("{seconds:.1} s ago"),
        seconds if seconds < 120.0 => format!("{seconds:.0} s ago"),
        seconds if seconds < 7200.0 => format!("{:.0} min ago", seconds / 60.0),
        seconds => format!("{:.0} h ago", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_joins_what_a_node_says_and_what_is_said_of_it() {
        let peer: Peer =
            serde_json::from_value(json!({ "id": "0123456789", "region": "iad", "url": "http://iad", "behind": 3, "lag_seconds": 0.25, "rtt_ms": 80.04, "state": "suspect", "heard_ms": 61_000.0 }))
                .expect("a peer");
        let silent = cells(&row(&peer, "alive", None));
        assert_eq!(
            silent,
            [
                "iad",
                "01234567",
                "http://iad",
                "-",
                "suspect",
                "-",
                "80.0 ms",
                "3 (0.2 s)",
                "-",
                "-",
                "-",
                "61 s ago"
            ]
        );
        let own: Seen =
            serde_json::from_value(json!({ "id": "0123456789", "region": "iad", "url": "http://iad",
            "version": "9.9.9", "ready": false, "draining": true, "streams": { "open": 2, "capacity": 10 },
            "sync": { "state": "catching_up", "percent": 40.4, "from": "fedcba9876543210" }, "keys": ["aa", "bb"], "peers": [] }))
            .expect("a node");
        let row = cells(&row(&peer, "alive", Some(&own)));
        assert_eq!(row[3..6], ["9.9.9", "draining", "no"]);
        assert_eq!(row[8], "2/10");
        assert_eq!(row[9], "catching up 40 % from fedcba98");
        assert_eq!(row[10], "aa bb");
    }

    #[test]
    fn a_node_of_an_older_release_has_a_row_too() {
        let older = json!({ "id": "1", "region": "fra", "url": "http://fra", "version": "0.1.0", "heads": {},
            "peers": [{ "id": "2", "region": "iad", "connected": true, "rtt_ms": null, "behind": 0 }],
            "streams": { "open": 0, "capacity": 1 }, "ready": true, "router_url": null });
        let seen: Seen = serde_json::from_value(older).expect("a node");
        assert_eq!(row(&seen.peers[0], "alive", None).state, "alive");
    }
}
