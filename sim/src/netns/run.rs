//! The command: from a topology to processes that run on it, until they end or somebody stops them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::control;
use super::network::Network;
use super::processes::{End, Output, Processes};
use super::steer::Order;
use super::topology::{HOST, Topology};

/// The settings of `mychat sim wan`.
#[derive(Debug, Clone, Args)]
#[command(after_help = include_str!("help.txt"))]
pub struct WanArgs {
    /// The file with the regions and what is between them.
    #[arg(value_name = "TOPOLOGY.toml")]
    pub topology: PathBuf,
    /// Write what the processes say into a file for each region in this folder, instead of to the standard output.
    #[arg(long, value_name = "DIR")]
    pub logs: Option<PathBuf>,
    /// How long processes may take to stop when they are asked to, in seconds; then they are killed.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub patience: u64,
    /// What runs in each region, with placeholders.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Runs `mychat sim wan`.
///
/// # Errors
/// Names what is wrong with the topology or the machine, and processes that failed.
pub async fn run(args: WanArgs) -> anyhow::Result<()> {
    let read = Topology::read(&args.topology);
    let mut topology = read.with_context(|| args.topology.display().to_string())?;
    if !args.command.is_empty() {
        topology.run_everywhere(args.command);
    }
    // Once before anything is made, so that mistakes leave no trace.
    commands(&topology)?;
    let output = match args.logs {
        None => Output::Named,
        Some(folder) => {
            let made = std::fs::create_dir_all(&folder);
            made.with_context(|| format!("--logs {}", folder.display()))?;
            Output::Folder(folder)
        }
    };
    // From here on Ctrl-C must find somebody who cleans up.
    let mut stop = Stop::listen()?;
    let network = Network::start(topology)?;
    let mut orders = control::listen(&network.run().socket())?;
    announce(&network);
    let mut processes = Processes::default();
    let commands = commands(network.topology())?;
    for (region, command) in &commands {
        processes.start(&network, *region, command, &output)?;
    }
    let mut failed = Vec::new();
    loop {
        tokio::select! {
            () = stop.asked() => break,
            Some(asked) = orders.recv() => {
                let order = asked.order.parse::<Order>();
                let answer = order.as_ref().map_err(Clone::clone).and_then(|order| network.order(order));
                // Whoever has gone away needs no answer.
                let _ = asked.answer.send(answer);
                if order == Ok(Order::Stop) {
                    break;
                }
            }
            end = processes.next_end(), if !commands.is_empty() => match end {
                Some(end) => failed.extend(report(&end)),
                None => break,
            },
        }
    }
    // Whoever gives an order from here on is told that it is too late, instead of waiting for an answer.
    drop(orders);
    let patience = Duration::from_secs(args.patience);
    let late = tokio::select! {
        late = processes.stop(patience) => late,
        () = stop.asked() => vec!["what was still running".to_owned()],
    };
    drop((processes, network));
    failed.extend(late.into_iter().map(|name| format!("{name} had to be killed")));
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}

/// Everything that is to run, by region.
fn commands(topology: &Topology) -> anyhow::Result<Vec<(usize, Vec<String>)>> {
    let mut commands = Vec::new();
    for process in topology.processes() {
        let regions = match process.region {
            Some(region) => region..region + 1,
            None => 0..topology.names().len(),
        };
        for region in regions {
            let command = topology.command_in(region, &process.command).map_err(anyhow::Error::msg)?;
            ensure!(!command[0].is_empty(), "the command is empty");
            commands.push((region, command));
        }
    }
    Ok(commands)
}

fn announce(network: &Network) {
    let (topology, number) = (network.topology(), network.run().number());
    println!(
        "The network is up. Give orders here (help shows them), or elsewhere: mychat sim wan-ctl --run {number} …"
    );
    for (at, name) in topology.names().enumerate() {
        println!(" {name}  {}  ip netns exec {} …", topology.address(at), network.namespace(at));
    }
    if topology.host() {
        println!(" {HOST}  {}  this machine", topology.subnet().host());
    }
}

/// Says how a process ended; what went wrong with it, if anything.
fn report(end: &End) -> Option<String> {
    let text = match &end.status {
        Ok(status) if status.success() => {
            println!("{} has ended", end.name);
            return None;
        }
        Ok(status) => format!("{} has ended ({status})", end.name),
        Err(error) => format!("{} is lost: {error}", end.name),
    };
    eprintln!("mychat: {text}");
    Some(text)
}

/// Ctrl-C and SIGTERM, as often as they come.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
