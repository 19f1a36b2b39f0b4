//! The router: sends each client to the node that serves it best.
//!
//! It is a member of the mesh without data of its own. The directory tells it which nodes are alive, ready, draining
//! and how loaded; a request tells it where the client is; the answer follows from these two and nothing else, so any
//! number of routers can run side by side, and losing all of them hurts only clients that know no node yet.
//!
//! ```text
//! request ─▶ http ─▶ locate (query, headers, GeoIP) ─┐
//!                                                    ├─▶ ranking ─▶ list, redirect, replay or proxy
//! directory ─▶ nodes (snapshot) ─────────────────────┘
//! ```
//!
//! [`serve`] starts it. [`geo`] is the map: the simulation draws its delays from it too.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

mod directory;
pub mod geo;
pub mod geoip;
mod http;
mod locate;
pub mod nodes;
mod problem;
mod proxy;
pub mod ranking;
mod server;
mod status;

use geoip::{GeoIp, GeoIpError};
use nodes::Nodes;

/// How the router sends clients to nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// By `307 Temporary Redirect` to the node's own URL.
    #[default]
    Redirect,
    /// Through this process. Reaches nodes by plain HTTP only, so their URLs must be `http`.
    Proxy,
    /// By the `fly-replay` header, on which Fly.io's proxy sends the request to another region.
    FlyReplay,
}

/// The mode was not one of the known ones.
#[derive(Debug, thiserror::Error)]
#[error("the mode is one of redirect, proxy and fly-replay")]
pub struct UnknownMode;

impl std::str::FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        match text {
            "redirect" => Ok(Mode::Redirect),
            "proxy" => Ok(Mode::Proxy),
            "fly-replay" => Ok(Mode::FlyReplay),
            _ => Err(UnknownMode),
        }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mode::Redirect => "redirect",
            Mode::Proxy => "proxy",
            Mode::FlyReplay => "fly-replay",
        })
    }
}

/// Settings of a router.
#[derive(Debug, Clone)]
pub struct RouterConfig {
    /// The address to listen at; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// How clients are sent on.
    pub mode: Mode,
    /// A GeoIP database in MaxMind's format with coordinates.
    pub geoip: Option<PathBuf>,
    /// The largest request body that is passed on in proxy mode, in bytes.
    pub body_limit: u64,
    /// Connections at a time; further ones wait. In proxy mode also the requests that are passed on at a time; further ones
    /// are refused.
    pub connections: usize,
    /// How long a client may take for the head of a request, idle time before it included.
    pub head: Duration,
    /// How long (on Linux) a client may leave what was sent to it unacknowledged, or take nothing of it.
    pub unacknowledged: Duration,
    /// How long open requests may go on once the stop was asked for.
    pub grace: Duration,
}

impl RouterConfig {
    /// The usual settings: redirects, no GeoIP, bodies of 16 MiB, 10,000 connections, 30 s for the head of a request, 40 s for
    /// what is unacknowledged, 5 s of grace.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            mode: Mode::default(),
            geoip: None,
            body_limit: 16 << 20,
            connections: 10_000,
            head: Duration::from_secs(30),
            unacknowledged: Duration::from_secs(40),
            grace: Duration::from_secs(5),
        }
    }
}

/// Why a router could not start.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// The address is taken, not this machine's, or not allowed.
    #[error("the router can't listen at {address}: {source}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The GeoIP database is missing or corrupt.
    #[error(transparent)]
    GeoIp(#[from] GeoIpError),
}

/// A router that is running. Dropping it does not stop it.
#[derive(Debug)]
pub struct Serving {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Serving {
    /// The address that it listens at, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has stopped, which it does after its shutdown signal.
    pub async fn stopped(self) {
        // A task that panicked has stopped too, and the panic has been reported by then.
        let _ = self.task.await;
    }
}

/// A router whose settings are good and whose address is its own, and that does not serve yet: connections wait.
pub struct Bound {
    config: RouterConfig,
    geoip: Option<GeoIp>,
    listener: TcpListener,
    address: SocketAddr,
}

impl Bound {
    /// Does all that can fail for a wrong setting, so that nothing else need be started before it is known to be good.
    pub async fn new(config: RouterConfig) -> Result<Self, RouterError> {
        let geoip = config.geoip.as_deref().map(GeoIp::open).transpose()?;
        let listen = |source| RouterError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        Ok(Self { config, geoip, listener, address })
    }

    /// Serves the nodes of a directory (or of a closure, see [`Nodes`]) until `shutdown` resolves; then it takes no
    /// further connections and lets open requests end within the grace.
    pub fn serve(self, nodes: impl Nodes, shutdown: impl Future<Output = ()> + Send + 'static) -> Serving {
        let Self { config, geoip, listener, address } = self;
        let app = http::router(http::App {
            nodes: Box::new(nodes),
            geoip,
            mode: config.mode,
            proxy: proxy::Proxy::new(config.body_limit, config.connections),
        });
        let limits = server::Limits {
            connections: config.connections,
            head: config.head,
            unacknowledged: config.unacknowledged,
            grace: config.grace,
        };
        tracing::info!(%address, mode = %config.mode, "the router listens");
        let task = tokio::spawn(server::run(listener, app, limits, shutdown));
        Serving { address, task }
    }
}

/// [`Bound::new`] and [`Bound::serve`] in one.
pub async fn serve(
    config: RouterConfig,
    nodes: impl Nodes,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Serving, RouterError> {
    Ok(Bound::new(config).await?.serve(nodes, shutdown))
}
