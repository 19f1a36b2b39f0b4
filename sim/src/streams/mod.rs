//! `mychat sim streams`: very many event streams at once, every one of which is checked.
//!
//! ```text
//! setup: accounts, spaces ─▶ Target ─┬─▶ post: messages on a schedule ══▶ servers
//!                                    └─▶ engine (threads): sockets ◀════════╯
//!                                            └─▶ client, seen ─▶ figures ─▶ report
//! ```
//!
//! It simulates streams and not people: a stream is a connection of its own, with its own request, place in the sequence
//! of its space, and cursor, as a browser has them; but several streams belong to one account (as several devices of a
//! person do), since it takes a server longer to hash a password than to carry a hundred streams. Each stream is about
//! one space.
//!
//! A thread (`engine`) holds thousands of sockets and looks at those that have something. All readers of a space at one
//! node get the same bytes, so only the first of them is understood, and what comes to the others is compared with it
//! (`transcript`, `client`): the machine is the server's. Each message carries its number and the time of its post
//! (`mark`), and each client notes which it has got (`seen`): none may be missing in the end, and none come twice. A
//! client whose stream is lost waits for as long as the server asked it to, and goes on at the next server from its
//! cursor.
//!
//! `run` is one load from its first connection to its last figure; `ramp` raises the rate within it, `marks` looks at it
//! from time to time. `servers` starts servers for the purpose, which `compare` loads in turn: a node, nginx with nchan, and
//! the least that a server can do (`send_loop`).

mod args;
mod body;
mod client;
mod compare;
mod engine;
mod figures;
mod limits;
mod mark;
mod marks;
mod post;
mod ramp;
mod report;
mod run;
mod seen;
pub mod send_loop;
mod servers;
mod setup;
mod socket;
mod target;
mod transcript;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use indicatif::MultiProgress;
use serde::Serialize;

pub use args::StreamsArgs;
pub(crate) use report::Report;
pub(crate) use servers::Own;

/// Loads the servers, and prints the report. Fails when a client missed a message or got one twice.
pub async fn run(args: StreamsArgs, progress: &MultiProgress) -> anyhow::Result<()> {
    if args.peer.is_some() && args.peer_url.is_empty() {
        let comparison = compare::run(&args, progress).await?;
        println!("{comparison}");
        return finish(args.json.as_deref(), &comparison, comparison.faults());
    }
    ensure!(
        !args.idle || !args.pid.is_empty(),
        "--idle reports what streams take in servers' memory: name their processes with --pid"
    );
    let report = run_one(&args, progress).await?;
    println!("{report}");
    finish(args.json.as_deref(), &report, report.faults())
}

/// Loads servers that run.
pub(crate) async fn run_one(args: &StreamsArgs, progress: &MultiProgress) -> anyhow::Result<Report> {
    limits::raise(args.clients)?;
    let (target, sessions) = match &args.peer_url[..] {
        [publish, subscribe] if args.peer.is_some() => (setup::other(args, [publish, subscribe])?, None),
        _ => setup::nodes(args).await.map(|(target, sessions)| (target, Some(sessions)))?,
    };
    let target = Arc::new(target);
    let keeping = sessions.map(|sessions| tokio::spawn(sessions.keep(Arc::clone(&target))).abort_handle());
    let report = run::measure(args, &target, progress).await;
    if let Some(keeping) = keeping {
        keeping.abort();
    }
    report
}

fn finish(json: Option<&Path>, report: &impl Serialize, faults: Vec<String>) -> anyhow::Result<()> {
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(report)?;
        std::fs::write(file, text).with_context(|| format!("--json {}", file.display()))?;
    }
    if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("; ")) }
}
