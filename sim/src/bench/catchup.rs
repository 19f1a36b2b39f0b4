//! How a node comes to hold what it lacks: a million messages that were written while it was away, or everything.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use indicatif::ProgressBar;

use super::cluster::{Cluster, NAMES, NODES};
use super::fill;
use super::klukai;
use super::mychat;
use super::relay::{Carried, Relay};
use super::settings::{CatchupArgs, System};
use super::sheet::{Better, Sheet};
use super::storage::{Storage, storage};
use super::usage::Usage;
use super::wire::Connection;

/// How long nothing may move before it counts as stuck.
const STUCK: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(50);
/// The node that has everything, and the one that lacks it.
const FULL: usize = 0;
const BEHIND: usize = 2;

/// How it is done, for the report.
pub(super) fn method(args: &CatchupArgs) -> Vec<String> {
    let start = if args.empty { "empty" } else { "with what was there before" };
    let relay = match (args.no_relay, args.delay_ms) {
        (true, _) => String::new(),
        (false, 0) => ", with a UDP relay between them that adds no delay and counts".to_owned(),
        (false, delay) => format!(", with a UDP relay between them that adds {delay} ms each way and counts"),
    };
    let mut method = vec![
        format!("Two processes on this machine{relay}: A has {} messages more than C.", args.messages),
        format!(
            "They were written while C and B were stopped, as copies of a posted message of {} bytes with other \
             texts, {} a version, by A's own store while A was stopped.",
            args.setup.general.body_bytes, args.per_version
        ),
        format!("Then A is started, and once it is ready, C, {start}. B stays away."),
        "Level: from the start of C's process until it holds all that A holds, by their version vectors.".to_owned(),
        "Wire: what A wrote to streams of logs and snapshots (its own metrics), and the contents of all UDP datagrams both \
         ways until then, without the headers of UDP and IP."
            .to_owned(),
        "Disk: pages by SQLite's dbstat, once C has stopped; replicated are the tables with a cr-sqlite clock, with \
         their clocks, keys and indexes, beyond the text of the messages; local are those that a node derives."
            .to_owned(),
    ];
    if let Some(above) = args.snapshot_above {
        method.push(format!("C takes a snapshot when it lacks more than {above} versions."));
    }
    if !args.no_check {
        method.push("In the end the histories of both were read, and were the same.".to_owned());
    }
    method.extend(args.setup.peer.map(|peer| {
        format!(
            "{} Its messages were posted to A alone, as many to a transaction as stand in a version.",
            klukai::method(peer)
        )
    }));
    method
}

/// Fails when the program can't do what is asked, before anything is started.
pub(super) async fn check(args: &CatchupArgs) -> anyhow::Result<()> {
    if args.snapshot_above.is_some() {
        let help = tokio::process::Command::new(mychat::program()?).args(["node", "--help"]).output().await?;
        let known = String::from_utf8_lossy(&help.stdout).contains("--snapshot-above");
        ensure!(known, "--snapshot-above: nodes of this program do not take snapshots");
    }
    Ok(())
}

/// One run.
pub(super) async fn measure(system: &System, args: &CatchupArgs, bar: &ProgressBar) -> anyhow::Result<Sheet> {
    let delay = (!args.no_relay).then_some(Duration::from_millis(args.delay_ms.into()));
    let mut cluster = Cluster::start(system, &args.setup, delay).await?;
    let empty = prepare(&mut cluster, system, args, bar).await?;
    let before = Counts::of(&cluster, system).await?;
    let began = Instant::now();
    cluster.servers.start_one(BEHIND)?;
    bar.set_message("catching up");
    until_level(&mut cluster, system, args.messages, bar).await?;
    let took = began.elapsed();
    let after = Counts::of(&cluster, system).await?;
    if !args.no_check {
        bar.set_message("comparing the nodes");
        compare(&cluster, args.messages + 1).await?;
    }
    cluster.servers.stop().await?;
    let held = storage(&cluster.database(BEHIND))?.since(empty);
    let mut sheet = Sheet::new(&["value"]);
    let messages = args.messages as f64;
    sheet.row("level after", "s", Better::Lower, &[took.as_secs_f64()]);
    sheet.row("caught up", "messages/s", Better::Higher, &[messages / took.as_secs_f64()]);
    costs(&mut sheet, messages, &before, &after);
    let text = args.setup.general.body_bytes as f64;
    for (name, bytes) in [
        ("disk a message, replicated beyond the text", held.replicated as f64 / messages - text),
        ("disk a message, local", held.local as f64 / messages),
        ("disk a message, other", held.other as f64 / messages),
    ] {
        sheet.row(name, "bytes", Better::Lower, &[bytes]);
    }
    Ok(sheet)
}

/// What each message took of processors, memory and the wire.
fn costs(sheet: &mut Sheet, messages: f64, before: &Counts, after: &Counts) {
    for at in [FULL, BEHIND] {
        let cpu = (after.usage[at].cpu - before.usage[at].cpu) / messages * 1e6;
        sheet.row(format!("processor time a message, {}", NAMES[at]), "µs", Better::Lower, &[cpu]);
    }
    for at in [FULL, BEHIND] {
        let peak = after.usage[at].peak as f64 / 1e6;
        sheet.row(format!("resident at most, {}", NAMES[at]), "MB", Better::Lower, &[peak]);
    }
    if let (Some(before), Some(after)) = (before.sent, after.sent) {
        sheet.row("wire a message, streams", "bytes", Better::Lower, &[(after - before) / messages]);
    }
    if let (Some(before), Some(after)) = (before.carried, after.carried) {
        let bytes = (after.bytes - before.bytes) as f64;
        sheet.row("wire a message, datagrams", "bytes", Better::Lower, &[bytes / messages]);
        let lost = (after.dropped - before.dropped) as f64;
        sheet.row("datagrams lost in the relay", "", Better::Neither, &[lost]);
    }
}

