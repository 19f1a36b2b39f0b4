//! A cluster of real processes on this machine, and what a test needs to watch and disturb it.
//!
//! [`Cluster`] starts `mychat node` and `mychat router` with the flags of the contract, in a temporary folder and on
//! ports of its own; [`Process`] is one such process; [`Client`] and [`Events`] talk to them as anybody would. Waits
//! are for conditions, with a deadline.
#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]

mod client;
mod ports;
mod process;
mod stream;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub use client::{Account, Answer, Call, Client, account, fingerprint, text};
pub use ports::Ports;
pub use process::{Exit, Process, Program};
use serde_json::Value;
pub use stream::{Event, Events};
use tempfile::TempDir;

/// How long anything may take. Much longer than it does, since several clusters share the machine in a debug build.
pub const PATIENCE: Duration = Duration::from_secs(45);
/// How often a condition is looked at.
pub const POLL: Duration = Duration::from_millis(20);

/// Looks until there is something, and fails when there is nothing for too long.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain for {} s: {what}", PATIENCE.as_secs());
        tokio::time::sleep(POLL).await;
    }
}

/// Nodes, and maybe a router.
pub struct Cluster {
    // Processes go before the folder that they work in.
    pub nodes: Vec<Server>,
    pub router: Option<Server>,
    ports: Ports,
    folder: TempDir,
    log: String,
}

/// A node or router: where it is, and its process while it runs.
pub struct Server {
    pub region: String,
    pub client: Client,
    pub data: PathBuf,
    /// What runs from the next start on.
    pub program: Program,
    args: Vec<String>,
    process: Option<Process>,
    /// The logs of its former lives.
    before: String,
}

impl Server {
    fn new(region: &str, port: u16, data: PathBuf, args: Vec<String>) -> Self {
        let client = Client::new(&format!("http://127.0.0.1:{port}"));
        let (region, program) = (region.to_owned(), Program::default());
        Self { region, client, data, program, args, process: None, before: String::new() }
    }

    /// The same with more arguments.
    pub fn with(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Starts the process; it is not ready yet.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.region);
        self.process = Some(Process::start_as(&self.program, &self.args));
    }

    /// Starts it and waits until it ends by itself.
    pub async fn run(&mut self) -> Exit {
        self.start();
        let exit = self.process.take().expect("a running server").exit(PATIENCE).await;
        self.before.push_str(&exit.stderr);
        exit
    }

    /// Waits until it is ready.
    pub async fn ready(&mut self) {
        let process = self.process.as_mut().expect("a running server");
        eventually(&format!("{} is ready", self.region), async || {
            assert!(process.is_running(), "{} has ended:\n{}", self.region, process.stderr());
            self.client.is_ready().await.then_some(())
        })
        .await;
    }

    /// Starts it and waits until it is ready.
    pub async fn restart(&mut self) {
        self.start();
        self.ready().await;
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("a running server");
        process.kill();
        self.before.push_str(&process.stderr());
    }

    /// Asks it to stop (SIGTERM) and waits for that.
    pub async fn stop(&mut self) -> Exit {
        let exit = self.process.take().expect("a running server").stop().await;
        self.before.push_str(&exit.stderr);
        exit
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("a running server")
    }

    /// Everything that it has logged, in all its lives.
    pub fn log(&self) -> String {
        self.before.clone() + &self.process.as_ref().map(Process::stderr).unwrap_or_default()
    }
}

impl Cluster {
    /// A cluster with a node in each region, all ready.
    pub async fn start(regions: &[&str]) -> Self {
        Self::start_logging(regions, "info").await
    }

    /// The same, with another log filter.
    pub async fn start_logging(regions: &[&str], log: &str) -> Self {
        let mut cluster = Self::prepare(regions, log).await;
        cluster.nodes.iter_mut().for_each(Server::start);
        for node in &mut cluster.nodes {
            node.ready().await;
        }
        cluster
    }

