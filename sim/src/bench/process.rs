//! Server processes: started in a clean environment, with a log of their own, and never left behind.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::usage::Usage;

/// How long a server may take to end when it is asked to.
const END: Duration = Duration::from_secs(60);
/// Lines of a log that are shown when a server has failed.
const TAIL: usize = 20;

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pid: u32,
    log: PathBuf,
}

impl Server {
    /// Starts `program`; what it says goes to the end of the file `log`.
    pub(crate) fn start<S: AsRef<OsStr>>(program: &Path, args: &[S], log: &Path) -> anyhow::Result<Self> {
        let failed = || format!("{} can't be started", program.display());
        let out = std::fs::OpenOptions::new().create(true).append(true).open(log).with_context(failed)?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).kill_on_drop(true);
        // Settings of the one who measures must not reach what is measured.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MYCHAT_") {
                command.env_remove(name);
            }
        }
        let child = command.spawn().with_context(failed)?;
        let pid = child.id().with_context(failed)?;
        Ok(Self { child, pid, log: log.to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(Some(self.pid))
    }

    /// Fails, with the end of its log, if it has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("a server has ended ({status}):\n{}", self.tail()),
        }
    }

    /// The end of its log.
    pub(crate) fn tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        match tokio::time::timeout(END, self.child.wait()).await {
            Ok(status) => status.map(drop).context("a server can't be waited for"),
            Err(_) => bail!("a server does not end within {} s:\n{}", END.as_secs(), self.tail()),
        }
    }
}

/// Ports on 127.0.0.1 that are free, for TCP and UDP, from `next` on; `next` moves behind them.
pub(crate) fn ports<const COUNT: usize>(next: &mut u16) -> anyhow::Result<[SocketAddr; COUNT]> {
    let mut found = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); COUNT];
    for slot in &mut found {
        *slot = loop {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *next));
            *next = next.checked_add(1).context("no free ports are left; begin lower with --ports")?;
            if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
                break address;
            }
        };
    }
    Ok(found)
}
