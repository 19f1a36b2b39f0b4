//! What `mychat sim chaos` is asked for.

use std::time::Duration;

use clap::{Args, ValueEnum};

/// Which faults, for how long, under which load.
#[derive(Debug, Clone, Args)]
pub struct ChaosArgs {
    /// What is to go wrong; everything if nothing is named.
    #[arg(value_enum, value_name = "SCENARIO")]
    scenarios: Vec<Scenario>,
    /// How often each scenario strikes [default: 20 for kill, 3 for one-way, 4 for restore, 2 for disk-full, 5 for
    /// stall, 20 for storm, 1 for the others].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// How long each strike lasts [default: 60 for partition, 30 for loss, clock and flap, 10 for the others]; kill,
    /// restore and storm have no duration.
    #[arg(long, value_name = "S", value_parser = positive)]
    seconds: Option<f64>,
    /// Messages a second, over all nodes.
    #[arg(long, default_value = "100", value_name = "R", value_parser = positive)]
    rate: f64,
    /// The share of datagrams that `loss` loses, each way.
    #[arg(long, default_value = "5", value_name = "PERCENT", value_parser = percent)]
    loss: f64,
    /// The one-way delay between the nodes, in all scenarios.
    #[arg(long, default_value = "0", value_name = "MS")]
    delay: u64,
    /// What the random decisions come from; a run names its own.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Leave the folders with databases and logs for a look.
    #[arg(long)]
    keep: bool,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Nodes are killed (SIGKILL) at random points and started again; now and then several at once
    Kill,
    /// A node is cut off from the others; all take writes
    Partition,
    /// Datagrams from one node to another, or to all others, are lost; those in the other direction pass
    OneWay,
    /// Datagrams are lost everywhere, both ways
    Loss,
    /// The disk of one node is full for a while (needs root, for a small file system)
    DiskFull,
    /// One node's clock is 10 minutes ahead and another's 10 behind; then they are set right (needs libfaketime)
    Clock,
    /// The data folder of a node is replaced by an older copy of it, as a careless operator would
    Restore,
    /// A node is frozen (SIGSTOP); what passes between the others is timed before and meanwhile
    Stall,
    /// A node is frozen and thawed every second
    Flap,
    /// Kills, stops, cuts, loss and freezes at random, several at a time
    Storm,
    /// All of them
    All,
}

/// The arguments with what was left open filled in.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) rounds: Option<u32>,
    pub(super) seconds: Option<f64>,
    pub(super) rate: f64,
    /// A share of 1.
    pub(super) loss: f64,
    pub(super) delay: Duration,
    pub(super) seed: u64,
    pub(super) keep: bool,
}

impl ChaosArgs {
    pub(super) fn into_parts(self) -> (Vec<Scenario>, Options) {
        let all = self.scenarios.is_empty() || self.scenarios.contains(&Scenario::All);
        let every =
            || Scenario::value_variants().iter().copied().filter(|one| *one != Scenario::All).collect();
        let scenarios = if all { every() } else { self.scenarios };
        let options = Options {
            rounds: self.rounds,
            seconds: self.seconds,
            rate: self.rate,
            loss: self.loss / 100.0,
            delay: Duration::from_millis(self.delay),
            seed: self.seed.unwrap_or_else(rand::random),
            keep: self.keep,
        };
        (scenarios, options)
    }
}

impl Scenario {
    /// As on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl Options {
    pub(super) fn rounds(&self, scenario: Scenario) -> u32 {
        self.rounds.unwrap_or(match scenario {
            Scenario::Kill | Scenario::Storm => 20,
            Scenario::OneWay => 3,
            Scenario::Restore => 4,
            Scenario::DiskFull => 2,
            Scenario::Stall => 5,
            _ => 1,
        })
    }

    pub(super) fn time(&self, scenario: Scenario) -> Duration {
        Duration::from_secs_f64(self.seconds.unwrap_or(match scenario {
            Scenario::Partition => 60.0,
            Scenario::Loss | Scenario::Clock | Scenario::Flap => 30.0,
            _ => 10.0,
        }))
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 1e6 => Ok(number),
        _ => Err("a number between 0 and a million".to_owned()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..100.0).contains(&number) => Ok(number),
        _ => Err("a share between 0 and 100".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        args: ChaosArgs,
    }

    fn parse(line: &str) -> Result<(Vec<Scenario>, Options), clap::Error> {
        Ok(Program::try_parse_from(line.split(' '))?.args.into_parts())
    }

    #[test]
    fn flags_are_read() {
        let (scenarios, options) =
            parse("chaos kill one-way --rounds 200 --seconds 0.5 --seed 7 --loss 20").unwrap();
        assert_eq!(scenarios, [Scenario::Kill, Scenario::OneWay]);
        assert_eq!((options.rounds(Scenario::Kill), options.seed, options.loss), (200, 7, 0.2));
        assert_eq!(options.time(Scenario::Partition), Duration::from_millis(500));
        let (every, options) = parse("chaos").unwrap();
        assert_eq!((every.len(), parse("chaos kill all").unwrap().0.len()), (10, 10));
        assert_eq!(options.time(Scenario::Partition), Duration::from_secs(60));
    }

    #[test]
    fn bad_flags_are_refused_by_name() {
        for (line, name) in [
            ("chaos war", "SCENARIO"),
            ("chaos kill --rounds 0", "--rounds"),
            ("chaos kill --seconds NaN", "--seconds"),
            ("chaos kill --rate 0", "--rate"),
            ("chaos loss --loss 100", "--loss"),
        ] {
            assert!(parse(line).unwrap_err().to_string().contains(name), "{line}");
        }
    }
}
