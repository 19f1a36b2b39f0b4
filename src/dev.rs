//! `mychat dev`: a whole cluster in one process, with the real parts.
//!
//! A router and a node per region, each node with its own folder and QUIC endpoint on loopback. Between the endpoints
//! lies the emulated network of `mychat_sim::wan`, with the delays of those regions.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Args;
use comfy_table::{Table, presets};
use mychat_node::{Limits, Listen, Node, NodeConfig, capacity::limits};
use mychat_replication::{NodeId, Role, cluster::ClusterKey, mesh::MeshConfig};
use mychat_router::{RouterConfig, geo};
use mychat_sim::wan::Wan;
use serde::Deserialize;

use crate::{
    node::{check_region, read_key, streams_bound},
    router::Router,
    settings::layers,
    stopping,
};

/// The settings of a cluster in one process.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[command(after_help = "Examples:
  mychat dev
  mychat dev --regions fra,gru,nrt,syd --port 9000 --data ./world")]
pub struct DevArgs {
    /// The regions, separated by commas [default: fra,iad,syd].
    #[arg(long, env = "MYCHAT_REGIONS", value_delimiter = ',', value_name = "REGIONS")]
    pub regions: Vec<String>,
    /// The router's port; the nodes have the ports after it. 0 takes any that are free [default: 8080].
    #[arg(long, env = "MYCHAT_PORT")]
    pub port: Option<u16>,
    /// The folder that keeps everything; made if it is not there [default: ./mychat-data].
    #[arg(long, env = "MYCHAT_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// No delays: the regions are next to each other.
    #[arg(long, env = "MYCHAT_NO_DELAY", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_delay: bool,
    /// Take no more event streams than this at each node; beyond, clients are sent to other nodes [default: an equal
    /// share of what the limit of open files allows].
    #[arg(long, env = "MYCHAT_MAX_STREAMS", value_name = "N", value_parser = streams_bound)]
    pub max_streams: Option<usize>,
}

layers!(DevArgs { port, data, max_streams } lists { regions } switches { no_delay });

/// How long the start may take before it says what it waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the cluster until it is asked to stop.
pub async fn run(args: DevArgs) -> anyhow::Result<()> {
    let plan = Plan::new(&args)?;
    let wan =
        if args.no_delay { None } else { Some(Wan::new().context("the emulated network can't start")?) };
    let mut nodes = Vec::new();
    for place in &plan.places {
        let node = Node::start(plan.node(place, wan.as_ref())).await;
        match node.with_context(|| format!("the node of {} can't start", place.region)) {
            Ok(node) => nodes.push(node),
            Err(error) => {
                stop(nodes, None).await;
                return Err(error);
            }
        }
    }
    let router = match plan.router(wan.as_ref()).await {
        Ok(router) => router,
        Err(error) => {
            stop(nodes, None).await;
            return Err(error);
        }
    };
    let stopped = {
        let asked = stopping::asked();
        tokio::pin!(asked);
        tokio::select! {
            result = &mut asked => Some(result),
            () = ready(&nodes, &router) => None,
        }
    };
    if let Some(result) = stopped {
        result?;
    } else {
        println!("{}", plan.announcement(&nodes, &router, args.no_delay));
        stopping::asked().await?;
    }
    eprintln!("stopping: everything is kept in {}", plan.data.display());
    stop(nodes, Some(router)).await;
    Ok(())
}

async fn stop(nodes: Vec<Node>, router: Option<Router>) {
    if let Some(router) = router {
        router.stop().await;
    }
    let mut stopping = tokio::task::JoinSet::new();
    for node in nodes {
        stopping.spawn(node.shutdown());
    }
    while stopping.join_next().await.is_some() {}
}

