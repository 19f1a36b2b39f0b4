//! The step between this program and one that runs in a region: `mychat sim wan-enter`.
//!
//! A process moves itself into the namespace, asks to be killed when whoever started it dies (so that even a killed
//! run leaves no processes), and becomes the program. All of it takes calls that only the process itself can make.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, ensure};
use clap::Args;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::namespaces;

/// The settings.
#[derive(Debug, Clone, Args)]
pub struct EnterArgs {
    namespace: String,
    parent: i32,
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// The arguments of `mychat` that lead here.
pub(super) fn arguments(namespace: &str, command: &[String]) -> Vec<String> {
    let own = std::process::id().to_string();
    let first = ["sim", "wan-enter", namespace, &own, "--"].map(str::to_owned);
    first.into_iter().chain(command.iter().cloned()).collect()
}

/// Becomes the program. Returns only when that fails.
pub fn run(args: &EnterArgs) -> anyhow::Result<()> {
    namespaces::enter(&args.namespace)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = getppid().map(Pid::as_raw_pid);
    ensure!(parent == Some(args.parent), "whoever started this is gone");
    let (program, arguments) = args.command.split_first().context("there is no command")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("{program} can't be started"))
}
