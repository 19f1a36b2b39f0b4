//! The processes in the regions: started, listened to, and ended.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::enter;
use super::network::Network;

/// The longest piece of a line that is held until its end comes, in bytes.
const LINE: u64 = 64 << 10;
/// How long last words are waited for once all processes have ended: what has left their process groups may hold the
/// other end for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where what a process says goes.
#[derive(Debug, Clone)]
pub enum Output {
    /// To this process's own output, each line behind the region's name.
    Named,
    /// To a file for each region in this folder.
    Folder(PathBuf),
}

/// Processes that run in the regions of a network. Dropping them kills them.
#[derive(Default)]
pub struct Processes {
    groups: Vec<Member>,
    ends: JoinSet<End>,
    output: JoinSet<()>,
}

struct Member {
    name: String,
    /// Each has a process group of its own, so that Ctrl-C reaches this process first, and stopping reaches what a
    /// command has started itself.
    group: Option<Pid>,
}

/// A process has ended.
#[derive(Debug)]
pub struct End {
    member: usize,
    /// Its region and program.
    pub name: String,
    /// How.
    pub status: io::Result<ExitStatus>,
}

impl Processes {
    /// Starts a command in a region. It is killed when the thread that calls this ends.
    ///
    /// # Errors
    /// When this program can't be started again, or the output has no place. Whether the command itself can is known
    /// only later, as its end.
    pub fn start(
        &mut self,
        network: &Network,
        region: usize,
        command: &[String],
        output: &Output,
    ) -> anyhow::Result<()> {
        let topology = network.topology();
        let label = topology.names().nth(region).context("there is no such region")?.to_owned();
        let program = Path::new(command.first().context("there is no command")?);
        let program = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
        let name = format!("{program} in {label}");
        let itself = std::env::current_exe().context("this program can't find itself")?;
        let mut start = Command::new(itself);
        start.args(enter::arguments(&network.namespace(region), command));
        start.envs(topology.variables(region)).stdin(Stdio::null()).process_group(0);
        match output {
            Output::Named => start.stdout(Stdio::piped()).stderr(Stdio::piped()),
            Output::Folder(folder) => {
                let path = folder.join(format!("{label}.log"));
                let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
                let file = file.with_context(|| format!("{} can't be written", path.display()))?;
                start.stdout(file.try_clone()?).stderr(file)
            }
        };
        let mut child = start.spawn().with_context(|| format!("{name} can't be started"))?;
        let width = topology.names().map(str::len).max().unwrap_or_default();
        let prefix = format!("{label:width$} | ");
        if let Some(stdout) = child.stdout.take() {
            self.output.spawn(pass_on(prefix.clone(), stdout, io::stdout()));
        }
        if let Some(stderr) = child.stderr.take() {
            self.output.spawn(pass_on(prefix, stderr, io::stderr()));
        }
        let member = self.groups.len();
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        self.groups.push(Member { name: name.clone(), group });
        self.ends.spawn(end(member, name, child));
        Ok(())
    }

    /// The next that ends; none when all have.
    pub async fn next_end(&mut self) -> Option<End> {
        let end = self.ends.join_next().await?.ok()?;
        // What a command has left running would else be without anybody who ends it.
        self.signal_one(end.member, Signal::KILL);
        self.groups[end.member].group = None;
        Some(end)
    }

    /// Asks all to stop, waits for that, and kills those that do not in time; returns their names.
    pub async fn stop(&mut self, patience: Duration) -> Vec<String> {
        self.signal(Signal::TERM);
        let all = async { while self.next_end().await.is_some() {} };
        let mut late = Vec::new();
        if tokio::time::timeout(patience, all).await.is_err() {
            late = self.groups.iter().filter(|one| one.group.is_some()).map(|one| one.name.clone()).collect();
            self.signal(Signal::KILL);
            while self.next_end().await.is_some() {}
        }
        let last_words = async { while self.output.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
        late
    }

    fn signal(&self, signal: Signal) {
        (0..self.groups.len()).for_each(|member| self.signal_one(member, signal));
    }

    fn signal_one(&self, member: usize, signal: Signal) {
        if let Some(group) = self.groups[member].group {
            // Fails only when all of it has ended.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

async fn end(member: usize, name: String, mut child: Child) -> End {
    End { member, name, status: child.wait().await }
}

/// Passes on lines, each behind a prefix and in one piece, until the other end is closed.
async fn pass_on(prefix: String, from: impl AsyncRead + Unpin, mut to: impl Write) {
    let mut from = BufReader::new(from);
    loop {
        let mut line = prefix.clone().into_bytes();
        match (&mut from).take(LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) if line.ends_with(b"\n") => {}
            Ok(_) => line.push(b'\n'),
        }
        // Nobody listens any more, which is no reason to let the process block.
        let _ = to.write_all(&line).and_then(|()| to.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_that_somebody_holds_open_is_not_waited_for() {
        let mut processes = Processes::default();
        let (held, from) = tokio::io::duplex(64);
        processes.output.spawn(pass_on(String::new(), from, io::sink()));
        assert!(processes.stop(Duration::ZERO).await.is_empty());
        drop(held);
    }

    #[tokio::test]
    async fn lines_are_named() {
        let mut out = Vec::new();
        pass_on("fra | ".to_owned(), &b"one\n\ntwo"[..], &mut out).await;
        assert_eq!(String::from_utf8(out).unwrap(), "fra | one\nfra | \nfra | two\n");
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut() {
        let mut out = Vec::new();
        pass_on("> ".to_owned(), &vec![b'x'; LINE as usize + 1][..], &mut out).await;
        assert_eq!(out.len(), LINE as usize + 1 + 2 * "> \n".len());
    }
}
