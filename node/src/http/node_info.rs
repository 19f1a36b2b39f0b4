//! What a node tells about itself: whether it lives, whether it is ready, its metrics, and whom it knows.
//!
//! Metrics are recorded once per process, so several nodes in one (`mychat dev`) share a recorder; each series has a
//! label `node`, and `/metrics` of any of them shows all.

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use mychat_replication::{
    NodeId, Role,
    mesh::{MemberInfo, Standing},
    snapshot::SyncStatus,
};
use serde::Serialize;

use super::Problem;
use crate::app::App;

/// The routes.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/node", get(node))
}

/// The OpenAPI document of these routes.
#[derive(utoipa::OpenApi)]
#[openapi(paths(livez, readyz, metrics, node))]
pub struct Docs;

/// Answers as long as the process does.
#[utoipa::path(get, path = "/livez", tag = "node", responses((status = 200, description = "it lives")))]
async fn livez() -> impl IntoResponse {
    // Pages of other nodes measure the way to here by this call: the browser may tell them how long it took.
    ([("timing-allow-origin", "*")], "ok\n")
}

/// Whether clients should be sent here.
#[utoipa::path(get, path = "/readyz", tag = "node", responses(
    (status = 200, description = "ready"), (status = 503, description = "starting, going out of service, or its disk takes no writes")))]
async fn readyz(State(app): State<App>) -> Response {
    match app.condition.unready() {
        None => "ok\n".into_response(),
        Some(why) => Problem::unavailable(why).into_response(),
    }
}

/// Buckets of the histograms of times, in seconds.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// Buckets of the histograms of sizes: jobs, rows, frames.
const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

/// The process's recorder, installed by whoever asks first.
pub(crate) fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        // Only an empty list of buckets is refused.
        let mut builder = PrometheusBuilder::new().set_buckets(SECONDS).unwrap_or_default();
        for size in ["_jobs", "_rows", "_frames"] {
            let named = Matcher::Suffix(size.to_owned());
            builder = builder.set_buckets_for_metric(named, SIZES).unwrap_or_default();
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("the process records its metrics elsewhere; /metrics stays empty");
        }
        handle
    })
}

/// How often samples of histograms are counted into their buckets: until then each of them is kept.
const UPKEEP: Duration = Duration::from_secs(5);

/// Keeps the metrics of a node that nobody reads from growing.
pub(crate) async fn upkeep() {
    loop {
        tokio::time::sleep(UPKEEP).await;
        recorder().run_upkeep();
    }
}

/// The metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "node", responses((status = 200, description = "text for Prometheus")))]
async fn metrics() -> impl IntoResponse {
    let recorder = recorder();
    recorder.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], recorder.render())
}

/// A node.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct NodeInfo {
    /// Its id.
    id: String,
    /// Its region.
    region: String,
    /// Where clients reach it.
    url: String,
    /// The release.
    version: &'static str,
    /// What it holds of each site's log.
    heads: BTreeMap<String, u64>,
    /// The other nodes that it knows.
    peers: Vec<Peer>,
    /// Nodes that were there, and are down: they crashed, left, or can't be reached. Forgotten after some hours.
    gone: Vec<Gone>,
    /// Event streams.
    streams: Streams,
    /// Whether it is going out of service.
    draining: bool,
    /// Names for the cluster keys that it accepts, the one in use first: to see how far a rotation is.
    keys: Vec<String>,
    /// Whether clients should be sent here.
    ready: bool,
    /// How far it has got in coming to hold what the others hold.
    sync: Sync,
    /// The router's URL, when one has joined.
    router_url: Option<String>,
}

/// What a node does about what it lacks of the others' logs.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Sync {
    /// `live`, `catching_up` (from the logs) or `snapshot` (it gets a peer's whole database).
    state: &'static str,
    /// How much of it is done; null when live.
    percent: Option<f64>,
    /// The node that the snapshot comes from, or that has most of what is missing.
    from: Option<String>,
}

impl From<SyncStatus> for Sync {
    fn from(sync: SyncStatus) -> Self {
        Self { state: sync.state.name(), percent: sync.percent, from: sync.from.map(|node| node.to_string()) }
    }
}

/// Event streams.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Streams {
    /// Open now.
    open: usize,
    /// How many it can carry, as far as it knows now.
    capacity: usize,
    /// What ends first: `connections`, `memory` or `processors`.
    bound: &'static str,
    /// How near the node is to what it can do, by streams or by time on processors; 1 is full.
    load: f64,
    /// The processors are busy: presence and typing wait.
    pressed: bool,
    /// What a stream takes in the process, in bytes, once learned.
    bytes_per_stream: Option<f64>,
    /// What a delivery takes, in microseconds on a processor, once learned.
    cpu_us_per_delivery: Option<f64>,
}

impl Streams {
    fn of(app: &App) -> Self {
        let figures = app.capacity.figures();
        let rounded = |figure: f64| (figure * 1000.0).round() / 1000.0;
        Self {
            open: app.condition.open_streams(),
            capacity: figures.capacity,
            bound: figures.bound.name(),
            load: rounded(figures.load),
            pressed: figures.pressed,
            bytes_per_stream: figures.bytes_per_stream.map(f64::round),
            cpu_us_per_delivery: figures.micros_per_delivery.map(rounded),
        }
    }
}