/// Waits until every node serves and the router knows it.
async fn ready(nodes: &[Node], router: &Router) {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut told = false;
    let started = tokio::time::Instant::now();
    loop {
        ticks.tick().await;
        let known = router
            .mesh()
            .directory()
            .entries()
            .iter()
            .filter(|entry| entry.alive && entry.facts.get("ready").is_some_and(|ready| ready == "true"))
            .count();
        let serving = nodes.iter().filter(|node| node.app().condition.is_ready()).count();
        if serving == nodes.len() && known >= nodes.len() {
            return;
        }
        if !told && started.elapsed() > PATIENCE {
            told = true;
            tracing::warn!(
                serving,
                known,
                of = nodes.len(),
                "still waiting for the nodes to find each other"
            );
        }
    }
}

/// A node's region and addresses.
struct Place {
    region: String,
    http: SocketAddr,
    mesh: SocketAddr,
}

/// Who listens where.
struct Plan {
    data: PathBuf,
    key: ClusterKey,
    router: SocketAddr,
    places: Vec<Place>,
    limits: Limits,
}

impl Plan {
    fn new(args: &DevArgs) -> anyhow::Result<Self> {
        let regions = if args.regions.is_empty() {
            ["fra", "iad", "syd"].map(str::to_owned).to_vec()
        } else {
            args.regions.clone()
        };
        for region in &regions {
            check_region("--regions", region)?;
            ensure!(
                args.no_delay || geo::region(region).is_some(),
                "--regions {region}: not on the map, so its distance is unknown; known are {}",
                geo::regions().iter().map(|region| region.code).collect::<Vec<_>>().join(", ")
            );
        }
        ensure!(
            regions.iter().collect::<BTreeSet<_>>().len() == regions.len(),
            "--regions: each region once"
        );
        let port = args.port.unwrap_or(8080);
        ensure!(
            usize::from(port) + regions.len() <= usize::from(u16::MAX),
            "--port {port}: there are no ports after it for {} nodes",
            regions.len()
        );
        let data = args.data.clone().unwrap_or_else(|| PathBuf::from("mychat-data"));
        let key = key(&data)?;
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let places: Vec<Place> = regions
            .into_iter()
            .zip(1..)
            .map(|(region, at)| {
                let (http, mesh) = if port == 0 {
                    (local(0), local(free_port()?))
                } else {
                    (local(port + at), local(port + at))
                };
                Ok(Place { region, http, mesh })
            })
            .collect::<anyhow::Result<_>>()?;
        let limits = limits::of_process(args.max_streams, places.len());
        Ok(Self { data, key, router: local(port), places, limits })
    }

    fn node(&self, place: &Place, wan: Option<&Wan>) -> NodeConfig {
        // The address has to be bound first to be known, when any free port will do.
        let listener = std::net::TcpListener::bind(place.http);
        let (listen, http) = match listener.and_then(|listener| Ok((listener.local_addr()?, listener))) {
            Ok((address, listener)) => (Listen::Socket(listener), address),
            // The node says why.
            Err(_) => (Listen::Address(place.http), place.http),
        };
        let folder = self.data.join(&place.region);
        let mut config =
            NodeConfig::new(&place.region, listen, &format!("http://{http}"), folder, self.key.clone());
        config.limits = self.limits;
        config.emulated_delay = wan.is_some().then(|| self.delays_from(&place.region));
        config.mesh = Some(MeshConfig {
            node: NodeId([0; 16]),
            role: Role::Node,
            region: place.region.clone(),
            bind: place.mesh,
            advertise: None,
            seeds: self.seeds(Some(place)),
            key: self.key.clone(),
            wrap_socket: wan.map(|wan| wan.socket(&place.region)),
        })
        .into();
        config
    }

    async fn router(&self, wan: Option<&Wan>) -> anyhow::Result<Router> {
        let config = RouterConfig::new(self.router);
        let region = self.places.first().map_or("router", |place| &place.region);
        let mesh = MeshConfig {
            node: NodeId::random(),
            role: Role::Router,
            region: region.to_owned(),
            bind: if self.router.port() == 0 {
                self.router
            } else {
                SocketAddr::from((Ipv4Addr::LOCALHOST, self.router.port()))
            },
            advertise: None,
            seeds: self.seeds(None),
            key: self.key.clone(),
            wrap_socket: wan.map(|wan| wan.socket(region)),
        };
        Router::start(config, mesh, None).await.context("the router can't start")
    }

