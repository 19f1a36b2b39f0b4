//! `mychat admin import`: IRC logs into a space.
//!
//! Every line has a key made of its file, number and text, so a repeated import finds what is there and adds only what
//! is missing: an import that broke off is resumed by the same command.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use mychat_node::{admin::Operator, names};
use mychat_replication::cluster::ClusterKey;
use mychat_sim::irc::{self, Line};
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::target::{self, Failure, Refusal};
use crate::node::{check_url, read_key};

/// Lines that go to the node in one call.
const PORTION: usize = 400;
/// Faults that are named; the others are counted.
const NAMED: usize = 20;
/// How often a portion is tried again while the node can't take it.
const TRIES: u32 = 6;

/// What to import and where.
#[derive(Debug, Args)]
#[command(
    after_help = "Speakers become accounts that nobody can sign in to; their lines become messages with their times.
The same command again resumes an import that broke off.

Example, while `mychat dev` runs:
  mychat admin import --irc 2004-12-25.log 2005-06-16.log --space ubuntu"
)]
pub struct ImportArgs {
    /// Logs of one day each, named YYYY-MM-DD.log.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    irc: Vec<PathBuf>,
    /// The name of the space; made if no import has made it yet, and public.
    #[arg(long, value_name = "NAME")]
    space: String,
    /// The URL of any node, or of the router.
    #[arg(long, env = "MYCHAT_NODE", default_value = "http://127.0.0.1:8081", value_name = "URL")]
    node: String,
    /// The file with the cluster's key.
    #[arg(long, env = "MYCHAT_CLUSTER_KEY", default_value = "mychat-data/cluster.key", value_name = "FILE")]
    cluster_key: PathBuf,
}

#[derive(Serialize)]
struct Portion {
    space: String,
    lines: Vec<Said>,
}

#[derive(Serialize)]
struct Said {
    nick: String,
    at: String,
    body: String,
    key: String,
}

#[derive(Deserialize)]
struct Answer {
    space: Option<String>,
    accepted: u64,
    known: u64,
    rejected: Vec<Rejected>,
}

#[derive(Deserialize)]
struct Rejected {
    key: String,
    why: String,
}

#[derive(Deserialize)]
struct Problem {
    detail: String,
}

#[derive(Default)]
struct Summary {
    space: Option<String>,
    accepted: u64,
    known: u64,
    notices: u64,
    replaced: u64,
    faults: u64,
    named: Vec<String>,
}

impl Summary {
    fn fault(&mut self, what: String) {
        self.faults += 1;
        if self.named.len() < NAMED {
            self.named.push(what);
        }
    }
}

/// Imports, shows how far it is, and sums up.
pub async fn run(args: ImportArgs) -> anyhow::Result<()> {
    check_url("--node", &args.node)?;
    let fit = names::check(&args.space);
    let space = fit.map_err(|unfit| anyhow::anyhow!("--space {:?}: a name {unfit}", args.space))?;
    let mut importer = Importer {
        client: target::client().timeout(Duration::from_secs(60)).build()?,
        given: args.node,
        node: None,
        key: read_key(&args.cluster_key)?,
        space,
    };
    // Every file is looked at before anything is imported.
    let mut size = 0;
    for file in &args.irc {
        irc::open(file, None)?;
        size += std::fs::metadata(file).with_context(|| file.display().to_string())?.len();
    }
    let bar = ProgressBar::new(size).with_style(ProgressStyle::with_template(
        "{wide_bar} {percent:>3} %  {bytes}/{total_bytes}  {msg}  {eta} left",
    )?);
    let mut summary = Summary::default();
    for file in &args.irc {
        bar.set_message(name_of(file));
        if let Err(error) = importer.file(file, &mut summary, &bar).await {
            bar.abandon();
            eprintln!("{summary}");
            return Err(explained(error, &args.cluster_key));
        }
    }
    bar.finish_and_clear();
    println!("{summary}");
    Ok(())
}

/// What an import that ended early comes to: what has to be changed, or that it can be taken up again.
fn explained(error: anyhow::Error, key: &Path) -> anyhow::Error {
    match error.downcast_ref::<Refusal>() {
        Some(refusal) if refusal.status == StatusCode::UNAUTHORIZED => {
            let wrong = format!(
                "--cluster-key {}: it is not the key of this cluster, or the clocks differ",
                key.display()
            );
            error.context(wrong)
        }
        Some(_) => error.context("the import can't go on like this"),
        None => error.context("the import broke off; the same command resumes it"),
    }
}

