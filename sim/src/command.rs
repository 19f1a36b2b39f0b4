//! The commands `mychat sim …`.

use anyhow::{Context, bail};
use clap::Subcommand;
use indicatif::MultiProgress;

use crate::bench::{self, BenchCommand};
use crate::chaos::{self, ChaosArgs};
use crate::faults::{self, FaultsArgs};
use crate::replay::{self, ReplayArgs};

/// What to simulate or measure.
#[derive(Debug, Clone, Subcommand)]
pub enum SimCommand {
    /// Play IRC logs live over running nodes, and check and time every delivery
    ///
    /// The speakers become accounts, spread over the nodes; their lines are posted at a steady rate; an observer at
    /// each node reads the events. The report shows for each pair of regions how long messages took and how much of it
    /// is not the network's delay, and whether all nodes hold the same in the end. The exit status is not zero when a
    /// message was lost or doubled, or nodes differ.
    ///
    /// Example: mychat sim replay --irc 2004-12-25.log --rate 200 --nodes http://127.0.0.1:8081 http://127.0.0.1:8082
    #[command(verbatim_doc_comment)]
    Replay(ReplayArgs),
    /// Measure how fast real processes on this machine are
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Break things under load: kill, cut off, freeze, starve and restore three real nodes, and check what is left
    ///
    /// For each scenario three nodes run as processes in a temporary folder, with relays between them that can lose and
    /// cut. Clients post at a steady rate all the while, and readers follow the events by their cursors. In the end
    /// every acknowledged message must be on all nodes exactly once, all nodes must hold the same, and every reader
    /// must have seen everything once. The report names what is not so, and then the exit status is not zero.
    ///
    /// Examples:
    ///   mychat sim chaos
    ///   mychat sim chaos kill --rounds 200
    ///   mychat sim chaos partition --seconds 600 --rate 50
    ///   mychat sim chaos loss one-way --delay 40 --loss 10 --seed 7 --keep
    #[command(verbatim_doc_comment)]
    Chaos(ChaosArgs),
    /// Run whole nodes in virtual time under every kind of fault, decided by seeds, and check the invariants
    ///
    /// Each seed is one world in one thread: nodes with real databases over a simulated network, clock, disk and
    /// scheduler, and clients that post, edit, delete, react, enter and leave spaces and move between nodes. Messages
    /// are late, lost, doubled and overtaken; nodes are cut off, crash and lose what was not synced, come back on an
    /// older copy, join, leave and are upgraded; disks are slow or full, clocks wrong. Judges check at every step that
    /// nothing acknowledged is lost, no version has two contents, logs have no gaps, equal vectors mean equal tables,
    /// every client gets everything once and nothing that it may not read, and that queues are bounded.
    ///
    /// The same seed gives the same run, on every machine. For a seed that fails the shortest history that fails in the
    /// same way is looked for, and printed with the command that repeats it; then the exit status is not zero.
    ///
    /// Examples:
    ///   mychat sim faults --seeds 0..500
    ///   mychat sim faults --seeds 1000..1100 --nodes 3 --minutes 30
    ///   mychat sim faults --seeds 17 --only 3,8,12 --verbose
    #[command(verbatim_doc_comment)]
    Faults(FaultsArgs),
}

/// Runs a command and prints its report. Fails when it could not be carried out or found a fault.
pub async fn run(command: SimCommand) -> anyhow::Result<()> {
    match command {
        SimCommand::Replay(args) => replay(args).await,
        SimCommand::Bench(command) => bench::run(command, &MultiProgress::new()).await,
        SimCommand::Chaos(args) => chaos::run(args).await,
        SimCommand::Faults(args) => faults::run(args).await,
    }
}

async fn replay(args: ReplayArgs) -> anyhow::Result<()> {
    let json = args.json.clone();
    let report = replay::run(args.into(), &MultiProgress::new()).await?;
    println!("{report}");
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&report)?;
        let written = tokio::fs::write(&file, text).await;
        written.with_context(|| format!("the report can't be written to {}", file.display()))?;
    }
    match report.faults() {
        faults if faults.is_empty() => Ok(()),
        faults => bail!("the replay found faults: {}", faults.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(subcommand)]
        command: SimCommand,
    }

    fn parse(line: &str) -> Result<ReplayArgs, clap::Error> {
        match Program::try_parse_from(line.split(' '))?.command {
            SimCommand::Replay(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_are_read_as_the_contract_has_them() {
        Program::command().debug_assert();
        let args = parse("sim replay --irc a.log b.log --rate 200 --nodes http://a:1/ http://b:2 --lines 9")
            .unwrap();
        assert_eq!((args.irc.len(), args.rate, args.lines), (2, 200.0, Some(9)));
        assert_eq!(args.nodes, ["http://a:1", "http://b:2"]);
        assert_eq!(parse("sim replay --irc a --nodes http://a:1,http://b:2").unwrap().nodes.len(), 2);
    }

    #[test]
    fn bad_flags_are_refused_by_name() {
        for (line, name) in [
            ("sim replay --nodes http://a:1", "--irc"),
            ("sim replay --irc a", "--nodes"),
            ("sim replay --irc a --nodes a:1", "--nodes"),
            ("sim replay --irc a --nodes http://a:1 --rate 0", "--rate"),
            ("sim replay --irc a --nodes http://a:1 --rate NaN", "--rate"),
            ("sim replay --irc a --nodes http://a:1 --lines 0", "--lines"),
        ] {
            assert!(parse(line).unwrap_err().to_string().contains(name), "{line}");
        }
    }
}
