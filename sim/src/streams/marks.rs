//! Figures while a long run goes on: does anything grow that should not?

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use indicatif::MultiProgress;
use serde::Serialize;

use super::{
    args::StreamsArgs,
    figures::{Board, Times, times},
};
use crate::bench::usage::Usage;

/// What was seen at a moment.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Mark {
    /// Seconds since the first message.
    pub(super) at_s: f64,
    pub(super) live: u64,
    /// Since the mark before.
    pub(super) deliveries_per_s: f64,
    pub(super) p99_ms: f64,
    /// Of all servers: bytes of memory, descriptors, and the part of one processor since the mark before.
    pub(super) resident: u64,
    pub(super) descriptors: u64,
    pub(super) processors: f64,
}

/// Looks from time to time.
pub(super) struct Marks {
    each: Option<Duration>,
    pids: Vec<u32>,
    board: Arc<Board>,
    progress: MultiProgress,
    began: Instant,
    last: (Instant, u64, f64),
    latency: Times,
    marks: Vec<Mark>,
}

impl Marks {
    pub(super) fn new(args: &StreamsArgs, board: Arc<Board>, progress: MultiProgress) -> Self {
        let pids: Vec<u32> = args.pid.iter().copied().filter(|pid| Some(*pid) != args.kill).collect();
        let now = Instant::now();
        let last = (now, board.delivered.load(Relaxed), cpu(&pids));
        let mut marks = Self {
            each: args.marks,
            pids,
            board,
            progress,
            began: now,
            last,
            latency: times(),
            marks: Vec::new(),
        };
        if marks.each.is_some() {
            marks.mark();
        }
        marks
    }

    /// Looks, if it is time.
    pub(super) fn look(&mut self) {
        if self.each.is_some_and(|each| self.began.elapsed() >= each * self.marks.len() as u32) {
            let mark = self.mark();
            // Also where no bar is drawn: whoever runs this for hours reads it in a file.
            self.progress.suspend(|| println!("{mark}"));
        }
    }

    fn mark(&mut self) -> String {
        let (now, delivered, used) = (Instant::now(), self.board.delivered.load(Relaxed), cpu(&self.pids));
        let passed = (now - self.last.0).as_secs_f64().max(1e-3);
        let piece = self.board.take_latency();
        let mark = Mark {
            at_s: (now - self.began).as_secs_f64(),
            live: self.board.live.load(Relaxed),
            deliveries_per_s: (delivered - self.last.1) as f64 / passed,
            p99_ms: piece.value_at_quantile(0.99) as f64 / 1000.0,
            resident: self.pids.iter().map(|pid| Usage::of(Some(*pid)).resident).sum(),
            descriptors: self.pids.iter().map(|pid| descriptors(*pid)).sum(),
            processors: (used - self.last.2) / passed,
        };
        self.last = (now, delivered, used);
        // All have the same bounds.
        let _ = self.latency.add(piece);
        self.marks.push(mark.clone());
        format!(
            "{:>7.0} s  {} streams  {:.0} deliveries/s  p99 {:.1} ms  {:.1} MiB  {} descriptors  {:.2} processors",
            mark.at_s,
            mark.live,
            mark.deliveries_per_s,
            mark.p99_ms,
            mark.resident as f64 / f64::from(1 << 20),
            mark.descriptors,
            mark.processors
        )
    }

    /// All marks, with a last one if there are any, and how long messages took so far.
    pub(super) fn end(mut self) -> (Times, Vec<Mark>) {
        if self.each.is_some() {
            self.mark();
        }
        (self.latency, self.marks)
    }
}

fn cpu(pids: &[u32]) -> f64 {
    pids.iter().map(|pid| Usage::of(Some(*pid)).cpu).sum()
}

/// How many descriptors a process has open; 0 where the system does not tell.
pub(super) fn descriptors(pid: u32) -> u64 {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |files| files.count() as u64)
}