    /// A cluster of which nothing runs yet.
    pub async fn prepare(regions: &[&str], log: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        make_key(&folder.path().join("cluster.key")).await;
        // Those of the nodes, the router's, and one for a stranger.
        let ports = Ports::take(u16::try_from(regions.len()).expect("a few") + 2);
        let mut cluster = Self { nodes: Vec::new(), router: None, ports, folder, log: log.to_owned() };
        cluster.nodes = regions
            .iter()
            .enumerate()
            .map(|(at, region)| {
                let others: Vec<usize> = (0..regions.len()).filter(|other| *other != at).collect();
                cluster.node(at, region, &others, &cluster.key())
            })
            .collect();
        cluster
    }

    /// The file with the cluster's key.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("cluster.key")
    }

    /// A path in the cluster's temporary folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A node at one of the cluster's ports that joins through those at others; it does not run yet.
    pub fn node(&self, at: usize, region: &str, through: &[usize], key: &Path) -> Server {
        let (port, data) = (self.ports.nth(at), self.path(region));
        let mut args = self.args(&["node", "--region", region], port, through, key);
        args.extend(["--public-url".to_owned(), format!("http://127.0.0.1:{port}")]);
        args.extend(["--data".to_owned(), shown(&data)]);
        Server::new(region, port, data, args)
    }

    /// A router at one of the ports; it does not run yet.
    pub fn router(&self, at: usize, through: &[usize], key: &Path) -> Server {
        let port = self.ports.nth(at);
        Server::new("router", port, PathBuf::new(), self.args(&["router"], port, through, key))
    }

    fn args(&self, first: &[&str], port: u16, through: &[usize], key: &Path) -> Vec<String> {
        let address = |port: u16| format!("127.0.0.1:{port}");
        let mut args: Vec<String> = first.iter().map(|arg| (*arg).to_owned()).collect();
        args.extend(["--http".to_owned(), address(port), "--mesh".to_owned(), address(port)]);
        args.extend(["--cluster-key".to_owned(), shown(key), "--log".to_owned(), self.log.clone()]);
        if !through.is_empty() {
            args.push("--peer".to_owned());
            args.extend(through.iter().map(|peer| address(self.ports.nth(*peer))));
        }
        args
    }

    /// Starts the cluster's router and waits until it knows all nodes.
    pub async fn start_router(&mut self) {
        let count = self.nodes.len();
        let mut router = self.router(count, &(0..count).collect::<Vec<_>>(), &self.key());
        router.restart().await;
        let client = router.client.clone();
        self.router = Some(router);
        eventually("the router knows all nodes", async || {
            let route = client.get("/v1/route").send().await.expect(200);
            (route["nodes"].as_array().map(Vec::len) == Some(count)).then_some(())
        })
        .await;
    }

    /// A client of a node.
    pub fn client(&self, at: usize) -> Client {
        self.nodes[at].client.clone()
    }

    /// The clients of all nodes.
    pub fn clients(&self) -> Vec<Client> {
        self.nodes.iter().map(|node| node.client.clone()).collect()
    }

    /// Waits until all nodes hold the same part of every site's log.
    pub async fn agree(&self) {
        agree(&self.clients()).await;
    }
}

/// Waits until all nodes hold the same part of every site's log.
pub async fn agree(nodes: &[Client]) {
    eventually("the nodes hold the same", async || {
        let mut heads: Vec<Value> = Vec::new();
        for node in nodes {
            heads.push(node.heads().await?);
        }
        heads.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
    })
    .await;
}

/// Makes a cluster key by the program's own command.
pub async fn make_key(file: &Path) {
    let made = Process::run(["cluster", "key"]).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    std::fs::write(file, made.stdout).expect("written");
}

/// A path as an argument.
pub fn shown(path: &Path) -> String {
    path.to_str().expect("a path that is text").to_owned()
}
