//! One load: streams are opened, messages posted, everybody has everything, and the figures are taken.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    args::StreamsArgs,
    engine::{Engine, Place},
    figures::{Board, Reading, Times, times},
    mark,
    marks::{Mark, Marks},
    post::{self, Posted},
    ramp::{self, Step},
    report::{Report, Server},
    target::Target,
};
use crate::bench::usage::Usage;

/// How often the threads are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long all streams may take to be there.
const CONNECT: Duration = Duration::from_secs(180);
/// After all streams are there, the time until memory is looked at.
const CALM: Duration = Duration::from_secs(2);

/// Streams that are open.
pub(super) struct Load<'a> {
    pub(super) args: &'a StreamsArgs,
    pub(super) target: &'a Arc<Target>,
    pub(super) board: Arc<Board>,
    pub(super) bar: ProgressBar,
    engines: Vec<JoinHandle<anyhow::Result<Reading>>>,
    connected: Duration,
}

/// What was posted, and what was looked at meanwhile.
#[derive(Default)]
struct Main {
    posted: Posted,
    latency: Option<Times>,
    marks: Vec<Mark>,
    steps: Vec<Step>,
}

/// Does all of it, and gives the report.
pub(super) async fn measure(
    args: &StreamsArgs,
    target: &Arc<Target>,
    progress: &MultiProgress,
) -> anyhow::Result<Report> {
    let own = Usage::of(None);
    let before = usages(args);
    let load = Load::connect(args, target, progress).await?;
    tokio::time::sleep(CALM).await;
    let idle = usages(args);
    let first = mark::now();
    load.board.measures_from.store(first, Relaxed);
    let posting = Instant::now();
    let main = match load.main(progress).await {
        Ok(main) => main,
        // A thread that has failed knows better why.
        Err(error) => return Err(load.end().err().unwrap_or(error)),
    };
    let posting = posting.elapsed();
    load.settle(args.settle).await;
    let end = usages(args);
    let mut latency = main.latency.unwrap_or_else(times);
    latency.add(load.board.take_latency())?;
    let deliveries = load.board.delivered.load(Relaxed);
    let event_bytes = load.board.event_bytes.load(Relaxed);
    let connected = load.connected;
    let reading = load.end()?;
    let span = Duration::from_micros(reading.last.saturating_sub(first));
    let processes = servers(args, &before, &idle, &end);
    let cpu: f64 = processes.iter().map(|server| server.cpu_s).sum();
    let grown: u64 =
        processes.iter().map(|server| server.resident_idle.saturating_sub(server.resident_before)).sum();
    // With a server that was killed its share is gone, of deliveries and streams it is still a part.
    let complete = !processes.is_empty() && args.kill.is_none();
    let posted = main.posted;
    Ok(Report {
        servers: target.servers.len(),
        streams: args.clients,
        stalled: args.stalled_count(),
        spaces: args.spaces,
        accounts: args.peer.map_or(args.account_count(), |_| 0),
        message_bytes: args.size,
        event_bytes,
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
        delivery_ms: (&latency).into(),
        lost_streams: reading.lost,
        failed_connections: reading.failed,
        goodbyes: reading.goodbyes,
        resets: reading.resets,
        refused: reading.refused,
        resumed_ms: (&reading.resumed).into(),
        returned_ms: (&reading.returned).into(),
        survived_ms: (&reading.survived).into(),
        gaps: reading.gaps,
        clients_with_gaps: reading.clients_with_gaps,
        doubles: reading.doubles,
        server_cpu_us_per_delivery: (complete && deliveries > 0).then(|| cpu * 1e6 / deliveries as f64),
        server_bytes_per_stream: complete.then(|| grown as f64 / f64::from(args.clients)),
        server_processes: processes,
        client_cpu_s: Usage::of(None).cpu - own.cpu,
        marks: main.marks,
        steps: main.steps,
        until_p99_ms: args.until_p99.map(|limit| limit.as_secs_f64() * 1000.0),
    })
}

/// What each server process that outlives the run has used: on processors since the streams were there, and of memory
/// before them, with them, and in the end.
fn servers(args: &StreamsArgs, before: &[Usage], idle: &[Usage], end: &[Usage]) -> Vec<Server> {
    let pids = args.pid.iter().filter(|pid| Some(**pid) != args.kill);
    pids.zip(before.iter().zip(idle.iter().zip(end)))
        .map(|(pid, (before, (idle, end)))| Server {
            pid: *pid,
            cpu_s: end.cpu - idle.cpu,
            resident_before: before.resident,
            resident_idle: idle.resident,
            resident_end: end.resident,
        })
        .collect()
}

