//! The commands `mychat sim …`.

use anyhow::{Context, bail};
use clap::Subcommand;
use indicatif::MultiProgress;

use crate::bench::{self, BenchCommand};
use crate::chaos::{self, ChaosArgs};
use crate::faults::{self, FaultsArgs};
use crate::latency::{self, LatencyArgs};
use crate::model::calibrate::{self, CalibrateArgs};
#[cfg(target_os = "linux")]
use crate::netns;
use crate::plan::{self, PlanArgs};
use crate::probe::{self, ProbeArgs};
use crate::replay::{self, ReplayArgs};
use crate::streams::{self, StreamsArgs, send_loop::SendLoopArgs};

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
    /// Measure how long messages take between people around the world, with real nodes in these regions
    ///
    /// Nodes, router, QUIC and databases are the real ones, in this process; the distances between them and to the
    /// people are emulated. Everybody goes where the router sends them. The report shows send to delivery and send to
    /// acknowledgement by city and region beside the floor of light in fibre, and what one central server would have
    /// given the same people.
    ///
    /// Examples:
    ///   mychat sim latency
    ///   mychat sim latency --regions fra,iad,sin --html latency.html --json latency.json
    ///   mychat sim latency --regions iad --users people.csv --rate 50 --duration 60
    ///   sudo mychat sim latency --wan --duration 20
    ///
    /// A file of people (weights in any unit, last_mile_ms may be left out):
    ///   city,lat,lon,weight,last_mile_ms
    ///   Berlin,52.5,13.4,120,15
    ///   Denver,39.7,-105.0,45,30
    #[command(verbatim_doc_comment)]
    Latency(LatencyArgs),
    /// Find the smallest set of regions that keeps a promise of latency
    ///
    /// The promise is a percentile of send to delivery over all pairs of people, by how many people they stand for. The
    /// report has the best set of 1, 2, 3, … regions, and checks the answer over real nodes. The exit status is not zero
    /// when the promise can't be kept.
    ///
    /// Examples:
    ///   mychat sim plan --slo p95=250ms
    ///   mychat sim plan --users people.csv --slo p95=150ms --max-regions 5 --html plan.html
    ///   mychat sim plan --candidates fra,iad,sin,gru --slo p99=0.3s --no-check --json plan.json
    #[command(verbatim_doc_comment)]
    Plan(PlanArgs),
    /// Time what a person has here and now: the way to real nodes, and a message until its own event
    ///
    /// DNS, connection, TLS and the first byte of an answer; then a throw-away account posts messages and waits for
    /// them on its event stream, and is removed again. With a router it shows which node that would choose.
    ///
    /// Examples:
    ///   mychat sim probe http://127.0.0.1:8081 http://127.0.0.1:8082 --router http://127.0.0.1:8080
    ///   mychat sim probe http://127.0.0.1:8081 --count 200 --json
    #[command(verbatim_doc_comment)]
    Probe(ProbeArgs),
    /// Fit the latency model to measured round trips, and show what it gets wrong
    ///
    /// Latency and plan take the ways between cities from a model: distance, the speed of light in fibre, and how much
    /// longer cables are. Its constants are fitted on two thirds of the round trips that providers publish for their
    /// regions; the error on the other third is what to expect of it.
    ///
    /// Examples:
    ///   mychat sim calibrate
    ///   mychat sim calibrate --rtt measured.csv --json
    #[command(verbatim_doc_comment)]
    Calibrate(CalibrateArgs),
    /// Hold very many event streams open at running nodes, post messages, and check what every one of them gets
    ///
    /// Accounts and spaces are made at the first node, streams opened at all of them, and messages posted at a steady
    /// rate. Each client must get each message of its space once; one whose stream is lost goes on at the next node from
    /// its cursor. The report has deliveries a second, how long messages took, how long connecting and resuming took,
    /// and what the servers used for it. The exit status is not zero when a client missed a message or got one twice.
    ///
    /// Examples (P, Q: process ids of nodes):
    ///   Fan-out of one space:
    ///     mychat sim streams --nodes http://127.0.0.1:8081 --clients 10000 --rate 10 --pid P
    ///   Many spaces, ten readers each:
    ///     mychat sim streams --nodes http://127.0.0.1:8081 --clients 10000 --spaces 1000 --rate 1000 --pid P
    ///   The same beside nchan on nginx and a bare send(2) loop, by turns; it starts all three:
    ///     mychat sim streams --peer nchan --clients 10000 --rate 10 --rounds 5
    ///     mychat sim streams --peer nchan --clients 10000 --spaces 1000 --rate 1000
    ///   The most that one space can be given:
    ///     mychat sim streams --nodes http://127.0.0.1:8081 --clients 10000 --rate 100 --until-p99 1s --pid P
    ///   Memory of an idle stream, and with TLS ended by a proxy (Q: its worker):
    ///     mychat sim streams --nodes http://127.0.0.1:8081 --clients 19000 --idle --duration 10s --pid P
    ///     mychat sim streams --nodes http://127.0.0.1:8081 --clients 10000 --idle --tls 127.0.0.1:8443 --pid P Q
    ///   A node dies with its 10,000 streams (P: that of the first node, Q R: of the others):
    ///     mychat sim streams --nodes http://127.0.0.1:8081 http://127.0.0.1:8082 http://127.0.0.1:8083 \
    ///       --clients 10000 --homes 1 --kill P --pid Q R
    ///   Readers that stall (compare p99 with a run without them):
    ///     mychat sim streams --nodes http://127.0.0.1:8081 --clients 10000 --stalled 1% --rate 50
    ///   An hour of coming and going:
    ///     mychat sim streams --nodes http://127.0.0.1:8081 --clients 5000 --churn 50 --duration 1h --marks 5m --pid P
    #[command(verbatim_doc_comment)]
    Streams(StreamsArgs),
    /// The least that a server of event streams can do, for `streams --peer`
    #[command(hide = true)]
    SendLoop(SendLoopArgs),
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
    /// Run whole processes as if they were in different regions: delays, loss, bandwidth, partitions
    ///
    /// Each region is a network namespace, and COMMAND runs in each of them, unmodified; this process carries every
    /// packet between them as the topology says, and takes orders that change it while everything runs. For testing
    /// what you are about to deploy. Needs root and Linux with TUN devices (and iproute2), but no netem.
    #[cfg(target_os = "linux")]
    #[command(verbatim_doc_comment)]
    Wan(netns::WanArgs),
    /// Give an order to a running mychat sim wan
    ///
    /// Examples:
    ///   mychat sim wan-ctl status
    ///   mychat sim wan-ctl partition fra iad,syd
    ///   mychat sim wan-ctl partition 'fra -> iad'
    ///   mychat sim wan-ctl --run 1234 delay fra iad 80ms
    ///   mychat sim wan-ctl heal
    #[cfg(target_os = "linux")]
    #[command(verbatim_doc_comment)]
    WanCtl(netns::ControlArgs),
    /// What sim wan starts its processes through
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    WanEnter(netns::EnterArgs),
}