/// Another node, as a node knows it.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
pub struct Peer {
    /// Its id.
    id: String,
    /// Its region.
    region: String,
    /// Where clients reach it.
    url: Option<String>,
    /// Whether there is a connection.
    connected: bool,
    /// The measured round trip, in milliseconds; null without a connection.
    rtt_ms: Option<f64>,
    /// The one-way delay that an emulated network adds, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    one_way_ms: Option<f64>,
    /// How many versions it holds that this node lacks.
    behind: u64,
    /// Whether the cluster takes it to be there: `alive`, or `suspect` while somebody can't reach it.
    state: &'static str,
    /// How long ago this node heard from it, in milliseconds.
    heard_ms: Option<f64>,
    /// Whether clients should be sent there, as it says.
    ready: bool,
    /// Whether it is going out of service, as it says.
    draining: bool,
    /// Its release, as it says.
    version: Option<String>,
}

/// A node that is down.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Gone {
    /// Its id.
    id: String,
    /// Its region.
    region: String,
    /// Where clients reached it.
    url: Option<String>,
    /// How long ago this node heard from it, in milliseconds.
    heard_ms: Option<f64>,
}

/// What this node is and knows.
#[utoipa::path(get, path = "/v1/node", tag = "node", responses((status = 200, description = "the node", body = NodeInfo)))]
async fn node(State(app): State<App>) -> Json<NodeInfo> {
    let vector = app.store.vector();
    Json(NodeInfo {
        id: app.node().to_string(),
        region: app.config.region.clone(),
        url: app.config.public_url.clone(),
        version: env!("CARGO_PKG_VERSION"),
        heads: vector.iter().map(|(site, version)| (site.to_string(), version.0)).collect(),
        peers: peers(&app),
        gone: gone(&app),
        draining: app.condition.is_draining(),
        keys: app.keys.marks(),
        streams: Streams::of(&app),
        ready: app.condition.is_ready(),
        sync: app.condition.sync().into(),
        router_url: router_url(&app),
    })
}

/// The other nodes, from what each publishes and from the connections to them.
fn peers(app: &App) -> Vec<Peer> {
    let Some(mesh) = &app.mesh else { return Vec::new() };
    let mut peers: BTreeMap<NodeId, Peer> = BTreeMap::new();
    for entry in mesh.directory().entries() {
        if entry.role == Role::Node && entry.alive && entry.node != app.node() {
            let peer = peers.entry(entry.node).or_default();
            peer.region = entry.region;
            peer.state = "alive";
            let says = |fact: &str| entry.facts.get(fact).is_some_and(|said| said == "true");
            (peer.ready, peer.draining) = (says("ready"), says("draining"));
            peer.version = entry.facts.get("version").cloned();
            peer.url = entry.facts.get("url").cloned();
        }
    }
    for info in mesh.peers() {
        if info.role == Role::Node {
            let peer = peers.entry(info.node).or_default();
            peer.state = if peer.state.is_empty() { "alive" } else { peer.state };
            peer.region = info.region;
            peer.connected = info.connected;
            peer.rtt_ms = info.connected.then(|| millis(info.rtt));
        }
    }
    for member in mesh.members() {
        if let Some(peer) = peers.get_mut(&member.node) {
            peer.state = state(member.standing);
            peer.heard_ms = member.heard.map(millis);
        }
    }
    peers
        .into_iter()
        .map(|(node, peer)| Peer {
            id: node.to_string(),
            behind: app.behind(node),
            one_way_ms: app
                .config
                .emulated_delay
                .as_ref()
                .and_then(|delay| delay.get(&peer.region))
                .copied()
                .map(millis),
            ..peer
        })
        .collect()
}

fn state(standing: Standing) -> &'static str {
    match standing {
        Standing::Alive => "alive",
        Standing::Suspect => "suspect",
        Standing::Down => "down",
    }
}

fn gone(app: &App) -> Vec<Gone> {
    let Some(mesh) = &app.mesh else { return Vec::new() };
    let entries = mesh.directory().entries();
    let url = |node| entries.iter().find(|entry| entry.node == node)?.facts.get("url").cloned();
    let down = |member: &MemberInfo| member.standing == Standing::Down && member.role == Role::Node;
    let gone = mesh.members().into_iter().filter(down).map(|member| Gone {
        id: member.node.to_string(),
        region: member.region,
        url: url(member.node),
        heard_ms: member.heard.map(millis),
    });
    gone.collect()
}

fn router_url(app: &App) -> Option<String> {
    let entries = app.mesh.as_ref()?.directory().entries();
    entries
        .into_iter()
        .filter(|entry| entry.role == Role::Router && entry.alive)
        .find_map(|entry| entry.facts.get("url").cloned())
}

fn millis(time: std::time::Duration) -> f64 {
    (time.as_secs_f64() * 1_000_000.0).round() / 1000.0
}