    fn seeds(&self, but: Option<&Place>) -> Vec<String> {
        let others = self.places.iter().filter(|place| but.is_none_or(|but| but.mesh != place.mesh));
        others.map(|place| place.mesh.to_string()).collect()
    }

    fn delays_from(&self, region: &str) -> BTreeMap<String, Duration> {
        let delay = |place: &Place| Some((place.region.clone(), geo::one_way(region, &place.region)?));
        self.places.iter().filter_map(delay).collect()
    }

    fn announcement(&self, nodes: &[Node], router: &Router, no_delay: bool) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.add_row(vec![
            "router".to_owned(),
            format!("http://{}", router.local_addr()),
            "sends a browser to the best node".to_owned(),
        ]);
        for (place, node) in self.places.iter().zip(nodes) {
            let city = geo::region(&place.region).map_or("", |region| region.city);
            let delays: Vec<String> = self
                .places
                .iter()
                .filter(|other| other.region != place.region && !no_delay)
                .filter_map(|other| {
                    let delay = geo::one_way(&place.region, &other.region)?;
                    Some(format!("{} {:.0} ms", other.region, delay.as_secs_f64() * 1000.0))
                })
                .collect();
            let away =
                if delays.is_empty() { String::new() } else { format!(", one way to {}", delays.join(", ")) };
            table.add_row(vec![
                place.region.clone(),
                format!("http://{}", node.http_addr()),
                format!("{city}{away}"),
            ]);
        }
        format!(
            "MyChat is ready.\n{table}\nOpen two of the nodes in two browsers. Data: {}. Ctrl-C stops.",
            self.data.display()
        )
    }
}

/// The cluster's key from the folder, made at the first start.
fn key(data: &Path) -> anyhow::Result<ClusterKey> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let file = data.join("cluster.key");
    if file.exists() {
        return read_key(&file);
    }
    let failed = || format!("--data {}: can't be written", data.display());
    std::fs::create_dir_all(data).with_context(failed)?;
    let key = ClusterKey::generate();
    let mut written = std::fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&file)
        .with_context(failed)?;
    writeln!(written, "{}", key.to_text()).with_context(failed)?;
    Ok(key)
}

/// A UDP port that is free now: the nodes have to know each other's before any of them is bound.
fn free_port() -> anyhow::Result<u16> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(socket.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(args: DevArgs) -> anyhow::Result<Plan> {
        let folder = tempfile::tempdir().expect("a folder");
        Plan::new(&DevArgs { data: Some(folder.path().join("new")), ..args })
    }

    #[test]
    fn the_ports_follow_the_routers() {
        let plan = plan(DevArgs::default()).expect("the defaults are sound");
        assert_eq!(plan.router.port(), 8080);
        let ports: Vec<_> =
            plan.places.iter().map(|place| (place.region.as_str(), place.http.port())).collect();
        assert_eq!(ports, [("fra", 8081), ("iad", 8082), ("syd", 8083)]);
        assert_eq!(plan.seeds(plan.places.first()), ["127.0.0.1:8082", "127.0.0.1:8083"]);
    }

    #[test]
    fn wrong_regions_and_ports_are_named() {
        let regions = |list: &[&str]| DevArgs {
            regions: list.iter().map(|r| (*r).to_owned()).collect(),
            ..DevArgs::default()
        };
        for (args, word) in [
            (regions(&["fra", "atlantis"]), "atlantis"),
            (regions(&["fra", "fra"]), "once"),
            (DevArgs { port: Some(65534), ..DevArgs::default() }, "--port"),
        ] {
            let error = plan(args).err().expect("it is refused").to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn the_key_is_made_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = key(folder.path()).expect("made");
        assert_eq!(key(folder.path()).expect("read").to_text(), first.to_text());
    }
}