/// Runs a command and prints its report. Fails when it could not be carried out or found a fault.
pub async fn run(command: SimCommand) -> anyhow::Result<()> {
    match command {
        SimCommand::Replay(args) => replay(args).await,
        SimCommand::Bench(command) => bench::run(command, &MultiProgress::new()).await,
        SimCommand::Chaos(args) => chaos::run(args).await,
        SimCommand::Latency(args) => latency::run(args).await,
        SimCommand::Plan(args) => plan::run(args).await,
        SimCommand::Probe(args) => probe::run(args).await,
        SimCommand::Calibrate(args) => calibrate::run(&args),
        SimCommand::Streams(args) => streams::run(args, &MultiProgress::new()).await,
        SimCommand::SendLoop(args) => tokio::task::block_in_place(|| streams::send_loop::run(&args)),
        SimCommand::Faults(args) => faults::run(args).await,
        #[cfg(target_os = "linux")]
        SimCommand::Wan(args) => netns::run(args).await,
        #[cfg(target_os = "linux")]
        SimCommand::WanCtl(args) => netns::control(args).await,
        #[cfg(target_os = "linux")]
        SimCommand::WanEnter(args) => netns::enter(&args),
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
    fn the_questions_of_latency_have_defaults() {
        let command = |line: &str| Program::try_parse_from(line.split(' ')).unwrap().command;
        let SimCommand::Latency(args) = command("sim latency") else { panic!("latency") };
        assert_eq!((args.regions.join(","), args.rate, args.duration), ("fra,iad,syd".to_owned(), 30.0, 30));
        assert_eq!(args.world.load().unwrap().0.len(), 81);
        let SimCommand::Plan(args) = command("sim plan --slo p99=0.3s --candidates FRA,sin") else {
            panic!("plan")
        };
        assert_eq!((args.slo.percentile, args.slo.ms), (99.0, 300.0));
        assert_eq!(args.candidates, ["fra", "sin"]);
        let SimCommand::Probe(args) = command("sim probe http://a:1 https://b --router http://c --at -1.5,2")
        else {
            panic!("probe")
        };
        assert_eq!((args.nodes.len(), args.at.map(|at| at.lat())), (2, Some(-1.5)));
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
            ("sim latency --regions fra,atlantis", "--regions"),
            ("sim latency --rate 0", "--rate"),
            ("sim latency --duration 1", "--duration"),
            ("sim latency --population mars", "--population"),
            ("sim latency --population world --users a.csv", "--users"),
            ("sim latency --last-mile=-1", "--last-mile"),
            ("sim plan --slo fast", "--slo"),
            ("sim plan --max-regions 0", "--max-regions"),
            ("sim plan --candidates atlantis", "--candidates"),
            ("sim plan --metric speed", "--metric"),
            ("sim wan", "TOPOLOGY.toml"),
            ("sim wan --patience soon a.toml", "--patience"),
            ("sim wan-ctl", "ORDER"),
            ("sim probe", "URL"),
            ("sim probe a:1", "URL"),
            ("sim probe http://a --at 1,2", "--router"),
            ("sim probe http://a --count 0", "--count"),
        ] {
            assert!(parse(line).unwrap_err().to_string().contains(name), "{line}");
        }
    }
}
