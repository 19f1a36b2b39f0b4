//! The program as a process: started with a clean environment, its output kept, and never left behind.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, eventually, shown};

/// A running `mychat`, or what is left of it. Dropping it kills it.
pub struct Process {
    child: Child,
    name: String,
    stdout: Output,
    stderr: Output,
}

/// What is started.
#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    /// Variables of its environment.
    pub variables: Vec<(String, String)>,
}

impl Default for Program {
    /// The one under test.
    fn default() -> Self {
        Self { path: PathBuf::from(env!("CARGO_BIN_EXE_mychat")), variables: Vec::new() }
    }
}

/// How a process ended.
#[derive(Debug)]
pub struct Exit {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Process {
    /// Starts `mychat` with these arguments and no `MYCHAT_*` variables.
    pub fn start<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Self {
        Self::start_as(&Program::default(), args)
    }

    /// Starts another build of it, or with variables.
    pub fn start_as<S: AsRef<str>>(program: &Program, args: impl IntoIterator<Item = S>) -> Self {
        let args: Vec<String> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let mut command = Command::new(&program.path);
        command.args(&args).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for kept in ["PATH", "HOME", "TMPDIR"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        command.envs(program.variables.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().expect("the program starts");
        let stdout = Output::of(child.stdout.take().expect("a pipe"));
        let stderr = Output::of(child.stderr.take().expect("a pipe"));
        Self { child, name: format!("mychat {}", args.join(" ")), stdout, stderr }
    }

    /// Starts `mychat dev` and waits until it says that it is ready.
    pub async fn dev(port: u16, data: &Path) -> Self {
        let mut dev = Self::start(["dev", "--port", &port.to_string(), "--data", &shown(data)]);
        eventually("mychat dev says that it is ready", async || {
            assert!(dev.is_running(), "it has ended:\n{}", dev.stderr());
            dev.stdout().contains("Ctrl-C").then_some(())
        })
        .await;
        dev
    }

    /// Runs `mychat` to its end.
    pub async fn run<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Exit {
        Self::start(args).exit(2 * PATIENCE).await
    }

    /// What it has written to stderr.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// What it has written to stdout.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Waits for a line of stderr that has all of the words.
    pub async fn logs(&mut self, words: &[&str]) -> String {
        eventually(&format!("a line with {words:?} of {}", self.name), async || {
            let running = self.is_running();
            let log = if running { self.stderr() } else { self.stderr.all() };
            let line =
                log.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned);
            assert!(line.is_some() || running, "it has ended:\n{log}");
            line
        })
        .await
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child of this process").is_none()
    }

    /// Ends it at once, as a power failure would (SIGKILL), and waits until it is gone.
    pub fn kill(&mut self) {
        // Both fail only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("the process is there to be told");
    }

    /// Asks it to stop (SIGTERM) and waits for that.
    pub async fn stop(mut self) -> Exit {
        self.signal(Signal::TERM);
        self.exit_in(PATIENCE).await
    }

    /// Waits until it ends by itself.
    pub async fn exit(mut self, within: Duration) -> Exit {
        self.exit_in(within).await
    }

    async fn exit_in(&mut self, within: Duration) -> Exit {
        let ended = tokio::time::timeout(within, async {
            loop {
                if let Some(status) = self.child.try_wait().expect("a child of this process") {
                    return status;
                }
                tokio::time::sleep(super::POLL).await;
            }
        });
        let Ok(status) = ended.await else {
            panic!("{} does not end; stderr:\n{}", self.name, self.stderr());
        };
        Exit { code: status.code(), stdout: self.stdout.all(), stderr: self.stderr.all() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.name, tail(&self.stderr.all()));
        }
    }
}

/// The end of a log, enough to see what went wrong.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// What comes out of a pipe.
struct Output {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 16 << 10];
            while let Ok(size @ 1..) = pipe.read(&mut piece) {
                written.lock().expect("the text").extend_from_slice(&piece[..size]);
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().expect("the text")).into_owned()
    }

    /// Everything, once the process has ended.
    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("it only reads");
        }
        self.text()
    }
}
