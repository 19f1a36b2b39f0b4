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

mod args;
mod body;
mod client;
mod engine;
mod figures;
mod limits;
mod mark;
mod post;
mod report;
mod seen;
mod setup;
mod target;
mod transcript;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

pub use args::StreamsArgs;
use engine::{Engine, Place};
use figures::{Board, Reading};
use report::{Report, Server};
use target::Target;

use crate::bench::usage::Usage;

/// How often the threads are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long all streams may take to be there.
const CONNECT: Duration = Duration::from_secs(180);
/// After all streams are there, the time until memory is looked at.
const CALM: Duration = Duration::from_secs(2);

/// Loads the servers, and prints the report. Fails when a client missed a message or got one twice.
pub async fn run(args: StreamsArgs, progress: &MultiProgress) -> anyhow::Result<()> {
    limits::raise(args.clients)?;
    let before = usages(&args.pid);
    let (target, sessions) = match args.peer {
        None => setup::nodes(&args).await.map(|(target, sessions)| (target, Some(sessions)))?,
        Some(_) => (setup::peer(&args)?, None),
    };
    let target = Arc::new(target);
    let keeping = sessions.map(|sessions| tokio::spawn(sessions.keep(Arc::clone(&target))).abort_handle());
    let report = measure(&args, &target, progress, &before).await;
    if let Some(keeping) = keeping {
        keeping.abort();
    }
    let report = report?;
    println!("{report}");
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, text).with_context(|| format!("--json {}", file.display()))?;
    }
    match report.faults() {
        faults if faults.is_empty() => Ok(()),
        faults => bail!("{}", faults.join("; ")),
    }
}

