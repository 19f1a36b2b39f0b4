//! Many seeds: each a world of its own, over databases in a folder of its own.

use std::{
    collections::BTreeMap,
    ops::{ControlFlow, Range},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use mychat_replication::mutation::Mutation;
use tempfile::TempDir;

use super::{
    FaultsArgs,
    disk::Templates,
    plan::Plan,
    report::{Failure, Report},
    shrink,
    world::{Outcome, World},
};
use crate::virtual_time::{Counts, Objection, Rule, Time, seeds};

/// What all runs have in common.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Nodes at the start.
    pub nodes: usize,
    /// How long things go wrong.
    pub lasts: Time,
    /// A deliberate fault in the code under test; needs the feature `mutations`.
    pub mutation: Option<Mutation>,
}

/// What is needed to run seeds: a folder in memory, and databases to begin with.
pub struct Runs {
    folder: TempDir,
    templates: Arc<Templates>,
    settings: Settings,
    next: AtomicU64,
}

impl Runs {
    /// Prepares runs.
    ///
    /// # Errors
    /// When there is no place for the databases.
    pub fn new(settings: Settings) -> anyhow::Result<Self> {
        // What is written there costs no disk; where there is no such place, any will do.
        let memory = PathBuf::from("/dev/shm");
        let folder = match tempfile::Builder::new().prefix("mychat-faults-").tempdir_in(memory) {
            Ok(folder) => folder,
            Err(_) => tempfile::tempdir().context("no folder for the databases")?,
        };
        let templates = quietly(|| Templates::new(folder.path()))?;
        Ok(Self { folder, templates: Arc::new(templates), settings, next: AtomicU64::new(0) })
    }

    /// The whole history of a seed.
    pub(super) fn plan(&self, seed: u64) -> Plan {
        Plan::of(seed, self.settings.nodes, self.settings.lasts)
    }

    /// Runs a seed.
    #[must_use]
    pub fn seed(&self, seed: u64) -> Outcome {
        self.history(self.plan(seed), false)
    }

    /// Runs seeds on all processors.
    #[must_use]
    pub fn all(&self, seeds: Range<u64>) -> Outcomes {
        let outcomes = Mutex::new(Outcomes::default());
        seeds::each(seeds, |seed| {
            let Outcome { counts, objection, .. } = self.seed(seed);
            let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
            for (what, times) in counts {
                *outcomes.counts.entry(what).or_default() += times;
            }
            outcomes.objections.extend(objection.map(|objection| (seed, objection)));
            ControlFlow::Continue(())
        });
        outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a history.
    pub(super) fn history(&self, plan: Plan, verbose: bool) -> Outcome {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.path().join(number.to_string());
        let world = World::new(plan, Arc::clone(&self.templates), folder.clone(), verbose);
        switch(self.settings.mutation);
        let ran = quietly(|| catch_unwind(AssertUnwindSafe(|| world.run())));
        switch(None);
        let _ = std::fs::remove_dir_all(folder);
        ran.unwrap_or_else(|panic| {
            let what = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|what| (*what).to_owned()))
                .unwrap_or_default();
            let objection = Objection { rule: Rule::Panic, at: Time::ZERO, what };
            Outcome { counts: BTreeMap::new(), trace: 0, objection: Some(objection) }
        })
    }
}

/// What came out of several seeds.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// How often each thing happened.
    pub counts: Counts,
    /// Which seeds broke which rule.
    pub objections: BTreeMap<u64, Objection>,
}

#[cfg(feature = "mutations")]
fn switch(mutation: Option<Mutation>) {
    mychat_replication::mutation::switch(mutation);
}

#[cfg(not(feature = "mutations"))]
fn switch(_: Option<Mutation>) {}

/// What nodes log about the faults is expected, and would be too much.
fn quietly<T>(run: impl FnOnce() -> T) -> T {
    tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), run)
}

/// Runs the seeds and prints the report. Fails when a rule is broken.
///
/// # Errors
/// Names the seeds that failed.
pub async fn run(args: FaultsArgs) -> anyhow::Result<()> {
    let json = args.json.clone();
    let report = tokio::task::spawn_blocking(move || run_all(&args)).await??;
    println!("{report}");
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&report)?;
        let written = tokio::fs::write(&file, text).await;
        written.with_context(|| format!("the report can't be written to {}", file.display()))?;
    }
    match report.failures.as_slice() {
        [] => Ok(()),
        failures => bail!("{} of the seeds failed", failures.len()),
    }
}

fn run_all(args: &FaultsArgs) -> anyhow::Result<Report> {
    let lasts = Duration::from_secs(60 * u64::from(args.minutes));
    let settings = Settings { nodes: usize::from(args.nodes), lasts, mutation: None };
    let runs = Runs::new(settings)?;
    let range = args.seeds.0.clone();
    if args.only.is_some() && range.end - range.start != 1 {
        bail!("--only needs a single seed, as in --seeds 17");
    }
    let bar = ProgressBar::new(range.end - range.start);
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} seeds {msg} [{elapsed}, {eta} to go]");
    // The template is a constant and well formed.
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let report = Mutex::new(Report::new(args));
    let began = Instant::now();
    seeds::each(range, |seed| {
        let whole = runs.plan(seed);
        let plan = args.only.as_ref().map_or_else(|| whole.clone(), |only| whole.only(only));
        let outcome = runs.history(plan.clone(), args.verbose);
        bar.inc(1);
        let failure = outcome.objection.clone().map(|objection| {
            bar.set_message(format!("seed {seed} failed, its history is shortened"));
            let (again, patience) =
                (|plan| runs.history(plan, false).objection, Duration::from_secs(args.shrink));
            Failure::new(args, &shrink::shrink(again, plan, objection, patience))
        });
        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
        report.add(seed, &outcome, failure);
        // A few tell as much as many.
        if report.failures.len() >= 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.took(began.elapsed());
    Ok(report)
}
