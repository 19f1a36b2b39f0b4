//! `mychat admin`: what operators do to a running cluster, as holders of its key.

mod import;
pub mod target;

use clap::Subcommand;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Import the logs of another system into a space
    Import(import::ImportArgs),
}

/// Runs the command.
pub async fn run(command: AdminCommand) -> anyhow::Result<()> {
    match command {
        AdminCommand::Import(args) => import::run(args).await,
    }
}