async fn measure(
    args: &StreamsArgs,
    target: &Arc<Target>,
    progress: &MultiProgress,
    before: &[Usage],
) -> anyhow::Result<Report> {
    let threads = args.threads.min(args.clients) as usize;
    let board = Arc::new(Board::new(target.spaces.len(), threads));
    let (own, began) = (Usage::of(None), Instant::now());
    let mut engines = Vec::new();
    for (number, places) in places(args, target, threads).iter().enumerate() {
        let churn = args.churn / threads as f64;
        let connecting = (args.connecting as usize).div_ceil(threads);
        let engine = Engine::new(Arc::clone(target), Arc::clone(&board), places, connecting, churn, number)?;
        engines.push(thread::Builder::new().name(format!("readers {number}")).spawn(|| engine.run())?);
    }
    let bar = progress.add(ProgressBar::new(u64::from(args.clients)));
    bar.set_style(ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}").context("a progress bar")?);
    bar.set_message("streams");
    while board.live.load(Relaxed) < u64::from(args.clients) {
        ensure!(
            began.elapsed() < CONNECT && engines.iter().all(|engine| !engine.is_finished()),
            "only {} of {} streams came about within {} s",
            board.live.load(Relaxed),
            args.clients,
            began.elapsed().as_secs()
        );
        bar.set_position(board.live.load(Relaxed));
        tokio::time::sleep(LOOK).await;
    }
    let connected = began.elapsed();
    tokio::time::sleep(CALM).await;
    let idle = usages(&args.pid);

    bar.set_message("seconds");
    bar.set_length(args.duration.as_secs());
    let first = mark::now();
    board.measures_from.store(first, Relaxed);
    let (posting, shown) = (Instant::now(), bar.clone());
    let showing = tokio::spawn(async move {
        loop {
            shown.set_position(posting.elapsed().as_secs());
            tokio::time::sleep(LOOK).await;
        }
    });
    let posted = if args.rate > 0.0 {
        let schedule = (args.rate, args.duration, args.size as usize, args.posting as usize);
        post::run(target, &board, schedule).await
    } else {
        tokio::time::sleep(args.duration).await;
        Ok(post::Posted::default())
    };
    showing.abort();
    let posting = posting.elapsed();
    let posted = posted?;
    board.ends.store(true, Relaxed);
    bar.set_message("clients that have not got everything");
    bar.set_length(u64::from(args.clients));
    let ended = Instant::now();
    let behind = || board.behind.iter().map(|behind| behind.load(Relaxed)).fold(0, u64::saturating_add);
    while behind() > 0 && ended.elapsed() < args.settle && engines.iter().all(|engine| !engine.is_finished())
    {
        bar.set_position(behind().min(u64::from(args.clients)));
        tokio::time::sleep(LOOK).await;
    }
    let end = usages(&args.pid);
    board.stop.store(true, Relaxed);
    bar.finish_and_clear();
    let mut reading = Reading::default();
    for engine in engines {
        match engine.join() {
            Ok(found) => reading.add(found?),
            Err(_) => bail!("a thread that reads has failed"),
        }
    }
    let deliveries = board.delivered.load(Relaxed);
    let span = Duration::from_micros(reading.last.saturating_sub(first));
    let processes: Vec<Server> = args
        .pid
        .iter()
        .zip(before.iter().zip(idle.iter().zip(&end)))
        .map(|(pid, (before, (idle, end)))| Server {
            pid: *pid,
            cpu_s: end.cpu - idle.cpu,
            resident_before: before.resident,
            resident_idle: idle.resident,
            resident_end: end.resident,
        })
        .collect();
    let cpu: f64 = processes.iter().map(|server| server.cpu_s).sum();
    let grown: u64 =
        processes.iter().map(|server| server.resident_idle.saturating_sub(server.resident_before)).sum();
    Ok(Report {
        servers: target.servers.len(),
        streams: args.clients,
        stalled: args.stalled_count(),
        spaces: args.spaces,
        accounts: args.peer.map_or(args.account_count(), |_| 0),
        message_bytes: args.size,
        connected_in_s: connected.as_secs_f64(),
        connect_ms: (&reading.connected).into(),
        posted: posted.accepted,
        post_failed: posted.failed,
        post_repeated: posted.repeated,
        posted_per_s: posted.accepted as f64 / posting.as_secs_f64(),
        post_ms: (&posted.answered).into(),
        post_late_ms: (&posted.late).into(),
        deliveries,
        deliveries_per_s: if span.is_zero() { 0.0 } else { deliveries as f64 / span.as_secs_f64() },
        delivery_ms: (&reading.latency).into(),
        lost_streams: reading.lost,
        failed_connections: reading.failed,
        goodbyes: reading.goodbyes,
        resets: reading.resets,
        refused: reading.refused,
        resumed_ms: (&reading.resumed).into(),
        returned_ms: (&reading.returned).into(),
        gaps: reading.gaps,
        clients_with_gaps: reading.clients_with_gaps,
        doubles: reading.doubles,
        server_cpu_us_per_delivery: (!processes.is_empty() && deliveries > 0)
            .then(|| cpu * 1e6 / deliveries as f64),
        server_bytes_per_stream: (!processes.is_empty()).then(|| grown as f64 / f64::from(args.clients)),
        server_processes: processes,
        client_cpu_s: Usage::of(None).cpu - own.cpu,
    })
}

/// Which client is where: the spaces and servers in turn, and the stalled ones evenly among all.
fn places(args: &StreamsArgs, target: &Target, threads: usize) -> Vec<Vec<Place>> {
    let (clients, stalled) = (u64::from(args.clients), u64::from(args.stalled_count()));
    let mut places = vec![Vec::new(); threads];
    for client in 0..clients {
        let number = client as usize;
        let (space, nth) = (number % target.spaces.len(), number / target.spaces.len());
        let stalls = (client + 1) * stalled / clients > client * stalled / clients;
        // By the place among its space's readers too, or one space would have all its readers at one server.
        let server = (space + nth) % target.servers.len();
        places[number % threads].push(Place { server, space, nth, stalls });
    }
    places
}

fn usages(pids: &[u32]) -> Vec<Usage> {
    pids.iter().map(|pid| Usage::of(Some(*pid))).collect()
}
