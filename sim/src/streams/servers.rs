//! Servers that this program starts by itself on this machine, to load them: a node, nginx with nchan, and the bare loops of
//! send(2). Dropping one ends it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use crate::bench::mychat::{is_ready, make_key, program};
use crate::bench::process::{Server, ports};
use crate::bench::wire::{Connection, request};

/// How long a start may take.
const START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// Where free ports are looked for.
const PORTS: u16 = 21_000;
/// Where Debian puts nginx and the module.
const NGINX: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/usr/bin"];
const MODULES: [&str; 2] = ["/usr/lib/nginx/modules", "/usr/share/nginx/modules"];
const NCHAN: &str = "ngx_nchan_module.so";

/// A server in a folder of its own.
pub(crate) struct Own {
    server: Server,
    /// Where it takes calls.
    pub(crate) address: SocketAddr,
    // The process goes before the folder that it works in.
    _folder: TempDir,
}

impl Own {
    /// A node that is alone, with room for so many streams.
    pub(crate) async fn node(streams: u32) -> anyhow::Result<Self> {
        let folder = folder()?;
        let [http, mesh] = ports::<2>(&mut { PORTS })?;
        let key = folder.path().join("cluster.key");
        make_key(&key).await?;
        let mut args: Vec<String> = ["--log", "warn", "node", "--region", "here"].map(str::to_owned).to_vec();
        for (flag, value) in [
            ("--http", http.to_string()),
            ("--mesh", mesh.to_string()),
            ("--public-url", format!("http://{http}")),
            ("--data", folder.path().join("data").display().to_string()),
            ("--cluster-key", key.display().to_string()),
            ("--max-streams", streams.to_string()),
        ] {
            args.extend([flag.to_owned(), value]);
        }
        let mut own = Self::start(&program()?, &args, http, folder)?;
        own.until(async || is_ready(http, 0).await).await?;
        Ok(own)
    }

    /// nginx with nchan, with so many workers.
    pub(crate) async fn nchan(streams: u32, workers: u32) -> anyhow::Result<Self> {
        let (nginx, module) = nginx()?;
        let folder = folder()?;
        let [http] = ports::<1>(&mut { PORTS })?;
        let config = folder.path().join("nginx.conf");
        std::fs::write(&config, nchan_conf(folder.path(), &module, http, streams, workers))?;
        let args = ["-p", &folder.path().display().to_string(), "-c", &config.display().to_string()];
        let mut own = Self::start(&nginx, &args, http, folder)?;
        let pid = own.server.pid();
        children(pid)?;
        // It listens before it has its workers, and they are what is measured.
        let works = || children(pid).is_ok_and(|all| all.len() >= workers as usize);
        own.until(async || works() && Connection::open(http).await.is_ok()).await?;
        Ok(own)
    }

    /// The bare loop, or that which brings each message to the disk first.
    pub(crate) async fn send_loop(streams: u32, durable: bool) -> anyhow::Result<Self> {
        let folder = folder()?;
        let [http] = ports::<1>(&mut { PORTS })?;
        let (listen, streams) = (http.to_string(), streams.to_string());
        let log = folder.path().join("messages").display().to_string();
        let mut args = vec!["sim", "send-loop", "--listen", &listen, "--streams", &streams];
        if durable {
            args.extend(["--to-disk", &log]);
        }
        let mut own = Self::start(&program()?, &args, http, folder)?;
        own.until(async || Connection::open(http).await.is_ok()).await?;
        Ok(own)
    }

    fn start<S: AsRef<std::ffi::OsStr>>(
        program: &Path,
        args: &[S],
        address: SocketAddr,
        folder: TempDir,
    ) -> anyhow::Result<Self> {
        let server = Server::start(program, args, &folder.path().join("log"))?;
        Ok(Self { server, address, _folder: folder })
    }

    async fn until(&mut self, mut ready: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
        let began = Instant::now();
        while !ready().await {
            self.server.check()?;
            ensure!(began.elapsed() < START, "a server does not become ready:\n{}", self.server.tail());
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Its processes: nginx has workers.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let pid = self.server.pid();
        // Only nginx has any, and where the system does not tell them it was not started.
        std::iter::once(pid).chain(children(pid).unwrap_or_default()).collect()
    }

    /// Its metrics, if it is a node.
    pub(crate) async fn metrics(&self) -> anyhow::Result<String> {
        let call = request("GET", "/metrics", self.address, &[], "");
        let answer = Connection::open(self.address).await?.call(&call).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Ends it in good order.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.server.stop().await
    }
}

/// The processes that a process has started (Linux).
fn children(pid: u32) -> anyhow::Result<Vec<u32>> {
    let file = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(&file).with_context(|| format!("{file} can't be read"))?;
    Ok(children.split_whitespace().filter_map(|child| child.parse().ok()).collect())
}

fn folder() -> anyhow::Result<TempDir> {
    tempfile::Builder::new().prefix("mychat-streams-").tempdir().context("a folder can't be made")
}

/// nginx and the module.
fn nginx() -> anyhow::Result<(PathBuf, PathBuf)> {
    let found = |places: &[&str], name: &str| {
        places.iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file())
    };
    match (found(&NGINX, "nginx"), found(&MODULES, NCHAN)) {
        (Some(nginx), Some(module)) => Ok((nginx, module)),
        _ => bail!(
            "nginx with nchan is not on this machine: install it (Debian: `apt install nginx libnginx-mod-nchan`; it \
             need not run), or name a server that runs with --peer-url"
        ),
    }
}

fn nchan_conf(folder: &Path, module: &Path, http: SocketAddr, streams: u32, workers: u32) -> String {
    let (folder, module) = (folder.display(), module.display());
    let connections = streams + 512;
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    format!(
        "load_module {module};
{user}
daemon off;
worker_processes {workers};
worker_rlimit_nofile {connections};
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    tcp_nodelay on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    nchan_shared_memory_size 256M;
    server {{
        listen {http} backlog=4096;
        location ~ ^/pub/(.+)$ {{ nchan_publisher; nchan_channel_id $1; nchan_message_buffer_length 100; }}
        location ~ ^/sub/(.+)$ {{ nchan_subscriber eventsource; nchan_channel_id $1; }}
    }}
}}
"
    )
}
