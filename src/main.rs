//! The `mychat` program: its commands, and the settings of each.
//!
//! The servers themselves are the crates below: `mychat_node` (the chat server), `mychat_router` (where a client should
//! go) and `mychat_sim` (latency and faults). Here they are put together: [`dev`] runs all of them in one process,
//! [`node`] and [`router`] one each; [`cluster`] and [`admin`] talk to running ones. [`settings`] says how a file,
//! the environment and flags make one set of settings.
#![forbid(unsafe_code)]

mod admin;
mod cluster;
mod dev;
mod logging;
mod node;
mod router;
mod settings;
mod stopping;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Chat from identical nodes in many regions.
///
/// Every node takes writes at once, holds everything, and passes it on; a client talks to the nearest one and moves to
/// another without a gap. Start with `mychat dev`.
#[derive(Debug, Parser)]
#[command(name = "mychat", version, propagate_version = true)]
struct Program {
    /// A TOML file with the settings of dev, node and router, each in a section of its name. Environment variables
    /// count more than the file, and flags more than both.
    #[arg(long, global = true, env = "MYCHAT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// What is logged to stderr: a level, or directives such as info,mychat_node=debug [default: info; error for sim,
    /// where nodes come and go on purpose].
    #[arg(long, global = true, env = "MYCHAT_LOG", value_name = "FILTER")]
    log: Option<String>,

    /// How it is logged.
    #[arg(long, global = true, env = "MYCHAT_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: logging::Format,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole cluster in this process: a router and a node per region, with the delays of the real world between
    /// them
    Dev(dev::DevArgs),
    /// Run one node
    Node(node::NodeCommand),
    /// Run the geo router
    Router(router::RouterArgs),
    /// Make a cluster's key, look at a cluster
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Measure and simulate
    #[command(subcommand)]
    Sim(mychat_sim::SimCommand),
    /// Operate a cluster
    #[command(subcommand)]
    Admin(admin::AdminCommand),
}

fn main() -> ExitCode {
    let program = match Program::try_parse() {
        Ok(program) => program,
        Err(error) => return misused(&error),
    };
    let usual = if matches!(program.command, Command::Sim(_)) { "error" } else { "info" };
    let log = program.log.as_deref().unwrap_or(usual);
    if let Err(error) = logging::start(log, program.log_format) {
        eprintln!("mychat: {}", in_one_line(&error));
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mychat: the runtime can't start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(program));
    // A task that blocks must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mychat: {}", in_one_line(&error));
            exit_code(&error)
        }
    }
}

/// Says in one line what is wrong with the command's arguments; help is printed as it is.
fn misused(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    let asked = !error.use_stderr();
    if asked || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Whoever does not want to read it has closed the pipe.
        let _ = error.print();
        return if asked { ExitCode::SUCCESS } else { ExitCode::from(2) };
    }
    let text = error.to_string();
    let (wrong, _) = text.split_once("\n\n").unwrap_or((&text, ""));
    let wrong = wrong.strip_prefix("error: ").unwrap_or(wrong);
    eprintln!("mychat: {}; --help tells more", unbroken(wrong));
    ExitCode::from(2)
}

/// A text of several lines as one, without the excerpts of a file that an error of TOML has between them.
fn unbroken(text: &str) -> String {
    let excerpt =
        |line: &str| line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit()).starts_with('|');
    let lines = text.lines().filter(|line| !excerpt(line)).map(str::trim);
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// 77 (`EX_NOPERM` of sysexits.h) where the machine or the user is not fit for `sim wan`, so that scripts can tell.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(|cause| cause.is::<mychat_sim::netns::CannotRunHere>()) {
        return ExitCode::from(77);
    }
    ExitCode::FAILURE
}

/// An error with its causes. Some errors name their cause themselves, which must not stand there twice.
fn in_one_line(error: &anyhow::Error) -> String {
    error.chain().map(|cause| unbroken(&cause.to_string())).fold(String::new(), |text, cause| {
        if text.is_empty() {
            cause
        } else if text.contains(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}

async fn run(program: Program) -> anyhow::Result<()> {
    let file = settings::File::read(program.config.as_deref())?;
    match program.command {
        Command::Dev(args) => dev::run(args.over(file.dev)).await,
        Command::Node(args) => node::run(args, file.node).await,
        Command::Router(args) => router::run(args.over(file.router)).await,
        Command::Cluster(command) => cluster::run(command).await,
        Command::Sim(command) => mychat_sim::run(command).await,
        Command::Admin(command) => admin::run(command).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn a_cause_is_named_once() {
        let error = anyhow::anyhow!("no such file")
            .context("a.key can't be read: no such file")
            .context("--cluster-key");
        assert_eq!(super::in_one_line(&error), "--cluster-key: a.key can't be read: no such file");
        let error =
            anyhow::anyhow!("error at line 1, column 1\n  |\n1 | prt = 1\n  | ^^^\nunknown field `prt`\n");
        assert_eq!(super::in_one_line(&error), "error at line 1, column 1 unknown field `prt`");
    }

    #[test]
    fn the_commands_are_well_formed() {
        super::Program::command().debug_assert();
    }
}
