//! `mychat node`: one node of a cluster.

use std::{
    collections::HashSet,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
};

use anyhow::Context;
use clap::{Args, Subcommand};
use indicatif::MultiProgress;
use mychat_node::{Listen, Network, Node, NodeConfig, capacity::limits};
use mychat_replication::{NodeId, Role, cluster::ClusterKey, mesh::MeshConfig};
use mychat_sim::calibrate::{self, CalibrateArgs};
use serde::Deserialize;

use crate::{
    cluster::key::KeyFile,
    settings::{layers, required},
    stopping,
};

/// A node, or what is asked of the machine before there is one.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct NodeCommand {
    #[command(subcommand)]
    before: Option<Before>,
    #[command(flatten)]
    args: NodeArgs,
}

/// What is asked of the machine.
#[derive(Debug, Clone, Subcommand)]
enum Before {
    /// Measure how many event streams a node on this machine can carry, in about a minute
    ///
    /// A node is started in a temporary folder, with streams on real connections: memory for each stream, time on a
    /// processor for each delivery and message, how late the node's turns come, and the limit of open files. From that
    /// follows what ends first, with the formula and a table for several uses. Nothing else should be busy on the machine.
    ///
    /// Examples:
    ///   mychat node calibrate
    ///   mychat node calibrate --streams 19000 --seconds 120
    ///   mychat node calibrate --json > capacity.json
    #[command(verbatim_doc_comment)]
    Calibrate(CalibrateArgs),
}

/// The settings of a node.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[command(after_help = "Example of a second node that joins through the first:
  mychat node --region iad --http 0.0.0.0:8080 --mesh 0.0.0.0:4000 --public-url https://iad.chat.example \\
    --data /var/lib/mychat --peer fra.internal:4000 --cluster-key cluster.key")]
pub struct NodeArgs {
    /// The region that the node is in, such as fra: a short name, best one of the router's map.
    #[arg(long, env = "MYCHAT_REGION")]
    pub region: Option<String>,
    /// The address for HTTP.
    #[arg(long, env = "MYCHAT_HTTP", value_name = "ADDR")]
    pub http: Option<String>,
    /// The address for the other nodes (UDP).
    #[arg(long, env = "MYCHAT_MESH", value_name = "ADDR")]
    pub mesh: Option<String>,
    /// The address at which the other nodes reach --mesh, where that is another.
    #[arg(long, env = "MYCHAT_MESH_PUBLIC", value_name = "ADDR")]
    pub mesh_public: Option<String>,
    /// The URL at which clients reach the node.
    #[arg(long, env = "MYCHAT_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    /// The folder for the database; made if it is not there.
    #[arg(long, env = "MYCHAT_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Members of the cluster to join through, as host:port; any of them will do. The first node of a cluster needs
    /// none.
    #[arg(long, env = "MYCHAT_PEER", value_name = "ADDR", num_args = 1.., value_delimiter = ',')]
    pub peer: Vec<String>,
    /// The file with the cluster's key (`mychat cluster key > FILE`).
    #[arg(long, env = "MYCHAT_CLUSTER_KEY", value_name = "FILE")]
    pub cluster_key: Option<PathBuf>,
    /// The domain of the session cookie, when all nodes share one: a browser then stays signed in at each of them.
    #[arg(long, env = "MYCHAT_COOKIE_DOMAIN", value_name = "DOMAIN")]
    pub cookie_domain: Option<String>,
    /// Proxies between clients and the node, as addresses or networks (10.0.0.0/8): whose call it is, is then taken from what
    /// they add to X-Forwarded-For. Name those only that set or add to it; from all others it is passed over.
    #[arg(long, env = "MYCHAT_TRUSTED_PROXY", value_name = "CIDR", num_args = 1.., value_delimiter = ',')]
    pub trusted_proxy: Vec<String>,
    /// With more nodes than this, what is written crosses to another region once, to one node there that passes it on
    /// (100).
    #[arg(long, env = "MYCHAT_RELAY_ABOVE", value_name = "N")]
    pub relay_above: Option<usize>,
    /// Take a snapshot of a peer's database, rather than all the logs, when the node lacks more versions than this
    /// (50000).
    #[arg(long, env = "MYCHAT_SNAPSHOT_ABOVE", value_name = "N")]
    pub snapshot_above: Option<u64>,
    /// Send peers no more than so many bytes of snapshots a second (33554432).
    #[arg(long, env = "MYCHAT_SNAPSHOT_RATE", value_name = "BYTES")]
    pub snapshot_rate: Option<u64>,
    /// Take no more event streams than this; beyond, clients are sent to other nodes [default: as many as the limit of
    /// open files allows (`mychat node calibrate` tells what the machine can carry)].
    #[arg(long, env = "MYCHAT_MAX_STREAMS", value_name = "N", value_parser = streams_bound)]
    pub max_streams: Option<usize>,
}

layers!(NodeArgs { region, http, mesh, mesh_public, public_url, data, cluster_key, cookie_domain, relay_above, snapshot_above, snapshot_rate, max_streams } lists { peer, trusted_proxy } switches {});

