//! The flags of the benchmarks.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use tempfile::TempDir;

/// What all benchmarks take.
#[derive(Debug, Clone, Args)]
pub struct General {
    /// The folder in which the databases' folders are made; its disk decides what a commit costs [default: the
    /// system's folder for temporary files] [example: --dir /var/tmp]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Bytes of the text of each message [example: --body-bytes 500]
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = RangedU64ValueParser::<usize>::new().range(16..=16_000))]
    pub body_bytes: usize,

    /// Repeat this many times, and report the medians [example: --runs 5]
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub runs: u32,

    /// Also write the report, with each run, to this file as JSON [example: --json latency.json]
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What benchmarks of server processes take.
#[derive(Debug, Clone, Args)]
pub struct Setup {
    /// The servers take free ports from this one on [example: --ports 30000]
    #[arg(long, value_name = "PORT", default_value_t = 20_000)]
    pub ports: u16,

    /// Give each message an id of the client's own, as the web client does, by which a repeat would be known
    #[arg(long)]
    pub client_id: bool,

    /// Measure this system too, in the same run by turns, and say how many times better MyChat is [example: --peer
    /// klukai --klukai ~/.cargo/bin/corrosion]
    #[arg(long, value_name = "SYSTEM", requires = "klukai")]
    pub peer: Option<Peer>,

    /// The program of klukai, the published fork of Corrosion: `RUSTFLAGS="--cfg tokio_unstable" cargo install klukai
    /// --locked` makes it under the name corrosion
    #[arg(long, value_name = "FILE", requires = "peer")]
    pub klukai: Option<PathBuf>,

    /// What the nodes log, to files in their folder [example: --node-log info]
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    pub node_log: String,

    /// What all benchmarks take.
    #[command(flatten)]
    pub general: General,
}

/// Another system to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// The published fork of Corrosion, Fly.io's replicated SQLite.
    Klukai,
}

impl General {
    /// Where the databases' folders are made.
    pub(super) fn folder(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// A folder that goes away with its handle.
    pub(super) fn temporary(&self) -> anyhow::Result<TempDir> {
        let folder = self.folder();
        let made = tempfile::Builder::new().prefix("mychat-bench-").tempdir_in(&folder);
        made.with_context(|| format!("--dir {}", folder.display()))
    }
}

impl Setup {
    /// The systems to measure, MyChat first.
    pub(super) fn systems(&self) -> anyhow::Result<Vec<System>> {
        let mut systems = vec![System::MyChat];
        if let Some(program) = &self.klukai {
            // The servers run in folders of their own.
            let program = std::path::absolute(program)?;
            ensure!(program.is_file(), "--klukai {}: no such file", program.display());
            systems.push(System::Klukai(program));
        }
        Ok(systems)
    }
}

/// Which system is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum System {
    /// This program.
    MyChat,
    /// klukai, and its program.
    Klukai(PathBuf),
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MyChat => "MyChat",
            Self::Klukai(_) => "klukai",
        })
    }
}

/// How long from a commit until it is visible at the other nodes.
#[derive(Debug, Clone, Args)]
pub struct LatencyArgs {
    /// Messages a second, posted to node A on schedule whether or not earlier ones have been answered
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub rate: u32,

    /// Messages a second for the other system, where it can't carry as many [default: the same] [example: --peer-rate
    /// 10]
    #[arg(long, value_name = "N", requires = "peer", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub peer_rate: Option<u32>,

    /// For how long [example: --seconds 60]
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,

    /// Seconds at the beginning that do not count
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=60))]
    pub warm_up: u32,

    /// Hold what the nodes send each other back for so many milliseconds, each way, by a relay; also 0 goes through
    /// the relay [default: no relay] [example: --delay-ms 40]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub delay_ms: Option<u32>,

    /// Kept connections that post; a message whose turn it is waits when all are busy, which counts
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub connections: u32,

    /// What benchmarks of processes take.
    #[command(flatten)]
    pub setup: Setup,
}

impl LatencyArgs {
    /// Messages a second for a system.
    pub(super) fn rate_of(&self, system: &System) -> u32 {
        match system {
            System::MyChat => self.rate,
            System::Klukai(_) => self.peer_rate.unwrap_or(self.rate),
        }
    }
}

/// How many messages a second until all nodes hold them all.
#[derive(Debug, Clone, Args)]
pub struct ThroughputArgs {
    /// Connections that post, each its next message once the last was answered
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub writers: u32,

    /// For how long [example: --seconds 60]
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,

    /// Post to all three nodes, the writers in turn, and not to A alone
    #[arg(long)]
    pub everywhere: bool,

    /// Do not compare the nodes' contents in the end, which takes a while after many messages
    #[arg(long)]
    pub no_check: bool,

    /// What benchmarks of processes take.
    #[command(flatten)]
    pub setup: Setup,
}

/// How a node that was away, or is new, comes to hold everything.
#[derive(Debug, Clone, Args)]
pub struct CatchupArgs {
    /// How many messages the node lacks
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub messages: u64,

    /// How many of them were committed together, as one version: about as many as writers at once [example:
    /// --per-version 1]
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = RangedU64ValueParser::<usize>::new().range(1..=200))]
    pub per_version: usize,

    /// The node has nothing at all, in place of what was there before those messages
    #[arg(long)]
    pub empty: bool,

    /// Passed on to the node: above so many versions it takes a snapshot [example: --empty --snapshot-above 1000]
    #[arg(long, value_name = "N")]
    pub snapshot_above: Option<u64>,

    /// Hold what the nodes send each other back for so many milliseconds, each way, as between regions [example:
    /// --delay-ms 40]
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub delay_ms: u32,

    /// No relay between the nodes; then the bytes of datagrams are not known
    #[arg(long, conflicts_with = "delay_ms")]
    pub no_relay: bool,

    /// Do not compare the nodes' contents in the end, which takes a while
    #[arg(long)]
    pub no_check: bool,

    /// What benchmarks of processes take.
    #[command(flatten)]
    pub setup: Setup,
}

/// What a message costs in databases of several sizes.
#[derive(Debug, Clone, Args)]
pub struct GrowthArgs {
    /// Messages in the database, in ascending order [example: --sizes 10000,100000]
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [10_000, 1_000_000, 5_000_000])]
    pub sizes: Vec<u64>,

    /// Sites that the messages come from, this node's own included [example: --sites 3]
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = RangedU64ValueParser::<usize>::new().range(2..=1000))]
    pub sites: usize,

    /// Spaces that they are spread over
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub spaces: usize,

    /// Give the messages client ids that do not sort by time, unlike those of the web client
    #[arg(long)]
    pub scattered_client_ids: bool,

    /// What all benchmarks take.
    #[command(flatten)]
    pub general: General,
}
