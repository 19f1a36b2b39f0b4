//! What a node is told at its start.

use std::{
    collections::BTreeMap,
    fmt,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Mutex,
    time::Duration,
};

use mychat_replication::{cluster::ClusterKey, mesh::MeshConfig, snapshot::SnapshotConfig};

use crate::{accounts::password::Cost, http::Network};

/// Where the node takes its HTTP connections from.
#[derive(Debug)]
pub enum Listen {
    /// Binds this address; port 0 lets the system choose.
    Address(SocketAddr),
    /// A socket that is bound already.
    Socket(TcpListener),
}

/// The bounds of what clients may hold open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Event streams open at the same time.
    pub streams: usize,
    /// Connections open at the same time, those of streams included.
    pub connections: usize,
    /// How long a connection may be without a call: before the first, and between two of them, while the head of one is
    /// sent included.
    pub idle: Duration,
    /// How long a call may take from its head to the head of its answer; streams go on after that.
    pub call: Duration,
    /// How long a stop waits for calls that are under way.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 10_000,
            connections: 12_000,
            idle: Duration::from_secs(75),
            call: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

/// The settings of a node.
pub struct NodeConfig {
    /// The region's short name, such as `fra`.
    pub region: String,
    /// Where HTTP is served; taken out at the start.
    pub http: Mutex<Option<Listen>>,
    /// The URL under which clients reach this node.
    pub public_url: String,
    /// The folder of the database.
    pub data: PathBuf,
    /// The cluster's secret, from which every shared key is derived.
    pub cluster_key: ClusterKey,
    /// How to join the other nodes; taken out at the start. Without it the node is alone.
    pub mesh: Mutex<Option<MeshConfig>>,
    /// With more nodes than this, logs cross between regions through relays.
    pub relay_above: usize,
    /// When it takes a peer's whole database rather than the logs, and how fast it gives its own.
    pub snapshots: SnapshotConfig,
    /// The one-way delays to other regions that an emulated network adds, for the report of `/v1/node`.
    pub emulated_delay: Option<BTreeMap<String, Duration>>,
    /// The `Domain` of the session cookie, when nodes share one; the node's own host otherwise.
    pub cookie_domain: Option<String>,
    /// The proxies that are believed when they say whose call they pass on; nobody else is.
    pub trusted_proxies: Vec<Network>,
    /// Bounds.
    pub limits: Limits,
    /// What the hash of a password costs.
    pub(crate) password_cost: Cost,
}

impl NodeConfig {
    /// The settings of a node that is alone and serves HTTP at `http`, with defaults for the rest.
    #[must_use]
    pub fn new(region: &str, http: Listen, public_url: &str, data: PathBuf, cluster_key: ClusterKey) -> Self {
        Self {
            region: region.to_owned(),
            http: Mutex::new(Some(http)),
            public_url: public_url.trim_end_matches('/').to_owned(),
            data,
            cluster_key,
            mesh: Mutex::new(None),
            relay_above: mychat_replication::replica::RELAY_ABOVE,
            snapshots: SnapshotConfig::default(),
            emulated_delay: None,
            cookie_domain: None,
            trusted_proxies: Vec::new(),
            limits: Limits::default(),
            password_cost: Cost::default(),
        }
    }

    /// Whether cookies must travel over TLS only: everywhere but on a loopback address without it.
    #[must_use]
    pub fn secure_cookies(&self) -> bool {
        let Ok(uri) = self.public_url.parse::<http::Uri>() else { return true };
        let loopback = uri.host().is_some_and(|host| {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            bare == "localhost"
                || bare.ends_with(".localhost")
                || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        });
        uri.scheme_str() == Some("https") || !loopback
    }
}

impl fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeConfig")
            .field("region", &self.region)
            .field("public_url", &self.public_url)
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_without_tls_has_plain_cookies() {
        let config = |url: &str| {
            let http = Listen::Address(([127, 0, 0, 1], 0).into());
            NodeConfig::new("fra", http, url, PathBuf::new(), ClusterKey::generate())
        };
        for plain in
            ["http://127.0.0.1:8080", "http://localhost:8081/", "http://[::1]:80", "http://fra.localhost"]
        {
            assert!(!config(plain).secure_cookies(), "{plain}");
        }
        for secure in ["https://localhost", "https://chat.example", "http://chat.example", "nonsense"] {
            assert!(config(secure).secure_cookies(), "{secure}");
        }
    }
}