/// Runs a node until it is asked to stop, with settings of the `file` below its flags; or measures.
pub async fn run(command: NodeCommand, file: NodeArgs) -> anyhow::Result<()> {
    if let Some(Before::Calibrate(args)) = command.before {
        return calibrate::run(args, &MultiProgress::new()).await;
    }
    let args = command.args.over(file);
    let file = args.cluster_key.clone();
    let config = config(args)?;
    // Before anything that takes its time: who asks meanwhile is answered later.
    let file = file.map(|file| KeyFile::watch(file, config.cluster_key.clone())).transpose()?;
    let node = Node::start(config).await?;
    let follow = async {
        match file {
            Some(file) => file.follow(|key| Ok(node.rekey(key)?)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        asked = stopping::asked() => asked?,
        () = follow => {}
    }
    tracing::info!("stopping: clients are sent elsewhere and the peers get what they lack");
    node.shutdown().await;
    Ok(())
}

fn config(args: NodeArgs) -> anyhow::Result<NodeConfig> {
    let region = required(args.region, "--region", "MYCHAT_REGION")?;
    check_region("--region", &region)?;
    let http = address("--http", &required(args.http, "--http", "MYCHAT_HTTP")?)?;
    let bind = address("--mesh", &required(args.mesh, "--mesh", "MYCHAT_MESH")?)?;
    let advertise = args.mesh_public.map(|text| address("--mesh-public", &text)).transpose()?;
    let public_url = required(args.public_url, "--public-url", "MYCHAT_PUBLIC_URL")?;
    check_url("--public-url", &public_url)?;
    let data = required(args.data, "--data", "MYCHAT_DATA")?;
    let key = read_key(&required(args.cluster_key, "--cluster-key", "MYCHAT_CLUSTER_KEY")?)?;
    check_peers(&args.peer)?;
    let mut config = NodeConfig::new(&region, Listen::Address(http), &public_url, data, key.clone());
    config.cookie_domain = args.cookie_domain;
    config.trusted_proxies = networks(&args.trusted_proxy)?;
    config.relay_above = args.relay_above.unwrap_or(config.relay_above);
    config.snapshots.above = args.snapshot_above.unwrap_or(config.snapshots.above);
    config.snapshots.rate = args.snapshot_rate.unwrap_or(config.snapshots.rate);
    anyhow::ensure!(config.snapshots.rate > 0, "--snapshot-rate 0: nothing would ever be sent");
    config.limits = limits::of_process(args.max_streams, 1);
    config.mesh = Some(MeshConfig {
        // The node's own, once its database is open.
        node: NodeId([0; 16]),
        role: Role::Node,
        region,
        bind,
        advertise,
        seeds: args.peer,
        key,
        wrap_socket: None,
    })
    .into();
    Ok(config)
}

/// A bound of streams: at least one.
pub fn streams_bound(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bound @ 1..=1_000_000) => Ok(bound),
        _ => Err("it must be a number from 1 to 1000000".to_owned()),
    }
}

/// An address to bind, or to be reached at.
pub fn address(flag: &str, text: &str) -> anyhow::Result<SocketAddr> {
    text.to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .with_context(|| format!("{flag} {text}: not an address (host:port)"))
}

/// Refuses what is no region's name.
pub fn check_region(flag: &str, region: &str) -> anyhow::Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    anyhow::ensure!(
        (1..=32).contains(&region.len()) && region.chars().all(plain),
        "{flag} {region:?}: a region is 1 to 32 of a-z, 0-9 and -"
    );
    Ok(())
}

/// Refuses what is no URL of a server.
pub fn check_url(flag: &str, url: &str) -> anyhow::Result<()> {
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let sound = host.is_some_and(|host| {
        let host = host.trim_end_matches('/');
        !host.is_empty() && !host.contains(['/', '?', '#', '@', ' '])
    });
    anyhow::ensure!(sound, "{flag} {url}: not a URL of the form http(s)://host[:port]");
    Ok(())
}

/// Refuses peers that are no `host:port`; their names are resolved later, again and again.
pub fn check_peers(peers: &[String]) -> anyhow::Result<()> {
    let mut seen = HashSet::new();
    for peer in peers {
        let sound =
            peer.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        anyhow::ensure!(sound, "--peer {peer}: not an address (host:port)");
        anyhow::ensure!(seen.insert(peer), "--peer {peer}: named twice");
    }
    Ok(())
}

/// The networks of the proxies that are trusted.
fn networks(proxies: &[String]) -> anyhow::Result<Vec<Network>> {
    proxies
        .iter()
        .map(|text| text.trim().parse().with_context(|| format!("--trusted-proxy {text}")))
        .collect()
}

/// Reads the file with the cluster's key.
pub fn read_key(file: &std::path::Path) -> anyhow::Result<ClusterKey> {
    ClusterKey::read(file).with_context(|| format!("--cluster-key {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_settings_are_named() {
        for (wrong, name) in [
            (check_region("--region", "Frankfurt!").err(), "--region"),
            (check_url("--public-url", "chat.example").err(), "--public-url"),
            (check_url("--public-url", "https://").err(), "--public-url"),
            (check_peers(&["nowhere".into()]).err(), "--peer"),
            (check_peers(&["a:1".into(), "a:1".into()]).err(), "twice"),
            (address("--http", "8080").err(), "--http"),
            (networks(&["proxy.internal".into()]).err(), "--trusted-proxy proxy.internal"),
            (networks(&["10.0.0.0/33".into()]).err(), "--trusted-proxy 10.0.0.0/33"),
            (networks(&["0.0.0.0/0".into()]).err(), "--trusted-proxy 0.0.0.0/0"),
        ] {
            let error = wrong.expect("it is refused").to_string();
            assert!(error.contains(name), "{error}");
        }
        assert!(check_url("--public-url", "http://127.0.0.1:8081").is_ok());
        assert!(networks(&["127.0.0.1".into(), " 10.0.0.0/8".into(), "fd00::/8".into()]).is_ok());
        assert!(check_peers(&["[::1]:4000".into(), "fra.internal:4000".into()]).is_ok());
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = config(NodeArgs::default()).expect_err("nothing is set").to_string();
        assert!(error.contains("--region") && error.contains("MYCHAT_REGION"), "{error}");
    }
}