/// Brings A to where it has everything and runs, and B and C to where they do not run; gives what C's database took.
async fn prepare(
    cluster: &mut Cluster,
    system: &System,
    args: &CatchupArgs,
    bar: &ProgressBar,
) -> anyhow::Result<Storage> {
    let mut first = Connection::open(cluster.http(FULL)).await?;
    let status = first.status_of(cluster.post(FULL).numbered(0)).await?;
    ensure!(status == cluster.accepted(), "the first message was answered with {status}");
    let deadline = Instant::now() + STUCK;
    while !cluster.is_level(1).await? {
        ensure!(Instant::now() < deadline, "the nodes do not become level");
        tokio::time::sleep(POLL).await;
    }
    cluster.servers.stop().await?;
    let empty = storage(&cluster.database(BEHIND))?;
    if args.empty {
        tokio::fs::remove_dir_all(&cluster.servers.places[BEHIND].data).await?;
        if let System::Klukai(_) = system {
            tokio::fs::create_dir(&cluster.servers.places[BEHIND].data).await?;
        }
    }
    bar.set_message("filling A");
    match system {
        System::MyChat => {
            fill::mychat(&cluster.database(FULL), args.messages, args.per_version, bar).await?;
            if let Some(above) = args.snapshot_above {
                cluster.servers.add_arguments(BEHIND, ["--snapshot-above".to_owned(), above.to_string()]);
            }
        }
        System::Klukai(_) => {
            cluster.servers.start_one(FULL)?;
            cluster.servers.ready().await?;
            let size = args.setup.general.body_bytes;
            fill::klukai(cluster.http(FULL), args.messages, args.per_version, size, bar).await?;
        }
    }
    if cluster.servers.running[FULL].is_none() {
        cluster.servers.start_one(FULL)?;
        cluster.servers.ready().await?;
    }
    Ok(empty)
}

/// What has been used and sent at a moment.
struct Counts {
    usage: [Usage; NODES],
    /// By the relay, where there is one.
    carried: Option<Carried>,
    /// By A, to streams of logs and of snapshots, where it tells.
    sent: Option<f64>,
}

impl Counts {
    async fn of(cluster: &Cluster, system: &System) -> anyhow::Result<Self> {
        let node = cluster.http(FULL);
        let sent = match system {
            System::MyChat => {
                let logs = mychat::metric(node, "mychat_replication_sent_bytes_total").await?;
                Some(logs + mychat::metric(node, "mychat_snapshot_sent_bytes_total").await?)
            }
            System::Klukai(_) => None,
        };
        let carried = cluster.servers.relay.as_ref().map(Relay::carried);
        Ok(Self { usage: cluster.servers.usage(), carried, sent })
    }
}

/// Waits until C holds all that A holds.
async fn until_level(
    cluster: &mut Cluster,
    system: &System,
    messages: u64,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let (full, behind) = (cluster.http(FULL), cluster.http(BEHIND));
    let wanted = match system {
        System::MyChat => Some(heads(full).await?),
        System::Klukai(_) => None,
    };
    let (mut moved, mut last) = (Instant::now(), 0);
    loop {
        // It takes no calls in the beginning.
        let (held, of) = match &wanted {
            Some(wanted) => {
                (heads(behind).await.map_or(0, |heads| common(&heads, wanted)), wanted.values().sum())
            }
            None => (klukai::count(behind).await.unwrap_or_default(), messages + 1),
        };
        bar.set_length(of);
        bar.set_position(held);
        if held >= of {
            return Ok(());
        }
        if held > last {
            (moved, last) = (Instant::now(), held);
        }
        let server = cluster.servers.running[BEHIND].as_mut().context("the node was started")?;
        server.check()?;
        if moved.elapsed() > STUCK {
            bail!("C is stuck at {held} of {of}:\n{}", server.tail());
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn heads(node: std::net::SocketAddr) -> anyhow::Result<BTreeMap<String, u64>> {
    Ok(serde_json::from_value(mychat::heads(node).await?)?)
}

/// How many of the wanted versions are held.
fn common(held: &BTreeMap<String, u64>, wanted: &BTreeMap<String, u64>) -> u64 {
    wanted.iter().map(|(site, version)| (*version).min(held.get(site).copied().unwrap_or(0))).sum()
}

async fn compare(cluster: &Cluster, messages: u64) -> anyhow::Result<()> {
    let full = cluster.contents_of(FULL).await?;
    ensure!(full.0 == messages, "A has {} messages of {messages} that it was given", full.0);
    let behind = cluster.contents_of(BEHIND).await?;
    ensure!(full == behind, "C has {} messages of {messages}, or other ones than A", behind.0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wanted_versions_count() {
        let heads = |list: &[(&str, u64)]| list.iter().map(|(site, at)| ((*site).to_owned(), *at)).collect();
        let wanted: BTreeMap<String, u64> = heads(&[("a", 10), ("b", 5), ("c", 0)]);
        for (held, count) in
            [(heads(&[]), 0), (heads(&[("a", 4), ("x", 9)]), 4), (heads(&[("a", 12), ("b", 5)]), 15)]
        {
            assert_eq!(common(&held, &wanted), count);
        }
    }
}
