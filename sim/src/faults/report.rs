//! What is told in the end: how often which fault happened, and what failed.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

use super::{FaultsArgs, shrink::Shortest, world::Outcome};
use crate::virtual_time::Trace;

/// What came out of all seeds.
#[derive(Debug, Serialize)]
pub struct Report {
    seeds: String,
    nodes: u8,
    minutes: u16,
    ran: u64,
    seconds: f64,
    counts: BTreeMap<&'static str, u64>,
    /// The hash over the hashes of all runs.
    trace: String,
    #[serde(skip)]
    traces: BTreeMap<u64, u64>,
    /// What failed.
    pub failures: Vec<Failure>,
}

/// A seed that failed.
#[derive(Debug, Serialize)]
pub struct Failure {
    seed: u64,
    rule: &'static str,
    at_seconds: f64,
    what: String,
    /// The shortest history that was found to fail in the same way.
    history: Vec<String>,
    /// Items of the whole history, and runs that it took to shorten it.
    of: usize,
    runs: usize,
    again: String,
}

impl Failure {
    pub fn new(args: &FaultsArgs, shortest: &Shortest) -> Self {
        let Shortest { plan, objection, of, runs } = shortest;
        let numbers: Vec<String> = plan.numbers().iter().map(usize::to_string).collect();
        let only =
            if plan.items.len() == *of { String::new() } else { format!(" --only {}", numbers.join(",")) };
        Self {
            seed: plan.seed,
            rule: objection.rule.name(),
            at_seconds: objection.at.as_secs_f64(),
            what: objection.what.clone(),
            history: plan
                .items
                .iter()
                .map(|item| format!("{:>10.3} s  #{} {:?}", item.at.as_secs_f64(), item.number, item.what))
                .collect(),
            of: *of,
            runs: *runs,
            again: format!(
                "mychat sim faults --seeds {} --nodes {} --minutes {}{only} --verbose",
                plan.seed, args.nodes, args.minutes
            ),
        }
    }
}

impl Report {
    pub fn new(args: &FaultsArgs) -> Self {
        Self {
            seeds: format!("{}..{}", args.seeds.0.start, args.seeds.0.end),
            nodes: args.nodes,
            minutes: args.minutes,
            ran: 0,
            seconds: 0.0,
            counts: BTreeMap::new(),
            trace: String::new(),
            traces: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    /// Takes note of a seed.
    pub fn add(&mut self, seed: u64, outcome: &Outcome, failure: Option<Failure>) {
        self.ran += 1;
        for (what, times) in &outcome.counts {
            *self.counts.entry(what).or_default() += times;
        }
        self.traces.insert(seed, outcome.trace);
        self.failures.extend(failure);
        self.failures.sort_by_key(|failure| failure.seed);
    }

    /// Everything has run.
    pub fn took(&mut self, time: Duration) {
        self.seconds = time.as_secs_f64();
        let mut all = Trace::default();
        for (seed, trace) in &self.traces {
            all.number(*seed);
            all.number(*trace);
        }
        self.trace = format!("{:016x}", all.value());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, nodes, minutes, ran, seconds, trace, .. } = self;
        writeln!(
            f,
            "{ran} seeds of {seeds}, {nodes} nodes, {minutes} virtual minutes each, in {seconds:.1} s"
        )?;
        writeln!(f, "trace {trace}: the same whenever these seeds run")?;
        let faults = |what: &str| what.starts_with("fault: ");
        for (heading, wanted) in [("What went wrong", true), ("What happened", false)] {
            writeln!(f, "\n{heading}")?;
            for (what, times) in self.counts.iter().filter(|(what, _)| faults(what) == wanted) {
                writeln!(f, "{times:>12}  {}", what.trim_start_matches("fault: "))?;
            }
        }
        for failure in &self.failures {
            let Failure { seed, rule, at_seconds, what, history, of, runs, again } = failure;
            writeln!(f, "\nSeed {seed} breaks {rule} at {at_seconds:.3} s: {what}")?;
            writeln!(f, "The shortest history found ({} of {of} items, {runs} runs):", history.len())?;
            history.iter().try_for_each(|line| writeln!(f, "{line}"))?;
            writeln!(f, "Again: {again}")?;
        }
        if self.failures.is_empty() {
            write!(f, "\nNo rule was broken.")?;
        }
        Ok(())
    }
}