impl<'a> Load<'a> {
    /// Opens all streams, and waits until they are there.
    async fn connect(
        args: &'a StreamsArgs,
        target: &'a Arc<Target>,
        progress: &MultiProgress,
    ) -> anyhow::Result<Self> {
        let threads = args.threads.min(args.clients) as usize;
        let board = Arc::new(Board::new(target.spaces.len(), threads));
        let began = Instant::now();
        let bar = progress.add(ProgressBar::new(u64::from(args.clients)));
        bar.set_style(
            ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}").context("a progress bar")?,
        );
        bar.set_message("streams");
        let mut load = Self { args, target, board, bar, engines: Vec::new(), connected: Duration::ZERO };
        for (number, places) in places(args, target, threads).iter().enumerate() {
            let churn = args.churn / threads as f64;
            let connecting = (args.connecting as usize).div_ceil(threads);
            let board = Arc::clone(&load.board);
            let engine = Engine::new(Arc::clone(target), board, places, connecting, churn, number)?;
            let thread = thread::Builder::new().name(format!("readers {number}"));
            load.engines.push(thread.spawn(|| engine.run())?);
        }
        let live = || load.board.live.load(Relaxed);
        while live() < u64::from(args.clients) {
            if began.elapsed() > CONNECT || load.has_failed() {
                let (live, seconds) = (live(), began.elapsed().as_secs());
                load.board.stop.store(true, Relaxed);
                let refused = load.end()?.refused;
                bail!(
                    "only {live} of {} streams came about within {seconds} s (refused: {refused:?}); has the server \
                     enough descriptors (--max-streams of a node)?",
                    args.clients
                );
            }
            load.bar.set_position(live());
            tokio::time::sleep(LOOK).await;
        }
        load.connected = began.elapsed();
        Ok(load)
    }

    fn has_failed(&self) -> bool {
        self.engines.iter().any(JoinHandle::is_finished)
    }

    /// What happens while the streams are there.
    async fn main(&self, progress: &MultiProgress) -> anyhow::Result<Main> {
        if let Some(limit) = self.args.until_p99 {
            let (posted, latency, steps) = ramp::run(self, limit).await?;
            return Ok(Main { posted, latency: Some(latency), steps, ..Main::default() });
        }
        let mut marks = Marks::new(self.args, Arc::clone(&self.board), progress.clone());
        let (began, time) = (Instant::now(), self.args.duration);
        self.bar.set_message("seconds");
        self.bar.set_length(time.as_secs());
        let looking = async {
            let mut to_kill = self.args.kill;
            loop {
                tokio::time::sleep(LOOK).await;
                self.bar.set_position(began.elapsed().as_secs());
                marks.look();
                if began.elapsed() >= time / 2
                    && let Some(pid) = to_kill.take()
                {
                    self.kill(pid)?;
                }
                ensure!(!self.has_failed(), "a thread that reads has failed");
            }
            #[allow(unreachable_code, reason = "it says what the block gives")]
            anyhow::Ok(())
        };
        let posting = async {
            if self.args.is_silent() {
                tokio::time::sleep(time).await;
                return Ok(Posted::default());
            }
            self.post(self.args.rate, time).await
        };
        let posted = tokio::select! {
            posted = posting => posted?,
            failed = looking => return failed.map(|()| Main::default()),
        };
        let (latency, marks) = marks.end();
        Ok(Main { posted, latency: Some(latency), marks, steps: Vec::new() })
    }

    /// Posts messages on a schedule.
    pub(super) async fn post(&self, rate: f64, time: Duration) -> anyhow::Result<Posted> {
        let schedule = (rate, time, self.args.size as usize, self.args.posting as usize);
        post::run(self.target, &self.board, schedule).await
    }

    fn kill(&self, pid: u32) -> anyhow::Result<()> {
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let process = process.with_context(|| format!("--kill {pid}: not the id of a process"))?;
        self.board.killed.store(mark::now(), Relaxed);
        kill_process(process, Signal::KILL).with_context(|| format!("--kill {pid}: it can't be killed"))
    }

    /// Waits until every client has everything, but no longer than `most`.
    pub(super) async fn settle(&self, most: Duration) {
        self.board.set_ended(true);
        let (ended, clients) = (Instant::now(), u64::from(self.args.clients));
        self.bar.set_message("clients that have not got everything");
        self.bar.set_length(clients);
        while self.board.behind() > 0 && ended.elapsed() < most && !self.has_failed() {
            self.bar.set_position(self.board.behind().min(clients));
            tokio::time::sleep(LOOK / 4).await;
        }
    }

    /// Closes the streams, and gives what was found; fails with the reason of a thread that has failed.
    fn end(mut self) -> anyhow::Result<Reading> {
        self.board.stop.store(true, Relaxed);
        self.bar.finish_and_clear();
        let mut reading = Reading::default();
        for engine in std::mem::take(&mut self.engines) {
            match engine.join() {
                Ok(found) => reading.add(found?),
                Err(_) => bail!("a thread that reads has failed"),
            }
        }
        Ok(reading)
    }
}

impl Drop for Load<'_> {
    /// The threads end by themselves then.
    fn drop(&mut self) {
        self.board.stop.store(true, Relaxed);
    }
}

/// Which client is where: the spaces and servers in turn, and the stalled ones evenly among all.
fn places(args: &StreamsArgs, target: &Target, threads: usize) -> Vec<Vec<Place>> {
    let (clients, stalled) = (u64::from(args.clients), u64::from(args.stalled_count()));
    let homes = args.homes.map_or(target.servers.len(), |homes| target.servers.len().min(homes as usize));
    let mut places = vec![Vec::new(); threads];
    for client in 0..clients {
        let number = client as usize;
        let (space, nth) = (number % target.spaces.len(), number / target.spaces.len());
        let stalls = (client + 1) * stalled / clients > client * stalled / clients;
        // By the place among its space's readers too, or one space would have all its readers at one server.
        let server = (space + nth) % homes;
        places[number % threads].push(Place { server, space, nth, stalls, number });
    }
    places
}

fn usages(args: &StreamsArgs) -> Vec<Usage> {
    args.pid.iter().filter(|pid| Some(**pid) != args.kill).map(|pid| Usage::of(Some(*pid))).collect()
}
