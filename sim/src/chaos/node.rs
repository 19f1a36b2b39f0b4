//! One `mychat node`: a process that is started, stopped, frozen and killed.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a node may take to stop when it is asked to.
const STOPPING: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A node and, while it runs, its process. Dropping it kills that.
pub(super) struct Node {
    /// Its region.
    pub(super) name: String,
    pub(super) url: String,
    pub(super) data: PathBuf,
    /// What it says, over all its lives.
    pub(super) log: PathBuf,
    /// Set for its next life.
    pub(super) variables: Vec<(String, String)>,
    program: PathBuf,
    args: Vec<String>,
    child: Option<Child>,
}

impl Node {
    pub(super) fn new(name: &str, url: String, folder: &Path, program: &Path, args: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            url,
            data: folder.join(name),
            log: folder.join(format!("{name}.log")),
            variables: Vec::new(),
            program: program.to_owned(),
            args,
            child: None,
        }
    }

    /// Starts the process; it is not ready yet.
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).arg("--data").arg(&self.data).env_clear();
        for kept in ["PATH", "HOME", "TMPDIR"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| format!("{} can't be started", self.program.display()));
        self.child = Some(child?);
        Ok(())
    }

    /// Ends it at once, as a power failure would.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only for a process that has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to stop and waits for that.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + STOPPING;
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                anyhow::ensure!(status.success(), "{} stopped with {status}", self.name);
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("{} does not stop within {} s of SIGTERM", self.name, STOPPING.as_secs());
    }

    /// Holds it where it is; [`Node::thaw`] lets it go on.
    pub(super) fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    pub(super) fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().with_context(|| format!("{} does not run", self.name))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, signal).with_context(|| format!("{} is gone", self.name))
    }

    /// How it ended, if it did by itself; it then counts as not running.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }

    /// Its last lines with one of these words.
    pub(super) fn lines_with(&self, words: &[&str]) -> Vec<String> {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines = log.lines().filter(|line| words.iter().any(|word| line.contains(word)));
        lines.map(str::to_owned).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Copies a folder with all that is in it.
pub(super) fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
