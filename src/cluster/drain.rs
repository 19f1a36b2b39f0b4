//! `mychat cluster drain`: takes a node out of service, and back.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail, ensure};
use clap::Args;
use mychat_node::admin::Operator;
use reqwest::StatusCode;

use super::members::ask;
use crate::{admin::target, node::read_key};

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which node.
#[derive(Debug, Args)]
pub struct Drain {
    /// The node: its URL, its region, or the start of its id.
    #[arg(value_name = "NODE")]
    which: String,
    /// Take it back into service.
    #[arg(long)]
    undo: bool,
    /// The URL of any node, which knows where the others are.
    #[arg(long, env = "MYCHAT_NODE", default_value = "http://127.0.0.1:8081", value_name = "URL")]
    node: String,
    /// The file with the cluster's key.
    #[arg(long, env = "MYCHAT_CLUSTER_KEY", default_value = "mychat-data/cluster.key", value_name = "FILE")]
    cluster_key: PathBuf,
}

/// Runs the command.
pub async fn run(args: Drain) -> anyhow::Result<()> {
    let key = read_key(&args.cluster_key)?;
    let http = reqwest::Client::builder().timeout(PATIENCE).build()?;
    // The token goes to the node that is meant and to nothing that this one may name.
    let direct = target::client().timeout(PATIENCE).build()?;
    let url = match args.which.contains("://") {
        true => args.which.trim_end_matches('/').to_owned(),
        false => find(&http, &args.node, &args.which).await?,
    };
    let path = format!("{url}/v1/admin/drain");
    let call = if args.undo { direct.delete(path) } else { direct.put(path) };
    let answer = call.bearer_auth(Operator::token(&key)).send().await;
    let answer = answer.with_context(|| format!("{url} does not answer"))?;
    match answer.status() {
        StatusCode::UNAUTHORIZED => bail!(
            "{url} does not accept {}: it is not its cluster's key, or the clocks differ",
            args.cluster_key.display()
        ),
        status => ensure!(status.is_success(), "{url} answers {status}: is it a node of MyChat?"),
    }
    println!("{url} is {} service", if args.undo { "back in" } else { "out of" });
    Ok(())
}

/// The URL of the node that is meant.
async fn find(http: &reqwest::Client, at: &str, which: &str) -> anyhow::Result<String> {
    let seen = ask(http, at).await?;
    let own = (seen.id, seen.region, Some(seen.url));
    let others = seen.peers.into_iter().map(|peer| (peer.id, peer.region, peer.url));
    let meant: Vec<_> = std::iter::once(own)
        .chain(others)
        .filter(|(id, region, _)| region == which || id.starts_with(which))
        .collect();
    match &meant[..] {
        [(_, _, Some(url))] => Ok(url.clone()),
        [(id, ..)] => bail!("{at} does not know the URL of {id} yet"),
        [] => bail!("{at} knows no node {which}: name its URL, its region or the start of its id"),
        several => bail!("{which} fits {} nodes: name one by its URL or the start of its id", several.len()),
    }
}
