//! The system under test as it would be deployed: `mychat node` and `mychat router` as processes of their own, each
//! region in a network namespace of [`netns`](crate::netns), and this process right beside each of them.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use mychat_replication::cluster::ClusterKey;
use serde_json::Value;

use super::conversation::System;
use crate::model::LatencyModel;
use crate::netns::topology::Topology;
use crate::netns::{Network, Output, Processes};

/// How long the nodes may take to start and find each other.
const START: Duration = Duration::from_secs(60);
/// How long they may take to stop.
const STOP: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
/// Ports; the namespaces have nobody else in them.
const NODE_HTTP: u16 = 8080;
const NODE_MESH: u16 = 4000;
const ROUTER_HTTP: u16 = 8081;
const ROUTER_MESH: u16 = 4001;

/// Running processes. End them with [`RealCluster::stop`].
pub(super) struct RealCluster {
    // In this order: processes, the network under them, the folder that they write to.
    processes: Processes,
    network: Network,
    folder: tempfile::TempDir,
    calls: reqwest::Client,
    nodes: Vec<String>,
    router: String,
}

impl RealCluster {
    /// Starts a node in each region and a router in the first, and waits until the router knows them all.
    pub(super) async fn start(regions: &[String], model: &LatencyModel) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("there is no room for the databases")?;
        let network = Network::start(Topology::of_regions(regions, model))?;
        let url = |region, port| format!("http://{}:{port}", network.topology().address(region));
        let mut cluster = Self {
            processes: Processes::default(),
            calls: reqwest::Client::builder().no_proxy().timeout(START).build()?,
            nodes: (0..regions.len()).map(|region| url(region, NODE_HTTP)).collect(),
            router: url(0, ROUTER_HTTP),
            network,
            folder,
        };
        cluster.start_all(regions)?;
        cluster.ready().await?;
        Ok(cluster)
    }

    fn start_all(&mut self, regions: &[String]) -> anyhow::Result<()> {
        let key = self.folder.path().join("cluster.key");
        let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&key)?;
        file.write_all(ClusterKey::generate().to_text().as_bytes())?;
        let program = std::env::current_exe().context("this program can't find itself")?;
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let (program, key) = (text(&program), text(&key));
        let output = Output::Folder(self.folder.path().to_owned());
        let node = format!(
            "node --region {{region}} --http {{address}}:{NODE_HTTP} --mesh {{address}}:{NODE_MESH} \
             --public-url http://{{address}}:{NODE_HTTP}"
        );
        let router = format!("router --http {{address}}:{ROUTER_HTTP} --mesh {{address}}:{ROUTER_MESH}");
        let command = |words: &str, more: &[&str]| -> Vec<String> {
            let words = words.split_whitespace().chain(more.iter().copied());
            std::iter::once(program.as_str()).chain(words).map(str::to_owned).collect()
        };
        for region in 0..regions.len() {
            let data = text(&self.folder.path().join(&regions[region]));
            let mut node = command(&node, &["--data", &data, "--cluster-key", &key]);
            if regions.len() > 1 {
                node.extend(["--peer".to_owned(), format!("{{peers:{NODE_MESH}}}")]);
            }
            self.start_one(region, &node, &output)?;
        }
        let peer = format!("{{address}}:{NODE_MESH}");
        self.start_one(0, &command(&router, &["--peer", &peer, "--cluster-key", &key]), &output)
    }

    fn start_one(&mut self, region: usize, command: &[String], output: &Output) -> anyhow::Result<()> {
        let filled = self.network.topology().command_in(region, command).map_err(anyhow::Error::msg)?;
        self.processes.start(&self.network, region, &filled, output)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let known = self.known().await.unwrap_or(0);
            let mut serving = 0;
            for node in &self.nodes {
                let answer = self.calls.get(format!("{node}/readyz")).send().await;
                serving += usize::from(answer.is_ok_and(|answer| answer.status().is_success()));
            }
            if known >= self.nodes.len() && serving == self.nodes.len() {
                return Ok(());
            }
            let pause = tokio::time::timeout(POLL, self.processes.next_end()).await;
            if let Ok(Some(end)) = pause {
                bail!("{} has ended:\n{}", end.name, self.last_words());
            }
            if Instant::now() >= deadline {
                bail!("of {} nodes {serving} serve and the router knows {known}", self.nodes.len());
            }
        }
    }

    /// How many nodes the router offers.
    async fn known(&self) -> anyhow::Result<usize> {
        let answer = self.calls.get(format!("{}/v1/route", self.router)).send().await?.error_for_status()?;
        let route: Value = answer.json().await?;
        Ok(route["nodes"].as_array().map_or(0, Vec::len))
    }

    /// The ends of all logs.
    fn last_words(&self) -> String {
        let logs = self.network.topology().names().map(|name| self.folder.path().join(format!("{name}.log")));
        let tail = |text: String| text.lines().rev().take(3).map(str::to_owned).collect::<Vec<_>>();
        let lines = logs.flat_map(|log| tail(std::fs::read_to_string(log).unwrap_or_default()));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The heads of a node's logs.
    async fn heads(&self, node: &str) -> anyhow::Result<Value> {
        let answer = self.calls.get(format!("{node}/v1/node")).send().await?.error_for_status()?;
        let mut node: Value = answer.json().await?;
        Ok(node["heads"].take())
    }

    /// Ends everything.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let late = self.processes.stop(STOP).await;
        anyhow::ensure!(late.is_empty(), "had to be killed: {}", late.join(", "));
        Ok(())
    }
}

impl System for RealCluster {
    fn router(&self) -> String {
        self.router.clone()
    }

    async fn agree(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let mut heads = Vec::new();
            for node in &self.nodes {
                heads.push(self.heads(node).await?);
            }
            if heads.windows(2).all(|pair| pair[0] == pair[1]) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("the nodes still differ after {} s", START.as_secs());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
