//! The system under test: real nodes and a real router in this process, with the emulated network between them.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use mychat_node::{Listen, Node, NodeConfig};
use mychat_replication::cluster::ClusterKey;
use mychat_replication::mesh::{Mesh, MeshConfig};
use mychat_replication::{NodeId, Role};
use mychat_router::nodes::Nodes;
use mychat_router::{RouterConfig, Serving};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::conversation::System;
use crate::model::LatencyModel;
use crate::wan::{LINK_BYTES, Wan};

/// How long the nodes may take to find each other.
const START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Running nodes and a router. End it with [`Cluster::stop`].
pub(super) struct Cluster {
    nodes: Vec<Node>,
    router: Serving,
    router_mesh: Mesh,
    stop_router: oneshot::Sender<()>,
    /// The emulated network lives as long as the cluster.
    _wan: Wan,
    /// The databases; gone with the cluster.
    _folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts a node in each region and a router in the first, and waits until the router knows them all.
    pub(super) async fn start(regions: &[String], model: &LatencyModel) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("there is no room for the databases")?;
        let model = model.clone();
        let wan = Wan::with(LINK_BYTES, move |a, b| model.one_way(a, b))
            .context("the emulated network can't start")?;
        let key = ClusterKey::generate();
        let meshes = regions.iter().map(|_| free_port()).collect::<anyhow::Result<Vec<_>>>()?;
        let mut nodes = Vec::new();
        for (at, region) in regions.iter().enumerate() {
            let config = node_config(&folder.path().join(region), region, at, &meshes, &key, &wan)?;
            nodes.push(
                Node::start(config).await.with_context(|| format!("the node of {region} can't start"))?,
            );
        }
        let first = regions.first().context("there is no region")?;
        let config = MeshConfig {
            node: NodeId::random(),
            role: Role::Router,
            region: first.clone(),
            bind: free_port()?,
            advertise: None,
            seeds: meshes.iter().map(SocketAddr::to_string).collect(),
            key,
            wrap_socket: Some(wan.socket(first)),
        };
        let (router_mesh, mut events) = Mesh::start(config).await.context("the router can't join")?;
        // A router keeps no data, but what peers send has to be taken.
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        let (stop_router, stopped) = oneshot::channel::<()>();
        let shutdown = async move {
            // Also when the sender is dropped.
            let _ = stopped.await;
        };
        let config = RouterConfig::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let router = mychat_router::serve(config, router_mesh.directory(), shutdown).await?;
        let cluster = Self { nodes, router, router_mesh, stop_router, _wan: wan, _folder: folder };
        cluster.ready().await?;
        Ok(cluster)
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let known = self.router_mesh.directory().snapshot();
            let known = known.iter().filter(|candidate| candidate.usable()).count();
            let serving = self.nodes.iter().filter(|node| node.app().condition.is_ready()).count();
            if known >= self.nodes.len() && serving == self.nodes.len() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("of {} nodes {serving} serve and the router knows {known}", self.nodes.len());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends everything.
    pub(super) async fn stop(self) {
        let _ = self.stop_router.send(());
        self.router.stopped().await;
        self.router_mesh.leave().await;
        let mut stopping: JoinSet<()> = self.nodes.into_iter().map(Node::shutdown).collect();
        while stopping.join_next().await.is_some() {}
    }
}

impl System for Cluster {
    fn router(&self) -> String {
        format!("http://{}", self.router.local_addr())
    }

    async fn agree(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let mut vectors = self.nodes.iter().map(|node| node.app().store.vector());
            let first = vectors.next();
            if vectors.all(|vector| Some(vector) == first) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("the nodes still differ after {} s", START.as_secs());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn node_config(
    folder: &Path,
    region: &str,
    at: usize,
    meshes: &[SocketAddr],
    key: &ClusterKey,
    wan: &Wan,
) -> anyhow::Result<NodeConfig> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    let http = listener.local_addr().context("no free port")?;
    let url = format!("http://{http}");
    let mut config = NodeConfig::new(region, Listen::Socket(listener), &url, folder.to_owned(), key.clone());
    let others = meshes.iter().enumerate().filter(|(other, _)| *other != at);
    config.mesh = Some(MeshConfig {
        node: NodeId([0; 16]),
        role: Role::Node,
        region: region.to_owned(),
        bind: meshes[at],
        advertise: None,
        seeds: others.map(|(_, mesh)| mesh.to_string()).collect(),
        key: key.clone(),
        wrap_socket: Some(wan.socket(region)),
    })
    .into();
    Ok(config)
}

/// A UDP port that is free now: the nodes have to know each other's before any of them is bound.
fn free_port() -> anyhow::Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    socket.local_addr().context("no free port")
}
