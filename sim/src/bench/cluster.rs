//! Three servers on this machine, in a folder that goes away with them, maybe with a relay between them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use super::klukai;
use super::marker::Template;
use super::mychat::{self, MyChat};
use super::process::{Server, ports};
use super::relay::Relay;
use super::settings::{Setup, System};
use super::usage::Usage;

/// How many servers there are.
pub(super) const NODES: usize = 3;
/// What they are called.
pub(super) const NAMES: [&str; NODES] = ["A", "B", "C"];
/// How long all of them may take to start.
const START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Where a server is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) name: &'static str,
    pub(super) http: SocketAddr,
    /// Where it takes what the others send.
    pub(super) mesh: SocketAddr,
    /// Where the others send it: the relay, or itself.
    pub(super) front: SocketAddr,
    pub(super) data: PathBuf,
}

/// Server processes and the network between them; dropping this ends them.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) places: [Place; NODES],
    pub(super) running: [Option<Server>; NODES],
    pub(super) relay: Option<Relay>,
    system: System,
    program: PathBuf,
    arguments: [Vec<String>; NODES],
    // The processes go before the folder that they work in.
    folder: TempDir,
}

impl Servers {
    async fn start(system: &System, setup: &Setup, delay: Option<Duration>) -> anyhow::Result<Self> {
        let folder = setup.general.temporary()?;
        let mut next = setup.ports;
        let (https, meshes) = (ports::<NODES>(&mut next)?, ports::<NODES>(&mut next)?);
        let fronts = if delay.is_some() { ports::<NODES>(&mut next)? } else { meshes };
        let places: [Place; NODES] = std::array::from_fn(|at| Place {
            name: NAMES[at],
            http: https[at],
            mesh: meshes[at],
            front: fronts[at],
            data: folder.path().join(NAMES[at]),
        });
        let ways: Vec<_> = places.iter().map(|place| (place.front, place.mesh)).collect();
        let relay = delay.map(|delay| Relay::start(delay, &ways)).transpose();
        let relay = relay.context("the relay can't start")?;
        let (program, arguments) = match system {
            System::MyChat => {
                let key = folder.path().join("cluster.key");
                mychat::make_key(&key).await?;
                let arguments = |at| mychat::arguments(&places, at, &key, &setup.node_log);
                (mychat::program()?, std::array::from_fn(arguments))
            }
            System::Klukai(program) => {
                let arguments = |at| klukai::configure(&places, at, folder.path());
                (program.clone(), [arguments(0)?, arguments(1)?, arguments(2)?])
            }
        };
        let running = [const { None }; NODES];
        let mut servers = Self { places, running, relay, system: system.clone(), program, arguments, folder };
        for at in 0..NODES {
            servers.start_one(at)?;
        }
        servers.ready().await?;
        let pids: Vec<_> = servers.running.iter().flatten().map(Server::pid).collect();
        tracing::info!(%system, ?pids, folder = %servers.folder.path().display(), "three servers run");
        Ok(servers)
    }

    /// Starts one server that does not run.
    pub(super) fn start_one(&mut self, at: usize) -> anyhow::Result<()> {
        let log = self.folder.path().join(format!("{}.log", NAMES[at]));
        self.running[at] = Some(Server::start(&self.program, &self.arguments[at], &log)?);
        Ok(())
    }

    /// Adds arguments for a server's next start.
    pub(super) fn add_arguments(&mut self, at: usize, arguments: impl IntoIterator<Item = String>) {
        self.arguments[at].extend(arguments);
    }

    /// Waits until all that run take calls, and know each other.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        let others = self.running.iter().flatten().count().saturating_sub(1);
        for (at, name) in NAMES.iter().enumerate() {
            let Some(server) = &mut self.running[at] else { continue };
            let http = self.places[at].http;
            loop {
                let ready = match &self.system {
                    System::MyChat => mychat::is_ready(http, others).await,
                    System::Klukai(_) => klukai::is_ready(http).await,
                };
                if ready {
                    break;
                }
                server.check()?;
                ensure!(Instant::now() < deadline, "{name} does not become ready:\n{}", server.tail());
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// What each has used so far, of those that run.
    pub(super) fn usage(&self) -> [Usage; NODES] {
        self.running.each_ref().map(|server| server.as_ref().map(Server::usage).unwrap_or_default())
    }

    /// Stops all in good order.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        let stopping: Vec<_> = self.running.iter_mut().filter_map(Option::take).map(Server::stop).collect();
        futures_util::future::try_join_all(stopping).await.map(drop)
    }
}

/// Servers that are ready for messages.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) servers: Servers,
    what: What,
    size: usize,
    client_id: bool,
}

/// How each system is spoken to.
#[derive(Debug)]
enum What {
    MyChat(MyChat),
    Klukai,
}

impl Cluster {
    /// Starts the servers, waits until they know each other, and makes what messages need. With a delay there is a
    /// relay between them, also when it is zero.
    pub(super) async fn start(
        system: &System,
        setup: &Setup,
        delay: Option<Duration>,
    ) -> anyhow::Result<Self> {
        let servers = Servers::start(system, setup, delay).await?;
        let what = match system {
            System::MyChat => What::MyChat(MyChat::prepare(&servers.places).await?),
            System::Klukai(_) => {
                klukai::prepare(&servers.places).await?;
                What::Klukai
            }
        };
        Ok(Self { servers, what, size: setup.general.body_bytes, client_id: setup.client_id })
    }

    /// Where a server takes calls.
    pub(super) fn http(&self, at: usize) -> SocketAddr {
        self.servers.places[at].http
    }

    /// The request that writes one message at a server, with a mark in it.
    pub(super) fn post(&self, at: usize) -> Template {
        let node = self.servers.places[at].http;
        Template::new(match &self.what {
            What::MyChat(mychat) => mychat.post(node, self.size, self.client_id),
            What::Klukai => klukai::post(node, self.size),
        })
    }

    /// The status of a write that was accepted.
    pub(super) fn accepted(&self) -> u16 {
        match &self.what {
            What::MyChat(_) => 201,
            What::Klukai => 200,
        }
    }

    /// The request for the stream of what is written.
    pub(super) fn watch(&self, at: usize) -> Vec<u8> {
        match &self.what {
            What::MyChat(mychat) => mychat.watch(self.servers.places[at].http),
            What::Klukai => klukai::watch(self.servers.places[at].http),
        }
    }

    /// Whether all servers hold the same, as far as they say; `written` messages in all.
    pub(super) async fn is_level(&self, written: u64) -> anyhow::Result<bool> {
        match &self.what {
            What::MyChat(_) => {
                let heads = self.servers.places.each_ref().map(|place| mychat::heads(place.http));
                let heads = futures_util::future::try_join_all(heads).await?;
                Ok(heads.windows(2).all(|pair| pair[0] == pair[1]))
            }
            What::Klukai => {
                let counts = self.servers.places.each_ref().map(|place| klukai::count(place.http));
                Ok(futures_util::future::try_join_all(counts).await?.iter().all(|count| *count == written))
            }
        }
    }

    /// How many messages a server has, and a hash of what it has.
    pub(super) async fn contents_of(&self, at: usize) -> anyhow::Result<(u64, String)> {
        let node = self.http(at);
        match &self.what {
            What::MyChat(mychat) => mychat.history(node).await,
            What::Klukai => klukai::contents(node).await,
        }
    }

    /// A server's database.
    pub(super) fn database(&self, at: usize) -> PathBuf {
        self.servers.places[at].data.join(match &self.what {
            What::MyChat(_) => mychat::DATABASE,
            What::Klukai => klukai::DATABASE,
        })
    }
}
