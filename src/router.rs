//! `mychat router`: sends clients to nodes.

use std::path::PathBuf;

use clap::Args;
use mychat_node::capacity::limits::connections_of_process;
use mychat_replication::{
    NodeId, Role,
    mesh::{Mesh, MeshConfig, MeshEvent},
};
use mychat_router::{Bound, Mode, RouterConfig, Serving};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::{
    cluster::key::KeyFile,
    node::{address, check_peers, check_url, read_key},
    settings::{layers, required},
    stopping,
};

/// The settings of a router.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[command(after_help = "Example:
  mychat router --http 0.0.0.0:8080 --mesh 0.0.0.0:4001 --peer fra.internal:4000 iad.internal:4000 \\
    --cluster-key cluster.key --geoip GeoLite2-City.mmdb")]
pub struct RouterArgs {
    /// The address for HTTP.
    #[arg(long, env = "MYCHAT_HTTP", value_name = "ADDR")]
    pub http: Option<String>,
    /// The address for the nodes (UDP).
    #[arg(long, env = "MYCHAT_MESH", value_name = "ADDR")]
    pub mesh: Option<String>,
    /// The address at which the nodes reach --mesh, where that is another.
    #[arg(long, env = "MYCHAT_MESH_PUBLIC", value_name = "ADDR")]
    pub mesh_public: Option<String>,
    /// Members of the cluster to join through, as host:port.
    #[arg(long, env = "MYCHAT_PEER", value_name = "ADDR", num_args = 1.., value_delimiter = ',')]
    pub peer: Vec<String>,
    /// The file with the cluster's key.
    #[arg(long, env = "MYCHAT_CLUSTER_KEY", value_name = "FILE")]
    pub cluster_key: Option<PathBuf>,
    /// A GeoIP database with coordinates (MaxMind's format), to place clients by their address.
    #[arg(long, env = "MYCHAT_GEOIP", value_name = "FILE")]
    pub geoip: Option<PathBuf>,
    /// How clients are sent on: redirect (307), proxy, or fly-replay.
    #[arg(long, env = "MYCHAT_MODE")]
    pub mode: Option<Mode>,
    /// The URL at which clients reach the router: nodes tell it to the web client.
    #[arg(long, env = "MYCHAT_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
}

layers!(RouterArgs { http, mesh, mesh_public, cluster_key, geoip, mode, public_url } lists { peer } switches {});

/// Runs a router until it is asked to stop.
pub async fn run(args: RouterArgs) -> anyhow::Result<()> {
    let mut config = RouterConfig::new(address("--http", &required(args.http, "--http", "MYCHAT_HTTP")?)?);
    config.geoip = args.geoip;
    config.mode = args.mode.unwrap_or_default();
    // As a proxy it holds streams, each with a connection on either side.
    config.connections = connections_of_process(if config.mode == Mode::Proxy { 2 } else { 1 });
    let bind = address("--mesh", &required(args.mesh, "--mesh", "MYCHAT_MESH")?)?;
    let advertise = args.mesh_public.map(|text| address("--mesh-public", &text)).transpose()?;
    let file = required(args.cluster_key, "--cluster-key", "MYCHAT_CLUSTER_KEY")?;
    let key = read_key(&file)?;
    anyhow::ensure!(
        !args.peer.is_empty(),
        "--peer is missing: a router needs at least one member to join through"
    );
    check_peers(&args.peer)?;
    if let Some(url) = &args.public_url {
        check_url("--public-url", url)?;
    }
    let mesh = MeshConfig {
        node: NodeId::random(),
        role: Role::Router,
        region: "router".into(),
        bind,
        advertise,
        seeds: args.peer,
        key: key.clone(),
        wrap_socket: None,
    };
    let file = KeyFile::watch(file, key)?;
    let router = Router::start(config, mesh, args.public_url).await?;
    tokio::select! {
        asked = stopping::asked() => asked?,
        () = file.follow(|key| Ok(router.mesh.rekey(key)?)) => {}
    }
    router.stop().await;
    Ok(())
}

/// A router and its place in the mesh.
pub struct Router {
    serving: Serving,
    mesh: Mesh,
    stop: tokio::sync::oneshot::Sender<()>,
}

impl Router {
    /// Joins the mesh and serves. Without a public URL its own address is told to the nodes.
    pub async fn start(
        config: RouterConfig,
        mesh: MeshConfig,
        public_url: Option<String>,
    ) -> anyhow::Result<Self> {
        // What is wrong with the settings is said before anything runs.
        let bound = Bound::new(config).await?;
        let (mesh, events) = Mesh::start(mesh).await?;
        tokio::spawn(drain(events));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shutdown = async move {
            // Also when the sender is dropped.
            let _ = stopped.await;
        };
        let serving = bound.serve(mesh.directory(), shutdown);
        let url = public_url.unwrap_or_else(|| format!("http://{}", serving.local_addr()));
        mesh.directory().publish("url", &url);
        Ok(Self { serving, mesh, stop })
    }

    /// Where it serves.
    pub fn local_addr(&self) -> std::net::SocketAddr {
        self.serving.local_addr()
    }

    /// The mesh as it sees it.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Takes no new connections, lets calls end, and leaves.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.serving.stopped().await;
        self.mesh.leave().await;
    }
}

/// A router keeps no data: what peers send it is of no use, but has to be taken.
async fn drain(mut events: mpsc::Receiver<MeshEvent>) {
    while events.recv().await.is_some() {}
}
