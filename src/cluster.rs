//! `mychat cluster`: the key that makes nodes one cluster, and a look at one that runs.

mod drain;
pub mod key;
mod members;

use clap::Subcommand;

/// What to do with a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make a new cluster's key: `mychat cluster key > cluster.key`, or replace one while the cluster runs
    ///
    /// Whoever has the key can join the cluster and act as any account. Keep it where only the nodes and the router
    /// can read it.
    Key(key::Key),
    /// Show the nodes, as one of them sees them
    Members(members::Members),
    /// Take a node out of service: clients go to other nodes, and it goes on replicating
    Drain(drain::Drain),
}

/// Runs the command.
pub async fn run(command: ClusterCommand) -> anyhow::Result<()> {
    match command {
        ClusterCommand::Key(args) => key::run(args),
        ClusterCommand::Members(args) => members::run(args).await,
        ClusterCommand::Drain(args) => drain::run(args).await,
    }
}
