//! `mychat cluster`: the key that makes nodes one cluster, and a look at one that runs.

use anyhow::Context;
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use mychat_replication::cluster::ClusterKey;
use serde::Deserialize;

/// What to do with a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make a new cluster's key: `mychat cluster key > cluster.key`
    ///
    /// Whoever has the key can join the cluster and act as any account. Keep it where only the nodes and the router
    /// can read it.
    Key,
    /// Show the nodes, as one of them sees them
    Members(Members),
}

/// Whom to ask.
#[derive(Debug, Args)]
pub struct Members {
    /// The URL of any node.
    #[arg(long, env = "MYCHAT_NODE", default_value = "http://127.0.0.1:8081", value_name = "URL")]
    node: String,
}

/// Runs the command.
pub async fn run(command: ClusterCommand) -> anyhow::Result<()> {
    match command {
        ClusterCommand::Key => println!("{}", ClusterKey::generate().to_text()),
        ClusterCommand::Members(Members { node }) => println!("{}", members(&node).await?),
    }
    Ok(())
}

#[derive(Deserialize)]
struct Seen {
    id: String,
    region: String,
    url: String,
    version: String,
    /// Older nodes don't say.
    sync: Option<Sync>,
    peers: Vec<Peer>,
}

#[derive(Deserialize)]
struct Sync {
    state: String,
    percent: Option<f64>,
}

impl Sync {
    /// What it is doing, if it is not just live.
    fn shown(&self) -> String {
        match (self.state.as_str(), self.percent) {
            ("live", _) => String::new(),
            (state, percent) => format!(", {} {:.0} %", state.replace('_', " "), percent.unwrap_or_default()),
        }
    }
}

#[derive(Deserialize)]
struct Peer {
    id: String,
    region: String,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    rtt_ms: Option<f64>,
    behind: u64,
}

async fn members(node: &str) -> anyhow::Result<Table> {
    let url = format!("{}/v1/node", node.trim_end_matches('/'));
    let unreachable = || format!("{node} does not answer");
    let seen: Seen = reqwest::Client::new()
        .get(&url)
        .timeout(std::time::Duration::from_secs(10))
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .with_context(unreachable)?
        .json()
        .await
        .with_context(|| format!("{node} is not a node of MyChat"))?;
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(vec!["region", "node", "url", "round trip", "lacks of it"]);
    let sync = seen.sync.as_ref().map(Sync::shown).unwrap_or_default();
    table.add_row(vec![
        seen.region,
        seen.id,
        seen.url,
        format!("this one, {}{sync}", seen.version),
        "-".into(),
    ]);
    for peer in seen.peers {
        let rtt = peer.rtt_ms.map_or("-".into(), |rtt| format!("{rtt:.1} ms"));
        let url = peer.url.unwrap_or_else(|| "-".into());
        table.add_row(vec![peer.region, peer.id, url, rtt, format!("{} versions", peer.behind)]);
    }
    Ok(table)
}
