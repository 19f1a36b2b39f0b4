//! Everything that must be in place before the first line: accounts, a space, and everybody in it, known everywhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use reqwest::Method;
use ring::rand::SecureRandom;
use serde_json::json;
use uuid::Uuid;

use super::api::{Api, Call};
use super::people::Account;
use super::script::Script;

/// How long each step may take, beyond the time that any number of sign-ups needs.
const STEP: Duration = Duration::from_secs(60);
/// How often the nodes are asked whether they know the same.
const POLL: Duration = Duration::from_millis(100);

pub(super) struct Stage {
    pub(super) space: Uuid,
    pub(super) owner: Arc<Account>,
    /// One for each node, at that node.
    pub(super) observers: Vec<Arc<Account>>,
    /// As in the script, spread over the nodes in turn.
    pub(super) speakers: Vec<Arc<Account>>,
}

/// Makes the accounts and the space. Every run has its own, so runs do not meet.
pub(super) async fn prepare(
    api: &Api,
    script: &Script,
    signups: usize,
    progress: &ProgressBar,
) -> anyhow::Result<Stage> {
    let run = Uuid::now_v7().simple().to_string();
    let owner = sign_up(api, 0, format!("owner.{run}@replay.example"), "Replay").await?;
    let (space, created) = create_space(api, &owner, &run).await?;
    let mut observers = Vec::new();
    for (node, place) in api.nodes.iter().enumerate() {
        let email = format!("observer-{node}.{run}@replay.example");
        let observer = sign_up(api, node, email, &format!("Observer in {}", place.region)).await?;
        join(api, &observer, space, created.as_deref()).await?;
        observers.push(observer);
    }
    progress.set_length(script.speakers.len() as u64);
    let signing_up = script.speakers.iter().enumerate().map(|(number, name)| {
        let email = format!("speaker-{number}.{run}@replay.example");
        let created = created.as_deref();
        async move {
            let speaker = sign_up(api, number % api.nodes.len(), email, name).await?;
            join(api, &speaker, space, created).await?;
            progress.inc(1);
            anyhow::Ok(speaker)
        }
    });
    // Collected first: the compiler can't name the lifetimes of a lazy map that is held across an await.
    let signing_up: Vec<_> = signing_up.collect();
    let speakers = stream::iter(signing_up).buffered(signups.max(1)).try_collect().await?;
    agree(api, STEP).await.context("the nodes do not come to know the same accounts and members")?;
    Ok(Stage { space, owner, observers, speakers })
}

async fn sign_up(api: &Api, home: usize, email: String, name: &str) -> anyhow::Result<Arc<Account>> {
    let password = password()?;
    let what = format!("signing up {name:?} failed");
    let (account, _) =
        Account::sign_up(api, home, email, password, name, Instant::now() + STEP).await.context(what)?;
    Ok(Arc::new(account))
}

/// A random password, known to this process only.
fn password() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    ring::rand::SystemRandom::new().fill(&mut bytes).ok().context("the system has no random numbers")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A public space of this run, and the cursor of its creation.
async fn create_space(api: &Api, owner: &Account, run: &str) -> anyhow::Result<(Uuid, Option<String>)> {
    let deadline = Instant::now() + STEP;
    let token = owner.token(api, deadline).await?;
    let body = json!({ "name": format!("replay-{run}"), "visibility": "public" });
    let call = Call::send(&Method::POST, "/v1/spaces", &body).token(&token);
    // Asked once: a space has no key by which a repeat would be known.
    let answer = api.call(owner.home, call).await.context("creating the space failed")?;
    let id = answer.body["id"].as_str().and_then(|id| id.parse().ok());
    Ok((id.context("the answer to creating the space has no id")?, answer.cursor))
}

async fn join(api: &Api, account: &Account, space: Uuid, created: Option<&str>) -> anyhow::Result<()> {
    let deadline = Instant::now() + STEP;
    let token = account.token(api, deadline).await?;
    let (path, body) = (format!("/v1/spaces/{space}/members/me"), json!({ "role": "member" }));
    let call = Call::send(&Method::PUT, &path, &body).token(&token).after(created);
    // The node may not know the space or the account yet.
    api.call_any(account.home, call, &[401, 403, 404], deadline).await.context("joining the space failed")?;
    Ok(())
}

/// Waits until every node holds the same prefix of every site's log.
pub(super) async fn agree(api: &Api, within: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let statuses =
            futures_util::future::join_all((0..api.nodes.len()).map(|node| api.status(node))).await;
        let heads: Vec<Option<BTreeMap<String, u64>>> =
            statuses.into_iter().map(|status| status.ok().map(|status| status.heads)).collect();
        if heads.iter().all(Option::is_some) && heads.windows(2).all(|pair| pair[0] == pair[1]) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let behind = api.nodes.iter().zip(&heads).filter(|(_, heads)| heads.is_none());
            let silent: Vec<_> = behind.map(|(node, _)| node.url.as_str()).collect();
            match silent.is_empty() {
                true => bail!("the nodes still differ after {} s", within.as_secs()),
                false => bail!("no answer from {}", silent.join(", ")),
            }
        }
        tokio::time::sleep(POLL).await;
    }
}