struct Importer {
    /// Follows no redirects.
    client: reqwest::Client,
    /// The URL of a node or router.
    given: String,
    /// The node that it leads to, while that answers.
    node: Option<String>,
    key: ClusterKey,
    space: String,
}

impl Importer {
    async fn file(&mut self, file: &Path, summary: &mut Summary, bar: &ProgressBar) -> anyhow::Result<()> {
        let name = name_of(file);
        let before = bar.position();
        let mut lines = Vec::new();
        for entry in irc::open(file, None)? {
            let entry = entry.with_context(|| format!("{} can't be read", file.display()))?;
            summary.replaced += u64::from(entry.replaced);
            match entry.line {
                Line::Message { time, nick, text, action } => {
                    lines.push(said(&name, entry.number, time, nick, &text, action)?);
                }
                Line::Notice => summary.notices += 1,
                Line::Malformed { why } => summary.fault(format!("{name}:{}: {why}", entry.number)),
            }
            if lines.len() == PORTION {
                self.send(std::mem::take(&mut lines), summary).await?;
                bar.set_position(before + entry.offset);
            }
        }
        self.send(lines, summary).await?;
        bar.set_position(before + std::fs::metadata(file)?.len());
        Ok(())
    }

    async fn send(&mut self, lines: Vec<Said>, summary: &mut Summary) -> anyhow::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let answer = self.post(lines).await?;
        summary.accepted += answer.accepted;
        summary.known += answer.known;
        summary.space = answer.space.or(summary.space.take());
        for Rejected { key, why } in answer.rejected {
            summary.fault(format!("{key}: {why}"));
        }
        Ok(())
    }

    /// A portion may be sent again: the node knows its lines by their keys.
    async fn post(&mut self, lines: Vec<Said>) -> anyhow::Result<Answer> {
        let portion = Portion { space: self.space.clone(), lines };
        let (mut pause, mut tries) = (Duration::from_millis(250), 1);
        loop {
            match self.try_post(&portion).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Refused(refusal)) => return Err(refusal.into()),
                Err(Failure::Broken(error)) if tries >= TRIES => return Err(error),
                Err(Failure::Broken(_)) => tries += 1,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// Sends to the node that took the portion before, or else to the one that the URL leads to now.
    async fn try_post(&mut self, portion: &Portion) -> Result<Answer, Failure> {
        let node = match self.node.take() {
            Some(node) => node,
            None => target::node_at(&self.client, &self.given).await?,
        };
        let call = self.client.post(format!("{node}/v1/admin/import"));
        let sent = call.bearer_auth(Operator::token(&self.key)).json(portion).send().await;
        let response = sent.with_context(|| format!("{node} does not answer"))?;
        let status = response.status();
        if status.is_success() {
            self.node = Some(node);
            return Ok(response.json().await.context("the node's answer is not understood")?);
        }
        if status.is_server_error() {
            return Err(anyhow::anyhow!("{node} answers {status}").into());
        }
        let detail = response.json::<Problem>().await.map(|problem| problem.detail).unwrap_or_default();
        Err(Failure::Refused(Refusal { by: node, status, detail }))
    }
}

fn said(
    file: &str,
    number: u64,
    time: OffsetDateTime,
    nick: String,
    text: &str,
    action: bool,
) -> anyhow::Result<Said> {
    let body = irc::markdown(text, action);
    Ok(Said { key: format!("irc:{file}:{number}"), at: time.format(&Rfc3339)?, nick, body })
}

fn name_of(file: &Path) -> String {
    file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = format!("{} messages imported", self.accepted);
        if self.known > 0 {
            write!(text, ", {} were there already", self.known)?;
        }
        if let Some(space) = &self.space {
            write!(text, " (space {space})")?;
        }
        write!(text, "; {} joins, parts and other notices left out", self.notices)?;
        if self.replaced > 0 {
            write!(text, "; {} lines had bytes that are not UTF-8, shown as \u{fffd}", self.replaced)?;
        }
        if self.faults > 0 {
            write!(text, "; {} lines could not be imported:", self.faults)?;
            for fault in &self.named {
                write!(text, "\n  {fault}")?;
            }
            if self.faults > self.named.len() as u64 {
                write!(text, "\n  and {} more", self.faults - self.named.len() as u64)?;
            }
        }
        f.write_str(&text)
    }
}
